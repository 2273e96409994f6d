"""What is known of claims about rounds, segments and trainings, and of the cases on them: a part of `MarketView`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from assay.market import events as e
from assay.market.claims import claim_id_of, training_line_of
from assay.market.logs import Logged
from assay.market.records import CaseRecord, ClaimRecord, LineRecord, RoundRecord, true_leaves
from assay.market.types import ClaimKind


class ClaimView:
    """Lines, cases, and the claims that were opened to the court, by their numbers. `rounds` are the market's, each the
    subject of a line: they take an event in before this does."""

    def __init__(self, rounds: Mapping[int, RoundRecord]) -> None:
        self.lines: dict[int, LineRecord] = {}
        self.opened: dict[int, ClaimRecord] = {}
        self.cases: dict[int, CaseRecord] = {}
        self._rounds = rounds
        # Dictionaries without values, for their order.
        self._open_cases: dict[int, None] = {}
        self._open_accusations: dict[int, None] = {}
        self._training: dict[int, int] = {}
        self._entered_first: dict[int, e.ClaimEntered] = {}
        self._leaf_first: dict[int, int] = {}

    # -- questions -----------------------------------------------------------------------------------------------

    def task_of_line(self, line: int) -> int | None:
        """The task a line belongs to."""
        if line in self._rounds:
            return self._rounds[line].task_id
        found = self.lines.get(line)
        return self._training.get(line) if found is None else found.task_id

    def current(self, line: int) -> ClaimRecord | None:
        """The claim that holds in a line now, once it was opened to the court."""
        record = self.lines.get(line)
        if record is None:
            return None
        return self.opened.get(claim_id_of(line, record.root, record.claimant))

    def cases_of(self, task_id: int, only_open: bool = False) -> list[CaseRecord]:
        """Cases on any claim of a task."""
        return [
            case
            for case in self.cases.values()
            if case.task_id == task_id and not (only_open and case.challenger_won is not None)
        ]

    def open_cases(self) -> list[CaseRecord]:
        """Cases not decided yet, oldest first."""
        return [self.cases[number] for number in self._open_cases]

    def open_accusations(self) -> list[LineRecord]:
        """Accusations not closed yet, oldest first."""
        return [self.lines[number] for number in self._open_accusations]

    def cases_on(self, claim_id: int) -> list[CaseRecord]:
        """All cases on one claim."""
        found = self.opened.get(claim_id)
        return [] if found is None else [self.cases[number] for number in found.cases]

    def is_challenged_by(self, claim_id: int, account: str) -> bool:
        """Whether an account has opened a case on a claim, whatever came of it."""
        return any(case.challenger == account for case in self.cases_on(claim_id))

    def is_standing(self, line: int, time: int) -> bool:
        """Whether the line's claim can be disputed no more at a time."""
        record = self.lines.get(line)
        return record is not None and bool(record.claimant) and time > record.until and not record.open_cases

    # -- events --------------------------------------------------------------------------------------------------

    def apply(self, logged: Logged) -> int | None:
        """Take one event in; returns the task it is about, if it is about one."""
        handler = _HANDLERS.get(type(logged.event))
        return None if handler is None else handler(self, logged.event, logged)

    def _change(self, line: int, **changes: Any) -> int | None:
        found = self.lines.get(line)
        if found is None:
            return None
        self.lines[line] = replace(found, **changes)
        return found.task_id

    # Lines

    def _submitted(self, event: e.TaskSubmitted, _logged: Logged) -> int:
        if event.posting.exact:
            self._training[training_line_of(event.task_id)] = event.task_id
        return event.task_id

    def _disclosed(self, event: e.RoundDisclosed, _logged: Logged) -> int | None:
        line, found = self.lines.get(event.round_id), self._rounds.get(event.round_id)
        if line is None or found is None:
            return None
        known = line.published | {event.root} if found.is_profile else line.published
        leaves = {**line.leaves, event.root: true_leaves(found)}
        return self._change(event.round_id, leaves=leaves, published=known)

    def _entered(self, event: e.ClaimEntered, _logged: Logged) -> int | None:
        known = self.lines.get(event.line)
        if known is not None:
            return self._change(
                event.line, root=event.root, claimant=event.claimant, passes=event.passes, until=event.until
            )
        task_id = self.task_of_line(event.line)
        if task_id is None:
            # An accusation: which task it is about follows in the same transaction.
            self._entered_first[event.line] = event
            return None
        self.lines[event.line] = LineRecord(event.line, task_id, event.root, event.claimant, event.passes, event.until)
        return task_id

    def _claim_opened(self, event: e.ClaimOpened, _logged: Logged) -> int | None:
        self.opened[event.claim_id] = ClaimRecord(event.claim_id, event.line, event.root, event.claimant, event.kind)
        task_id = self.task_of_line(event.line)
        if task_id is not None and event.kind is ClaimKind.TRAINING and event.line not in self.lines:
            self.lines[event.line] = LineRecord(event.line, task_id, event.root, event.claimant, True, 0)
        return task_id

    def _published(self, event: e.ReplayPublished | e.ProfilePublished, _logged: Logged) -> int | None:
        found = self.lines.get(event.line)
        if found is None:
            return None
        return self._change(event.line, leaves={**found.leaves, event.root: event.leaves})

    def _answer_published(self, event: e.AnswerPublished, _logged: Logged) -> int | None:
        found = self.lines.get(event.line)
        if found is None:
            return None
        return self._change(event.line, published=found.published | {event.root})

    def _accused(self, event: e.Accused, logged: Logged) -> int:
        entered = self._entered_first.pop(event.line, None)
        root = bytes(32) if entered is None else entered.root
        self.lines[event.line] = LineRecord(
            event.line, event.task_id, root, event.accuser, False, 0, event.segment, event.draw_seed,
            leaves={root: (event.leaf,)}, published=frozenset((root,)),
        )  # fmt: skip
        self._open_accusations[event.line] = None
        if entered is not None:
            self._entered(entered, logged)
        return event.task_id

    def _accusation_closed(self, event: e.AccusationClosed, _logged: Logged) -> int | None:
        self._open_accusations.pop(event.line, None)
        return self._change(event.line, is_closed=True)

    def _fell(self, event: e.ClaimFell, _logged: Logged) -> int | None:
        return self._change(
            event.line, root=event.new_root, claimant=event.new_claimant, passes=event.passes, until=event.until,
            has_fallen=True,
        )  # fmt: skip

    # Cases

    def _case_opened(self, event: e.CaseOpened, logged: Logged) -> int | None:
        claim = self.opened.get(event.claim_id)
        line = self.lines.get(claim.line) if claim is not None else None
        if claim is None or line is None:
            return None
        known = self.cases.get(event.case_id)
        self.cases[event.case_id] = CaseRecord(
            event.case_id, event.claim_id, line.task_id, event.challenger, claim.claimant, event.answer_root,
            logged.block, self._leaf_first.pop(event.case_id, 0), known.moves if known is not None else 0,
        )  # fmt: skip
        self.opened[claim.id] = replace(claim, cases=(*claim.cases, event.case_id))
        self._open_cases[event.case_id] = None
        return self._change(line.id, open_cases=(*line.open_cases, event.case_id))

    def _case_closed(self, event: e.CaseClosed, _logged: Logged) -> int | None:
        case = self.cases.get(event.case_id)
        if case is None:
            return None
        self.cases[event.case_id] = replace(case, challenger_won=event.challenger_won)
        self._open_cases.pop(event.case_id, None)
        line = self.lines[self.opened[case.claim_id].line]
        return self._change(line.id, open_cases=tuple(n for n in line.open_cases if n != event.case_id))

    def _court(self, event: e.CourtEvent, logged: Logged) -> int | None:
        if logged.contract != "Court":
            return None  # between members of a group: `StageView` has what StageClaims logs
        if event.name == "ProgramRefuted":
            return int(event.arguments["taskId"])
        if event.name == "CaseOpened":
            # The court logs a case before the claims contract does.
            self._leaf_first[event.case_id] = int(event.arguments["leaf"])
            claim = self.opened.get(int(event.arguments["claimId"]))
            return None if claim is None else self.task_of_line(claim.line)
        case = self.cases.get(event.case_id)
        if case is None:
            return None
        self.cases[event.case_id] = replace(case, moves=case.moves + 1)
        return case.task_id


_HANDLERS: dict[type[Any], Callable[[ClaimView, Any, Logged], int | None]] = {
    e.TaskSubmitted: ClaimView._submitted,
    e.RoundDisclosed: ClaimView._disclosed,
    e.ClaimEntered: ClaimView._entered,
    e.ClaimOpened: ClaimView._claim_opened,
    e.AnswerPublished: ClaimView._answer_published,
    e.ReplayPublished: ClaimView._published,
    e.ProfilePublished: ClaimView._published,
    e.Accused: ClaimView._accused,
    e.AccusationClosed: ClaimView._accusation_closed,
    e.ClaimFell: ClaimView._fell,
    e.CaseOpened: ClaimView._case_opened,
    e.CaseClosed: ClaimView._case_closed,
    e.CourtEvent: ClaimView._court,
}
