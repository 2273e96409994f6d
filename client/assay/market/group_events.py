"""The events of the contracts in which members of groups answer to each other, as those of the market (`events`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from assay.market.types import StageWork

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


GroupEvent: TypeAlias = (
    StagePublished | StageAccused | StageAccusationConcluded | StageCaseOpened | StageCaseClosed
    | AbsenceReported | ReportAnswered | AbsenceConcluded
)  # fmt: skip
