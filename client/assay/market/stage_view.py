"""What is known of the statements that groups' members signed about their stages, of what they accuse each other of,
and of the cases on both: a part of `MarketView`, with a court of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from assay.market import group_events as e
from assay.market.logs import Event
from assay.market.types import StageWork


@dataclass(frozen=True)
class StageClaimRecord:
    """A statement on chain: what `member` said of its stage in an exact task."""

    id: int
    member: str
    work: StageWork
    has_fallen: bool = False


@dataclass(frozen=True)
class StageAccusationRecord:
    """An accusation: `accuser` says that what `member` stated in a tolerant task is garbage, since its checking program
    ends in the state `end_root`. Cases can be opened on it until the second `until`, the accuser answers in them."""

    id: int
    member: str
    accuser: str
    work: StageWork
    end_root: bytes
    until: int
    has_fallen: bool = False
    is_concluded: bool = False

    @property
    def is_pending(self) -> bool:
        """Whether it was neither refuted nor has convicted the member: the group waits for it."""
        return not self.has_fallen and not self.is_concluded


@dataclass(frozen=True)
class StageCaseRecord:
    """A case on a statement or an accusation. `challenger_won` is None while it is open."""

    id: int
    claim_id: int
    challenger: str
    challenger_won: bool | None = None


class StageView:
    """Statements (`claims`), accusations and cases by their numbers."""

    def __init__(self) -> None:
        self.claims: dict[int, StageClaimRecord] = {}
        self.accusations: dict[int, StageAccusationRecord] = {}
        self.cases: dict[int, StageCaseRecord] = {}

    def work_of(self, claim_id: int) -> StageWork:
        """What was stated that a statement or an accusation is about. Raises `KeyError` where there is neither."""
        return self._record(claim_id).work

    def claimant_of(self, claim_id: int) -> str:
        """Who answers for a statement (its member) or an accusation (its accuser) in court. Raises `KeyError` where
        there is neither."""
        record = self._record(claim_id)
        return record.accuser if isinstance(record, StageAccusationRecord) else record.member

    def _record(self, claim_id: int) -> StageClaimRecord | StageAccusationRecord:
        accusation = self.accusations.get(claim_id)
        return self.claims[claim_id] if accusation is None else accusation

    def accusations_of(self, account: str) -> list[StageAccusationRecord]:
        """Accusations that an account made, and those of its own work, oldest first."""
        return [each for each in self.accusations.values() if account in (each.accuser, each.member)]

    def is_accused(self, work: StageWork, member: str, end_root: bytes) -> bool:
        """Whether somebody accuses a member of this work, with this end, or has done so rightly: once is enough."""
        return any(
            (each.work, each.member) == (work, member)
            and (each.is_concluded or (each.is_pending and each.end_root == end_root))
            for each in self.accusations.values()
        )

    def can_be_concluded(self, claim_id: int, time: int) -> bool:
        """Whether anyone can have an accusation convict the member: its window was over at a time, and it neither fell
        nor waits for a case."""
        accusation = self.accusations[claim_id]
        is_heard = all(case.challenger_won is not None for case in self.cases_on(claim_id))
        return accusation.is_pending and time > accusation.until and is_heard

    def cases_on(self, claim_id: int) -> list[StageCaseRecord]:
        """Cases on a statement or an accusation, oldest first."""
        return [case for case in self.cases.values() if case.claim_id == claim_id]

    def is_challenged_by(self, claim_id: int, account: str) -> bool:
        """Whether an account has opened a case on it, whatever came of that."""
        return any(case.challenger == account for case in self.cases_on(claim_id))

    def cases_of(self, account: str) -> list[StageCaseRecord]:
        """Cases in which an account is a party, oldest first."""
        return [case for case in self.cases.values() if account in (case.challenger, self.claimant_of(case.claim_id))]

    def open_cases_of(self, account: str) -> list[StageCaseRecord]:
        """Those of them that are not decided yet."""
        return [case for case in self.cases_of(account) if case.challenger_won is None]

    def open_cases(self) -> list[StageCaseRecord]:
        """Cases not decided yet, oldest first."""
        return [case for case in self.cases.values() if case.challenger_won is None]

    def is_disputed(self, group: str) -> bool:
        """Whether a case about a group's member is open, or an accusation pending: the group shares nothing out before
        they end."""
        if any(each.is_pending and each.work.group == group for each in self.accusations.values()):
            return True
        return any(
            case.challenger_won is None and self.work_of(case.claim_id).group == group for case in self.cases.values()
        )

    def apply(self, event: Event) -> None:
        """Take one event in."""
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    def _published(self, event: e.StagePublished) -> None:
        """A statement was opened to the court."""
        self.claims[event.claim_id] = StageClaimRecord(event.claim_id, event.member, event.work)

    def _accused(self, event: e.StageAccused) -> None:
        """A member accused another."""
        self.accusations[event.claim_id] = StageAccusationRecord(
            event.claim_id, event.member, event.accuser, event.work, event.end_root, event.until
        )

    def _concluded(self, event: e.StageAccusationConcluded) -> None:
        """An accusation stood, and convicted the member."""
        accusation = self.accusations.get(event.claim_id)
        if accusation is not None:
            self.accusations[accusation.id] = replace(accusation, is_concluded=True)

    def _case_opened(self, event: e.StageCaseOpened) -> None:
        """A case was opened."""
        if event.claim_id in self.claims or event.claim_id in self.accusations:
            self.cases[event.case_id] = StageCaseRecord(event.case_id, event.claim_id, event.challenger)

    def _case_closed(self, event: e.StageCaseClosed) -> None:
        """A case was decided."""
        case = self.cases.get(event.case_id)
        if case is None:
            return
        self.cases[case.id] = replace(case, challenger_won=event.challenger_won)
        if not event.challenger_won:
            return
        if case.claim_id in self.accusations:
            self.accusations[case.claim_id] = replace(self.accusations[case.claim_id], has_fallen=True)
        else:
            self.claims[case.claim_id] = replace(self.claims[case.claim_id], has_fallen=True)


_HANDLERS: dict[type[Any], Callable[[StageView, Any], None]] = {
    e.StagePublished: StageView._published,
    e.StageAccused: StageView._accused,
    e.StageAccusationConcluded: StageView._concluded,
    e.StageCaseOpened: StageView._case_opened,
    e.StageCaseClosed: StageView._case_closed,
}
