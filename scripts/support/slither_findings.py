"""Slither over the contracts, against the list of findings that were reviewed: slither-exceptions.toml.

Every finding must be matched by an exception, and every exception must match a finding, so that the list neither hides
something new nor outlives its reason. An exception with `sometimes = true` need not match: a few detectors follow data
through sets whose order differs from run to run.
"""

from __future__ import annotations

import fnmatch
import inspect
import logging
import sys
import tomllib
from dataclasses import dataclass
from typing import Any

from crytic_compile import CryticCompile, InvalidCompilation
from crytic_compile.platform.solc_standard_json import SolcStandardJson
from slither import Slither
from slither.detectors import all_detectors
from slither.detectors.abstract_detector import AbstractDetector
from slither.exceptions import SlitherException

import contracts_package
from stages import ROOT
from toolchain import SOLCX

EXCEPTIONS = ROOT / "slither-exceptions.toml"


@dataclass(frozen=True)
class ReviewedFinding:
    """An exception: the detector, a pattern for the place (`Contract.function*`), and why it is no defect."""

    check: str
    where: str
    reason: str
    sometimes: bool = False


@dataclass(frozen=True)
class Finding:
    """What Slither found: the detector, the place as `Contract.member`, its impact and its words."""

    check: str
    where: str
    impact: str
    description: str


def reviewed() -> list[ReviewedFinding]:
    """The exceptions. Raises `ValueError` for one without a reason."""
    entries = tomllib.loads(EXCEPTIONS.read_text()).get("exception", [])
    result = [
        ReviewedFinding(
            entry["check"], entry["where"], entry.get("reason", "").strip(), entry.get("sometimes", False) is True
        )
        for entry in entries
    ]
    for entry in result:
        if not entry.reason:
            raise ValueError(f"{EXCEPTIONS.name}: the exception {entry.check} at {entry.where} gives no reason")
    return result


def place(element: dict[str, Any]) -> str:
    """`Contract.member` of one element of a finding."""
    names = [str(element["name"])]
    parent = element.get("type_specific_fields", {}).get("parent")
    while parent:
        if parent["type"] in ("function", "contract", "struct", "enum"):
            names.insert(0, str(parent["name"]))
        parent = parent.get("type_specific_fields", {}).get("parent")
    if element["type"] == "node":
        # A statement: its function is the place.
        names.pop()
    return ".".join(names)


def detectors() -> list[type[AbstractDetector]]:
    """Every detector that Slither has."""
    candidates = (getattr(all_detectors, name) for name in dir(all_detectors))
    return [
        candidate for candidate in candidates if inspect.isclass(candidate) and issubclass(candidate, AbstractDetector)
    ]


def findings() -> list[Finding]:
    """Compile all contracts at once and run every detector; what lies in libraries of others is left out."""
    version, job = contracts_package.compiler_input()
    outputs = ["abi", "metadata", "devdoc", "userdoc", "evm.bytecode", "evm.deployedBytecode"]
    job["settings"]["outputSelection"] = {"*": {"*": outputs, "": ["ast"]}}
    logging.getLogger("CryticCompile").setLevel(logging.ERROR)
    compilation = CryticCompile(SolcStandardJson(job), solc=str(SOLCX / f"solc-v{version}"))
    slither = Slither(compilation)
    for detector in detectors():
        slither.register_detector(detector)
    result = []
    for finding in (finding for group in slither.run_detectors() for finding in group or []):
        paths = [element["source_mapping"]["filename_relative"] for element in finding["elements"]]
        if not all(path.startswith("node_modules/") for path in paths):
            where = place(finding["elements"][0])
            result.append(Finding(finding["check"], where, finding["impact"], finding["description"].strip()))
    return result


def unexplained() -> list[str]:
    """Findings without an exception and exceptions without a finding, a line each; empty where there are neither."""
    try:
        found, exceptions = findings(), reviewed()
    except (InvalidCompilation, SlitherException, ValueError, KeyError) as error:
        return [str(error)]

    def explains(exception: ReviewedFinding, finding: Finding) -> bool:
        return exception.check == finding.check and fnmatch.fnmatchcase(finding.where, exception.where)

    lines = [
        f"{finding.impact}: {finding.check} at {finding.where}\n  {finding.description}"
        for finding in found
        if not any(explains(exception, finding) for exception in exceptions)
    ]
    lines += [
        f"{EXCEPTIONS.name}: {exception.check} at {exception.where} matches nothing any more: remove it"
        for exception in exceptions
        if not exception.sometimes and not any(explains(exception, finding) for finding in found)
    ]
    print(f"slither: {len(found)} findings, {len(exceptions)} exceptions")
    return lines


if __name__ == "__main__":
    problems = unexplained()
    print("\n".join(problems) or "every finding is explained")
    sys.exit(1 if problems else 0)
