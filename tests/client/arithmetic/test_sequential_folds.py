"""Sequential folds: their order, their starts, and the rule of the first maximum."""

from __future__ import annotations

import numpy as np
import pytest
from arithmetic_words import random_words

from assay.arithmetic import fold
from assay.arithmetic.binary32 import INFINITY, NAN, NEGATIVE_INFINITY, NEGATIVE_ZERO, ONE, ZERO, from_float


def test_folds_of_nothing_give_their_start() -> None:
    assert fold.fold_fma([]) == ZERO
    assert fold.fold_add([]) == ZERO
    assert fold.fold_maximum([]) == NEGATIVE_INFINITY
    assert fold.fold_add_if_equal([]) == ZERO
    with pytest.raises(ValueError, match="at least one term"):
        fold.fold_argmax([])


def test_sums_run_strictly_from_the_first_term() -> None:
    values = np.random.default_rng(1).standard_normal(300).astype(np.float32)
    accumulator = np.float32(0)
    for value in values:
        accumulator = np.float32(accumulator + value)
    assert fold.fold_add(values.view(np.uint32).tolist()) == int(accumulator.view(np.uint32))
    # The order is visible: 2^24 + 1 + 1 loses both ones, 1 + 1 + 2^24 loses none.
    large = from_float(2.0**24)
    assert fold.fold_add([large, ONE, ONE]) == large
    assert fold.fold_add([ONE, ONE, large]) == from_float(2.0**24 + 2)


def test_products_are_summed_with_one_rounding_a_term() -> None:
    a = from_float(1 + 2**-12)
    negative = from_float(-(1 + 2**-11))
    # (1 + 2^-12)^2 - (1 + 2^-11) = 2^-24, which a rounded product would lose; as second term it is kept.
    assert fold.fold_fma([(negative, ONE), (a, a)]) == from_float(2.0**-24)


def test_a_sum_of_negative_zeros_is_positive_zero() -> None:
    assert fold.fold_add([NEGATIVE_ZERO, NEGATIVE_ZERO]) == ZERO


def test_maximum_keeps_a_nan_and_takes_the_later_of_equals() -> None:
    assert fold.fold_maximum([ONE, 0xFFC00001, INFINITY]) == NAN
    assert fold.fold_maximum([ZERO, NEGATIVE_ZERO]) == NEGATIVE_ZERO
    assert fold.fold_maximum([NEGATIVE_ZERO, ZERO]) == ZERO


def test_first_maximum_is_the_first_of_equals_and_the_first_nan() -> None:
    two = from_float(2.0)
    assert fold.fold_argmax([ONE, two, two]) == 1
    assert fold.fold_argmax([NEGATIVE_ZERO, ZERO]) == 0
    assert fold.fold_argmax([NEGATIVE_INFINITY, NEGATIVE_INFINITY]) == 0
    assert fold.fold_argmax([INFINITY, NAN, INFINITY, 0xFFC00001]) == 1


def test_first_maximum_agrees_with_numpy() -> None:
    # numpy, too, gives the first NaN, or else the first of the greatest.
    for seed in range(20):
        words = random_words(seed, 20)
        assert fold.fold_argmax(words.tolist()) == int(np.argmax(words.view(np.float32)))


def test_scatter_add_takes_only_matching_rows_in_order() -> None:
    large = from_float(2.0**24)
    rows = [(3, 3, large), (2, 3, from_float(5.0)), (3, 3, ONE), (3, 3, ONE)]
    assert fold.fold_add_if_equal(rows) == large
    assert fold.fold_add_if_equal(rows[::-1]) == from_float(2.0**24 + 2)


def test_integer_sums_wrap() -> None:
    assert fold.fold_integer_add([0x7FFFFFFF, 1]) == 0x80000000
    assert fold.fold_integer_add([0xFFFFFFFF, 2]) == 1
