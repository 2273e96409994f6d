"""The transcendental functions: reference sequences, their errors, and the native code with the same bits."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from arithmetic_words import any_word, canonical_words, random_words
from hypothesis import given, settings

from assay.arithmetic import accuracy, binary32, native, transcendental
from assay.arithmetic.binary32 import INFINITY, NAN, NEGATIVE_INFINITY, NEGATIVE_ZERO, ONE, SIGN_BIT, ZERO, from_float

FUNCTIONS = tuple(transcendental.SEQUENCES)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_native_results_are_those_of_the_reference(function: str) -> None:
    words = random_words(11, 1500)
    results = np.empty(words.size, dtype=np.float32)
    native.compile_unary(getattr(native, function))(words.view(np.float32), results)
    reference = transcendental.evaluator(function)
    assert canonical_words(results).tolist() == [reference(word) for word in words.tolist()]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_native_loops_are_vector_code(function: str) -> None:
    kernel = native.compile_unary(getattr(native, function))
    kernel(np.ones(8, dtype=np.float32), np.empty(8, dtype=np.float32))
    assembly = "".join(kernel.inspect_asm().values())  # type: ignore[attr-defined]
    if "xmm" not in assembly:
        pytest.skip("no x86 processor")
    # Packed fused operations, and no call to a library's function.
    assert any(f"vfmadd{form}ps" in assembly for form in ("132", "213", "231"))
    assert not any(f"{function}{suffix}" in assembly for suffix in ("f@PLT", "f)"))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_errors_stay_below_the_limit_on_a_sample(function: str) -> None:
    words = np.arange(0, 1 << 32, 4099, dtype=np.uint64).astype(np.uint32)
    result = accuracy.measure(function, words)
    assert result.compared > 100_000
    assert result.worst_ulp <= accuracy.LIMITS[function]


def _table_rows() -> dict[str, list[str]]:
    rows = [line.strip("| ").split(" | ") for line in accuracy.TABLE_PATH.read_text().splitlines() if "(0x" in line]
    return {row[0]: row for row in rows}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_table_holds_the_worst_error_and_it_is_confirmed_with_more_digits(function: str) -> None:
    row = _table_rows()[function]
    word = int(row[3].split("(")[1].rstrip(")"), 16)
    assert float(row[1]) <= accuracy.LIMITS[function]
    assert int(row[5]) + int(row[6]) == 1 << 32
    with mpmath.workdps(60):
        value = getattr(mpmath, function)(mpmath.mpf(binary32.to_float(word)))
        ulp = mpmath.mpf(2) ** (max(int(mpmath.floor(mpmath.log(abs(value), 2))), -126) - 23)
        result = mpmath.mpf(binary32.to_float(transcendental.evaluator(function)(word)))
        assert float(abs(result - value) / ulp) == pytest.approx(float(row[1]), abs=1e-4)


@settings(max_examples=150, deadline=None)
@given(any_word)
def test_odd_functions_are_odd_and_cosine_is_even(word: int) -> None:
    for function in (transcendental.tanh, transcendental.erf, transcendental.sin):
        assert function(word ^ SIGN_BIT) == binary32.neg(function(word))
    assert transcendental.cos(word ^ SIGN_BIT) == transcendental.cos(word)


def test_special_arguments() -> None:
    assert [transcendental.exp(x) for x in (ZERO, NEGATIVE_ZERO, INFINITY, NEGATIVE_INFINITY)] == [
        ONE,
        ONE,
        INFINITY,
        ZERO,
    ]
    assert [transcendental.log(x) for x in (ZERO, NEGATIVE_ZERO)] == [NEGATIVE_INFINITY] * 2
    assert [transcendental.log(x) for x in (ONE, INFINITY, NEGATIVE_INFINITY)] == [ZERO, INFINITY, NAN]
    assert transcendental.log(0x80000001) == NAN
    for function in (transcendental.tanh, transcendental.erf):
        assert [function(x) for x in (ZERO, NEGATIVE_ZERO, INFINITY)] == [ZERO, NEGATIVE_ZERO, ONE]
    assert [transcendental.sin(x) for x in (ZERO, NEGATIVE_ZERO, INFINITY)] == [ZERO, NEGATIVE_ZERO, NAN]
    assert [transcendental.cos(x) for x in (ZERO, NEGATIVE_ZERO, INFINITY)] == [ONE, ONE, NAN]
    for function in FUNCTIONS:
        assert transcendental.evaluator(function)(0xFFC12345) == NAN


def test_exp_overflows_and_underflows_where_the_exact_value_does() -> None:
    assert transcendental.exp(0x42B17217) == 0x7F7FFF84  # the greatest argument with a finite value
    assert transcendental.exp(0x42B17218) == INFINITY
    assert transcendental.exp(from_float(-103.97208)) == 1  # the least subnormal, from just above half of it
    assert transcendental.exp(from_float(-103.97209)) == ZERO


def test_sine_and_cosine_end_at_their_range() -> None:
    edge = from_float(transcendental.CIRCULAR_RANGE)
    for function in (transcendental.sin, transcendental.cos):
        assert not binary32.is_nan(function(edge))
        assert function(edge + 1) == NAN
        assert function((edge + 1) | SIGN_BIT) == NAN


@pytest.mark.parametrize(
    ("listing", "message"),
    [
        ("y = power(x)\nreturn y", "cannot read"),
        ("y = add(x, z)\nreturn y", "before it is defined"),
        ("x = add(x, x)\nreturn x", "cannot read"),
        ("y = add(x, x)", "without a return"),
        ("y = add(x, x)\nreturn z", "no step defines"),
    ],
)
def test_listings_that_mean_nothing_are_refused(listing: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transcendental.parse("test", listing)
