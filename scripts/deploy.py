"""Deploys with Brownie: `brownie run deploy`, `brownie run deploy --network ganache-cli`.

Until the market's addresses are wired up, this deploys what stands alone: the arithmetic that disputes end with.
"""

from __future__ import annotations

import os
from typing import Any

from brownie import Binary32Harness, accounts, network


def deployer() -> Any:
    """The first account of a development chain, elsewhere the Brownie account that ASSAY_ACCOUNT names."""
    if network.show_active() in ("development", "anvil", "ganache-cli"):
        return accounts[0]
    name = os.environ.get("ASSAY_ACCOUNT")
    if not name:
        raise SystemExit("set ASSAY_ACCOUNT to the Brownie account that pays (brownie accounts list)")
    return accounts.load(name)


def main() -> None:
    """Deploy and print the addresses."""
    harness = deployer().deploy(Binary32Harness)
    print(f"Binary32Harness on {network.show_active()}: {harness.address}")
