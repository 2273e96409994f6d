"""A deployment of the market with actors by role, and what each of them computes off chain."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eth_abi import encode
from eth_utils import keccak

from market_chain import Chain, Outcome, address_of, created_address

ETHER = 10**18
MILLION = 10**6
PROFILE = 255
ZERO = bytes(32)
ONE_BITS = 0x3F800000

CLASSES = ("Free", "Locked", "Leaving", "Credit", "Escrow", "Round", "Case", "Demand", "Reserve", "Pool")
FREE, LOCKED, LEAVING, CREDIT, ESCROW, ROUND, CASE, DEMAND, RESERVE, POOL = range(len(CLASSES))
STATES = (
    "None",
    "Profiling",
    "Open",
    "Taken",
    "Verifying",
    "Settled",
    "Failed",
    "Unavailable",
    "Unverified",
    "Void",
    "Refused",
    "Cancelled",
)
MODULES = (
    "Stakes",
    "Jackpot",
    "FixedSeeds",
    "Market",
    "Verification",
    "Answers",
    "Claims",
    "Settlement",
    "Demands",
    "HarnessCourt",
)

# In the order of the struct Parameters. Small amounts and short windows.
PARAMETERS: dict[str, int] = {
    "seat": ETHER,
    "answerBond": ETHER // 10,
    "caseBond": ETHER // 2,
    "accusationBond": ETHER // 2 + 1,
    "demandPrice": ETHER // 100,
    "drawBounty": ETHER // 1000,
    "solverStakeFloor": 2 * ETHER,
    "feeFloor": ETHER // 1000,
    "feePerTerawork": ETHER // 1000,
    "solverStakeRate": 100_000,
    "taxRate": 50_000,
    "forcedRate": 100_000,
    "finderRate": 400_000,
    "silenceRate": 500_000,
    "leakRate": 300_000,
    "jackpotRate": 250_000,
    "stepBackRate": 50_000,
    "stepDownRate": 100_000,
    "lateRate": 200_000,
    "unavailableRate": 60_000,
    "compensationRate": 250_000,
    "refuterRate": 50_000,
    "workPerSecond": 10**9,
    "trainingPerSecond": 10**9,
    "unbondingSeconds": 14 * 86400,
    "commitSeconds": 3600,
    "answerSeconds": 3600,
    "revealSeconds": 1800,
    "discloseSeconds": 1800,
    "disputeSeconds": 7200,
    "volunteerSeconds": 7200,
    "demandSeconds": 3600,
    "holdSeconds": 86400,
    "trainSeconds": 3600,
    "drawDelay": 3,
    "joinBlocks": 20,
    "showBlocks": 100,
    "activeBlocks": 800,
    "maximalRelists": 2,
    "maximalReplacements": 2,
    "maximalVolunteers": 1,
    "maximalStepBacks": 2,
}

Leaf = tuple[bytes, int, bytes]  # end state root, distance bits, trace root
ProfileLeaf = tuple[bytes, bytes, bytes, int, bytes]  # clean, noisy, thresholds, separation bits, trace


# ---- Hashes of contracts/FORMAT.md ----------------------------------------------------------------------------------


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def named(*words: Any) -> bytes:
    """A hash that stands for something named, such as a state root."""
    return sha(repr(words).encode())


class Tree:
    """A plain tree with its proofs."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        level = list(leaves)
        padding = ZERO
        self.levels = [level]
        while len(level) > 1:
            if len(level) % 2:
                level.append(padding)
            level = [sha(b"\x01", level[i], level[i + 1]) for i in range(0, len(level), 2)]
            padding = sha(b"\x01", padding, padding)
            self.levels.append(level)

    @property
    def root(self) -> bytes:
        return self.levels[-1][0]

    def proof(self, index: int) -> list[bytes]:
        return [level[(index >> depth) ^ 1] for depth, level in enumerate(self.levels[:-1])]


def replay_prefix(segment: int, leaf: Leaf) -> bytes:
    return b"\x05" + segment.to_bytes(4, "big") + leaf[0] + leaf[1].to_bytes(4, "big")


def profile_prefix(segment: int, leaf: ProfileLeaf) -> bytes:
    return b"\x06" + segment.to_bytes(4, "big") + leaf[0] + leaf[1] + leaf[2] + leaf[3].to_bytes(4, "big")


def claim_tree(segments: Sequence[int], leaves: Sequence[Any]) -> Tree:
    prefix: Callable[[int, Any], bytes] = replay_prefix if len(leaves[0]) == 3 else profile_prefix
    return Tree([sha(prefix(segment, leaf), leaf[-1]) for segment, leaf in zip(segments, leaves, strict=True)])


def false_claim(leaves: Sequence[Any], secret: bytes, task: int, round_id: int) -> tuple[list[Any], int]:
    """The derived false claim, and the place of the leaf that differs."""
    word = sha(secret, task.to_bytes(32, "big"), round_id.to_bytes(32, "big"))
    place = int.from_bytes(word, "big") % len(leaves)
    return [(*leaf[:-1], word) if i == place else leaf for i, leaf in enumerate(leaves)], place


def header(exact: bool, states: int = 2, data: int = 1, table_root: bytes = ZERO, work: int = 10**9) -> bytes:
    """A program's header with the sections the mode needs."""
    text = (1).to_bytes(2, "big") + (1).to_bytes(2, "big") + states.to_bytes(4, "big") + data.to_bytes(4, "big")
    text += table_root + (0).to_bytes(4, "big") + ZERO + bytes([1 if exact else 4])
    for role in range(1 if exact else 4):
        section_table = table_root if role in (0, 2) else ZERO
        text += bytes([role]) + (5).to_bytes(4, "big") + named("operators", role) + work.to_bytes(16, "big")
        text += section_table
    return text


# ---- The deployment -------------------------------------------------------------------------------------------------


@dataclass
class Round:
    """A round as its verifier keeps it."""

    task: int
    share: int
    id: int
    verifier: str
    segments: list[int]
    truth: list[Any]
    secret: bytes = ZERO
    order: int = 0
    shown: Any = None
    shown_leaves: list[Any] = field(default_factory=list)
    forced: bool = False


class World:
    """One deployment. Amounts in wei; actors are addresses."""

    contracts: tuple[str, ...] = MODULES
    """In the order of deployment: the modules, then whatever they need besides."""

    def __init__(self, chain: Chain, **changes: int) -> None:
        self.chain = chain
        self.parameters = PARAMETERS | changes
        deployer = address_of("deployer")
        addresses = {name: created_address(deployer, nonce) for nonce, name in enumerate(self.contracts)}
        for name in self.contracts:
            arguments = self.arguments_of(name, addresses)
            assert chain.deploy(name, deployer, *arguments) == addresses[name], name
        self.deployer = deployer
        self.checkpoints: dict[int, Tree] = {}
        self.headers: dict[int, bytes] = {}
        self.postings: dict[int, Any] = {}
        self.gas: dict[str, int] = {}

    def arguments_of(self, name: str, addresses: dict[str, str]) -> tuple[Any, ...]:
        """What a contract's constructor is given."""
        if name == "FixedSeeds":
            return named("secret"), 256
        if name == "HarnessCourt":
            return (addresses["Claims"],)
        return tuple(self.parameters.values()), tuple(addresses.values())[: len(MODULES)]

    # ---- calls ----

    def do(self, actor: str, name: str, function: str, *arguments: Any, value: int = 0) -> Outcome:
        outcome = self.chain.call(actor, name, function, *arguments, value=value)
        if outcome.gas:
            self.gas[function] = outcome.gas
        return outcome

    def see(self, name: str, function: str, *arguments: Any) -> Any:
        return self.chain.call(self.deployer, name, function, *arguments).value

    def bucket(self, kind: int, key: int | str) -> int:
        return int(self.see("Stakes", "balanceOf", kind, int(key, 16) if isinstance(key, str) else key))

    def credit(self, actor: str) -> int:
        return self.bucket(CREDIT, actor)

    def stake_of(self, actor: str) -> int:
        return self.bucket(FREE, actor) + self.bucket(LOCKED, actor) + self.bucket(LEAVING, actor)

    def worth(self, actor: str) -> int:
        """Everything an actor has in the ledger."""
        return self.credit(actor) + self.stake_of(actor)

    @property
    def pool(self) -> int:
        return self.bucket(POOL, 0)

    def total(self) -> int:
        return int(self.see("Stakes", "total"))

    def state(self, task: int) -> str:
        return STATES[self.see("Market", "stateOf", task)]

    # ---- actors ----

    def staked(self, role: str, amount: int = 20 * ETHER) -> str:
        actor = address_of(role)
        self.do(actor, "Stakes", "deposit", value=amount)
        return actor

    def verifier(self, role: str, seats: int = 1, limit: int = 100, amount: int = 5 * ETHER) -> str:
        actor = self.staked(role, amount)
        self.do(actor, "Stakes", "enlist", seats, limit)
        return actor

    # ---- tasks ----

    def posting(self, exact: bool = True, **changes: Any) -> dict[str, Any]:
        posting = {
            "header": header(exact),
            "graphHash": named("graph"),
            "lowering": 1,
            "dataRoot": named("data"),
            "initialRoot": named("state", 0),
            "baseTask": 0,
            "taskSeed": 7,
            "steps": 80,
            "interval": 10,
            "exact": exact,
            "verifiers": 1,
            "perVerifier": 2,
            "profileSegments": 0 if exact else 2,
            "lowestReward": 4 * ETHER,
            "highestReward": 10 * ETHER,
            "verifierFee": ETHER // 5,
            "profilerFee": 0 if exact else ETHER // 4,
            "auctionSeconds": 3600,
            "trainSeconds": 7200,
            "locations": "ipfs://task",
        }
        return posting | changes

    def submit(self, submitter: str, posting: dict[str, Any] | None = None, value: int | None = None) -> int:
        values = tuple((posting or self.posting()).values())
        if value is None:
            value = self.see("Market", "escrowOf", values)
        task = self.do(submitter, "Market", "submit", values, value=value).event("Submitted")["taskId"]
        self.postings[task] = posting or self.posting()
        return int(task)

    def take(self, solver: str, task: int) -> None:
        self.do(solver, "Market", "take", task, 0)

    def states_of(self, task: int, cheat: int | None = None) -> list[bytes]:
        """The solver's checkpoints; from segment `cheat` on they are wrong. A tolerant solver's all differ a little."""
        posting = self.postings[task]
        segments = -(-posting["steps"] // posting["interval"])
        roots = [posting["initialRoot"]]
        for segment in range(segments):
            wrong = cheat is not None and segment >= cheat
            honest = "state" if posting["exact"] else "native state"
            roots.append(named("wrong" if wrong else honest, segment + 1))
        return roots

    def register(self, solver: str, task: int, cheat: int | None = None) -> None:
        tree = Tree(self.states_of(task, cheat))
        self.checkpoints[task] = tree
        last = len(tree.levels[0]) - 1
        last = len(self.states_of(task)) - 1
        self.do(
            solver,
            "Market",
            "register",
            task,
            tree.root,
            tree.levels[0][last],
            tree.proof(0),
            tree.proof(last),
            "ipfs://proof",
        )

    def truth(self, task: int, share: int, segments: Sequence[int], draw_seed: int, failing: bool = False) -> list[Any]:
        """What an honest replay (or profile) gives."""
        exact = self.postings[task]["exact"]
        if share == PROFILE:
            separation = 0x3F000000 if failing else 0x40000000
            return [
                (named("clean", s), named("noisy", s), named("thresholds", s), separation, named("trace", s, draw_seed))
                for s in segments
            ]
        distance = 0 if exact else (0x40000000 if failing else 0x3F000000)
        return [(named("state", s + 1), distance, named("trace", s, draw_seed)) for s in segments]

    # ---- rounds ----

    def draw(self, task: int, share: int = 0, caller: str | None = None, failing: bool = False) -> Round:
        # Nodes differ in which block a call sees: one more than the last, or the last.
        self.chain.move(blocks=self.parameters["drawDelay"] + 1)
        event = self.do(caller or self.deployer, "Verification", "draw", task, share).event("Drawn")
        return self.round_of(event, failing)

    def round_of(self, event: dict[str, Any], failing: bool = False) -> Round:
        segments = list(event["segments"])
        truth = self.truth(event["taskId"], event["share"], segments, event["drawSeed"], failing)
        return Round(event["taskId"], event["share"], event["roundId"], event["verifier"], segments, truth)

    def secret_hash(self, round_: Round) -> bytes:
        return keccak(
            encode(
                ["bytes32", "uint8", "address", "uint256"], [round_.secret, round_.order, round_.verifier, round_.id]
            )
        )

    def salt(self, round_: Round, index: int) -> bytes:
        return keccak(encode(["bytes32", "uint256", "uint8"], [round_.secret, round_.id, index]))

    def hidden(self, round_: Round) -> tuple[bytes, bytes, bytes]:
        lie, _ = false_claim(round_.truth, round_.secret, round_.task, round_.id)
        claims: list[list[Any]] = [round_.truth, lie]
        if round_.order == 1:
            claims.reverse()
        hashes = [
            keccak(encode(["bytes32", "bytes32"], [claim_tree(round_.segments, claim).root, self.salt(round_, index)]))
            for index, claim in enumerate(claims)
        ]
        return self.secret_hash(round_), hashes[0], hashes[1]

    def commit(self, round_: Round, secret: bytes | None = None, order: int = 0) -> Outcome:
        round_.secret = secret or named("r", round_.id)
        round_.order = order
        return self.do(round_.verifier, "Verification", "commit", round_.id, self.hidden(round_))

    def lottery(self, round_: Round) -> bool:
        """Moves past the lottery's block and says whether the round is forced."""
        on_chain = self.see("Verification", "roundOf", round_.id)
        lottery_block = on_chain[7]
        self.chain.move(blocks=self.parameters["joinBlocks"] + 2)
        seed = self.see("FixedSeeds", "seedAt", lottery_block, round_.id.to_bytes(32, "big"))
        assert seed != ZERO
        round_.forced = self.see("Verification", "isForced", round_.secret, seed)
        return round_.forced

    def commit_for(self, round_: Round, forced: bool) -> None:
        """Commits; the lottery's outcome is chosen by trying secrets against the seed that the stand-in will give."""
        block = self.next_block() + self.parameters["joinBlocks"]
        seed = keccak(
            encode(
                ["bytes32", "bytes32"],
                [keccak(encode(["bytes32", "uint256"], [named("secret"), block])), round_.id.to_bytes(32, "big")],
            )
        )
        for attempt in range(10_000):
            secret = named("r", round_.id, attempt)
            drawn = int.from_bytes(keccak(encode(["bytes32", "bytes32"], [secret, seed])), "big") % MILLION
            if (drawn < self.parameters["forcedRate"]) == forced:
                self.commit(round_, secret, attempt % 2)
                return
        raise AssertionError("no secret gives that outcome")

    def next_block(self) -> int:
        """Number of the block that the next call will be in."""
        number = getattr(self.chain, "number", None)
        if number is None:
            number = int(self.chain._request("eth_blockNumber"), 16)  # type: ignore[attr-defined]
        return int(number) + 1

    def claims_of(self, round_: Round) -> tuple[list[Any], int]:
        """What the verifier has to show, and at which place."""
        lie, _ = false_claim(round_.truth, round_.secret, round_.task, round_.id)
        return (lie, 1 - round_.order) if round_.forced else (round_.truth, round_.order)

    def openings(self, task: int, segments: Sequence[int]) -> list[tuple[bytes, list[bytes]]]:
        tree = self.checkpoints[task]
        return [(tree.levels[0][s + 1], tree.proof(s + 1)) for s in segments]

    def show(self, round_: Round) -> Outcome:
        self.lottery(round_)
        leaves, index = self.claims_of(round_)
        return self.show_as(round_, leaves, index)

    def show_as(self, round_: Round, leaves: list[Any], index: int) -> Outcome:
        arguments: list[Any] = [round_.id, self.hidden(round_), index, self.salt(round_, index), leaves]
        if round_.share == PROFILE:
            outcome = self.do(round_.verifier, "Verification", "showProfile", *arguments)
            round_.shown = outcome.event("ProfileShown")["shown"]
        else:
            arguments.append(self.openings(round_.task, round_.segments))
            outcome = self.do(round_.verifier, "Verification", "showReplay", *arguments)
            round_.shown = outcome.event("ReplayShown")["shown"]
        round_.shown_leaves = leaves
        return outcome

    def derivation(self, round_: Round) -> tuple[bytes, bytes, list[bytes]]:
        if not round_.forced:
            return b"", ZERO, []
        _, place = false_claim(round_.truth, round_.secret, round_.task, round_.id)
        prefix = (profile_prefix if round_.share == PROFILE else replay_prefix)(
            round_.segments[place], round_.truth[place]
        )
        return prefix, round_.truth[place][-1], claim_tree(round_.segments, round_.truth).proof(place)

    def disclose(self, round_: Round, caller: str | None = None) -> Outcome:
        return self.do(
            caller or round_.verifier,
            "Verification",
            "disclose",
            round_.id,
            round_.secret,
            round_.order,
            round_.shown,
            self.derivation(round_),
        )

    def true_root(self, round_: Round) -> bytes:
        return claim_tree(round_.segments, round_.truth).root

    # ---- whistleblowers ----

    def join(self, whistleblower: str, round_: Round) -> None:
        self.do(whistleblower, "Answers", "join", round_.id)

    def answer(self, whistleblower: str, round_: Round, root: bytes) -> None:
        shown = self.see("Verification", "roundOf", round_.id)[6]
        commitment = keccak(
            encode(["uint256", "address", "bytes32", "bytes32"], [round_.id, whistleblower, root, named(whistleblower)])
        )
        self.do(whistleblower, "Answers", "commitAnswer", round_.id, shown, commitment)

    def reveal(self, whistleblower: str, round_: Round, root: bytes) -> None:
        self.do(whistleblower, "Answers", "revealAnswer", round_.id, root, named(whistleblower))

    def collect(self, whistleblower: str, round_: Round) -> Outcome:
        return self.do(self.deployer, "Answers", "collect", round_.id, whistleblower)

    # ---- disputes ----

    def publish(self, actor: str, round_: Round, leaves: list[Any]) -> int:
        if round_.share == PROFILE:
            outcome = self.do(actor, "Claims", "publishProfile", round_.id, leaves)
        else:
            openings = self.openings(round_.task, round_.segments)
            outcome = self.do(actor, "Claims", "publishReplay", round_.id, leaves, openings)
        return int(outcome.value)

    def challenge(self, challenger: str, round_: Round, leaves: list[Any]) -> tuple[int, int]:
        claim = self.publish(challenger, round_, leaves)
        return self.open_case(challenger, claim, claim_tree(round_.segments, leaves).root), claim

    def open_case(self, challenger: str, claim: int, root: bytes) -> int:
        bond = self.parameters["caseBond"]
        return int(self.do(challenger, "HarnessCourt", "open", claim, root, value=bond).value)

    def close(self, case: int, claim: int, won: bool, overshoot: int = 0) -> None:
        self.do(self.deployer, "HarnessCourt", "close", case, claim, won, overshoot)

    def wrong(self, round_: Round, word: str = "wrong", failing: bool = False) -> list[Any]:
        """A wrong answer: another trace, and a failing distance or end state if asked for."""
        leaves = [(*leaf[:-1], named(word, i)) for i, leaf in enumerate(round_.truth)]
        if failing and len(leaves[0]) == 3:
            leaves = [
                (named(word, "end", i), leaf[1], leaf[2])
                if self.postings[round_.task]["exact"]
                else (leaf[0], 0x40000000, leaf[2])
                for i, leaf in enumerate(leaves)
            ]
        return leaves

    def after_window(self) -> None:
        self.chain.move(blocks=1, seconds=self.parameters["disputeSeconds"] + 3600)

    # ---- whole stories ----

    def registered(self, exact: bool = True, cheat: int | None = None, **changes: Any) -> int:
        """A task whose proof is registered, by actors of the usual names."""
        task = self.submit(address_of("submitter"), self.posting(exact, **changes))
        if not exact:
            self.profiled(task)
        self.take(address_of("solver"), task)
        self.register(address_of("solver"), task, cheat)
        return task

    def registered_with(self, verifier: str, **changes: Any) -> int:
        """The same where `verifier` is the only one with seats left."""
        assert self.see("Stakes", "seatsOf", verifier) > 0
        return self.registered(**changes)

    def profiled(self, task: int) -> Round:
        round_ = self.draw(task, PROFILE)
        self.commit_for(round_, forced=False)
        self.show(round_)
        self.disclose(round_)
        self.after_window()
        self.do(self.deployer, "Settlement", "settleProfile", task)
        return round_

    def finish(self, round_: Round, forced: bool = False) -> None:
        """An honest verifier's round from drawn to disclosed, with nobody joining."""
        self.commit_for(round_, forced)
        self.show(round_)
        self.disclose(round_)


def populated(chain: Chain, verifiers: int = 3, **changes: int) -> World:
    """A deployment with a staked solver, staked verifiers with a seat each, and three staked whistleblowers."""
    world = World(chain, **changes)
    world.staked("solver")
    for number in range(verifiers):
        world.verifier(f"verifier {number}")
    for number in range(3):
        world.staked(f"whistleblower {number}", 2 * ETHER)
    return world


def copy_of(round_: Round, **changes: Any) -> Round:
    return replace(round_, **changes)
