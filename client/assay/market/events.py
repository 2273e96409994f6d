"""The contracts' events as frozen dataclasses. Fields are those of the Solidity events in snake case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from hexbytes import HexBytes
from web3.types import LogReceipt

from assay.market.abi import DecodedLog, interface_of, snake
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
    StageWork,
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


# --- StageClaims -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StagePublished:
    claim_id: int
    group: str
    member: str
    work: StageWork


@dataclass(frozen=True)
class StageAccused:
    claim_id: int
    group: str
    member: str
    accuser: str
    work: StageWork
    end_root: bytes
    until: int


@dataclass(frozen=True)
class StageAccusationConcluded:
    claim_id: int
    group: str
    member: str
    accuser: str


@dataclass(frozen=True)
class StageCaseOpened:
    case_id: int
    claim_id: int
    challenger: str


@dataclass(frozen=True)
class StageCaseClosed:
    case_id: int
    claim_id: int
    challenger_won: bool


# --- Presence --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AbsenceReported:
    report_id: int
    group: str
    member: str
    reporter: str
    first: int
    last: int
    until: int


@dataclass(frozen=True)
class ReportAnswered:
    report_id: int
    group: str
    member: str
    signer: str
    segment: int


@dataclass(frozen=True)
class AbsenceConcluded:
    report_id: int
    group: str
    member: str
    reporter: str
    segments: int


# --- The courts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CourtEvent:
    """An event of a court, its arguments by the contract's names (`assay.dispute.reader.Event`). `case_id` is 0 for
    events that are about no case."""

    name: str
    case_id: int
    arguments: Mapping[str, Any]


Event: TypeAlias = (
    CoinEntered | CoinMoved | CoinLeft | StakeLeaving | Enlisted | Delisted | WhistleblowerActive
    | TaskSubmitted | TaskOpened | TaskTaken | SolverSteppedDown | ProofRegistered | TaskFinished
    | DrawDue | Drawn | NobodyDrawn | VolunteersWanted | RoundCommitted | ReplayShown | ProfileShown | RoundDisclosed
    | RoundVoided | Joined | AnswerCommitted | AnswerRevealed | AnswersResolved | AnswerCollected
    | ClaimEntered | ClaimOpened | AnswerPublished | ReplayPublished | ProfilePublished | Accused | AccusationClosed
    | CaseOpened | CaseClosed | ClaimFell | ChunkDemanded | ChunkServed | ChunkNotServed | ShareReleased
    | JackpotReserved | JackpotFixed | StagePublished | StageAccused | StageAccusationConcluded | StageCaseOpened
    | StageCaseClosed | AbsenceReported | ReportAnswered | AbsenceConcluded | CourtEvent
)  # fmt: skip

EVENTS: dict[tuple[str, str], type[Any]] = {
    ("Stakes", "Entered"): CoinEntered,
    ("Stakes", "Moved"): CoinMoved,
    ("Stakes", "Left"): CoinLeft,
    ("Stakes", "Leaving"): StakeLeaving,
    ("Stakes", "Enlisted"): Enlisted,
    ("Stakes", "Delisted"): Delisted,
    ("Stakes", "Active"): WhistleblowerActive,
    ("Market", "Submitted"): TaskSubmitted,
    ("Market", "Opened"): TaskOpened,
    ("Market", "Taken"): TaskTaken,
    ("Market", "SteppedDown"): SolverSteppedDown,
    ("Market", "Registered"): ProofRegistered,
    ("Market", "Finished"): TaskFinished,
    ("Verification", "DrawDue"): DrawDue,
    ("Verification", "Drawn"): Drawn,
    ("Verification", "NobodyDrawn"): NobodyDrawn,
    ("Verification", "VolunteersWanted"): VolunteersWanted,
    ("Verification", "Committed"): RoundCommitted,
    ("Verification", "ReplayShown"): ReplayShown,
    ("Verification", "ProfileShown"): ProfileShown,
    ("Verification", "Disclosed"): RoundDisclosed,
    ("Verification", "Voided"): RoundVoided,
    ("Answers", "Joined"): Joined,
    ("Answers", "AnswerCommitted"): AnswerCommitted,
    ("Answers", "AnswerRevealed"): AnswerRevealed,
    ("Answers", "Resolved"): AnswersResolved,
    ("Answers", "Collected"): AnswerCollected,
    ("Claims", "Entered"): ClaimEntered,
    ("Claims", "Opened"): ClaimOpened,
    ("Claims", "AnswerPublished"): AnswerPublished,
    ("Claims", "ReplayPublished"): ReplayPublished,
    ("Claims", "ProfilePublished"): ProfilePublished,
    ("Claims", "Accused"): Accused,
    ("Claims", "AccusationClosed"): AccusationClosed,
    ("Claims", "CaseOpened"): CaseOpened,
    ("Claims", "CaseClosed"): CaseClosed,
    ("Claims", "Fell"): ClaimFell,
    ("Demands", "Demanded"): ChunkDemanded,
    ("Demands", "Served"): ChunkServed,
    ("Demands", "NotServed"): ChunkNotServed,
    ("Settlement", "Released"): ShareReleased,
    ("Jackpot", "Reserved"): JackpotReserved,
    ("Jackpot", "Fixed"): JackpotFixed,
    ("StageClaims", "StagePublished"): StagePublished,
    ("StageClaims", "StageAccused"): StageAccused,
    ("StageClaims", "AccusationConcluded"): StageAccusationConcluded,
    ("StageClaims", "CaseOpened"): StageCaseOpened,
    ("StageClaims", "CaseClosed"): StageCaseClosed,
    ("Presence", "AbsenceReported"): AbsenceReported,
    ("Presence", "ReportAnswered"): ReportAnswered,
    ("Presence", "AbsenceConcluded"): AbsenceConcluded,
}
COURTS = ("Court", "StageCourt")
"""The courts of a deployment: one over the market's claims, one over what groups' members say of their stages."""

_KEYWORDS = {"class": "class_", "from": "from_"}


@dataclass(frozen=True)
class RawLog:
    """A log as it is kept: in which block and transaction, by which contract (Solidity name)."""

    block: int
    index: int
    transaction: str
    contract: str
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True)
class Logged:
    """An event with its place in the chain."""

    block: int
    index: int
    transaction: str
    contract: str
    event: Event


def raw_log(log: LogReceipt, names: Mapping[str, str]) -> RawLog | None:
    """A log as web3 gives it; `names` are contracts by lower-case address. None for another contract's log."""
    contract = names.get(str(log["address"]).lower())
    if contract is None:
        return None
    return RawLog(
        int(log["blockNumber"]),
        int(log["logIndex"]),
        HexBytes(log["transactionHash"]).to_0x_hex(),
        contract,
        tuple(bytes(topic) for topic in log["topics"]),
        bytes(HexBytes(log["data"])),
    )


def typed_event(decoded: DecodedLog) -> Event | None:
    """The dataclass of a decoded event; None for events this client does not follow."""
    if decoded.contract in COURTS:
        return CourtEvent(decoded.name, int(decoded.arguments.get("caseId", 0)), decoded.arguments)
    kind = EVENTS.get((decoded.contract, decoded.name))
    if kind is None:
        return None
    renamed = {_KEYWORDS.get(name, snake(name)): value for name, value in decoded.arguments.items()}
    event: Event = kind(**{field.name: renamed[field.name] for field in fields(kind)})
    return event


def decode_log(log: RawLog) -> Logged | None:
    """The event of a log; None for events this client does not follow. `InterfaceError` if it does not decode."""
    decoded = interface_of(log.contract).event(log.topics, log.data)
    event = None if decoded is None else typed_event(decoded)
    return None if event is None else Logged(log.block, log.index, log.transaction, log.contract, event)
