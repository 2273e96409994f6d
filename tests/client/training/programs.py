"""A small hand-made training program: linear regression by stochastic gradient descent with momentum."""

from __future__ import annotations

import numpy as np

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
)
from assay.training.task import TrainingTask

FLOAT, INT = ElementType.FLOAT, ElementType.INT
SAMPLES, FEATURES, BATCH = 20, 6, 4


def _number(value: float, rank: int) -> Operand:
    return Operand(Source.IMMEDIATE, float_bits(value), 0, (0,) * rank)


def regression_program() -> Program:
    """State: weights and momentum, FEATURES each. Data: inputs and targets."""

    def op(index: int, count: int, stride: tuple[int, ...]) -> Operand:
        return Operand(Source.OPERATOR, index, count, stride)

    def state(index: int) -> Operand:
        return Operand(Source.STATE, index, FEATURES, (1,))

    rows = BATCH * FEATURES
    inputs = Operand(Source.DATA, 0, SAMPLES * FEATURES, (0, 1))
    targets = Operand(Source.DATA, 1, SAMPLES, (0,))
    operators = (
        Operator(Body.PERMUTE, INT, (BATCH,), (), p0=BATCH, p1=SAMPLES),
        Operator(Body.GATHER, FLOAT, (BATCH, FEATURES), (inputs, op(0, BATCH, (1, 0))), p0=FEATURES, p1=SAMPLES),
        Operator(Body.GATHER, FLOAT, (BATCH,), (targets, op(0, BATCH, (1,))), p0=1, p1=SAMPLES),
        Operator(
            Body.FOLD_FMA,
            FLOAT,
            (BATCH,),
            (op(1, rows, (FEATURES, 1)), Operand(Source.STATE, 0, FEATURES, (0, 1))),
            (FEATURES,),
        ),
        Operator(Body.SUB, FLOAT, (BATCH,), (op(3, BATCH, (1,)), op(2, BATCH, (1,)))),
        Operator(Body.FOLD_FMA, FLOAT, (), (op(4, BATCH, (1,)), op(4, BATCH, (1,))), (BATCH,)),
        Operator(Body.FOLD_FMA, FLOAT, (FEATURES,), (op(1, rows, (1, FEATURES)), op(4, BATCH, (0, 1))), (BATCH,)),
        Operator(Body.FMA, FLOAT, (FEATURES,), (state(1), _number(0.9, 1), op(6, FEATURES, (1,)))),
        Operator(Body.FMA, FLOAT, (FEATURES,), (op(7, FEATURES, (1,)), _number(-0.01, 1), state(0))),
    )
    section = Section(Role.STEP, operators, (StateEntry(8), StateEntry(7)))
    return Program(
        (TensorDescriptor("weight", FLOAT, (FEATURES,)), TensorDescriptor("momentum", FLOAT, (FEATURES,))),
        (TensorDescriptor("inputs", FLOAT, (SAMPLES, FEATURES)), TensorDescriptor("targets", FLOAT, (SAMPLES,))),
        (),
        (section,),
        loss=5,
    )


def regression_task(steps: int = 25, interval: int = 4) -> TrainingTask:
    generator = np.random.default_rng(7)
    inputs = generator.standard_normal((SAMPLES, FEATURES)).astype(np.float32)
    truth = generator.standard_normal(FEATURES).astype(np.float32)
    state = (np.zeros(FEATURES, np.float32), np.zeros(FEATURES, np.float32))
    return TrainingTask(regression_program(), state, (inputs, inputs @ truth), 5, steps, interval)
