"""The compiled contracts that ship inside the package, one JSON file a contract, written by `scripts/compile`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from assay.errors import AssayError


class UnknownContractError(AssayError):
    """A contract was asked for that this package does not hold."""

    code = "unknown-contract"


@dataclass(frozen=True)
class CompiledContract:
    """What is needed to deploy a contract and to call it.

    `source` is its path below the repository's root, `bytecode` the creation code in hexadecimal with a leading 0x,
    `compiler` the settings it was compiled with.
    """

    name: str
    source: str
    abi: list[dict[str, Any]]
    bytecode: str
    compiler: dict[str, Any]


def contract_names() -> list[str]:
    """The names of the packaged contracts, sorted."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


@cache
def load_contract(name: str) -> CompiledContract:
    """One packaged contract. Raises `UnknownContractError`, naming those there are."""
    if name not in contract_names():
        known = ", ".join(contract_names()) or "none"
        raise UnknownContractError(
            f"this package holds no contract {name!r} (there are: {known}): in a checkout, run scripts/compile"
        )
    record = json.loads((resources.files(__name__) / f"{name}.json").read_text())
    return CompiledContract(**{field: record[field] for field in ("name", "source", "abi", "bytecode", "compiler")})
