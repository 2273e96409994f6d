"""One element at a time against whole tensors, bit for bit: every body, special values, guards, real training steps."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from assay.program.errors import ProgramError
from assay.program.interpreter import Inputs, SectionRun, run_section
from assay.program.lowering import lower_step
from assay.program.operator import (
    BODY_RULES,
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
)
from assay.program.optimizer import AdamW
from assay.program.reference import StepContext, evaluate_element, partial_sums
from assay.program.trace import trace
from assay.program.validate import validate

from .models import ConvNet, Transformer, as_arrays, next_token_loss, token_data, uniform_data

FLOAT, INT = ElementType.FLOAT, ElementType.INT
# fmt: off
SPECIAL = np.array(
    [
        0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x3F800000, 0xBF800000, 0x3F7FFFFF, 0x7F7FFFFF,
        0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x34000000, 0x4B000001, 0xCB7FFFFF, 0x5F000000, 0x42B17218,
        0xC2CFF1B4,
    ],
    np.uint32,
)
# fmt: on


def float_values(count: int, seed: int) -> Array:
    """Special values, numbers near 1, and any bits."""
    source = np.random.default_rng(seed)
    words = source.integers(0, 2**32, count, dtype=np.uint32)
    words[::3] = source.choice(SPECIAL, words[::3].size)
    values = words.view(np.float32).copy()
    values[1::3] = source.standard_normal(values[1::3].size).astype(np.float32)
    values[np.isnan(values)] = np.uint32(0x7FC00000).view(np.float32)
    return values


def integer_values(count: int, seed: int) -> Array:
    source = np.random.default_rng(seed)
    values = source.integers(-9, 9, count).astype(np.int32)
    values[::4] = source.choice(np.array([0, -1, 1, 2**31 - 1, -(2**31)], np.int32), values[::4].size)
    return values


def section_of(operators: list[Operator], state: list[Array]) -> SectionRun:
    """The operators run as a step over a state."""
    table = tuple(TensorDescriptor(f"s{i}", ElementType.of(array), tuple(array.shape)) for i, array in enumerate(state))
    section = Section(Role.STEP, tuple(operators), (StateEntry(None),) * len(state))
    program = Program(table, (), (), (section,))
    validate(program)
    return run_section(program, Role.STEP, Inputs(state, context=StepContext(77, 5)))


def assert_elements_agree(run: SectionRun, operator: Operator, output: Array, elements: list[int]) -> None:
    words = output.reshape(-1).view(np.uint32)
    for element in elements:
        found = evaluate_element(operator, element, run.read, run.inputs.context)
        assert found == int(words[element]), (
            f"{operator.body.name} element {element}: {found:#x} {int(words[element]):#x}"
        )


@pytest.mark.parametrize("body", list(Body))
def test_every_body_agrees_with_the_scalar_reference(body: Body) -> None:
    rule = BODY_RULES[body]
    count = 60
    state = [float_values(count, 1), float_values(count, 2), float_values(count, 3)]
    state += [integer_values(count, 4), integer_values(count, 5)]
    for kind in (FLOAT, INT) if rule.output == "t" else ((FLOAT,) if rule.output == "f" else (INT,)):
        floats, integers = iter((0, 1, 2)), iter((3, 4, 3))
        operands = []
        outer, inner = ((6,), (10,)) if rule.fold else ((count,), ())
        stride = (10, 1) if rule.fold else (1,)
        for letter in rule.operands.replace("t", "if"[kind == FLOAT]).replace("x", "f"):
            operands.append(Operand(Source.STATE, next(integers if letter == "i" else floats), count, stride))
        p0, p1 = (7, 13) if body in (Body.PERMUTE, Body.UNIFORM) else (0, 0)
        if body == Body.GATHER:
            outer, p0, p1 = (20,), 3, 8
            operands = [
                Operand(Source.STATE, 0 if kind == FLOAT else 3, count, (1,)),
                Operand(Source.STATE, 4, count, (1,)),
            ]
        operator = Operator(body, kind, outer, tuple(operands), inner, p0, p1)
        run = section_of([operator], state)
        assert_elements_agree(run, operator, run.outputs[0], list(range(operator.elements)))


def test_index_maps_with_guards_agree() -> None:
    """Padding, strided inverse windows, masks, negative strides, the index and the step as operands."""
    source = random.Random(2)
    state = [float_values(60, 9)]
    operators = []
    for _ in range(40):
        guards = tuple(
            Guard(source.randint(-3, 3), (source.randint(-1, 2), source.randint(-1, 1), source.randint(-1, 1)), d, b, m)
            for d, b, m in ((source.randint(1, 3), source.randint(1, 4), source.choice([0, 0, 5, -2])),)
            * source.randint(1, 2)
        )
        shift = 2 * sum(max(0, -g.multiplier) * (g.bound - 1) for g in guards)
        stride = (source.choice([0, 1]), source.choice([0, 1, 3]), 1)
        operand = Operand(Source.STATE, 0, 60, stride, shift, 0x40490FDB, guards)
        masked = Operand(Source.INDEX, 0, 0, (3, -1, 2), 4, 0xFFFFFFFF, guards[:1])
        step = Operand(Source.STEP, 0, 0, (0, 0, 0), 0, 5, guards[:1])
        operators.append(Operator(Body.COPY, FLOAT, (4, 3, 3), (operand,)))
        operators.append(Operator(Body.FOLD_ADD, FLOAT, (4,), (operand,), (3, 3)))
        operators.append(Operator(Body.IADD, INT, (4, 3, 3), (masked, step)))
    run = section_of(operators, state)
    for operator, output in zip(operators, run.outputs, strict=True):
        assert_elements_agree(run, operator, output, list(range(operator.elements)))


def test_partial_sums_end_in_the_element_and_only_folds_have_them() -> None:
    fold = Operator(Body.FOLD_ADD, FLOAT, (2,), (Operand(Source.STATE, 0, 8, (4, 1)),), (4,))
    run = section_of([fold], [np.array([1, 2, 3, 4, 5, 6, 7, 8], np.float32)])
    sums = list(partial_sums(fold, 1, run.read, run.inputs.context))
    assert np.array(sums, np.uint32).view(np.float32).tolist() == [5, 11, 18, 26]
    copy = Operator(Body.COPY, FLOAT, (8,), (Operand(Source.STATE, 0, 8, (1,)),))
    with pytest.raises(ProgramError, match="no fold"):
        next(partial_sums(copy, 0, run.read, run.inputs.context))


@pytest.mark.parametrize("kind", ["transformer", "convolutional"])
def test_random_elements_of_a_training_step_agree(kind: str) -> None:
    torch.manual_seed(1)
    if kind == "transformer":
        module, loss, data = Transformer(dropout=0.2), next_token_loss, (token_data(11, 8, 6), token_data(11, 8, 6))
    else:
        module, loss, data = ConvNet(), "cross_entropy", (uniform_data(6, 2, 9, 9), token_data(5, 6))
    task = trace(module, loss, AdamW(0.01, clip_norm=1.0), tuple(d[:4] for d in data), data[0].shape[0])
    program = lower_step(task.graph)
    run = run_section(program, Role.STEP, Inputs(task.initial_state, as_arrays(*data), StepContext(3, 2)))
    source = random.Random(8)
    for operator, output in zip(program.sections[0].operators, run.outputs, strict=True):
        elements = [source.randrange(operator.elements) for _ in range(1 if operator.terms > 200 else 3)]
        assert_elements_agree(run, operator, output, elements)
