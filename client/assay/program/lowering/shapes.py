"""Calls that only rearrange elements: they become index maps, and copies only where no index map expresses them."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from assay.program.graph import TypeName
from assay.program.lowering import view as views
from assay.program.lowering.builder import FLOAT, INT, Builder, Scalar, word
from assay.program.lowering.registry import dimension, lowers
from assay.program.lowering.view import View
from assay.program.operator import Body, ElementType


def type_of(name: TypeName | None, default: ElementType) -> ElementType:
    """The element type of a type argument."""
    if name is None:
        return default
    return FLOAT if name.name == "float32" else INT


@lowers("aten.view.default", "aten._unsafe_view.default", "aten.reshape.default", "aten._reshape_copy.default")
def view(b: Builder, x: View, shape: Sequence[int]) -> View:
    sizes = list(shape)
    if -1 in sizes:
        place = sizes.index(-1)
        sizes[place] = x.count // max(1, prod(sizes[:place] + sizes[place + 1 :]))
    return b.reshape(x, sizes)


@lowers("aten.clone.default", "aten.contiguous.default", "aten.positive.default", "aten.detach.default")
def same(b: Builder, x: View) -> View:
    return x


@lowers("aten.copy.default")
def copy(b: Builder, x: View, source: View, non_blocking: bool = False, boolean: bool = False) -> View:
    return views.expand(to_copy(b, source, TypeName("bool")) if boolean else b.as_type(source, x.type), x.shape)


@lowers("aten._to_copy.default")
def to_copy(b: Builder, x: View, dtype: TypeName | None = None) -> View:
    if dtype is not None and dtype.name == "bool":
        zero = b.number(0, x.type)
        return (
            b.apply(Body.EQ, b.apply(Body.TO_FLOAT, b.apply(Body.SAME, x, zero)), 0.0)
            if x.type == INT
            else _truth(b, x)
        )
    return b.as_type(x, type_of(dtype, x.type))


def _truth(b: Builder, x: View) -> View:
    """1 where a float is not zero (NaN is true)."""
    return b.apply(Body.IXOR, b.apply(Body.EQ, x, 0.0), 1)


@lowers("aten.t.default", "aten.numpy_T.default")
def t(b: Builder, x: View) -> View:
    return views.permute(x, list(reversed(range(x.rank))))


@lowers("aten.transpose.int")
def transpose(b: Builder, x: View, first: int, second: int) -> View:
    order = list(range(x.rank))
    first, second = dimension(first, x.rank), dimension(second, x.rank)
    if order:
        order[first], order[second] = order[second], order[first]
    return views.permute(x, order)


@lowers("aten.permute.default")
def permute(b: Builder, x: View, order: Sequence[int]) -> View:
    places = [dimension(place, x.rank) for place in order]
    if sorted(places) != list(range(x.rank)):
        raise ValueError(f"{order} is no order of {x.rank} dimensions")
    return views.permute(x, places)


@lowers("aten.expand.default")
def expand(b: Builder, x: View, shape: Sequence[int], implicit: bool = False) -> View:
    missing = len(shape) - x.rank
    return views.expand(x, [x.shape[i - missing] if extent == -1 else extent for i, extent in enumerate(shape)])


@lowers("aten.unsqueeze.default")
def unsqueeze(b: Builder, x: View, place: int) -> View:
    return views.insert(x, dimension(place, x.rank + 1))


@lowers("aten.squeeze.dim", "aten.squeeze.dims")
def squeeze(b: Builder, x: View, places: int | Sequence[int]) -> View:
    chosen = [places] if isinstance(places, int) else list(places)
    for place in sorted({dimension(p, x.rank) for p in chosen}, reverse=True):
        if x.rank and x.shape[place] == 1:
            x = views.squeeze(x, place)
    return x


@lowers("aten.squeeze.default")
def squeeze_all(b: Builder, x: View) -> View:
    return squeeze(b, x, list(range(x.rank))) if x.rank else x


def _bounds(start: int | None, end: int | None, extent: int) -> tuple[int, int]:
    """Start and end of a slice, clamped as Python does."""
    low, high, _ = slice(start, end).indices(extent)
    return low, max(low, high)


@lowers("aten.slice.Tensor")
def slice_(
    b: Builder, x: View, place: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> View:
    place = dimension(place, x.rank)
    low, high = _bounds(start, end, x.shape[place])
    return b.remap(x, place, (-(-(high - low) // step),), (step,), low)


@lowers("aten.slice_backward.default")
def slice_backward(
    b: Builder, gradient: View, sizes: Sequence[int], place: int, start: int, end: int, step: int
) -> View:
    place = dimension(place, gradient.rank)
    low, _ = _bounds(start, end, sizes[place])
    return b.remap(gradient, place, (sizes[place],), (1,), -low, step)


@lowers("aten.slice_scatter.default")
def slice_scatter(
    b: Builder,
    x: View,
    source: View,
    place: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> View:
    place = dimension(place, x.rank)
    low, high = _bounds(start, end, x.shape[place])
    inside = _indicator(x.shape, place, -low, step, -(-(high - low) // step))
    spread = b.remap(source, place, (x.shape[place],), (1,), -low, step)
    return b.apply(Body.SELECT, inside, spread, x, kind=x.type)


@lowers("aten.select.int")
def select(b: Builder, x: View, place: int, index: int) -> View:
    place = dimension(place, x.rank)
    extent = x.shape[place]
    if not -extent <= index < extent:
        raise ValueError(f"index {index} of {extent}")
    return b.remap(x, place, (), (), index % extent)


@lowers("aten.select_backward.default")
def select_backward(b: Builder, gradient: View, sizes: Sequence[int], place: int, index: int) -> View:
    place = dimension(place, len(sizes))
    inserted = views.insert(gradient, place)
    return b.remap(inserted, place, (sizes[place],), (1,), -(index % sizes[place]))


@lowers("aten.select_scatter.default")
def select_scatter(b: Builder, x: View, source: View, place: int, index: int) -> View:
    place = dimension(place, x.rank)
    start = index % x.shape[place]
    return slice_scatter(b, x, views.insert(source, place), place, start, start + 1)


@lowers("aten.split.Tensor", "aten.unsafe_split.Tensor")
def split(b: Builder, x: View, size: int, place: int = 0) -> tuple[View, ...]:
    place = dimension(place, x.rank)
    extent = x.shape[place]
    return tuple(b.remap(x, place, (min(size, extent - at),), (1,), at) for at in range(0, extent, size))


@lowers("aten.split_with_sizes.default", "aten.unsafe_split_with_sizes.default")
def split_with_sizes(b: Builder, x: View, sizes: Sequence[int], place: int = 0) -> tuple[View, ...]:
    place = dimension(place, x.rank)
    starts = np.cumsum([0, *sizes]).tolist()
    return tuple(b.remap(x, place, (size,), (1,), at) for size, at in zip(sizes, starts, strict=False))


@lowers("aten.unbind.int")
def unbind(b: Builder, x: View, place: int = 0) -> tuple[View, ...]:
    place = dimension(place, x.rank)
    return tuple(b.remap(x, place, (), (), index) for index in range(x.shape[place]))


def _indicator(shape: Sequence[int], place: int, offset: int, divisor: int, bound: int) -> View:
    """int32: 1 where index `place` plus offset is a multiple of the divisor and its quotient in [0, bound)."""
    ones = View(INT, (bound,), views.iota((bound,), (0,), 1).operand)
    lifted = views.remap(ones, 0, (shape[place],), (1,), offset, divisor)
    for axis, extent in enumerate(shape):
        if axis != place:
            lifted = views.insert(lifted, axis, extent)
    return lifted


@lowers("aten.cat.default")
def cat(b: Builder, parts: Sequence[View], place: int = 0) -> View:
    place = dimension(place, parts[0].rank)
    total = sum(part.shape[place] for part in parts)
    kind = FLOAT if any(part.type == FLOAT for part in parts) else INT
    shape = (*parts[0].shape[:place], total, *parts[0].shape[place + 1 :])
    result: View | None = None
    start = 0
    for part in parts:
        part = b.as_type(part, kind)
        size = part.shape[place]
        if part.is_immediate and result is None and len(parts) > 1:
            part = b.copy(part)
        spread = b.remap(part, place, (total,), (1,), -start) if not part.is_immediate else _filled(part, shape)
        inside = _indicator(shape, place, -start, 1, size)
        result = spread if result is None else b.apply(Body.SELECT, inside, spread, result, kind=kind)
        start += size
    if result is None:
        raise ValueError("nothing to concatenate")
    return result


def _filled(part: View, shape: tuple[int, ...]) -> View:
    return views.constant(part.type, part.operand.index, shape)


@lowers("aten.stack.default")
def stack(b: Builder, parts: Sequence[View], place: int = 0) -> View:
    place = dimension(place, parts[0].rank + 1)
    return cat(b, [views.insert(part, place) for part in parts], place)


@lowers("aten.constant_pad_nd.default")
def constant_pad(b: Builder, x: View, padding: Sequence[int], value: Scalar = 0) -> View:
    fill = word(value, x.type)
    for number in range(len(padding) // 2):
        before, after = padding[2 * number], padding[2 * number + 1]
        place = x.rank - 1 - number
        if before or after:
            x = b.remap(x, place, (x.shape[place] + before + after,), (1,), -before, 1, fill)
    return x


@lowers("aten.flip.default")
def flip(b: Builder, x: View, places: Sequence[int]) -> View:
    for place in {dimension(p, x.rank) for p in places}:
        x = b.remap(x, place, (x.shape[place],), (-1,), x.shape[place] - 1)
    return x


@lowers("aten.roll.default")
def roll(b: Builder, x: View, shifts: Sequence[int], places: Sequence[int] = ()) -> View:
    for shift, place in zip(shifts, places, strict=True):
        place = dimension(place, x.rank)
        extent = x.shape[place]
        cut = -shift % extent
        if cut:
            x = cat(b, [b.remap(x, place, (extent - cut,), (1,), cut), b.remap(x, place, (cut,), (1,), 0)], place)
    return x


@lowers("aten.repeat.default")
def repeat(b: Builder, x: View, times: Sequence[int]) -> View:
    for _ in range(len(times) - x.rank):
        x = views.insert(x, 0)
    shape = tuple(n * extent for n, extent in zip(times, x.shape, strict=True))
    for place in range(x.rank):
        x = views.insert(x, 2 * place, times[place])
    return b.reshape(x, shape)


def _triangle(b: Builder, x: View, diagonal: int, lower: bool) -> View:
    sign = 1 if lower else -1
    stride = (*(0,) * (x.rank - 2), sign, -sign)
    if x.is_immediate:
        x = b.copy(x)
    return b.condition(x, sign * diagonal, stride, max(x.shape) * 2 + abs(diagonal), 0)


@lowers("aten.tril.default")
def tril(b: Builder, x: View, diagonal: int = 0) -> View:
    return _triangle(b, x, diagonal, True)


@lowers("aten.triu.default")
def triu(b: Builder, x: View, diagonal: int = 0) -> View:
    return _triangle(b, x, diagonal, False)


# --- creation --------------------------------------------------------------------------------------------------------


@lowers("aten.arange.default")
def arange(b: Builder, end: int, dtype: TypeName | None = None) -> View:
    return arange_step(b, 0, end, 1, dtype)


@lowers("aten.arange.start")
def arange_start(b: Builder, start: int, end: int, dtype: TypeName | None = None) -> View:
    return arange_step(b, start, end, 1, dtype)


@lowers("aten.arange.start_step")
def arange_step(b: Builder, start: int, end: int, step: int = 1, dtype: TypeName | None = None) -> View:
    if any(not isinstance(value, int) for value in (start, end, step)):
        raise ValueError("arange of floats; use integers and convert with .float()")
    for value in (start, end):
        word(value, INT)
    return b.as_type(views.iota((max(0, -(-(end - start) // step)),), (step,), start), type_of(dtype, INT))


def _full(b: Builder, shape: Sequence[int], value: Scalar, dtype: TypeName | None, like: ElementType) -> View:
    return b.number(value, type_of(dtype, like), shape)


@lowers("aten.full.default")
def full(b: Builder, shape: Sequence[int], value: Scalar, dtype: TypeName | None = None) -> View:
    return _full(b, shape, value, dtype, FLOAT if isinstance(value, float) else INT)


@lowers("aten.zeros.default", "aten.empty.memory_format")
def zeros(b: Builder, shape: Sequence[int], dtype: TypeName | None = None) -> View:
    return _full(b, shape, 0, dtype, FLOAT)


@lowers("aten.ones.default")
def ones(b: Builder, shape: Sequence[int], dtype: TypeName | None = None) -> View:
    return _full(b, shape, 1, dtype, FLOAT)


@lowers("aten.zeros_like.default", "aten.empty_like.default")
def zeros_like(b: Builder, x: View, dtype: TypeName | None = None) -> View:
    return _full(b, x.shape, 0, dtype, x.type)


@lowers("aten.ones_like.default")
def ones_like(b: Builder, x: View, dtype: TypeName | None = None) -> View:
    return _full(b, x.shape, 1, dtype, x.type)


@lowers("aten.full_like.default", "aten.fill.Scalar")
def full_like(b: Builder, x: View, value: Scalar, dtype: TypeName | None = None) -> View:
    return _full(b, x.shape, value, dtype, x.type)


@lowers("aten.new_zeros.default", "aten.new_empty.default")
def new_zeros(b: Builder, x: View, shape: Sequence[int], dtype: TypeName | None = None) -> View:
    return _full(b, shape, 0, dtype, x.type)


@lowers("aten.new_empty_strided.default")
def new_empty_strided(
    b: Builder, x: View, shape: Sequence[int], stride: Sequence[int], dtype: TypeName | None = None
) -> View:
    return _full(b, shape, 0, dtype, x.type)


@lowers("aten.new_ones.default")
def new_ones(b: Builder, x: View, shape: Sequence[int], dtype: TypeName | None = None) -> View:
    return _full(b, shape, 1, dtype, x.type)


@lowers("aten.new_full.default")
def new_full(b: Builder, x: View, shape: Sequence[int], value: Scalar, dtype: TypeName | None = None) -> View:
    return _full(b, shape, value, dtype, x.type)


@lowers("aten.scalar_tensor.default")
def scalar_tensor(b: Builder, value: Scalar, dtype: TypeName | None = None) -> View:
    return _full(b, (), value, dtype, FLOAT)
