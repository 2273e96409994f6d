"""Kernels can be loaded where the address space has no room left in one place, as after CUDA has started."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes

from assay.engine.cpu import jit

library = ctypes.CDLL(None)
library.mmap.restype = ctypes.c_void_p
library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * [ctypes.c_int], ctypes.c_long]
library.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def reserve(size: int) -> int:
    return library.mmap(None, size, 0, 0x4022, -1, 0)  # private, anonymous, no memory behind it


def fill(above: int) -> None:
    for bits in range(30, 11, -1):
        while reserve(1 << bits) >= above:
            pass


jit._jit()  # what it needs itself finds room
fill(reserve(8 << 30))
block = reserve(8 << 30)
fill(block)
library.munmap(block + (7 << 30), 4096)  # a page for the code, and nothing near it for the constants

numbers = [float(n) + 0.5 for n in range(8)]
constants = ", ".join(f"float {number}" for number in numbers)
kernel = jit.CompiledLoops(f'''
define void @kernel(ptr %record, i64 %task, i64 %worker) {{
  %read = load <8 x float>, ptr %record, align 4
  %product = fmul <8 x float> %read, <{constants}>
  store <8 x float> %product, ptr %record, align 4
  ret void
}}
''')
values = (ctypes.c_float * 8)(*8 * [2.0])
ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)(kernel.address)(ctypes.addressof(values), 0, 0)
assert list(values) == [2 * number for number in numbers]
"""


def test_a_kernel_is_loaded_where_memory_is_scattered() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
