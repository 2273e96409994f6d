# mypy: disable-error-code="attr-defined"
"""Which vector instructions the kernels use, and how many threads.

`ASSAY_SIMD` forces a narrower set than the machine has (for tests, and to rule the vector unit out when two machines
disagree): `avx512`, `avx2` or `generic` (128-bit vectors). `ASSAY_THREADS` sets the default number of threads.
Neither may change a single bit of any result.

The choice is given to numba as its target processor, so that it is part of the key of every cached kernel. numba reads
it once, when the first function is compiled: import this module before anything that uses `@njit`.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from typing import ClassVar

import llvmlite.binding as llvm
from numba.core import config, registry

from assay.errors import AssayError


class SimdError(AssayError):
    """`ASSAY_SIMD` or `ASSAY_THREADS` asks for something this machine or process cannot give."""

    code = "simd"


@dataclass(frozen=True)
class VectorUnit:
    """A set of vector instructions and the register tile that suits it.

    The matrix tile holds `rows` x (`vectors` * `lanes`) accumulators; remainders of rows use tiles of 2/3 and 1/3 of
    `rows`, so `rows` is divisible by 3.
    """

    name: str
    lanes: int  # binary32 values in one vector
    rows: int
    vectors: int

    @property
    def columns(self) -> int:
        """Columns of the matrix tile."""
        return self.lanes * self.vectors

    @property
    def row_unit(self) -> int:
        """Rows of the smallest matrix tile."""
        return self.rows // 3


VECTOR_UNITS: dict[str, VectorUnit] = {
    "avx512": VectorUnit("avx512", lanes=16, rows=12, vectors=2),
    "avx2": VectorUnit("avx2", lanes=8, rows=6, vectors=2),
    "generic": VectorUnit("generic", lanes=4, rows=6, vectors=2),
}

_REQUIRED_FEATURES = {
    "avx512": ("avx512f", "avx512vl", "avx512bw", "avx512dq", "fma"),
    "avx2": ("avx2", "fma"),
    "generic": (),
}

_WIDER_THAN_AVX2 = ("avx512", "avx10", "amx")
_WIDER_THAN_GENERIC = (
    *_WIDER_THAN_AVX2,
    "avx2",
    "vaes",
    "vpclmulqdq",
    "gfni",
    "xop",
    "fma4",
    "avxvnni",
    "avxifma",
    "avxneconvert",
)


def host_features() -> dict[str, bool]:
    """Features of this machine's processor by LLVM's names; empty where LLVM cannot tell."""
    try:
        return dict(llvm.get_host_cpu_features())
    except RuntimeError:
        return {}


def supported_units() -> list[str]:
    """Names of the vector units this machine can run, widest first."""
    features = host_features()
    return [name for name, needed in _REQUIRED_FEATURES.items() if all(features.get(each, False) for each in needed)]


def _restrict_numba(name: str) -> None:
    """Make numba compile for `name` although the machine has more."""
    banned = _WIDER_THAN_AVX2 if name == "avx2" else _WIDER_THAN_GENERIC
    features = host_features()
    kept = ["+" + each for each, present in features.items() if present and not each.startswith(banned)]
    dropped = ["-" + each for each in features if each.startswith(banned)]
    features_wanted = ",".join(kept + dropped)
    name_wanted = "x86-64-v3" if name == "avx2" else "x86-64-v2"
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return  # 128-bit vectors are the host's own there
    if (name_wanted, features_wanted) == (config.CPU_NAME, config.CPU_FEATURES):
        return
    if "_toplevel_target_context" in vars(registry.cpu_target):
        raise SimdError(
            f"ASSAY_SIMD={name} comes too late: numba has already compiled for this machine's own processor; "
            "import assay.engine.cpu.isa before any other module that uses numba"
        )
    config.CPU_NAME = name_wanted
    config.CPU_FEATURES = features_wanted


def _choose() -> VectorUnit:
    supported = supported_units()
    wanted = os.environ.get("ASSAY_SIMD", "").strip().lower() or supported[0]
    if wanted not in VECTOR_UNITS:
        raise SimdError(f"ASSAY_SIMD={wanted!r} is unknown: use one of {', '.join(supported)}, or leave it out")
    if wanted not in supported:
        raise SimdError(f"ASSAY_SIMD={wanted} needs instructions this machine lacks: use one of {', '.join(supported)}")
    if wanted != supported[0]:
        _restrict_numba(wanted)
    return VECTOR_UNITS[wanted]


class _Threads:
    """The process-wide default number of threads."""

    count: ClassVar[int] = 0


def available_threads() -> int:
    """Processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def threads(count: int | None = None) -> int:
    """`count` if given, otherwise the default: `set_threads`, then `ASSAY_THREADS`, then every processor."""
    if count is not None:
        if count < 1:
            raise SimdError(f"a kernel runs on at least one thread, not {count}: give a positive number or none")
        return count
    if not _Threads.count:
        text = os.environ.get("ASSAY_THREADS", "").strip()
        if text and (not text.isdigit() or int(text) < 1):
            raise SimdError(f"ASSAY_THREADS={text!r} is not a positive number: correct it or leave it out")
        _Threads.count = int(text) if text else available_threads()
    return _Threads.count


def set_threads(count: int) -> None:
    """Set the default number of threads of this process. Results do not depend on it."""
    _Threads.count = threads(count)


UNIT: VectorUnit = _choose()
"""The vector unit of this process."""
