"""The training loop: `train(task) -> proof`, with checkpoints hashed and written beside the training.

A run can be killed at any instant and started again: it continues from the last finished checkpoint, and since a
canonical step is a function of state and step number, ends with the same bits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from assay.commitments.execution import checkpoint_root
from assay.engine.cpu.device import CpuDevice
from assay.engine.device import Device
from assay.program.operator import Array
from assay.training.canonical import CanonicalRun
from assay.training.checkpoint import CheckpointFolder
from assay.training.errors import CheckpointError
from assay.training.task import TrainingTask

logger = logging.getLogger(__name__)


class Runner(Protocol):
    """Something that trains: canonical or native."""

    def load(self, state: Sequence[Array]) -> None: ...

    def advance(self, number: int) -> None:
        """Execute global step `number`."""

    def loss(self) -> float | None:
        """The loss of the step just executed."""

    def copy_state(self) -> list[Array]:
        """A copy of the current state, in the program's order."""


class CanonicalRunner:
    """Trains in the exact arithmetic."""

    def __init__(self, task: TrainingTask, device: Device | None = None) -> None:
        self.run = CanonicalRun(task.program, task.data, task.seed, device or CpuDevice())

    def load(self, state: Sequence[Array]) -> None:
        self.run.load(state)

    def advance(self, number: int) -> None:
        self.run.step(number)

    def loss(self) -> float | None:
        return self.run.loss()

    def copy_state(self) -> list[Array]:
        return self.run.copy_state()


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for whoever shows it."""

    step: int  # steps done
    steps: int
    loss: float | None
    checkpoints: int


@dataclass(frozen=True)
class Proof:
    """A proof of learning: the checkpoints' roots, in order, and where they lie."""

    folder: Path
    roots: tuple[bytes, ...]  # S + 1 state roots

    @property
    def root(self) -> bytes:
        """Root of the checkpoint tree: what a solver registers."""
        return checkpoint_root(self.roots)

    @property
    def final_root(self) -> bytes:
        return self.roots[-1]


def train(
    task: TrainingTask,
    folder: Path,
    runner: Runner | None = None,
    progress: Callable[[Progress], None] | None = None,
    report_every: int = 1,
) -> Proof:
    """Train the task, or finish a run begun in `folder`, and return its proof.

    While one segment is trained, the checkpoint before it is written and hashed on another thread. `progress` is called
    every `report_every` steps and at every checkpoint. If the last checkpoint was damaged or deleted, the run goes on
    from the one before it. Raises `CheckpointError` if the folder belongs to another task or the disk is full.
    """
    runner = runner or CanonicalRunner(task)
    checkpoints = CheckpointFolder(folder, task.program.state)
    checkpoints.claim(task.fingerprint.hex())
    entries = checkpoints.entries()
    roots: list[bytes] = [entry.root for entry in entries][: task.segments + 1]
    if not roots:
        roots.append(checkpoints.write(0, task.state))
    if len(roots) <= task.segments:
        runner.load(_last_state(task, checkpoints, roots))
    done = len(roots) - 1
    with ThreadPoolExecutor(1, thread_name_prefix="checkpoint") as writer:
        pending: Future[bytes] | None = None
        for segment in range(done, task.segments):
            first = task.first_step(segment)
            for number in range(first, first + task.segment_steps(segment)):
                runner.advance(number)
                if progress is not None and (number + 1) % report_every == 0:
                    progress(Progress(number + 1, task.steps, runner.loss(), len(roots)))
            # One checkpoint at a time: memory holds at most one state more than the training needs.
            if pending is not None:
                roots.append(pending.result())
            pending = writer.submit(checkpoints.write, segment + 1, runner.copy_state())
        if pending is not None:
            roots.append(pending.result())
            if progress is not None:
                progress(Progress(task.steps, task.steps, runner.loss(), len(roots)))
    return Proof(folder, tuple(roots))


def _last_state(task: TrainingTask, checkpoints: CheckpointFolder, roots: list[bytes]) -> list[Array]:
    """The state to go on from; takes the roots of checkpoints that cannot be read any more off the end of `roots`."""
    while len(roots) > 1:
        try:
            return checkpoints.read(len(roots) - 1, roots[-1])
        except CheckpointError as error:
            logger.warning("training again from an earlier checkpoint: %s", error)
            roots.pop()
    return list(task.state)
