"""Deployment files: which chain, addresses and parameters. Written by `assay deploy`, read by every command."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eth_utils.address import is_address, to_checksum_address

from assay.market.errors import DeploymentError
from assay.market.parameters import CourtParameters, Parameters, parameters_of

FORMAT = 1
MAX_FILE = 1 << 20
MODULES = (
    "Stakes",
    "Jackpot",
    "Seeds",
    "Market",
    "Verification",
    "Answers",
    "Claims",
    "Settlement",
    "Demands",
    "Court",
)
"""The contracts of a deployment in the order of the Solidity struct Modules."""
HELPERS = ("Prover", "Refuter")
"""What the court executes with; they hold no state and know no other contract."""
COMPANIONS = ("Groups", "StageClaims", "StageCourt", "Presence")
"""What uses the market without any right in it: no other contract knows them."""
_ARTIFACTS = {"StageCourt": "Court"}
"""Contracts of a deployment that are another instance of the same code."""


def artifact_of(name: str) -> str:
    """Name of the packaged contract whose code a contract of a deployment has."""
    return _ARTIFACTS.get(name, name)


@dataclass(frozen=True)
class Deployment:
    """One deployment of the market. `block` is where its logs begin."""

    chain_id: int
    block: int
    deployer: str
    addresses: Mapping[str, str]
    parameters: Parameters
    court: CourtParameters

    def as_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "chain_id": self.chain_id,
            "block": self.block,
            "deployer": self.deployer,
            "addresses": dict(self.addresses),
            "parameters": self.parameters.as_json(),
            "court": {name: str(value) for name, value in asdict(self.court).items()},
        }


def write_deployment(deployment: Deployment, path: Path) -> None:
    """Write a deployment file, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(deployment.as_json(), indent=1) + "\n")
    temporary.replace(path)


def read_deployment(path: Path) -> Deployment:
    """Read a deployment file. Raises `DeploymentError` saying what is wrong with it."""
    try:
        if path.stat().st_size > MAX_FILE:
            raise DeploymentError(f"{path} is too large to be a deployment file: correct chain.deployment")
        record = json.loads(path.read_text())
    except OSError as error:
        raise DeploymentError(
            f"cannot read the deployment file {path} ({error.strerror}): set chain.deployment, or make one with "
            "`assay deploy` or `assay chain up`"
        ) from error
    except ValueError as error:
        raise DeploymentError(f"{path} is no deployment file: {error}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DeploymentError(f"{path} is no deployment file of format {FORMAT}: deploy again with this client")
    addresses = record.get("addresses")
    wanted = {*HELPERS, *MODULES, *COMPANIONS}
    if isinstance(addresses, dict) and wanted - set(addresses):
        missing = ", ".join(sorted(wanted - set(addresses)))
        raise DeploymentError(
            f"{path} names no contract {missing}: it is damaged, or of an older version of the market; deploy again "
            "with this client"
        )
    if not isinstance(addresses, dict) or set(addresses) != wanted:
        raise DeploymentError(f"{path} does not name exactly the contracts {', '.join(sorted(wanted))}")
    for name, address in addresses.items():
        if not is_address(address):
            raise DeploymentError(f"{path}: the address of {name} is {address!r}")
    try:
        court = CourtParameters(**{name: int(value) for name, value in record["court"].items()})
        return Deployment(
            int(record["chain_id"]),
            int(record["block"]),
            to_checksum_address(record["deployer"]),
            {name: to_checksum_address(address) for name, address in addresses.items()},
            parameters_of(record["parameters"]),
            court,
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DeploymentError(f"{path} is damaged ({error!r}): deploy again") from error
