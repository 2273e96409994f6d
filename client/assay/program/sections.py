"""The sections of tolerant tasks, built by pure functions from the step section and the declared precision.

- **distance** of a replayed segment from the solver's checkpoint, in units of the thresholds (at most 1 passes);
- **noisy step**: the step with seeded noise of the declared precision on what every fold reads;
- **deviation**: thresholds so far, from a clean and a noisy run of one segment, and whether they tell a skipped step.

Norms are Euclidean, and computed after dividing by the largest change, so that tiny updates do not underflow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from math import sqrt

from assay.program.errors import ProgramError
from assay.program.graph import Graph
from assay.program.lowering import lower_step
from assay.program.lowering import view as views
from assay.program.lowering.builder import FLOAT, INT, Builder, finish
from assay.program.lowering.view import View
from assay.program.operator import (
    Body,
    ElementType,
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
from assay.program.validate import validate

NOISE_STREAM = 1 << 31  # streams below are the graph's own; 0xffffffff is the trace's and the permutation's
MARGIN = 4.0
"""What a threshold is above the largest deviation seen. Emulated noise is independent from element to element and only
in folds; kernels also differ elsewhere. Enough for binary32 on the models measured (`assay bench separation`), not for
bf16, where honest segments of an MLP came out up to five thresholds away."""

UNIT_ROUNDOFF = 2.0**-24

SINGLE_NOISE = 2.0**-16
"""Relative noise that stands for binary32 kernels of every make. Half a unit in the last place in the folds alone is
too little: native kernels also differ in exp, tanh, division and square root, round once what we round twice, and hold
constants such as 1 - beta in binary64, which shifts every element the same way. Measured on an MLP with layer norm,
GELU and AdamW: honest binary32 runs lay 13 times beyond four times the deviation of half-unit noise, a skipped step
5e5 times."""


TRUNCATION_NOISE = 2.0**-6
"""Noise, in whole units, on a number that is truncated (converted to an integer and back, as quantisation does). There
rounding errors become jumps, of a whole code at a compressed boundary, and so rare that a profile of honest noise would
miss those of the next segment: one conversion in 128 made to jump shows what jumps do."""


class Precision(Enum):
    """Precision a native run declares."""

    FP32 = "fp32"
    TF32 = "tf32"
    BF16 = "bf16"

    @property
    def noise(self) -> float:
        """Relative noise of what products read at this precision."""
        return {"fp32": SINGLE_NOISE, "tf32": 2.0**-11, "bf16": 2.0**-9}[self.value]


def build_program(graph: Graph, precision: Precision | None = None, margin: float = MARGIN) -> Program:
    """The program of a task: the step alone for exact tasks (precision None), all four sections for tolerant ones."""
    program = lower_step(graph)
    if precision is None:
        return program
    step = program.section(Role.STEP)
    sections = (
        step,
        distance_section(program.state),
        noisy_section(step, precision),
        deviation_section(program.state, margin),
    )
    complete = replace(program, sections=sections)
    validate(complete)
    return complete


# --- norms -----------------------------------------------------------------------------------------------------------


class _Change:
    """How far a tensor moved in a segment: the scale and norm that other differences are measured by."""

    def __init__(self, b: Builder, end: View, start: View) -> None:
        self.b, self.end = b, end
        update = b.apply(Body.SUB, end, start)
        self.places = list(range(update.rank))
        self.scale = b.reduce(Body.FOLD_MAX, [b.apply(Body.ABS, update)], self.places)
        self.norm = self._norm(update)

    def _norm(self, difference: View) -> View:
        """Euclidean norm of a difference, in units of the scale."""
        scaled = self.b.apply(Body.DIV, difference, self.scale)
        return self.b.apply(Body.SQRT, self.b.reduce(Body.FOLD_FMA, [scaled, scaled], self.places))

    def relative(self, other: View) -> View:
        """|other - end| / |end - start|: 0 where all bits are equal, infinite where nothing moved but bits differ."""
        b = self.b
        ratio = b.apply(Body.DIV, self._norm(b.apply(Body.SUB, self.end, other)), self.norm)
        still = b.apply(Body.EQ, self.scale, 0.0)
        ratio = b.apply(Body.SELECT, still, float("inf"), ratio, kind=FLOAT)
        return b.apply(Body.SELECT, bits_equal(b, self.end, other), 0.0, ratio, kind=FLOAT)

    def roundoff(self) -> View:
        """2^-24 |end| / |end - start|: what rounding the result once amounts to; 0 where nothing moved."""
        b = self.b
        still = b.apply(Body.EQ, self.scale, 0.0)
        ratio = b.apply(Body.DIV, b.apply(Body.MUL, self._norm(self.end), UNIT_ROUNDOFF), self.norm)
        return b.apply(Body.SELECT, still, 0.0, ratio, kind=FLOAT)


def bits_equal(b: Builder, x: View, y: View) -> View:
    """1 if no element of x and y differs in any bit, else 0: the number of differing elements is 0."""
    differs = b.apply(Body.IXOR, b.apply(Body.SAME, x, y), 1)
    count = b.reduce(Body.FOLD_IADD, [differs], list(range(differs.rank)))
    return b.apply(Body.SAME, count, b.number(0, INT))


def _tensor(descriptor: TensorDescriptor, source: Source, index: int) -> View:
    """A state tensor of some source as a vector: norms do not see shapes."""
    return views.whole(descriptor.type, (descriptor.count,), source, index)


def _threshold(index: int, states: int) -> View:
    """Element `index` of the threshold vector."""
    return View(FLOAT, (), Operand(Source.THRESHOLD, 0, states, (), index))


def _largest(b: Builder, values: Sequence[View]) -> View:
    """The largest of some scalars; NaN if any is NaN."""
    result = values[0]
    for value in values[1:]:
        result = b.apply(Body.MAX, result, value)
    return result


# --- the sections ----------------------------------------------------------------------------------------------------


def distance_section(state: Sequence[TensorDescriptor]) -> Section:
    """Over all tensors, the largest |replay - checkpoint| / |replay - start| / threshold; integers must be equal."""
    b = Builder()
    values = []
    for index, descriptor in enumerate(state):
        b.origin = descriptor.name
        end = _tensor(descriptor, Source.STATE, index)
        compared = _tensor(descriptor, Source.COMPARED, index)
        if descriptor.type == ElementType.INT:
            values.append(b.apply(Body.SELECT, bits_equal(b, end, compared), 0.0, float("inf"), kind=FLOAT))
            continue
        relative = _Change(b, end, _tensor(descriptor, Source.START, index)).relative(compared)
        scaled = b.apply(Body.DIV, relative, _threshold(index, len(state)))
        # 0 / 0 is no failure: equal bits pass whatever the threshold.
        values.append(b.apply(Body.SELECT, bits_equal(b, end, compared), 0.0, scaled, kind=FLOAT))
    b.origin = "distance"
    result = _largest(b, values)
    section, _ = finish(b, Role.DISTANCE, (), [result.operand.index])
    return section


def deviation_section(state: Sequence[TensorDescriptor], margin: float = MARGIN) -> Section:
    """New thresholds, and the separation.

    Threshold of tensor t: the largest of the one so far, margin * |noisy - clean| / |clean - start|, and margin times
    one rounding of the result (noise may leave a small tensor as it was by chance); infinite where integers differ.
    Separation: the largest over float tensors of |clean - penultimate| / |clean - start| over the new threshold.
    Tensors without any deviation count 0 there: what no noise reaches (a power of beta) is easy to forge and shows
    nothing.
    """
    b = Builder()
    thresholds, separations = [], []
    for index, descriptor in enumerate(state):
        b.origin = descriptor.name
        clean = _tensor(descriptor, Source.STATE, index)
        noisy = _tensor(descriptor, Source.NOISY, index)
        before = _threshold(index, len(state))
        if descriptor.type == ElementType.INT:
            found = b.apply(Body.SELECT, bits_equal(b, clean, noisy), 0.0, float("inf"), kind=FLOAT)
            thresholds.append(b.apply(Body.MAX, found, before))
            continue
        change = _Change(b, clean, _tensor(descriptor, Source.START, index))
        deviation = change.relative(noisy)
        least = b.apply(Body.MUL, b.apply(Body.MAX, deviation, change.roundoff()), margin)
        threshold = b.apply(Body.MAX, least, before)
        skipped = change.relative(_tensor(descriptor, Source.PENULTIMATE, index))
        silent = b.apply(Body.EQ, deviation, 0.0)
        ratio = b.apply(Body.DIV, skipped, threshold)
        separations.append(b.apply(Body.SELECT, silent, 0.0, ratio, kind=FLOAT))
        thresholds.append(threshold)
    b.origin = "separation"
    if not separations:
        raise ProgramError("the state has no float tensors: a tolerant task has nothing to compare; use exact mode")
    separation = _largest(b, separations)
    b.origin = "thresholds"
    vector = _vector(b, thresholds)
    # The last two operators are the results, in this order.
    last = b.emit(Body.COPY, FLOAT, [separation], ())
    section, _ = finish(b, Role.DEVIATION, (), [vector.operand.index, last.operand.index])
    return section


def _vector(b: Builder, scalars: Sequence[View]) -> View:
    """A vector of scalars: element t is chosen where the index is t."""
    size = len(scalars)
    number = views.iota((size,), (1,))
    result = views.expand(scalars[0], (size,))
    for index, scalar in enumerate(scalars[1:], start=1):
        here = b.apply(Body.SAME, number, b.number(index, INT))
        result = b.apply(Body.SELECT, here, scalar, result, kind=FLOAT)
    return b.emit(Body.COPY, FLOAT, [result], (size,)) if size == 1 else result


def noisy_section(step: Section, precision: Precision) -> Section:
    """The step in which every tensor x read by a fold of products, or of floats, is x + x * e * (2 u - 1).

    u is uniform, with a stream of its own for each operand of each fold. e is the half-unit of the precision for
    products and of binary32 for sums, and at least 2^-24 sqrt(K) in a fold of K terms: kernels add those in other
    orders, which moves a sum by about that. A tensor that is truncated is x + TRUNCATION_NOISE * (2 u - 1).
    """
    operators: list[Operator] = []
    origins: list[str] = []
    numbers: list[int] = []
    stream = NOISE_STREAM
    truncations = _truncations(step)

    def add(operator: Operator, origin: str) -> int:
        operators.append(operator)
        origins.append(origin)
        return len(operators) - 1

    origins_of = step.origins or ("",) * len(step.operators)
    for number, (old, origin) in enumerate(zip(step.operators, origins_of, strict=True)):
        operands = [
            replace(operand, index=numbers[operand.index]) if operand.source == Source.OPERATOR else operand
            for operand in old.operands
        ]
        if old.body in (Body.FOLD_FMA, Body.FOLD_ADD):
            unit = precision.noise if old.body == Body.FOLD_FMA else SINGLE_NOISE
            amplitude = max(unit, UNIT_ROUNDOFF * sqrt(old.terms))
            for place, operand in enumerate(operands):
                if operand.source in _NOISED:
                    noisy = _noised(operand, amplitude, stream, add, origin)
                    operands[place] = replace(operand, source=Source.OPERATOR, index=noisy)
                    stream += 1
        elif number in truncations and operands[0].source in _NOISED:
            noisy = _noised(operands[0], TRUNCATION_NOISE, stream, add, origin, absolute=True)
            operands[0] = replace(operands[0], source=Source.OPERATOR, index=noisy)
            stream += 1
        numbers.append(add(replace(old, operands=tuple(operands)), origin))
    table = tuple(StateEntry(None if e.operator is None else numbers[e.operator]) for e in step.next_state)
    return Section(Role.NOISY_STEP, tuple(operators), table, tuple(origins))


_NOISED = frozenset({Source.STATE, Source.OPERATOR, Source.DATA, Source.CONSTANT})


def _truncations(step: Section) -> set[int]:
    """Operators that convert floats to integers which are only converted back."""
    found = {n for n, operator in enumerate(step.operators) if operator.body == Body.TO_INT}
    for operator in step.operators:
        if operator.body != Body.TO_FLOAT:
            found -= {o.index for o in operator.operands if o.source == Source.OPERATOR}
    return found - {entry.operator for entry in step.next_state}


def _noised(
    operand: Operand,
    amplitude: float,
    stream: int,
    add: Callable[[Operator, str], int],
    origin: str,
    absolute: bool = False,
) -> int:
    """Number of the operator that gives an operand's whole source tensor with noise, relative or absolute."""
    extents = (operand.count,) if operand.count > 1 else ()
    along = (1,) if extents else ()
    uniform = add(Operator(Body.UNIFORM, FLOAT, extents, (), p0=stream), origin)
    scale = immediate(float_bits(2 * amplitude), len(extents))
    shift = immediate(float_bits(-amplitude), len(extents))
    drawn = Operand(Source.OPERATOR, uniform, operand.count, along)
    noise = add(Operator(Body.FMA, FLOAT, extents, (drawn, scale, shift)), origin)
    clean = Operand(operand.source, operand.index, operand.count, along)
    factor = Operand(Source.OPERATOR, noise, operand.count, along)
    if absolute:
        return add(Operator(Body.ADD, FLOAT, extents, (clean, factor)), origin)
    return add(Operator(Body.FMA, FLOAT, extents, (clean, factor, clean)), origin)
