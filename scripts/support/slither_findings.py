"""Slither over the contracts, against the list of findings that were reviewed: slither-exceptions.toml.

Every finding must be matched by an exception, and every exception must match a finding, so that the list neither hides
something new nor outlives its reason.
"""

from __future__ import annotations

import fnmatch
import json
import os
import subprocess
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import brownie_home
from stages import ROOT
from toolchain import DEV_VENV

EXCEPTIONS = ROOT / "slither-exceptions.toml"


@dataclass(frozen=True)
class ReviewedFinding:
    """An exception: the detector, a pattern for the place (`Contract.function*`), and why it is no defect."""

    check: str
    where: str
    reason: str


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
    result = [ReviewedFinding(entry["check"], entry["where"], entry.get("reason", "").strip()) for entry in entries]
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


def findings() -> list[Finding]:
    """Compile with Brownie and run Slither. Raises `RuntimeError` where either fails."""
    with tempfile.TemporaryDirectory() as name, brownie_home.make(Path(name)) as home:
        environment = {**os.environ, "HOME": str(home)}
        programs = DEV_VENV / "bin"
        report = Path(name) / "slither.json"
        words = [".", "--compile-force-framework", "brownie", "--ignore-compile", "--json", str(report)]
        for program, *options in (["brownie", "compile"], ["slither", *words, "--no-fail-pedantic"]):
            command = [str(programs / program), *options]
            result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            if result.returncode:
                raise RuntimeError(f"{program} failed:\n{result.stdout[-4000:]}{result.stderr[-4000:]}")
        output = json.loads(report.read_text())
    if not output["success"]:
        raise RuntimeError(f"slither failed: {output['error']}")
    result_list = []
    for finding in output["results"].get("detectors", []):
        elements = finding["elements"]
        paths = [element["source_mapping"]["filename_relative"] for element in elements]
        if paths and all(path.startswith("node_modules/") for path in paths):
            continue
        where = place(elements[0]) if elements else ""
        result_list.append(Finding(finding["check"], where, finding["impact"], finding["description"].strip()))
    return result_list


def unexplained() -> list[str]:
    """Findings without an exception and exceptions without a finding, a line each; empty where there are neither."""
    try:
        found, exceptions = findings(), reviewed()
    except (RuntimeError, ValueError, KeyError) as error:
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
        if not any(explains(exception, finding) for finding in found)
    ]
    print(f"slither: {len(found)} findings, {len(exceptions)} exceptions")
    return lines
