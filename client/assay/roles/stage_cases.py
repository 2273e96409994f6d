"""Stages of a group's members in court: bringing statements there that an audit found false, and defending one's own.

A member acts here in its own name, with its own bond; the group and the market have no part in it but that a member
whose statement falls, or who is rightly accused, loses its contribution and its share (contracts/Group.sol). What is
said of a stage in an exact task is disputed as it stands; in a tolerant one (`stage_accusations`) whoever found garbage
says where the program ends that checks it, and is disputed itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

from assay.market.groups import GroupView
from assay.market.records import TaskRecord
from assay.market.stage_claims import stage_claim_id
from assay.market.types import StageWork
from assay.roles.among_members import TURN_SECONDS, LedgerWithdrawal, has_time
from assay.roles.context import Action, Context, Send, Work
from assay.roles.disputes import moves_in
from assay.roles.inquiries import inquiries
from assay.roles.stage_accusations import (
    accusations,
    answer,
    conclusions,
    evidence_of,
    findings,
    open_case,
)

logger = logging.getLogger(__name__)


class StageParty:
    """Decisions of a group's member about statements on stages. A role of its own: what fails here must not hold up
    what the member does for the group."""

    name = "stages"

    def __init__(self, least_withdrawal: int = 0) -> None:
        self._credits = LedgerWithdrawal("stage", least_withdrawal)
        self._defenceless: set[int] = set()

    def plan(self, context: Context) -> list[Action]:
        """What the member does now."""
        return list(self._plan(context))

    def _plan(self, context: Context) -> Iterator[Action]:
        group = context.group
        task = None if group is None else context.view.tasks.get(group.task)
        if group is None or task is None or group.place_of(context.me) is None:
            return
        yield from inquiries(context, group, task)
        yield from self._moves(context, task)
        yield from silent_members(context, group)
        if task.posting.exact:
            yield from stage_disputes(context, group, task)
        else:
            yield from accusations(context, group, task)
            yield from self._answers(context, task)
            yield from conclusions(context, group)
        yield from self._withdrawal(context)

    def _moves(self, context: Context, task: TaskRecord) -> Iterator[Action]:
        """The moves that are due in the own cases, and timeouts of silent opponents. Tells once of a case that nothing
        is kept for: its clock decides it."""
        for case in context.view.stages.open_cases_of(context.me):
            work = context.view.stages.work_of(case.claim_id)
            dossier = context.bench.stage_dossier(task, work)
            if dossier is None:
                self._is_defenceless(case.id, work)
                continue
            dossier.pin()
            execution = partial(context.bench.stage_execution, task, dossier)
            yield from moves_in(context, case.id, context.market.stage_court, execution, task.id, work.segment)

    def _answers(self, context: Context, task: TaskRecord) -> Iterator[Action]:
        """Dispute what accuses the own work, where the own execution ends otherwise."""
        for accusation in context.view.stages.accusations_of(context.me):
            if accusation.member != context.me or not accusation.is_pending:
                continue
            dossier = context.bench.stage_dossier(task, accusation.work)
            if dossier is None:
                self._is_defenceless(accusation.id, accusation.work)
                continue
            dossier.pin()
            yield from answer(context, task, accusation, dossier)

    def _is_defenceless(self, number: int, work: StageWork) -> None:
        """Tell once that nothing is kept which a case or an accusation needs."""
        if number in self._defenceless:
            return
        self._defenceless.add(number)
        logger.warning(
            "there is no record of a stage statement that is in court, where it is lost when the time is out: put the "
            "folder audit/records back",
            extra={"claim": f"{number:#x}", "segment": work.segment, "until": work.until},
        )

    def _withdrawal(self, context: Context) -> Iterator[Action]:
        """Take what cases about stages have left: bonds that came back, and those that others lost."""
        stages = context.view.stages
        decided = sum(case.challenger_won is not None for case in stages.cases_of(context.me))
        decided += sum(not accusation.is_pending for accusation in stages.accusations_of(context.me))
        yield from self._credits.plan(context, context.market.stage_claims, decided)


def silent_members(context: Context, group: GroupView) -> Iterator[Action]:
    """Time-outs in cases of others, where no party calls them: the group shares nothing out while one is open. One
    member after the other does, if the one before does not."""
    stages, court = context.view.stages, context.market.stage_court
    wait = TURN_SECONDS * (1 + (group.place_of(context.me) or 0))
    for case in stages.open_cases():
        if stages.work_of(case.claim_id).group != group.address:
            continue
        if context.me not in (case.challenger, stages.claimant_of(case.claim_id)):
            deadline = court.deadline(case.id)
            if context.view.time > deadline + wait:
                yield Send(f"case-timeout:{case.id:x}:{deadline}", court.timeout(case.id), group.task)


def stage_disputes(context: Context, group: GroupView, task: TaskRecord) -> Iterator[Action]:
    """Publish the statements that the own audits found false, and open cases on them."""
    contract, stages = context.market.stage_claims, context.view.stages
    chain_id = context.market.deployment.chain_id
    for dossier, member in findings(context, group, task):
        number = stage_claim_id(chain_id, contract.address, dossier.work, member)
        claim = stages.claims.get(number)
        if claim is None:
            call = contract.publish(dossier.work, dossier.signature)
            yield Send(f"stage-publish:{number:x}", call, task.id, dossier.work.segment)
            continue
        if claim.has_fallen or stages.is_challenged_by(number, context.me):
            continue
        if has_time(context, group) and any(case.challenger_won is None for case in stages.cases_on(number)):
            continue  # after an inquiry all members hold the same against the same one
        key = f"stage-evidence:{number:x}"
        evidence = context.results.result(key)
        if evidence is None:
            yield Work(key, partial(evidence_of, context, task, dossier))
        else:
            yield open_case(context, number, evidence, task, dossier.work.segment)
