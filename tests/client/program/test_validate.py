"""Well-formedness: one refusal for each rule, naming the operator and the field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from assay.program.errors import ProgramError
from assay.program.operator import (
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
)
from assay.program.validate import Limits, validate

FLOAT, INT = ElementType.FLOAT, ElementType.INT
X = Operand(Source.STATE, 0, 12, (4, 1))  # float[3, 4]
N = Operand(Source.STATE, 1, 5, (1,))  # int[5]
STATE = (TensorDescriptor("x", FLOAT, (3, 4)), TensorDescriptor("n", INT, (5,)))
DATA = (TensorDescriptor("d", FLOAT, (7,)),)


def program(*operators: Operator, role: Role = Role.STEP) -> Program:
    """A program whose step (or other section) has these operators."""
    keep = (StateEntry(None), StateEntry(None))
    step = Section(Role.STEP, operators if role == Role.STEP else (copy_of(X),), keep)
    sections = (step,) if role == Role.STEP else (step, Section(role, operators))
    return Program(STATE, DATA, (np.zeros(3, np.float32),), sections)


def copy_of(operand: Operand) -> Operator:
    return Operator(Body.COPY, FLOAT, (3, 4), (operand,))


BAD = {
    "output type": Operator(Body.NEG, INT, (3, 4), (X,)),
    "dimensions": Operator(Body.COPY, FLOAT, (1,) * 9, (replace(X, stride=(0,) * 9),)),
    "a fold needs one": Operator(Body.FOLD_ADD, FLOAT, (3, 4), (X,)),
    "only folds": Operator(Body.NEG, FLOAT, (3,), (X,), (4,)),
    "extent 1 is 0": Operator(Body.COPY, FLOAT, (3, 0), (X,)),
    "2\\^31": Operator(Body.UNIFORM, FLOAT, (2**16, 2**15), ()),
    "p1 is 0": Operator(Body.PERMUTE, INT, (3,), (), p0=3),
    "number of operands is 1": Operator(Body.ADD, FLOAT, (3, 4), (X,)),
    "does not exist in a step": copy_of(replace(X, source=Source.COMPARED)),
    "strides": copy_of(replace(X, stride=(1,))),
    "guards, 3": copy_of(replace(X, guards=(Guard(0, (0, 0), 1, 1),) * 4)),
    "divisor 0": copy_of(replace(X, guards=(Guard(0, (0, 0), 0, 1),))),
    "bound 0": copy_of(replace(X, guards=(Guard(0, (0, 0), 1, 0),))),
    "body takes float": Operator(Body.NEG, FLOAT, (5,), (N,)),
    "body takes int": Operator(Body.TO_FLOAT, FLOAT, (3, 4), (X,)),
    "body takes int.*": Operator(Body.COPY, INT, (3, 4), (X,)),
    "immediate has none": copy_of(Operand(Source.IMMEDIATE, 0, 0, (0, 1))),
    "immediate with guards": copy_of(Operand(Source.IMMEDIATE, 0, 0, (0, 0), guards=(Guard(0, (0, 0), 1, 1),))),
    "step has none": Operator(Body.TO_FLOAT, FLOAT, (3,), (Operand(Source.STEP, 0, 0, (1,)),)),
    "not earlier": copy_of(Operand(Source.OPERATOR, 0, 12, (4, 1))),
    "state tensor 2 of 2": copy_of(replace(X, index=2)),
    "tensor has 12": copy_of(replace(X, count=13)),
    "data tensor 1 of 1": copy_of(Operand(Source.DATA, 1, 7, (0, 1))),
    "constant 1 of 1": copy_of(Operand(Source.CONSTANT, 1, 3, (1, 0))),
    "constant has 3": copy_of(Operand(Source.CONSTANT, 0, 4, (1, 0))),
    "it is 0 for source index": Operator(Body.TO_FLOAT, FLOAT, (3,), (Operand(Source.INDEX, 0, 4, (1,)),)),
    "positions 1..12": copy_of(replace(X, offset=1)),
    "positions -1..10": copy_of(replace(X, offset=-1)),
    "positions -9..2": copy_of(replace(X, stride=(-4, 1), offset=-1)),
    "positions 0..15": copy_of(replace(X, guards=(Guard(0, (0, 0), 1, 2, 4),))),
    "positions 0..12": Operator(Body.GATHER, FLOAT, (5,), (replace(X, stride=(0,)), N), p0=4, p1=4),
    "outside -2147483648": Operator(Body.TO_FLOAT, FLOAT, (3,), (Operand(Source.INDEX, 0, 0, (2**30,), 2**30),)),
}


@pytest.mark.parametrize("message", BAD)
def test_a_malformed_operator_is_refused_by_number_and_field(message: str) -> None:
    with pytest.raises(ProgramError, match=f"step operator 0 .*{message}"):
        validate(program(BAD[message]))


def test_what_stays_inside_is_accepted() -> None:
    padded = Guard(-1, (1, 0), 1, 3, 4)
    validate(
        program(
            copy_of(X),
            Operator(Body.COPY, FLOAT, (5, 4), (replace(X, stride=(0, 1), guards=(padded,)),)),
            Operator(Body.GATHER, FLOAT, (5, 4), (replace(X, stride=(0, 1)), replace(N, stride=(1, 0))), p0=4, p1=3),
            Operator(Body.SAME, INT, (3, 4), (X, Operand(Source.OPERATOR, 0, 12, (4, 1)))),
            Operator(Body.TO_FLOAT, FLOAT, (2,), (Operand(Source.STEP, 0, 0, (0,), guards=(Guard(0, (1,), 1, 1),)),)),
        )
    )


def test_sources_belong_to_their_sections() -> None:
    distance = Operator(Body.FOLD_ADD, FLOAT, (), (replace(X, source=Source.COMPARED),), (3, 4))
    validate(program(distance, role=Role.DISTANCE))
    noisy = replace(distance, operands=(replace(X, source=Source.NOISY),))
    with pytest.raises(ProgramError, match="noisy does not exist in a distance"):
        validate(program(noisy, role=Role.DISTANCE))
    threshold = Operator(Body.COPY, FLOAT, (), (Operand(Source.THRESHOLD, 0, 3, ()),))
    with pytest.raises(ProgramError, match="threshold vector has 2"):
        validate(program(threshold, role=Role.DISTANCE))


def test_sections_end_in_their_results() -> None:
    with pytest.raises(ProgramError, match="ends in outputs"):
        validate(program(copy_of(X), role=Role.DISTANCE))
    with pytest.raises(ProgramError, match="ends in outputs"):
        validate(program(copy_of(X), role=Role.DEVIATION))


def test_the_next_state_fits_the_state() -> None:
    good = program(copy_of(X))
    step = good.sections[0]
    validate(replace(good, sections=(replace(step, next_state=(StateEntry(0), StateEntry(None))),)))
    for table, message in (
        ((StateEntry(None),), "1 entries"),
        ((StateEntry(1), StateEntry(None)), "operator 1 of 1"),
        ((StateEntry(None), StateEntry(0)), r"next state 1 \(n\) is int\[5\]"),
    ):
        with pytest.raises(ProgramError, match=message):
            validate(replace(good, sections=(replace(step, next_state=table),)))


def test_programs_beyond_the_limits_are_refused() -> None:
    good = program(copy_of(X))
    validate(good)
    for limits in (
        Limits(operators=0),
        Limits(tensors=1),
        Limits(constant_bytes=8),
        Limits(tensor_elements=11),
        Limits(live_elements=11),
    ):
        with pytest.raises(ProgramError):
            validate(good, limits)
    with pytest.raises(ProgramError, match="roles"):
        validate(replace(good, sections=good.sections * 2))
    with pytest.raises(ProgramError, match="name"):
        validate(replace(good, state=(STATE[0], replace(STATE[1], name="x"))))
    with pytest.raises(ProgramError, match="loss"):
        validate(replace(good, loss=0))
