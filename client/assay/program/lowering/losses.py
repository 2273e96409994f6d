"""Losses and their gradients. `reduction` is PyTorch's number: 0 none, 1 mean, 2 sum."""

from __future__ import annotations

from assay.program.lowering import view as views
from assay.program.lowering.builder import FLOAT, INT, Builder
from assay.program.lowering.elementwise import log1p
from assay.program.lowering.products import mean_over
from assay.program.lowering.registry import lowers
from assay.program.lowering.view import View
from assay.program.operator import Body

MEAN, SUM = 1, 2


def _reduced(b: Builder, x: View, reduction: int) -> View:
    places = list(range(x.rank))
    if reduction == MEAN:
        return mean_over(b, x, places)
    return b.reduce(Body.FOLD_ADD, [x], places) if reduction == SUM else x


def _no_weight(weight: View | None) -> None:
    if weight is not None:
        raise ValueError("class weights; multiply the losses by weight[target] before the mean")


def _rows(logarithms: View, target: View) -> tuple[View, View]:
    """Log-probabilities as (..., classes), and targets of the shape before that: 2D losses have classes second."""
    if logarithms.rank == 1:
        return views.insert(logarithms, 0), views.reshape(target, (1,))
    if logarithms.rank > 2:
        order = [0, *range(2, logarithms.rank), 1]
        return views.permute(logarithms, order), target
    return logarithms, target


@lowers("aten.nll_loss_forward.default", "aten.nll_loss2d_forward.default")
def nll_loss(
    b: Builder, logarithms: View, target: View, weight: View | None, reduction: int, ignore_index: int
) -> tuple[View, View]:
    """-log p[target], averaged over the targets that are not ignored; the second output is their number."""
    _no_weight(weight)
    rows, target = _rows(logarithms, target)
    classes = rows.shape[-1]
    table = views.permute(rows, [rows.rank - 1, *range(rows.rank - 1)])
    picked = _pick(b, table, target)
    if 0 <= ignore_index < classes:
        ignored = b.apply(Body.SAME, target, b.number(ignore_index, INT))
        picked = b.apply(Body.SELECT, ignored, 0.0, picked, kind=FLOAT)
    counted = _counted(b, target, ignore_index)
    if reduction == 0:
        return b.apply(Body.NEG, picked), counted
    total = b.apply(Body.NEG, b.reduce(Body.FOLD_ADD, [picked], list(range(picked.rank))))
    return (b.apply(Body.DIV, total, counted) if reduction == MEAN else total), counted


def _pick(b: Builder, table: View, target: View) -> View:
    """table[target[r], r] for every r; targets outside (an ignored one, often -100) give 0."""
    if any(guard.stride[0] for guard in table.operand.guards) or table.operand.stride[0] < 0 or table.is_immediate:
        table = b.copy(table)
    base = views.select(table, 0, 0)
    return b.emit(Body.GATHER, FLOAT, [base, target], base.shape, p0=table.operand.stride[0], p1=table.shape[0])


def _counted(b: Builder, target: View, ignore_index: int) -> View:
    """Number of targets that are not ignored, as a float."""
    kept = b.apply(Body.IXOR, b.apply(Body.SAME, target, b.number(ignore_index, INT)), 1)
    return b.as_type(b.reduce(Body.FOLD_IADD, [kept], list(range(kept.rank))), FLOAT)


@lowers("aten.nll_loss_backward.default", "aten.nll_loss2d_backward.default")
def nll_loss_backward(
    b: Builder,
    gradient: View,
    logarithms: View,
    target: View,
    weight: View | None,
    reduction: int,
    ignore_index: int,
    counted: View,
) -> View:
    _no_weight(weight)
    rows, target = _rows(logarithms, target)
    classes = rows.shape[-1]
    value = b.apply(Body.NEG, gradient)
    if reduction == MEAN:
        value = b.apply(Body.DIV, value, counted)
    if 0 <= ignore_index < classes:
        ignored = b.apply(Body.SAME, target, b.number(ignore_index, INT))
        target = b.apply(Body.SELECT, ignored, b.number(-1, INT), target, kind=INT)
    numbers = views.expand(views.iota((classes,), (1,)), rows.shape)
    hit = b.apply(Body.SAME, views.insert(target, target.rank), numbers)
    if value.rank:
        value = views.insert(value, value.rank)
    result = b.apply(Body.SELECT, hit, value, 0.0, kind=FLOAT)
    if logarithms.rank == 1:
        return views.squeeze(result, 0)
    if logarithms.rank > 2:
        return views.permute(result, [0, logarithms.rank - 1, *range(1, logarithms.rank - 1)])
    return result


@lowers("aten.mse_loss.default")
def mse_loss(b: Builder, x: View, y: View, reduction: int = MEAN) -> View:
    difference = b.apply(Body.SUB, x, y)
    if reduction == 0:
        return b.apply(Body.MUL, difference, difference)
    total = b.reduce(Body.FOLD_FMA, [difference, difference], list(range(difference.rank)))
    return b.apply(Body.MUL, total, 1.0 / difference.count) if reduction == MEAN else total


@lowers("aten.mse_loss_backward.default")
def mse_loss_backward(b: Builder, gradient: View, x: View, y: View, reduction: int) -> View:
    difference = b.apply(Body.SUB, x, y)
    factor = 2.0 / difference.count if reduction == MEAN else 2.0
    return b.apply(Body.MUL, b.apply(Body.MUL, difference, b.number(factor)), gradient)


@lowers("aten.binary_cross_entropy_with_logits.default")
def bce_with_logits(
    b: Builder, x: View, y: View, weight: View | None = None, positive: View | None = None, reduction: int = MEAN
) -> View:
    """(1 - y) x + log(1 + exp(-|x|)) + max(-x, 0), reduced."""
    if weight is not None or positive is not None:
        raise ValueError("weights of the loss; multiply the losses before the mean")
    negative = b.apply(Body.NEG, x)
    tail = log1p(b, b.apply(Body.EXP, b.apply(Body.NEG, b.apply(Body.ABS, x))))
    linear = b.apply(Body.FMA, b.apply(Body.SUB, 1.0, y), x, b.apply(Body.MAX, negative, 0.0))
    return _reduced(b, b.apply(Body.ADD, linear, tail), reduction)
