"""What a role knows of the market, folded from the contracts' events. Amounts in wei, times in seconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass, field

from assay.market.types import (
    ClaimKind,
    Hidden,
    Place,
    Posting,
    ReplayLeaf,
    RoundState,
    Shown,
    TaskState,
)


@dataclass(frozen=True)
class Moment:
    """The newest block that was read, and its time."""

    block: int
    time: int


@dataclass
class DrawRecord:
    """A draw that is due for a share."""

    attempt: int
    draw_block: int


@dataclass
class RoundRecord:
    """One verifier's work on one share."""

    round_id: int
    task_id: int
    share: int
    attempt: int
    verifier: str
    draw_seed: int
    segments: tuple[int, ...]
    deadline: int
    state: RoundState = RoundState.DRAWN
    hidden: Hidden | None = None
    lottery_block: int = 0
    show_until_block: int = 0
    shown: Shown | None = None
    leaves: tuple[ReplayLeaf, ...] = ()  # shown ones; after disclosure the true ones
    answers_until: int = 0
    reveals_until: int = 0
    forced: bool = False
    joined: set[str] = field(default_factory=set)
    committed: set[str] = field(default_factory=set)
    revealed: dict[str, bytes] = field(default_factory=dict)
    resolved: bool = False
    collected: set[str] = field(default_factory=set)
    released: bool = False

    def answers_closed(self, time: int) -> bool:
        """Whether no answer can be revealed any more (contracts/Answers.sol, areClosed)."""
        if not self.joined or time > self.reveals_until:
            return True
        return self.may_reveal(time) and len(self.revealed) == len(self.committed)

    def may_reveal(self, time: int) -> bool:
        """Whether answers can be revealed: nobody can commit any more."""
        return time > self.answers_until or len(self.committed) == len(self.joined)


@dataclass
class LineRecord:
    """Who claims what about one subject now."""

    line: int
    root: bytes
    claimant: str
    until: int
    passes: bool
    has_fallen: bool = False
    leaves: dict[bytes, tuple[ReplayLeaf, ...]] = field(default_factory=dict)  # by claim root


@dataclass
class ClaimRecord:
    """A claim that the court can judge."""

    claim_id: int
    line: int
    root: bytes
    claimant: str
    kind: ClaimKind


@dataclass
class CaseRecord:
    """A case of the court."""

    case_id: int
    claim_id: int
    challenger: str
    claimant: str
    leaf: int
    block: int  # of its opening
    moves: int = 0
    challenger_won: bool | None = None  # None while it is open


@dataclass
class DemandRecord:
    """A demanded chunk."""

    demand_id: int
    task_id: int
    asker: str
    place: Place
    deadline: int
    served: bool | None = None


@dataclass
class TaskRecord:
    """A task with its rounds."""

    task_id: int
    submitter: str
    posting: Posting
    program_root: bytes
    segments: int
    replay_work: int
    state: TaskState
    since: int = 0
    lowest: int = 0
    highest: int = 0
    solver: str | None = None
    price: int = 0
    stake: int = 0
    deadline: int = 0
    checkpoint_root: bytes = b""
    final_root: bytes = b""
    locations: str = ""
    threshold_root: bytes = bytes(32)
    relists: int = 0
    draws: dict[int, DrawRecord] = field(default_factory=dict)
    rounds: dict[int, list[int]] = field(default_factory=dict)  # share -> rounds, in order of attempts

    def price_at(self, time: int) -> int:
        """The auction's price (contracts/Market.sol, priceOf)."""
        elapsed = max(0, time - self.since)
        if elapsed >= self.posting.auction_seconds:
            return self.highest
        return self.lowest + (self.highest - self.lowest) * elapsed // self.posting.auction_seconds


@dataclass
class MarketRecord:
    """Everything, by number."""

    tasks: dict[int, TaskRecord] = field(default_factory=dict)
    rounds: dict[int, RoundRecord] = field(default_factory=dict)
    lines: dict[int, LineRecord] = field(default_factory=dict)
    claims: dict[int, ClaimRecord] = field(default_factory=dict)
    cases: dict[int, CaseRecord] = field(default_factory=dict)
    demands: dict[int, DemandRecord] = field(default_factory=dict)
    training_lines: dict[int, int] = field(default_factory=dict)  # line -> task
    withdrawals: dict[str, int] = field(default_factory=dict)
    deposits: dict[int, int] = field(default_factory=dict)  # account as a number -> deposits so far

    def current_round(self, task: TaskRecord, share: int) -> RoundRecord | None:
        """The newest round of a share."""
        numbers = task.rounds.get(share)
        return self.rounds[numbers[-1]] if numbers else None

    def task_of_line(self, line: int) -> TaskRecord | None:
        """The task that a line of claims is about."""
        if line in self.rounds:
            return self.tasks.get(self.rounds[line].task_id)
        return self.tasks.get(self.training_lines.get(line, -1))

    def open_cases_of(self, line: int) -> list[CaseRecord]:
        """Cases on any claim of a line that are not decided."""
        return [
            case
            for case in self.cases.values()
            if case.challenger_won is None and case.claim_id in self.claims and self.claims[case.claim_id].line == line
        ]
