"""What every contract test shares."""

from __future__ import annotations

import brownie
import pytest


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
