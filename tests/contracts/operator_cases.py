"""Random well-formed operators with tensors to read, for differential tests of the operators library.

The expected values come from `assay.program.reference`, the specification made executable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from assay.program.operator import BODY_RULES, Body, ElementType, Guard, Operand, Operator, Source
from assay.program.reference import StepContext, evaluate_element, partial_sums
from assay.program.validate import affine_interval, position_interval
from binary32_cases import SPECIAL, Patterns, pack

Generator = np.random.Generator

OPENED = (Source.STATE, Source.OPERATOR, Source.DATA, Source.CONSTANT)


@dataclass(frozen=True)
class Case:
    """An operator, and for each operand the words of the tensor it reads (empty where nothing is opened)."""

    operator: Operator
    tensors: tuple[Patterns, ...]
    context: StepContext

    def _read(self, source: Source, index: int, position: int) -> int:
        # Every opened operand has its own number as tensor index: see `random_case`.
        return int(self.tensors[index][position])

    def output(self) -> list[int]:
        """All words of the operator's output, by the reference."""
        return [
            evaluate_element(self.operator, i, self._read, self.context) for i in range(self.operator.elements)
        ]

    def partial_sums(self, element: int) -> list[int]:
        """The accumulators of one element, by the reference."""
        return list(partial_sums(self.operator, element, self._read, self.context))

    def packed(self) -> list[bytes]:
        """The tensors as the harness reads them."""
        return [pack(tensor) for tensor in self.tensors]


def random_case(generator: Generator, body: Body) -> Case:
    """A well-formed operator with this body; opened operand i reads tensor number i."""
    rule = BODY_RULES[body]
    extents = tuple(int(n) for n in generator.integers(1, 4, generator.integers(0, 4)))
    reduced = tuple(int(n) for n in generator.integers(1, 5, generator.integers(1, 4))) if rule.fold else ()
    kind = {"f": ElementType.FLOAT, "i": ElementType.INT, "t": ElementType(int(generator.integers(0, 2)))}[rule.output]
    p0, p1 = 0, 0
    if body == Body.GATHER:
        p0, p1 = int(generator.integers(0, 4)), int(generator.integers(1, 6))
    elif body == Body.PERMUTE:
        p0, p1 = int(generator.integers(1, 100)), int(generator.integers(1, 2 ** int(generator.integers(1, 31))))
    elif body == Body.UNIFORM:
        p0 = int(generator.integers(0, 2**32))
    operator = Operator(body, kind, extents, (), reduced, p0, p1)
    operands, tensors = [], []
    for number, letter in enumerate(rule.operands):
        wanted = {"f": ElementType.FLOAT, "i": ElementType.INT, "t": kind}.get(letter)
        if wanted is None:
            wanted = ElementType(int(generator.integers(0, 2)))
        operand = _random_operand(generator, operator, number, wanted)
        operands.append(operand)
        # Few different integers, so that comparisons meet and gathers hit; anything at all where they are arithmetic.
        small = body in (Body.GATHER, Body.FOLD_ADD_IF, Body.SELECT) or generator.integers(0, 4) == 0
        tensors.append(_random_words(generator, operand.count, wanted, small))
    step = int(generator.integers(0, 100000))
    if body == Body.PERMUTE:
        step = int(generator.integers(0, 2**31))
    seed = int(generator.integers(0, 2**64, dtype=np.uint64))
    return Case(replace(operator, operands=tuple(operands)), tuple(tensors), StepContext(seed, step))


def _random_operand(generator: Generator, operator: Operator, number: int, kind: ElementType) -> Operand:
    dimensions = len(operator.dimensions)
    fill = int(generator.choice(SPECIAL))
    choice = generator.integers(0, 8)
    if choice == 0:
        return Operand(Source.IMMEDIATE, int(generator.choice(SPECIAL)), 0, (0,) * dimensions)
    guards = tuple(_random_guard(generator, dimensions) for _ in range(generator.integers(0, 4)))
    if choice == 1 and kind == ElementType.INT:
        return Operand(Source.STEP, 0, 0, (0,) * dimensions, 0, fill, guards)
    stride = tuple(int(n) for n in generator.integers(-3, 7, dimensions))
    gathers = operator.body == Body.GATHER and number == 0
    if choice == 2 and kind == ElementType.INT:
        return Operand(Source.INDEX, 0, 0, stride, int(generator.integers(-1000, 1000)), fill, guards)
    operand = Operand(OPENED[int(generator.integers(0, len(OPENED)))], number, 0, stride, 0, fill, guards)
    low, high = position_interval(operator, operand, gathers)
    slack = int(generator.integers(0, 3))
    return replace(operand, offset=slack - low, count=high - low + 1 + slack + int(generator.integers(0, 3)))


def _random_guard(generator: Generator, dimensions: int) -> Guard:
    stride = tuple(int(n) for n in generator.integers(-2, 4, dimensions))
    divisor = int(generator.choice([1, 1, 2, 3]))
    offset = int(generator.integers(-3, 4))
    low, high = affine_interval(offset, stride, (3,) * dimensions)
    bound = max(1, int(generator.integers(1, max(2, high // divisor + 2))))
    return Guard(offset, stride, divisor, bound, int(generator.choice([0, 0, 1, -1, 5])))


def _random_words(generator: Generator, count: int, kind: ElementType, small: bool) -> Patterns:
    if kind == ElementType.INT:
        if small:
            return generator.integers(-2, 6, count).astype(np.int32).view(np.uint32)
        return generator.integers(0, 2**32, count, dtype=np.uint32)
    values = generator.standard_normal(count).astype(np.float32).view(np.uint32)
    special = generator.choice(SPECIAL, count)
    words = np.where(generator.integers(0, 12, count) == 0, special, values)
    return np.where((words & 0x7FFFFFFF) > 0x7F800000, 0x7FC00000, words).astype(np.uint32)
