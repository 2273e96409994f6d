"""Views: tensors of the lowering, read through affine index maps without being copied.

A view is an operand whose loops are its own dimensions. Transposes, slices, broadcasts, padding and sliding windows are
views of views; an operator of any shape is then a body over views of one common shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from assay.program.encoding import MAX_GUARDS
from assay.program.operator import ElementType, Guard, Operand, Source, row_major_strides


class NotAffineError(Exception):
    """An index map cannot be composed as asked: the view has to be materialised first."""


@dataclass(frozen=True, slots=True)
class View:
    """Element type, shape, and the operand that reads it, with one stride for each dimension."""

    type: ElementType
    shape: tuple[int, ...]
    operand: Operand

    @property
    def count(self) -> int:
        """Number of elements of the view."""
        return prod(self.shape)

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def is_immediate(self) -> bool:
        """Whether every element is the same known 32 bits."""
        return self.operand.source == Source.IMMEDIATE

    @property
    def is_whole(self) -> bool:
        """Whether the view is its source tensor, element by element in order."""
        operand = self.operand
        if operand.guards or operand.offset or operand.count != self.count:
            return False
        want = row_major_strides(self.shape)
        return all(extent == 1 or s == w for extent, s, w in zip(self.shape, operand.stride, want, strict=True))


def whole(kind: ElementType, shape: Sequence[int], source: Source, index: int) -> View:
    """A source tensor as it is."""
    shape = tuple(shape)
    return View(kind, shape, Operand(source, index, prod(shape), row_major_strides(shape)))


def constant(kind: ElementType, bits: int, shape: Sequence[int] = ()) -> View:
    """The same 32 bits everywhere."""
    return View(kind, tuple(shape), Operand(Source.IMMEDIATE, bits & 0xFFFFFFFF, 0, (0,) * len(shape)))


def iota(shape: Sequence[int], stride: Sequence[int], offset: int = 0) -> View:
    """int32 elements `offset + sum(stride * d)`."""
    return View(ElementType.INT, tuple(shape), Operand(Source.INDEX, 0, 0, tuple(stride), offset))


def _map_strides(view: View, shape: tuple[int, ...], change: Sequence[int | None]) -> View:
    """A view whose dimension i runs along old dimension change[i] (None: a new one, along which nothing changes)."""

    def pick(stride: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(0 if place is None else stride[place] for place in change)

    operand = view.operand
    guards = tuple(replace(guard, stride=pick(guard.stride)) for guard in operand.guards)
    return View(view.type, shape, replace(operand, stride=pick(operand.stride), guards=guards))


def permute(view: View, order: Sequence[int]) -> View:
    """Dimensions in another order."""
    return _map_strides(view, tuple(view.shape[place] for place in order), list(order))


def expand(view: View, shape: Sequence[int]) -> View:
    """Broadcast to a shape by the rules of PyTorch: dimensions of extent 1, and missing ones in front, repeat."""
    shape = tuple(shape)
    missing = len(shape) - view.rank
    if missing < 0:
        raise ValueError(f"cannot broadcast shape {view.shape} to {shape}")
    change: list[int | None] = []
    for place, extent in enumerate(shape):
        old = place - missing
        if old < 0 or (view.shape[old] == 1 and extent != 1):
            change.append(None)
        elif view.shape[old] == extent:
            change.append(old)
        else:
            raise ValueError(f"cannot broadcast shape {view.shape} to {shape}")
    return _map_strides(view, shape, change)


def insert(view: View, place: int, extent: int = 1) -> View:
    """A new dimension at `place`, along which the view repeats."""
    shape = (*view.shape[:place], extent, *view.shape[place:])
    change: list[int | None] = [*range(place), None, *range(place, view.rank)]
    return _map_strides(view, shape, change)


def remap(
    view: View,
    place: int,
    extents: Sequence[int],
    coefficients: Sequence[int],
    offset: int = 0,
    divisor: int = 1,
    fill: int = 0,
) -> View:
    """Replace dimension `place` by new ones: its index becomes `(offset + sum(coefficients * d)) / divisor`.

    Where that is no integer, or outside the dimension, the element is `fill`. Slices, flips, padding, sliding windows
    and their inverses are all of this form. Raises `NotAffineError` where the view's guards stand in the way.
    """
    extents, coefficients = tuple(extents), tuple(coefficients)
    old_extent = view.shape[place]
    operand = view.operand
    shape = (*view.shape[:place], *extents, *view.shape[place + 1 :])

    def spread(stride: tuple[int, ...], factor: int) -> tuple[int, ...]:
        return (*stride[:place], *(factor * c for c in coefficients), *stride[place + 1 :])

    reach = [c * (extent - 1) for c, extent in zip(coefficients, extents, strict=True)]
    low, high = offset + sum(min(0, r) for r in reach), offset + sum(max(0, r) for r in reach)
    guarded = divisor != 1 or low < 0 or high >= old_extent
    if view.is_immediate:
        if guarded and operand.index != fill & 0xFFFFFFFF:
            raise NotAffineError
        return View(view.type, shape, replace(operand, stride=(0,) * len(shape)))
    if guarded and operand.guards and operand.fill != fill & 0xFFFFFFFF:
        raise NotAffineError
    depends = any(guard.stride[place] for guard in operand.guards)
    if divisor != 1 and depends:
        raise NotAffineError
    guards = tuple(
        replace(
            guard, offset=guard.offset + guard.stride[place] * offset, stride=spread(guard.stride, guard.stride[place])
        )
        for guard in operand.guards
    )
    if not guarded:
        return View(
            view.type,
            shape,
            replace(
                operand,
                offset=operand.offset + operand.stride[place] * offset,
                stride=spread(operand.stride, operand.stride[place]),
                guards=guards,
            ),
        )
    # The dimension's part of the position goes through the guard, so that it stays inside whatever d is.
    own_stride = (*(0,) * place, *coefficients, *(0,) * (view.rank - place - 1))
    guards = (*guards, Guard(offset, own_stride, divisor, old_extent, operand.stride[place]))
    if len(guards) > MAX_GUARDS:
        raise NotAffineError
    return View(
        view.type,
        shape,
        replace(operand, stride=spread(operand.stride, 0), guards=guards, fill=fill & 0xFFFFFFFF),
    )


def condition(view: View, offset: int, stride: Sequence[int], bound: int, fill: int) -> View:
    """The view where `0 <= offset + sum(stride * d) < bound`, and `fill` elsewhere (a causal mask, for one)."""
    operand = view.operand
    if view.is_immediate or len(operand.guards) >= MAX_GUARDS or (operand.guards and operand.fill != fill & 0xFFFFFFFF):
        raise NotAffineError
    guard = Guard(offset, tuple(stride), 1, bound, 0)
    return View(view.type, view.shape, replace(operand, guards=(*operand.guards, guard), fill=fill & 0xFFFFFFFF))


def narrow(view: View, place: int, start: int, length: int, step: int = 1) -> View:
    """Elements start, start + step, ... of a dimension."""
    return remap(view, place, (length,), (step,), start)


def select(view: View, place: int, index: int) -> View:
    """One index of a dimension, which goes away."""
    return remap(view, place, (), (), index)


def pad(view: View, place: int, before: int, after: int, fill: int) -> View:
    """`before` and `after` elements of `fill` around a dimension (negative: cut off)."""
    return remap(view, place, (view.shape[place] + before + after,), (1,), -before, 1, fill)


def squeeze(view: View, place: int) -> View:
    """Without dimension `place`, whose extent is 1."""
    return select(view, place, 0)


def _vectors(view: View) -> list[tuple[int, ...]]:
    return [view.operand.stride, *(guard.stride for guard in view.operand.guards)]


def _with_vectors(view: View, shape: tuple[int, ...], vectors: Sequence[Sequence[int]]) -> View:
    guards = tuple(
        replace(guard, stride=tuple(stride)) for guard, stride in zip(view.operand.guards, vectors[1:], strict=True)
    )
    return View(view.type, shape, replace(view.operand, stride=tuple(vectors[0]), guards=guards))


def merge_dimensions(views: Sequence[View], first: int, last: int) -> list[View]:
    """The views (of one shape) with neighbouring dimensions among first..last-1 merged wherever all of them allow it,
    and those of extent 1 dropped; the elements and their order stay the same."""
    shape = views[0].shape
    vectors = [vector for view in views for vector in _vectors(view)]
    kept: list[int] = []  # last old dimension of each group
    extents: list[int] = []
    for place in range(first, last):
        if shape[place] == 1:
            continue
        if kept and all(vector[kept[-1]] == vector[place] * shape[place] for vector in vectors):
            extents[-1] *= shape[place]
            kept[-1] = place
        else:
            kept.append(place)
            extents.append(shape[place])
    new_shape = (*shape[:first], *extents, *shape[last:])

    def pick(stride: tuple[int, ...]) -> tuple[int, ...]:
        return (*stride[:first], *(stride[place] for place in kept), *stride[last:])

    return [_with_vectors(view, new_shape, [pick(vector) for vector in _vectors(view)]) for view in views]


def reshape(view: View, shape: Sequence[int]) -> View:
    """The same elements, in row-major order, under another shape; `NotAffineError` where strides cannot express it."""
    shape = tuple(shape)
    if prod(shape) != view.count:
        raise ValueError(f"shape {shape} does not have the {view.count} elements of {view.shape}")
    (merged,) = merge_dimensions([view], 0, view.rank)
    vectors = _vectors(merged)
    result: list[list[int]] = [[] for _ in vectors]
    group = merged.rank - 1
    inner = 1  # elements of the current group already covered
    for extent in reversed(shape):
        if extent == 1:
            for strides in result:
                strides.append(0)
            continue
        if group >= 0 and inner == merged.shape[group]:
            group, inner = group - 1, 1
        if group < 0 or merged.shape[group] % (inner * extent) != 0:
            raise NotAffineError
        for strides, vector in zip(result, vectors, strict=True):
            strides.append(vector[group] * inner)
        inner *= extent
    return _with_vectors(view, shape, [tuple(reversed(strides)) for strides in result])
