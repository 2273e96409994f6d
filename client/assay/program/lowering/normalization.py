"""Layer, batch and RMS normalization, forward and backward.

With x^ = (x - mean) / sigma over n elements and g the gradient times the weight, the input's gradient is
(g - sum(g) / n - x^ * sum(g x^) / n) / sigma (Ioffe and Szegedy, 2015; Ba, Kiros and Hinton, 2016).
"""

from __future__ import annotations

from collections.abc import Sequence

from assay.program.lowering import view as views
from assay.program.lowering.builder import Builder
from assay.program.lowering.products import mean_over
from assay.program.lowering.registry import lowers
from assay.program.lowering.view import View
from assay.program.operator import Body


def _statistics(b: Builder, x: View, places: Sequence[int], epsilon: float) -> tuple[View, View, View]:
    """(mean, variance with divisor n, 1 / sqrt(variance + epsilon)), the reduced dimensions kept with extent 1."""
    centre = mean_over(b, x, places, True)
    difference = b.apply(Body.SUB, x, centre)
    squares = b.reduce(Body.FOLD_FMA, [difference, difference], places, True)
    variance = b.apply(Body.MUL, squares, squares.count / x.count)
    inverse = b.apply(Body.DIV, 1.0, b.apply(Body.SQRT, b.apply(Body.ADD, variance, float(epsilon))))
    return centre, variance, inverse


def _normalized(b: Builder, x: View, centre: View, inverse: View) -> View:
    return b.apply(Body.MUL, b.apply(Body.SUB, x, centre), inverse)


def _affine(b: Builder, x: View, weight: View | None, bias: View | None) -> View:
    if weight is None:
        return x if bias is None else b.apply(Body.ADD, x, bias)
    return b.apply(Body.MUL, x, weight) if bias is None else b.apply(Body.FMA, x, weight, bias)


def _input_gradient(b: Builder, gradient: View, normal: View, inverse: View, places: Sequence[int]) -> View:
    """(g - mean(g) - x^ * mean(g x^)) * inverse, the means over some dimensions."""
    share = inverse.count / normal.count
    first = b.apply(Body.MUL, b.reduce(Body.FOLD_ADD, [gradient], places, True), share)
    second = b.apply(Body.MUL, b.reduce(Body.FOLD_FMA, [gradient, normal], places, True), -share)
    return b.apply(Body.MUL, b.apply(Body.FMA, normal, second, b.apply(Body.SUB, gradient, first)), inverse)


@lowers("aten.native_layer_norm.default")
def layer_norm(
    b: Builder, x: View, shape: Sequence[int], weight: View | None, bias: View | None, epsilon: float
) -> tuple[View, View, View]:
    places = list(range(x.rank - len(shape), x.rank))
    centre, _, inverse = _statistics(b, x, places, epsilon)
    return _affine(b, _normalized(b, x, centre, inverse), weight, bias), centre, inverse


@lowers("aten.native_layer_norm_backward.default")
def layer_norm_backward(
    b: Builder,
    gradient: View,
    x: View,
    shape: Sequence[int],
    centre: View,
    inverse: View,
    weight: View | None,
    bias: View | None,
    mask: Sequence[bool],
) -> tuple[View | None, View | None, View | None]:
    places = list(range(x.rank - len(shape), x.rank))
    rest = list(range(x.rank - len(shape)))
    normal = _normalized(b, x, centre, inverse)
    weighted = gradient if weight is None else b.apply(Body.MUL, gradient, weight)
    return (
        _input_gradient(b, weighted, normal, inverse, places) if mask[0] else None,
        b.reduce(Body.FOLD_FMA, [gradient, normal], rest) if mask[1] and weight is not None else None,
        b.reduce(Body.FOLD_ADD, [gradient], rest) if mask[2] and bias is not None else None,
    )


def _channels(view: View | None, rank: int) -> View | None:
    """A vector over channels, shaped to broadcast against (N, C, ...)."""
    return view if view is None else views.reshape(view, (1, view.count, *(1,) * (rank - 2)))


@lowers("aten._native_batch_norm_legit_functional.default", "aten.native_batch_norm.default")
def batch_norm(
    b: Builder,
    x: View,
    weight: View | None,
    bias: View | None,
    running_mean: View | None,
    running_variance: View | None,
    training: bool,
    momentum: float,
    epsilon: float,
) -> tuple[View | None, ...]:
    places = [0, *range(2, x.rank)]
    if not training:
        if running_mean is None or running_variance is None:
            raise ValueError("batch norm in evaluation mode without running statistics")
        shifted = b.apply(Body.ADD, running_variance, float(epsilon))
        fixed = _channels(b.apply(Body.DIV, 1.0, b.apply(Body.SQRT, shifted)), x.rank)
        mean_ = _channels(running_mean, x.rank)
        if fixed is None or mean_ is None:
            raise ValueError("batch norm without statistics")
        normal = _normalized(b, x, mean_, fixed)
        result = _affine(b, normal, _channels(weight, x.rank), _channels(bias, x.rank))
        return result, None, None, running_mean, running_variance
    centre, variance, inverse = _statistics(b, x, places, epsilon)
    result = _affine(b, _normalized(b, x, centre, inverse), _channels(weight, x.rank), _channels(bias, x.rank))
    flat = (x.shape[1],)
    centre, variance, inverse = (views.reshape(part, flat) for part in (centre, variance, inverse))
    terms = x.count // x.shape[1]
    unbiased = b.apply(Body.MUL, variance, terms / (terms - 1) if terms > 1 else float("inf"))

    def moved(old: View | None, new: View) -> View | None:
        """old * (1 - momentum) + new * momentum."""
        if old is None:
            return None
        return b.apply(Body.FMA, new, float(momentum), b.apply(Body.MUL, old, 1.0 - float(momentum)))

    return result, centre, inverse, moved(running_mean, centre), moved(running_variance, unbiased)


@lowers("aten._native_batch_norm_legit_no_training.default")
def batch_norm_no_training(
    b: Builder,
    x: View,
    weight: View | None,
    bias: View | None,
    running_mean: View | None,
    running_variance: View | None,
    momentum: float,
    epsilon: float,
) -> tuple[View | None, ...]:
    return batch_norm(b, x, weight, bias, running_mean, running_variance, False, momentum, epsilon)[:3]


@lowers("aten._native_batch_norm_legit.no_stats")
def batch_norm_without_statistics(
    b: Builder,
    x: View,
    weight: View | None,
    bias: View | None,
    training: bool,
    momentum: float,
    epsilon: float,
) -> tuple[View | None, ...]:
    return batch_norm(b, x, weight, bias, None, None, True, momentum, epsilon)[:3]


@lowers("aten.native_batch_norm_backward.default")
def batch_norm_backward(
    b: Builder,
    gradient: View,
    x: View,
    weight: View | None,
    running_mean: View | None,
    running_variance: View | None,
    centre: View | None,
    inverse: View | None,
    training: bool,
    epsilon: float,
    mask: Sequence[bool],
) -> tuple[View | None, View | None, View | None]:
    places = [0, *range(2, x.rank)]
    if not training and running_mean is not None and running_variance is not None:
        centre = running_mean
        shifted = b.apply(Body.ADD, running_variance, float(epsilon))
        inverse = b.apply(Body.DIV, 1.0, b.apply(Body.SQRT, shifted))
    wide_centre, wide_inverse = _channels(centre, x.rank), _channels(inverse, x.rank)
    if wide_centre is None or wide_inverse is None:
        raise ValueError("batch norm's backward pass without its statistics")
    normal = _normalized(b, x, wide_centre, wide_inverse)
    wide_weight = _channels(weight, x.rank)
    scale = wide_inverse if wide_weight is None else b.apply(Body.MUL, wide_inverse, wide_weight)
    result: View | None = None
    if mask[0] and training:
        # Weight and inverse deviation are one factor a channel, so they are multiplied together first.
        result = _input_gradient(b, gradient, normal, scale, places)
    elif mask[0]:
        result = b.apply(Body.MUL, gradient, scale)
    return (
        result,
        b.reduce(Body.FOLD_FMA, [gradient, normal], places) if mask[1] and weight is not None else None,
        b.reduce(Body.FOLD_ADD, [gradient], places) if mask[2] else None,
    )


def _groups(b: Builder, x: View, samples: int, channels: int, groups: int) -> View:
    """(samples, groups, channels within the group, positions)."""
    return b.reshape(x, (samples, groups, channels // groups, x.count // (samples * channels)))


@lowers("aten.native_group_norm.default")
def group_norm(
    b: Builder,
    x: View,
    weight: View | None,
    bias: View | None,
    samples: int,
    channels: int,
    positions: int,
    groups: int,
    epsilon: float,
) -> tuple[View, View, View]:
    split = _groups(b, x, samples, channels, groups)
    centre, _, inverse = _statistics(b, split, [2, 3], epsilon)
    normal = b.reshape(_normalized(b, split, centre, inverse), x.shape)
    flat = (samples, groups)
    result = _affine(b, normal, _channels(weight, x.rank), _channels(bias, x.rank))
    return result, views.reshape(centre, flat), views.reshape(inverse, flat)


@lowers("aten.native_group_norm_backward.default")
def group_norm_backward(
    b: Builder,
    gradient: View,
    x: View,
    centre: View,
    inverse: View,
    weight: View | None,
    samples: int,
    channels: int,
    positions: int,
    groups: int,
    mask: Sequence[bool],
) -> tuple[View | None, View | None, View | None]:
    wide = (samples, groups, 1, 1)
    split = _groups(b, x, samples, channels, groups)
    inverse = views.reshape(inverse, wide)
    normal = _normalized(b, split, views.reshape(centre, wide), inverse)
    weighted = gradient if weight is None else b.apply(Body.MUL, gradient, _channels(weight, x.rank) or weight)
    weighted = _groups(b, weighted, samples, channels, groups)
    change = b.reshape(_input_gradient(b, weighted, normal, inverse, [2, 3]), x.shape) if mask[0] else None
    rest = [0, *range(2, x.rank)]
    return (
        change,
        b.reduce(Body.FOLD_FMA, [gradient, b.reshape(normal, x.shape)], rest) if mask[1] else None,
        b.reduce(Body.FOLD_ADD, [gradient], rest) if mask[2] else None,
    )


@lowers("aten._fused_rms_norm.default")
def rms_norm(
    b: Builder, x: View, shape: Sequence[int], weight: View | None, epsilon: float | None
) -> tuple[View, View]:
    """x / sqrt(mean(x^2) + epsilon) * weight (Zhang and Sennrich, 2019)."""
    places = list(range(x.rank - len(shape), x.rank))
    squares = b.reduce(Body.FOLD_FMA, [x, x], places, True)
    mean_square = b.apply(Body.MUL, squares, squares.count / x.count)
    epsilon = 2.0**-23 if epsilon is None else float(epsilon)
    inverse = b.apply(Body.DIV, 1.0, b.apply(Body.SQRT, b.apply(Body.ADD, mean_square, epsilon)))
    return _affine(b, b.apply(Body.MUL, x, inverse), weight, None), inverse


@lowers("aten._fused_rms_norm_backward.default")
def rms_norm_backward(
    b: Builder,
    gradient: View,
    x: View,
    shape: Sequence[int],
    inverse: View,
    weight: View | None,
    mask: Sequence[bool],
) -> tuple[View | None, View | None]:
    places = list(range(x.rank - len(shape), x.rank))
    rest = list(range(x.rank - len(shape)))
    normal = b.apply(Body.MUL, x, inverse)
    weighted = gradient if weight is None else b.apply(Body.MUL, gradient, weight)
    product = b.reduce(Body.FOLD_FMA, [weighted, normal], places, True)
    second = b.apply(Body.MUL, product, -(inverse.count / x.count))
    return (
        b.apply(Body.MUL, b.apply(Body.FMA, normal, second, weighted), inverse) if mask[0] else None,
        b.reduce(Body.FOLD_FMA, [gradient, normal], rest) if mask[1] and weight is not None else None,
    )
