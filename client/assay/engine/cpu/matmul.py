# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, attr-defined, unreachable, var-annotated"
"""Matrix products: every element one fused sequential fold, at the speed of a tuned library.

    c[i, j] = fold over k = 0 .. depth - 1 of fma(a[i, k], b[k, j], accumulator), from +0

Operands are flat float32 arrays read through an offset and strides (in elements), so transposed, sliced and broadcast
matrices need no copy. Blocks of both operands are packed into the order in which `tile` reads them; accumulators are
stored and reloaded between blocks of k, which leaves the fold what it is: one chain in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import carray, njit

from assay.engine.cpu import isa, launch
from assay.engine.cpu.isa import UNIT
from assay.engine.cpu.packing import pack_panel, panel_rows, panel_start
from assay.engine.cpu.tile import LARGE, MEDIUM, SMALL, packed_tile, row_panels
from assay.engine.cpu.vector import read_f32, read_i64, write_f32

Array = npt.NDArray[Any]

DEPTH_BLOCK = 512  # terms of a fold between two stores of the accumulators
COLUMN_BLOCK = 4096  # columns packed at once
ROW_BLOCK = 3072  # rows packed at once
SERIAL_WORK = 1 << 17  # multiply-adds below which one thread is faster than two

COLUMNS, LANES = UNIT.columns, UNIT.lanes
SCRATCH_BYTES = LARGE * COLUMNS * 4

_large_tile, _medium_tile, _small_tile = packed_tile(LARGE), packed_tile(MEDIUM), packed_tile(SMALL)
_large_narrow, _medium_narrow, _small_narrow = packed_tile(LARGE, 1), packed_tile(MEDIUM, 1), packed_tile(SMALL, 1)


@njit
def panel_width(columns_left):
    """Width of a panel of columns: only the last one can be narrow."""
    return COLUMNS if columns_left > LANES else LANES


@njit
def _run_inside(height, width, a, b, b_step, c, c_row, depth, first):
    if width == COLUMNS:
        if height == LARGE:
            _large_tile(a, b, b_step, c, c_row, depth, first)
        elif height == MEDIUM:
            _medium_tile(a, b, b_step, c, c_row, depth, first)
        else:
            _small_tile(a, b, b_step, c, c_row, depth, first)
    elif height == LARGE:
        _large_narrow(a, b, b_step, c, c_row, depth, first)
    elif height == MEDIUM:
        _medium_narrow(a, b, b_step, c, c_row, depth, first)
    else:
        _small_narrow(a, b, b_step, c, c_row, depth, first)


@njit
def run_tile(height, width, a, b, b_step, c, c_row, valid_rows, valid_columns, depth, first, scratch):
    """One tile of c, `width` columns wide; where it hangs over the edge it is computed in `scratch` and copied."""
    if valid_rows >= height and valid_columns >= width:
        _run_inside(height, width, a, b, b_step, c, c_row, depth, first)
        return
    rows, columns = min(valid_rows, height), min(valid_columns, width)
    if first == 0:
        for i in range(rows):
            for j in range(columns):
                write_f32(scratch + 4 * (i * width + j), read_f32(c + i * c_row + 4 * j))
    _run_inside(height, width, a, b, b_step, scratch, 4 * width, depth, first)
    for i in range(rows):
        for j in range(columns):
            write_f32(c + i * c_row + 4 * j, read_f32(scratch + 4 * (i * width + j)))


_PRODUCT = launch.record_type(
    "a", "a_row", "a_depth", "b", "b_depth", "b_column", "c", "c_row", "rows", "columns", "depth", "first",
    "packed_a", "packed_b", "large", "medium", "panels", "row_groups", "column_groups", "scratch",
)  # fmt: skip


@launch.kernel(_PRODUCT)
def _pack(parameters, task, worker):
    p = carray(parameters, 1)[0]
    if task < p.panels:
        row, height = panel_start(task, p.large, p.medium), panel_rows(task, p.large, p.medium)
        source = p.a + row * p.a_row
        valid = min(height, p.rows - row)
        pack_panel(source, p.a_row, p.a_depth, valid, height, p.depth, p.packed_a + 4 * row * p.depth)
    else:
        panel = task - p.panels
        column = panel * COLUMNS
        width = panel_width(p.columns - column)
        valid = min(width, p.columns - column)
        source = p.b + column * p.b_column
        pack_panel(source, p.b_column, p.b_depth, valid, width, p.depth, p.packed_b + 4 * column * p.depth)


@launch.kernel(_PRODUCT)
def _multiply(parameters, task, worker):
    p = carray(parameters, 1)[0]
    row_group, column_group = task % p.row_groups, task // p.row_groups
    column_panels = (p.columns + COLUMNS - 1) // COLUMNS
    scratch = p.scratch + worker * SCRATCH_BYTES
    first_panel, end_panel = row_group * p.panels // p.row_groups, (row_group + 1) * p.panels // p.row_groups
    for j in range(
        column_group * column_panels // p.column_groups, (column_group + 1) * column_panels // p.column_groups
    ):
        column = j * COLUMNS
        width = panel_width(p.columns - column)
        for i in range(first_panel, end_panel):
            row = panel_start(i, p.large, p.medium)
            run_tile(
                panel_rows(i, p.large, p.medium), width, p.packed_a + 4 * row * p.depth,
                p.packed_b + 4 * column * p.depth, 4 * width, p.c + row * p.c_row + 4 * column, p.c_row,
                p.rows - row, p.columns - column, p.depth, p.first, scratch,
            )  # fmt: skip


_BATCH = launch.record_type(
    "a", "a_row", "a_depth", "b", "b_depth", "b_column", "c", "c_row", "rows", "columns", "depth",
    "a_offsets", "b_offsets", "c_offsets", "large", "medium", "panels", "padded_rows",
    "workspace", "workspace_bytes",
)  # fmt: skip


@launch.kernel(_BATCH)
def _multiply_one(parameters, task, worker):
    """A whole product of the batch on one thread."""
    p = carray(parameters, 1)[0]
    a, b, c = p.a + read_i64(p.a_offsets + 8 * task), p.b + read_i64(p.b_offsets + 8 * task), p.c
    c += read_i64(p.c_offsets + 8 * task)
    scratch = p.workspace + worker * p.workspace_bytes
    packed_a = scratch + SCRATCH_BYTES
    packed_b = packed_a + 4 * p.padded_rows * DEPTH_BLOCK
    if p.depth == 0:
        for i in range(p.rows):
            for j in range(p.columns):
                write_f32(c + i * p.c_row + 4 * j, np.float32(0))
    for start in range(0, p.depth, DEPTH_BLOCK):
        depth = min(DEPTH_BLOCK, p.depth - start)
        for i in range(p.panels):
            row, height = panel_start(i, p.large, p.medium), panel_rows(i, p.large, p.medium)
            source = a + row * p.a_row + start * p.a_depth
            pack_panel(source, p.a_row, p.a_depth, min(height, p.rows - row), height, depth, packed_a + 4 * row * depth)
        for column in range(0, p.columns, COLUMNS):
            width = panel_width(p.columns - column)
            valid = min(width, p.columns - column)
            panel, step = packed_b, 4 * width
            if p.b_column == 4 and valid == width and p.panels <= 4:
                # read in place: too few uses to pay for packing
                panel, step = b + start * p.b_depth + 4 * column, p.b_depth
            else:
                source = b + start * p.b_depth + column * p.b_column
                pack_panel(source, p.b_column, p.b_depth, valid, width, depth, packed_b)
            for i in range(p.panels):
                row = panel_start(i, p.large, p.medium)
                run_tile(
                    panel_rows(i, p.large, p.medium), width, packed_a + 4 * row * depth, panel, step,
                    c + row * p.c_row + 4 * column, p.c_row, p.rows - row, valid, depth, int(start == 0), scratch,
                )  # fmt: skip


def _groups(panels: int, column_panels: int, threads: int) -> tuple[int, int]:
    """Numbers of row groups and column groups: blocks of about 12 row panels, and enough of them for every thread."""
    row_groups = max(1, panels // 12)
    column_groups = 1
    while row_groups * column_groups < 4 * threads:
        if column_panels // column_groups >= 2 and (column_groups * 4 <= row_groups * 12 or panels // row_groups < 4):
            column_groups *= 2
        elif panels // row_groups >= 2:
            row_groups *= 2
        else:
            break
    return min(row_groups, panels), min(column_groups, column_panels)


def plan_matmul(
    a: Array, a_offset: int, a_strides: tuple[int, int],
    b: Array, b_offset: int, b_strides: tuple[int, int],
    c: Array, c_offset: int, c_row_stride: int,
    rows: int, columns: int, depth: int, threads: int | None = None,
) -> launch.Plan:  # fmt: skip
    """`matmul` as a plan, for products that are computed again and again on the same arrays (which it keeps alive)."""
    workers = isa.threads(threads)
    if rows <= 0 or columns <= 0:
        return launch.Plan()
    if depth <= 0 or rows * columns * depth <= SERIAL_WORK:
        return plan_batched_matmul(
            a, [a_offset], a_strides, b, [b_offset], b_strides, c, [c_offset], c_row_stride, rows, columns, depth, 1
        )
    plan = launch.Plan()
    plan.keep(a, b, c)
    a_address, b_address = a.ctypes.data + 4 * a_offset, b.ctypes.data + 4 * b_offset
    c_address = c.ctypes.data + 4 * c_offset
    for column in range(0, columns, COLUMN_BLOCK):
        block_columns = min(COLUMN_BLOCK, columns - column)
        column_panels = -(-block_columns // COLUMNS)
        for start in range(0, depth, DEPTH_BLOCK):
            block_depth = min(DEPTH_BLOCK, depth - start)
            for row in range(0, rows, ROW_BLOCK):
                block_rows = min(ROW_BLOCK, rows - row)
                large, medium, small, padded = row_panels(block_rows)
                panels = large + medium + small
                row_groups, column_groups = _groups(panels, column_panels, workers)
                record = launch.record(
                    _PRODUCT,
                    a=a_address + 4 * (row * a_strides[0] + start * a_strides[1]),
                    a_row=4 * a_strides[0], a_depth=4 * a_strides[1],
                    b=b_address + 4 * (start * b_strides[0] + column * b_strides[1]),
                    b_depth=4 * b_strides[0], b_column=4 * b_strides[1],
                    c=c_address + 4 * (row * c_row_stride + column), c_row=4 * c_row_stride,
                    rows=block_rows, columns=block_columns, depth=block_depth, first=int(start == 0),
                    large=large, medium=medium, panels=panels, row_groups=row_groups, column_groups=column_groups,
                )  # fmt: skip
                memory = {
                    "packed_a": ("a", 4 * padded * block_depth),
                    "packed_b": ("b", 4 * column_panels * COLUMNS * block_depth),
                    "scratch": ("tiles", workers * SCRATCH_BYTES),
                }
                plan.add(_pack, record, panels + (column_panels if row == 0 else 0), workers, **memory)
                plan.add(_multiply, record, row_groups * column_groups, workers)
    return plan


def plan_batched_matmul(
    a: Array, a_offsets: Sequence[int] | Array, a_strides: tuple[int, int],
    b: Array, b_offsets: Sequence[int] | Array, b_strides: tuple[int, int],
    c: Array, c_offsets: Sequence[int] | Array, c_row_stride: int,
    rows: int, columns: int, depth: int, threads: int | None = None,
) -> launch.Plan:  # fmt: skip
    """`batched_matmul` as a plan (see `plan_matmul`)."""
    plan = launch.Plan()
    count = len(c_offsets)
    if rows <= 0 or columns <= 0 or count == 0:
        return plan
    workers = isa.threads(threads)
    if count < 2 * workers and depth > 0 and rows * columns * depth > 4 * SERIAL_WORK and workers > 1:
        for a_offset, b_offset, c_offset in zip(a_offsets, b_offsets, c_offsets, strict=True):
            plan.extend(
                plan_matmul(
                    a, int(a_offset), a_strides, b, int(b_offset), b_strides, c, int(c_offset), c_row_stride,
                    rows, columns, depth, workers,
                )
            )  # fmt: skip
        return plan
    tables = [np.asarray(each, np.int64) * 4 for each in (a_offsets, b_offsets, c_offsets)]
    large, medium, small, padded = row_panels(rows)
    workspace = SCRATCH_BYTES + 4 * DEPTH_BLOCK * (padded + COLUMNS)
    if rows * columns * max(depth, 1) * count <= SERIAL_WORK:
        workers = 1
    record = launch.record(
        _BATCH, a=a.ctypes.data, a_row=4 * a_strides[0], a_depth=4 * a_strides[1], b=b.ctypes.data,
        b_depth=4 * b_strides[0], b_column=4 * b_strides[1], c=c.ctypes.data, c_row=4 * c_row_stride, rows=rows,
        columns=columns, depth=max(depth, 0), a_offsets=tables[0].ctypes.data, b_offsets=tables[1].ctypes.data,
        c_offsets=tables[2].ctypes.data, large=large, medium=medium, panels=large + medium + small,
        padded_rows=padded, workspace_bytes=workspace,
    )  # fmt: skip
    plan.keep(a, b, c, *tables)
    plan.add(_multiply_one, record, count, workers, workspace=("batch", workers * workspace))
    return plan


def matmul(
    a: Array, a_offset: int, a_strides: tuple[int, int],
    b: Array, b_offset: int, b_strides: tuple[int, int],
    c: Array, c_offset: int, c_row_stride: int,
    rows: int, columns: int, depth: int, threads: int | None = None,
) -> None:  # fmt: skip
    """c[i, j] = fold over k in order of fma(a[i, k], b[k, j], .) from +0, for i < rows, j < columns, k < depth.

    All arrays are float32 (any shape; addressed as flat memory from their first element); offsets and strides count
    elements. Element (i, k) of a is at a_offset + i * a_strides[0] + k * a_strides[1], (k, j) of b likewise, and
    (i, j) of c at c_offset + i * c_row_stride + j. c must not overlap a or b. The caller guarantees bounds.
    """
    plan_matmul(
        a, a_offset, a_strides, b, b_offset, b_strides, c, c_offset, c_row_stride, rows, columns, depth, threads
    ).run()


def batched_matmul(
    a: Array, a_offsets: Sequence[int] | Array, a_strides: tuple[int, int],
    b: Array, b_offsets: Sequence[int] | Array, b_strides: tuple[int, int],
    c: Array, c_offsets: Sequence[int] | Array, c_row_stride: int,
    rows: int, columns: int, depth: int, threads: int | None = None,
) -> None:  # fmt: skip
    """A batch of products of one shape: number n reads a from a_offsets[n] and b from b_offsets[n], writes c from
    c_offsets[n]; everything else as in `matmul`. The offsets (in elements) say how the batch lies in memory, broadcasts
    included; `batch_offsets` makes them from shapes and strides. Outputs must not overlap.
    """
    plan_batched_matmul(
        a, a_offsets, a_strides, b, b_offsets, b_strides, c, c_offsets, c_row_stride, rows, columns, depth, threads
    ).run()


def batch_offsets(offset: int, shape: Sequence[int], strides: Sequence[int]) -> npt.NDArray[np.int64]:
    """Offsets of all items of a batch of shape `shape` in row-major order; a stride of 0 broadcasts."""
    offsets = np.full(1, offset, np.int64)
    for size, stride in zip(shape, strides, strict=True):
        offsets = (offsets[:, None] + np.arange(size, dtype=np.int64) * stride).reshape(-1)
    return offsets
