"""A small real program, written by hand, with a bit of everything the court has to open: folds of one and of many
chunks, gathers, the data permutation, guards, select, a running maximum, integers, uniforms, a kept tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from assay.program.operator import (
    Array,
    Body,
    ElementType,
    Guard,
    Operand,
    Operator,
    Program,
    Role,
    Section,
    Source,
    StateEntry,
    TensorDescriptor,
    float_bits,
    immediate,
)

F, INT = ElementType.FLOAT, ElementType.INT
BATCH, SAMPLES, FEATURES, HIDDEN, CLASSES = 4, 16, 20, 40, 3

STATE = (
    TensorDescriptor("w1", F, (HIDDEN, FEATURES)),  # 800 elements: 4 chunks
    TensorDescriptor("w2", F, (CLASSES, HIDDEN)),
    TensorDescriptor("shifted", F, (HIDDEN,)),
    TensorDescriptor("count", INT, (1,)),
    TensorDescriptor("total", F, (1,)),
    TensorDescriptor("fixed", F, (5,)),
    TensorDescriptor("usage", F, (SAMPLES,)),
)
DATA = (TensorDescriptor("x", F, (SAMPLES, FEATURES)), TensorDescriptor("y", INT, (SAMPLES,)))


CONSTANTS = (np.arange(3, dtype=np.int32), np.linspace(0.1, 2.0, HIDDEN, dtype=np.float32))


@dataclass
class Builder:
    """Collects operators; `op` returns the new one's number."""

    operators: list[Operator]

    def op(
        self,
        body: Body,
        extents: tuple[int, ...],
        *operands: Operand,
        reduced: tuple[int, ...] = (),
        kind: ElementType = F,
        p0: int = 0,
        p1: int = 0,
    ) -> int:
        self.operators.append(Operator(body, kind, extents, operands, reduced, p0, p1))
        return len(self.operators) - 1

    def out(self, number: int, *stride: int, offset: int = 0, guards: tuple[Guard, ...] = (), fill: int = 0) -> Operand:
        """Output of an earlier operator."""
        return Operand(Source.OPERATOR, number, self.operators[number].elements, stride, offset, fill, guards)


def state(index: int, *stride: int, source: Source = Source.STATE, **rest: object) -> Operand:
    """A tensor of the state, or of a state-like source."""
    return Operand(source, index, STATE[index].count, stride, **rest)  # type: ignore[arg-type]


def data(index: int, *stride: int) -> Operand:
    return Operand(Source.DATA, index, DATA[index].count, stride)


def step_section(noise: float | None = None) -> Section:
    """The training step; with noise added to the new first weights where `noise` is given."""
    b = Builder([])
    f, h, c = FEATURES, HIDDEN, CLASSES
    rows = b.op(Body.PERMUTE, (BATCH,), kind=INT, p0=BATCH, p1=SAMPLES)
    x = b.op(Body.GATHER, (BATCH, f), data(0, 0, 1), b.out(rows, 1, 0), p0=f, p1=SAMPLES)
    y = b.op(Body.GATHER, (BATCH,), data(1, 0), b.out(rows, 1), kind=INT, p0=1, p1=SAMPLES)
    hidden = b.op(Body.FOLD_FMA, (BATCH, h), b.out(x, f, 0, 1), state(0, 0, f, 1), reduced=(f,))
    mask = b.op(Body.LT, (BATCH, h), immediate(0, 2), b.out(hidden, h, 1), kind=INT)
    relu = b.op(Body.SELECT, (BATCH, h), b.out(mask, h, 1), b.out(hidden, h, 1), immediate(0, 2))
    logits = b.op(Body.FOLD_FMA, (BATCH, c), b.out(relu, h, 0, 1), state(1, 0, h, 1), reduced=(h,))
    top = b.op(Body.FOLD_MAX, (BATCH,), b.out(logits, c, 1), reduced=(c,))
    below = b.op(Body.SUB, (BATCH, c), b.out(logits, c, 1), b.out(top, 1, 0))
    power = b.op(Body.EXP, (BATCH, c), b.out(below, c, 1))
    total = b.op(Body.FOLD_ADD, (BATCH,), b.out(power, c, 1), reduced=(c,))
    chance = b.op(Body.DIV, (BATCH, c), b.out(power, c, 1), b.out(total, 1, 0))
    index = Operand(Source.INDEX, 0, 0, (0, 1))
    hot = b.op(Body.SAME, (BATCH, c), index, b.out(y, 1, 0), kind=INT)
    target = b.op(Body.TO_FLOAT, (BATCH, c), b.out(hot, c, 1))
    d_logits = b.op(Body.SUB, (BATCH, c), b.out(chance, c, 1), b.out(target, c, 1))
    d_w2 = b.op(Body.FOLD_FMA, (c, h), b.out(d_logits, 1, 0, c), b.out(relu, 0, 1, h), reduced=(BATCH,))
    d_relu = b.op(Body.FOLD_FMA, (BATCH, h), b.out(d_logits, c, 0, 1), state(1, 0, 1, h), reduced=(c,))
    d_hidden = b.op(Body.SELECT, (BATCH, h), b.out(mask, h, 1), b.out(d_relu, h, 1), immediate(0, 2))
    d_w1 = b.op(Body.FOLD_FMA, (h, f), b.out(d_hidden, 1, 0, h), b.out(x, 0, 1, f), reduced=(BATCH,))
    rate = immediate(float_bits(-0.05), 2)
    w1 = b.op(Body.FMA, (h, f), rate, b.out(d_w1, f, 1), state(0, f, 1))
    w2 = b.op(Body.FMA, (c, h), rate, b.out(d_w2, h, 1), state(1, h, 1))
    best = b.op(Body.FOLD_ARGMAX, (BATCH,), b.out(logits, c, 1), reduced=(c,), kind=INT)
    # One place to the right, with a padding of one half: position d - 1 where it is inside.
    inside = Guard(-1, (1,), 1, HIDDEN, 1)
    moved = b.op(Body.COPY, (h,), state(2, 0, guards=(inside,), fill=float_bits(0.5)))
    wave = b.op(Body.TANH, (h,), b.out(moved, 1))
    drop = b.op(Body.UNIFORM, (h,), p0=7)
    scale = Operand(Source.CONSTANT, 1, HIDDEN, (1,))
    shifted = b.op(Body.FMA, (h,), scale, b.out(drop, 1), b.out(wave, 1))
    step = Operand(Source.STEP, 0, 0, (0,))
    counted = b.op(Body.IADD, (1,), state(3, 0), step, kind=INT)
    weights = b.op(Body.FOLD_ADD, (1,), b.out(w1, 0, 1), reduced=(h * f,))  # 800 terms: 4 chunks of partial sums
    seen = b.op(
        Body.FOLD_ADD_IF,
        (SAMPLES,),
        Operand(Source.INDEX, 0, 0, (1, 0)),
        b.out(rows, 0, 1),
        immediate(float_bits(1.0), 2),
        reduced=(BATCH,),
    )
    usage = b.op(Body.ADD, (SAMPLES,), state(6, 1), b.out(seen, 1))
    right = b.op(Body.FOLD_IADD, (1,), b.out(best, 0, 1), reduced=(BATCH,), kind=INT)
    count = b.op(Body.IADD, (1,), b.out(counted, 0), b.out(right, 0), kind=INT)
    if noise is not None:
        draw = b.op(Body.UNIFORM, (h, f), p0=9)
        w1 = b.op(Body.FMA, (h, f), immediate(float_bits(noise), 2), b.out(draw, f, 1), b.out(w1, f, 1))
    entries = [w1, w2, shifted, count, weights, None, usage]
    role = Role.STEP if noise is None else Role.NOISY_STEP
    return Section(role, tuple(b.operators), tuple(StateEntry(entry) for entry in entries))


def _largest_gap(b: Builder, one: Operand, other: Operand) -> int:
    """The largest absolute difference of two tensors of the first weights' size."""
    size = HIDDEN * FEATURES
    gap = b.op(Body.SUB, (size,), one, other)
    width = b.op(Body.ABS, (size,), b.out(gap, 1))
    return b.op(Body.FOLD_MAX, (), b.out(width, 1), reduced=(size,))


def distance_section() -> Section:
    """Largest gap of the first weights, over the update's, over the first threshold."""
    b = Builder([])
    off = _largest_gap(b, state(0, 1), state(0, 1, source=Source.COMPARED))
    update = _largest_gap(b, state(0, 1), state(0, 1, source=Source.START))
    ratio = b.op(Body.DIV, (), b.out(off), b.out(update))
    b.op(Body.DIV, (), b.out(ratio), Operand(Source.THRESHOLD, 0, len(STATE), ()))
    return Section(Role.DISTANCE, tuple(b.operators))


def deviation_section() -> Section:
    """New thresholds: the larger of the old ones and the noise; separation: the last step's update over the noise."""
    b = Builder([])
    noise = _largest_gap(b, state(0, 1), state(0, 1, source=Source.NOISY))
    last = _largest_gap(b, state(0, 1), state(0, 1, source=Source.PENULTIMATE))
    start = _largest_gap(b, state(0, 1), state(0, 1, source=Source.START))
    relative = b.op(Body.DIV, (), b.out(noise), b.out(start))
    separation = b.op(Body.DIV, (), b.out(last), b.out(noise))
    old = Operand(Source.THRESHOLD, 0, len(STATE), (1,))
    b.op(Body.MAX, (len(STATE),), old, b.out(relative, 0))
    b.op(Body.COPY, (), b.out(separation))
    return Section(Role.DEVIATION, tuple(b.operators))


def program() -> Program:
    """All four sections."""
    sections = (step_section(), distance_section(), step_section(noise=0.001), deviation_section())
    return Program(STATE, DATA, CONSTANTS, sections)


def start_state(seed: int = 1) -> list[Array]:
    """Values to start from."""
    random = np.random.default_rng(seed)
    arrays: list[Array] = []
    for part in STATE:
        if part.type == INT:
            arrays.append(np.zeros(part.shape, np.int32))
        else:
            arrays.append(random.normal(0, 0.5, part.shape).astype(np.float32))
    return arrays


def data_tensors(seed: int = 2) -> list[Array]:
    """Samples and labels."""
    random = np.random.default_rng(seed)
    x = random.normal(0, 1, (SAMPLES, FEATURES)).astype(np.float32)
    return [x, random.integers(0, CLASSES, SAMPLES).astype(np.int32)]


def altered(arrays: Sequence[Array], index: int, element: int) -> list[Array]:
    """The arrays with one bit of one element turned."""
    changed = [array.copy() for array in arrays]
    changed[index].reshape(-1).view(np.uint32)[element] ^= 1
    return changed
