"""Dishonest roles. Each is the honest one with one thing wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from assay.attacks.material import Material, prepare, replace_tensors
from assay.attacks.material import train as train_natively
from assay.attacks.proofs import Attack, Forgery
from assay.commitments.execution import ReplayLeaf
from assay.demo.dishonest import FalseAccuser
from assay.market.records import RoundRecord, TaskRecord
from assay.market.types import RoundState, TaskState
from assay.program.graph import Graph
from assay.program.operator import Array
from assay.program.optimizer import Optimizer
from assay.roles.bench import TrainedProof, Workbench
from assay.roles.context import Action, Context, Send
from assay.roles.disputes import dispute
from assay.roles.solver import Solver
from assay.roles.subjects import HashedLeaf, Subject, hashed, subject_of_round
from assay.roles.verifier import HiddenClaims, Verifier, hidden_claims
from assay.roles.whistleblower import Whistleblower
from assay.storage.directory import DirectoryStore
from assay.training.checkpoint import CheckpointFolder
from assay.training.task import TrainingTask
from assay.training.train import Proof, train

State = Sequence[Array]
Forge = Callable[[TrainingTask, list[State]], Sequence[State]]
"""From a task and its honest checkpoints to those that are posted."""


# ---- Solvers --------------------------------------------------------------------------------------------------------


class ForgingBench(Workbench):
    """Posts other checkpoints than those of the training, without a look at what verifiers will find."""

    def own_distance(self, task: TaskRecord, proof: Proof, segments: int) -> float:
        return 0.0

    def forged(self, task: TaskRecord, honest: list[State]) -> Sequence[State]:
        raise NotImplementedError

    def run_training(self, task: TaskRecord) -> Proof:
        run = self.bundle(task).task
        true = train(run, self.place(task.id) / "true")
        folder = CheckpointFolder(true.folder, run.program.state)
        honest: list[State] = [folder.read(index, root) for index, root in enumerate(true.roots)]
        posted = CheckpointFolder(self.place(task.id) / "posted", run.program.state)
        roots = [posted.write(index, state) for index, state in enumerate(self.forged(task, honest))]
        return Proof(posted.folder, tuple(roots))


def forging(forge: Forge) -> type[ForgingBench]:
    """A bench that posts what `forge` makes of the honest checkpoints."""

    class Bench(ForgingBench):
        def forged(self, task: TaskRecord, honest: list[State]) -> Sequence[State]:
            return forge(self.bundle(task).task, honest)

    return Bench


def carrying_out(attack: Attack, half: Graph, optimizer: Optimizer) -> type[ForgingBench]:
    """A bench that forges as the literature says. What it trains honestly is bit-exact, as exact mode asks; `half` is
    the task's graph for half the batch."""

    class Bench(ForgingBench):
        def forged(self, task: TaskRecord, honest: list[State]) -> Sequence[State]:
            bundle = self.bundle(task)
            material: Material = prepare(bundle.task, bundle.graph, half, optimizer)
            return attack.forge(replace(material, honest=tuple(map(tuple, honest)))).states

    return Bench


def random_states(task: TrainingTask, honest: list[State]) -> list[State]:
    """Noise added to the initial state."""
    noise = np.random.default_rng(1)
    return [task.state] + [
        [part + noise.normal(0, 0.1, part.shape).astype(np.float32) for part in task.state] for _ in honest[1:]
    ]


def last_state_swapped(_task: TrainingTask, honest: list[State]) -> list[State]:
    """All is trained; another model is posted as the final one."""
    return [*honest[:-1], [part + np.float32(1) for part in honest[-1]]]


def first_state_swapped(_task: TrainingTask, honest: list[State]) -> list[State]:
    """The training seems to have started from its own result."""
    return [honest[-1], *honest[1:]]


def without_momentum(material: Material) -> Forgery:
    """Trained with another optimizer than asked for: the same one without its memory."""
    task = material.task
    states = train_natively(
        task,
        material.graph,
        task.state,
        after_step=lambda before, after: replace_tensors(after, task.state, material.moments),
    )
    return Forgery((task.state, *states), frozenset(range(task.segments)))


class WithholdingBench(Workbench):
    """Trains, registers, and keeps the checkpoints to itself."""

    def train(self, task: TaskRecord, checks: int = 0) -> TrainedProof:
        proof = super().train(task, checks)
        (store,) = self.stores
        assert isinstance(store, DirectoryStore)
        shutil.copytree(store.folder, self.kept(task.id), dirs_exist_ok=True)
        for place in store.folder.glob("*/*"):
            if place.read_bytes() not in self._task_files(task):
                place.unlink()
        return proof

    def kept(self, task: int) -> Path:
        """Where an accomplice finds what the others do not."""
        return self.place(task) / "kept"

    def _task_files(self, task: TaskRecord) -> list[bytes]:
        return [path.read_bytes() for path in self.bundle(task).folder.iterdir() if path.is_file()]


class SilentSolver(Solver):
    """Takes tasks and does nothing more."""

    def _train(self, context: Context, task: TaskRecord) -> Iterator[Action]:
        yield from ()


class RestlessSolver(Solver):
    """Takes every task and gives it up at once, the same one too."""

    def refusal(self, context: Context, task: TaskRecord) -> str | None:
        return super().refusal(context, replace(task, former_solvers=()))

    def _train(self, context: Context, task: TaskRecord) -> Iterator[Action]:
        yield Send(f"step-down:{task.id:x}:{task.relists}", context.market.tasks.step_down(task.id), task.id)


class UnservingSolver(Solver):
    """Answers no demand for a chunk."""

    def _answer_for(self, context: Context, task: TaskRecord) -> Iterator[Action]:
        for action in super()._answer_for(context, task):
            if not (isinstance(action, Send) and action.key.startswith("serve:")):
                yield action


# ---- Verifiers ------------------------------------------------------------------------------------------------------


class UnreplayedBench(Workbench):
    """Claims what the solver's roots say, with traces out of thin air."""

    def replay_segment(self, task: TaskRecord, segment: int, draw_seed: int) -> ReplayLeaf:
        trace = sha256(f"{segment}:{draw_seed}:guess".encode()).digest()
        return ReplayLeaf(segment, self.manifest(task).roots[segment + 1], 0, trace)


class SilentVerifier(Verifier):
    """Falls silent at one stage: `commit`, `show` or `disclose`."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage

    def _plan(self, context: Context) -> Iterator[Action]:
        for action in super()._plan(context):
            if not (isinstance(action, Send) and action.key.startswith(f"{self.stage}:")):
                yield action


class AbsentDefender(Verifier):
    """Claims, and makes no move in court."""

    def _plan(self, context: Context) -> Iterator[Action]:
        for action in super()._plan(context):
            if not action.key.startswith("move:"):
                yield action


# ---- Whistleblowers -------------------------------------------------------------------------------------------------


def is_live(context: Context) -> Iterator[TaskRecord]:
    """Tasks whose proofs are being checked."""
    return context.view.in_state(TaskState.VERIFYING)


# ---- More verifiers -------------------------------------------------------------------------------------------------


class LeavingVerifier(Verifier):
    """Steps back from everything it is drawn for."""

    def _serve(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        if found.state is RoundState.DRAWN:
            yield Send(f"step-back:{found.id:x}", context.market.verification.step_back(found.id), task.id)


class ShowsTheTrueClaim(Verifier):
    """Shows its true claim whatever the lottery says."""

    def _show(self, context: Context, found: RoundRecord, task: TaskRecord, claims: HiddenClaims) -> Iterator[Action]:
        yield from super()._show(context, found, task, replace(claims, false=claims.true, order=1 - claims.order))


class CopyingBench(Workbench):
    """Claims for its own segments what a colleague has shown for other ones."""

    seen: tuple[HashedLeaf, ...] = ()

    def claim(self, subject: Subject) -> tuple[HashedLeaf, ...]:
        return tuple(replace(leaf, segment=segment) for leaf, segment in zip(self.seen, subject.segments, strict=True))


class CopyingVerifier(Verifier):
    """Waits for a colleague's claim and claims the same."""

    def _serve(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        assert isinstance(context.bench, CopyingBench)
        for number in task.rounds:
            other = context.view.rounds[number]
            if other.verifier != context.me and other.leaves and not context.bench.seen:
                context.bench.seen = hashed(other.leaves, other.segments)
        if context.bench.seen:
            yield from super()._serve(context, found, task)


class UnderivedVerifier(Verifier):
    """Its false claim is another than the one derived from its secret, so that an accomplice may know it beforehand."""

    def _serve(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        leaves = context.results.result(subject_of_round(context.view, found).key)
        if leaves is None:
            yield from super()._serve(context, found, task)
            return
        claims = hidden_claims(context.secret(f"round:{found.id:x}"), leaves, found)
        claims = replace(claims, false=tuple(replace(leaf, trace_root=b"\x07" * 32) for leaf in leaves))
        if found.state is RoundState.DRAWN:
            yield from self._commit(context, found, claims)
        elif found.state is RoundState.COMMITTED:
            yield from self._show(context, found, task, claims)
        elif found.state is RoundState.SHOWN:
            yield from self._disclose(context, found, claims)


# ---- More whistleblowers --------------------------------------------------------------------------------------------


class GuessingBench(Workbench):
    """Answers without replaying: what the solver's roots say, with traces out of thin air."""

    replay_segment = UnreplayedBench.replay_segment


@dataclass(frozen=True)
class Shown:
    """The claim that is shown, in the place of an own result."""

    leaves: tuple[HashedLeaf, ...]

    def result(self, _key: str) -> tuple[HashedLeaf, ...]:
        return self.leaves


class Agreeing(Whistleblower):
    """Answers every claim with that claim, and looks at nothing."""

    def _plan(self, context: Context) -> Iterator[Action]:
        for action in super()._plan(context):
            if not action.key.startswith(("publish:", "case:", "claim:")):
                yield action

    def _answer(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        shown: Any = Shown(hashed(found.leaves, found.segments))
        yield from super()._answer(replace(context, results=shown), found, task)


class NeverReveals(Whistleblower):
    """Joins and commits, and does not reveal."""

    def _plan(self, context: Context) -> Iterator[Action]:
        for action in super()._plan(context):
            if not action.key.startswith("reveal:"):
                yield action


class Joiner(NeverReveals):
    """Joins, and does nothing more."""

    def _plan(self, context: Context) -> Iterator[Action]:
        for action in super()._plan(context):
            if not action.key.startswith(("answer:", "publish:", "case:")):
                yield action


# ---- In court -------------------------------------------------------------------------------------------------------


class Staller(Verifier):
    """Defends its claim, every move in the last moment of its clock."""

    def _plan(self, context: Context) -> Iterator[Action]:
        for action in super()._plan(context):
            key = action.key
            if key.startswith("move:") and isinstance(action, Send):
                deadline = context.deadlines.get(int(key.split(":")[1], 16), 0)
                if context.view.time + STALLED_SECONDS < deadline:
                    continue
            yield action


STALLED_SECONDS = 52
"""More than a tick and a second: the last look before a deadline."""


class LosingChallenger(FalseAccuser):
    """Opens a case on the first false claim it finds, and then says nothing, to be the one who lost it."""

    def _plan(self, context: Context) -> Iterator[Action]:
        for task in is_live(context):
            for number in task.rounds:
                found = context.view.rounds[number]
                if found.state is RoundState.DISCLOSED:
                    yield from dispute(context, subject_of_round(context.view, found), found.id)
