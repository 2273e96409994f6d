"""The arena of the attacks: the real contracts on a live chain, honest roles beside dishonest ones, and the books.

A test lets roles in by name (`arena.enter("solver", Solver())`), or acts as an account (`arena.account("thief")`),
plays, and says what everybody has gained. Roles are the market's own, each with an account, a state folder and files of
its own; they run in turns in this process, and time passes only while nobody has anything to do, so a play goes the
same way every time. A lottery that decides about a test is fixed by the parameters: no round is forced, or all are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from eth_account import Account
from fast_chain import JobsAtOnce, WritingProvider, remember
from money import Books
from parties import Party, Pending, RefusedError

from assay.chain.sender import Call, FeePolicy, Sender
from assay.demo.stage import COURT, PARAMETERS
from assay.market.connection import Market, open_chain
from assay.market.local import LocalMarket, local_market
from assay.market.parameters import Parameters
from assay.market.reader import MarketReader
from assay.market.records import TaskRecord
from assay.market.types import MILLION, AnswerState, Place, Posting, ShareState, TaskState
from assay.roles.bench import Workbench
from assay.roles.context import Player
from assay.roles.metrics import Metrics
from assay.roles.node import Node
from assay.state import StateFolder
from assay.storage.directory import DirectoryStore
from assay.tasks.bundle import Bundle
from assay.tasks.chunks import entry_of
from assay.tasks.posting import make_posting
from assay.tasks.publish import publish_bundle
from assay.tasks.task_file import TaskFile

COIN = 10**18
TICK_SECONDS = 50
WINDOWS = {
    "forced_rate": 0,
    "commit_seconds": 400,
    "answer_seconds": 240,
    "reveal_seconds": 240,
    "disclose_seconds": 240,
    "dispute_seconds": 240,
    "volunteer_seconds": 240,
    "demand_seconds": 120,
    "hold_seconds": 600,
    "train_seconds": 600,
    "unbonding_seconds": 600,
    "join_blocks": 4,
}
"""Short windows, each several ticks long: an honest role looks at the chain after every tick, and is never late.
Three accounts can join a round: every transaction is a block."""
QUIET = PARAMETERS.with_changes(WINDOWS)
FORCED = QUIET.with_changes({"forced_rate": 1_000_000})
BOUNTY = QUIET.draw_bounty
CLOCKS = replace(COURT, allowance=240, extension=60)
ACCOUNTS = 16
MOST_TICKS = 200
MOST_TURNS = 300


@dataclass
class Arena:
    """A market, the parties in it, and the books about them."""

    local: LocalMarket
    folder: Path
    file: TaskFile
    bundle: Bundle
    nodes: dict[str, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._provider = WritingProvider(self.local.chain.url)
        self.market = self._connect()
        self.store = DirectoryStore(self.folder / "store")
        self.reader = MarketReader(self.market)
        self._parties: dict[str, Party] = {}
        self.books = Books(self.market)
        self.account("deployer")
        self.submitter = self.account("submitter")

    def _connect(self) -> Market:
        """A connection of its own: whoever has one looks at the market as of a block of its own."""
        chain = open_chain(self.local.chain.url)
        remember(chain, self._provider)
        return Market(chain, self.local.deployment)

    # ---- Parties ----------------------------------------------------------------------------------------------------

    def account(self, name: str) -> Party:
        """The account of a party; a new name gets an account of its own, with a full wallet."""
        if name not in self._parties:
            signer = Account.from_key(self.local.chain.private_keys[len(self._parties)])
            party = self._parties[name] = Party(self.market, name, signer)
            self.books.enter(name, party.address)
        return self._parties[name]

    def enter(
        self, name: str, *players: Player, bench: type[Workbench] = Workbench, account: str | None = None
    ) -> Node:
        """Let a node with these roles in, under an account of its own or another party's."""
        party = self.account(account or name)
        folder = self.folder / name
        state = StateFolder(folder)
        market = self._connect()
        sender = Sender(market.chain, party.signer, state, FeePolicy(tip=0))
        work = bench(folder / "work", (self.store,), state)
        node = SeededNode(market, sender, state, work, players, Metrics(name), pause=0)
        node.jobs = JobsAtOnce(clock=lambda: float(self.now))
        self.nodes[name] = node
        return node

    def leave(self, name: str) -> None:
        """Take a node out; what it has on chain stays."""
        self.nodes.pop(name).state.close()

    def address(self, name: str) -> str:
        return self.account(name).address

    # ---- Tasks ------------------------------------------------------------------------------------------------------

    def posting(self, verifiers: int = 1, drawn: int = 2, **changes: Any) -> Posting:
        """The tiny task's posting for some verifiers, each drawn for some segments; further fields may be changed."""
        locations = publish_bundle(self.store, self.bundle)
        terms = replace(self.file.market, verifiers=verifiers, segments_per_verifier=drawn)
        return replace(make_posting(self.bundle, terms, locations, self.parameters), **changes)

    @property
    def parameters(self) -> Parameters:
        return self.market.parameters

    def submit(self, posting: Posting | None = None, by: str = "submitter") -> int:
        """Post a task; its number."""
        posting = posting or self.posting()
        escrow = self.market.tasks.escrow_of(posting)
        known = set(self.view.tasks)
        self.account(by).send(self.market.tasks.submit(posting, escrow))
        self.reader.poll()
        (task,) = set(self.view.tasks) - known
        return task

    @property
    def view(self) -> Any:
        """The market as the newest block has it."""
        return self.reader.view

    def task(self, task: int) -> TaskRecord:
        found: TaskRecord = self.view.task(task)
        return found

    def state(self, task: int) -> TaskState:
        return self.market.tasks.state(task)

    # ---- Time -------------------------------------------------------------------------------------------------------

    def rpc(self, method: str, *values: Any) -> Any:
        """A call to the node itself."""
        answer = self.market.chain.web3.provider.make_request(method, list(values))  # type: ignore[arg-type]
        assert "error" not in answer, answer
        return answer.get("result")

    def tick(self, seconds: int = TICK_SECONDS, blocks: int = 1) -> None:
        """Let time pass, and mine."""
        time = int(self.market.chain.web3.eth.get_block("latest")["timestamp"])
        self.rpc("evm_setNextBlockTimestamp", time + seconds)
        for _ in range(blocks):
            self.rpc("evm_mine")

    @property
    def now(self) -> int:
        return int(self.market.chain.web3.eth.get_block("latest")["timestamp"])

    # ---- Play -------------------------------------------------------------------------------------------------------

    def turn(self) -> bool:
        """Every node looks at the chain once. Whether any of them did something."""
        acted = [node.turn() for node in self.nodes.values()]
        self.reader.poll()
        return any(acted) or any(node.sender.pending() for node in self.nodes.values())

    def settle_down(self, done: Callable[[], bool] = lambda: False) -> None:
        """Let everybody do all that can be done now, or until `done`."""
        for _ in range(MOST_TURNS):
            if done() or not self.turn():
                return
        raise AssertionError(f"still busy after {MOST_TURNS} turns without time passing: {self.describe()}")

    def play(self, done: Callable[[], bool], most_ticks: int = MOST_TICKS) -> None:
        """Let the nodes play until `done`, and time pass while nobody does anything."""
        for _ in range(most_ticks):
            self.settle_down(done)
            if done():
                return
            self.tick()
        raise AssertionError(f"not done after {most_ticks} ticks: {self.describe()}")

    def play_task(self, task: int | None = None) -> TaskRecord:
        """A task from its submission until it is over and everything was released and collected."""
        number = self.submit() if task is None else task
        self.play(lambda: self.task(number).state.is_over)
        self.settle_down()
        return self.task(number)

    @contextmanager
    def waiting(self) -> Iterator[Callable[[], list[Pending]]]:
        """Nothing is mined meanwhile, and everybody sees what waits; at the end all that waits is mined in one block,
        the higher tip first."""
        self.rpc("evm_setAutomine", False)

        def pool() -> list[Pending]:
            content = self.rpc("txpool_content")["pending"]
            checksummed = self.market.chain.web3.to_checksum_address
            return [
                Pending(
                    checksummed(each["from"]),
                    Call(checksummed(each["to"]), bytes.fromhex(each["input"][2:]), int(each["value"], 16)),
                )
                for queue in content.values()
                for each in queue.values()
            ]

        try:
            yield pool
            self.rpc("evm_mine")
        finally:
            self.rpc("evm_setAutomine", True)
        self.reader.poll()

    def succeeded(self, digest: bytes) -> bool:
        """Whether a mined transaction did what it was for."""
        receipt = self.market.chain.web3.eth.get_transaction_receipt(digest)  # type: ignore[arg-type]
        return bool(receipt["status"] == 1)

    def demand(self, task: int, round_id: int) -> Call:
        """A demand for the first chunk of the last checkpoint."""
        place = Place(False, self.task(task).segments, 0, 0)
        entry = entry_of(self.bundle.task.program, place)
        header = self.task(task).posting.header
        return self.market.demands.demand(task, round_id, place, header, entry, self.parameters.demand_price)

    def anyone(self, call: Call) -> None:
        """Somebody does what anybody may do, unless a role has done it already."""
        with suppress(RefusedError):
            self.account("deployer").send(call)
        self.reader.poll()

    # ---- The end ----------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Do what anybody may do once tasks are over: release their rounds, close accusations, collect bonds."""
        anyone = self.account("deployer")
        self.reader.poll()
        for task in list(self.view.tasks.values()):
            if not task.state.is_over:
                continue
            # Claims disclosed before their task ended in another way keep their windows.
            until = max(
                (self.view.claims.lines[number].until for number in task.rounds if number in self.view.claims.lines),
                default=0,
            )
            if until >= self.now:
                self.tick(until - self.now + 1)
                self.settle_down()
                task = self.task(task.id)
            for line in task.accusations:
                if not self.view.claims.lines[line].is_closed:
                    anyone.send(self.market.claims.close_accusation(line))
            for share in task.shares.values():
                if share.state not in (ShareState.NONE, ShareState.RELEASED):
                    anyone.send(self.market.settlement.release(task.id, share.number))
        self.reader.poll()
        for found in self.view.rounds.values():
            for account, state in found.answers.items():
                if state is not AnswerState.COLLECTED:
                    anyone.send(self.market.answers.collect(found.id, account))

    def conclude(
        self, *attackers: str, honest: int = 0, promised: Mapping[str, int] | None = None, most: int = 0, held: int = 0
    ) -> Mapping[str, int]:
        """An attack is over and did not pay: together the attackers gained at most `most` (nothing, unless a limit is
        documented), and less than the `honest` gain of somebody honest in their place; everybody honest has at least
        what was `promised`; and the books add up, with `held` wei still in use. Returns the gains, gas left aside.
        """
        self.sweep()
        gains, gas = self.books.gains(), self.books.gas()
        together = sum(gains[name] for name in attackers)
        assert together <= most, f"the attack paid {together}: {gains}"
        assert together - sum(gas[name] for name in attackers) < honest, f"as good as honest: {together}, {gains}"
        for name, least in (promised or {}).items():
            assert gains[name] >= least, f"the {name} was promised {least} and gained {gains[name]}: {gains}"
        self.books.assert_balanced(held)
        return gains

    # ---- What is promised -------------------------------------------------------------------------------------------

    def price_of(self, task: int) -> int:
        return self.task(task).price

    def fee_of(self, task: int) -> int:
        """Fee of one verifier."""
        return self.task(task).posting.verifier_fee

    def cost_of(self, task: int) -> int:
        """The most a task costs its submitter."""
        return int(self.market.tasks.escrow_of(self.task(task).posting))

    def step_back_charge(self, task: int) -> int:
        """What a verifier pays that steps back from a task."""
        return int(self.market.verification.ask("stepBackCharge", self.price_of(task)))

    def found_share(self, task: int) -> int:
        """What whoever finds a failed proof gets of the solver's stake."""
        fees = self.task(task).posting.verifiers * self.fee_of(task)
        return (self.market.tasks.stake(task) - fees) * self.parameters.finder_rate // MILLION

    def describe(self) -> str:
        """Where everything stands, for a test that hangs."""
        tasks = [task.state.name for task in self.view.tasks.values()]
        rounds = [found.state.name for found in self.view.rounds.values()]
        doing = {
            name: [sent.key for sent in node.sender.pending()] + list(node.jobs._failures)
            for name, node in self.nodes.items()
        }
        return f"tasks {tasks}, rounds {rounds}, open cases {list(self.view.claims.open_cases())}, waiting for {doing}"

    def close(self) -> None:
        """Close what the nodes have open."""
        for name in list(self.nodes):
            self.leave(name)
        self.reader.close()


class SeededNode(Node):
    """A node whose secrets follow from its account: a test plays the same way every time."""

    def secret(self, name: str) -> bytes:
        return sha256(f"{self.sender.address}:{name}".encode()).digest()


@contextmanager
def market_on_a_chain(parameters: Parameters) -> Iterator[LocalMarket]:
    """A chain with the market whose time goes on by ticks only, not by the clock of the machine."""
    options = ("--gas-limit", "60000000", "--timestamp", "1800000000")
    with local_market(parameters, CLOCKS, accounts=ACCOUNTS, options=options) as local:
        local.market.chain.web3.provider.make_request("anvil_setBlockTimestampInterval", [1])  # type: ignore[arg-type]
        yield local


@contextmanager
def arena_on(local: LocalMarket, folder: Path, task: tuple[TaskFile, Bundle]) -> Iterator[Arena]:
    """An arena on a chain that is put back afterwards to where it was."""
    provider = local.market.chain.web3.provider
    snapshot = provider.make_request("evm_snapshot", [])["result"]  # type: ignore[arg-type]
    arena = Arena(local, folder, *task)
    try:
        yield arena
    finally:
        arena.close()
        provider.make_request("evm_revert", [snapshot])  # type: ignore[arg-type]
