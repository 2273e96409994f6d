"""Dishonest solvers. Each is the honest one with one thing wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from assay.attacks.material import Material, prepare, replace_tensors
from assay.attacks.material import train as train_natively
from assay.attacks.proofs import Attack, Forgery
from assay.market.records import TaskRecord
from assay.program.graph import Graph
from assay.program.operator import Array
from assay.program.optimizer import Optimizer
from assay.roles.bench import TrainedProof, Workbench
from assay.roles.context import Action, Context, Send
from assay.roles.solver import Solver
from assay.storage.directory import DirectoryStore
from assay.training.checkpoint import CheckpointFolder
from assay.training.task import TrainingTask
from assay.training.train import Proof, train

State = Sequence[Array]
Forge = Callable[[TrainingTask, list[State]], Sequence[State]]
"""From a task and its honest checkpoints to those that are posted."""


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
