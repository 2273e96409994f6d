"""`assay court`: disputes on the chain."""

from __future__ import annotations

import json

import click

from assay.cli.options import json_option, settings_options
from assay.errors import UsageError
from assay.settings import Settings


@click.group()
def court() -> None:
    """Follow disputes."""


@court.command("list")
@click.option("--all", "show_all", is_flag=True, help="Decided cases too.")
@settings_options
@json_option
def list_cases(show_all: bool, settings: Settings, as_json: bool) -> None:
    """List open cases: task, parties, moves, and how much clock is left."""
    from assay.roles.session import open_market, open_reader

    market = open_market(settings)
    reader = open_reader(settings, market)
    reader.poll()
    rows = []
    for case in reader.view.cases.values():
        if case.challenger_won is not None and not show_all:
            continue
        left = market.court.deadline(case.id) - reader.view.time if case.challenger_won is None else 0
        rows.append(
            {
                "case": f"{case.id:#066x}",
                "task": f"{case.task_id:#066x}",
                "challenger": case.challenger,
                "claimant": case.claimant,
                "moves": case.moves,
                "challenger_won": case.challenger_won,
                "seconds_left": left,
            }
        )
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("no open case" if not show_all else "no case")
    for row in rows:
        outcome = {None: f"{row['seconds_left']} s left", True: "challenger won", False: "claimant won"}
        click.echo(
            f"{str(row['case'])[:18]}  task {str(row['task'])[:18]}  {row['challenger']} against {row['claimant']}  "
            f"{row['moves']} moves  {outcome[row['challenger_won']]}"  # type: ignore[index]
        )


@court.command()
@click.argument("case")
@settings_options
@json_option
def show(case: str, settings: Settings, as_json: bool) -> None:
    """Draw the descent of CASE (its number, or the beginning of it) with what each side said."""
    from assay.roles.case_report import report_case
    from assay.roles.descent import descent, draw
    from assay.roles.session import open_market, open_reader

    market = open_market(settings)
    reader = open_reader(settings, market)
    reader.poll()
    found = [number for number in reader.view.cases if f"{number:#066x}".startswith(case.lower())]
    if len(found) != 1:
        count = len(found) or "no"
        raise UsageError(f"{count} cases begin with {case!r}: `assay court list --all` shows all")
    said = descent(reader.case_events(found[0]))
    report = report_case(market, found[0])
    if as_json:
        lines = [{"block": s.block, "side": s.side, "said": s.sentence, "depth": s.depth} for s in said]
        click.echo(json.dumps({**report.as_json(), "descent": lines}))
        return
    click.echo(f"case {found[0]:#066x}")
    for line in draw(said):
        click.echo(line)
    if reader.view.cases[found[0]].challenger_won is None:
        left = market.court.deadline(found[0]) - reader.view.time
        click.echo(f"open: the side in turn has {left} s left")
    else:
        click.echo(report.describe())
