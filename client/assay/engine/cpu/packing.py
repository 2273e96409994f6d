# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, attr-defined, unreachable, var-annotated"
"""Copying blocks of operands into the order in which tiles read them. Addresses are int64, steps bytes."""

from __future__ import annotations

import numpy as np
from numba import njit

from assay.engine.cpu.isa import UNIT
from assay.engine.cpu.tile import LARGE, MEDIUM, SMALL
from assay.engine.cpu.vector import copy_quad, copy_vector, read_f32, transpose_4x4, write_f32, zero_vector

LANES = UNIT.lanes


@njit
def transpose(destination, destination_step, source, source_step, rows, columns):
    """destination[j][i] = source[i][j] for i < rows, j < columns; rows `..._step` bytes apart, columns contiguous."""
    whole_rows, whole_columns = rows - rows % 4, columns - columns % 4
    for i in range(0, whole_rows, 4):
        for j in range(0, whole_columns, 4):
            target = destination + j * destination_step + 4 * i
            transpose_4x4(target, destination_step, source + i * source_step + 4 * j, source_step)
        for j in range(whole_columns, columns):
            for k in range(i, i + 4):
                write_f32(destination + j * destination_step + 4 * k, read_f32(source + k * source_step + 4 * j))
    for j in range(columns if whole_rows < rows else 0):
        for i in range(whole_rows, rows):
            write_f32(destination + j * destination_step + 4 * i, read_f32(source + i * source_step + 4 * j))


@njit
def pack_panel(source, outer_step, depth_step, valid, width, depth, destination):
    """destination[k][i] = source[i * outer_step + k * depth_step] for i < valid, +0 for valid <= i < width."""
    if outer_step == 4 and valid == width and width % 4 == 0:
        whole = width - width % LANES
        for k in range(depth):
            for i in range(0, whole, LANES):
                copy_vector(destination + 4 * (k * width + i), source + k * depth_step + 4 * i)
            for i in range(whole, width, 4):
                copy_quad(destination + 4 * (k * width + i), source + k * depth_step + 4 * i)
        return
    if valid < width and width % LANES == 0:
        for i in range(0, 4 * width * depth, 4 * LANES):
            zero_vector(destination + i)
    if depth_step == 4:
        transpose(destination, 4 * width, source, outer_step, valid, depth)
    else:
        for k in range(depth):
            for i in range(valid):
                write_f32(destination + 4 * (k * width + i), read_f32(source + i * outer_step + k * depth_step))
    if valid < width and width % LANES != 0:
        for k in range(depth):
            for i in range(valid, width):
                write_f32(destination + 4 * (k * width + i), np.float32(0))


@njit
def panel_start(panel, large, medium):
    """First row of a row panel (see `row_panels`)."""
    if panel < large:
        return panel * LARGE
    if panel < large + medium:
        return large * LARGE + (panel - large) * MEDIUM
    return large * LARGE + medium * MEDIUM + (panel - large - medium) * SMALL


@njit
def panel_rows(panel, large, medium):
    """Rows of a row panel."""
    return LARGE if panel < large else (MEDIUM if panel < large + medium else SMALL)
