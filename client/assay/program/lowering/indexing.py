"""Reading by an index tensor, and its backward passes: folds over the rows in order that add where indices match."""

from __future__ import annotations

from collections.abc import Sequence

from assay.program.lowering import view as views
from assay.program.lowering.builder import FLOAT, INT, Builder
from assay.program.lowering.registry import dimension, lowers
from assay.program.lowering.view import View
from assay.program.operator import Body, Source


@lowers("aten.embedding.default")
def embedding(
    b: Builder,
    weight: View,
    indices: View,
    padding_index: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> View:
    return b.gather(weight, 0, indices)


@lowers("aten.embedding_dense_backward.default")
def embedding_backward(
    b: Builder, gradient: View, indices: View, rows: int, padding_index: int, scale_grad_by_freq: bool
) -> View:
    if scale_grad_by_freq:
        raise ValueError("embedding with scale_grad_by_freq; leave it off")
    width = gradient.shape[-1]
    flat = b.reshape(indices, (indices.count,))
    if 0 <= padding_index < rows:
        padded = b.apply(Body.SAME, flat, b.number(padding_index, INT))
        flat = b.apply(Body.SELECT, padded, b.number(-1, INT), flat, kind=INT)
    return add_rows(b, flat, b.reshape(gradient, (indices.count, width)), rows)


def add_rows(b: Builder, indices: View, values: View, rows: int) -> View:
    """out[v, ...] = sum over r, in order, of values[r, ...] where indices[r] == v; indices outside are dropped."""
    count, rest = values.shape[0], values.shape[1:]
    outer = (rows, *rest)
    chosen = indices
    for axis, extent in enumerate(outer):
        chosen = views.insert(chosen, axis, extent)
    number = views.iota((*outer, count), (1, *(0,) * (len(rest) + 1)))
    added = views.insert(views.permute(values, [*range(1, values.rank), 0]), 0, rows)
    return b.emit(Body.FOLD_ADD_IF, FLOAT, [chosen, number, added], outer, (count,))


def _wrapped(b: Builder, indices: View, extent: int) -> View:
    """Negative indices count from the end."""
    operand = indices.operand
    positive = operand.offset >= 0 and all(stride >= 0 for stride in operand.stride)
    if operand.source == Source.INDEX and positive and not operand.guards:
        return indices
    shifted = b.apply(Body.IADD, indices, extent)
    return b.apply(Body.SELECT, b.apply(Body.ILT, indices, 0), shifted, indices, kind=INT)


def _single(x: View, indices: Sequence[View | None]) -> tuple[int, View]:
    """The only index of an indexing expression, and its dimension."""
    present = [(place, index) for place, index in enumerate(indices) if index is not None]
    if len(present) != 1:
        raise ValueError(f"indexing by {len(present)} tensors at once; index one dimension after the other")
    return present[0]


@lowers("aten.index.Tensor", "aten._unsafe_index.Tensor")
def index(b: Builder, x: View, indices: Sequence[View | None]) -> View:
    place, chooser = _single(x, indices)
    return b.gather(x, place, _wrapped(b, chooser, x.shape[place]))


@lowers("aten.index_select.default")
def index_select(b: Builder, x: View, place: int, indices: View) -> View:
    return b.gather(x, dimension(place, x.rank), indices)


@lowers("aten.index_put.default", "aten._unsafe_index_put.default")
def index_put(b: Builder, x: View, indices: Sequence[View | None], values: View, accumulate: bool = False) -> View:
    place, chooser = _single(x, indices)
    if not accumulate or not x.is_immediate or x.operand.index != 0:
        raise ValueError("assignment by an index tensor; use torch.where with a mask")
    flat = b.reshape(_wrapped(b, chooser, x.shape[place]), (chooser.count,))
    values = views.expand(values, (*x.shape[:place], *chooser.shape, *x.shape[place + 1 :]))
    values = b.reshape(values, (*x.shape[:place], chooser.count, *x.shape[place + 1 :]))
    order = [place, *(axis for axis in range(values.rank) if axis != place)]
    added = add_rows(b, flat, views.permute(values, order), x.shape[place])
    return views.permute(added, [*range(1, place + 1), 0, *range(place + 1, x.rank)])


@lowers("aten.index_add.default")
def index_add(b: Builder, x: View, place: int, indices: View, values: View, alpha: float = 1) -> View:
    if alpha != 1:
        values = b.apply(Body.MUL, values, float(alpha))
    place = dimension(place, x.rank)
    order = [place, *(axis for axis in range(values.rank) if axis != place)]
    added = add_rows(b, indices, views.permute(values, order), x.shape[place])
    added = views.permute(added, [*range(1, place + 1), 0, *range(place + 1, x.rank)])
    return added if x.is_immediate and x.operand.index == 0 else b.apply(Body.ADD, x, added)


@lowers("aten.gather.default")
def gather(b: Builder, x: View, place: int, indices: View, sparse_grad: bool = False) -> View:
    place = dimension(place, x.rank)
    if x.is_immediate or x.operand.guards or x.operand.stride[place] < 0:
        x = b.copy(x)
    base = views.insert(views.select(x, place, 0), place, indices.shape[place])
    for axis in range(x.rank):
        if axis != place and base.shape[axis] != indices.shape[axis]:
            base = views.narrow(base, axis, 0, indices.shape[axis])
    return b.emit(Body.GATHER, x.type, [base, indices], indices.shape, p0=x.operand.stride[place], p1=x.shape[place])


@lowers("aten.scatter_add.default")
def scatter_add(b: Builder, x: View, place: int, indices: View, values: View) -> View:
    place = dimension(place, x.rank)
    if any(axis != place and indices.shape[axis] != x.shape[axis] for axis in range(x.rank)):
        raise ValueError(f"scatter_add of {indices.shape} into {x.shape}; only one dimension may differ")
    for axis, extent in enumerate(indices.shape):
        if values.shape[axis] != extent:
            values = b.remap(values, axis, (extent,), (1,))
    count = indices.shape[place]
    order = [*(axis for axis in range(x.rank) if axis != place), place]

    def spread(view: View) -> View:
        """(others..., r) with the output's index inserted at its place: loops (output..., r)."""
        return views.insert(views.permute(view, order), place, x.shape[place])

    stride = tuple(1 if axis == place else 0 for axis in range(x.rank))
    number = views.iota((*x.shape, count), (*stride, 0))
    added = b.emit(Body.FOLD_ADD_IF, FLOAT, [spread(indices), number, spread(values)], x.shape, (count,))
    return added if x.is_immediate and x.operand.index == 0 else b.apply(Body.ADD, x, added)
