"""Replay of a segment: a canonical run from the solver's checkpoint, and how far it ends from the next one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from assay.commitments.execution import ReplayLeaf, state_root, trace_leaf, trace_root
from assay.engine.cpu.device import CpuDevice
from assay.engine.device import Bindings, Device, contiguous
from assay.program.operator import Array, Role, Source
from assay.training.canonical import CanonicalRun
from assay.training.errors import TaskError
from assay.training.task import Mode, TrainingTask
from assay.training.trace import trace_elements

DISTANCE_LIMIT = 1.0
"""A segment passes if `distance <= DISTANCE_LIMIT` is true; NaN therefore fails."""


@dataclass(frozen=True)
class Replay:
    """The result of replaying one segment."""

    leaf: ReplayLeaf
    end: tuple[Array, ...]
    distance: float | None  # None in exact mode

    def passes(self, checkpoint: bytes) -> bool:
        """Whether the solver's checkpoint (its state root) at the segment's end is accepted."""
        if self.leaf.end_root == checkpoint:
            return True
        return self.distance is not None and self.distance <= DISTANCE_LIMIT


class Replayer:
    """Replays segments of one task; compiles once."""

    def __init__(self, task: TrainingTask, device: Device | None = None) -> None:
        self.task = task
        self.device = device or CpuDevice()
        self.run = CanonicalRun(task.program, task.data, task.seed, self.device)
        self._operators = task.program.section(Role.STEP).operators
        self._distance: DistanceMeter | None = None

    def replay(
        self,
        segment: int,
        start: Sequence[Array],
        draw_seed: int,
        checkpoint: Sequence[Array] | None = None,
        thresholds: Array | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Replay:
        """Replay `segment` from the state `start`.

        In tolerant mode `checkpoint` (the solver's state at the end) and `thresholds` (a float32 a state tensor) are
        needed for the distance. `progress` gets (steps done, steps).
        """
        first, steps = self.task.first_step(segment), self.task.segment_steps(segment)
        self.run.load(start)
        leaves = []
        for number in range(first, first + steps):
            bits = self.run.step(number, trace_elements(self._operators, draw_seed, number))
            leaves.append(trace_leaf(bits))
            if progress is not None:
                progress(number + 1 - first, steps)
        end = self.run.copy_state()
        distance_bits, value = 0, None
        if self.task.mode is Mode.TOLERANT:
            if checkpoint is None or thresholds is None:
                raise TaskError("a tolerant task's replay needs the solver's checkpoint and the task's thresholds")
            value = self.distance(start, end, checkpoint, thresholds)
            distance_bits = int(np.float32(value).view(np.uint32))
            if np.isnan(value):
                distance_bits = 0x7FC00000
        leaf = ReplayLeaf(segment, state_root(end), distance_bits, trace_root(leaves))
        return Replay(leaf, tuple(end), value)

    def distance(
        self, start: Sequence[Array], end: Sequence[Array], checkpoint: Sequence[Array], thresholds: Array
    ) -> float:
        """The distance of a checkpoint from a replay's end, in thresholds (the distance section, run canonically)."""
        if self._distance is None:
            self._distance = DistanceMeter(self.task, self.device)
        return self._distance.measure(start, end, checkpoint, thresholds)


class DistanceMeter:
    """The compiled distance section of a task."""

    def __init__(self, task: TrainingTask, device: Device) -> None:
        self.last = len(task.program.section(Role.DISTANCE).operators) - 1
        self.executable = device.compile(task.program, Role.DISTANCE, [self.last])
        self.seed = task.seed

    def measure(
        self, start: Sequence[Array], end: Sequence[Array], checkpoint: Sequence[Array], thresholds: Array
    ) -> float:
        bindings = Bindings({}, self.seed)
        bindings.bind(Source.STATE, list(end)).bind(Source.START, [contiguous(part) for part in start])
        bindings.bind(Source.COMPARED, [contiguous(part) for part in checkpoint])
        bindings.bind(Source.THRESHOLD, [contiguous(thresholds)])
        self.executable.run(bindings, 0, {})
        return float(self.executable.value(self.last).reshape(-1)[0])
