"""Matrix products and reductions: one fold over the reduced dimensions, two where a plain sum is long."""

from __future__ import annotations

from collections.abc import Sequence

from assay.program.graph import TypeName
from assay.program.lowering import view as views
from assay.program.lowering.builder import FLOAT, Builder, Scalar
from assay.program.lowering.registry import dimension, lowers
from assay.program.lowering.shapes import type_of
from assay.program.lowering.view import View
from assay.program.operator import Body


def matrix_product(b: Builder, x: View, y: View) -> View:
    """(..., M, K) times (..., K, N), the leading dimensions equal: a fold_fma over K for each element."""
    *batch, rows, inner = x.shape
    if y.shape[-2] != inner or list(y.shape[:-2]) != batch:
        raise ValueError(f"matrix product of shapes {x.shape} and {y.shape}")
    columns, rank = y.shape[-1], len(batch)
    left = views.insert(x, rank + 1, columns)  # (batch, M, N, K)
    right = views.permute(views.insert(y, rank, rows), [*range(rank + 1), rank + 2, rank + 1])
    return b.emit(Body.FOLD_FMA, FLOAT, [left, right], (*batch, rows, columns), (inner,))


@lowers("aten.mm.default", "aten.bmm.default")
def mm(b: Builder, x: View, y: View) -> View:
    return matrix_product(b, x, y)


@lowers("aten.addmm.default", "aten.baddbmm.default")
def addmm(b: Builder, bias: View, x: View, y: View, beta: Scalar = 1, alpha: Scalar = 1) -> View:
    product = b.apply(Body.MUL, matrix_product(b, x, y), float(alpha))
    if beta == 0:
        return product
    return b.apply(Body.ADD, product, b.apply(Body.MUL, bias, float(beta)))


@lowers("aten.mv.default")
def mv(b: Builder, x: View, y: View) -> View:
    return views.squeeze(matrix_product(b, x, views.insert(y, 1)), 1)


@lowers("aten.dot.default")
def dot(b: Builder, x: View, y: View) -> View:
    return b.reduce(Body.FOLD_FMA, [x, y], [0])


def _all(x: View, places: Sequence[int] | int | None) -> list[int]:
    if isinstance(places, int):
        places = [places]
    return [dimension(p, x.rank) for p in places] if places else list(range(x.rank))


@lowers("aten.sum.dim_IntList")
def sum_(
    b: Builder, x: View, places: Sequence[int] | None, keepdim: bool = False, dtype: TypeName | None = None
) -> View:
    x = b.as_type(x, type_of(dtype, x.type))
    return b.reduce(Body.FOLD_ADD if x.type == FLOAT else Body.FOLD_IADD, [x], _all(x, places), keepdim)


@lowers("aten.sum.default")
def sum_all(b: Builder, x: View, dtype: TypeName | None = None) -> View:
    return sum_(b, x, None, False, dtype)


def mean_over(b: Builder, x: View, places: Sequence[int], keep: bool = False) -> View:
    """Sum over some dimensions times 1 / n."""
    total = b.reduce(Body.FOLD_ADD, [x], places, keep)
    return b.apply(Body.MUL, total, total.count / x.count)


@lowers("aten.mean.dim")
def mean(
    b: Builder, x: View, places: Sequence[int] | None, keepdim: bool = False, dtype: TypeName | None = None
) -> View:
    return mean_over(b, b.as_type(x, FLOAT), _all(x, places), keepdim)


@lowers("aten.mean.default")
def mean_all(b: Builder, x: View, dtype: TypeName | None = None) -> View:
    return mean(b, x, None)


@lowers("aten.amax.default")
def amax(b: Builder, x: View, places: Sequence[int] = (), keepdim: bool = False) -> View:
    return b.reduce(Body.FOLD_MAX, [_float(x)], _all(x, places), keepdim)


@lowers("aten.amin.default")
def amin(b: Builder, x: View, places: Sequence[int] = (), keepdim: bool = False) -> View:
    return b.apply(Body.NEG, amax(b, b.apply(Body.NEG, _float(x)), places, keepdim))


@lowers("aten.max.default")
def max_all(b: Builder, x: View) -> View:
    return amax(b, x)


@lowers("aten.argmax.default")
def argmax(b: Builder, x: View, place: int | None = None, keepdim: bool = False) -> View:
    if place is None:
        x, place = b.reshape(x, (x.count,)), 0
        keepdim = False
    return b.reduce(Body.FOLD_ARGMAX, [_float(x)], [dimension(place, x.rank)], keepdim)


@lowers("aten.max.dim")
def max_dim(b: Builder, x: View, place: int, keepdim: bool = False) -> tuple[View, View]:
    return amax(b, x, [place], keepdim), argmax(b, x, place, keepdim)


def _float(x: View) -> View:
    if x.type != FLOAT:
        raise ValueError("a maximum of integers; convert with .float()")
    return x


def variance(b: Builder, x: View, places: Sequence[int], correction: Scalar, keep: bool) -> tuple[View, View]:
    """(variance, mean) over some dimensions: the mean first, then the squares of the differences."""
    centre = mean_over(b, x, places, True)
    difference = b.apply(Body.SUB, x, centre)
    squares = b.reduce(Body.FOLD_FMA, [difference, difference], places, keep)
    terms = x.count // max(1, centre.count)
    scale = 1.0 / (terms - correction) if terms > correction else float("inf")
    return b.apply(Body.MUL, squares, scale), centre if keep else views.reshape(centre, squares.shape)


@lowers("aten.var.correction")
def var(
    b: Builder,
    x: View,
    places: Sequence[int] | None = None,
    correction: Scalar | None = None,
    keepdim: bool = False,
) -> View:
    return variance(b, x, _all(x, places), 1 if correction is None else correction, keepdim)[0]


@lowers("aten.std.correction")
def std(
    b: Builder,
    x: View,
    places: Sequence[int] | None = None,
    correction: Scalar | None = None,
    keepdim: bool = False,
) -> View:
    return b.apply(Body.SQRT, var(b, x, places, correction, keepdim))


@lowers("aten.var_mean.correction")
def var_mean(
    b: Builder,
    x: View,
    places: Sequence[int] | None = None,
    correction: Scalar | None = None,
    keepdim: bool = False,
) -> tuple[View, View]:
    return variance(b, x, _all(x, places), 1 if correction is None else correction, keepdim)


@lowers("aten.linalg_vector_norm.default")
def vector_norm(
    b: Builder,
    x: View,
    order: Scalar = 2,
    places: Sequence[int] | None = None,
    keepdim: bool = False,
    dtype: TypeName | None = None,
) -> View:
    if order != 2:
        raise ValueError(f"norm of order {order}; only 2 is lowered")
    return b.apply(Body.SQRT, b.reduce(Body.FOLD_FMA, [x, x], _all(x, places), keepdim))


# --- softmax ---------------------------------------------------------------------------------------------------------


LARGEST = 2.0**128 - 2.0**104
"""The largest finite binary32."""


def softmax_parts(b: Builder, x: View, place: int, may_be_empty: bool = False) -> tuple[View, View, View]:
    """(x - max, exp of that, sum of those) along a dimension; the sum and the maximum keep it with extent 1.

    Where all is minus infinity the differences are NaN, or with `may_be_empty` minus infinity, and the sum is 0.
    """
    top = b.reduce(Body.FOLD_MAX, [x], [place], True)
    if may_be_empty:
        top = b.apply(Body.MAX, top, -LARGEST)
    shifted = b.apply(Body.SUB, x, top)
    grown = b.apply(Body.EXP, shifted)
    return shifted, grown, b.reduce(Body.FOLD_ADD, [grown], [place], True)


@lowers("aten._softmax.default")
def softmax(b: Builder, x: View, place: int, half_to_float: bool = False) -> View:
    _, grown, total = softmax_parts(b, x, dimension(place, x.rank))
    return b.apply(Body.DIV, grown, total)


@lowers("aten._softmax_backward_data.default")
def softmax_backward(b: Builder, gradient: View, y: View, place: int, dtype: TypeName | None = None) -> View:
    place = dimension(place, y.rank)
    inner = b.reduce(Body.FOLD_FMA, [y, gradient], [place], True)
    return b.apply(Body.MUL, y, b.apply(Body.SUB, gradient, inner))


@lowers("aten._log_softmax.default")
def log_softmax(b: Builder, x: View, place: int, half_to_float: bool = False) -> View:
    shifted, grown, total = softmax_parts(b, x, dimension(place, x.rank))
    result = b.apply(Body.SUB, shifted, b.apply(Body.LOG, total))
    b.probabilities[result] = (grown, total)
    return result


@lowers("aten._log_softmax_backward_data.default")
def log_softmax_backward(b: Builder, gradient: View, y: View, place: int, dtype: TypeName | None = None) -> View:
    place = dimension(place, y.rank)
    # The forward pass has the numerators and their sum: a quotient is cheaper than another exponential.
    parts = b.probabilities.get(y)
    probability = b.apply(Body.DIV, *parts) if parts else b.apply(Body.EXP, y)
    total = b.reduce(Body.FOLD_ADD, [gradient], [place], True)
    return b.apply(Body.FMA, b.apply(Body.NEG, probability), total, gradient)


@lowers("aten.logsumexp.default")
def logsumexp(b: Builder, x: View, places: Sequence[int], keepdim: bool = False) -> View:
    chosen = _all(x, places)
    # Infinities stay: they are not taken from themselves.
    top = b.apply(Body.MIN, b.apply(Body.MAX, b.reduce(Body.FOLD_MAX, [x], chosen, True), -LARGEST), LARGEST)
    total = b.reduce(Body.FOLD_ADD, [b.apply(Body.EXP, b.apply(Body.SUB, x, top))], chosen, True)
    result = b.apply(Body.ADD, b.apply(Body.LOG, total), top)
    return result if keepdim else views.reshape(result, [e for d, e in enumerate(x.shape) if d not in chosen])
