"""The sections of tolerant tasks, built by pure functions from the step section and the declared precision.

- **distance** of a replayed segment from the solver's checkpoint, in units of the thresholds (at most 1 passes);
- **noisy step**: the step with seeded noise of the declared precision on what every fold reads;
- **deviation**: thresholds so far, from a clean and a noisy run of one segment, and whether they tell a skipped step.

Norms are Euclidean, and computed after dividing by the largest element, so that tiny updates do not underflow.
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
UNIT_ROUNDOFF = 2.0**-24
LARGEST = 2.0**128 - 2.0**104
"""The largest finite binary32 number."""

MARGIN = 64.0
"""What a threshold is above the largest deviation profiled. A profile sees the first segments; later on gradients
shrink while their rounding does not, and over fifty epochs of an MLP the honest relative deviation of moments grew to
twenty times. `assay bench separation` measures what is left of the way to a skipped step (attacks/SEPARATION.md)."""

ROUNDINGS = 16.0
"""Roundings of a tensor that pass as no difference. Updates that shrink to nothing (the end of a cosine schedule, a
converged model) leave rounding as all there is, so a distance in units of the update alone would grow beyond bounds."""

SINGLE_NOISE = 2.0**-19
"""Relative noise that stands for binary32 kernels of every make. Half a unit in the last place in the folds alone is
too little: native kernels also differ in exp, tanh, division and square root, round once what we round twice, and hold
constants such as 1 - beta in binary64, which shifts every element the same way."""

NEAR_ZERO = 1e-3
"""The margin of a tensor of n elements is NEAR_ZERO^(-1/n) times as large: an update that is a random vector of n
elements falls below a fraction e of its usual length with a chance of about e^n, and its relative noise rises as much.
That is a thousandfold for a scalar, 5.6 for 4 elements, and nothing for a weight matrix."""


TRUNCATION_NOISE = 2.0**-6
"""Noise, in whole units, on a number that is truncated (converted to an integer and back, as quantisation does). There
rounding errors become jumps, of a whole code at a compressed boundary, and so rare that a profile of honest noise would
miss those of the next segment: one conversion in 128 made to jump shows what jumps do."""

TRUNCATED_MARGIN = 16.0
"""`MARGIN` of a step that truncates. Its profiled noise is made of jumps already, far above what kernels differ by, and
64 times that reaches a skipped step."""


class Precision(Enum):
    """Precision a native run declares."""

    FP32 = "fp32"
    TF32 = "tf32"
    BF16 = "bf16"

    @property
    def product_noise(self) -> float:
        """Relative noise of what products read. bf16 twice its half-unit: products also round what they give."""
        return {"fp32": SINGLE_NOISE, "tf32": 2.0**-11, "bf16": 2.0**-8}[self.value]

    @property
    def sum_noise(self) -> float:
        """Relative noise of what sums read: values in bf16 where that is declared, else binary32."""
        return {"fp32": SINGLE_NOISE, "tf32": SINGLE_NOISE, "bf16": 2.0**-8}[self.value]

    def fold_noise(self, body: Body, terms: int) -> float:
        """Relative noise of what a fold of so many terms reads: kernels add them in other orders, too."""
        unit = self.product_noise if body == Body.FOLD_FMA else self.sum_noise
        return max(unit, UNIT_ROUNDOFF * sqrt(terms))


def build_program(graph: Graph, precision: Precision | None = None) -> Program:
    """The program of a task: the step alone for exact tasks (precision None), all four sections for tolerant ones."""
    program = lower_step(graph)
    if precision is None:
        return program
    step = program.section(Role.STEP)
    margin = TRUNCATED_MARGIN if _truncations(step) else MARGIN
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
    """How far a tensor moved in a segment: what other differences are measured by."""

    def __init__(self, b: Builder, end: View, start: View) -> None:
        self.b, self.end = b, end
        self.update = norm(b, b.apply(Body.SUB, end, start))

    def from_end(self, other: View) -> View:
        """|other - end|."""
        return norm(self.b, self.b.apply(Body.SUB, self.end, other))

    def rounding(self) -> View:
        """What rounding may come to in any segment, however little it moved: ROUNDINGS * 2^-24 * |end|."""
        return self.b.apply(Body.MUL, norm(self.b, self.end), ROUNDINGS * UNIT_ROUNDOFF)

    def relative(self, other: View) -> View:
        """|other - end| / |end - start|: 0 where all bits are equal, infinite where nothing moved but bits differ."""
        b = self.b
        ratio = b.apply(Body.DIV, self.from_end(other), self.update)
        return b.apply(Body.SELECT, bits_equal(b, self.end, other), 0.0, ratio, kind=FLOAT)

    def distance(self, other: View, threshold: View) -> View:
        """|other - end| / (threshold * |end - start| + rounding): 0 where all bits are equal.

        A sum that is infinite would accept everything: infinite then.
        """
        b = self.b
        allowed = b.apply(Body.FMA, self.update, threshold, self.rounding())
        finite = b.apply(Body.LE, allowed, LARGEST)
        ratio = b.apply(Body.DIV, self.from_end(other), allowed)
        ratio = b.apply(Body.SELECT, finite, ratio, float("inf"), kind=FLOAT)
        return b.apply(Body.SELECT, bits_equal(b, self.end, other), 0.0, ratio, kind=FLOAT)


def norm(b: Builder, vector: View) -> View:
    """Euclidean norm, with squares taken in units of the largest element so that they do not underflow."""
    places = list(range(vector.rank))
    largest = b.reduce(Body.FOLD_MAX, [b.apply(Body.ABS, vector)], places)
    unit = b.apply(Body.SELECT, b.apply(Body.EQ, largest, 0.0), 1.0, largest, kind=FLOAT)
    scaled = b.apply(Body.DIV, vector, unit)
    return b.apply(Body.MUL, b.apply(Body.SQRT, b.reduce(Body.FOLD_FMA, [scaled, scaled], places)), largest)


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


def largest(b: Builder, values: Sequence[View]) -> View:
    """The largest of some scalars; NaN if any is NaN."""
    result = values[0]
    for value in values[1:]:
        result = b.apply(Body.MAX, result, value)
    return result


# --- the sections ----------------------------------------------------------------------------------------------------


def distance_section(state: Sequence[TensorDescriptor]) -> Section:
    """Over all tensors, the largest |replay - checkpoint| / (threshold * |replay - start| + rounding of the replay);
    integers must be equal."""
    b = Builder()
    values = []
    for index, descriptor in enumerate(state):
        b.origin = descriptor.name
        end = _tensor(descriptor, Source.STATE, index)
        compared = _tensor(descriptor, Source.COMPARED, index)
        if descriptor.type == ElementType.INT:
            values.append(b.apply(Body.SELECT, bits_equal(b, end, compared), 0.0, float("inf"), kind=FLOAT))
            continue
        change = _Change(b, end, _tensor(descriptor, Source.START, index))
        values.append(change.distance(compared, _threshold(index, len(state))))
    b.origin = "distance"
    result = largest(b, values)
    section, _ = finish(b, Role.DISTANCE, (), [result.operand.index])
    return section


def deviation_section(state: Sequence[TensorDescriptor], margin: float = MARGIN) -> Section:
    """New thresholds, and the separation.

    Threshold of tensor t: the larger of the one so far, and margin * NEAR_ZERO^(-1 / elements) times
    |noisy - clean| / |clean - start|; infinite where integers differ.
    Separation: the distance of the penultimate state (a skipped step) from the clean one by the new thresholds, the
    largest over float tensors. Tensors without any deviation count 0 there: what no noise reaches (a power of beta) is
    easy to forge and shows nothing.
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
        threshold = b.apply(
            Body.MAX, b.apply(Body.MUL, deviation, margin * NEAR_ZERO ** (-1 / descriptor.count)), before
        )
        silent = b.apply(Body.EQ, deviation, 0.0)
        ratio = change.distance(_tensor(descriptor, Source.PENULTIMATE, index), threshold)
        separations.append(b.apply(Body.SELECT, silent, 0.0, ratio, kind=FLOAT))
        thresholds.append(threshold)
    b.origin = "separation"
    if not separations:
        raise ProgramError("the state has no float tensors: a tolerant task has nothing to compare; use exact mode")
    separation = largest(b, separations)
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

    u is uniform, with a stream of its own for each operand of each fold. e is the declared precision's for products and
    for sums, and at least 2^-24 sqrt(K) in a fold of K terms: kernels add those in other orders, which moves a sum by
    about that. A tensor that is truncated is x + TRUNCATION_NOISE * (2 u - 1).
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
            amplitude = precision.fold_noise(old.body, old.terms)
            for place, operand in enumerate(operands):
                if operand.source in NOISED:
                    noisy = noised(operand, amplitude, stream, add, origin)
                    operands[place] = replace(operand, source=Source.OPERATOR, index=noisy)
                    stream += 1
        elif number in truncations and operands[0].source in NOISED:
            noisy = noised(operands[0], TRUNCATION_NOISE, stream, add, origin, absolute=True)
            operands[0] = replace(operands[0], source=Source.OPERATOR, index=noisy)
            stream += 1
        numbers.append(add(replace(old, operands=tuple(operands)), origin))
    table = tuple(StateEntry(None if e.operator is None else numbers[e.operator]) for e in step.next_state)
    return Section(Role.NOISY_STEP, tuple(operators), table, tuple(origins))


NOISED = frozenset({Source.STATE, Source.OPERATOR, Source.DATA, Source.CONSTANT})


def truncates(program: Program) -> bool:
    """Whether the step converts floats to integers and back, so that its profiled noise is made of jumps."""
    return bool(_truncations(program.section(Role.STEP)))


def _truncations(step: Section) -> set[int]:
    """Operators that convert floats to integers which are only converted back."""
    found = {n for n, operator in enumerate(step.operators) if operator.body == Body.TO_INT}
    for operator in step.operators:
        if operator.body != Body.TO_FLOAT:
            found -= {o.index for o in operator.operands if o.source == Source.OPERATOR}
    return found - {entry.operator for entry in step.next_state}


def noised(
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
