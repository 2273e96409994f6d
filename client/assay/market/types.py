"""The contracts' enums and structs. Fields are those of the Solidity sources in snake case, in the same order.

Amounts are in wei, times in seconds since 1970, numbers of tasks, rounds, lines, claims and cases are 256-bit integers,
accounts are checksummed hexadecimal, hashes 32 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from assay.market.group_agreement import Statement, stage_subject

PROFILE = 255
"""Number of the share that is the profile."""
MILLION = 1_000_000
"""Denominator of every rate."""


class Class(IntEnum):
    """Kinds of buckets of the ledger (contracts/Stakes.sol)."""

    FREE = 0
    LOCKED = 1
    LEAVING = 2
    CREDIT = 3
    ESCROW = 4
    ROUND = 5
    CASE = 6
    DEMAND = 7
    RESERVE = 8
    POOL = 9


class TaskState(IntEnum):
    """Where a task stands (contracts/interfaces/IMarket.sol). From SETTLED on nothing changes any more."""

    NONE = 0
    PROFILING = 1
    OPEN = 2
    TAKEN = 3
    VERIFYING = 4
    SETTLED = 5
    FAILED = 6
    UNAVAILABLE = 7
    UNVERIFIED = 8
    VOID = 9
    REFUSED = 10
    CANCELLED = 11

    @property
    def is_over(self) -> bool:
        return self >= TaskState.SETTLED


class ShareState(IntEnum):
    """Where the work on one share stands (contracts/interfaces/IVerification.sol)."""

    NONE = 0
    AWAITING = 1
    WORKING = 2
    VOLUNTEERS = 3
    RELEASED = 4


class RoundState(IntEnum):
    """Where a round (one verifier's work on one share) stands."""

    NONE = 0
    DRAWN = 1
    COMMITTED = 2
    SHOWN = 3
    DISCLOSED = 4
    VOID = 5


class Fault(IntEnum):
    """Why a round was voided."""

    SILENT = 0
    LEAKED = 1
    SHOWN_THE_WRONG_ONE = 2
    STEPPED_BACK = 3


class AnswerState(IntEnum):
    """Where a whistleblower's part in a round stands (contracts/Answers.sol)."""

    NONE = 0
    JOINED = 1
    COMMITTED = 2
    REVEALED = 3
    COLLECTED = 4


class ClaimKind(IntEnum):
    """What a claim is about (contracts/interfaces/IClaims.sol)."""

    REPLAY = 0
    PROFILE = 1
    TRAINING = 2
    STAGE = 3


@dataclass(frozen=True)
class Posting:
    """What a submitter posts."""

    header: bytes
    graph_hash: bytes
    lowering: int
    data_root: bytes
    initial_root: bytes
    base_task: int
    task_seed: int
    steps: int
    interval: int
    exact: bool
    verifiers: int
    per_verifier: int
    profile_segments: int
    lowest_reward: int
    highest_reward: int
    verifier_fee: int
    profiler_fee: int
    auction_seconds: int
    train_seconds: int
    locations: str


@dataclass(frozen=True)
class Task:
    """A task as the chain keeps it. `since`: when it was opened, taken or opened again."""

    submitter: str
    task_seed: int
    steps: int
    solver: str
    interval: int
    segments: int
    state: TaskState
    exact: bool
    relists: int
    verifiers: int
    lowest_reward: int
    highest_reward: int
    auction_seconds: int
    train_seconds: int
    price: int
    verifier_fee: int
    since: int
    per_verifier: int
    profile_segments: int
    profiler_fee: int
    replay_work: int
    profile_work: int
    program_root: bytes
    data_root: bytes
    initial_root: bytes
    checkpoint_root: bytes
    final_root: bytes
    threshold_root: bytes


@dataclass(frozen=True)
class Share:
    """The work on one share. `draw_block`'s hash decides the next draw, from the roll at the end of `snapshot`."""

    draw_block: int
    snapshot: int
    deadline: int
    attempt: int
    step_backs: int
    state: ShareState
    is_charged: bool
    segment_seed: int


@dataclass(frozen=True)
class Round:
    """One verifier's work on one share. `commitment` is a hash of all that was shown, once it was."""

    task_id: int
    verifier: str
    draw_seed: int
    share: int
    attempt: int
    state: RoundState
    commitment: bytes
    lottery_block: int
    deadline: int
    answers_until: int
    reveals_until: int


@dataclass(frozen=True)
class Hidden:
    """What a verifier commits to: hashes of its secret and of its two claims."""

    secret: bytes
    first: bytes
    second: bytes


@dataclass(frozen=True)
class Shown:
    """What a verifier showed. `thresholds`: root of a profile's threshold vector, else zero."""

    hidden: Hidden
    seed: bytes
    index: int
    root: bytes
    thresholds: bytes
    passes: bool


@dataclass(frozen=True)
class Derivation:
    """What turns the derived false claim back into the true one. For rounds not forced: `NO_DERIVATION`."""

    prefix: bytes
    trace: bytes
    proof: tuple[bytes, ...]


NO_DERIVATION = Derivation(b"", bytes(32), ())


@dataclass(frozen=True)
class ReplayLeaf:
    """What a replay claim says about one segment; the segment's number follows from the draw."""

    end: bytes
    distance: int
    trace: bytes


@dataclass(frozen=True)
class ProfileLeaf:
    """What a profile claim says about one segment."""

    clean: bytes
    noisy: bytes
    thresholds: bytes
    separation: int
    trace: bytes


@dataclass(frozen=True)
class Checkpoint:
    """The solver's checkpoint after a segment, opened under its checkpoint root (exact mode)."""

    root: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Answer:
    """A whistleblower's answer: its commitment, then the root it revealed."""

    value: bytes
    state: AnswerState


@dataclass(frozen=True)
class Tally:
    """What is known of a round's answers."""

    joined: int
    committed: int
    revealed: int
    is_resolved: bool
    is_void: bool
    each: int
    root: bytes


@dataclass(frozen=True)
class Line:
    """Who claims what about one subject (a round's share, or an accused segment) at this moment."""

    root: bytes
    claimant: str
    until: int
    open_cases: int
    passes: bool
    has_fallen: bool
    is_closed: bool
    bond: int


@dataclass(frozen=True)
class Published:
    """A root whose leaves are on chain."""

    is_known: bool
    passes: bool
    thresholds: bytes


@dataclass(frozen=True)
class Place:
    """Which chunk of a task's files is demanded."""

    of_data: bool
    checkpoint: int
    tensor: int
    chunk: int


@dataclass(frozen=True)
class Entry:
    """The entry of a program's table that says how long a tensor is."""

    kind: int
    index: int
    element_type: int
    count: int
    proof: tuple[bytes, ...]


@dataclass(frozen=True)
class Demand:
    """A demand not answered yet; `asker` is the zero address once it was."""

    task_id: int
    asker: str
    deadline: int
    depth: int
    index: int
    root: bytes


@dataclass(frozen=True)
class StageWork:
    """A stage statement, in the fields of contracts/interfaces/IStageClaims.sol. In a tolerant task `program_root` is
    that of a checking program, and `end_root` zero."""

    group: str
    run: int
    segment: int
    until: int
    program_root: bytes
    data_root: bytes
    start_root: bytes
    end_root: bytes

    def as_tuple(self) -> tuple[str, int, int, int, bytes, bytes, bytes, bytes]:
        """As the contract takes it."""
        roots = (self.program_root, self.data_root, self.start_root, self.end_root)
        return self.group, self.run, self.segment, self.until, *roots

    def statement(self, task: int) -> Statement:
        """What the member signs, for the group as verifier."""
        subject = stage_subject(self.segment, self.until, self.program_root, self.data_root, self.start_root)
        return Statement(task, self.run, subject, self.end_root)
