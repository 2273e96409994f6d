"""Convolutions in any number of spatial dimensions, with stride, padding, dilation and groups.

Forward: a fold over (channel, kernel) with guards for the padding. The input's gradient: a fold over (output channel,
kernel) whose guards divide by the stride. The weight's gradient: a fold over (sample, output position).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assay.program.lowering import view as views
from assay.program.lowering.builder import FLOAT, Builder
from assay.program.lowering.registry import lowers
from assay.program.lowering.view import View
from assay.program.operator import Body


@dataclass(frozen=True)
class Geometry:
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def rank(self) -> int:
        return len(self.stride)


def _geometry(
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    groups: int,
    rank: int,
) -> Geometry:
    if transposed:
        raise ValueError("a transposed convolution")

    def every(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(values) * rank if len(values) == 1 else tuple(values)

    return Geometry(every(stride), every(padding), every(dilation), groups)


def windows(
    b: Builder, x: View, first: int, outputs: Sequence[int], kernel: Sequence[int], shape: Geometry, fill: int = 0
) -> View:
    """Spatial dimensions first.. of x become (output position, kernel position) pairs, at o * stride + k * dilation -
    padding."""
    for axis in range(shape.rank):
        x = b.remap(
            x,
            first + 2 * axis,
            (outputs[axis], kernel[axis]),
            (shape.stride[axis], shape.dilation[axis]),
            -shape.padding[axis],
            1,
            fill,
        )
    return x


def inverse_windows(
    b: Builder, y: View, first: int, inputs: Sequence[int], kernel: Sequence[int], shape: Geometry, fill: int = 0
) -> View:
    """Spatial dimensions first.. of an output become (input position, kernel position) pairs: the output position
    whose window has that input there, (i + padding - k * dilation) / stride, where there is one."""
    for axis in range(shape.rank):
        y = b.remap(
            y,
            first + 2 * axis,
            (inputs[axis], kernel[axis]),
            (1, -shape.dilation[axis]),
            shape.padding[axis],
            shape.stride[axis],
            fill,
        )
    return y


def _pairs(first: int, rank: int) -> tuple[list[int], list[int]]:
    """Places of the first and second members of `rank` interleaved pairs from `first` on."""
    return [first + 2 * axis for axis in range(rank)], [first + 2 * axis + 1 for axis in range(rank)]


def _grouped(b: Builder, view: View, place: int, groups: int) -> View:
    """A channel dimension as (group, channel within it)."""
    return b.reshape(view, (*view.shape[:place], groups, view.shape[place] // groups, *view.shape[place + 1 :]))


@lowers("aten.convolution.default")
def convolution(
    b: Builder,
    x: View,
    weight: View,
    bias: View | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> View:
    rank = x.rank - 2
    shape = _geometry(stride, padding, dilation, transposed, groups, rank)
    kernel = weight.shape[2:]
    outputs = _outputs(x.shape[2:], kernel, shape)
    samples, channels_out = x.shape[0], weight.shape[0]
    # x: (n, g, c, (o, k)...) to loops (n, g, m, o... | c, k...), with m the output channel within its group.
    seen = windows(b, _grouped(b, x, 1, groups), 3, outputs, kernel, shape)
    positions, taps = _pairs(3, rank)
    left = views.insert(views.permute(seen, [0, 1, *positions, 2, *taps]), 2, channels_out // groups)
    right = _grouped(b, weight, 0, groups)  # (g, m, c, k...)
    right = views.insert(right, 0, samples)
    for axis, extent in enumerate(outputs):
        right = views.insert(right, 3 + axis, extent)
    outer = (samples, groups, channels_out // groups, *outputs)
    result = b.emit(Body.FOLD_FMA, FLOAT, [left, right], outer, (weight.shape[1], *kernel))
    result = views.reshape(result, (samples, channels_out, *outputs))
    if bias is None:
        return result
    return b.apply(Body.ADD, result, views.reshape(bias, (channels_out, *(1,) * rank)))


def _outputs(inputs: Sequence[int], kernel: Sequence[int], shape: Geometry) -> tuple[int, ...]:
    return tuple(
        (extent + 2 * p - d * (k - 1) - 1) // s + 1
        for extent, k, s, p, d in zip(inputs, kernel, shape.stride, shape.padding, shape.dilation, strict=True)
    )


@lowers("aten.convolution_backward.default")
def convolution_backward(
    b: Builder,
    gradient: View,
    x: View,
    weight: View,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    mask: Sequence[bool],
) -> tuple[View | None, View | None, View | None]:
    rank = x.rank - 2
    shape = _geometry(stride, padding, dilation, transposed, groups, rank)
    return (
        _input_gradient(b, gradient, x, weight, shape) if mask[0] else None,
        _weight_gradient(b, gradient, x, weight, shape) if mask[1] else None,
        b.reduce(Body.FOLD_ADD, [gradient], [0, *range(2, gradient.rank)]) if mask[2] else None,
    )


def _input_gradient(b: Builder, gradient: View, x: View, weight: View, shape: Geometry) -> View:
    rank, groups, kernel = shape.rank, shape.groups, weight.shape[2:]
    within = weight.shape[1]
    # gradient: (n, g, m, (i, k)...) to loops (n, g, c, i... | m, k...)
    seen = inverse_windows(b, _grouped(b, gradient, 1, groups), 3, x.shape[2:], kernel, shape)
    positions, taps = _pairs(3, rank)
    left = views.insert(views.permute(seen, [0, 1, *positions, 2, *taps]), 2, within)
    right = _grouped(b, weight, 0, groups)  # (g, m, c, k...)
    right = views.permute(right, [0, 2, 1, *range(3, 3 + rank)])
    right = views.insert(right, 0, x.shape[0])
    for axis, extent in enumerate(x.shape[2:]):
        right = views.insert(right, 3 + axis, extent)
    outer = (x.shape[0], groups, within, *x.shape[2:])
    result = b.emit(Body.FOLD_FMA, FLOAT, [left, right], outer, (weight.shape[0] // groups, *kernel))
    return views.reshape(result, x.shape)


def _weight_gradient(b: Builder, gradient: View, x: View, weight: View, shape: Geometry) -> View:
    rank, groups, kernel = shape.rank, shape.groups, weight.shape[2:]
    outputs = gradient.shape[2:]
    per_group = weight.shape[0] // groups
    # loops (g, m, c, k... | n, o...)
    seen = windows(b, _grouped(b, x, 1, groups), 3, outputs, kernel, shape)
    positions, taps = _pairs(3, rank)
    left = views.insert(views.permute(seen, [1, 2, *taps, 0, *positions]), 1, per_group)
    right = views.permute(_grouped(b, gradient, 1, groups), [1, 2, 0, *range(3, 3 + rank)])
    for axis, extent in enumerate((weight.shape[1], *kernel)):
        right = views.insert(right, 2 + axis, extent)
    outer = (groups, per_group, weight.shape[1], *kernel)
    # The gradient first: it has the same row of an implicit matrix product as the weight.
    result = b.emit(Body.FOLD_FMA, FLOAT, [right, left], outer, (x.shape[0], *outputs))
    return views.reshape(result, weight.shape)
