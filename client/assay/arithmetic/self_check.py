"""Does this machine compute `binary32-1`? One digest over every native scalar operation, random numbers and data order.

The operands are fixed: all pairs of the special values of the golden vectors, then Philox words, as they come
and with exponents close together. `EXPECTED_DIGEST` is the digest of the reference's results, which use no
floating-point unit. A difference means that this process rounds otherwise, flushes subnormals, or runs a
compiler that does not do what it is asked; it must not make claims.

    python -m assay.arithmetic.self_check       prints the reference's digest (seconds) and the machine's
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from numba import njit

from assay.arithmetic import binary32, native, native_random, transcendental, vectors
from assay.arithmetic.permutation import permutation
from assay.arithmetic.philox import normal, philox

EXPECTED_DIGEST = "a7a49ee768cf3e84927892a39a2881632caaf7a416b90644daedeff82fe584e8"

_SEED = vectors.SEED
_STREAM = 64
_RANDOM = 600
_COUNT = 1009  # samples of the data order checked


@cache
def operands() -> tuple[tuple[int, int, int], ...]:
    """Triples of words (a, b, c) that every operation is run on."""
    triples = [(a, b, b) for a, b in product(vectors.SPECIALS, vectors.SPECIALS)]
    random = vectors.RandomWords(_STREAM)
    triples += [(random.word(), random.word(), random.word()) for _ in range(_RANDOM)]
    triples += [(random.float_near_one(), random.float_near_one(), random.float_near_one()) for _ in range(_RANDOM)]
    return tuple(triples)


def _digest(columns: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for column in columns:
        digest.update(column)
    return digest.hexdigest()


def reference_digest() -> str:
    """The digest from the reference arithmetic."""
    functions: list[Any] = [
        lambda a, b, c: binary32.fma(a, b, c),
        lambda a, b, c: binary32.add(a, b),
        lambda a, b, c: binary32.sub(a, b),
        lambda a, b, c: binary32.mul(a, b),
        lambda a, b, c: binary32.div(a, b),
        lambda a, b, c: binary32.maximum(a, b),
        lambda a, b, c: binary32.minimum(a, b),
        lambda a, b, c: binary32.sqrt(a),
        lambda a, b, c: binary32.int_to_float(binary32.float_to_int(a)),
        lambda a, b, c: binary32.int_to_float(a),
        lambda a, b, c: transcendental.exp(a),
        lambda a, b, c: transcendental.log(a),
        lambda a, b, c: transcendental.tanh(a),
        lambda a, b, c: transcendental.erf(a),
        lambda a, b, c: transcendental.sin(a),
        lambda a, b, c: transcendental.cos(a),
    ]
    columns = [[function(*triple) for triple in operands()] for function in functions]
    columns.append([philox(_SEED, 1, _STREAM, element) for element in range(_RANDOM)])
    columns.append([normal(_SEED, 1, _STREAM, element) for element in range(_RANDOM)])
    columns.append([permutation(_SEED, 1, position, _COUNT) for position in range(_COUNT)])
    return _digest(struct.pack(f"<{len(column)}I", *column) for column in columns)


@cache
def _kernel() -> Any:
    @njit(error_model="numpy")
    def kernel(a: Any, b: Any, c: Any, results: Any) -> None:
        for i in range(a.size):
            results[0, i] = native.fma(a[i], b[i], c[i])
            results[1, i] = a[i] + b[i]
            results[2, i] = a[i] - b[i]
            results[3, i] = a[i] * b[i]
            results[4, i] = native.div(a[i], b[i])
            results[5, i] = native.maximum(a[i], b[i])
            results[6, i] = native.minimum(a[i], b[i])
            results[7, i] = native.sqrt(a[i])
            results[8, i] = native.int_to_float(native.float_to_int(a[i]))
            results[9, i] = native.int_to_float(native.bits_of(a[i]))
        for i in range(a.size):
            results[10, i] = native.exp(a[i])
            results[11, i] = native.log(a[i])
            results[12, i] = native.tanh(a[i])
            results[13, i] = native.erf(a[i])
            results[14, i] = native.sin(a[i])
            results[15, i] = native.cos(a[i])

    return kernel


def native_digest() -> str:
    """The digest from this machine's floating-point unit, in the calling thread; the first call compiles."""
    a, b, c = (np.array(column, dtype=np.uint32).view(np.float32) for column in zip(*operands(), strict=True))
    results = np.empty((16, a.size), dtype=np.float32)
    _kernel()(a, b, c, results)
    native.canonicalize(results)
    return _digest(
        [
            results.astype("<f4", copy=False).tobytes(),
            native_random.philox_words(_SEED, 1, _STREAM, 0, _RANDOM).astype("<u4").tobytes(),
            native_random.normals(_SEED, 1, _STREAM, 0, _RANDOM).astype("<f4").tobytes(),
            native_random.permutations(_SEED, 1, 0, _COUNT, _COUNT).astype("<u4").tobytes(),
        ]
    )


def self_check() -> bool:
    """Whether this machine, in the calling thread, computes the bits of `binary32-1`."""
    return native_digest() == EXPECTED_DIGEST


if __name__ == "__main__":
    print(f"reference {reference_digest()}\nmachine   {native_digest()}\nexpected  {EXPECTED_DIGEST}")
