"""Brownie's build, the package's compiled contracts and the chain fit each other."""

import json
from pathlib import Path

import brownie
import numpy as np
import pytest
from brownie import project

from binary32_cases import OPERATIONS, pack, unpack

PACKAGED = Path(__file__).parents[2] / "client" / "assay" / "contracts"
NAMES = sorted(path.stem for path in PACKAGED.glob("*.json"))
LARGEST_CODE = 24_576  # bytes, EIP-170
LARGEST_CREATION_CODE = 49_152  # bytes, EIP-3860


@pytest.fixture(autouse=True)
def isolation(request):
    """What is on the chain concerns one of these tests only."""
    if request.node.get_closest_marker("smoke"):
        request.getfixturevalue("fn_isolation")


def load(name: str) -> dict:
    return json.loads((PACKAGED / f"{name}.json").read_text())


def built(name: str):
    """Brownie's own build of a contract."""
    return getattr(project.get_loaded_projects()[0], name)


def test_the_package_holds_contracts():
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_brownie_builds_the_bytecode_that_the_package_ships(name):
    assert f"0x{built(name).bytecode}" == load(name)["bytecode"]


@pytest.mark.parametrize("name", NAMES)
def test_every_contract_is_small_enough_for_the_chain(name):
    assert len(built(name)._build["deployedBytecode"]) // 2 <= LARGEST_CODE
    assert len(built(name).bytecode) // 2 <= LARGEST_CREATION_CODE


@pytest.mark.smoke
def test_a_fused_multiply_add_runs_on_this_chain():
    harness = brownie.accounts[0].deploy(brownie.Binary32Harness)
    code = next(operation.code for operation in OPERATIONS if operation.name == "fma")
    # One rounding: (1 + 2^-12)^2 - 1 keeps the 2^-24 that a rounded product loses.
    factor = np.float32(1 + 2**-12)
    operands = np.array([[factor, factor, -1.0]], dtype=np.float32).view(np.uint32)
    result = unpack(bytes(harness.evaluate.call(code, pack(operands)))).view(np.float32)
    assert result[0] == np.float32(2**-11 + 2**-24)
