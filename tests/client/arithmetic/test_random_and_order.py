"""Philox against its published answers, and the keyed permutation as a bijection that mixes."""

from __future__ import annotations

from collections import Counter
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.arithmetic import binary32, philox
from assay.arithmetic.permutation import permutation, permutation_key, permute

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        # The known-answer vectors of the Random123 library for philox4x32 with 10 rounds.
        ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES, ONES), (ONES, ONES, ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_answers(
    key: tuple[int, int], counter: tuple[int, int, int, int], expected: tuple[int, int, int, int]
) -> None:
    assert philox.philox_block(key, counter) == expected


def test_philox_takes_its_counter_and_key_from_the_address() -> None:
    seed, step, stream = 0x299F31D0_A4093822, 0x03707344_13198A2E, 0x85A308D3
    block = philox.philox_block((0xA4093822, 0x299F31D0), (0x243F6A88 >> 2, stream, 0x13198A2E, 0x03707344))
    assert [philox.philox(seed, step, stream, (0x243F6A88 & ~3) + lane) for lane in range(4)] == list(block)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ((1 << 64, 0, 0, 0), "seed"),
        ((0, -1, 0, 0), "step"),
        ((0, 0, 1 << 32, 0), "stream"),
        ((0, 0, 0, 1 << 32), "element"),
    ],
)
def test_philox_refuses_an_address_outside_its_counter(address: tuple[int, int, int, int], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        philox.philox(*address)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, ONES))
def test_uniforms_are_the_upper_24_bits_and_below_one(word: int) -> None:
    assert binary32.to_float(philox.uniform_of(word)) == (word >> 8) / 2**24


def chi_square_bound(freedom: int) -> float:
    """What chance exceeds about once in a million (Wilson and Hilferty's approximation, 1931)."""
    spread = 2 / (9 * freedom)
    return freedom * (1 - spread + 4.75 * sqrt(spread)) ** 3


COUNTS = [1, 2, 3, 4, 5, 7, 11, 13, 15, 16, 17, 31, 32, 33, 97, 127, 128, 129, 1000, 1023, 1024, 1025, 2053]


@pytest.mark.parametrize("count", COUNTS)
def test_every_sample_comes_once_an_epoch(count: int) -> None:
    key = permutation_key(0x1234567890ABCDEF, 3)
    assert sorted(permute(key, position, count) for position in range(count)) == list(range(count))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, (1 << 64) - 1), st.integers(0, ONES), st.integers(1, 300))
def test_the_order_is_a_bijection_for_any_key(seed: int, epoch: int, count: int) -> None:
    key = permutation_key(seed, epoch)
    assert sorted(permute(key, position, count) for position in range(count)) == list(range(count))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(permutation(seed, epoch, position, 200) for position in range(50))
        for seed in (1, 2)
        for epoch in (0, 1, 2)
    }
    assert len(orders) == 6


@pytest.mark.parametrize("count", [3, 10, 32, 1000])
def test_a_position_meets_every_sample_equally_often_over_the_epochs(count: int) -> None:
    epochs = 6000
    cells = min(count, 50)
    seen = Counter(permutation(7, epoch, 1, count) * cells // count for epoch in range(epochs))
    expected = epochs / cells
    chi_square = sum((seen[cell] - expected) ** 2 / expected for cell in range(cells))
    assert chi_square < chi_square_bound(cells - 1)


def test_neighbouring_positions_go_to_unrelated_samples() -> None:
    count, cells, epochs = 10_007, 50, 6000
    gaps: Counter[int] = Counter()
    for epoch in range(epochs):
        key = permutation_key(11, epoch)
        gaps[(permute(key, 5001, count) - permute(key, 5000, count)) % count * cells // count] += 1
    expected = epochs / cells
    chi_square = sum((gaps[cell] - expected) ** 2 / expected for cell in range(cells))
    assert chi_square < chi_square_bound(cells - 1)


def test_epochs_count_modulo_two_to_the_32() -> None:
    assert permutation_key(5, (1 << 32) + 3) == permutation_key(5, 3)


def test_positions_and_counts_outside_are_refused_by_value() -> None:
    with pytest.raises(ValueError, match="position is 10"):
        permutation(1, 0, 10, 10)
    with pytest.raises(ValueError, match="count is 0"):
        permutation(1, 0, 0, 0)
    with pytest.raises(ValueError, match="count is 2147483648"):
        permutation(1, 0, 0, 1 << 31)
    with pytest.raises(ValueError, match="epoch is -1"):
        permutation(1, -1, 0, 5)
