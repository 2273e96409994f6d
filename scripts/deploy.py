"""Deploys the market with Brownie: `brownie run deploy`, `brownie run deploy --network ganache-cli`.

The same contracts, order, parameters and deployment file as `assay deploy`; the file is written to
$ASSAY_CHAIN_DEPLOYMENT, or to deployment.json. $ASSAY_WINDOWS chooses the parameters: `local` (the default on
development chains) or `public`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import brownie
from brownie import accounts, chain, network

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "client"))

from assay.market.deploy import ORDER, check_court_bond, constructor_arguments, predicted_addresses
from assay.market.deployment import Deployment, artifact_of, write_deployment
from assay.market.parameters import LOCAL, LOCAL_COURT, PUBLIC, PUBLIC_COURT

DEVELOPMENT = ("development", "anvil", "ganache-cli")


def deployer() -> Any:
    """The first account of a development chain, elsewhere the Brownie account that ASSAY_ACCOUNT names."""
    if network.show_active() in DEVELOPMENT:
        return accounts[0]
    name = os.environ.get("ASSAY_ACCOUNT")
    if not name:
        raise SystemExit("set ASSAY_ACCOUNT to the Brownie account that pays (brownie accounts list)")
    return accounts.load(name)


def main() -> None:
    """Deploy all contracts, print the addresses, and write the deployment file."""
    windows = os.environ.get("ASSAY_WINDOWS", "local" if network.show_active() in DEVELOPMENT else "public")
    parameters, court = (LOCAL, LOCAL_COURT) if windows == "local" else (PUBLIC, PUBLIC_COURT)
    check_court_bond(parameters, court)
    account = deployer()
    addresses = predicted_addresses(account.address, account.nonce)
    block = len(chain) - 1
    for name in ORDER:
        code = getattr(brownie, artifact_of(name))
        contract = account.deploy(code, *constructor_arguments(name, addresses, parameters, court))
        if contract.address != addresses[name]:
            raise SystemExit(
                f"{name} lies at {contract.address}, not at {addresses[name]}: use an account that does nothing else"
            )
        print(f"{name:13} {contract.address}")
    path = Path(os.environ.get("ASSAY_CHAIN_DEPLOYMENT") or "deployment.json")
    write_deployment(Deployment(chain.id, block, account.address, addresses, parameters, court), path)
    print(f"written to {path}")
