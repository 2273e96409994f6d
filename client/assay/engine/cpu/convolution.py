"""Two-dimensional convolution and its two gradients, each output element one fused sequential fold from +0:

    y[n, o, i, j]    = fold over (c, kh, kw) of fma(x[n, c, i*s + kh*d - p, j*s + kw*d - p], w[o, c, kh, kw], .)
    dx[n, c, h, v]   = fold over (o, kh, kw) of fma(dy[n, o, (h + p - kh*d)/s, (v + p - kw*d)/s], w[o, c, kh, kw], .)
    dw[o, c, kh, kw] = fold over (n, i, j) of fma(x[n, c, i*s + kh*d - p, j*s + kw*d - p], dy[n, o, i, j], .)

row-major over the named indices (s stride, p padding, d dilation, for each axis; with groups, c and o run within the
group). A term whose x or dy lies outside its tensor, or between its rows under a stride, is not skipped: it takes part
with the value +0, so an infinite or NaN weight shows. A bias is a separate addition.

The input gradient under a stride leaves out the terms between the rows when that cannot show. Such a term adds a zero:
with finite weights it changes no accumulator but -0, which it may turn into +0. So the result without those terms is
the result with them unless it holds a -0 somewhere; only then (a product of tiny values rounded to -0) is the fold
repeated in full.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd

import numpy as np
import numpy.typing as npt

from assay.engine.convolution_shape import Convolution, ConvolutionError
from assay.engine.cpu import convolution_kernels as kernels
from assay.engine.cpu import isa, launch
from assay.engine.cpu.convolution_kernels import COLUMNS, LANES
from assay.engine.cpu.tile import row_panels

Array = npt.NDArray[np.float32]
Table = npt.NDArray[np.int64]

GROUP_BYTES = 256 << 10  # padded images a worker holds at once: they should stay in its cache
PREPARED_BYTES = 24 << 20  # prepared images of the weight gradient held at once
SCAN_BLOCK = 1 << 16


def _check(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.dtype != np.float32 or array.size != int(np.prod(shape)) or not array.flags.c_contiguous:
        raise ConvolutionError(
            f"{name} must be a contiguous float32 array of shape {shape}, not {array.dtype} of shape {array.shape}"
            f" with strides {array.strides}"
        )


@dataclass(frozen=True)
class _Image:
    """How images of one group of channels are padded; sizes in elements (see `pad_image`)."""

    channels: int
    height: int
    width: int
    top: int
    left: int
    row_dilation: int
    column_dilation: int
    padded_height: int
    phases: int
    phase_width: int

    @property
    def line(self) -> int:
        return self.phases * self.phase_width

    @property
    def bytes(self) -> int:
        size = 4 * self.channels * self.padded_height * self.line
        return -(-size // (4 * LANES)) * 4 * LANES

    def position(self, channel: int, row: int, column: int) -> int:
        """Byte offset of a padded position."""
        column = (column % self.phases) * self.phase_width + column // self.phases
        return 4 * ((channel * self.padded_height + row) * self.line + column)

    def fields(self, source: int, source_channels: int) -> dict[str, int]:
        channel = 4 * self.height * self.width
        return {
            "source": source, "source_image": channel * source_channels, "source_channel": channel,
            "channels": self.channels, "height": self.height, "width": self.width, "top": self.top, "left": self.left,
            "row_dilation": self.row_dilation, "column_dilation": self.column_dilation,
            "padded_height": self.padded_height, "phases": self.phases, "phase_width": self.phase_width,
            "image_bytes": self.bytes,
        }  # fmt: skip


def _add_pack(
    plan: launch.Plan, weights: int, row_step: int, group_step: int, groups: int, depth: int, rows: int, workers: int,
    taps: int = 0,
) -> tuple[str, int]:  # fmt: skip
    """Pack a matrix of rows x (groups * depth) weights (see `pack_weights`); returns where it is held."""
    large, medium, small, padded = row_panels(rows)
    panels = large + medium + small
    parameters = launch.record(
        kernels.WEIGHTS, source=weights, row_step=row_step, group_step=group_step, groups=groups, taps=taps,
        depth=depth, rows=rows, large=large, medium=medium, panels=panels,
    )  # fmt: skip
    packed = ("weights", 4 * padded * groups * depth)
    plan.add(kernels.pack_weights, parameters, panels, workers if rows * groups * depth > 1 << 14 else 1, packed=packed)
    return packed


@dataclass(frozen=True)
class _Grid:
    """Pixels of the output: extents, and steps in elements."""

    height: int
    width: int
    line: int
    column: int


def _add_gather(
    plan: launch.Plan, image: _Image, source: int, source_channels: int, batch: int, packed: tuple[str, int],
    rows: int, table: Table, grid: _Grid, line_step: int, out: int, out_image: int, out_row: int, workers: int,
) -> None:  # fmt: skip
    """out[n, m, pixel] = fold over k of fma(image, weights[m, k], .) over a batch; the steps are bytes."""
    large, medium, small, padded = row_panels(rows)
    panels, depth, pixels = large + medium + small, len(table), grid.height * grid.width
    in_place = grid.width % LANES == 0
    group = max(1, min(GROUP_BYTES // image.bytes, -(-batch // (4 * workers))))
    whole = COLUMNS // gcd(COLUMNS, pixels)  # images that fill their last tile
    if whole <= 16:
        group = -(-group // whole) * whole
    group = min(group, batch)
    image_groups = -(-batch // group)
    row_groups = 1 if image_groups >= workers else min(panels, workers)
    workspace = kernels.SEGMENT_BYTES + 4 * padded * COLUMNS + group * image.bytes + 4 * LANES
    workspace += 0 if in_place else kernels.PANEL_BYTES
    workspace = -(-workspace // 64) * 64
    parameters = launch.record(
        kernels.GATHER, **image.fields(source, source_channels), batch=batch, group=group, row_groups=row_groups,
        rows=rows, large=large, medium=medium, panels=panels, depth=depth, table=table.ctypes.data,
        grid_height=grid.height, grid_width=grid.width, line_step=line_step, in_place=int(in_place), out=out,
        out_image=out_image, out_row=out_row, out_line=4 * grid.line, out_column=4 * grid.column,
        workspace_bytes=workspace, padded_rows=padded,
    )  # fmt: skip
    plan.keep(table)
    plan.add(
        kernels.gather_convolution, parameters, image_groups * row_groups, workers,
        packed=packed, workspace=("gather", workers * workspace),
    )  # fmt: skip


def _table(positions: list[int]) -> Table:
    return np.array(positions, np.int64)


@lru_cache(maxsize=512)
def _forward_plan(shape: Convolution) -> tuple[_Image, Table]:
    """The padded input of one group, and where kernel position k = (c, kh, kw) lies from a pixel's first one."""
    channels = shape.in_channels // shape.groups
    phases = shape.stride[1]
    padded_width = shape.width + 2 * shape.padding[1]
    image = _Image(
        channels, shape.height, shape.width, *shape.padding, 1, 1, shape.height + 2 * shape.padding[0],
        phases, -(-padded_width // phases),
    )  # fmt: skip
    table = [
        image.position(c, kh * shape.dilation[0], kw * shape.dilation[1])
        for c in range(channels)
        for kh in range(shape.kernel[0])
        for kw in range(shape.kernel[1])
    ]
    return image, _table(table)


def plan_forward(shape: Convolution, x: Array, w: Array, y: Array, threads: int | None = None) -> launch.Plan:
    """`forward` as a plan, for convolutions computed again and again on the same arrays (which it keeps alive)."""
    _check("x", x, shape.x_shape)
    _check("w", w, shape.w_shape)
    _check("y", y, shape.y_shape)
    workers = isa.threads(threads)
    plan = launch.Plan()
    plan.keep(x, w, y)
    image, table = _forward_plan(shape)
    rows, depth, pixels = shape.out_channels // shape.groups, len(table), shape.out_height * shape.out_width
    grid = _Grid(shape.out_height, shape.out_width, shape.out_width, 1)
    for group in range(shape.groups):
        packed = _add_pack(plan, w.ctypes.data + 4 * group * rows * depth, 4 * depth, 0, 1, depth, rows, workers)
        source = x.ctypes.data + 4 * group * image.channels * shape.height * shape.width
        out = y.ctypes.data + 4 * group * rows * pixels
        _add_gather(
            plan, image, source, shape.in_channels, shape.batch, packed, rows, table, grid,
            4 * image.line * shape.stride[0], out, 4 * shape.out_channels * pixels, 4 * pixels, workers,
        )  # fmt: skip
    return plan


def forward(shape: Convolution, x: Array, w: Array, y: Array, threads: int | None = None) -> None:
    """y from x and w, as the module's docstring orders it. Contiguous float32 arrays of the shape's sizes."""
    plan_forward(shape, x, w, y, threads).run()


@lru_cache(maxsize=512)
def _full_gradient_plan(shape: Convolution) -> tuple[_Image, Table]:
    """dy of one group spread by the stride and padded, and where term k = (o, kh, kw) lies from a pixel's origin."""
    channels = shape.out_channels // shape.groups
    reach = [(shape.kernel[axis] - 1) * shape.dilation[axis] for axis in (0, 1)]
    margin = [max(0, reach[axis] - shape.padding[axis]) for axis in (0, 1)]
    image = _Image(
        channels, shape.out_height, shape.out_width, margin[0], margin[1], *shape.stride,
        shape.height + shape.padding[0] + margin[0], 1, shape.width + shape.padding[1] + margin[1],
    )  # fmt: skip
    table = [
        image.position(
            o,
            margin[0] + shape.padding[0] - kh * shape.dilation[0],
            margin[1] + shape.padding[1] - kw * shape.dilation[1],
        )
        for o in range(channels)
        for kh in range(shape.kernel[0])
        for kw in range(shape.kernel[1])
    ]
    return image, _table(table)


def _plan_full_input_gradient(shape: Convolution, dy: Array, w: Array, dx: Array, workers: int) -> launch.Plan:
    """dx with every term of the fold executed."""
    plan = launch.Plan()
    image, table = _full_gradient_plan(shape)
    rows, taps = shape.in_channels // shape.groups, shape.kernel[0] * shape.kernel[1]
    channels, pixels = image.channels, shape.height * shape.width
    grid = _Grid(shape.height, shape.width, shape.width, 1)
    for group in range(shape.groups):
        weights = w.ctypes.data + 4 * group * channels * rows * taps
        packed = _add_pack(plan, weights, 4 * taps, 4 * rows * taps, channels, taps, rows, workers)
        source = dy.ctypes.data + 4 * group * channels * shape.out_height * shape.out_width
        out = dx.ctypes.data + 4 * group * rows * pixels
        _add_gather(
            plan, image, source, shape.out_channels, shape.batch, packed, rows, table, grid, 4 * image.line,
            out, 4 * shape.in_channels * pixels, 4 * pixels, workers,
        )  # fmt: skip
    return plan


@dataclass(frozen=True)
class _Phase:
    """The pixels (row + stride * i, column + stride * j) of dx, and the kernel positions that reach them."""

    row: int
    column: int
    taps: Table  # byte offsets of those positions in a kernel
    table: Table


@lru_cache(maxsize=512)
def _phase_plan(shape: Convolution) -> tuple[_Image, tuple[_Phase, ...]]:
    channels = shape.out_channels // shape.groups
    sizes = (shape.height, shape.width)

    def reaching(axis: int, residue: int) -> list[tuple[int, int]]:
        """Kernel positions with a term at pixels of this residue, and the position of dy read at the first of them."""
        found = []
        for tap in range(shape.kernel[axis]):
            distance = residue + shape.padding[axis] - tap * shape.dilation[axis]
            if distance % shape.stride[axis] == 0:
                found.append((tap, distance // shape.stride[axis]))
        return found

    origins = [[each for r in range(shape.stride[axis]) for each in reaching(axis, r)] for axis in (0, 1)]
    margin = [max(0, *(-origin for _, origin in each)) for each in origins]
    pixels = [-(-sizes[axis] // shape.stride[axis]) for axis in (0, 1)]
    padded = [
        max(margin[axis] + pixels[axis] + max(origin for _, origin in origins[axis]), margin[axis] + 1)
        for axis in (0, 1)
    ]
    image = _Image(channels, shape.out_height, shape.out_width, margin[0], margin[1], 1, 1, padded[0], 1, padded[1])
    phases = []
    for row in range(min(shape.stride[0], shape.height)):
        for column in range(min(shape.stride[1], shape.width)):
            rows, columns = reaching(0, row), reaching(1, column)
            table = [
                image.position(o, margin[0] + h, margin[1] + v)
                for o in range(channels)
                for _, h in rows
                for _, v in columns
            ]
            taps = [4 * (kh * shape.kernel[1] + kw) for kh, _ in rows for kw, _ in columns]
            phases.append(_Phase(row, column, _table(taps), _table(table)))
    return image, tuple(phases)


def _plan_short_input_gradient(shape: Convolution, dy: Array, w: Array, dx: Array, workers: int) -> launch.Plan:
    """dx without the terms that fall between the rows and columns of dy."""
    plan = launch.Plan()
    image, phases = _phase_plan(shape)
    rows, channels = shape.in_channels // shape.groups, image.channels
    pixels = shape.height * shape.width
    taps = shape.kernel[0] * shape.kernel[1]
    if any(len(phase.taps) == 0 for phase in phases):  # pixels that no kernel position reaches
        parameters = launch.record(kernels.SCAN, source=dx.ctypes.data, size=dx.size, block=SCAN_BLOCK)
        plan.add(kernels.clear, parameters, -(-dx.size // SCAN_BLOCK), workers)
    for phase in phases:
        if len(phase.taps) == 0:
            continue
        grid = _Grid(
            -(-(shape.height - phase.row) // shape.stride[0]), -(-(shape.width - phase.column) // shape.stride[1]),
            shape.stride[0] * shape.width, shape.stride[1],
        )  # fmt: skip
        for group in range(shape.groups):
            packed = _add_pack(
                plan, w.ctypes.data + 4 * group * channels * rows * taps, 4 * taps, 4 * rows * taps, channels,
                len(phase.taps), rows, workers, phase.taps.ctypes.data,
            )  # fmt: skip
            plan.keep(phase)
            source = dy.ctypes.data + 4 * group * channels * shape.out_height * shape.out_width
            out = dx.ctypes.data + 4 * (group * rows * pixels + phase.row * shape.width + phase.column)
            _add_gather(
                plan, image, source, shape.out_channels, shape.batch, packed, rows, phase.table, grid, 4 * image.line,
                out, 4 * shape.in_channels * pixels, 4 * pixels, workers,
            )  # fmt: skip
    return plan


class _Scan:
    """Whether an array holds a word w with w & mask == wanted."""

    def __init__(self, array: Array, mask: int, wanted: int, workers: int) -> None:
        self.found = np.zeros(1, np.int64)
        self.plan = launch.Plan()
        parameters = launch.record(
            kernels.SCAN, source=array.ctypes.data, size=array.size, block=SCAN_BLOCK, mask=mask, wanted=wanted,
            found=self.found.ctypes.data,
        )  # fmt: skip
        blocks = -(-array.size // SCAN_BLOCK)
        self.plan.add(kernels.find_word, parameters, blocks, workers if blocks > 1 else 1)

    def run(self) -> bool:
        self.found[0] = 0
        self.plan.run()
        return bool(self.found[0])


class InputGradientPlan:
    """`input_gradient` as a plan. Run it as often as the arrays, which it keeps alive, have new contents."""

    def __init__(self, shape: Convolution, dy: Array, w: Array, dx: Array, threads: int | None = None) -> None:
        _check("dy", dy, shape.y_shape)
        _check("w", w, shape.w_shape)
        _check("dx", dx, shape.x_shape)
        workers = isa.threads(threads)
        self._arrays = (dy, w, dx)
        self._full = _plan_full_input_gradient(shape, dy, w, dx, workers)
        self._short: launch.Plan | None = None
        if shape.stride != (1, 1):
            self._short = _plan_short_input_gradient(shape, dy, w, dx, workers)
            self._not_finite = _Scan(w, 0x7F800000, 0x7F800000, workers)
            self._negative_zero = _Scan(dx, 0xFFFFFFFF, 0x80000000, workers)

    def run(self) -> None:
        """Compute dx."""
        if self._short is not None and not self._not_finite.run():
            self._short.run()
            if not self._negative_zero.run():
                return
        self._full.run()


def input_gradient(shape: Convolution, dy: Array, w: Array, dx: Array, threads: int | None = None) -> None:
    """dx from dy and w, as the module's docstring orders it. Contiguous float32 arrays of the shape's sizes."""
    InputGradientPlan(shape, dy, w, dx, threads).run()


@lru_cache(maxsize=512)
def _window_table(shape: Convolution) -> Table:
    """The offsets of `_forward_plan`, filled up to whole row panels."""
    table = _forward_plan(shape)[1]
    return np.concatenate([table, np.zeros(row_panels(len(table))[3] - len(table), np.int64)])


def plan_weight_gradient(shape: Convolution, x: Array, dy: Array, dw: Array, threads: int | None = None) -> launch.Plan:
    """`weight_gradient` as a plan (see `plan_forward`)."""
    _check("x", x, shape.x_shape)
    _check("dy", dy, shape.y_shape)
    _check("dw", dw, shape.w_shape)
    workers = isa.threads(threads)
    plan = launch.Plan()
    plan.keep(x, dy, dw)
    image, table = _forward_plan(shape)
    window = _window_table(shape)
    plan.keep(window)
    rows, channels, pixels = len(table), shape.out_channels // shape.groups, shape.out_height * shape.out_width
    large, medium, small, padded = row_panels(rows)
    panels = large + medium + small
    columns = LANES if channels <= LANES else COLUMNS
    out_panels = -(-channels // columns)
    gradient_bytes = 4 * out_panels * pixels * columns
    chunk = max(1, min(shape.batch, PREPARED_BYTES // (image.bytes + gradient_bytes)))
    row_groups = min(panels, max(1, -(-4 * workers // out_panels)))
    memory = {
        "images": ("windows", chunk * image.bytes),
        "packed": ("gradients", chunk * gradient_bytes),
        "accumulators": ("accumulators", 4 * out_panels * padded * columns),
    }
    for group in range(shape.groups):
        source = x.ctypes.data + 4 * group * image.channels * shape.height * shape.width
        for first in range(0, shape.batch, chunk):
            batch = min(chunk, shape.batch - first)
            parameters = launch.record(
                kernels.WINDOWS, **image.fields(source, shape.in_channels), first_image=first, batch=batch,
                gradient=dy.ctypes.data + 4 * group * channels * pixels, columns=columns,
                gradient_image=4 * shape.out_channels * pixels, out_channels=channels, out_panels=out_panels,
                grid_height=shape.out_height, grid_width=shape.out_width, line_step=4 * image.line * shape.stride[0],
                table=window.ctypes.data, rows=rows, large=large, medium=medium, panels=panels, padded_rows=padded,
                row_groups=row_groups, out=dw.ctypes.data + 4 * group * channels * rows,
            )  # fmt: skip
            plan.add(kernels.prepare_windows, parameters, batch, workers, **memory)
            plan.add(kernels.accumulate_windows, parameters, row_groups * out_panels, workers)
        plan.add(kernels.store_windows, parameters, out_panels, workers)
    return plan


def weight_gradient(shape: Convolution, x: Array, dy: Array, dw: Array, threads: int | None = None) -> None:
    """dw from x and dy, as the module's docstring orders it. Contiguous float32 arrays of the shape's sizes."""
    plan_weight_gradient(shape, x, dy, dw, threads).run()
