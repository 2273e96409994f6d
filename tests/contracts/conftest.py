"""What every contract test shares."""

from __future__ import annotations

import os

import brownie
import pytest

from market_chain import Chain, NetworkChain, RevmChain, artifacts
from market_world import World, populated


@pytest.fixture(scope="session", autouse=True)
def free_gas() -> None:
    """Transactions cost nothing where the chain allows it, so that balances show what contracts move and nothing else.

    anvil runs with a base fee of zero; ganache has no such setting and keeps the price from brownie-config.yaml.
    """
    if brownie.web3.client_version.lower().startswith("anvil"):
        brownie.network.gas_price(0)


@pytest.fixture(autouse=True)
def isolation(fn_isolation: None) -> None:
    """Every test starts from the chain as the fixtures of its module left it."""


@pytest.fixture
def chain(request: pytest.FixtureRequest) -> Chain:
    """An EVM in this process; for smoke tests, or all with ASSAY_CHAIN=network, Brownie's node."""
    if request.node.get_closest_marker("smoke") or os.environ.get("ASSAY_CHAIN") == "network":
        return NetworkChain(artifacts(), brownie.web3)
    return RevmChain(artifacts())


@pytest.fixture
def world(chain: Chain) -> World:
    """A deployment of the market with a staked solver, three verifiers with a seat each, and three whistleblowers."""
    return populated(chain)
