"""What a forger of a proof of learning has in hand, and how it trains where training is cheaper than forging."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from assay.engine.native.run import NativeRun
from assay.program.graph import Graph
from assay.program.operator import Array
from assay.program.optimizer import BETA_POWERS, MOMENT_PREFIXES, Optimizer
from assay.program.sections import Precision
from assay.training.task import TrainingTask

State = tuple[Array, ...]
States = tuple[State, ...]  # checkpoint 0 (the initial state) to checkpoint S


@dataclass(frozen=True, eq=False)
class Material:
    """A task and the models its attacker can get at.

    `honest` is what training the task gives (an attacker may train some segments); `donor` is a colluder's run of the
    same task, in its own data order, from other initial weights; `stolen` was trained elsewhere: other weights, another
    data order. Each has a state a checkpoint. `half` is the task's graph for half the batch.
    """

    task: TrainingTask
    graph: Graph
    half: Graph
    optimizer: Optimizer
    honest: States
    donor: States
    stolen: States

    @property
    def names(self) -> list[str]:
        return [descriptor.name for descriptor in self.task.program.state]

    @property
    def moments(self) -> list[int]:
        """Numbers of the state tensors that are the optimizer's moments."""
        return [place for place, name in enumerate(self.names) if name.startswith(MOMENT_PREFIXES)]

    @property
    def parameters(self) -> list[int]:
        """Numbers of the state tensors that the optimizer updates."""
        trained = {name.removeprefix(prefix) for name in self.names for prefix in MOMENT_PREFIXES}
        with_moments = {name for name in trained if any(prefix + name in self.names for prefix in MOMENT_PREFIXES)}
        return [place for place, name in enumerate(self.names) if name in with_moments]

    @property
    def countable(self) -> list[int]:
        """Numbers of the state tensors that follow from the step number alone: forged without any training."""
        return [
            place
            for place, (name, array) in enumerate(zip(self.names, self.task.state, strict=True))
            if name in BETA_POWERS or array.dtype != np.float32
        ]


def prepare(task: TrainingTask, graph: Graph, half: Graph, optimizer: Optimizer, seed: int = 1) -> Material:
    """Train the three runs that attacks draw on, natively, at the declared precision."""
    other = other_weights(task.state, seed)
    return Material(
        task,
        graph,
        half,
        optimizer,
        honest=(task.state, *train(task, graph, task.state)),
        donor=(other, *train(task, graph, other)),
        stolen=(other, *train(task, graph, other, order=task.seed ^ 0x5DEECE66D)),
    )


def other_weights(state: Sequence[Array], seed: int) -> State:
    """Initial weights of the same distribution: each tensor's elements in another order."""
    random = np.random.default_rng(seed)
    return tuple(random.permutation(part.reshape(-1)).reshape(part.shape) for part in state)


def train(
    task: TrainingTask,
    graph: Graph,
    start: Sequence[Array],
    segments: Iterable[int] | None = None,
    *,
    order: int | None = None,
    data: Sequence[Array] | None = None,
    precision: Precision | None = None,
    device: str = "cpu",
    steps: Callable[[range], Iterable[int]] = lambda numbers: numbers,
    after_step: Callable[[State, State], State] | None = None,
    after_segment: Callable[[State, State], State] | None = None,
) -> list[State]:
    """States after each of some neighbouring segments of a native run from `start`; honest unless told otherwise.

    `device` is the native run's, `order` replaces the seed of the data order, `steps` says which of a segment's steps
    are executed, and `after_step` and `after_segment` replace the state reached, given those before and after.
    """
    run = NativeRun(
        graph,
        task.data if data is None else data,
        task.seed if order is None else order,
        device,
        precision=task.precision if precision is None else precision,
    )
    run.load(start)
    state, states = tuple(start), []
    for segment in range(task.segments) if segments is None else segments:
        before, first = state, task.first_step(segment)
        for number in steps(range(first, first + task.segment_steps(segment))):
            run.advance(number)
            if after_step is not None:
                state = after_step(state, tuple(run.copy_state()))
                run.load(state)
        state = tuple(run.copy_state())
        if after_segment is not None:
            state = after_segment(before, state)
            run.load(state)
        states.append(state)
    return states


def train_segment(material: Material, segment: int, start: Sequence[Array]) -> State:
    """The state after training one segment honestly from any state."""
    return train(material.task, material.graph, start, [segment])[0]


def replace_tensors(state: Sequence[Array], source: Sequence[Array], places: Iterable[int]) -> State:
    """The state with some of its tensors taken from another."""
    chosen = set(places)
    return tuple(source[place] if place in chosen else part for place, part in enumerate(state))


def between(start: Sequence[Array], end: Sequence[Array], fraction: float) -> State:
    """The point at `fraction` of the straight line between two states; integers are those of `start`."""
    return tuple(
        (a + np.float32(fraction) * (b - a)).astype(np.float32) if a.dtype == np.float32 else a
        for a, b in zip(start, end, strict=True)
    )
