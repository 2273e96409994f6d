"""The scalar operations on chain against the machine's float unit, exact integers and Berkeley SoftFloat.

ASSAY_CASES=1000000 (random cases an operation) makes these runs longer.
"""

from __future__ import annotations

import os
from typing import Any

import brownie
import numpy as np
import pytest

from binary32_cases import (
    OPERATIONS,
    Operation,
    Patterns,
    by_softfloat,
    fma_by_integers,
    pack,
    random_cases,
    special_cases,
    unpack,
)

CASES = int(os.environ.get("ASSAY_CASES", "20000"))
CASES_A_CALL = 8000
BY_NAME = {operation.name: operation for operation in OPERATIONS}


@pytest.fixture(autouse=True)
def isolation() -> None:
    """Nothing here changes the chain: no snapshots, which take longer than these tests."""


@pytest.fixture(scope="module")
def harness() -> Any:
    return brownie.accounts[0].deploy(brownie.Binary32Harness)


def on_chain(harness: Any, operation: Operation, cases: Patterns) -> Patterns:
    """Results of the contract, case by case."""
    parts = np.array_split(cases, len(cases) // CASES_A_CALL + 1)
    return np.concatenate([unpack(bytes(harness.evaluate.call(operation.code, pack(part)))) for part in parts])


def assert_equal(operation: Operation, cases: Patterns, found: Patterns, expected: Patterns) -> None:
    wrong = np.flatnonzero(found != expected)
    if len(wrong):
        case = int(wrong[0])
        operands = " ".join(f"{int(pattern):08x}" for pattern in cases[case])
        pytest.fail(
            f"{len(wrong)} of {len(cases)} wrong, first {operation.name} {operands}:"
            f" {int(found[case]):08x} instead of {int(expected[case]):08x}"
        )


def specials(operation: Operation, most: int = 6000) -> Patterns:
    """All combinations of special patterns, or a fixed random part of them."""
    cases = special_cases(operation.arity)
    return cases if len(cases) <= most else cases[np.random.default_rng(1).permutation(len(cases))[:most]]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_operation_equals_the_machines_float_unit(harness: Any, operation: Operation) -> None:
    cases = np.concatenate([specials(operation), random_cases(operation.arity, CASES, seed=7)])
    assert_equal(operation, cases, on_chain(harness, operation, cases), operation.oracle(cases))


def test_fma_equals_exact_integers(harness: Any) -> None:
    cases = np.concatenate([specials(BY_NAME["fma"]), random_cases(3, CASES, seed=11)])
    assert_equal(BY_NAME["fma"], cases, on_chain(harness, BY_NAME["fma"], cases), fma_by_integers(cases))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "sqrt", "fma"])
def test_operation_equals_berkeley_softfloat(harness: Any, name: str) -> None:
    oracle = by_softfloat(BY_NAME[name])
    if oracle is None:
        pytest.skip("softfloatpy is not installed")
    cases = np.concatenate([specials(BY_NAME[name]), random_cases(BY_NAME[name].arity, CASES, seed=13)])
    assert_equal(BY_NAME[name], cases, on_chain(harness, BY_NAME[name], cases), oracle(cases))
