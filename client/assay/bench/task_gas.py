"""Gas of an undisputed task from submission to settlement, on a local chain: exact mode, one verifier, two segments of
eight drawn. The roots are made up: without a dispute no contract looks behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from assay.chain.sender import Call
from assay.commitments import tree
from assay.commitments.execution import ReplayLeaf as ClaimLeaf
from assay.commitments.execution import claim_root, derived_false_claim
from assay.errors import AssayError
from assay.market.abi import interface_of
from assay.market.connection import Market
from assay.market.local import LocalMarket, local_market
from assay.market.types import NO_DERIVATION, Checkpoint, Posting, ReplayLeaf, Shown, TaskState
from assay.market.verification import hidden_of, is_forced, salt_of
from assay.program.encoding import encode_header
from assay.program.operator import (
    Body,
    ElementType,
    Operand,
    Operator,
    Program,
    Role,
    Section,
    Source,
    StateEntry,
    TensorDescriptor,
)

SEGMENTS, INTERVAL = 8, 100
ETHER = 10**18
SEAT_FACTOR = 4
DAY = 86_400
GAS_LIMIT = 16_000_000


class TaskGasError(AssayError):
    """The task did not come to its end."""

    code = "task-gas"


class _Play:
    """Sends from the node's own accounts and adds up the gas of the task's transactions."""

    def __init__(self, running: LocalMarket) -> None:
        self.market: Market = running.market
        self.web3 = running.market.chain.web3
        accounts: Sequence[str] = self.web3.eth.accounts
        self.submitter, self.solver, self.verifier = accounts[1], accounts[2], accounts[3]
        self.gas: dict[str, int] = {}

    def send(self, sender: str, call: Call, name: str | None = None) -> Any:
        """Send a call and return its receipt; counted under `name` if one is given."""
        fields: Any = {"from": sender, "to": call.to, "data": call.data, "value": call.value, "gas": GAS_LIMIT}
        # Asked first: a refusal then names its reason.
        self.market.chain.ask(name or "a preparation", lambda: self.web3.eth.call(fields))
        receipt = self.web3.eth.wait_for_transaction_receipt(self.web3.eth.send_transaction(fields))
        if receipt["status"] != 1:
            raise TaskGasError(f"{name or 'a preparation'} was reverted: run scripts/test contracts for the cause")
        if name is not None:
            self.gas[name] = int(receipt["gasUsed"])
        return receipt

    def rpc(self, method: str, *parameters: Any) -> Any:
        return self.web3.provider.make_request(method, list(parameters))["result"]  # type: ignore[arg-type]

    def wait(self, seconds: int) -> None:
        self.rpc("evm_increaseTime", seconds)
        self.rpc("evm_mine")

    def mine(self, blocks: int) -> None:
        for _ in range(blocks):
            self.rpc("evm_mine")


def _named(*words: object) -> bytes:
    return sha256(repr(words).encode()).digest()


def _header() -> bytes:
    """The header of a small exact program."""
    count = 4096
    copy = Operator(Body.COPY, ElementType.FLOAT, (count,), (Operand(Source.STATE, 0, count, (1,)),))
    state = (TensorDescriptor("weights", ElementType.FLOAT, (count,)),)
    return encode_header(Program(state, (), (), (Section(Role.STEP, (copy,), (StateEntry(0),)),)))


def _prepare(play: _Play) -> None:
    """Stakes of solver and verifier, and the verifier's seat."""
    stakes = play.market.stakes
    seat = stakes.seat()
    play.send(play.solver, stakes.deposit(100 * ETHER))
    play.send(play.verifier, stakes.deposit(SEAT_FACTOR * seat))
    play.send(play.verifier, stakes.enlist(1, 100))


@dataclass(frozen=True)
class TaskFigures:
    """Gas by transaction of an undisputed task, and bytes of code of every contract of the market it ran on."""

    gas: dict[str, int]
    sizes: dict[str, int]


def measure_task(say: Callable[[str], None]) -> TaskFigures:
    """Deploy the market and take one task through it; raises `TaskGasError` where it does not settle."""
    with local_market(options=("--block-base-fee-per-gas", "0")) as running:
        play = _Play(running)
        states = [_named("state", number) for number in range(SEGMENTS + 1)]
        posting = Posting(
            header=_header(),
            graph_hash=_named("graph"),
            lowering=1,
            data_root=_named("data"),
            initial_root=states[0],
            base_task=0,
            task_seed=7,
            steps=SEGMENTS * INTERVAL,
            interval=INTERVAL,
            exact=True,
            verifiers=1,
            per_verifier=2,
            profile_segments=0,
            lowest_reward=4 * ETHER,
            highest_reward=10 * ETHER,
            verifier_fee=ETHER,
            profiler_fee=0,
            auction_seconds=3600,
            train_seconds=7200,
            locations="ipfs://task",
        )
        _prepare(play)
        task = _submit_and_register(play, posting, states)
        drawn = _verify(play, task, states)
        play.wait(DAY)
        play.send(play.solver, play.market.settlement.settle(task), "settle")
        if play.market.tasks.state(task) is not TaskState.SETTLED:
            raise TaskGasError(f"task {task} is {play.market.tasks.state(task).name.lower()}, not settled")
        say(f"an undisputed task: {sum(play.gas.values())} gas in {len(play.gas)} transactions, {drawn} segments drawn")
        web3, addresses = play.web3, play.market.addresses
        return TaskFigures(
            play.gas, {name: len(web3.eth.get_code(web3.to_checksum_address(addresses[name]))) for name in addresses}
        )


def _submit_and_register(play: _Play, posting: Posting, states: list[bytes]) -> int:
    tasks = play.market.tasks
    receipt = play.send(play.submitter, tasks.submit(posting, tasks.escrow_of(posting)), "submit")
    events = [interface_of("Market").event_of(log) for log in receipt["logs"]]
    (task,) = [int(event.arguments["taskId"]) for event in events if event is not None and event.name == "Submitted"]
    play.send(play.solver, tasks.take(task), "take")
    levels = tree.levels(states)
    proofs = tree.proof_of(levels, 0), tree.proof_of(levels, SEGMENTS)
    register = tasks.register(task, levels[-1][0], states[-1], proofs[0], proofs[1], "ipfs://proof")
    play.send(play.solver, register, "register")
    play.mine(play.market.deployment.parameters.draw_delay + 1)
    play.send(play.solver, play.market.verification.draw(task, 0), "draw")
    return task


def _verify(play: _Play, task: int, states: list[bytes]) -> int:
    """Commit, show and disclose, in a round whose true claim is shown (the lottery is tried until it is). Returns the
    number of segments drawn."""
    verification, parameters = play.market.verification, play.market.deployment.parameters
    round_id, _ = verification.current_round(task, 0)
    segments = verification.segments(task, 0)
    truth = [ClaimLeaf(s, states[s + 1], 0, _named("trace", s)) for s in segments]
    levels = tree.levels(states)
    for attempt in range(100):
        snapshot = play.rpc("evm_snapshot")
        secret = _named("secret", attempt)
        lie = derived_false_claim(truth, secret, task, round_id)
        hidden = hidden_of(secret, 0, play.verifier, round_id, claim_root(truth), claim_root(lie))
        play.send(play.verifier, verification.commit(round_id, hidden), "commit")
        play.mine(parameters.join_blocks + 2)
        seed = play.market.seeds.lottery(verification.round(round_id).lottery_block, round_id)
        if not is_forced(secret, seed, parameters.forced_rate):
            break
        play.rpc("evm_revert", snapshot)
    leaves = [ReplayLeaf(leaf.end_root, leaf.distance_bits, leaf.trace_root) for leaf in truth]
    checkpoints = [Checkpoint(states[s + 1], tuple(tree.proof_of(levels, s + 1))) for s in segments]
    salt = salt_of(secret, round_id, 0)
    play.send(play.verifier, verification.show_replay(round_id, hidden, 0, salt, leaves, checkpoints), "show")
    shown_by = play.market.verification.round(round_id)
    now = int(play.web3.eth.get_block("latest")["timestamp"])
    play.wait(max(0, shown_by.reveals_until - now) + 1)
    shown = Shown(hidden, seed, 0, claim_root(truth), bytes(32), True)
    play.send(play.verifier, verification.disclose(round_id, secret, 0, shown, NO_DERIVATION), "disclose")
    return len(truth)
