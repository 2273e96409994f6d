"""A member of a group that is one solver: trains with the others, leads if it is the leader, watches it if it is not,
and withdraws its part.

All members run this. The leader does in the group's name what a solver does in its own. What anyone may do is done by
the leader first, and by the others, one after the other in the order of the agreement, if it is not.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace

from assay.dispute.hash_tree import root
from assay.market.explain import solver_stake
from assay.market.groups import GroupContract, GroupMarket, GroupState, GroupView
from assay.market.records import TaskRecord
from assay.market.types import TaskState
from assay.program.operator import Role
from assay.roles.bench import Workbench
from assay.roles.context import Action, Context, Send, Work
from assay.roles.demands import serve
from assay.roles.disputes import court_moves, own_cases
from assay.roles.group_work import charges
from assay.roles.solver import SILENT_SECONDS, Solver, SolverOptions
from assay.roles.subjects import Subject
from assay.roles.upkeep import reopening, silent_parties, upkeep_of, withdrawal

PATIENCE = 5
"""Blocks that each member waits for the one before it, in what anyone may do."""

LED = (GroupState.FORMING, GroupState.READY, GroupState.WORKING)
"""States in which a leader can do what binds all."""


class GroupMember(Solver):
    """Decisions of a member of `group`."""

    def __init__(self, group: GroupContract, options: SolverOptions | None = None) -> None:
        super().__init__(options)
        self._contract = group
        self._me = ""

    def refusal(self, context: Context, task: TaskRecord) -> str | None:
        """Why the group does not take a task; the contract's own limits come on top."""
        stake = solver_stake(task, context.market.parameters)
        if stake > context.purse.free:
            return f"the stake is {stake}, the members contributed {context.purse.free}"
        return super().refusal(context, task)

    def inspect(self, context: Context, task: TaskRecord) -> str:
        """Fetch and check the files: `fits`, or why the task is not for this machine, or not for this group."""
        found = super().inspect(context, task)
        return found if found != "fits" else context.bench.cannot_train(task) or "fits"

    def _plan(self, context: Context) -> Iterator[Action]:
        group = context.group
        place = None if group is None else group.place_of(context.me)
        if group is None or place is None:
            return
        if group.state is GroupState.FORMING:
            yield from self._contribute(context, group, place)
        elif group.state is GroupState.READY:
            yield from self._look_for_a_task(context, group, place)
        elif group.state is GroupState.WORKING:
            yield from self._work(context, group, place)
        elif group.state is GroupState.CLOSED:
            is_waiting = context.view.stages.is_disputed(group.address)
            is_waiting = is_waiting or context.view.presence.is_pending(group.address)
            if context.view.time > group.evidence_until + self._turn(context, place) and not is_waiting:
                yield self._send("share", self._contract.share(), group)
            else:
                yield from self._charge(context, group, place)
        elif group.state is GroupState.SHARED:
            yield from self._be_paid(context, group, place)
        yield from self._keep_the_lead(context, group, place)
        yield from court_moves(context)
        yield from withdrawal(context, self.options.least_withdrawal)

    # ---- The group's states ---------------------------------------------------------------------------------------

    def _contribute(self, context: Context, group: GroupView, place: int) -> Iterator[Action]:
        member = group.members[place]
        if context.view.time > group.form_by + self._turn(context, place):
            yield self._send("dissolve", self._contract.dissolve(), group)
        elif not member.has_paid and context.view.time <= group.form_by:
            yield self._send("contribute", self._contract.contribute(place, member.contribution), group)

    def _look_for_a_task(self, context: Context, group: GroupView, place: int) -> Iterator[Action]:
        if context.view.time > group.take_by + self._turn(context, place):
            yield self._send("dissolve", self._contract.dissolve(), group)
        elif group.leader == context.me and context.view.time <= group.take_by:
            yield from self._take(self._acting(context, group), list(context.view.in_state(TaskState.OPEN)))

    def _work(self, context: Context, group: GroupView, place: int) -> Iterator[Action]:
        task = context.view.tasks.get(group.task)
        if task is None:
            return
        acting = self._acting(context, group)
        if task.state.is_over or task.solver != group.address:
            if context.view.block > task.finished_block + PATIENCE * place:
                yield self._send("close", self._contract.close(), group)
            return
        if task.state is TaskState.TAKEN:
            yield from self._train_together(acting, task, leads=group.leader == context.me)
        elif group.leader == context.me:
            yield from self._answer_for(acting, task)
        else:
            yield from self._stand_in(context, task, place)
        yield from self._defend(acting, context.me, group)

    def _train_together(self, context: Context, task: TaskRecord, leads: bool) -> Iterator[Action]:
        key = f"train:{task.id:x}:{task.relists}"
        if context.view.time > task.deadline:
            yield from reopening(context, task, 0)
        elif leads:
            yield from self._train(context, task)
        elif context.results.result(key) is None:
            yield Work(key, lambda: context.bench.train(task))

    def _stand_in(self, context: Context, task: TaskRecord, place: int) -> Iterator[Action]:
        """What anyone may do for a task under verification, where the leader has not done it."""
        yield from upkeep_of(context, task, self._turn(context, place))
        yield from silent_parties(context, SILENT_SECONDS + self._turn(context, place), task.id)
        half = context.market.parameters.demand_seconds // 2
        if any(context.view.time > demand.deadline - half for demand in context.view.open_demands(task.id)):
            yield from serve(context, task)

    def _defend(self, acting: Context, me: str, group: GroupView) -> Iterator[Action]:
        """Moves in cases on the group's training claim. What the contract leaves to another member is not sent."""
        for action in court_moves(acting):
            if isinstance(action, Send) and action.key.endswith(":expand") and action.segment is not None:
                owner = self._contract.owner_of(action.segment) or group.leader
                if me != owner and not (yield from self._may_relieve(acting, me, group, action.segment)):
                    continue
            yield action

    def _may_relieve(self, acting: Context, me: str, group: GroupView, segment: int) -> Generator[Action, None, bool]:
        """Whether to speak for a silent owner. A leader that does takes the charge for the case from it: it must not
        where the owner has signed for something false."""
        if me != group.leader:
            return False
        task = acting.view.task(group.task)
        key = f"right:{task.id:x}:{segment}:{task.checkpoint_root.hex()}"
        found: bool | None = acting.results.result(key)
        if found is None:
            yield Work(key, lambda: is_right(acting.bench, Subject(task, (segment,), 0)))
        return bool(found)

    def _keep_the_lead(self, context: Context, group: GroupView, place: int) -> Iterator[Action]:
        """The leader says that it is there, from the group's forming to its task's end: whoever takes its place could
        stake what all have put in. A member takes the place of one that does not, while somebody is needed who leads.
        """
        if group.state not in LED:
            return
        if group.leader == context.me:
            if context.view.time > group.leader_until - group.patience // 2:
                yield self._send(f"stay:{group.leader_until}", self._contract.stay(), group)
        elif context.view.time > group.leader_until + self._turn(context, place) and self._is_needed(context, group):
            yield self._send(f"take-over:{group.leader_until}", self._contract.take_over(), group)

    def _is_needed(self, context: Context, group: GroupView) -> bool:
        """Whether a leader has something to do that nobody else can."""
        task = context.view.tasks.get(group.task)
        if task is None or task.solver != group.address:
            return False
        return task.state is TaskState.TAKEN or bool(own_cases(context.view, group.address))

    def _charge(self, context: Context, group: GroupView, place: int) -> Iterator[Action]:
        """Have the owner charged who signed for a segment that failed the task; one member after the other sends it."""
        task = context.view.tasks.get(group.task)
        if task is None or task.state is not TaskState.FAILED:
            return
        if context.view.block <= task.finished_block + PATIENCE * place:
            return
        work = context.bench.signed_work(task)
        if work is None:
            return
        liable = {member.account for member in group.members if member.is_liable}
        for segment, call in charges(context.view, self._contract, task, work):
            if self._contract.owner_of(segment) not in liable:
                yield self._send(f"blame:{segment}:{call.data[:4].hex()}", call, group)

    def _be_paid(self, context: Context, group: GroupView, place: int) -> Iterator[Action]:
        # The same amounts can come several times: they are told apart by how often the group has taken its own.
        taken = context.view.accounts.withdrawals[group.address]
        is_back = group.leaving != 0 and context.view.time > group.leaving_until + self._turn(context, place)
        if is_back or group.income != 0:
            yield self._send(f"collect:{taken}:{group.leaving}:{group.income}", self._contract.collect(), group)
        credit = group.members[place].credit
        if credit >= max(1, self.options.least_withdrawal):
            yield self._send(f"withdraw:{taken}:{credit}:{group.balance}", self._contract.withdraw(), group)

    # ---- Acting in the group's name -------------------------------------------------------------------------------

    def _acting(self, context: Context, group: GroupView) -> Context:
        """The context of a solver that is the group: what it has here is what it can stake."""
        return replace(
            context,
            me=group.address,
            market=GroupMarket(context.market, self._contract),
            purse=replace(context.purse, free=group.balance, credit=0),
        )

    def challenger(self, context: Context) -> Context:
        """A case against a verdict is opened with the member's own bond, and won or lost by it."""
        if isinstance(context.market, GroupMarket):
            return replace(context, me=self._me, market=context.market.own)
        return context

    def plan(self, context: Context) -> list[Action]:
        """What the member does now."""
        self._me = context.me
        return list(self._plan(context))

    def _turn(self, context: Context, place: int) -> int:
        """Seconds that a member waits for those before it."""
        return PATIENCE * place * context.market.parameters.commit_seconds // 100

    def _send(self, purpose: str, call: object, group: GroupView) -> Send:
        name, _, rest = purpose.partition(":")
        return Send(f"group-{name}:{group.address}:{rest}", call, group.task or None)  # type: ignore[arg-type]


def is_right(bench: Workbench, subject: Subject) -> bool:
    """Whether the own execution of a subject's one segment ends in the checkpoint that was registered."""
    (segment,) = subject.segments
    run = bench.execution(subject, 0)
    return root(run.state(Role.STEP, run.steps - 1)) == bench.manifest(subject.task).roots[segment + 1]
