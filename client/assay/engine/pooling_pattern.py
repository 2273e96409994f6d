"""Recognising the input gradient of max pooling: a fold over the windows that hold an element, which adds the
gradients of those whose maximum it was."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from assay.program.operator import Body, Guard, Operand, Operator, Source


@dataclass(frozen=True)
class PoolingGradient:
    """dx[plane, h, v] = fold over (kh, kw), where i = (h + p - kh*d) / s and j are integers inside the output, of
    dy[plane, i, j] if number[plane, i, j] == kh * kernel[1] + kw. Operands 0 (numbers) and 2 (dy) are contiguous."""

    planes: int
    height: int
    width: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


def _axis(guard: Guard, outer: int, inner: int) -> bool:
    """Whether the guard maps input place `outer` and kernel place `inner` to an output place."""
    others = [each for i, each in enumerate(guard.stride) if i not in (outer, inner)]
    return guard.stride[outer] == 1 and guard.stride[inner] < 0 and not any(others)


def recognise_pooling_gradient(operator: Operator) -> PoolingGradient | None:
    """The gradient of max pooling that a fold is, or None."""
    rank = len(operator.extents)
    if operator.body != Body.FOLD_ADD_IF or rank not in (2, 3) or len(operator.reduced) != 2:
        return None
    chosen, number, value = operator.operands
    height, width = operator.extents[-2:]
    planes = prod(operator.extents[:-2])
    kernel = (operator.reduced[0], operator.reduced[1])
    expected_number = (*(0,) * rank, kernel[1], 1)
    if number.source != Source.INDEX or number.stride != expected_number or number.offset or number.guards:
        return None
    guards = sorted(chosen.guards, key=lambda guard: -guard.multiplier)
    if len(guards) != 2 or not (_axis(guards[0], rank - 2, rank) and _axis(guards[1], rank - 1, rank + 1)):
        return None
    rows, columns = guards
    plane = rows.bound * columns.bound
    if (rows.multiplier, columns.multiplier) != (columns.bound, 1):
        return None

    def contiguous(operand: Operand, fill: int) -> bool:
        strides = (*((plane,) if rank == 3 else ()), 0, 0, 0, 0)
        return (
            operand.source != Source.IMMEDIATE
            and operand.stride == strides
            and sorted(operand.guards, key=lambda guard: -guard.multiplier) == guards
            and operand.fill == fill
            and 0 <= operand.offset <= operand.count - planes * plane
        )

    # A place without a window reads -1 as its number, which equals none, so the other fill is never added.
    if not contiguous(chosen, 0xFFFFFFFF) or not contiguous(value, value.fill):
        return None
    return PoolingGradient(
        planes,
        height,
        width,
        rows.bound,
        columns.bound,
        kernel,
        (rows.divisor, columns.divisor),
        (rows.offset, columns.offset),
        (-rows.stride[rank], -columns.stride[rank + 1]),
    )
