"""`assay court`: disputes on the chain."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from assay.cli.options import json_option, settings_options
from assay.errors import UsageError
from assay.settings import Settings

if TYPE_CHECKING:
    from assay.market.court import CourtContract
    from assay.market.reader import MarketReader


@click.group()
def court() -> None:
    """Follow disputes."""


@court.command("list")
@click.option("--all", "show_all", is_flag=True, help="Decided cases too.")
@settings_options
@json_option
def list_cases(show_all: bool, settings: Settings, as_json: bool) -> None:
    """List open cases: task (or the group whose member answers for a stage), parties, moves, and how much clock is
    left."""
    from assay.market.events import CourtEvent
    from assay.roles.session import open_market, open_reader

    market = open_market(settings)
    reader = open_reader(settings, market)
    reader.poll()
    rows = [
        {
            "case": f"{case.id:#066x}",
            "task": f"{case.task_id:#066x}",
            "challenger": case.challenger,
            "claimant": case.claimant,
            "moves": case.moves,
            "challenger_won": case.challenger_won,
            "seconds_left": _seconds_left(market.court, reader, case.id, case.challenger_won),
        }
        for case in reader.view.cases.values()
        if show_all or case.challenger_won is None
    ]
    stages = reader.view.stages
    rows += [
        {
            "case": f"{stage.id:#066x}",
            "group": stages.claims[stage.claim_id].work.group,
            "segment": stages.claims[stage.claim_id].work.segment,
            "challenger": stage.challenger,
            "claimant": stages.claims[stage.claim_id].member,
            "moves": sum(isinstance(each.event, CourtEvent) for each in reader.case_events(stage.id)) - 1,
            "challenger_won": stage.challenger_won,
            "seconds_left": _seconds_left(market.stage_court, reader, stage.id, stage.challenger_won),
        }
        for stage in stages.cases.values()
        if show_all or stage.challenger_won is None
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    if not rows:
        click.echo("no open case" if not show_all else "no case")
    for row in rows:
        outcome = {None: f"{row['seconds_left']} s left", True: "challenger won", False: "claimant won"}
        about = f"task {str(row['task'])[:18]}" if "task" in row else f"a stage of group {row['group']}"
        click.echo(
            f"{str(row['case'])[:18]}  {about}  {row['challenger']} against {row['claimant']}  "
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
    outcomes = {number: each.challenger_won for number, each in reader.view.cases.items()}
    stages = {number: each.challenger_won for number, each in reader.view.stages.cases.items()}
    outcomes |= stages
    found = [number for number in outcomes if f"{number:#066x}".startswith(case.lower())]
    if len(found) != 1:
        count = len(found) or "no"
        raise UsageError(f"{count} cases begin with {case!r}: `assay court list --all` shows all")
    said = descent(reader.case_events(found[0]))
    judge = market.stage_court if found[0] in stages else market.court
    report = report_case(market, found[0], judge)
    if as_json:
        lines = [{"block": s.block, "side": s.side, "said": s.sentence, "depth": s.depth} for s in said]
        click.echo(json.dumps({**report.as_json(), "descent": lines}))
        return
    click.echo(f"case {found[0]:#066x}")
    for line in draw(said):
        click.echo(line)
    if outcomes[found[0]] is None:
        left = judge.deadline(found[0]) - reader.view.time
        click.echo(f"open: the side in turn has {left} s left")
    else:
        click.echo(report.describe())


def _seconds_left(judge: CourtContract, reader: MarketReader, case: int, challenger_won: bool | None) -> int:
    """What is left of the clock of the side in turn, 0 where the case is decided."""
    return judge.deadline(case) - reader.view.time if challenger_won is None else 0
