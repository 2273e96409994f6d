"""Native scalar operations, random numbers and data order against the reference, and the machine's self-check."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from arithmetic_words import canonical_words, random_words
from numba import njit

from assay.arithmetic import binary32, native, native_random, permutation, philox, self_check


def test_native_fma_division_root_and_extrema_are_those_of_the_reference() -> None:
    words = [random_words(seed, 1500) for seed in (21, 22, 23)]
    a, b, c = (column.view(np.float32) for column in words)
    results = np.empty((5, a.size), dtype=np.float32)

    @njit(error_model="numpy")
    def kernel(a, b, c, results):  # type: ignore[no-untyped-def]
        for i in range(a.size):
            results[0, i] = native.fma(a[i], b[i], c[i])
            results[1, i] = native.div(a[i], b[i])
            results[2, i] = native.sqrt(a[i])
            results[3, i] = native.maximum(a[i], b[i])
            results[4, i] = native.minimum(a[i], b[i])

    kernel(a, b, c, results)
    triples = list(zip(*(column.tolist() for column in words), strict=True))
    expected = [
        [binary32.fma(x, y, z) for x, y, z in triples],
        [binary32.div(x, y) for x, y, _ in triples],
        [binary32.sqrt(x) for x, _, _ in triples],
        [binary32.maximum(x, y) for x, y, _ in triples],
        [binary32.minimum(x, y) for x, y, _ in triples],
    ]
    for row, column in zip(results, expected, strict=True):
        assert canonical_words(row).tolist() == column


def test_native_conversions_are_those_of_the_reference() -> None:
    words = np.concatenate(
        [random_words(24, 1500), np.array([0x4EFFFFFF, 0x4F000000, 0xCF000000, 0xCF000001], np.uint32)]
    )
    truncated = np.empty(words.size, dtype=np.int32)
    converted = np.empty(words.size, dtype=np.float32)

    @njit(error_model="numpy")
    def kernel(floats, ints, truncated, converted):  # type: ignore[no-untyped-def]
        for i in range(floats.size):
            truncated[i] = native.float_to_int(floats[i])
            converted[i] = native.int_to_float(ints[i])

    kernel(words.view(np.float32), words.view(np.int32), truncated, converted)
    assert truncated.view(np.uint32).tolist() == [binary32.float_to_int(word) for word in words.tolist()]
    assert converted.view(np.uint32).tolist() == [binary32.int_to_float(word) for word in words.tolist()]


@pytest.mark.parametrize("first", [0, 1, 2, 3, 1001])
def test_random_arrays_are_those_of_the_reference_wherever_they_start(first: int) -> None:
    seed, step, stream, count = (7 << 40) | 99, (3 << 33) | 5, 17, 21
    elements = range(first, first + count)
    words = native_random.philox_words(seed, step, stream, first, count)
    assert words.tolist() == [philox.philox(seed, step, stream, e) for e in elements]
    uniforms = native_random.uniforms(seed, step, stream, first, count)
    assert uniforms.view(np.uint32).tolist() == [philox.uniform(seed, step, stream, e) for e in elements]
    normals = native_random.normals(seed, step, stream, first, count)
    assert normals.view(np.uint32).tolist() == [philox.normal(seed, step, stream, e) for e in elements]


def test_normal_variates_have_the_moments_of_the_normal_distribution() -> None:
    values = native_random.normals(3, 0, 0, 0, 1 << 18).astype(np.float64)
    tolerance = 5 / np.sqrt(values.size)  # five standard errors
    assert abs(values.mean()) < tolerance
    assert abs((values**2).mean() - 1) < tolerance * np.sqrt(2)
    assert abs((values**3).mean()) < tolerance * np.sqrt(15)
    assert abs((values**4).mean() - 3) < tolerance * np.sqrt(96)
    assert np.abs(values).max() < 5.78


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 257, 1000, 1009])
def test_native_data_order_is_that_of_the_reference(count: int) -> None:
    order = native_random.permutations(5, 2, 0, count, count).tolist()
    assert order == [permutation.permutation(5, 2, position, count) for position in range(count)]


def test_native_data_order_can_start_anywhere_and_refuses_to_leave_the_data() -> None:
    whole = native_random.permutations(5, 2, 0, 100, 100)
    assert native_random.permutations(5, 2, 37, 20, 100).tolist() == whole[37:57].tolist()
    with pytest.raises(ValueError, match="leave the data set of 100 samples"):
        native_random.permutations(5, 2, 90, 11, 100)
    with pytest.raises(ValueError, match="count is 0"):
        native_random.permutations(5, 2, 0, 0, 0)


def test_large_data_order_holds_every_sample_once() -> None:
    count = (1 << 20) + 7
    order = native_random.permutations(1 << 63, 9, 0, count, count)
    assert np.array_equal(np.sort(order), np.arange(count))


def test_self_check_digest_is_that_of_the_reference() -> None:
    assert self_check.reference_digest() == self_check.EXPECTED_DIGEST


def test_this_machine_passes_the_self_check() -> None:
    assert self_check.self_check()


def test_self_check_fails_where_subnormals_are_flushed() -> None:
    program = (
        "import torch; from assay.arithmetic.self_check import self_check\n"
        "assert torch.set_flush_denormal(True)\n"
        "print(self_check())"
    )
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert outcome.stdout.strip() == "False"


def test_uniform_words_are_spread_evenly() -> None:
    cells = Counter((native_random.uniforms(1, 2, 3, 0, 64_000) * 64).astype(int).tolist())
    chi_square = sum((cells[cell] - 1000) ** 2 / 1000 for cell in range(64))
    assert chi_square < 63 + 5 * np.sqrt(2 * 63)
