"""A small checking program, written by hand: what a member of a tolerant task says its stage did, held against itself.

The stage holds 300 numbers and is sent as many at every step; what it holds afterwards is their hyperbolic tangent. The
member states what it held after each step. The state begins with the fault: how far that ever was from what the
program computes, in units of the tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from small_program import Builder
from world import INTERVAL

from assay.program.operator import (
    Array,
    Body,
    ElementType,
    Operand,
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

SIZE = 300  # 2 chunks
TOLERANCE = 2.0**-12
F, INT = ElementType.FLOAT, ElementType.INT

STATE = (TensorDescriptor("fault", F, ()), TensorDescriptor("held", F, (SIZE,)))
DATA = (TensorDescriptor("received", F, (INTERVAL, SIZE)), TensorDescriptor("stated", F, (INTERVAL, SIZE)))
RECEIVED, HELD, FAULT = 1, 3, 9  # operators


def program() -> Program:
    """The step section only."""
    b = Builder([])

    def held(*stride: int) -> Operand:
        return Operand(Source.STATE, 1, SIZE, stride)

    def row_of(tensor: int) -> int:
        """The row of this step in the segment."""
        table = Operand(Source.DATA, tensor, INTERVAL * SIZE, (0, 1))
        return b.op(Body.GATHER, (1, SIZE), table, b.out(row, 1, 0), p0=SIZE, p1=INTERVAL)

    row = b.op(Body.IMOD, (1,), Operand(Source.STEP, 0, 0, (0,)), immediate(INTERVAL, 1), kind=INT)
    received = row_of(0)
    added = b.op(Body.ADD, (SIZE,), held(1), b.out(received, 1))
    new = b.op(Body.TANH, (SIZE,), b.out(added, 1))
    stated = row_of(1)
    gap = b.op(Body.SUB, (SIZE,), b.out(new, 1), b.out(stated, 1))
    width = b.op(Body.ABS, (SIZE,), b.out(gap, 1))
    far = b.op(Body.FOLD_MAX, (), b.out(width, 1), reduced=(SIZE,))
    units = b.op(Body.DIV, (), b.out(far), immediate(float_bits(TOLERANCE), 0))
    known = Operand(Source.STATE, 0, 1, ())
    fault = b.op(Body.MAX, (), known, b.out(units))
    assert (received, new, fault) == (RECEIVED, HELD, FAULT)
    made = Program(STATE, DATA, (), (Section(Role.STEP, tuple(b.operators), (StateEntry(fault), StateEntry(new))),))
    validate(made)
    return made


def start() -> list[Array]:
    """No fault yet; what is held, the last of it zero."""
    values = np.random.default_rng(3).normal(0, 0.5, SIZE).astype(np.float32)
    values[-1] = 0.0
    return [np.zeros((), np.float32), values]


def data(garbage: tuple[int, int, float] | None = None) -> Sequence[Array]:
    """What was sent, and what an honest member with its own rounding says of it; `garbage` is added to an element of a
    row."""
    random = np.random.default_rng(4)
    received = random.normal(0, 0.5, (INTERVAL, SIZE)).astype(np.float32)
    received[:, -1] = 0.0
    held, rows = start()[1].astype(np.float64), []
    for row in received:
        held = np.tanh(held + row)
        rows.append(held.astype(np.float32))
    stated = np.stack(rows)
    if garbage is not None:
        step, element, amount = garbage
        stated[step, element] += np.float32(amount)
    return [received, stated]
