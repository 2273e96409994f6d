"""Gas of the scalar operations, measured inside the contract, against a committed snapshot.

ASSAY_WRITE_GAS=1 writes the snapshot anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import brownie
import numpy as np
import pytest

from assay.program.operator import Body
from binary32_cases import OPERATIONS, Patterns, pack

SNAPSHOT = Path(__file__).parent / "arithmetic_gas.json"
TOLERANCE = 0.05
FMA_LIMIT = 1200
CASES = 1000

ARITIES = {operation.name: (operation.code, operation.arity) for operation in OPERATIONS}
FUNCTIONS = {name: (int(Body[name.upper()]), 1) for name in ("exp", "log", "tanh", "erf", "sin", "cos")}


@pytest.fixture(autouse=True)
def isolation() -> None:
    """Nothing here changes the chain: no snapshots, which take longer than these tests."""


@pytest.fixture(scope="module")
def harness() -> Any:
    return brownie.accounts[0].deploy(brownie.Binary32Harness)


def normal_variates(arity: int) -> Patterns:
    """What a trained model mostly computes with: standard normal values."""
    generator = np.random.default_rng(5)
    return generator.standard_normal((CASES, arity)).astype(np.float32).view(np.uint32)


def any_normal_numbers(arity: int) -> Patterns:
    """Any sign, fraction and exponent but those of zeros, subnormals, infinities and NaNs."""
    generator = np.random.default_rng(6)
    signs_and_fractions = generator.integers(0, 2**32, (CASES, arity), dtype=np.uint32) & np.uint32(0x807FFFFF)
    return signs_and_fractions | (generator.integers(1, 255, (CASES, arity), dtype=np.uint32) << np.uint32(23))


def random_words(arity: int) -> Patterns:
    """Seeds, steps, streams and elements; for the data order, a position among 50 000 samples."""
    cases = np.random.default_rng(7).integers(0, 2**32, (CASES, arity), dtype=np.uint32)
    if arity == 7:
        cases[:, 2] = 0
        cases[:, 5] %= 50_000
        cases[:, 6] = 50_000
    return cases


def figures(harness: Any, code: int, cases: Patterns) -> dict[str, int]:
    smallest, total, largest, count = map(int, harness.measure.call(code, pack(cases)))
    return {"smallest": smallest, "average": round(total / count), "largest": largest}


def measured(harness: Any) -> dict[str, dict[str, int]]:
    """Gas of every operation with its call and return, without loading its operands."""
    found = {name: figures(harness, code, normal_variates(arity)) for name, (code, arity) in ARITIES.items()}
    found |= {name: figures(harness, code, normal_variates(arity)) for name, (code, arity) in FUNCTIONS.items()}
    found["fma of any normal numbers"] = figures(harness, int(Body.FMA), any_normal_numbers(3))
    found["uniform"] = figures(harness, int(Body.UNIFORM), random_words(6))
    found["permute"] = figures(harness, int(Body.PERMUTE), random_words(7))
    return found


def test_gas_of_the_arithmetic_is_what_the_snapshot_says(harness: Any) -> None:
    found = measured(harness)
    assert found["fma"]["average"] <= FMA_LIMIT
    assert found["fma of any normal numbers"]["average"] <= FMA_LIMIT
    if os.environ.get("ASSAY_WRITE_GAS"):
        SNAPSHOT.write_text(json.dumps(found, indent=2) + "\n")
    expected = json.loads(SNAPSHOT.read_text())
    assert found.keys() == expected.keys()
    for name, figure in expected.items():
        for key, gas in figure.items():
            assert abs(found[name][key] - gas) <= TOLERANCE * gas, f"{name} {key}"
