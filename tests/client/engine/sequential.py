"""The specification's folds as naive scalar loops, one rounding at a time, to hold the fast kernels to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from assay.engine.cpu.vector import fma

Floats = npt.NDArray[np.float32]

SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754944e-38, 3e-39, 3.4028235e38, -1e-30, 1e30,
     1.0000001, 0.99999994],
    np.float32,
)  # fmt: skip


def same_bits(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> bool:
    """Equal bit for bit, all NaNs counting as one."""
    both_nan = np.isnan(found) & np.isnan(expected)
    return found.shape == expected.shape and bool(np.all(both_nan | (found.view(np.int32) == expected.view(np.int32))))


def random_floats(shape: Any, seed: int, special: float = 0.0) -> Floats:
    """Normal values of mixed magnitude; a fraction `special` of them is replaced by special values."""
    generator = np.random.default_rng(seed)
    values = (generator.standard_normal(shape) * 2.0 ** generator.integers(-4, 5, shape)).astype(np.float32)
    chosen = generator.random(shape) < special
    values[chosen] = generator.choice(SPECIAL, int(chosen.sum()))
    return values


@njit
def product(a: Any, b: Any, c: Any) -> None:
    """c = a @ b by sequential fused folds."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            accumulator = np.float32(0)
            for k in range(a.shape[1]):
                accumulator = fma(a[i, k], b[k, j], accumulator)
            c[i, j] = accumulator


def _spread(values: Floats, stride: tuple[int, int]) -> Floats:
    """Rows and columns of images `stride` apart, +0 between them."""
    spread = np.zeros((*values.shape[:2], *((n - 1) * s + 1 for n, s in zip(values.shape[2:], stride, strict=True))))
    spread[:, :, :: stride[0], :: stride[1]] = values
    return spread.astype(np.float32)


@njit
def _windows(image: Any, w: Any, out: Any, origin: Any, dilation: Any, step: Any, sign: int) -> None:
    """out[n, m, i, j] = fold over (c, kh, kw) of fma(image or +0, w[m, c, kh, kw], .), every term executed."""
    for n in range(out.shape[0]):
        for m in range(out.shape[1]):
            for i in range(out.shape[2]):
                for j in range(out.shape[3]):
                    accumulator = np.float32(0)
                    for c in range(w.shape[1]):
                        for kh in range(w.shape[2]):
                            for kw in range(w.shape[3]):
                                h = i * step[0] + origin[0] + sign * kh * dilation[0]
                                v = j * step[1] + origin[1] + sign * kw * dilation[1]
                                inside = 0 <= h < image.shape[2] and 0 <= v < image.shape[3]
                                x = image[n, c, h, v] if inside else np.float32(0)
                                accumulator = fma(x, w[m, c, kh, kw], accumulator)
                    out[n, m, i, j] = accumulator


@njit
def _window_gradient(x: Any, dy: Any, dw: Any, padding: Any, dilation: Any, stride: Any) -> None:
    for o in range(dw.shape[0]):
        for c in range(dw.shape[1]):
            for kh in range(dw.shape[2]):
                for kw in range(dw.shape[3]):
                    accumulator = np.float32(0)
                    for n in range(dy.shape[0]):
                        for i in range(dy.shape[2]):
                            for j in range(dy.shape[3]):
                                h = i * stride[0] + kh * dilation[0] - padding[0]
                                v = j * stride[1] + kw * dilation[1] - padding[1]
                                inside = 0 <= h < x.shape[2] and 0 <= v < x.shape[3]
                                value = x[n, c, h, v] if inside else np.float32(0)
                                accumulator = fma(value, dy[n, o, i, j], accumulator)
                    dw[o, c, kh, kw] = accumulator


def convolution(shape: Any, x: Floats, w: Floats) -> Floats:
    """Forward convolution; `shape` is an `assay.engine.cpu.convolution.Convolution`."""
    y = np.empty(shape.y_shape, np.float32)
    outs, ins = shape.out_channels // shape.groups, shape.in_channels // shape.groups
    origin = (-shape.padding[0], -shape.padding[1])
    for g in range(shape.groups):
        o, c = slice(g * outs, (g + 1) * outs), slice(g * ins, (g + 1) * ins)
        _windows(x[:, c], w[o], y[:, o], origin, shape.dilation, shape.stride, 1)
    return y


def convolution_input_gradient(shape: Any, dy: Floats, w: Floats) -> Floats:
    """dx, every term executed, those between the rows of dy included."""
    dx = np.empty(shape.x_shape, np.float32)
    spread = _spread(dy, shape.stride)
    outs, ins = shape.out_channels // shape.groups, shape.in_channels // shape.groups
    for g in range(shape.groups):
        o, c = slice(g * outs, (g + 1) * outs), slice(g * ins, (g + 1) * ins)
        turned = np.ascontiguousarray(w[o].transpose(1, 0, 2, 3))
        _windows(spread[:, o], turned, dx[:, c], shape.padding, shape.dilation, (1, 1), -1)
    return dx


def convolution_weight_gradient(shape: Any, x: Floats, dy: Floats) -> Floats:
    """dw, padded positions included."""
    dw = np.empty(shape.w_shape, np.float32)
    outs, ins = shape.out_channels // shape.groups, shape.in_channels // shape.groups
    for g in range(shape.groups):
        o, c = slice(g * outs, (g + 1) * outs), slice(g * ins, (g + 1) * ins)
        _window_gradient(x[:, c], dy[:, o], dw[o], shape.padding, shape.dilation, shape.stride)
    return dw
