# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, attr-defined, unreachable, var-annotated"
"""The input gradient of max pooling.

For one input element the fold runs over kernel positions in order, that is over the windows that hold it from the last
one back to the first. So does a loop over all windows from last to first that adds each window's gradient to the one
element that was its maximum; it touches each window once instead of once for every element.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import carray

from assay.engine.cpu import isa, launch
from assay.engine.cpu.vector import read_f32, read_i32, read_i64, write_f32
from assay.engine.pooling_pattern import PoolingGradient

TASK_BYTES = 1 << 16

_POOLING = launch.record_type(
    "numbers", "gradient", "out", "planes", "height", "width", "out_height", "out_width", "kernel_height",
    "kernel_width", "row_stride", "column_stride", "top", "left", "places", "group",
)  # fmt: skip


@launch.kernel(_POOLING)
def _max_pool_gradient(parameters, task, worker):
    p = carray(parameters, 1)[0]
    for plane in range(task * p.group, min((task + 1) * p.group, p.planes)):
        out = p.out + 4 * plane * p.height * p.width
        for place in range(p.height * p.width):
            write_f32(out + 4 * place, np.float32(0))
        last = (plane + 1) * p.out_height * p.out_width - 1
        for i in range(p.out_height - 1, -1, -1):
            for j in range(p.out_width - 1, -1, -1):
                number = np.int64(read_i32(p.numbers + 4 * last))
                value = read_f32(p.gradient + 4 * last)
                last -= 1
                if number < 0 or number >= p.kernel_height * p.kernel_width:
                    continue
                h = i * p.row_stride - p.top + read_i64(p.places + 16 * number)
                v = j * p.column_stride - p.left + read_i64(p.places + 16 * number + 8)
                if h >= 0 and h < p.height and v >= 0 and v < p.width:
                    target = out + 4 * (h * p.width + v)
                    write_f32(target, read_f32(target) + value)


def plan_max_pool_gradient(
    pattern: PoolingGradient,
    numbers: npt.NDArray[np.int32],
    gradient: npt.NDArray[np.float32],
    out: npt.NDArray[Any],
    threads: int | None = None,
) -> launch.Plan:
    """A plan that computes `out` (planes, height, width) from contiguous `numbers` and `gradient` (planes, out_height,
    out_width), which it keeps alive."""
    plan = launch.Plan()
    # where in its window each kernel position lies; looked up, since the numbers are too random to branch on
    places = np.array(
        [(h * pattern.dilation[0], v * pattern.dilation[1]) for h, v in np.ndindex(*pattern.kernel)], np.int64
    )
    plan.keep(numbers, gradient, out, places)
    group = max(1, TASK_BYTES // (4 * pattern.height * pattern.width))
    record = launch.record(
        _POOLING, numbers=numbers.ctypes.data, gradient=gradient.ctypes.data, out=out.ctypes.data,
        planes=pattern.planes, height=pattern.height, width=pattern.width, out_height=pattern.out_height,
        out_width=pattern.out_width, kernel_height=pattern.kernel[0], kernel_width=pattern.kernel[1],
        row_stride=pattern.stride[0], column_stride=pattern.stride[1], top=pattern.padding[0], left=pattern.padding[1],
        places=places.ctypes.data, group=group,
    )  # fmt: skip
    plan.add(_max_pool_gradient, record, -(-pattern.planes // group), isa.threads(threads))
    return plan
