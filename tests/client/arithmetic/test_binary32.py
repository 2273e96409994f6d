"""The reference operations against the machine's floating-point unit and against exact rational arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from arithmetic_words import any_word, canonical_words, exact, is_finite, is_nearest, random_words
from hypothesis import given, settings

from assay.arithmetic import binary32
from assay.arithmetic.binary32 import INFINITY, NAN, NEGATIVE_INFINITY, NEGATIVE_ZERO, ONE, ZERO, from_float
from assay.arithmetic.vectors import SPECIALS

BINARY_UFUNCS = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}


@pytest.mark.parametrize("name", BINARY_UFUNCS)
def test_add_sub_mul_div_are_those_of_the_machine(name: str) -> None:
    operation: Callable[[int, int], int] = getattr(binary32, name)
    left, right = random_words(1, 3000), random_words(2, 3000)
    with np.errstate(all="ignore"):
        machine = canonical_words(BINARY_UFUNCS[name](left.view(np.float32), right.view(np.float32)))
    pairs = zip(left.tolist(), right.tolist(), strict=True)
    assert [operation(a, b) for a, b in pairs] == machine.tolist()


def test_special_operands_of_add_sub_mul_div_are_those_of_the_machine() -> None:
    left, right = (
        np.array(column, dtype=np.uint32) for column in zip(*[(a, b) for a in SPECIALS for b in SPECIALS], strict=True)
    )
    for name, ufunc in BINARY_UFUNCS.items():
        with np.errstate(all="ignore"):
            machine = canonical_words(ufunc(left.view(np.float32), right.view(np.float32)))
        results = [getattr(binary32, name)(a, b) for a, b in zip(left.tolist(), right.tolist(), strict=True)]
        assert results == machine.tolist(), name


def test_sqrt_is_that_of_the_machine() -> None:
    words = random_words(3, 4000)
    with np.errstate(all="ignore"):
        machine = canonical_words(np.sqrt(words.view(np.float32)))
    assert [binary32.sqrt(word) for word in words.tolist()] == machine.tolist()


def test_comparisons_are_those_of_the_machine() -> None:
    left, right = random_words(4, 2000), random_words(5, 2000)
    right[::7] = left[::7]
    for name, ufunc in {"eq": np.equal, "lt": np.less, "le": np.less_equal}.items():
        machine = ufunc(left.view(np.float32), right.view(np.float32))
        results = [getattr(binary32, name)(a, b) for a, b in zip(left.tolist(), right.tolist(), strict=True)]
        assert results == machine.tolist(), name


@settings(max_examples=500, deadline=None)
@given(any_word, any_word, any_word)
def test_fma_is_the_exact_value_rounded_once(a: int, b: int, c: int) -> None:
    result = binary32.fma(a, b, c)
    if is_finite(a) and is_finite(b) and is_finite(c):
        assert is_nearest(result, exact(a) * exact(b) + exact(c))
    else:
        # With an infinity or NaN no rounding takes place: binary64 gives the same class and sign.
        with np.errstate(all="ignore"):
            unrounded = np.float64(binary32.to_float(a)) * binary32.to_float(b) + binary32.to_float(c)
        assert result == from_float(float(unrounded))


def test_fma_differs_from_two_roundings_where_it_should() -> None:
    # (1 + 2^-12)^2 = 1 + 2^-11 + 2^-24: the product alone rounds the last term away.
    a = from_float(1 + 2**-12)
    rounded = binary32.mul(a, a)
    assert binary32.to_float(binary32.fma(a, a, binary32.neg(rounded))) == 2.0**-24


@settings(max_examples=300, deadline=None)
@given(any_word, any_word)
def test_div_and_sqrt_are_the_exact_value_rounded_once(a: int, b: int) -> None:
    if is_finite(a) and is_finite(b) and exact(b) != 0:
        assert is_nearest(binary32.div(a, b), exact(a) / exact(b))
    if is_finite(a) and a >> 31 == 0:
        root = binary32.sqrt(a)
        # Between the midpoints to its neighbours: no exact root is ever a midpoint.
        below = (exact(root) + exact(root - 1)) / 2 if root else Fraction(0)
        above = (exact(root) + exact(root + 1)) / 2
        assert below**2 <= exact(a) <= above**2


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (ZERO, NEGATIVE_ZERO, ZERO),
        (NEGATIVE_ZERO, ZERO, ZERO),
        (NEGATIVE_ZERO, NEGATIVE_ZERO, NEGATIVE_ZERO),
        (ONE, binary32.neg(ONE), ZERO),
    ],
)
def test_sum_of_zeros_and_of_opposites(a: int, b: int, expected: int) -> None:
    assert binary32.add(a, b) == expected


def test_maximum_and_minimum_give_the_second_operand_on_equality() -> None:
    assert binary32.maximum(ZERO, NEGATIVE_ZERO) == NEGATIVE_ZERO
    assert binary32.maximum(NEGATIVE_ZERO, ZERO) == ZERO
    assert binary32.minimum(ZERO, NEGATIVE_ZERO) == NEGATIVE_ZERO
    assert binary32.minimum(NEGATIVE_ZERO, ZERO) == ZERO
    assert binary32.maximum(ONE, from_float(2.0)) == from_float(2.0)
    assert binary32.minimum(ONE, from_float(2.0)) == ONE


@pytest.mark.parametrize("nan", [NAN, 0xFFC12345, 0x7F800001, 0xFFFFFFFF])
def test_every_nan_becomes_the_one_nan(nan: int) -> None:
    for name in ("add", "sub", "mul", "div", "maximum", "minimum"):
        assert getattr(binary32, name)(nan, ONE) == NAN
        assert getattr(binary32, name)(ONE, nan) == NAN
    for name in ("neg", "absolute", "sqrt", "canonical"):
        assert getattr(binary32, name)(nan) == NAN
    assert binary32.fma(ONE, ONE, nan) == NAN
    assert binary32.select(True, nan, ONE) == NAN
    assert not binary32.eq(nan, nan)
    assert not binary32.le(nan, nan)


def test_float_to_int_truncates_saturates_and_maps_nan_to_zero() -> None:
    def convert(value: float) -> int:
        return binary32.to_signed(binary32.float_to_int(from_float(value)))

    assert [convert(v) for v in (0.99, -0.99, 2.5, -2.5, 16777216.0)] == [0, 0, 2, -2, 16777216]
    assert convert(2.0**31) == 2**31 - 1
    assert convert(-(2.0**31)) == -(2**31)
    assert convert(1e30) == 2**31 - 1
    assert convert(-math.inf) == -(2**31)
    assert convert(math.nan) == 0
    assert binary32.to_signed(binary32.float_to_int(0x4EFFFFFF)) == 2147483520


def test_int_to_float_rounds_to_nearest_even() -> None:
    words = random_words(6, 2000)
    machine = words.view(np.int32).astype(np.float32).view(np.uint32)
    assert [binary32.int_to_float(word) for word in words.tolist()] == machine.tolist()
    assert binary32.int_to_float(16777217) == from_float(16777216.0)  # a tie, to even
    assert binary32.int_to_float(16777219) == from_float(16777220.0)


@settings(max_examples=300, deadline=None)
@given(any_word)
def test_words_survive_a_trip_through_floats(word: int) -> None:
    assert from_float(binary32.to_float(word)) == binary32.canonical(word)


def test_from_float_rounds_overflows_and_underflows() -> None:
    values = [0.1, 1 / 3, 3.4028235677973366e38, 3.4028235e38, 1e-45, 7e-46, 7.1e-46, 1e-320, -1e300]
    with np.errstate(all="ignore"):
        expected = np.array(values).astype(np.float32).view(np.uint32).tolist()
    assert [from_float(value) for value in values] == expected
    assert from_float(math.inf) == INFINITY
    assert from_float(-math.inf) == NEGATIVE_INFINITY


def test_what_is_no_word_is_refused_by_value() -> None:
    with pytest.raises(ValueError, match="4294967296"):
        binary32.to_float(1 << 32)
    with pytest.raises(ValueError, match="-1"):
        binary32.add(-1, ONE)
