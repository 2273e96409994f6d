"""exp, log, tanh, erf, sin and cos, random words and the order of the data, against the reference implementation."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import brownie
import numpy as np
import pytest

from assay.arithmetic import transcendental
from assay.arithmetic.permutation import permutation
from assay.arithmetic.philox import philox, uniform
from assay.program.operator import Body
from binary32_cases import Patterns, pack, random_cases, special_cases, unpack

CASES = int(os.environ.get("ASSAY_CASES", "20000")) // 20
CASES_A_CALL = 1000
FUNCTIONS = {name: int(Body[name.upper()]) for name in ("exp", "log", "tanh", "erf", "sin", "cos")}
PHILOX = 0x80


@pytest.fixture(autouse=True)
def isolation() -> None:
    """Nothing here changes the chain: no snapshots, which take longer than these tests."""


@pytest.fixture(scope="module")
def harness() -> Any:
    return brownie.accounts[0].deploy(brownie.Binary32Harness)


def on_chain(harness: Any, code: int, cases: Patterns) -> list[int]:
    parts = np.array_split(cases, len(cases) // CASES_A_CALL + 1)
    return np.concatenate([unpack(bytes(harness.evaluate.call(code, pack(part)))) for part in parts]).tolist()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_equals_the_reference(harness: Any, name: str) -> None:
    generator = np.random.default_rng(3)
    scales = generator.choice([0.01, 0.3, 1, 10, 80, 1e4, 1e6], CASES)
    usual = (generator.standard_normal(CASES) * scales).astype(np.float32).view(np.uint32)[:, np.newaxis]
    cases = np.concatenate([special_cases(1), random_cases(1, CASES, seed=17), usual])
    reference: Callable[[int], int] = getattr(transcendental, name)
    assert on_chain(harness, FUNCTIONS[name], cases) == [reference(int(x)) for x in cases[:, 0]]


@pytest.mark.parametrize(("code", "reference"), [(PHILOX, philox), (int(Body.UNIFORM), uniform)])
def test_random_words_equal_the_reference(harness: Any, code: int, reference: Callable[..., int]) -> None:
    cases = np.random.default_rng(5).integers(0, 2**32, (CASES, 6), dtype=np.uint32)
    expected = [reference(a << 32 | b, c << 32 | d, e, f) for a, b, c, d, e, f in cases.tolist()]
    assert on_chain(harness, code, cases) == expected


def test_data_order_equals_the_reference(harness: Any) -> None:
    generator = np.random.default_rng(7)
    seeds = generator.integers(0, 2**32, (CASES, 2), dtype=np.uint32)
    epochs = generator.integers(0, 2**32, CASES, dtype=np.uint32)
    # Counts around powers of two, where walks are longest and shortest, and any others.
    powers = np.uint32(1) << generator.integers(1, 31, CASES).astype(np.uint32)
    counts = np.where(generator.integers(0, 2, CASES) == 0, powers, generator.integers(1, 2**31 - 1, CASES))
    counts = np.clip(counts + generator.integers(-1, 2, CASES), 1, 2**31 - 1).astype(np.uint32)
    positions = (generator.integers(0, 2**32, CASES, dtype=np.uint32) % counts).astype(np.uint32)
    zeros = np.zeros(CASES, dtype=np.uint32)
    cases = np.column_stack([seeds, zeros, epochs, zeros, positions, counts])
    rows = cases.tolist()
    expected = [permutation(a << 32 | b, epoch, place, count) for a, b, _, epoch, _, place, count in rows]
    assert on_chain(harness, int(Body.PERMUTE), cases) == expected


@pytest.mark.parametrize("count", [1, 2, 3, 33, 64, 129])
def test_an_epoch_takes_every_sample_once(harness: Any, count: int) -> None:
    positions = np.arange(count, dtype=np.uint32)
    cases = np.zeros((count, 7), dtype=np.uint32)
    cases[:, 1], cases[:, 3], cases[:, 5], cases[:, 6] = 42, 9, positions, count
    assert sorted(on_chain(harness, int(Body.PERMUTE), cases)) == positions.tolist()
