"""`assay court`: disputes on the chain."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import json_option, settings_options
from assay.errors import UsageError
from assay.settings import Settings

if TYPE_CHECKING:
    from assay.market.connection import Market
    from assay.market.court import CourtContract
    from assay.market.reader import MarketReader
    from assay.market.stage_view import StageAccusationRecord, StageCaseRecord


@click.group()
def court() -> None:
    """Follow disputes."""


@court.command("list")
@click.option("--all", "show_all", is_flag=True, help="Decided cases and accusations too.")
@settings_options
@json_option
def list_cases(show_all: bool, settings: Settings, as_json: bool) -> None:
    """List open cases: task (or the group whose member answers for a stage, or accuses another), parties, moves, and
    how much clock is left; and what members accuse each other of."""
    from assay.roles.session import open_market, open_reader

    market = open_market(settings)
    reader = open_reader(settings, market)
    reader.poll()
    rows: list[dict[str, Any]] = [
        {
            "case": f"{case.id:#066x}",
            "task": f"{case.task_id:#066x}",
            "challenger": case.challenger,
            "claimant": case.claimant,
            "moves": case.moves,
            "challenger_won": case.challenger_won,
            "seconds_left": _seconds_left(market.court, reader, case.id, case.challenger_won),
        }
        for case in reader.view.claims.cases.values()
        if show_all or case.challenger_won is None
    ]
    stages = reader.view.stages
    rows += [
        _stage_case(market, reader, case) for case in stages.cases.values() if show_all or case.challenger_won is None
    ]
    accusations = [
        _accusation(reader, accusation)
        for accusation in stages.accusations.values()
        if show_all or accusation.is_pending
    ]
    if as_json:
        click.echo(json.dumps(rows + accusations))
        return
    if not rows and not accusations:
        click.echo("no open case" if not show_all else "no case")
    for row in rows:
        outcome = {None: f"{row['seconds_left']} s left", True: "challenger won", False: "claimant won"}
        about = f"task {row['task'][:18]}" if "task" in row else f"{_about_stage(row)} of group {row['group']}"
        click.echo(
            f"{row['case'][:18]}  {about}  {row['challenger']} against {row['claimant']}  "
            f"{row['moves']} moves  {outcome[row['challenger_won']]}"
        )
    for row in accusations:
        click.echo(
            f"{row['accusation'][:18]}  accusation in group {row['group']}, segment {row['segment']}  "
            f"{row['accuser']} accuses {row['member']}  {row['state']}"
        )


def _stage_case(market: Market, reader: MarketReader, case: StageCaseRecord) -> dict[str, Any]:
    """A case among members of a group; `accusation` only where it is on one."""
    from assay.market.events import CourtEvent

    stages = reader.view.stages
    row = {
        "case": f"{case.id:#066x}",
        "group": stages.work_of(case.claim_id).group,
        "segment": stages.work_of(case.claim_id).segment,
        "challenger": case.challenger,
        "claimant": stages.claimant_of(case.claim_id),
        "moves": sum(isinstance(each.event, CourtEvent) for each in reader.case_events(case.id)) - 1,
        "challenger_won": case.challenger_won,
        "seconds_left": _seconds_left(market.stage_court, reader, case.id, case.challenger_won),
    }
    return row | ({"accusation": f"{case.claim_id:#066x}"} if case.claim_id in stages.accusations else {})


def _about_stage(row: dict[str, Any]) -> str:
    return f"accusation {row['accusation'][:18]}" if "accusation" in row else "a stage"


def _accusation(reader: MarketReader, accusation: StageAccusationRecord) -> dict[str, Any]:
    stages, time = reader.view.stages, reader.view.time
    cases = [case.id for case in stages.cases_on(accusation.id) if case.challenger_won is None]
    if accusation.has_fallen:
        state = "refuted"
    elif accusation.is_concluded:
        state = "member convicted"
    elif time <= accusation.until:
        state = f"{accusation.until - time} s left to take it to court"
    elif stages.can_be_concluded(accusation.id, time):
        state = "stands: anyone can conclude it"
    else:
        state = f"waits for {len(cases)} open case(s)"
    return {
        "accusation": f"{accusation.id:#066x}",
        "group": accusation.work.group,
        "segment": accusation.work.segment,
        "member": accusation.member,
        "accuser": accusation.accuser,
        "until": accusation.until,
        "has_fallen": accusation.has_fallen,
        "is_concluded": accusation.is_concluded,
        "open_cases": [f"{case:#066x}" for case in cases],
        "state": state,
    }


@court.command()
@click.argument("case")
@settings_options
@json_option
def show(case: str, settings: Settings, as_json: bool) -> None:
    """Draw the descent of CASE (its number, or the beginning of it) with what each side said; or, of an accusation
    among a group's members, how it stands."""
    from assay.roles.case_report import report_case
    from assay.roles.descent import descent, draw
    from assay.roles.session import open_market, open_reader

    market = open_market(settings)
    reader = open_reader(settings, market)
    reader.poll()
    outcomes = {number: each.challenger_won for number, each in reader.view.claims.cases.items()}
    stages = {number: each.challenger_won for number, each in reader.view.stages.cases.items()}
    outcomes |= stages
    accusations = reader.view.stages.accusations
    found = [number for number in (*outcomes, *accusations) if f"{number:#066x}".startswith(case.lower())]
    if len(found) != 1:
        count = len(found) or "no"
        raise UsageError(f"{count} cases begin with {case!r}: `assay court list --all` shows all")
    if found[0] in accusations:
        _show_accusation(market, reader, accusations[found[0]], as_json)
        return
    said = descent(reader.case_events(found[0]))
    judge = market.stage_court if found[0] in stages else market.court
    report = report_case(market, found[0], judge)
    if as_json:
        lines = [{"block": s.block, "side": s.side, "said": s.sentence, "depth": s.depth} for s in said]
        click.echo(json.dumps({**report.as_json(), "descent": lines}))
        return
    click.echo(f"case {found[0]:#066x}")
    if found[0] in stages:
        row = _stage_case(market, reader, reader.view.stages.cases[found[0]])
        click.echo(f"on {_about_stage(row)} of group {row['group']}, segment {row['segment']}")
    for line in draw(said):
        click.echo(line)
    if outcomes[found[0]] is None:
        left = judge.deadline(found[0]) - reader.view.time
        click.echo(f"open: the side in turn has {left} s left")
    else:
        click.echo(report.describe())


def _show_accusation(market: Market, reader: MarketReader, accusation: StageAccusationRecord, as_json: bool) -> None:
    row = _accusation(reader, accusation)
    cases = [_stage_case(market, reader, case) for case in reader.view.stages.cases_on(accusation.id)]
    if as_json:
        click.echo(json.dumps({**row, "cases": cases}))
        return
    click.echo(f"accusation {row['accusation']}")
    click.echo(
        f"{row['accuser']} says that in segment {row['segment']} what {row['member']} of group {row['group']} stated "
        f"is garbage: {row['state']}"
    )
    for each in cases:
        outcome = {None: f"{each['seconds_left']} s left", True: "refuted it", False: "lost"}
        click.echo(f"case {each['case'][:18]} of {each['challenger']}: {outcome[each['challenger_won']]}")


def _seconds_left(judge: CourtContract, reader: MarketReader, case: int, challenger_won: bool | None) -> int:
    """What is left of the clock of the side in turn, 0 where the case is decided."""
    return judge.deadline(case) - reader.view.time if challenger_won is None else 0
