"""`assay doctor`: what is wrong with this machine's set-up, and what to do."""

from __future__ import annotations

import json

import click

from assay.cli.options import json_option, settings_options
from assay.doctor import Finding, State, examine
from assay.settings import Settings

MARKS = {State.OK: ("ok", "green"), State.WARNING: ("warning", "yellow"), State.PROBLEM: ("PROBLEM", "red")}


@click.command()
@settings_options
@json_option
def doctor(settings: Settings, as_json: bool) -> int:
    """Check kernels, compute device, chain, storage, disk and clock.

    Exits with 1 where there is a problem; a warning alone is none.
    """
    findings = []
    for finding in examine(settings):
        findings.append(finding)
        if not as_json:
            show(finding)
    healthy = all(finding.state is not State.PROBLEM for finding in findings)
    if as_json:
        rows = [
            {"name": each.name, "state": each.state.value, "message": each.message, "advice": each.advice}
            for each in findings
        ]
        click.echo(json.dumps({"healthy": healthy, "checks": rows}))
    return 0 if healthy else 1


def show(finding: Finding) -> None:
    """Print one finding, and its advice where it has one."""
    word, color = MARKS[finding.state]
    click.echo(f"{click.style(f'{word:8}', fg=color)} {finding.name:10}  {finding.message}")
    if finding.advice:
        click.echo(f"{'':8} {'':10}  -> {finding.advice}")
