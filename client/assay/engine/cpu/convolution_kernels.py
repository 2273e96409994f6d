# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, attr-defined, unreachable, var-annotated"
"""The kernels below `assay.engine.cpu.convolution`. Addresses are int64, steps bytes.

All of them read images that a worker has padded in its own memory, so that no position of a window needs a test and a
padded position takes part in the fold as the value +0. A padded row is stored as `phases` planes, plane p holding the
columns u with u % phases == p, so that the columns one kernel position reads under a horizontal stride are contiguous.
"""

from __future__ import annotations

import numpy as np
from numba import carray, njit

from assay.engine.cpu import launch
from assay.engine.cpu.isa import UNIT
from assay.engine.cpu.packing import pack_panel, panel_rows, panel_start, transpose
from assay.engine.cpu.tile import LARGE, MEDIUM, SMALL, gather_tile, packed_tile, window_tile
from assay.engine.cpu.vector import (
    copy_quad,
    copy_vector,
    read_f32,
    read_i64,
    word_pointer,
    write_f32,
    write_i64,
    zero_vector,
)

COLUMNS, LANES, VECTORS = UNIT.columns, UNIT.lanes, UNIT.vectors

_gather_large, _gather_medium, _gather_small = gather_tile(LARGE), gather_tile(MEDIUM), gather_tile(SMALL)
_packed_large, _packed_medium, _packed_small = packed_tile(LARGE), packed_tile(MEDIUM), packed_tile(SMALL)
_window_large, _window_medium, _window_small = (window_tile(rows, VECTORS) for rows in (LARGE, MEDIUM, SMALL))
_narrow_large, _narrow_medium, _narrow_small = (window_tile(rows, 1) for rows in (LARGE, MEDIUM, SMALL))

IMAGE_FIELDS = (
    "source", "source_image", "source_channel", "channels", "height", "width",
    "top", "left", "row_dilation", "column_dilation", "padded_height", "phases", "phase_width", "image_bytes",
)  # fmt: skip
"""Where images come from and how they are padded; image_bytes is a multiple of the vector size."""


@njit
def pad_image(p, number, destination):
    """Write image `number` of the batch to `destination`, padded, its rows and columns spread by the dilations."""
    for i in range(0, p.image_bytes, 4 * LANES):
        zero_vector(destination + i)
    line_bytes = 4 * p.phases * p.phase_width
    padded_width = p.phases * p.phase_width
    width = min(p.width, (padded_width - p.left + p.column_dilation - 1) // p.column_dilation)
    height = min(p.height, (p.padded_height - p.top + p.row_dilation - 1) // p.row_dilation)
    for c in range(p.channels):
        for h in range(height):
            source = p.source + number * p.source_image + c * p.source_channel + h * 4 * p.width
            line = destination + (c * p.padded_height + p.top + h * p.row_dilation) * line_bytes
            if p.phases == 1 and p.column_dilation == 1:
                line += 4 * p.left
                whole = width - width % LANES
                for j in range(0, whole, LANES):
                    copy_vector(line + 4 * j, source + 4 * j)
                for j in range(whole, width):
                    write_f32(line + 4 * j, read_f32(source + 4 * j))
            else:
                # column j of the image is column left + j * dilation of the padded one; one plane at a time
                for phase in range(p.phases):
                    first = 0
                    while (p.left + first * p.column_dilation) % p.phases != phase and first < p.phases:
                        first += 1
                    if first == p.phases:
                        continue  # no column of the image falls into this plane
                    place = phase * p.phase_width + (p.left + first * p.column_dilation) // p.phases
                    for j in range(first, width, p.phases):
                        write_f32(line + 4 * place, read_f32(source + 4 * j))
                        place += p.column_dilation


WEIGHTS = launch.record_type(
    "source", "row_step", "group_step", "groups", "taps", "depth", "rows", "large", "medium", "panels", "packed"
)


@launch.kernel(WEIGHTS)
def pack_weights(parameters, task, worker):
    """Pack row panel `task` of a matrix whose row m is `groups` runs, `group_step` apart, of `depth` values: adjacent
    ones, or those at the byte offsets `taps`."""
    p = carray(parameters, 1)[0]
    row, height = panel_start(task, p.large, p.medium), panel_rows(task, p.large, p.medium)
    valid = min(height, p.rows - row)
    for group in range(p.groups):
        source = p.source + row * p.row_step + group * p.group_step
        packed = p.packed + 4 * (row * p.groups + group * height) * p.depth
        if p.taps == 0:
            pack_panel(source, p.row_step, 4, valid, height, p.depth, packed)
        else:
            for k in range(p.depth):
                tap = source + read_i64(p.taps + 8 * k)
                for i in range(valid):
                    write_f32(packed + 4 * (k * height + i), read_f32(tap + i * p.row_step))
                for i in range(valid, height):
                    write_f32(packed + 4 * (k * height + i), np.float32(0))


@njit
def _run_gather(height, a, bases, table, c, c_step, depth):
    if height == LARGE:
        _gather_large(a, bases, table, c, c_step, depth, 1)
    elif height == MEDIUM:
        _gather_medium(a, bases, table, c, c_step, depth, 1)
    else:
        _gather_small(a, bases, table, c, c_step, depth, 1)


@njit
def _run_packed(height, a, b, c, c_step, depth, first):
    if height == LARGE:
        _packed_large(a, b, 4 * COLUMNS, c, c_step, depth, first)
    elif height == MEDIUM:
        _packed_medium(a, b, 4 * COLUMNS, c, c_step, depth, first)
    else:
        _packed_small(a, b, 4 * COLUMNS, c, c_step, depth, first)


GATHER = launch.record_type(
    *IMAGE_FIELDS, "batch", "group", "row_groups", "packed", "rows", "large", "medium", "panels", "depth", "table",
    "grid_height", "grid_width", "line_step", "in_place", "out", "out_image", "out_row", "out_line", "out_column",
    "workspace", "workspace_bytes", "padded_rows",
)  # fmt: skip

DEPTH_BLOCK = 256  # terms whose values are copied for one tile of pixels: 32 KiB, to stay in cache
SEGMENT_BYTES = 16 * COLUMNS  # address and place of each segment
PANEL_BYTES = 4 * COLUMNS * DEPTH_BLOCK + 4 * LANES  # a segment may be copied beyond the last row's end


@njit
def _segments(p, images, start, valid, table):
    """Runs of at most LANES adjacent pixels in one row that make up a tile of pixels.

    Writes (address of the first term's value, place in the tile in bytes) of each to `table`; returns how many. With
    whole vectors in a row (`in_place`), these are the tile's vectors, a spare one repeating the first.
    """
    pixels = p.grid_height * p.grid_width
    count, j = 0, 0
    while j < valid:
        image, place = (start + j) // pixels, (start + j) % pixels
        line, column = place // p.grid_width, place % p.grid_width
        write_i64(table + 16 * count, images + image * p.image_bytes + line * p.line_step + 4 * column)
        write_i64(table + 16 * count + 8, 4 * j)
        j += min(p.grid_width - column, LANES)
        count += 1
    if p.in_place != 0:
        for spare in range(count, VECTORS):
            write_i64(table + 16 * spare, read_i64(table))
    return count


@njit
def _copy_panel(segments, count, table, depth, panel):
    """panel[k] = the tile's values of term k. Each segment is copied as a whole vector; what it spills behind its end
    is overwritten by the next segment, or by the next term, or is never read."""
    for k in range(depth):
        offset = read_i64(table + 8 * k)
        row = panel + 4 * k * COLUMNS
        for s in range(count):
            source = read_i64(segments + 16 * s) + offset
            copy_vector(row + read_i64(segments + 16 * s + 8), source)


@njit
def _scatter(p, first_image, start, row, rows, valid, tile):
    """Copy a tile to the pixels of the output it belongs to."""
    pixels = p.grid_height * p.grid_width
    width = 4 if p.grid_width % 4 == 0 and p.out_column == 4 else 1
    for j in range(0, valid, width):
        image, place = (start + j) // pixels, (start + j) % pixels
        line, column = place // p.grid_width, place % p.grid_width
        out = p.out + (first_image + image) * p.out_image + line * p.out_line + column * p.out_column + row * p.out_row
        if width == 4:
            for i in range(rows):
                copy_quad(out + i * p.out_row, tile + 4 * (i * COLUMNS + j))
        else:
            for i in range(rows):
                write_f32(out + i * p.out_row, read_f32(tile + 4 * (i * COLUMNS + j)))


@launch.kernel(GATHER)
def gather_convolution(parameters, task, worker):
    """out[n, m, pixel] = fold over k of fma(image[base(pixel) + table[k]], weights[m, k], .) for a group of images.

    Tiles take adjacent pixels of the group, across rows and images. Where rows are whole vectors the values are read in
    place; otherwise the values of a block of terms are first copied together, which a few row panels repay.
    """
    p = carray(parameters, 1)[0]
    row_group, image_group = task % p.row_groups, task // p.row_groups
    first_image = image_group * p.group
    count = min(p.group, p.batch - first_image)
    segments = p.workspace + worker * p.workspace_bytes
    accumulators = segments + SEGMENT_BYTES
    images = accumulators + 4 * p.padded_rows * COLUMNS
    panel_b = images + p.group * p.image_bytes + 4 * LANES
    for i in range(count):
        pad_image(p, first_image + i, images + i * p.image_bytes)
    first_panel, end_panel = row_group * p.panels // p.row_groups, (row_group + 1) * p.panels // p.row_groups
    pixels = p.grid_height * p.grid_width
    in_order = p.out_column == 4 and p.out_line == 4 * p.grid_width
    for start in range(0, count * pixels, COLUMNS):
        valid = min(COLUMNS, count * pixels - start)
        image = start // pixels
        whole = in_order and valid == COLUMNS and (start + COLUMNS - 1) // pixels == image
        out = p.out + (first_image + image) * p.out_image + 4 * (start - image * pixels)
        segment_count = _segments(p, images, start, valid, segments)
        for block in range(0, p.depth, p.depth if p.in_place != 0 else DEPTH_BLOCK):
            block_depth = p.depth if p.in_place != 0 else min(DEPTH_BLOCK, p.depth - block)
            if p.in_place == 0:
                _copy_panel(segments, segment_count, p.table + 8 * block, block_depth, panel_b)
            for i in range(first_panel, end_panel):
                row, height = panel_start(i, p.large, p.medium), panel_rows(i, p.large, p.medium)
                direct = whole and row + height <= p.rows
                target = out + row * p.out_row if direct else accumulators + 4 * row * COLUMNS
                step = p.out_row if direct else 4 * COLUMNS
                a = p.packed + 4 * (row * p.depth + block * height)
                if p.in_place != 0:
                    _run_gather(height, a, segments, p.table, target, step, p.depth)
                else:
                    _run_packed(height, a, panel_b, target, step, block_depth, int(block == 0))
                if not direct and block + block_depth == p.depth:
                    _scatter(p, first_image, start, row, min(height, p.rows - row), valid, target)


WINDOWS = launch.record_type(
    *IMAGE_FIELDS, "first_image", "batch", "images", "gradient", "gradient_image", "out_channels", "out_panels",
    "grid_height", "grid_width", "line_step", "packed", "table", "rows", "large", "medium", "panels", "padded_rows",
    "row_groups", "columns", "accumulators", "out",
)  # fmt: skip


@launch.kernel(WINDOWS)
def prepare_windows(parameters, task, worker):
    """Pad one image and lay out the output's gradient for it by pixel, then channel."""
    p = carray(parameters, 1)[0]
    number = p.first_image + task
    pad_image(p, number, p.images + task * p.image_bytes)
    pixels = p.grid_height * p.grid_width
    for panel in range(p.out_panels):
        channel = panel * p.columns
        pack_panel(
            p.gradient + number * p.gradient_image + 4 * channel * pixels, 4 * pixels, 4,
            min(p.columns, p.out_channels - channel), p.columns, pixels,
            p.packed + 4 * (task * p.out_panels + panel) * pixels * p.columns,
        )  # fmt: skip


@njit
def _run_window(height, narrow, table, image, line_step, b, c, lines, length, first):
    if narrow:
        if height == LARGE:
            _narrow_large(table, image, line_step, b, c, lines, length, first)
        elif height == MEDIUM:
            _narrow_medium(table, image, line_step, b, c, lines, length, first)
        else:
            _narrow_small(table, image, line_step, b, c, lines, length, first)
    elif height == LARGE:
        _window_large(table, image, line_step, b, c, lines, length, first)
    elif height == MEDIUM:
        _window_medium(table, image, line_step, b, c, lines, length, first)
    else:
        _window_small(table, image, line_step, b, c, lines, length, first)


@launch.kernel(WINDOWS)
def accumulate_windows(parameters, task, worker):
    """Continue (or, with the first image of all, begin) the folds of some weights over `batch` prepared images."""
    p = carray(parameters, 1)[0]
    row_group, panel = task % p.row_groups, task // p.row_groups
    pixels = p.grid_height * p.grid_width
    first_panel, end_panel = row_group * p.panels // p.row_groups, (row_group + 1) * p.panels // p.row_groups
    for n in range(p.batch):
        image = p.images + n * p.image_bytes
        b = p.packed + 4 * (n * p.out_panels + panel) * pixels * p.columns
        for i in range(first_panel, end_panel):
            row, height = panel_start(i, p.large, p.medium), panel_rows(i, p.large, p.medium)
            c = p.accumulators + 4 * (panel * p.padded_rows + row) * p.columns
            _run_window(
                height, p.columns == LANES, p.table + 8 * row, image, p.line_step, b, c, p.grid_height, p.grid_width,
                int(p.first_image + n == 0),
            )  # fmt: skip


@launch.kernel(WINDOWS)
def store_windows(parameters, task, worker):
    """Turn the accumulators of one panel of output channels into rows of the weights' gradient."""
    p = carray(parameters, 1)[0]
    channel = task * p.columns
    transpose(
        p.out + 4 * channel * p.rows, 4 * p.rows, p.accumulators + 4 * task * p.padded_rows * p.columns, 4 * p.columns,
        p.rows, min(p.columns, p.out_channels - channel),
    )  # fmt: skip


SCAN = launch.record_type("source", "size", "block", "mask", "wanted", "found")


@launch.kernel(SCAN)
def find_word(parameters, task, worker):
    """Set `found` to 1 if a block of the array holds a word with word & mask == wanted."""
    p = carray(parameters, 1)[0]
    start = task * p.block
    words = carray(word_pointer(p.source + 4 * start), min(p.block, p.size - start))
    mask, wanted = np.int32(p.mask), np.int32(p.wanted)
    count = np.int64(0)
    for i in range(words.size):
        count += (words[i] & mask) == wanted
    if count > 0:
        write_i64(p.found, 1)


@launch.kernel(SCAN)
def clear(parameters, task, worker):
    """Fill a block of the array with +0."""
    p = carray(parameters, 1)[0]
    start = task * p.block
    words = carray(word_pointer(p.source + 4 * start), min(p.block, p.size - start))
    for i in range(words.size):
        words[i] = 0
