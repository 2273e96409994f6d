"""A chain and a court for a module's cases; every test starts from the same block."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from assay.bench.arena import Arena, make_arena
from assay.chain.local import local_chain

# Cases against the market's own contracts use the chain and the actors of its tests.
sys.path.append(str(Path(__file__).parents[2] / "contracts"))

# Shanghai's rules have no floor on the gas of calldata, below which a starved move would not even be mined.
OPTIONS = ("--block-base-fee-per-gas", "0", "--hardfork", "shanghai")


@pytest.fixture(scope="session")
def court_arena() -> Iterator[Arena]:
    with local_chain(options=OPTIONS) as chain:
        yield make_arena(chain)


@pytest.fixture
def arena(court_arena: Arena) -> Iterator[Arena]:
    snapshot = court_arena.rpc("evm_snapshot")
    court_arena.gas.clear()
    yield court_arena
    court_arena.rpc("evm_revert", snapshot)


@pytest.fixture
def claimant(court_arena: Arena) -> str:
    return str(court_arena.web3.eth.accounts[1])


@pytest.fixture
def challenger(court_arena: Arena) -> str:
    return str(court_arena.web3.eth.accounts[2])


@pytest.fixture
def stranger(court_arena: Arena) -> str:
    return str(court_arena.web3.eth.accounts[3])
