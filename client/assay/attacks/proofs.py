"""Forged proofs of learning: every way known to post checkpoints without the training between them.

Sources: Jia et al., "Proof-of-Learning: Definitions and Practice" (2021); Zhang et al., "Adversarial Examples for
Proof-of-Learning" (2022); Fang et al., "Proof-of-Learning is Currently More Broken Than You Think" (2023).

Each attack is a function from what the attacker has to the states it posts, and the segments in which it cheated. All
are given for nothing what costs nothing: tensors that follow from the step number are always right.

A proof whose false part is one segment (concatenated runs, a jump to a state that training leaves as it is) is found
by a draw of q of S segments with chance q / S only, whatever its distance: the stake has to be sized for that, and
accusations of undrawn segments stay possible until settlement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from assay.attacks.material import (
    Material,
    State,
    States,
    between,
    replace_tensors,
    train,
    train_segment,
)
from assay.program.operator import Array
from assay.program.optimizer import (
    FIRST_MOMENT,
    MOMENT_PREFIXES,
    MOMENTUM,
    SECOND_MOMENT,
    SGD,
    learning_rate,
    schedule_of,
)
from assay.program.sections import Precision

HUGE_VARIANCE = 1e8
"""A forged second moment beside which no gradient counts."""
INVERSIONS = 12
"""Rounds of inversion: after these the attacker has paid a dozen times the training of a segment."""
CORRECTIONS = 2
"""Times that a forged momentum is corrected, at the price of a segment each."""
INVERTED = 2
"""Segments inverted at full price, before the last checkpoint."""


@dataclass(frozen=True, eq=False)
class Forgery:
    """Checkpoints an attacker posts; `cheated` are the segments whose end was not trained from their start."""

    states: States
    cheated: frozenset[int]


@dataclass(frozen=True)
class Attack:
    """A named way to forge a proof."""

    name: str
    forge: Callable[[Material], Forgery]


def _forgery(material: Material, states: Iterable[State], cheated: Iterable[int]) -> Forgery:
    """The states with everything countable as it has to be."""
    posted = tuple(
        replace_tensors(state, honest, material.countable)
        for state, honest in zip(states, material.honest, strict=True)
    )
    return Forgery(posted, frozenset(cheated))


def _all(material: Material) -> range:
    return range(material.task.segments)


def _second_half(material: Material) -> range:
    return range(material.task.segments // 2, material.task.segments)


def _trained_wrongly(material: Material, states: Iterable[State]) -> Forgery:
    return _forgery(material, [material.task.state, *states], _all(material))


# --- checkpoints without training ------------------------------------------------------------------------------------


def copied(material: Material) -> Forgery:
    """Half the training, then the same checkpoint again and again."""
    half = material.task.segments // 2
    states = [material.honest[min(place, half)] for place in range(material.task.segments + 1)]
    return _forgery(material, states, _second_half(material))


def interpolated(material: Material) -> Forgery:
    """Every second checkpoint is true, those between are half way."""
    states = list(material.honest)
    for place in range(1, material.task.segments, 2):
        states[place] = between(states[place - 1], states[place + 1], 0.5)
    return _forgery(material, states, range(material.task.segments // 2 * 2))


def straight_line(material: Material) -> Forgery:
    """From the initial state to the stolen one in equal parts, moments included."""
    segments, end = material.task.segments, material.stolen[-1]
    states = [between(material.task.state, end, place / segments) for place in range(segments)]
    return _forgery(material, [*states, end], _all(material))


def sorted_initial_state(material: Material) -> Forgery:
    """Initial weights in the order of the stolen ones, which they then resemble; a straight line from there.

    The market binds the initial root, so checkpoint 0 is the task's whatever is posted.
    """
    segments, end = material.task.segments, material.stolen[-1]
    start: list[Array] = list(material.task.state)
    for place in material.parameters:
        ranks = np.argsort(np.argsort(end[place].reshape(-1), kind="stable"), kind="stable")
        ascending: npt.NDArray[np.float32] = np.sort(material.task.state[place].reshape(-1)).astype(np.float32)
        start[place] = np.take(ascending, ranks.reshape(start[place].shape))
    states = [between(start, end, place / segments) for place in range(segments)]
    return _forgery(material, [*states, end], _all(material))


def not_a_number(material: Material) -> Forgery:
    """Every float is NaN: `distance > threshold` would be false. NaN trains to NaN, bit for bit, so only the first
    segment is false: this is the cheapest proof with a single false segment."""
    states = [material.task.state] + [_broken(material)] * material.task.segments
    return _forgery(material, states, [0])


def every_second_not_a_number(material: Material) -> Forgery:
    """True checkpoints and NaN by turns."""
    states = [_broken(material) if place % 2 else state for place, state in enumerate(material.honest)]
    return _forgery(material, states, _all(material))


def _broken(material: Material) -> State:
    return tuple(np.full_like(p, np.nan) if p.dtype == np.float32 else p for p in material.task.state)


def no_indices(material: Material) -> Forgery:
    """The published verifier takes the data's indices from the proof, and an empty sequence asks for no step: every
    checkpoint is the stolen model, and every replay ends where it began.

    Here a proof holds no indices: steps and samples follow from the task.
    """
    return _trained_wrongly(material, [material.stolen[-1]] * material.task.segments)


def concatenated(material: Material) -> Forgery:
    """The first half of one run and the second half of another, both honest: one segment leads nowhere."""
    joint = material.task.segments // 2
    states = [*material.honest[: joint + 1], *material.donor[joint + 1 :]]
    return _forgery(material, states, [joint])


def trained_elsewhere(material: Material) -> Forgery:
    """The checkpoints of a model trained elsewhere."""
    return _trained_wrongly(material, material.stolen[1:])


def padded_out(material: Material) -> Forgery:
    """Half the training, then small noise instead of updates."""
    half, random = material.task.segments // 2, np.random.default_rng(5)
    states = list(material.honest[: half + 1])
    scale = [np.abs(b - a) for a, b in zip(material.honest[half - 1], material.honest[half], strict=True)]
    while len(states) <= material.task.segments:
        states.append(_jittered(states[-1], scale, 0.05, random))
    return _forgery(material, states, _second_half(material))


def _jittered(state: State, scale: list[Array], amount: float, random: np.random.Generator) -> State:
    return tuple(
        (part + amount * size * random.standard_normal(part.shape)).astype(np.float32)
        if part.dtype == np.float32
        else part
        for part, size in zip(state, scale, strict=True)
    )


def large_updates_planted(material: Material) -> Forgery:
    """Every second segment is trained, the others move too little to be among the largest updates."""
    task, random = material.task, np.random.default_rng(6)
    states, scale = [task.state], [np.zeros_like(part) for part in task.state]
    for segment in range(task.segments):
        before = states[-1]
        if segment % 2:
            after = _jittered(before, scale, 0.02, random)
            states.append(replace_tensors(after, material.honest[segment + 1], material.countable))
        else:
            states.append(train_segment(material, segment, before))
            scale = [np.abs(b - a) for a, b in zip(before, states[-1], strict=True)]
    return _forgery(material, states, range(1, task.segments, 2))


# --- optimisation of the checkpoints ---------------------------------------------------------------------------------


def inverted_cheaply(material: Material) -> Forgery:
    """Backwards from the stolen model: starts are sought that lead to the known end, each guess tried with one step
    in place of a segment's."""
    task = material.task

    def guess(segment: int, start: State) -> State:
        steps = task.segment_steps(segment)
        (end,) = train(task, material.graph, start, [segment], steps=lambda numbers: numbers[:1])
        return between(start, end, float(steps))

    states = [material.stolen[-1]]
    for segment in range(task.segments - 1, 0, -1):
        states.insert(0, _invert(material, segment, states[0], guess, 3))
    return _forgery(material, [task.state, *states], _all(material))


def inverted(material: Material) -> Forgery:
    """Honest at first; the last segments are sought backwards from the stolen model, each guess by training the whole
    segment. They may hold, at several times the price of training; what leads to the first of them cannot."""
    task = material.task
    states = [material.stolen[-1]]
    for segment in range(task.segments - 1, task.segments - 1 - INVERTED, -1):
        states.insert(0, _invert(material, segment, states[0], lambda s, x: train_segment(material, s, x), INVERSIONS))
    joint = task.segments - INVERTED - 1
    return _forgery(material, [*material.honest[: joint + 1], *states], [joint])


def _invert(material: Material, segment: int, end: State, advance: Callable[[int, State], State], rounds: int) -> State:
    """A state from which `advance` is hoped to reach `end`: start + (end - reached), repeated. Second moments are kept
    from below 0, where training has no meaning."""
    start = replace_tensors(end, material.honest[segment], material.countable)
    for _ in range(rounds):
        reached = advance(segment, start)
        found = []
        for place, (now, wanted, got) in enumerate(zip(start, end, reached, strict=True)):
            if place in material.countable or now.dtype != np.float32:
                found.append(now)
                continue
            moved = now + np.clip(np.nan_to_num(wanted - got), -10, 10)
            if material.names[place].startswith(SECOND_MOMENT) or material.names[place].endswith("running_var"):
                moved = np.maximum(moved, 0)
            found.append(moved.astype(np.float32))
        start = tuple(found)
    return start


def forged_momentum(material: Material) -> Forgery:
    """Nothing is trained but the last segment, which lands on the stolen weights: its start holds a momentum made for
    that, corrected a few times for what gradients and decay add."""
    task, last, end = material.task, material.task.segments - 1, material.stolen[-1]
    gain = _momentum_gain(material, last)
    still = replace_tensors(task.state, material.honest[last], material.countable)
    wanted = {place: (task.state[place] - end[place]) / gain for place in material.parameters}
    start = _with_momentum(material, still, wanted)
    for _ in range(CORRECTIONS):
        reached = train_segment(material, last, start)
        wanted = {place: value + (reached[place] - end[place]) / gain for place, value in wanted.items()}
        start = _with_momentum(material, still, wanted)
    return _forgery(material, [task.state] * last + [start, train_segment(material, last, start)], range(last))


def _with_momentum(material: Material, state: State, wanted: Mapping[int, npt.NDArray[Any]]) -> State:
    """The state with moments that move each parameter down by its wanted value times the gain."""
    forged = list(state)
    for place, value in wanted.items():
        name = material.names[place]
        if isinstance(material.optimizer, SGD):
            forged[material.names.index(MOMENTUM + name)] = value.astype(np.float32)
            continue
        first = value * np.sqrt(HUGE_VARIANCE)
        forged[material.names.index(FIRST_MOMENT + name)] = first.astype(np.float32)
        forged[material.names.index(SECOND_MOMENT + name)] = np.full(value.shape, HUGE_VARIANCE, np.float32)
    return tuple(forged)


def _momentum_gain(material: Material, segment: int) -> float:
    """How far a weight moves down in a segment per unit of momentum (AdamW: of first moment over the root of the
    second) at its start, gradients and decay left aside."""
    task, optimizer, gain = material.task, material.optimizer, 0.0
    first = task.first_step(segment)
    for done in range(1, task.segment_steps(segment) + 1):
        rate = learning_rate(schedule_of(optimizer), first + done - 1)
        if isinstance(optimizer, SGD):
            gain += rate * optimizer.momentum**done
            continue
        (beta1, beta2), step = optimizer.betas, first + done
        gain += rate * beta1**done / (1 - beta1**step) / np.sqrt(beta2**done / (1 - beta2**step))
    return float(gain)


# --- training less, or something else --------------------------------------------------------------------------------


def skipped_optimizer_state(material: Material) -> Forgery:
    """The weights are trained, the posted moments are those of the beginning."""
    initial, moments = material.task.state, material.moments
    return _trained_wrongly(material, [replace_tensors(state, initial, moments) for state in material.honest[1:]])


def another_order(material: Material) -> Forgery:
    """Trained on the task's samples in an order of one's own."""
    return _trained_wrongly(material, train(material.task, material.graph, material.task.state, order=99))


def duplicated_samples(material: Material) -> Forgery:
    """Half of the samples, each twice."""
    doubled = [part[np.arange(len(part)) // 2 * 2] for part in material.task.data]
    return _trained_wrongly(material, train(material.task, material.graph, material.task.state, data=doubled))


def fewer_steps(material: Material) -> Forgery:
    """One step of every segment is left out."""
    trained = train(material.task, material.graph, material.task.state, steps=lambda numbers: numbers[:-1])
    return _trained_wrongly(material, trained)


def shorter_run(material: Material) -> Forgery:
    """A run of half the steps, posted as if it were the whole."""
    trained = train(material.task, material.graph, material.task.state, steps=lambda numbers: numbers[::2])
    return _trained_wrongly(material, trained)


def tiny_updates(material: Material) -> Forgery:
    """Trained with a thousandth of the learning rate, so that neighbouring checkpoints hardly differ."""

    def shrink(before: State, after: State) -> State:
        return replace_tensors(after, between(before, after, 1e-3), material.parameters)

    return _trained_wrongly(material, train(material.task, material.graph, material.task.state, after_step=shrink))


def half_batches(material: Material) -> Forgery:
    """Every step sees the first half of its batch: half the work."""

    def first_halves(numbers: range) -> Iterable[int]:
        return (2 * number for number in numbers)  # batch 2 g of half the size begins where batch g does

    trained = train(material.task, material.half, material.task.state, steps=first_halves)
    return _trained_wrongly(material, trained)


def replaced_batch(material: Material) -> Forgery:
    """One step of every segment sees another batch."""

    def replaced(numbers: range) -> Iterable[int]:
        return (*numbers[:-1], numbers[-1] + material.task.steps)

    return _trained_wrongly(material, train(material.task, material.graph, material.task.state, steps=replaced))


def another_rate(material: Material) -> Forgery:
    """Trained with a learning rate 1 % too large: no work saved, but not what was asked for."""

    def stretch(before: State, after: State) -> State:
        return replace_tensors(after, between(before, after, 1.01), material.parameters)

    return _trained_wrongly(material, train(material.task, material.graph, material.task.state, after_step=stretch))


def stopped_layers(material: Material) -> Forgery:
    """The first weight tensor and its moments stay as they were: its backward pass is saved."""
    name = material.names[material.parameters[0]]
    held = {name, *(prefix + name for prefix in MOMENT_PREFIXES)}
    frozen = [place for place, other in enumerate(material.names) if other in held]

    def freeze(before: State, after: State) -> State:
        return replace_tensors(after, before, frozen)

    return _trained_wrongly(material, train(material.task, material.graph, material.task.state, after_step=freeze))


def lower_precision(material: Material) -> Forgery:
    """Trained in bf16, whatever was declared."""
    trained = train(material.task, material.graph, material.task.state, precision=Precision.BF16)
    return _trained_wrongly(material, trained)


ATTACKS: tuple[Attack, ...] = (
    Attack("copied checkpoints", copied),
    Attack("interpolated checkpoints", interpolated),
    Attack("inverted checkpoints, one step a guess", inverted_cheaply),
    Attack("inverted checkpoints, at full price", inverted),
    Attack("empty index sequence", no_indices),
    Attack("concatenated runs", concatenated),
    Attack("skipped optimizer state", skipped_optimizer_state),
    Attack("another data order", another_order),
    Attack("duplicated samples", duplicated_samples),
    Attack("one step a segment left out", fewer_steps),
    Attack("one batch a segment replaced", replaced_batch),
    Attack("half of every batch", half_batches),
    Attack("learning rate 1 % too large", another_rate),
    Attack("run of half the steps", shorter_run),
    Attack("shorter run padded out", padded_out),
    Attack("model trained elsewhere", trained_elsewhere),
    Attack("lower precision than declared", lower_precision),
    Attack("frozen layer", stopped_layers),
    Attack("forged momentum", forged_momentum),
    Attack("tiny updates", tiny_updates),
    Attack("not a number", not_a_number),
    Attack("not a number, every second checkpoint", every_second_not_a_number),
    Attack("straight line to a stolen model", straight_line),
    Attack("sorted initial state", sorted_initial_state),
    Attack("large honest updates planted", large_updates_planted),
)


def attacks_on(precision: Precision) -> tuple[Attack, ...]:
    """The attacks that are attacks where `precision` is declared: bf16 is no lie for a bf16 task."""
    return tuple(a for a in ATTACKS if precision is not Precision.BF16 or a.forge is not lower_precision)
