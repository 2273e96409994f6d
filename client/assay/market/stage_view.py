"""What is known of the statements that groups' members signed about their stages, and of the cases on them: a part of
`MarketView`, with a court of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

from assay.market import events as e
from assay.market.types import StageWork


@dataclass(frozen=True)
class StageClaimRecord:
    """A statement on chain: what `member` said of its stage."""

    id: int
    member: str
    work: StageWork
    has_fallen: bool = False


@dataclass(frozen=True)
class StageCaseRecord:
    """A case on a statement. `challenger_won` is None while it is open."""

    id: int
    claim_id: int
    challenger: str
    challenger_won: bool | None = None


class StageView:
    """Statements and cases by their numbers."""

    def __init__(self) -> None:
        self.claims: dict[int, StageClaimRecord] = {}
        self.cases: dict[int, StageCaseRecord] = {}

    def cases_of(self, account: str) -> list[StageCaseRecord]:
        """Cases in which an account is a party, oldest first."""
        return [case for case in self.cases.values() if account in (case.challenger, self.claims[case.claim_id].member)]

    def open_cases_of(self, account: str) -> list[StageCaseRecord]:
        """Those of them that are not decided yet."""
        return [case for case in self.cases_of(account) if case.challenger_won is None]

    def is_disputed(self, group: str) -> bool:
        """Whether a case on a statement of a group's member is open: the group shares nothing out before it ends."""
        return any(
            case.challenger_won is None and self.claims[case.claim_id].work.group == group
            for case in self.cases.values()
        )

    def published(self, event: e.StagePublished, _logged: e.Logged) -> None:
        """A statement was opened to the court."""
        self.claims[event.claim_id] = StageClaimRecord(event.claim_id, event.member, event.work)

    def case_opened(self, event: e.StageCaseOpened, _logged: e.Logged) -> None:
        """A case was opened."""
        if event.claim_id in self.claims:
            self.cases[event.case_id] = StageCaseRecord(event.case_id, event.claim_id, event.challenger)

    def case_closed(self, event: e.StageCaseClosed, _logged: e.Logged) -> None:
        """A case was decided."""
        case = self.cases.get(event.case_id)
        if case is None:
            return
        self.cases[case.id] = replace(case, challenger_won=event.challenger_won)
        if event.challenger_won:
            self.claims[case.claim_id] = replace(self.claims[case.claim_id], has_fallen=True)
