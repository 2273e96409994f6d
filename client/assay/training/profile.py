"""Profiling: how far honest runs may lie apart, tensor by tensor, measured with seeded rounding noise.

A profile is itself a canonical run: it can be claimed, replayed and disputed like any other (contracts/FORMAT.md,
section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from assay.commitments import tensor
from assay.commitments.execution import ProfileLeaf, state_root, trace_leaf, trace_root
from assay.engine.cpu.device import CpuDevice
from assay.engine.device import Bindings, Device, contiguous
from assay.program.operator import Array, Role, Source
from assay.program.sections import truncates
from assay.training.canonical import CanonicalRun
from assay.training.forgeries import Forgery, SegmentNorms, find_forgeries, segment_norms
from assay.training.task import TrainingTask
from assay.training.trace import trace_elements

MINIMUM_SEPARATION = 1.0
"""A skipped step must lie at least this many thresholds away, or the task is refused in tolerant mode."""
COARSE_SEPARATION = 10.0
"""Below this, forgeries that move a state less than a skipped step does may pass (attacks/SEPARATION.md)."""


@dataclass(frozen=True)
class Profile:
    """Thresholds of a task, and whether they separate honest from dishonest runs."""

    leaves: tuple[ProfileLeaf, ...]
    thresholds: Array  # one float32 a state tensor
    separations: tuple[float, ...]  # one a profiled segment
    forgeries: tuple[Forgery, ...] = ()  # what would be seen by the final thresholds, and what would not

    @property
    def separates(self) -> bool:
        """Whether every profiled segment would show a skipped step, which is what the market asks. A NaN does not."""
        return all(separation >= MINIMUM_SEPARATION for separation in self.separations)

    @property
    def unseen(self) -> tuple[Forgery, ...]:
        """What verifiers would let pass."""
        return tuple(forgery for forgery in self.forgeries if not forgery.seen)

    @property
    def acceptable(self) -> bool:
        """Whether this client trusts tolerant mode with the task: training cannot be left out unseen. The market asks
        for less."""
        return self.separates and not any(forgery.kind.grave for forgery in self.unseen)

    @property
    def worst(self) -> float:
        """The smallest separation; NaN if any is."""
        return min(self.separations, key=lambda separation: -np.inf if np.isnan(separation) else separation)

    @property
    def verdict(self) -> str:
        """What the profile says of tolerant mode, and where it cannot be had, what to do instead."""
        refused = "tolerant mode cannot tell honest from dishonest training here"
        if not self.separates:
            return (
                f"{refused}: a skipped step lies {self.worst:.3g} thresholds away, and {MINIMUM_SEPARATION:g} is "
                "needed; use exact mode, or declare a higher precision or a shorter checkpoint interval"
            )
        grave = "; ".join(str(forgery) for forgery in self.unseen if forgery.kind.grave)
        if grave:
            return f"{refused}: unseen would pass {grave}; use exact mode, or declare a higher precision"
        found = f"tolerant mode separates: a skipped step lies at least {self.worst:.3g} thresholds away"
        if self.worst < COARSE_SEPARATION:
            found += f"; with less than {COARSE_SEPARATION:g}, what changes less than a skipped step may pass"
        subtle = "; ".join(str(forgery) for forgery in self.unseen)
        if subtle:
            found += f". Unseen would pass {subtle}: where that matters, use exact mode or declare a higher precision"
        return found


def profile(
    task: TrainingTask,
    draw_seed: int,
    segments: int = 1,
    device: Device | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Profile:
    """Run the first `segments` segments from the initial state, clean and noisy, and derive the thresholds.

    `progress` gets (steps done, steps to do), clean and noisy ones counted alike.
    """
    device = device or CpuDevice()
    segments = min(segments, task.segments)
    clean = CanonicalRun(task.program, task.data, task.seed, device)
    noisy = CanonicalRun(task.program, task.data, task.seed, device, Role.NOISY_STEP)
    noisy_operators = task.program.section(Role.NOISY_STEP).operators
    outputs = len(task.program.section(Role.DEVIATION).operators)
    vector, scalar = outputs - 2, outputs - 1
    deviation = device.compile(task.program, Role.DEVIATION, [vector, scalar])
    thresholds: Array = np.zeros(len(task.program.state), np.float32)
    start: list[Array] = list(task.state)
    total = 2 * sum(task.segment_steps(segment) for segment in range(segments))
    done = 0
    leaves: list[ProfileLeaf] = []
    separations: list[float] = []
    norms: list[SegmentNorms] = []
    for segment in range(segments):
        first, steps = task.first_step(segment), task.segment_steps(segment)
        clean.load(start)
        noisy.load(start)
        traces = []
        penultimate = start
        for number in range(first, first + steps):
            if number == first + steps - 1:
                penultimate = clean.copy_state()
            clean.step(number)
            traces.append(trace_leaf(noisy.step(number, trace_elements(noisy_operators, draw_seed, number))))
            done += 2
            if progress is not None:
                progress(done, total)
        bindings = Bindings({}, task.seed)
        bindings.bind(Source.STATE, clean.state).bind(Source.NOISY, noisy.state)
        bindings.bind(Source.START, [contiguous(part) for part in start])
        bindings.bind(Source.PENULTIMATE, [contiguous(part) for part in penultimate])
        bindings.bind(Source.THRESHOLD, [thresholds])
        deviation.run(bindings, first + steps - 1, {})
        thresholds = deviation.value(vector).reshape(-1).copy()
        separation = deviation.value(scalar).reshape(-1)[:1].copy()
        separations.append(float(separation[0]))
        norms.append(segment_norms(start, clean.state, penultimate, noisy.state))
        bits = 0x7FC00000 if np.isnan(separation[0]) else int(separation.view(np.uint32)[0])
        leaves.append(
            ProfileLeaf(
                segment,
                state_root(clean.state),
                state_root(noisy.state),
                tensor.root(thresholds),
                bits,
                trace_root(traces),
            )
        )
        start = clean.copy_state()
    found = find_forgeries(task.program.state, thresholds, norms, task.precision, truncates(task.program))
    return Profile(tuple(leaves), thresholds, tuple(separations), found)
