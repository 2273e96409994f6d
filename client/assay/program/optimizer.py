"""Optimizers, learning-rate schedules and clipping as plain data.

The update rules are those of `torch.optim.SGD` and `torch.optim.AdamW` (decoupled weight decay: Loshchilov and Hutter,
ICLR 2019) and of `torch.nn.utils.clip_grad_norm_`. Powers of beta are carried as state, by multiplication.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from math import cos, pi
from typing import Literal

from assay.program.errors import UnsupportedError


@dataclass(frozen=True)
class Constant:
    """The same learning rate at every step."""

    rate: float

    def __post_init__(self) -> None:
        _positive("learning rate", self.rate)


@dataclass(frozen=True)
class WarmupCosine:
    """Linear warm-up, then half a cosine down to `final` (SGDR without restarts: Loshchilov and Hutter, ICLR 2017).

    Step g (from 0) has rate `peak * (g + 1) / warmup` while g < warmup, then
    `final + (peak - final) / 2 * (1 + cos(pi * min(1, (g - warmup) / (total - warmup))))`.
    """

    peak: float
    warmup: int
    total: int
    final: float = 0.0

    def __post_init__(self) -> None:
        _positive("peak learning rate", self.peak)
        if not 0 <= self.warmup < self.total < 2**24:
            raise UnsupportedError(
                f"warm-up of {self.warmup} steps in {self.total}: choose 0 <= warmup < total, and total below 2^24"
            )
        if not 0 <= self.final <= self.peak:
            raise UnsupportedError(f"final learning rate {self.final}: choose one from 0 to the peak, {self.peak}")


Schedule = Constant | WarmupCosine


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, as `torch.optim.SGD` with dampening 0."""

    rate: Schedule | float
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    clip_norm: float | None = None  # of the gradients of all parameters together

    def __post_init__(self) -> None:
        schedule_of(self)
        _within("momentum", self.momentum, 0.0, 1.0)
        _within("weight decay", self.weight_decay, 0.0, 1e6)
        _clip(self.clip_norm)
        if self.nesterov and self.momentum == 0:
            raise UnsupportedError("nesterov momentum needs a momentum above 0")


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay, as `torch.optim.AdamW` without amsgrad.

    `decay` says which parameters the weight decay applies to: `all`, or `matrices` (those with two or more dimensions,
    the custom for transformers).
    """

    rate: Schedule | float
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    decay: Literal["all", "matrices"] = "all"
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        schedule_of(self)
        for name, beta in zip(("first beta", "second beta"), self.betas, strict=True):
            _within(name, beta, 0.0, 1.0)
        _positive("epsilon", self.epsilon)
        _within("weight decay", self.weight_decay, 0.0, 1e6)
        _clip(self.clip_norm)
        if self.decay not in ("all", "matrices"):
            raise UnsupportedError(f"decay is {self.decay!r}: choose 'all' or 'matrices'")


Optimizer = SGD | AdamW

# Names of the optimizer's own state tensors: a prefix before the parameter's name, or a name of their own.
MOMENTUM, FIRST_MOMENT, SECOND_MOMENT = MOMENT_PREFIXES = ("momentum.", "first_moment.", "second_moment.")
BETA_POWERS = ("beta1_power", "beta2_power")

GRADIENT_ERROR = "gradient_error."
"""Of declared replicas' compressed gradients: what was not said yet. Then the replica's number, a dot, the parameter's
name."""


def is_optimizer_state(name: str, names: Collection[str]) -> bool:
    """Whether one of a state's tensors is its optimizer's and not the model's, by the names of all of them: a model may
    have names that begin like an optimizer's."""
    if name in BETA_POWERS:
        return True
    if name.startswith(GRADIENT_ERROR):
        return name.removeprefix(GRADIENT_ERROR).partition(".")[2] in names
    return any(name.startswith(prefix) and name.removeprefix(prefix) in names for prefix in MOMENT_PREFIXES)


def schedule_of(optimizer: Optimizer) -> Schedule:
    """The optimizer's schedule, a plain number being a constant one."""
    return Constant(optimizer.rate) if isinstance(optimizer.rate, int | float) else optimizer.rate


def learning_rate(schedule: Schedule, step: int) -> float:
    """The rate of a global step in binary64, as a user's own loop would compute it (the canonical run follows the
    same formula in binary32)."""
    if isinstance(schedule, Constant):
        return schedule.rate
    if step < schedule.warmup:
        return schedule.peak * (step + 1) / schedule.warmup
    progress = min(1.0, (step - schedule.warmup) / (schedule.total - schedule.warmup))
    return schedule.final + (schedule.peak - schedule.final) / 2 * (1 + cos(pi * progress))


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise UnsupportedError(f"{name} is {value}: choose a finite number above 0")


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value < high:
        raise UnsupportedError(f"{name} is {value}: choose one from {low} to below {high}")


def _clip(norm: float | None) -> None:
    if norm is not None:
        _positive("clipping norm", norm)
