"""Stages of a group's members in court: bringing statements there that an audit found false, and defending one's own.

A member acts here in its own name, with its own bond; the group and the market have no part in it but that a member
whose statement falls loses its contribution and its share (contracts/Group.sol).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

from assay.commitments.tree import ZERO_HASH
from assay.dispute.case import Part
from assay.dispute.evidence import OpenEvidence
from assay.group.execution.stage_records import StageDossier
from assay.market.groups import GroupState, GroupView
from assay.market.records import TaskRecord
from assay.market.stage_claims import stage_claim_id
from assay.program.encoding import encode_header
from assay.roles.context import Action, Context, Send, Work
from assay.roles.disputes import moves_in

logger = logging.getLogger(__name__)


class StageParty:
    """Decisions of a group's member about statements on stages. A role of its own: what fails here must not hold up
    what the member does for the group."""

    name = "stages"

    def __init__(self, least_withdrawal: int = 0) -> None:
        self.least_withdrawal = least_withdrawal
        self._defenceless: set[int] = set()
        self._paid_out = 0  # cases that were decided when nothing was left to withdraw

    def plan(self, context: Context) -> list[Action]:
        """What the member does now."""
        return list(self._plan(context))

    def _plan(self, context: Context) -> Iterator[Action]:
        group = context.group
        task = None if group is None else context.view.tasks.get(group.task)
        if group is None or task is None or not task.posting.exact or group.place_of(context.me) is None:
            return
        yield from self._moves(context, task)
        yield from stage_disputes(context, group, task)
        yield from self._withdrawal(context)

    def _moves(self, context: Context, task: TaskRecord) -> Iterator[Action]:
        """The moves that are due in the own cases, and timeouts of silent opponents. Tells once of a case that nothing
        is kept for: its clock decides it."""
        for case in context.view.stages.open_cases_of(context.me):
            work = context.view.stages.work_of(case.claim_id)
            dossier = context.bench.stage_dossier(task, work)
            if dossier is not None:
                execution = partial(context.bench.stage_execution, task, dossier)
                yield from moves_in(context, case.id, context.market.stage_court, execution, task.id, work.segment)
            elif case.id not in self._defenceless:
                self._defenceless.add(case.id)
                logger.warning(
                    "there is no record of a stage statement that is in court, and the case is lost when its clock is "
                    "out: put the folder audit/records back",
                    extra={"case": f"{case.id:#x}", "segment": work.segment, "until": work.until},
                )

    def _withdrawal(self, context: Context) -> Iterator[Action]:
        """Take what cases about stages have left: bonds that came back, and those that others lost."""
        decided = sum(case.challenger_won is not None for case in context.view.stages.cases_of(context.me))
        if decided == self._paid_out:
            return
        credit = context.market.stage_claims.credit_of(context.me)
        if credit >= max(1, self.least_withdrawal):
            yield Send(f"stage-withdraw:{decided}:{credit}", context.market.stage_claims.withdraw())
        else:
            self._paid_out = decided


DISPUTABLE = (GroupState.WORKING, GroupState.CLOSED)
"""States of a group in which its members' statements can be brought to court."""


def stage_disputes(context: Context, group: GroupView, task: TaskRecord) -> Iterator[Action]:
    """Publish the statements that the own audits found false, and open cases on them."""
    if group.state not in DISPUTABLE or (group.state is GroupState.CLOSED and context.view.time > group.evidence_until):
        return
    contract, stages = context.market.stage_claims, context.view.stages
    chain_id = context.market.deployment.chain_id
    addresses = {member.account for member in group.members}
    for dossier in context.bench.stage_findings(task):
        member = context.bench.member_account(dossier.member)
        if context.view.time > dossier.work.until or member not in addresses:
            continue
        number = stage_claim_id(chain_id, contract.address, dossier.work, member)
        claim = stages.claims.get(number)
        if claim is None:
            call = contract.publish(dossier.work, dossier.signature)
            yield Send(f"stage-publish:{number:x}", call, task.id, dossier.work.segment)
            continue
        if claim.has_fallen or any(case.claim_id == number for case in stages.cases_of(context.me)):
            continue
        key = f"stage-evidence:{number:x}"
        evidence = context.results.result(key)
        if evidence is None:
            yield Work(key, partial(evidence_of, context, task, dossier))
            continue
        bond = context.market.parameters.case_bond
        call = context.market.stage_court.open(number, 0, Part.END, ZERO_HASH, evidence.as_tuple(), bond)
        yield Send(f"stage-case:{number:x}", call, task.id, dossier.work.segment)


def evidence_of(context: Context, task: TaskRecord, dossier: StageDossier) -> OpenEvidence:
    """What opens a case on a stage statement: its program's header."""
    program = context.bench.stage_execution(task, dossier).program
    return OpenEvidence(b"", (), b"", (), ZERO_HASH, (), encode_header(program))
