"""Accusations among the members of a tolerant task's group: made where an audit found garbage, answered where the own
work is accused, and concluded when their time is over."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from assay.commitments.tree import ZERO_HASH
from assay.dispute.case import Part
from assay.dispute.evidence import OpenEvidence
from assay.market.groups import GroupView
from assay.market.records import TaskRecord
from assay.market.stage_claims import stage_accusation_id
from assay.market.stage_view import StageAccusationRecord
from assay.program.encoding import encode_header
from assay.roles.among_members import hears_evidence, turn_after
from assay.roles.context import Action, Context, Send, Work

if TYPE_CHECKING:
    from assay.group.execution.stage_records import StageDossier, StageEnd

logger = logging.getLogger(__name__)


def findings(context: Context, group: GroupView, task: TaskRecord) -> Iterator[tuple[StageDossier, str]]:
    """What the own audits found false and can still be brought to court, with the accounts of those who signed it."""
    if not hears_evidence(context, group):
        return
    accounts = {member.account for member in group.members}
    for dossier in context.bench.stage_findings(task):
        member = context.bench.member_account(dossier.member)
        if context.view.time <= dossier.work.until and member in accounts:
            yield dossier, member


def accusations(context: Context, group: GroupView, task: TaskRecord) -> Iterator[Action]:
    """Accuse whoever the own audits found to have stated garbage, with where the program ends that checks it."""
    contract, stages = context.market.stage_claims, context.view.stages
    chain_id = context.market.deployment.chain_id
    for dossier, member in findings(context, group, task):
        work = dossier.work
        number = stage_accusation_id(chain_id, contract.address, work, member, context.me)
        if number in stages.accusations:
            continue
        key = f"stage-fault:{number:x}"
        end: StageEnd | None = context.results.result(key)
        if end is None:
            yield Work(key, partial(context.bench.stage_end, task, dossier))
        elif not end.fault <= 1 and not stages.is_accused(work, member, end.root):
            bond = context.market.parameters.accusation_bond
            call = contract.accuse(work, dossier.signature, end.root, end.fault_bits, end.proof, bond)
            yield Send(f"stage-accuse:{number:x}", call, task.id, work.segment)


def answer(
    context: Context, task: TaskRecord, accusation: StageAccusationRecord, dossier: StageDossier
) -> Iterator[Action]:
    """Open a case on an accusation of the own work, if its checking program does not end where it is said to."""
    number = accusation.id
    if context.view.time > accusation.until:
        return
    if context.view.stages.is_challenged_by(number, context.me):
        return
    key = f"stage-answer:{number:x}"
    end: StageEnd | None = context.results.result(key)
    if end is None:
        yield Work(key, partial(_own_end, context, task, accusation, dossier))
    elif end.root != accusation.end_root:
        key = f"stage-evidence:{number:x}"
        evidence: OpenEvidence | None = context.results.result(key)
        if evidence is None:
            yield Work(key, partial(evidence_of, context, task, dossier))
        else:
            yield open_case(context, number, evidence, task, accusation.work.segment)


def _own_end(
    context: Context, task: TaskRecord, accusation: StageAccusationRecord, dossier: StageDossier
) -> StageEnd:  # fmt: skip
    end = context.bench.stage_end(task, dossier)
    if end.root == accusation.end_root:
        logger.warning(
            "an accusation of this member's work is true: what it sent, or its end, is not what its operators give",
            extra={"segment": accusation.work.segment, "fault": end.fault, "accuser": accusation.accuser},
        )
    return end


def conclusions(context: Context, group: GroupView) -> Iterator[Action]:
    """Conclude accusations whose time is over: the accuser at once, the others one after the other if it does not."""
    for accusation in context.view.stages.accusations.values():
        if accusation.work.group != group.address:
            continue
        wait = turn_after(context, group, accusation.accuser)
        if context.view.stages.can_be_concluded(accusation.id, context.view.time - wait):
            call = context.market.stage_claims.conclude(accusation.id)
            yield Send(f"stage-conclude:{accusation.id:x}", call, group.task, accusation.work.segment)


def evidence_of(context: Context, task: TaskRecord, dossier: StageDossier) -> OpenEvidence:
    """What opens a case about a stage: its program's header."""
    program = context.bench.stage_execution(task, dossier).program
    return OpenEvidence(b"", (), b"", (), ZERO_HASH, (), encode_header(program))


def open_case(context: Context, number: int, evidence: OpenEvidence, task: TaskRecord, segment: int) -> Send:
    """Open a case on a statement or an accusation."""
    bond = context.market.parameters.case_bond
    call = context.market.stage_court.open(number, 0, Part.END, ZERO_HASH, evidence.as_tuple(), bond)
    return Send(f"stage-case:{number:x}", call, task.id, segment)
