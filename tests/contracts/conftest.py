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


def on_network(request: pytest.FixtureRequest) -> bool:
    """Whether a test's chain is Brownie's node: for the smoke tests, and for all with ASSAY_CHAIN=network."""
    return bool(request.node.get_closest_marker("smoke")) or os.environ.get("ASSAY_CHAIN") == "network"


@pytest.fixture(autouse=True)
def isolation(request: pytest.FixtureRequest) -> None:
    """Tests on the node start from the chain as their module's fixtures left it; others have their own chain."""
    if "chain" not in request.fixturenames or on_network(request):
        request.getfixturevalue("fn_isolation")


@pytest.fixture
def chain(request: pytest.FixtureRequest) -> Chain:
    """The chain a test of the market runs on: Brownie's node, or an EVM in this process."""
    if on_network(request):
        return NetworkChain(artifacts(), brownie.web3)
    return RevmChain(artifacts())


@pytest.fixture
def world(chain: Chain) -> World:
    """A deployment of the market with a staked solver, three verifiers with a seat each, and three whistleblowers."""
    return populated(chain)
