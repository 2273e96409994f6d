"""Recognising convolutions and their gradients among folds of products.

A fold is read as a convolution only if its index maps are, coefficient by coefficient, those of the convolution found:
then both read the same elements in the same order, whatever the program meant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import prod

from assay.engine.convolution_shape import Convolution, ConvolutionError
from assay.program.operator import Body, Guard, Operand, Operator, Source

SMALL_CONVOLUTION = 4096
"""Multiply-adds below which a convolution stays an ordinary fold."""

MAXIMAL_STRIDE = 8


class Part(Enum):
    """Which of the three products of a convolution."""

    FORWARD = "forward"
    INPUT_GRADIENT = "input gradient"
    WEIGHT_GRADIENT = "weight gradient"


@dataclass(frozen=True)
class ConvolutionPattern:
    """A convolution: `windows` is the number of the operand that is read through windows (x, or dy for the input
    gradient), `other` that of the plain one (w, or dy for the weight gradient). Both are contiguous from their offsets,
    as is the output."""

    part: Part
    shape: Convolution
    windows: int
    other: int


@dataclass(frozen=True)
class _Loop:
    """One loop: its extent, and the coefficients it has in the windows' position, rows and columns, and in the other
    operand's position."""

    extent: int
    main: int
    row: int
    column: int
    other: int


def recognise_convolution(operator: Operator) -> ConvolutionPattern | None:
    """The convolution that a fold is, or None."""
    if operator.body != Body.FOLD_FMA or operator.elements * operator.terms < SMALL_CONVOLUTION:
        return None
    for windows, other in ((0, 1), (1, 0)):
        if operator.operands[other].guards or Source.IMMEDIATE in (each.source for each in operator.operands):
            continue
        for guards in _axes(operator, windows):
            pattern = _match(operator, windows, other, guards)
            if pattern is not None:
                return pattern
    return None


def _axes(operator: Operator, windows: int) -> list[tuple[Guard, Guard, tuple[int, ...]]]:
    """Readings of the operand's map as (row guard, column guard, remaining strides)."""
    operand = operator.operands[windows]
    if len(operand.guards) == 2 and operand.fill == 0:
        rows, columns = sorted(operand.guards, key=lambda guard: -guard.multiplier)
        return [(rows, columns, operand.stride)]
    if operand.guards:
        return []
    return _unguarded_axes(operator, operand)


def _unguarded_axes(operator: Operator, operand: Operand) -> list[tuple[Guard, Guard, tuple[int, ...]]]:
    """Without padding there are no guards, only strides: the last two output loops, the last two reduced ones, or both,
    run over rows and columns. All readings for row lengths and planes that the strides allow; `_match` decides."""
    rank, total, stride = len(operator.extents), len(operator.dimensions), operand.stride
    outer = [(rank - 2, rank - 1)] if rank >= 3 else []
    inner = [(total - 2, total - 1)] if total - rank >= 2 else []
    readings = []
    for pairs in ([*outer, *inner], outer, inner):
        rows, columns = {first for first, _ in pairs}, {second for _, second in pairs}
        main = tuple(0 if i in rows | columns else each for i, each in enumerate(stride))
        widths = {stride[i] // n for i in rows for n in range(1, MAXIMAL_STRIDE + 1) if stride[i] % n == 0}
        planes = {each for each in main if each > 0} | {operand.count}
        for width in sorted(each for each in widths if each > 0):
            if any(stride[i] % width for i in rows):
                continue
            row = tuple(each // width if i in rows else 0 for i, each in enumerate(stride))
            column = tuple(each if i in columns else 0 for i, each in enumerate(stride))
            for plane in sorted(each for each in planes if each % width == 0):
                readings.append((Guard(0, row, 1, plane // width, width), Guard(0, column, 1, width, 1), main))
    # The weight gradient of a one by one kernel, whose rows and columns have merged: images of a single row.
    if total - rank == 2 and stride[-1] == 1:
        none, column = (0,) * total, (*(0,) * (total - 1), 1)
        width = operator.reduced[-1]
        readings.append((Guard(0, none, 1, 1, width), Guard(0, column, 1, width, 1), (*stride[:-1], 0)))
    return readings


def _match(
    operator: Operator, windows: int, other: int, axes: tuple[Guard, Guard, tuple[int, ...]]
) -> ConvolutionPattern | None:
    rows, columns, main = axes
    height, width = rows.bound, columns.bound
    if columns.multiplier != 1 or rows.multiplier != width:
        return None
    plain = operator.operands[other]
    loops = [
        _Loop(*each) for each in zip(operator.dimensions, main, rows.stride, columns.stride, plain.stride, strict=True)
    ]
    rank = len(operator.extents)
    if rows.divisor != 1 or columns.divisor != 1 or any(min(loop.row, loop.column) < 0 for loop in loops):
        found = _input_gradient(loops[:rank], loops[rank:], rows, columns)
        part = Part.INPUT_GRADIENT
    else:
        found, part = _forward(loops[:rank], loops[rank:], rows, columns), Part.FORWARD
        if found is None:
            found, part = _weight_gradient(loops[:rank], loops[rank:], rows, columns), Part.WEIGHT_GRADIENT
    if found is None:
        return None
    shape = found
    sizes = {
        Part.FORWARD: (shape.x_shape, shape.w_shape, shape.y_shape),
        Part.INPUT_GRADIENT: (shape.y_shape, shape.w_shape, shape.x_shape),
        Part.WEIGHT_GRADIENT: (shape.x_shape, shape.y_shape, shape.w_shape),
    }[part]
    first, second, out = (prod(each) for each in sizes)
    seen = operator.operands[windows]
    fits = (
        operator.elements == out
        and 0 <= seen.offset <= seen.count - first
        and 0 <= plain.offset <= plain.count - second
        and sizes[0][2:] == (height, width)
    )
    return ConvolutionPattern(part, shape, windows, other) if fits else None


def _take(loops: list[_Loop], *, main: bool, row: bool, column: bool, other: bool) -> _Loop:
    """Remove and return the first of `loops` if exactly the named coefficients differ from 0; otherwise a loop of one
    iteration, which merging has dropped."""
    if loops:
        loop = loops[0]
        if (loop.main != 0, loop.row != 0, loop.column != 0, loop.other != 0) == (main, row, column, other):
            return loops.pop(0)
    return _Loop(1, 0, 0, 0, 0)


def _agree(pairs: Sequence[tuple[_Loop, int, int]]) -> bool:
    """Whether every loop has the main and the other coefficient wanted of it (loops of one iteration have any)."""
    return all(loop.extent == 1 or (loop.main, loop.other) == (main, other) for loop, main, other in pairs)


def _made(*arguments: object, **options: object) -> Convolution | None:
    try:
        return Convolution(*arguments, **options)  # type: ignore[arg-type]
    except ConvolutionError:
        return None


def _forward(outer: list[_Loop], inner: list[_Loop], rows: Guard, columns: Guard) -> Convolution | None:
    """Loops (n, g, m, i, j | c, kh, kw), windows over x, w the other operand."""
    outer, inner = list(outer), list(inner)
    n = _take(outer, main=True, row=False, column=False, other=False)
    g = _take(outer, main=True, row=False, column=False, other=True)
    m = _take(outer, main=False, row=False, column=False, other=True)
    i = _take(outer, main=False, row=True, column=False, other=False)
    j = _take(outer, main=False, row=False, column=True, other=False)
    c = _take(inner, main=True, row=False, column=False, other=True)
    kh = _take(inner, main=False, row=True, column=False, other=True)
    kw = _take(inner, main=False, row=False, column=True, other=True)
    if outer or inner:
        return None
    plane, taps, channels = rows.bound * columns.bound, kh.extent * kw.extent, c.extent
    shape = _made(
        n.extent, channels * g.extent, rows.bound, columns.bound, m.extent * g.extent, (kh.extent, kw.extent),
        stride=(i.row or 1, j.column or 1), padding=(-rows.offset, -columns.offset),
        dilation=(kh.row or 1, kw.column or 1), groups=g.extent,
    )  # fmt: skip
    if shape is None or (shape.out_height, shape.out_width) != (i.extent, j.extent):
        return None
    wanted = [
        (n, shape.in_channels * plane, 0), (g, channels * plane, m.extent * channels * taps), (m, 0, channels * taps),
        (c, plane, taps), (kh, 0, kw.extent), (kw, 0, 1),
    ]  # fmt: skip
    return shape if _agree(wanted) else None


def _input_gradient(outer: list[_Loop], inner: list[_Loop], rows: Guard, columns: Guard) -> Convolution | None:
    """Loops (n, g, c, h, v | o, kh, kw), windows over dy, w the other operand."""
    outer, inner = list(outer), list(inner)
    n = _take(outer, main=True, row=False, column=False, other=False)
    g = _take(outer, main=True, row=False, column=False, other=True)
    c = _take(outer, main=False, row=False, column=False, other=True)
    h = _take(outer, main=False, row=True, column=False, other=False)
    v = _take(outer, main=False, row=False, column=True, other=False)
    o = _take(inner, main=True, row=False, column=False, other=True)
    kh = _take(inner, main=False, row=True, column=False, other=True)
    kw = _take(inner, main=False, row=False, column=True, other=True)
    if outer or inner or (h.extent > 1 and h.row != 1) or (v.extent > 1 and v.column != 1):
        return None
    plane, taps = rows.bound * columns.bound, kh.extent * kw.extent
    shape = _made(
        n.extent, c.extent * g.extent, h.extent, v.extent, o.extent * g.extent, (kh.extent, kw.extent),
        stride=(rows.divisor, columns.divisor), padding=(rows.offset, columns.offset),
        dilation=(-kh.row or 1, -kw.column or 1), groups=g.extent,
    )  # fmt: skip
    if shape is None or (shape.out_height, shape.out_width) != (rows.bound, columns.bound):
        return None
    wanted = [
        (n, shape.out_channels * plane, 0), (g, o.extent * plane, o.extent * c.extent * taps), (c, 0, taps),
        (o, plane, c.extent * taps), (kh, 0, kw.extent), (kw, 0, 1),
    ]  # fmt: skip
    return shape if _agree(wanted) else None


def _weight_gradient(outer: list[_Loop], inner: list[_Loop], rows: Guard, columns: Guard) -> Convolution | None:
    """Loops (g, m, c, kh, kw | n, i, j), windows over x, dy the other operand."""
    outer, inner = list(outer), list(inner)
    g = _take(outer, main=True, row=False, column=False, other=True)
    m = _take(outer, main=False, row=False, column=False, other=True)
    c = _take(outer, main=True, row=False, column=False, other=False)
    kh = _take(outer, main=False, row=True, column=False, other=False)
    kw = _take(outer, main=False, row=False, column=True, other=False)
    n = _take(inner, main=True, row=False, column=False, other=True)
    i = _take(inner, main=False, row=True, column=False, other=True)
    j = _take(inner, main=False, row=False, column=True, other=True)
    if outer or inner:
        return None
    plane, pixels = rows.bound * columns.bound, i.extent * j.extent
    shape = _made(
        n.extent, c.extent * g.extent, rows.bound, columns.bound, m.extent * g.extent, (kh.extent, kw.extent),
        stride=(i.row or 1, j.column or 1), padding=(-rows.offset, -columns.offset),
        dilation=(kh.row or 1, kw.column or 1), groups=g.extent,
    )  # fmt: skip
    if shape is None or (shape.out_height, shape.out_width) != (i.extent, j.extent):
        return None
    wanted = [
        (n, shape.in_channels * plane, shape.out_channels * pixels), (g, c.extent * plane, m.extent * pixels),
        (m, 0, pixels), (c, plane, 0), (i, 0, j.extent), (j, 0, 1),
    ]  # fmt: skip
    return shape if _agree(wanted) else None
