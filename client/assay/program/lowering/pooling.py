"""Maximum and average pooling, and upsampling by repetition, in two dimensions (PyTorch's 1D pooling arrives as 2D)."""

from __future__ import annotations

from collections.abc import Sequence

from assay.program.lowering import view as views
from assay.program.lowering.builder import FLOAT, INT, NEGATIVE_INFINITY, Builder
from assay.program.lowering.convolution import Geometry, inverse_windows, windows
from assay.program.lowering.registry import lowers
from assay.program.lowering.view import View
from assay.program.operator import Body


def _two(values: Sequence[int], default: Sequence[int] = ()) -> tuple[int, int]:
    values = values or default
    return (values[0], values[0]) if len(values) == 1 else (values[0], values[1])


def _planes(x: View) -> tuple[View, bool]:
    """x as (n, c, h, w), and whether it had no samples dimension."""
    return (views.insert(x, 0), True) if x.rank == 3 else (x, False)


def _outputs(inputs: Sequence[int], kernel: Sequence[int], shape: Geometry, ceil: bool) -> tuple[int, ...]:
    sizes = []
    for extent, k, s, p, d in zip(inputs, kernel, shape.stride, shape.padding, shape.dilation, strict=True):
        reach = extent + 2 * p - d * (k - 1) - 1
        size = (-(-reach // s) if ceil else reach // s) + 1
        if ceil and (size - 1) * s >= extent + p:
            size -= 1  # a window must begin inside the input or its left padding
        sizes.append(size)
    return tuple(sizes)


@lowers("aten.max_pool2d_with_indices.default")
def max_pool(
    b: Builder,
    x: View,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil: bool = False,
) -> tuple[View, View]:
    """The maximum of each window, and the number within the window (not PyTorch's index within the plane) of its first
    maximum, which only the backward pass reads."""
    x, single = _planes(x)
    taps = _two(kernel)
    shape = Geometry(_two(stride, taps), _two(padding), _two(dilation), 1)
    outputs = _outputs(x.shape[2:], taps, shape, ceil)
    seen = windows(b, x, 2, outputs, taps, shape, NEGATIVE_INFINITY)
    seen = views.permute(seen, [0, 1, 2, 4, 3, 5])
    outer = seen.shape[:4]
    largest = b.emit(Body.FOLD_MAX, FLOAT, [seen], outer, taps)
    where = b.emit(Body.FOLD_ARGMAX, INT, [seen], outer, taps)
    return (views.squeeze(largest, 0), views.squeeze(where, 0)) if single else (largest, where)


@lowers("aten.max_pool2d_with_indices_backward.default")
def max_pool_backward(
    b: Builder,
    gradient: View,
    x: View,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil: bool,
    where: View,
) -> View:
    x, single = _planes(x)
    gradient, where = _planes(gradient)[0], _planes(where)[0]
    taps = _two(kernel)
    shape = Geometry(_two(stride, taps), _two(padding), _two(dilation), 1)
    order = [0, 1, 2, 4, 3, 5]
    chosen = views.permute(inverse_windows(b, where, 2, x.shape[2:], taps, shape, 0xFFFFFFFF), order)
    change = views.permute(inverse_windows(b, gradient, 2, x.shape[2:], taps, shape), order)
    number = views.iota((*x.shape, *taps), (0, 0, 0, 0, taps[1], 1))
    result = b.emit(Body.FOLD_ADD_IF, FLOAT, [chosen, number, change], x.shape, taps)
    return views.squeeze(result, 0) if single else result


def _divisor(taps: tuple[int, int], padding: tuple[int, int], include: bool, override: int | None) -> float:
    if not include and any(padding):
        raise ValueError("average pooling that leaves padding out of the count; use count_include_pad=True")
    return float(override or taps[0] * taps[1])


@lowers("aten.avg_pool2d.default")
def avg_pool(
    b: Builder,
    x: View,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> View:
    if ceil:
        raise ValueError("average pooling with ceil_mode; pad the input instead")
    x, single = _planes(x)
    taps = _two(kernel)
    shape = Geometry(_two(stride, taps), _two(padding), (1, 1), 1)
    outputs = _outputs(x.shape[2:], taps, shape, False)
    seen = views.permute(windows(b, x, 2, outputs, taps, shape), [0, 1, 2, 4, 3, 5])
    total = b.emit(Body.FOLD_ADD, FLOAT, [seen], seen.shape[:4], taps)
    divisor = _divisor(taps, _two(padding), count_include_pad, divisor_override)
    result = b.apply(Body.MUL, total, 1.0 / divisor)
    return views.squeeze(result, 0) if single else result


@lowers("aten.avg_pool2d_backward.default")
def avg_pool_backward(
    b: Builder,
    gradient: View,
    x: View,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> View:
    x, single = _planes(x)
    gradient = _planes(gradient)[0]
    taps = _two(kernel)
    shape = Geometry(_two(stride, taps), _two(padding), (1, 1), 1)
    change = inverse_windows(b, gradient, 2, x.shape[2:], taps, shape)
    change = views.permute(change, [0, 1, 2, 4, 3, 5])
    total = b.emit(Body.FOLD_ADD, FLOAT, [change], x.shape, taps)
    result = b.apply(Body.MUL, total, 1.0 / _divisor(taps, _two(padding), count_include_pad, divisor_override))
    return views.squeeze(result, 0) if single else result


def _even(inputs: Sequence[int], outputs: Sequence[int]) -> tuple[int, int]:
    if any(i % o for i, o in zip(inputs, outputs, strict=True)):
        raise ValueError(
            f"adaptive pooling from {tuple(inputs)} to {tuple(outputs)}; use sizes that divide the input's"
        )
    return inputs[0] // outputs[0], inputs[1] // outputs[1]


@lowers("aten._adaptive_avg_pool2d.default")
def adaptive_avg_pool(b: Builder, x: View, outputs: Sequence[int]) -> View:
    return avg_pool(b, x, _even(x.shape[-2:], outputs))


@lowers("aten._adaptive_avg_pool2d_backward.default")
def adaptive_avg_pool_backward(b: Builder, gradient: View, x: View) -> View:
    kernel = _even(x.shape[-2:], gradient.shape[-2:])
    return avg_pool_backward(b, gradient, x, kernel, (), (0,), False, True, None)


@lowers("aten.upsample_nearest2d.default")
def upsample(
    b: Builder, x: View, outputs: Sequence[int], scale_h: float | None = None, scale_w: float | None = None
) -> View:
    rows, columns = _even(outputs, x.shape[2:])
    wide = views.insert(views.insert(x, 3, rows), 5, columns)
    return b.reshape(wide, (*x.shape[:2], *outputs))


@lowers("aten.upsample_nearest2d_backward.default")
def upsample_backward(
    b: Builder,
    gradient: View,
    outputs: Sequence[int],
    inputs: Sequence[int],
    scale_h: float | None = None,
    scale_w: float | None = None,
) -> View:
    kernel = _even(gradient.shape[-2:], inputs[2:])
    return avg_pool(b, gradient, kernel, divisor_override=1)
