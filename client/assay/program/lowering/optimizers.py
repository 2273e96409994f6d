"""Learning rate, clipping and the optimizers' updates (formulas in `assay.program.optimizer`)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from assay.program.lowering.builder import FLOAT, INT, Builder
from assay.program.lowering.registry import lowers
from assay.program.lowering.view import View
from assay.program.operator import Body, Operand, Source

CLIP_EPSILON = 1e-6  # as torch.nn.utils.clip_grad_norm_


def step_number() -> View:
    """The global step number, int32."""
    return View(INT, (), Operand(Source.STEP, 0, 0, ()))


@lowers("assay.step_number")
def step_number_call(b: Builder) -> View:
    return step_number()


@lowers("assay.learning_rate")
def learning_rate(b: Builder, kind: str, *values: float, step: View | None = None) -> View:
    """The schedule's rate at the global step, or at the step number given."""
    if kind == "constant":
        (constant,) = values
        return b.number(constant)
    if kind != "warmup_cosine":
        raise ValueError(f"learning-rate schedule {kind!r}; 'constant' and 'warmup_cosine' exist")
    peak, warmup, total, final = values
    step = step_number() if step is None else step
    begun = b.apply(Body.TO_FLOAT, b.apply(Body.ISUB, step, int(warmup)))
    progress = b.apply(Body.MIN, b.apply(Body.MUL, begun, 1.0 / (total - warmup)), 1.0)
    wave = b.apply(Body.ADD, b.apply(Body.COS, b.apply(Body.MUL, progress, math.pi)), 1.0)
    rate = b.apply(Body.FMA, wave, (peak - final) / 2, float(final))
    if warmup == 0:
        return rate
    rising = b.apply(Body.MUL, b.apply(Body.TO_FLOAT, b.apply(Body.IADD, step, 1)), peak / warmup)
    return b.apply(Body.SELECT, b.apply(Body.ILT, step, int(warmup)), rising, rate, kind=FLOAT)


@lowers("assay.clip")
def clip(b: Builder, norm: float, gradients: Sequence[View]) -> tuple[View, ...]:
    """All gradients times min(1, norm / (their joint norm + 1e-6))."""
    total: View | None = None
    for gradient in gradients:
        squares = b.reduce(Body.FOLD_FMA, [gradient, gradient], list(range(gradient.rank)))
        total = squares if total is None else b.apply(Body.ADD, total, squares)
    if total is None:
        raise ValueError("no gradients to clip")
    shifted = b.apply(Body.ADD, b.apply(Body.SQRT, total), CLIP_EPSILON)
    factor = b.apply(Body.MIN, b.apply(Body.DIV, float(norm), shifted), 1.0)
    return tuple(b.apply(Body.MUL, gradient, factor) for gradient in gradients)


@lowers("assay.sgd")
def sgd(
    b: Builder,
    parameters: Sequence[View],
    gradients: Sequence[View],
    momenta: Sequence[View],
    rate: View,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> tuple[View, ...]:
    new_parameters, new_momenta = [], []
    downwards = b.apply(Body.NEG, rate)
    for place, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        change = gradient
        if weight_decay:
            change = b.apply(Body.FMA, parameter, weight_decay, change)
        if momentum:
            moved = b.apply(Body.FMA, momenta[place], momentum, change)
            new_momenta.append(moved)
            change = b.apply(Body.FMA, moved, momentum, change) if nesterov else moved
        new_parameters.append(b.apply(Body.FMA, change, downwards, parameter))
    return (*new_parameters, *new_momenta)


@lowers("assay.beta_powers")
def beta_powers(b: Builder, first: View, second: View, beta1: float, beta2: float) -> tuple[View, View]:
    """beta^t by multiplication: what bias corrections need, without a power function."""
    return b.apply(Body.MUL, first, beta1), b.apply(Body.MUL, second, beta2)


@lowers("assay.adamw")
def adamw(
    b: Builder,
    parameters: Sequence[View],
    gradients: Sequence[View],
    first_moments: Sequence[View],
    second_moments: Sequence[View],
    first_power: View,
    second_power: View,
    rate: View,
    beta1: float,
    beta2: float,
    epsilon: float,
    weight_decay: float,
) -> tuple[View, ...]:
    # Scalars of the step: -rate / (1 - beta1^t), 1 / sqrt(1 - beta2^t), 1 - rate * decay.
    downwards = b.apply(Body.NEG, b.apply(Body.DIV, rate, b.apply(Body.SUB, 1.0, first_power)))
    correction = b.apply(Body.DIV, 1.0, b.apply(Body.SQRT, b.apply(Body.SUB, 1.0, second_power)))
    kept = b.apply(Body.FMA, rate, -weight_decay, 1.0) if weight_decay else None
    results: tuple[list[View], list[View], list[View]] = ([], [], [])
    for parameter, gradient, first, second in zip(parameters, gradients, first_moments, second_moments, strict=True):
        moment = b.apply(Body.FMA, gradient, 1.0 - beta1, b.apply(Body.MUL, first, beta1))
        squared = b.apply(Body.MUL, gradient, gradient)
        spread = b.apply(Body.FMA, squared, 1.0 - beta2, b.apply(Body.MUL, second, beta2))
        scale = b.apply(Body.FMA, b.apply(Body.SQRT, spread), correction, epsilon)
        base = parameter if kept is None else b.apply(Body.MUL, parameter, kept)
        moved = b.apply(Body.FMA, b.apply(Body.DIV, moment, scale), downwards, base)
        for group, value in zip(results, (moved, moment, spread), strict=True):
            group.append(value)
    return tuple(value for group in results for value in group)
