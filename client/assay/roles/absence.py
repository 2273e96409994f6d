"""Who was absent while a group trained: reporting it, answering a report, concluding what nobody answered.

All members run this beside their other roles. A member reports others absent in segments that it took part in itself,
and in no others: of those it knows only what it was given, which may be made up to have it lose a bond. What it was
given counts in favour of a member: it is not reported then, and this one answers for it where it cannot.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence

from assay.market.groups import GroupState, GroupView
from assay.market.presence import MOST_SEGMENTS, Receipt, absence_report_id
from assay.market.presence_view import AbsenceReport
from assay.market.records import TaskRecord
from assay.market.types import TaskState
from assay.roles.among_members import TURN_SECONDS, LedgerWithdrawal, hears_evidence, turn_after
from assay.roles.context import Action, Context, Send

logger = logging.getLogger(__name__)


class AbsenceParty:
    """Decisions of a group's member about who was absent. A role of its own: what fails here must not hold up what the
    member does for the group."""

    name = "absence"

    def __init__(self, least_withdrawal: int = 0) -> None:
        self._credits = LedgerWithdrawal("absence", least_withdrawal)
        self._over_since = 0  # when training was first seen to be over
        self._defenceless: set[int] = set()

    def plan(self, context: Context) -> list[Action]:
        """What the member does now."""
        return list(self._plan(context))

    def _plan(self, context: Context) -> Iterator[Action]:
        group = context.group
        task = None if group is None else context.view.tasks.get(group.task)
        if group is None or task is None or group.presence_rate == 0 or group.place_of(context.me) is None:
            return
        yield from self._reports(context, group, task)
        yield from self._answers(context, group, task)
        yield from conclusions(context, group)
        yield from self._withdrawal(context, group)

    def _reports(self, context: Context, group: GroupView, task: TaskRecord) -> Iterator[Action]:
        """Report who was absent: one member after the other, so that not all say the same."""
        if is_training(group, task) or not hears_evidence(context, group):
            return
        self._over_since = self._over_since or context.view.time
        if context.view.time < self._over_since + TURN_SECONDS * (group.place_of(context.me) or 0):
            return
        yield from reports(context, group, task, context.bench.receipts(task))

    def _answers(self, context: Context, group: GroupView, task: TaskRecord) -> Iterator[Action]:
        """Answer what is said of this member, and, if nobody did in the first half of the time, of others."""
        time, contract = context.view.time, context.market.presence
        half = context.market.parameters.dispute_seconds // 2
        for report in context.view.presence.reports_in(group.address):
            is_mine = report.member == context.me
            if not report.is_pending or time > report.until or not (is_mine or time > report.until - half):
                continue
            witness = witness_against(report, group, context.bench.receipts(task))
            if witness is not None:
                receipt, signature = witness
                call = contract.answer(report.id, receipt.run, receipt.segment, receipt.accounts, signature)
                yield Send(f"absence-answer:{report.id:x}", call, task.id, receipt.segment)
            elif is_mine and report.id not in self._defenceless:
                self._defenceless.add(report.id)
                logger.warning(
                    "no receipt says that this member took part in segments in which it is reported absent: if it was "
                    "there, put its receipts.jsonl back",
                    extra={"first": report.first, "last": report.last, "until": report.until},
                )

    def _withdrawal(self, context: Context, group: GroupView) -> Iterator[Action]:
        """Take what reports have left: bonds that came back, and those of false reports."""
        found = context.view.presence.reports_in(group.address)
        decided = sum(not each.is_pending and context.me in (each.reporter, each.member) for each in found)
        yield from self._credits.plan(context, context.market.presence, decided)


def is_training(group: GroupView, task: TaskRecord) -> bool:
    """Whether the group trains still, so that nobody can be reported."""
    return task.state is TaskState.TAKEN and task.solver == group.address


def reports(
    context: Context, group: GroupView, task: TaskRecord, receipts: Sequence[Receipt]
) -> Iterator[Action]:  # fmt: skip
    """Reports of the members that were not in segments in which this one took part, in ranges as long as can be."""
    contract = context.market.presence
    chain_id, bond = context.market.deployment.chain_id, context.market.parameters.accusation_bond
    known: set[int] = set()
    present: defaultdict[str, set[int]] = defaultdict(set)
    for receipt in receipts:
        if context.me in receipt.accounts:
            known.add(receipt.segment)
        for account in receipt.accounts:
            present[account].add(receipt.segment)
    for place, member in enumerate(group.members):
        if member.account == context.me or member.is_convicted:
            continue
        there = set(present[member.account])
        said = [each for each in context.view.presence.reports_in(group.address) if each.member == member.account]
        if any(each.reporter == context.me and each.answered is not None for each in said):
            # Somebody signs for it what this member does not know: the next report would cost as much.
            continue
        there |= {each.answered for each in said if each.answered is not None}
        for each in said:
            if each.is_concluded or each.reporter == context.me or _is_trusted(context, group, each):
                there.update(range(each.first, each.last + 1))
        for first, last in ranges({segment for segment in known - there if segment < task.segments}):
            number = absence_report_id(
                chain_id, contract.address, group.address, member.account, first, last, context.me
            )  # fmt: skip
            call = contract.report(group.address, place, first, last, bond)
            yield Send(f"absence-report:{number:x}", call, task.id, first)


def _is_trusted(context: Context, group: GroupView, report: AbsenceReport) -> bool:
    """Whether another's pending report is waited for: not when it may be meant to fall too late for others."""
    is_late = group.state is GroupState.CLOSED and (
        context.view.time > group.evidence_until - group.evidence_seconds // 2
    )
    return report.is_pending and not is_late


def ranges(segments: set[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive segments, none longer than a report can be."""
    found: list[tuple[int, int]] = []
    for segment in sorted(segments):
        if found and segment == found[-1][1] + 1 and segment - found[-1][0] < MOST_SEGMENTS:
            found[-1] = found[-1][0], segment
        else:
            found.append((segment, segment))
    return found


def witness_against(
    report: AbsenceReport, group: GroupView, receipts: Sequence[Receipt]
) -> tuple[Receipt, bytes] | None:  # fmt: skip
    """A receipt that answers a report, with the signature of a member that is not the one reported."""
    members = {member.account for member in group.members} - {report.member}
    for receipt in receipts:
        if report.first <= receipt.segment <= report.last and report.member in receipt.accounts:
            for account, signature in receipt.signatures.items():
                if account in members:
                    return receipt, signature
    return None


def conclusions(context: Context, group: GroupView) -> Iterator[Action]:
    """Conclude reports whose time is over: the reporter at once, the others one after the other if it does not."""
    for report in context.view.presence.reports_in(group.address):
        if report.can_be_concluded(context.view.time - turn_after(context, group, report.reporter)):
            call = context.market.presence.conclude(report.id)
            yield Send(f"absence-conclude:{report.id:x}", call, group.task, report.first)
