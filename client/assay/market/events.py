"""The events of the market's contracts as frozen dataclasses. Fields are those of the Solidity events in snake case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from assay.market.types import (
    ClaimKind,
    Class,
    Fault,
    Hidden,
    Place,
    Posting,
    ProfileLeaf,
    ReplayLeaf,
    Shown,
    TaskState,
)

# --- Stakes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CoinEntered:
    class_: Class
    id: int
    amount: int


@dataclass(frozen=True)
class CoinMoved:
    from_: Class
    from_id: int
    to: Class
    to_id: int
    amount: int


@dataclass(frozen=True)
class CoinLeft:
    account: str
    amount: int


@dataclass(frozen=True)
class StakeLeaving:
    account: str
    amount: int
    until: int


@dataclass(frozen=True)
class Enlisted:
    account: str
    seats: int
    limit: int


@dataclass(frozen=True)
class Delisted:
    account: str
    seats: int


@dataclass(frozen=True)
class WhistleblowerActive:
    account: str
    active: int


# --- Market ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskSubmitted:
    task_id: int
    submitter: str
    program_root: bytes
    segments: int
    replay_work: int
    profile_work: int
    posting: Posting


@dataclass(frozen=True)
class TaskOpened:
    task_id: int
    threshold_root: bytes
    lowest_reward: int
    highest_reward: int
    since: int


@dataclass(frozen=True)
class TaskTaken:
    task_id: int
    solver: str
    price: int
    stake: int
    deadline: int


@dataclass(frozen=True)
class SolverSteppedDown:
    task_id: int
    solver: str
    forfeit: int
    late: bool


@dataclass(frozen=True)
class ProofRegistered:
    task_id: int
    solver: str
    checkpoint_root: bytes
    final_root: bytes
    locations: str


@dataclass(frozen=True)
class TaskFinished:
    task_id: int
    state: TaskState
    finder: str
    finder_share: int


# --- Verification ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DrawDue:
    task_id: int
    share: int
    attempt: int
    draw_block: int
    snapshot: int


@dataclass(frozen=True)
class Drawn:
    task_id: int
    share: int
    verifier: str
    round_id: int
    attempt: int
    draw_seed: int
    segments: tuple[int, ...]
    deadline: int


@dataclass(frozen=True)
class NobodyDrawn:
    task_id: int
    share: int
    attempt: int


@dataclass(frozen=True)
class VolunteersWanted:
    task_id: int
    share: int
    deadline: int


@dataclass(frozen=True)
class RoundCommitted:
    round_id: int
    verifier: str
    hidden: Hidden
    lottery_block: int
    show_until_block: int


@dataclass(frozen=True)
class ReplayShown:
    round_id: int
    verifier: str
    shown: Shown
    leaves: tuple[ReplayLeaf, ...]
    answers_until: int
    reveals_until: int
    disclose_until: int


@dataclass(frozen=True)
class ProfileShown:
    round_id: int
    verifier: str
    shown: Shown
    leaves: tuple[ProfileLeaf, ...]
    answers_until: int
    reveals_until: int
    disclose_until: int


@dataclass(frozen=True)
class RoundDisclosed:
    round_id: int
    verifier: str
    forced: bool
    root: bytes
    passes: bool
    secret: bytes
    true_trace: bytes
    dispute_until: int


@dataclass(frozen=True)
class RoundVoided:
    round_id: int
    verifier: str
    fault: Fault
    lost: int


# --- Answers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Joined:
    round_id: int
    whistleblower: str
    bond: int
    joined: int


@dataclass(frozen=True)
class AnswerCommitted:
    round_id: int
    whistleblower: str
    commitment: bytes


@dataclass(frozen=True)
class AnswerRevealed:
    round_id: int
    whistleblower: str
    root: bytes


@dataclass(frozen=True)
class AnswersResolved:
    round_id: int
    root: bytes
    right: int
    each: int
    is_void: bool


@dataclass(frozen=True)
class AnswerCollected:
    round_id: int
    whistleblower: str
    bond: int
    prize: int
    right: bool


# --- Claims ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClaimEntered:
    line: int
    claimant: str
    root: bytes
    passes: bool
    until: int


@dataclass(frozen=True)
class ClaimOpened:
    claim_id: int
    line: int
    root: bytes
    claimant: str
    kind: ClaimKind


@dataclass(frozen=True)
class AnswerPublished:
    line: int
    root: bytes
    publisher: str
    passes: bool


@dataclass(frozen=True)
class ReplayPublished:
    line: int
    root: bytes
    leaves: tuple[ReplayLeaf, ...]


@dataclass(frozen=True)
class ProfilePublished:
    line: int
    root: bytes
    leaves: tuple[ProfileLeaf, ...]


@dataclass(frozen=True)
class Accused:
    task_id: int
    line: int
    accuser: str
    segment: int
    leaf: ReplayLeaf
    draw_seed: int


@dataclass(frozen=True)
class AccusationClosed:
    task_id: int
    line: int
    claimant: str
    stands: bool


@dataclass(frozen=True)
class CaseOpened:
    case_id: int
    claim_id: int
    challenger: str
    answer_root: bytes


@dataclass(frozen=True)
class CaseClosed:
    case_id: int
    claim_id: int
    challenger_won: bool
    overshoot: int


@dataclass(frozen=True)
class ClaimFell:
    line: int
    root: bytes
    claimant: str
    new_root: bytes
    new_claimant: str
    passes: bool
    until: int


# --- Demands, Settlement, Jackpot, Court -----------------------------------------------------------------------------


@dataclass(frozen=True)
class ChunkDemanded:
    task_id: int
    demand_id: int
    asker: str
    place: Place
    deadline: int


@dataclass(frozen=True)
class ChunkServed:
    task_id: int
    demand_id: int
    server: str
    chunk: bytes


@dataclass(frozen=True)
class ChunkNotServed:
    task_id: int
    demand_id: int
    asker: str


@dataclass(frozen=True)
class ShareReleased:
    task_id: int
    share: int
    round_id: int
    verifier: str
    stands: bool
    has_fallen: bool
    root: bytes
    fee_paid: bool


@dataclass(frozen=True)
class JackpotReserved:
    round_id: int
    amount: int


@dataclass(frozen=True)
class JackpotFixed:
    round_id: int
    winners: int
    each: int
    returned: int


# --- The courts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CourtEvent:
    """An event of a court, its arguments by the contract's names (`assay.dispute.reader.Event`). `case_id` is 0 for
    events that are about no case."""

    name: str
    case_id: int
    arguments: Mapping[str, Any]


MarketEvent: TypeAlias = (
    CoinEntered | CoinMoved | CoinLeft | StakeLeaving | Enlisted | Delisted | WhistleblowerActive
    | TaskSubmitted | TaskOpened | TaskTaken | SolverSteppedDown | ProofRegistered | TaskFinished
    | DrawDue | Drawn | NobodyDrawn | VolunteersWanted | RoundCommitted | ReplayShown | ProfileShown | RoundDisclosed
    | RoundVoided | Joined | AnswerCommitted | AnswerRevealed | AnswersResolved | AnswerCollected
    | ClaimEntered | ClaimOpened | AnswerPublished | ReplayPublished | ProfilePublished | Accused | AccusationClosed
    | CaseOpened | CaseClosed | ClaimFell | ChunkDemanded | ChunkServed | ChunkNotServed | ShareReleased
    | JackpotReserved | JackpotFixed | CourtEvent
)  # fmt: skip
