"""Scratch memory with a page on either side that nobody may touch: a kernel that reads beyond it ends the process."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable

NO_ACCESS, PAGE = 0, mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def guarded_scratch(at_start: bool) -> Callable[[str, int], int]:
    """A stand-in for `launch.scratch`: memory that begins, or ends, beside a page without access."""
    kept: dict[tuple[str, int], tuple[mmap.mmap, int]] = {}

    def scratch(name: str, size: int) -> int:
        if (name, size) not in kept:
            pages = -(-size // PAGE)
            region = mmap.mmap(-1, (pages + 2) * PAGE)
            begin = ctypes.addressof(ctypes.c_char.from_buffer(region))
            for edge in (begin, begin + (pages + 1) * PAGE):
                if _libc.mprotect(edge, PAGE, NO_ACCESS) != 0:
                    raise OSError(ctypes.get_errno(), "mprotect")
            inside = begin + PAGE if at_start else begin + (pages + 1) * PAGE - (size + 63) // 64 * 64
            kept[name, size] = (region, inside)
        return kept[name, size][1]

    return scratch


def main() -> None:
    """Train a few steps of a task whose padding reads rows of scratch under a condition: EDGE is start or end."""
    import sys

    import numpy as np
    import torch
    from torch import nn

    from assay.engine.cpu import launch
    from assay.engine.cpu.device import CpuDevice
    from assay.engine.cpu.launches import LoopLaunch
    from assay.group.compression.choice import parse_compression
    from assay.group.compression.crossing import compress_boundaries
    from assay.program.lowering import lower_step
    from assay.program.optimizer import SGD
    from assay.program.trace import trace
    from assay.training.canonical import CanonicalRun

    launch.scratch = guarded_scratch(sys.argv[1] == "start")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.GELU(), nn.Linear(16, 3))
    batch = [torch.randn(32, 2), torch.randint(0, 3, (32,))]
    # Rows of 16 values are filled up to groups of 128.
    compress_boundaries(model, ["1"], parse_compression(sys.argv[2]), batch[:1], 64, 4)
    traced = trace(model, "cross_entropy", SGD(0.1), batch, 64)
    data = (torch.randn(64, 2).numpy(), torch.randint(0, 3, (64,)).numpy().astype(np.int32))
    run = CanonicalRun(lower_step(traced.graph), data, 1, CpuDevice(1))
    loops = [each for each in run._executable.launches if isinstance(each, LoopLaunch)]  # type: ignore[attr-defined]
    assert any(each.kernel.scratch_bytes and each.kernel.tasks > 1 for each in loops)
    run.load(traced.initial_state)
    for number in range(4):
        run.step(number)
    sys.stdout.write("done")


if __name__ == "__main__":
    main()
