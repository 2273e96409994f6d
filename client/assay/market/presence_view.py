"""What is known of the reports that members of groups were absent: a part of `MarketView`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from assay.market import group_events as e
from assay.market.logs import Event


@dataclass(frozen=True)
class AbsenceReport:
    """`reporter` says that `member` took part in no segment from `first` to `last`. A receipt can answer it until the
    second `until`; `answered` is the segment that one did answer."""

    id: int
    group: str
    member: str
    reporter: str
    first: int
    last: int
    until: int
    answered: int | None = None
    is_concluded: bool = False

    @property
    def is_pending(self) -> bool:
        """Whether it was neither answered nor concluded: the group waits for it."""
        return self.answered is None and not self.is_concluded

    def can_be_concluded(self, time: int) -> bool:
        """Whether anyone can conclude it at a time."""
        return self.is_pending and time > self.until


class PresenceView:
    """Reports by their numbers."""

    def __init__(self) -> None:
        self.reports: dict[int, AbsenceReport] = {}

    def reports_in(self, group: str) -> list[AbsenceReport]:
        """Reports about members of a group, oldest first."""
        return [report for report in self.reports.values() if report.group == group]

    def is_pending(self, group: str) -> bool:
        """Whether the group shares nothing out yet because of a report."""
        return any(report.is_pending for report in self.reports_in(group))

    def apply(self, event: Event) -> None:
        """Take one event in."""
        handler = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    def _reported(self, event: e.AbsenceReported) -> None:
        """A member reported another."""
        self.reports[event.report_id] = AbsenceReport(
            event.report_id, event.group, event.member, event.reporter, event.first, event.last, event.until
        )

    def _answered(self, event: e.ReportAnswered) -> None:
        """A receipt answered a report."""
        report = self.reports.get(event.report_id)
        if report is not None:
            self.reports[report.id] = replace(report, answered=event.segment)

    def _concluded(self, event: e.AbsenceConcluded) -> None:
        """The group was told of an absence."""
        report = self.reports.get(event.report_id)
        if report is not None:
            self.reports[report.id] = replace(report, is_concluded=True)


_HANDLERS: dict[type[Any], Callable[[PresenceView, Any], None]] = {
    e.AbsenceReported: PresenceView._reported,
    e.ReportAnswered: PresenceView._answered,
    e.AbsenceConcluded: PresenceView._concluded,
}
