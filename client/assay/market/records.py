"""What a view of the market knows of tasks, rounds, claims and cases. Replaced as events come in, never changed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from assay.commitments.derivation import false_trace
from assay.market.types import (
    PROFILE,
    AnswerState,
    ClaimKind,
    Fault,
    Hidden,
    Place,
    Posting,
    ProfileLeaf,
    ReplayLeaf,
    RoundState,
    ShareState,
    Shown,
    TaskState,
)


@dataclass(frozen=True)
class ShareRecord:
    """The work on one share of a task. `round_id`: the newest round, 0 before any."""

    number: int
    state: ShareState
    attempt: int = 0
    draw_block: int = 0
    deadline: int = 0  # of the wait for volunteers
    round_id: int = 0


@dataclass(frozen=True)
class TaskRecord:
    """A task. `since`: when it was opened or taken; `deadline`: the solver's, while it is taken."""

    id: int
    submitter: str
    posting: Posting
    program_root: bytes
    segments: int
    replay_work: int
    profile_work: int
    state: TaskState
    block: int
    """Block of its submission."""
    since: int = 0
    lowest_reward: int = 0
    highest_reward: int = 0
    relists: int = 0
    threshold_root: bytes = bytes(32)
    solver: str = ""
    former_solvers: tuple[str, ...] = ()  # who took it and stepped down, or were late
    price: int = 0
    stake: int = 0
    deadline: int = 0
    checkpoint_root: bytes = bytes(32)
    final_root: bytes = bytes(32)
    proof_locations: str = ""
    shares: dict[int, ShareRecord] = field(default_factory=dict)
    rounds: tuple[int, ...] = ()  # in the order they were drawn
    accusations: tuple[int, ...] = ()  # lines
    demands: tuple[int, ...] = ()
    finder: str = ""
    finder_share: int = 0
    finished_block: int = 0

    def price_at(self, time: int) -> int:
        """What a solver who takes the open task at `time` gets (Market.priceOf)."""
        if self.relists:
            return self.price
        elapsed = time - self.since
        if self.posting.auction_seconds == 0 or elapsed >= self.posting.auction_seconds:
            return self.highest_reward
        rise = self.highest_reward - self.lowest_reward
        return self.lowest_reward + rise * max(0, elapsed) // self.posting.auction_seconds

    def open_until(self, hold_seconds: int) -> int:
        """When nobody can take the open task any more (Market.expire)."""
        return self.since + self.posting.auction_seconds + hold_seconds

    @property
    def training_work(self) -> int:
        """Units of work of the whole training: of one step, from the program's header (contracts/FORMAT.md, 2.4), times
        their number."""
        fixed, place = 81, 1 + 4 + 32
        return self.posting.steps * int.from_bytes(self.posting.header[fixed + place : fixed + place + 16], "big")

    def work_of(self, share: int) -> int:
        """Units of work of a share."""
        return self.profile_work if share == PROFILE else self.replay_work

    @property
    def checked_shares(self) -> range | tuple[int]:
        """The shares that decide what comes next: the profile while the task is profiled, then those of the proof."""
        return (PROFILE,) if self.state is TaskState.PROFILING else range(self.posting.verifiers)


@dataclass(frozen=True)
class RoundRecord:
    """One verifier's work on one share. `deadline`: to commit, then to disclose."""

    id: int
    task_id: int
    share: int
    attempt: int
    verifier: str
    draw_seed: int
    segments: tuple[int, ...]
    state: RoundState
    deadline: int
    hidden: Hidden | None = None
    lottery_block: int = 0
    show_until_block: int = 0
    shown: Shown | None = None
    leaves: tuple[ReplayLeaf, ...] | tuple[ProfileLeaf, ...] = ()
    answers_until: int = 0
    reveals_until: int = 0
    secret: bytes = b""
    forced: bool = False
    true_trace: bytes = b""
    fault: Fault | None = None
    answers: dict[str, AnswerState] = field(default_factory=dict)  # by whistleblower
    roots: dict[str, bytes] = field(default_factory=dict)  # revealed
    is_resolved: bool = False
    prize: int = 0  # what every right answer earns
    jackpot: int = 0  # reserved

    @property
    def is_profile(self) -> bool:
        return self.share == PROFILE

    def has_committed(self, account: str) -> bool:
        """Whether a whistleblower has committed to an answer."""
        return self.answers.get(account, AnswerState.NONE) >= AnswerState.COMMITTED

    def may_reveal(self, time: int) -> bool:
        """Whether answers can be revealed: nobody can commit any more (contracts/Answers.sol)."""
        return time > self.answers_until or all(self.has_committed(account) for account in self.answers)

    def answers_closed(self, time: int) -> bool:
        """Whether no answer can be revealed any more (contracts/Answers.sol, areClosed)."""
        if not self.answers or time > self.reveals_until:
            return True
        return self.may_reveal(time) and len(self.roots) == sum(map(self.has_committed, self.answers))


def true_leaves(record: RoundRecord) -> tuple[ReplayLeaf, ...] | tuple[ProfileLeaf, ...]:
    """The leaves that a disclosed round stands by: those shown, with the true trace in the place that the secret names
    if it was forced. In no other (contracts/Verification.sol): a verifier can write the same word elsewhere, too."""
    if not record.forced:
        return record.leaves
    word = false_trace(record.secret, record.task_id, record.id)
    place = int.from_bytes(word, "big") % len(record.leaves)
    before, leaf, after = record.leaves[:place], record.leaves[place], record.leaves[place + 1 :]
    return (*before, replace(leaf, trace=record.true_trace), *after)


@dataclass(frozen=True)
class LineRecord:
    """Who claims what about one subject: a round, an accusation (`segment` set), or a training claim."""

    id: int
    task_id: int
    root: bytes
    claimant: str
    passes: bool
    until: int
    segment: int | None = None
    draw_seed: int = 0
    has_fallen: bool = False
    is_closed: bool = False
    open_cases: tuple[int, ...] = ()
    leaves: dict[bytes, tuple[ReplayLeaf, ...] | tuple[ProfileLeaf, ...]] = field(default_factory=dict)
    """Leaves of every claim and answer that has shown them, by root."""
    published: frozenset[bytes] = frozenset()
    """Roots that a case can put in the claim's place."""


@dataclass(frozen=True)
class ClaimRecord:
    """A claim that cases can be opened on."""

    id: int
    line: int
    root: bytes
    claimant: str
    kind: ClaimKind
    cases: tuple[int, ...] = ()


@dataclass(frozen=True)
class CaseRecord:
    """A case on one leaf of a claim. `challenger_won` is None while it is open. `moves`: how many the court has
    logged."""

    id: int
    claim_id: int
    task_id: int
    challenger: str
    claimant: str
    answer_root: bytes
    block: int
    leaf: int = 0
    moves: int = 0
    challenger_won: bool | None = None


@dataclass(frozen=True)
class DemandRecord:
    """A demand for a chunk of a task's files."""

    id: int
    task_id: int
    asker: str
    place: Place
    deadline: int
    is_open: bool = True
