"""Operands for differential tests of binary32, and two oracles that owe nothing to this project.

The oracles: the machine's float unit (numpy, and the C library's ``fmaf``), and for ``fma`` exact integers as well.
Patterns are ``uint32`` arrays throughout; operand arrays have shape ``(cases, arity)``.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Patterns = NDArray[np.uint32]

NAN = np.uint32(0x7FC00000)

# Zeros, the ends of the subnormal and normal ranges, powers of two around one, halves and neighbours, infinities, NaNs.
SPECIAL = np.array(
    [
        pattern | sign
        for pattern in (
            *(0x00000000, 0x00000001, 0x00000002, 0x00000003, 0x00400000, 0x007FFFFE, 0x007FFFFF),
            *(0x00800000, 0x00800001, 0x00FFFFFF, 0x01000000, 0x0B800000, 0x0C000000, 0x1FFFFFFF),
            *(0x33800000, 0x34000000, 0x3F000000, 0x3F7FFFFF, 0x3F800000, 0x3F800001, 0x3FC00000),
            *(0x40000000, 0x40490FDB, 0x4B000000, 0x4B7FFFFF, 0x4B800000, 0x4EFFFFFF, 0x4F000000),
            *(0x4F000001, 0x5F800000, 0x7E800000, 0x7F000000, 0x7F7FFFFE, 0x7F7FFFFF, 0x7F800000),
            *(0x7F800001, 0x7FC00000, 0x7FFFFFFF),
        )
        for sign in (0, 0x80000000)
    ],
    dtype=np.uint32,
)


@dataclass(frozen=True)
class Operation:
    """A scalar operation: its body code in contracts/FORMAT.md, its number of operands and its oracle."""

    name: str
    code: int
    arity: int
    oracle: Callable[[Patterns], Patterns]


def canonical(values: NDArray[np.float32]) -> Patterns:
    """Patterns of float32 values, every NaN as 0x7fc00000."""
    patterns = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return np.where(np.isnan(values), NAN, patterns).astype(np.uint32)


def _floats(function: Callable[..., NDArray[np.float32]]) -> Callable[[Patterns], Patterns]:
    def oracle(operands: Patterns) -> Patterns:
        with np.errstate(all="ignore"):
            return canonical(function(*np.ascontiguousarray(operands.T).view(np.float32)))

    return oracle


def _truths(function: Callable[..., NDArray[np.bool_]]) -> Callable[[Patterns], Patterns]:
    def oracle(operands: Patterns) -> Patterns:
        return function(*np.ascontiguousarray(operands.T).view(np.float32)).astype(np.uint32)

    return oracle


def _either_nan(a: NDArray[np.float32], b: NDArray[np.float32], chosen: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(np.isnan(a) | np.isnan(b), np.float32(np.nan), chosen)


def _to_int32(operands: Patterns) -> Patterns:
    with np.errstate(invalid="ignore"):  # signalling NaNs
        values = np.ascontiguousarray(operands[:, 0]).view(np.float32).astype(np.float64)
    whole = np.clip(np.trunc(np.where(np.isnan(values), 0.0, values)), -(2.0**31), 2.0**31 - 1)
    return whole.astype(np.int64).astype(np.int32).view(np.uint32)


def _from_int32(operands: Patterns) -> Patterns:
    return np.ascontiguousarray(operands[:, 0]).view(np.int32).astype(np.float32).view(np.uint32)


_FMAF = ctypes.CDLL(ctypes.util.find_library("m") or "libm.so.6").fmaf
_FMAF.argtypes = [ctypes.c_float] * 3
_FMAF.restype = ctypes.c_float


def fma_by_machine(operands: Patterns) -> Patterns:
    """a * b + c with one rounding, by the C library's ``fmaf`` (the processor's own instruction where it has one)."""
    columns = [column.tolist() for column in np.ascontiguousarray(operands.T).view(np.float32)]
    return canonical(np.array([_FMAF(a, b, c) for a, b, c in zip(*columns, strict=True)], dtype=np.float32))


def by_softfloat(operation: Operation) -> Callable[[Patterns], Patterns] | None:
    """Berkeley SoftFloat as oracle, where it is installed and has the operation."""
    try:
        import softfloatpy  # an extra oracle, not a dependency
    except ImportError:
        return None
    name = {"fma": "mul_add"}.get(operation.name, operation.name)
    function = getattr(softfloatpy, f"f32_{name}", None)
    if operation.name not in ("add", "sub", "mul", "div", "sqrt", "fma") or function is None:
        return None

    def value(pattern: int) -> object:
        return softfloatpy.Float32.from_bytes(pattern.to_bytes(4, "big"))

    def oracle(operands: Patterns) -> Patterns:
        results = [function(*map(value, row)).to_bytes() for row in operands.tolist()]
        return canonical(np.frombuffer(b"".join(results), dtype=">u4").astype(np.uint32).view(np.float32))

    return oracle


def fma_by_integers(operands: Patterns) -> Patterns:
    """a * b + c with one rounding, in exact integers, straight from the standard's definition."""
    return np.array([_fma_exactly(*map(int, row)) for row in operands], dtype=np.uint32)


def _fma_exactly(a: int, b: int, c: int) -> int:
    nan, infinity, top = int(NAN), 0x7F800000, 0x80000000
    sizes = [pattern & 0x7FFFFFFF for pattern in (a, b, c)]
    if max(sizes) > infinity:
        return nan
    sign = (a ^ b) & top
    if infinity in sizes[:2]:
        if 0 in sizes[:2] or (sizes[2] == infinity and c & top != sign):
            return nan
        return sign | infinity
    if sizes[2] == infinity:
        return c
    # Every finite value is a whole multiple of 2^-149, every product of 2^-298.
    x, y, z = ((-1) ** (pattern >> 31) * _multiple(pattern & 0x7FFFFFFF) for pattern in (a, b, c))
    total = x * y + (z << 149)
    if total == 0:
        return sign & c & top if sizes[2] == 0 else 0
    return (top if total < 0 else 0) | _nearest(abs(total))


def _multiple(size: int) -> int:
    """A finite magnitude in units of 2^-149."""
    exponent, fraction = size >> 23, size & 0x7FFFFF
    return fraction if exponent == 0 else (fraction | 0x800000) << (exponent - 1)


def _nearest(total: int) -> int:
    """The pattern nearest to ``total`` units of 2^-298, ties to even."""
    drop = max(total.bit_length() - 24, 149)
    whole, rest = total >> drop, total & ((1 << drop) - 1)
    half = 1 << (drop - 1)
    whole += rest > half or (rest == half and whole & 1)
    return min(((drop - 149) << 23) + whole, 0x7F800000)


OPERATIONS: tuple[Operation, ...] = (
    Operation("add", 0x02, 2, _floats(np.add)),
    Operation("sub", 0x03, 2, _floats(np.subtract)),
    Operation("mul", 0x04, 2, _floats(np.multiply)),
    Operation("div", 0x05, 2, _floats(np.divide)),
    Operation("sqrt", 0x06, 1, _floats(np.sqrt)),
    Operation("fma", 0x07, 3, fma_by_machine),
    Operation("neg", 0x08, 1, _floats(np.negative)),
    Operation("abs", 0x09, 1, _floats(np.abs)),
    Operation("max", 0x0A, 2, _floats(lambda a, b: _either_nan(a, b, np.where(a > b, a, b)))),
    Operation("min", 0x0B, 2, _floats(lambda a, b: _either_nan(a, b, np.where(a < b, a, b)))),
    Operation("eq", 0x0C, 2, _truths(np.equal)),
    Operation("lt", 0x0D, 2, _truths(np.less)),
    Operation("le", 0x0E, 2, _truths(np.less_equal)),
    Operation("to_int", 0x11, 1, _to_int32),
    Operation("to_float", 0x12, 1, _from_int32),
)


def special_cases(arity: int) -> Patterns:
    """Every combination of the special patterns (for three operands: every triple)."""
    return np.array(list(itertools.product(SPECIAL.tolist(), repeat=arity)), dtype=np.uint32)


def random_cases(arity: int, count: int, seed: int) -> Patterns:
    """``count`` cases, a sixth each: any, near exponents, cancelling, ends of the range, few bits, special patterns."""
    generator = np.random.default_rng(seed)
    shape = (count // 6 + 1, arity)
    whole = generator.integers(0, 2**32, shape, dtype=np.uint32)

    def fraction() -> Patterns:
        return generator.integers(0, 2**32, shape, dtype=np.uint32) & np.uint32(0x807FFFFF)

    near = fraction() | (generator.integers(100, 156, shape, dtype=np.uint32) << 23)
    cancelling = near.copy()
    if arity == 2:
        cancelling[:, 1] = cancelling[:, 0] + generator.integers(-9, 10, shape[0]).astype(np.uint32)
        cancelling[:, 1] ^= generator.integers(0, 2, shape[0], dtype=np.uint32) << np.uint32(31)
    elif arity == 3:
        product = np.ascontiguousarray(near[:, 0]).view(np.float32) * np.ascontiguousarray(near[:, 1]).view(np.float32)
        cancelling[:, 2] = product.view(np.uint32) + generator.integers(-9, 10, shape[0]).astype(np.uint32)
        cancelling[:, 2] ^= generator.integers(0, 2, shape[0], dtype=np.uint32) << np.uint32(31)
    ends = generator.choice(
        np.array([0, 1, 2, 24, 25, 62, 63, 64, 65, 126, 127, 128, 190, 191, 230, 252, 253, 254], dtype=np.uint32), shape
    )
    ends = fraction() | (ends << 23)
    few = (fraction() & np.uint32(0x80700001)) | (generator.integers(90, 166, shape, dtype=np.uint32) << 23)
    special = np.where(generator.integers(0, 2, shape) == 0, generator.choice(SPECIAL, shape), near)
    return np.concatenate([whole, near, cancelling, ends, few, special])[:count].astype(np.uint32)


def pack(patterns: Patterns) -> bytes:
    """Patterns as the harness reads and writes them: big-endian words of four bytes."""
    return patterns.astype(">u4").tobytes()


def unpack(data: bytes) -> Patterns:
    """The inverse of :func:`pack`, flat."""
    return np.frombuffer(data, dtype=">u4").astype(np.uint32)
