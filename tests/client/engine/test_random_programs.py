"""Random programs of operators that read each other in every way: fused, watched and materialised, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from assay.program.operator import Body, ElementType, Guard, Operand, Operator, Source, row_major_strides
from assay.program.validate import validate

from .test_loops import assert_same, program_of, random_floats

FLOAT, INT = ElementType.FLOAT, ElementType.INT
UNARY = (Body.NEG, Body.ABS, Body.EXP, Body.TANH, Body.COPY)
BINARY = (Body.ADD, Body.SUB, Body.MUL, Body.MAX, Body.MIN)
FOLDS = (Body.FOLD_ADD, Body.FOLD_MAX, Body.FOLD_FMA)


class Maker:
    """Grows a program: values are float tensors of shapes (rows, columns), (rows,), (columns,) or ()."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.rows, self.columns = int(self.generator.integers(2, 41)), int(self.generator.integers(2, 75))
        self.state = [
            random_floats(self.generator, shape, special=seed % 3 == 0)
            for shape in ((self.rows, self.columns), (self.rows,), (self.columns,))
        ]
        self.values: list[tuple[Source, int, tuple[int, ...]]] = [
            (Source.STATE, number, part.shape) for number, part in enumerate(self.state)
        ]
        self.operators: list[Operator] = []

    def pick(self) -> tuple[Source, int, tuple[int, ...]]:
        # Recent values more often, so that chains grow.
        weights = np.arange(1, len(self.values) + 1, dtype=float)
        return self.values[int(self.generator.choice(len(self.values), p=weights / weights.sum()))]

    def reading(self, extents: tuple[int, ...], order: tuple[int, ...]) -> Operand:
        """An operand over loops named by `order` (0: rows, 1: columns), from a random value, now and then shifted."""
        source, index, shape = self.pick()
        count = int(np.prod(shape)) if shape else 1
        own = row_major_strides(shape)
        by_axis = {}
        if len(shape) == 2:
            by_axis = {0: own[0], 1: own[1]}
        elif len(shape) == 1:
            by_axis = {0 if shape[0] == self.rows and (shape[0] != self.columns or index % 2) else 1: 1}
        stride = tuple(by_axis.get(axis, 0) for axis in order)
        guards: tuple[Guard, ...] = ()
        if len(shape) == 2 and set(order) == {0, 1} and self.generator.random() < 0.3:
            shift = int(self.generator.integers(-2, 3))
            moved = tuple(1 if axis == 1 else 0 for axis in order)
            stride = tuple(0 if axis == 1 else by_axis[axis] for axis in order)
            guards = (Guard(shift, moved, 1, self.columns, 1),)
        elif self.generator.random() < 0.15 and len(order) == 2:
            guards = (Guard(0, tuple(1 if axis == 0 else -1 for axis in order), 1, 1 << 20),)
        return Operand(source, index, count, stride, fill=0x3F800000, guards=guards)

    def grow(self) -> None:
        kind = self.generator.integers(0, 10)
        if kind < 6:
            order = [(0, 1), (0, 1), (0,), (1,), (1, 0)][int(self.generator.integers(0, 5))]
            extents = tuple((self.rows, self.columns)[axis] for axis in order)
            binary = self.generator.random() < 0.7
            body = (BINARY if binary else UNARY)[int(self.generator.integers(0, 5))]
            operands = tuple(self.reading(extents, order) for _ in range(2 if binary else 1))
            self.add(Operator(body, FLOAT, extents, operands), order)
        else:
            order = ((0, 1), (1, 0))[int(self.generator.integers(0, 2))]
            extents = tuple((self.rows, self.columns)[axis] for axis in order)
            body = FOLDS[int(self.generator.integers(0, 3))]
            operands = tuple(self.reading(extents, order) for _ in range(2 if body == Body.FOLD_FMA else 1))
            self.add(Operator(body, FLOAT, extents[:1], operands, extents[1:]), order[:1])

    def add(self, operator: Operator, order: tuple[int, ...]) -> None:
        self.operators.append(operator)
        if order != (1, 0):
            self.values.append((Source.OPERATOR, len(self.operators) - 1, operator.extents))


@pytest.mark.parametrize("seed", range(24))
def test_a_random_program_equals_the_interpreter(seed: int) -> None:
    maker = Maker(seed)
    for _ in range(10):
        maker.grow()
    program = program_of(maker.operators, maker.state)
    validate(program)
    assert_same(program, maker.state)
