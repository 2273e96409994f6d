"""Random numbers and data order at speed: the bits of `philox` and `permutation`, for whole arrays.

numba treats uint64 mixed with a signed integer as float64, so every constant below is a uint64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from assay.arithmetic import binary32, native
from assay.arithmetic.permutation import COUNT_LIMIT, KEY_WORDS, ROUNDS, permutation_key
from assay.arithmetic.philox import KEY_INCREMENTS, MULTIPLIERS
from assay.arithmetic.philox import ROUNDS as PHILOX_ROUNDS

_M0, _M1 = (np.uint64(value) for value in MULTIPLIERS)
_W0, _W1 = (np.uint64(value) for value in KEY_INCREMENTS)
_MASK = np.uint64(binary32.WORD_MASK)
_U2, _U3, _U8, _U32, _ONE64 = np.uint64(2), np.uint64(3), np.uint64(8), np.uint64(32), np.uint64(1)
_F1 = np.float32(1.0)
_TWO_TO_MINUS_24 = np.float32(2.0**-24)
_TWO_PI = np.float32(2.0 * np.pi)
_MINUS_TWO = np.float32(-2.0)


@njit(forceinline=True, error_model="numpy")
def _block(seed: Any, step: Any, stream: Any, group: Any) -> Any:
    """The four words of a block, as uint64 values below 2**32. All arguments are uint64."""
    c0, c1, c2, c3 = group, stream, step & _MASK, step >> _U32
    k0, k1 = seed & _MASK, seed >> _U32
    for _ in range(PHILOX_ROUNDS):
        product_low = _M0 * c0
        product_high = _M1 * c2
        c0, c1, c2, c3 = (
            (product_high >> _U32) ^ c1 ^ k0,
            product_high & _MASK,
            (product_low >> _U32) ^ c3 ^ k1,
            product_low & _MASK,
        )
        k0 = (k0 + _W0) & _MASK
        k1 = (k1 + _W1) & _MASK
    return c0, c1, c2, c3


@njit(forceinline=True, error_model="numpy")
def _uniform(word: Any) -> Any:
    return np.float32(np.int32(word >> _U8)) * _TWO_TO_MINUS_24


@njit(nogil=True, error_model="numpy")
def _fill_words(seed: Any, step: Any, stream: Any, first: Any, target: Any) -> None:
    group = ~np.uint64(0)  # no block yet
    w0 = w1 = w2 = w3 = np.uint64(0)
    for i in range(target.size):
        element = first + np.uint64(i)
        if element >> _U2 != group:
            group = element >> _U2
            w0, w1, w2, w3 = _block(seed, step, stream, group)
        lane = element & _U3
        target[i] = w0 if lane == np.uint64(0) else w1 if lane == _ONE64 else w2 if lane == _U2 else w3


@njit(nogil=True, error_model="numpy")
def _fill_uniforms(words: Any, target: Any) -> None:
    for i in range(target.size):
        target[i] = _uniform(np.uint64(words[i]))


@njit(nogil=True, error_model="numpy")
def _fill_normals(words: Any, target: Any) -> None:
    """Words of whole pairs to their normal variates."""
    for pair in range(target.size // 2):
        u = _uniform(np.uint64(words[2 * pair]))
        v = _uniform(np.uint64(words[2 * pair + 1]))
        radius = native.sqrt(_MINUS_TWO * native.log(_F1 - u))
        angle = _TWO_PI * v
        target[2 * pair] = radius * native.cos(angle)
        target[2 * pair + 1] = radius * native.sin(angle)


def philox_words(seed: int, step: int, stream: int, first: int, count: int) -> NDArray[np.uint32]:
    """Random words of elements first .. first + count - 1, as `philox.philox` defines them; first + count <= 2**32."""
    words = np.empty(count, dtype=np.uint32)
    _fill_words(np.uint64(seed), np.uint64(step), np.uint64(stream), np.uint64(first), words)
    return words


def uniforms(seed: int, step: int, stream: int, first: int, count: int) -> NDArray[np.float32]:
    """Uniform variates in [0, 1) of elements first .. first + count - 1, as `philox.uniform` defines them."""
    target = np.empty(count, dtype=np.float32)
    _fill_uniforms(philox_words(seed, step, stream, first, count), target)
    return target


def normals(seed: int, step: int, stream: int, first: int, count: int) -> NDArray[np.float32]:
    """Standard normal variates of elements first .. first + count - 1, as `philox.normal` defines them."""
    start = first & ~1
    end = (first + count + 1) & ~1
    target = np.empty(end - start, dtype=np.float32)
    _fill_normals(philox_words(seed, step, stream, start, end - start), target)
    return target[first - start : first - start + count]


@njit(nogil=True, error_model="numpy")
def _fill_permutation(factors: Any, summands: Any, bits: Any, count: Any, first: Any, target: Any) -> None:
    mask = (_ONE64 << bits) - _ONE64
    shift = (bits + _ONE64) >> _ONE64
    for i in range(target.size):
        x = first + np.uint64(i)
        while True:
            for r in range(ROUNDS):
                x = ((x + summands[r]) * factors[r]) & mask
                x ^= x >> shift
            if x < count:
                break
        target[i] = np.int64(x)


def permutations(seed: int, epoch: int, first: int, number: int, count: int) -> NDArray[np.int64]:
    """Samples at positions first .. first + number - 1 of an epoch, as `permutation.permutation` defines them.

    `count` is the size of the data set, 1 to 2**31 - 1; raises `ValueError` for other sizes and positions outside it.
    """
    if not 1 <= count < COUNT_LIMIT:
        raise ValueError(f"count is {count}; expected 1 to {COUNT_LIMIT - 1}")
    if first < 0 or number < 0 or first + number > count:
        raise ValueError(f"positions {first} to {first + number - 1} leave the data set of {count} samples")
    if count == 1:
        return np.zeros(number, dtype=np.int64)
    key = np.array(permutation_key(seed, epoch), dtype=np.uint64)
    summands = key[[3 * r % KEY_WORDS for r in range(ROUNDS)]]
    factors = key[[(3 * r + 1) % KEY_WORDS for r in range(ROUNDS)]] | _ONE64
    target = np.empty(number, dtype=np.int64)
    _fill_permutation(
        factors, summands, np.uint64((count - 1).bit_length()), np.uint64(count), np.uint64(first), target
    )
    return target
