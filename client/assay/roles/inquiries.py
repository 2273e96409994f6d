"""When a group's task has failed: its members look into the segments that it failed by, again and again until they know
who was wrong there, or the group hears of it no more."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from assay.market.groups import GroupContract, GroupState, GroupView
from assay.market.records import TaskRecord
from assay.market.types import TaskState
from assay.roles.among_members import hears_evidence
from assay.roles.context import Action, Context, Work
from assay.roles.group_work import failures

RETRY_SECONDS = 600
"""Seconds after which a segment is looked into again whose members have not all handed over what they kept."""


def inquiries(context: Context, group: GroupView, task: TaskRecord) -> Iterator[Action]:
    """Look into the segments that failed a task. What is found false is brought to court as what audits find."""
    if group.state is not GroupState.CLOSED or task.state is not TaskState.FAILED or not hears_evidence(context, group):
        return
    roots = context.bench.trained_roots(task)
    if not roots:
        return
    contract = GroupContract(context.market, group.address)
    since = context.view.time - (group.evidence_until - group.evidence_seconds)
    for segment in sorted({segment for segment, _ in failures(context.view, contract, task, roots)}):
        attempt = max(0, since) // RETRY_SECONDS
        keys = [f"inquiry:{task.id:x}:{segment}:{number}" for number in range(attempt + 1)]
        if not any(context.results.result(key) for key in keys):
            yield Work(keys[-1], partial(context.bench.inquire, task, segment))
