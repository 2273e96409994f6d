"""The solver: takes tasks at a price that fits, trains them, registers the proof, answers for it, is paid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from assay.commitments import tree
from assay.market.explain import solver_stake
from assay.market.records import TaskRecord
from assay.market.types import RoundState, TaskState
from assay.roles.context import Action, Context, Send, Work
from assay.roles.demands import serve
from assay.roles.disputes import claim_work, court_moves, dispute
from assay.roles.jobs import FETCH_ATTEMPTS
from assay.roles.subjects import Subject, subject_of_accusation, subject_of_round
from assay.roles.upkeep import closing_accusations, deposit, releasing, reopening, silent_parties, upkeep_of, withdrawal

INSPECTED_AT_ONCE = 2
"""Tasks whose files are fetched at a time, those apart that have failed before."""
SILENT_SECONDS = 6
"""For so long a case about the own task is left to its parties when the clock of one has run out."""


def take_key(task: TaskRecord) -> str:
    """Name of the transaction that takes a task, as it is on the market now."""
    return f"take:{task.id:x}:{task.relists}"


@dataclass(frozen=True)
class SolverOptions:
    """What a solver accepts. Prices in wei for 10^12 units of work, memory in bytes, speed in units a second."""

    price_per_terawork: int = 0
    work_limit: int = 1 << 62
    memory_limit: int = 0  # 0: no limit
    speed: float = 1e9
    stake_limit: int = 10 * 10**18  # most stake deposited for one task
    fetch_attempts: int = FETCH_ATTEMPTS  # at an open task's files; it is looked at again an hour later
    checks: int = 1  # segments of an own tolerant proof replayed before it is registered
    least_withdrawal: int = 10**15


def checkpoint_proofs(roots: Sequence[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Siblings of the first and of the last checkpoint."""
    levels = tree.levels(roots)
    return tree.proof_of(levels, 0), tree.proof_of(levels, len(roots) - 1)


class Solver:
    """Decisions of a solver. One task is trained at a time."""

    name = "solver"

    def __init__(self, options: SolverOptions | None = None) -> None:
        self.options = options or SolverOptions()

    def refusal(self, context: Context, task: TaskRecord) -> str | None:
        """Why an open task is not taken now; None if it is."""
        options, posting = self.options, task.posting
        if task.submitter == context.me:
            return "it is the own task"
        if context.me in task.former_solvers:
            return "it was given up, or late, before"
        work = task.training_work
        if work > options.work_limit:
            return f"{work} units of work are more than the limit of {options.work_limit}"
        wanted = options.price_per_terawork * work // 10**12
        price = task.price_at(context.view.time)
        if price < wanted:
            return f"the price is {price}, {wanted} is wanted"
        if work / options.speed > posting.train_seconds:
            return f"training takes {work / options.speed:.0f} s at this speed, the task allows {posting.train_seconds}"
        stake = solver_stake(task, context.market.parameters)
        if stake > options.stake_limit:
            return f"the stake is {stake}, the limit {options.stake_limit}"
        return None

    def plan(self, context: Context) -> Sequence[Action]:
        """What the solver does now."""
        return list(self._plan(context))

    def _plan(self, context: Context) -> Iterator[Action]:
        mine = [task for task in context.view.running() if task.solver == context.me]
        for task in mine:
            if task.state is TaskState.TAKEN:
                yield from self._train(context, task)
            elif task.state is TaskState.VERIFYING:
                yield from self._answer_for(context, task)
        if not any(task.state is TaskState.TAKEN for task in mine):
            yield from self._take(context, list(context.view.in_state(TaskState.OPEN)))
        yield from closing_accusations(context, 12)
        yield from releasing(context)
        yield from court_moves(context)
        yield from withdrawal(context, self.options.least_withdrawal)

    def _take(self, context: Context, tasks: Sequence[TaskRecord]) -> Iterator[Action]:
        """Inspect tasks, and take one that fits. Neither files that cannot be had, nor a task that the contracts do not
        let go (too few verifiers for it) or whose stake the account cannot pay, keep the solver from the others."""
        inspected = 0
        for task in sorted(tasks, key=lambda task: context.refusals.get(take_key(task), 0)):
            if self.refusal(context, task) is not None:
                continue
            key = f"inspect:{task.id:x}"
            failures = context.results.failures(key)
            if failures >= self.options.fetch_attempts:
                continue
            fits = context.results.result(key)
            if fits is None and inspected < INSPECTED_AT_ONCE:
                inspected += failures == 0
                yield Work(key, lambda task=task: self.inspect(context, task))  # type: ignore[misc]
            elif fits == "fits":
                missing = solver_stake(task, context.market.parameters) - context.purse.free
                if missing > 0:
                    yield deposit(context, missing, take_key(task))
                else:
                    wanted = self.options.price_per_terawork * task.training_work // 10**12
                    yield Send(take_key(task), context.market.tasks.take(task.id, wanted), task.id)
                return

    def inspect(self, context: Context, task: TaskRecord) -> str:
        """Fetch and check the files: `fits`, or why the task is not for this machine."""
        bundle = context.bench.bundle(task)
        needed = 3 * bundle.task.state_bytes + sum(part.nbytes for part in bundle.task.data)
        if self.options.memory_limit and needed > self.options.memory_limit:
            return f"{needed} bytes of memory are more than the limit"
        return "fits"

    def _train(self, context: Context, task: TaskRecord) -> Iterator[Action]:
        if context.view.time > task.deadline:
            yield from reopening(context, task, 0)  # the forfeit grows until somebody calls it
            return
        key = f"train:{task.id:x}:{task.relists}"
        proof = context.results.result(key)
        if proof is None:
            yield Work(key, lambda: context.bench.train(task, self.options.checks))
            return
        if not proof.distance <= 1:
            # Better to lose the forfeit than the stake: verifiers would find the same.
            yield Send(f"step-down:{task.id:x}:{task.relists}", context.market.tasks.step_down(task.id), task.id)
            return
        first, last = checkpoint_proofs(proof.roots)
        levels = proof.tree
        call = context.market.tasks.register(task.id, levels[-1][0], proof.roots[-1], first, last, proof.locations)
        yield Send(f"register:{task.id:x}:{task.relists}", call, task.id)

    def _answer_for(self, context: Context, task: TaskRecord) -> Iterator[Action]:
        view = context.view
        yield from upkeep_of(context, task, 0)
        yield from silent_parties(context, SILENT_SECONDS, task.id)
        yield from serve(context, task)
        for share in task.shares:
            found = view.current_round(task.id, share)
            if found is not None and not found.is_profile and found.state is RoundState.DISCLOSED:
                yield from self._defend_against(context, found.id, subject_of_round(view, found))
        for number in task.accusations:
            yield from self._defend_against(context, number, subject_of_accusation(view, view.claims.lines[number]))

    def _defend_against(self, context: Context, line: int, subject: Subject) -> Iterator[Action]:
        """Dispute a verdict or an accusation. The replay that this takes begins at once: it can take longer than what
        is left of the window when the case is opened."""
        verdict = context.view.claims.lines[line]
        if verdict.passes or verdict.is_closed or context.view.time > verdict.until:
            return
        if context.results.result(subject.key) is None:
            yield claim_work(context, subject)
        elif self.must_defend(context, line):
            yield from dispute(self.challenger(context), subject, line, only_if_it_passes=True)

    def challenger(self, context: Context) -> Context:
        """In whose name cases against verdicts are opened."""
        return context

    def must_defend(self, context: Context, line: int) -> bool:
        """Whether a verdict or an accusation says that the own proof fails, and its window nears its end.
        Whistleblowers earn by such cases and come first, but a case of somebody else's protects nobody: it may be lost
        on purpose."""
        verdict = context.view.claims.lines[line]
        last_quarter = context.market.parameters.dispute_seconds // 4
        return not verdict.passes and context.view.time > verdict.until - last_quarter
