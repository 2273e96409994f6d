"""`assay node`: several roles of one account in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from assay.cli.options import settings_options
from assay.cli.running import metrics_option, run_json_option, run_players
from assay.cli.solver import make_solver, solver_options
from assay.cli.verifier import make_verifier, verifier_options
from assay.cli.whistleblower import make_whistleblower, whistleblower_options
from assay.settings import Settings

if TYPE_CHECKING:
    from assay.roles.context import Player

ROLES = ("solver", "verifier", "whistleblower")


@click.group()
def node() -> None:
    """Several roles with one account."""


@node.command()
@click.option(
    "--role", "roles", type=click.Choice(ROLES), multiple=True, required=True, help="A role to play; may be repeated."
)
@solver_options
@verifier_options
@whistleblower_options
@metrics_option
@settings_options
@run_json_option
def run(
    roles: tuple[str, ...],
    price: int,
    work_limit: int,
    speed: float,
    stake_limit: int,
    seats: int,
    limit: int,
    stake: int,
    cost: int,
    audits: int,
    metrics_port: int | None,
    settings: Settings,
    as_json: bool,
) -> None:
    """Play roles with one account in one process, until Ctrl-C.

    The options are those of `assay solver run`, `assay verifier run` and `assay whistleblower run`.
    """
    makers: dict[str, Callable[[], Player]] = {
        "solver": lambda: make_solver(settings, price, work_limit, speed, stake_limit),
        "verifier": lambda: make_verifier(seats, limit),
        "whistleblower": lambda: make_whistleblower(stake, cost, audits),
    }
    run_players(settings, [makers[name]() for name in ROLES if name in roles], metrics_port, as_json)
