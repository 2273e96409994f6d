"""Dishonest roles of tolerant tasks: each is the honest role with one thing wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from assay.attacks.material import other_weights
from assay.commitments import tensor
from assay.commitments.execution import ProfileLeaf, ReplayLeaf
from assay.market.records import TaskRecord
from assay.market.types import TaskState
from assay.program.operator import Array
from assay.roles.audits import AuditOptions, accuse, auditable, audits
from assay.roles.bench import Workbench
from assay.roles.context import Action, Context, Work
from assay.roles.disputes import court_moves
from assay.roles.subjects import Subject
from assay.roles.upkeep import closing_accusations, withdrawal
from assay.training.train import Proof, Runner

TWO = 0x40000000
"""The bits of 2.0: a distance that fails."""


class Skipping:
    """A runner that leaves out every second step."""

    def __init__(self, honest: Runner) -> None:
        self.honest = honest

    def load(self, state: Sequence[Array]) -> None:
        self.honest.load(state)

    def advance(self, number: int) -> None:
        if number % 2 == 0:
            self.honest.advance(number)

    def loss(self) -> float | None:
        return self.honest.loss()

    def copy_state(self) -> list[Array]:
        return self.honest.copy_state()


class Elsewhere:
    """A runner on a machine that rounds otherwise: every checkpoint is off by a unit in the last place everywhere.

    On some machine PyTorch's kernels may give the exact arithmetic's very bits for a model so small.
    """

    def __init__(self, here: Runner) -> None:
        self.here = here

    def load(self, state: Sequence[Array]) -> None:
        self.here.load(state)

    def advance(self, number: int) -> None:
        self.here.advance(number)

    def loss(self) -> float | None:
        return self.here.loss()

    def copy_state(self) -> list[Array]:
        return [np.nextafter(part, np.float32(np.inf)) for part in self.here.copy_state()]


class ElsewhereBench(Workbench):
    """Honest, on another machine than whoever replays."""

    def runner(self, task: TaskRecord) -> Runner:
        return Elsewhere(super().runner(task))


class SkippingBench(Workbench):
    """Trains half, and does not look at what it registers."""

    def runner(self, task: TaskRecord) -> Runner:
        return Skipping(super().runner(task))

    def own_distance(self, task: TaskRecord, proof: Proof, segments: int) -> float:
        return 0.0


class Joined:
    """A runner that trains twice, from other weights, and goes over to the second run at a checkpoint: both are honest,
    and one segment leads from one to the other."""

    def __init__(self, first: Runner, second: Runner, after: int) -> None:
        self.runs = first, second
        self.after = after
        self.done = 0

    def load(self, state: Sequence[Array]) -> None:
        self.runs[0].load(state)
        self.runs[1].load(other_weights(state, 1))

    def advance(self, number: int) -> None:
        for run in self.runs:
            run.advance(number)
        self.done = number + 1

    def loss(self) -> float | None:
        return self.runs[0].loss()

    def copy_state(self) -> list[Array]:
        return self.runs[self.done > self.after].copy_state()


class JoiningBench(Workbench):
    """Posts the first half of one run and the second half of another, and does not look at what it registers."""

    def runner(self, task: TaskRecord) -> Runner:
        middle = task.segments // 2 * task.posting.interval
        return Joined(super().runner(task), super().runner(task), middle)

    def own_distance(self, task: TaskRecord, proof: Proof, segments: int) -> float:
        return 0.0


class CarefulSkippingBench(SkippingBench):
    """Trains half, and replays a segment before it registers."""

    def own_distance(self, task: TaskRecord, proof: Proof, segments: int) -> float:
        return Workbench.own_distance(self, task, proof, segments)


class WideProfileBench(Workbench):
    """Claims thresholds a thousand times too wide, so that everything would pass."""

    def profile_segments(self, task: TaskRecord, segments: int, draw_seed: int) -> tuple[ProfileLeaf, ...]:
        *first, last = super().profile_segments(task, segments, draw_seed)
        vector = self.make_profile_thresholds(task, segments) * 1000
        return (*first, replace(last, threshold_root=tensor.root(vector)))

    def make_profile_thresholds(self, task: TaskRecord, segments: int) -> Array:
        from assay.training.profile import profile

        return profile(self.bundle(task).task, 0, segments).thresholds


class BribedBench(Workbench):
    """Says of every drawn segment that it passes, without a replay."""

    def replay_segment(self, task: TaskRecord, segment: int, draw_seed: int) -> ReplayLeaf:
        return ReplayLeaf(segment, self.manifest(task).roots[segment + 1], 0, bytes([7]) * 32)


class UnjustBench(Workbench):
    """Says of every drawn segment that it lies two thresholds away."""

    def replay_segment(self, task: TaskRecord, segment: int, draw_seed: int) -> ReplayLeaf:
        return replace(super().replay_segment(task, segment, draw_seed), distance_bits=TWO)


class Auditor:
    """Looks at undrawn segments only."""

    name = "auditor"

    def plan(self, context: Context) -> Sequence[Action]:
        return list(self._plan(context))

    def _plan(self, context: Context) -> Iterator[Action]:
        for task in context.view.in_state(TaskState.VERIFYING):
            yield from audits(context, task, AuditOptions(random=1))
        yield from court_moves(context)
        yield from closing_accusations(context, 0)


class FalseAccuser:
    """Accuses an undrawn segment of every proof, with a distance it made up."""

    name = "accuser"

    def plan(self, context: Context) -> Sequence[Action]:
        return list(self._plan(context))

    def _plan(self, context: Context) -> Iterator[Action]:
        for task in context.view.in_state(TaskState.VERIFYING):
            for segment in auditable(context, task)[:1]:
                key = f"lie:{task.id:x}"
                found: Any = context.results.result(key)
                if found is None:
                    yield Work(key, lambda t=task, s=segment: self.lie(context, t, s))  # type: ignore[misc]
                else:
                    yield from accuse(context, *found)
        yield from court_moves(context)
        yield from withdrawal(context, 10**15)

    def lie(self, context: Context, task: TaskRecord, segment: int) -> tuple[Subject, tuple[ReplayLeaf, ...]]:
        seed = context.market.verification.share(task.id, 0).segment_seed
        subject = Subject(task, (segment,), seed)
        (leaf,) = context.bench.claim(subject)
        assert isinstance(leaf, ReplayLeaf)
        return subject, (replace(leaf, distance_bits=TWO),)
