"""A deployment's logs: as they are kept, and as the typed events that they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from hexbytes import HexBytes
from web3.types import LogReceipt

from assay.market import events as e
from assay.market import group_events as g
from assay.market.abi import DecodedLog, interface_of, snake

Event: TypeAlias = e.MarketEvent | g.GroupEvent

EVENTS: dict[tuple[str, str], type[Any]] = {
    ("Stakes", "Entered"): e.CoinEntered,
    ("Stakes", "Moved"): e.CoinMoved,
    ("Stakes", "Left"): e.CoinLeft,
    ("Stakes", "Leaving"): e.StakeLeaving,
    ("Stakes", "Enlisted"): e.Enlisted,
    ("Stakes", "Delisted"): e.Delisted,
    ("Stakes", "Active"): e.WhistleblowerActive,
    ("Market", "Submitted"): e.TaskSubmitted,
    ("Market", "Opened"): e.TaskOpened,
    ("Market", "Taken"): e.TaskTaken,
    ("Market", "SteppedDown"): e.SolverSteppedDown,
    ("Market", "Registered"): e.ProofRegistered,
    ("Market", "Finished"): e.TaskFinished,
    ("Verification", "DrawDue"): e.DrawDue,
    ("Verification", "Drawn"): e.Drawn,
    ("Verification", "NobodyDrawn"): e.NobodyDrawn,
    ("Verification", "VolunteersWanted"): e.VolunteersWanted,
    ("Verification", "Committed"): e.RoundCommitted,
    ("Verification", "ReplayShown"): e.ReplayShown,
    ("Verification", "ProfileShown"): e.ProfileShown,
    ("Verification", "Disclosed"): e.RoundDisclosed,
    ("Verification", "Voided"): e.RoundVoided,
    ("Answers", "Joined"): e.Joined,
    ("Answers", "AnswerCommitted"): e.AnswerCommitted,
    ("Answers", "AnswerRevealed"): e.AnswerRevealed,
    ("Answers", "Resolved"): e.AnswersResolved,
    ("Answers", "Collected"): e.AnswerCollected,
    ("Claims", "Entered"): e.ClaimEntered,
    ("Claims", "Opened"): e.ClaimOpened,
    ("Claims", "AnswerPublished"): e.AnswerPublished,
    ("Claims", "ReplayPublished"): e.ReplayPublished,
    ("Claims", "ProfilePublished"): e.ProfilePublished,
    ("Claims", "Accused"): e.Accused,
    ("Claims", "AccusationClosed"): e.AccusationClosed,
    ("Claims", "CaseOpened"): e.CaseOpened,
    ("Claims", "CaseClosed"): e.CaseClosed,
    ("Claims", "Fell"): e.ClaimFell,
    ("Demands", "Demanded"): e.ChunkDemanded,
    ("Demands", "Served"): e.ChunkServed,
    ("Demands", "NotServed"): e.ChunkNotServed,
    ("Settlement", "Released"): e.ShareReleased,
    ("Jackpot", "Reserved"): e.JackpotReserved,
    ("Jackpot", "Fixed"): e.JackpotFixed,
    ("StageClaims", "StagePublished"): g.StagePublished,
    ("StageClaims", "StageAccused"): g.StageAccused,
    ("StageClaims", "AccusationConcluded"): g.StageAccusationConcluded,
    ("StageClaims", "CaseOpened"): g.StageCaseOpened,
    ("StageClaims", "CaseClosed"): g.StageCaseClosed,
    ("Presence", "AbsenceReported"): g.AbsenceReported,
    ("Presence", "ReportAnswered"): g.ReportAnswered,
    ("Presence", "AbsenceConcluded"): g.AbsenceConcluded,
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
        return e.CourtEvent(decoded.name, int(decoded.arguments.get("caseId", 0)), decoded.arguments)
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
