"""The whistleblower: joins rounds, replays, answers, and takes wrong claims to court."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from eth_abi.abi import encode
from eth_utils.crypto import keccak

from assay.commitments.execution import claim_root
from assay.market.answers import answer_commitment
from assay.market.records import RoundRecord, TaskRecord
from assay.market.types import RoundState, Shown, TaskState
from assay.roles.audits import AuditOptions, audits
from assay.roles.context import Action, Context, Send
from assay.roles.disputes import claim_work, court_moves, dispute, own_cases
from assay.roles.joining import joins
from assay.roles.subjects import subject_of_accusation, subject_of_round
from assay.roles.upkeep import deposit, upkeep, withdrawal
from assay.roles.verifier import Verifier, VerifierOptions


class WhenIdle(Enum):
    """What a whistleblower does when it has joined nothing for long, because it did not pay."""

    STAY = "stay"
    LEAVE = "leave"  # take the stake out
    VERIFY = "verify"  # take a verifier's seat beside


@dataclass(frozen=True)
class WhistleblowerOptions:
    """What a whistleblower does. `cost` is what one answer costs it, in wei: it joins while the jackpot pays that, and
    replays nothing else; with 0 it joins whenever it can, and checks every claim. `join_chance` is in parts per
    million."""

    stake: int = 10**18
    cost: int = 0
    join_chance: int = 50_000  # of joining although there are enough
    audits: int = 1  # segments of every proof checked at random, beyond those answered
    suspicion: bool = True  # with those, the segment that looks most suspicious
    when_idle: WhenIdle = WhenIdle.STAY
    idle_blocks: int = 50_000
    least_withdrawal: int = 10**15


def shown_hash(shown: Shown) -> bytes:
    """What the contract keeps of what was shown: an answer is to exactly that."""
    hidden = (shown.hidden.secret, shown.hidden.first, shown.hidden.second)
    return keccak(
        encode(
            ["((bytes32,bytes32,bytes32),bytes32,uint8,bytes32,bytes32,bool)"],
            [(hidden, shown.seed, shown.index, shown.root, shown.thresholds, shown.passes)],
        )
    )


class Whistleblower:
    """Decisions of a whistleblower."""

    name = "whistleblower"

    def __init__(self, options: WhistleblowerOptions | None = None) -> None:
        self.options = options or WhistleblowerOptions()
        self._verifier = Verifier(VerifierOptions(stake=self.options.stake))

    def plan(self, context: Context) -> Sequence[Action]:
        """What the whistleblower does now."""
        return list(self._plan(context))

    def _plan(self, context: Context) -> Iterator[Action]:
        if context.view.accounts.deposits[context.me] == 0:
            yield deposit(context, self.options.stake)
        for task in context.view.running():
            if task.state in (TaskState.PROFILING, TaskState.VERIFYING):
                yield from self._watch_task(context, task)
        yield from self._dispute_what_is_left(context)
        yield from self._contradict_accusations(context)
        yield from collecting(context)
        yield from court_moves(context)
        yield from self._when_idle(context)
        yield from upkeep(context, 12)
        yield from withdrawal(context, self.options.least_withdrawal)

    # ---- Rounds -----------------------------------------------------------------------------------------------------

    def _watch_task(self, context: Context, task: TaskRecord) -> Iterator[Action]:
        for share in task.checked_shares:
            found = context.view.current_round(task.id, share)
            if found is not None and context.me not in (found.verifier, task.solver):
                yield from self._watch(context, found, task)
        if task.state is TaskState.VERIFYING and task.solver != context.me:
            suspicious = self.options.suspicion and self.options.audits > 0
            yield from audits(context, task, AuditOptions(self.options.audits, suspicious))

    def _watch(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        view, me = context.view, context.me
        if found.state is RoundState.COMMITTED and me not in found.answers:
            # Mined in the next block at the earliest, which must come before the lottery's.
            if view.block + 1 < found.lottery_block and self.joins(context, found, task):
                yield Send(f"join:{found.id:x}", context.market.answers.join(found.id), task.id)
        elif found.state is RoundState.SHOWN and me in found.answers:
            yield from self._answer(context, found, task)
        else:
            yield from self._dispute(context, found)

    def _dispute_what_is_left(self, context: Context) -> Iterator[Action]:
        """Claims keep their windows when their task ends otherwise, and pay or cost as ever when they stand."""
        for task in context.view.unreleased():
            if task.state is TaskState.VOID or task.solver == context.me:
                continue
            for share in task.shares:
                found = context.view.current_round(task.id, share)
                if found is not None and found.verifier != context.me:
                    yield from self._dispute(context, found)

    def _dispute(self, context: Context, found: RoundRecord) -> Iterator[Action]:
        if found.state is RoundState.DISCLOSED and (context.me in found.answers or self.options.cost == 0):
            yield from dispute(context, subject_of_round(context.view, found), found.id)

    def joins(self, context: Context, found: RoundRecord, task: TaskRecord) -> bool:
        """Whether to join a round."""
        return joins(context, found, task, self.options.cost, self.options.join_chance)

    def _answer(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        if found.shown is None:
            return
        subject = subject_of_round(context.view, found)
        leaves = context.results.result(subject.key)
        if leaves is None:
            yield claim_work(context, subject)
            return
        me, time = context.me, context.view.time
        root = claim_root(leaves)
        shown = shown_hash(found.shown)
        salt = context.secret(f"answer:{found.id:x}:{shown.hex()}")
        if not found.has_committed(me):
            if time <= found.answers_until:
                commitment = answer_commitment(found.id, me, root, salt)
                call = context.market.answers.commit_answer(found.id, shown, commitment)
                yield Send(f"answer:{found.id:x}:{shown.hex()}", call, task.id)
        elif me not in found.roots and found.may_reveal(time) and time <= found.reveals_until:
            call = context.market.answers.reveal_answer(found.id, root, salt)
            yield Send(f"reveal:{found.id:x}:{shown.hex()}", call, task.id)

    # ---- Accusations ------------------------------------------------------------------------------------------------

    def _contradict_accusations(self, context: Context) -> Iterator[Action]:
        """Dispute accusations that the own replay contradicts, and answers to them that it contradicts: half of the
        bond is won."""
        if self.options.cost >= context.market.parameters.accusation_bond // 2:
            return
        for line in context.view.claims.open_accusations():
            if context.me != line.claimant:
                yield from dispute(context, subject_of_accusation(context.view, line), line.id)

    # ---- Coming and going -------------------------------------------------------------------------------------------

    def is_idle(self, context: Context) -> bool:
        """Whether it has joined nothing for long, and nothing of its own is at stake."""
        view, me = context.view, context.me
        since = view.accounts.joined_at.get(me, view.block)
        return view.block > since + self.options.idle_blocks and not own_cases(view, me)

    def _when_idle(self, context: Context) -> Iterator[Action]:
        view, me, stakes = context.view, context.me, context.market.stakes
        if self.options.when_idle is WhenIdle.VERIFY:
            # Once on the roll it stays there, and goes on looking for rounds that pay.
            if self.is_idle(context) or context.purse.seats:
                yield from self._verifier.enlisting(context)
            yield from self._verifier.duties(context)
        elif self.options.when_idle is WhenIdle.LEAVE:
            if self.is_idle(context) and context.purse.free and not view.rounds_holding(me):
                yield Send(f"leave:{view.accounts.joined_at[me]}", stakes.leave(context.purse.free))
            elif me in view.accounts.leaving and view.time > view.accounts.leaving[me]:
                yield Send(f"release-stake:{view.accounts.leaving[me]}", stakes.release(me))


def collecting(context: Context) -> Iterator[Action]:
    """Collect bonds and prizes of resolved rounds."""
    for found in context.view.rounds_holding(context.me):
        if found.is_resolved and context.me in found.answers:
            call = context.market.answers.collect(found.id, context.me)
            yield Send(f"collect:{found.id:x}", call, found.task_id)
