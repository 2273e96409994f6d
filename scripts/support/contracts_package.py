"""Compiles contracts/ into the JSON files that ship inside the client's package, and says when they are stale.

    contracts_package.py          write client/assay/contracts/*.json
    contracts_package.py --check  fail where they differ from what contracts/ compiles to

One file a contract that can be deployed: `name`, `source`, `abi`, `bytecode` (hex, creation code), `compiler`. The same
sources and settings give the same bytes. Interfaces, abstract contracts and libraries without public functions are part
of what uses them and have no file.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import solcx
import yaml

from stages import ROOT

CONTRACTS = ROOT / "contracts"
PACKAGED = ROOT / "client" / "assay" / "contracts"
MAKE_AGAIN = "run scripts/compile and commit the result"


def compiler_input() -> tuple[str, dict[str, Any]]:
    """The compiler's version and its standard JSON input, from contracts/ and the settings of brownie-config.yaml."""
    settings = yaml.safe_load((ROOT / "brownie-config.yaml").read_text())["compiler"]["solc"]
    sources = {str(path.relative_to(ROOT)): {"content": path.read_text()} for path in sorted(CONTRACTS.rglob("*.sol"))}
    job = {
        "language": "Solidity",
        "sources": sources,
        "settings": {
            "evmVersion": settings["evm_version"],
            "optimizer": settings["optimizer"],
            "remappings": settings["remappings"],
            "viaIR": settings.get("via_ir", False),
            "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object", "evm.bytecode.linkReferences"]}},
        },
    }
    return settings["version"], job


def compile_contracts() -> dict[str, str]:
    """File name -> contents of every packaged contract.

    Raises `ValueError` where two contracts share a name or one needs linking, neither of which the client supports, and
    solcx's `SolcError` where a source does not compile.
    """
    version, job = compiler_input()
    solcx.set_solc_version(version, silent=True)
    output = solcx.compile_standard(job, allow_paths=str(ROOT))
    compiler = {"version": version, **{name: job["settings"][name] for name in ("evmVersion", "optimizer", "viaIR")}}
    files: dict[str, str] = {}
    for source, contracts in output["contracts"].items():
        for name, contract in contracts.items():
            code = contract["evm"]["bytecode"]["object"]
            callable_entries = [entry for entry in contract["abi"] if entry["type"] not in ("error", "event")]
            if not source.startswith("contracts/") or not code or not callable_entries:
                continue
            if contract["evm"]["bytecode"]["linkReferences"]:
                raise ValueError(
                    f"{source}:{name} must be linked with a library: make the library's functions internal"
                )
            if f"{name}.json" in files:
                raise ValueError(f"two contracts are called {name}: rename the one in {source}")
            record = {
                "name": name,
                "source": source,
                "compiler": compiler,
                "abi": contract["abi"],
                "bytecode": f"0x{code}",
            }
            files[f"{name}.json"] = json.dumps(record, indent=1, sort_keys=True) + "\n"
    return files


def packaged() -> dict[str, str]:
    """File name -> contents as they lie in the package now."""
    return {path.name: path.read_text() for path in PACKAGED.glob("*.json")}


def stale() -> list[str]:
    """What differs between the package and contracts/, a line each; empty where nothing does."""
    try:
        wanted = compile_contracts()
    except (ValueError, solcx.exceptions.SolcError) as error:
        return [str(error)]
    present = packaged()
    differences = []
    for name in sorted(wanted.keys() | present.keys()):
        if wanted.get(name) != present.get(name):
            state = "left over" if name not in wanted else "missing" if name not in present else "stale"
            differences.append(f"client/assay/contracts/{name} is {state}: {MAKE_AGAIN}")
    return differences


def write() -> None:
    """Make the packaged files those of contracts/."""
    wanted = compile_contracts()
    PACKAGED.mkdir(exist_ok=True)
    for name in packaged().keys() - wanted.keys():
        (PACKAGED / name).unlink()
    for name, text in wanted.items():
        (PACKAGED / name).write_text(text)
    names = ", ".join(sorted(Path(name).stem for name in wanted))
    print(f"{len(wanted)} contracts in {PACKAGED.relative_to(ROOT)}: {names}")


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        differences = stale()
        print("\n".join(differences) or "the packaged contracts are those of contracts/")
        sys.exit(1 if differences else 0)
    write()
