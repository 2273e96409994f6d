"""Roles that cheat, for the demonstration and for tests of the market. Each is the honest role with one thing wrong.

python -m assay.demo.dishonest solver|verifier|accuser [settings flags]
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click
import numpy as np

from assay.cli.options import settings_options
from assay.commitments.execution import ReplayLeaf
from assay.demo.faulty import FaultyExecution, choose_fault
from assay.dispute.execution import LocalExecution
from assay.dispute.hash_tree import root
from assay.market.records import TaskRecord
from assay.market.types import TaskState
from assay.program.operator import Array, Role
from assay.program.reference import StepContext
from assay.roles.audits import accuse_training
from assay.roles.bench import Workbench
from assay.roles.context import Action, Context, Player, Work
from assay.roles.disputes import court_moves
from assay.roles.solver import Solver
from assay.roles.start import open_node
from assay.roles.subjects import Subject
from assay.roles.upkeep import withdrawal
from assay.roles.verifier import Verifier
from assay.settings import Settings
from assay.training.checkpoint import CheckpointFolder
from assay.training.train import Proof

FAULTY_STEP = 3


class LyingBench(Workbench):
    """Every execution of a segment goes wrong once."""

    def make_execution(self, task: TaskRecord, segment: int, draw_seed: int) -> LocalExecution:
        run = self.bundle(task).task
        parts = (
            run.program,
            StepContext(run.seed, run.first_step(segment)),
            run.segment_steps(segment),
            self.checkpoint(task, segment),
            run.data,
            draw_seed,
        )
        fault = choose_fault(LocalExecution(*parts), min(FAULTY_STEP, run.segment_steps(segment) - 1))
        return FaultyExecution(*parts, fault=fault)

    def replay_segment(self, task: TaskRecord, segment: int, draw_seed: int) -> ReplayLeaf:
        run = self.execution(Subject(task, (segment,), draw_seed), 0)
        end = root(run.state(Role.STEP, run.steps - 1))
        return ReplayLeaf(segment, end, 0, root(run.trace(Role.STEP)))


class LazyBench(Workbench):
    """Instead of training, noise is added to the initial state."""

    def run_training(self, task: TaskRecord) -> Proof:
        run = self.bundle(task).task
        folder = CheckpointFolder(self.place(task.id) / "run", run.program.state)
        noise = np.random.default_rng(task.id % 2**32)
        roots = [folder.write(0, run.state)]
        for segment in range(run.segments):
            state: list[Array] = [
                part + (noise.normal(0, 0.02, part.shape).astype(np.float32) if part.dtype == np.float32 else 0)
                for part in run.state
            ]
            roots.append(folder.write(segment + 1, state))
        return Proof(folder.folder, tuple(roots))


class FalseAccuser:
    """Accuses the first segment of every proof, right or wrong, and plays its cases with a faulty execution."""

    name = "accuser"

    def plan(self, context: Context) -> Sequence[Action]:
        return list(self._plan(context))

    def _plan(self, context: Context) -> Iterator[Action]:
        for task in context.view.in_state(TaskState.VERIFYING):
            key = f"fetch:{task.id:x}"
            if context.results.result(key) is None:
                yield Work(key, lambda task=task: context.bench.manifest(task))  # type: ignore[misc]
            else:
                yield from accuse_training(context, Subject(task, (0,), 0))
        yield from court_moves(context)
        yield from withdrawal(context, 10**15)


@click.command()
@click.argument("role", type=click.Choice(["solver", "verifier", "accuser"]))
@settings_options
def main(role: str, settings: Settings) -> None:
    """Run a dishonest role until it is stopped."""
    players: dict[str, tuple[Player, type[Workbench]]] = {
        "solver": (Solver(), LazyBench),
        "verifier": (Verifier(), LyingBench),
        "accuser": (FalseAccuser(), LyingBench),
    }
    player, bench = players[role]
    with open_node(settings, [player], make_bench=bench) as node:
        node.run()


if __name__ == "__main__":
    main()
