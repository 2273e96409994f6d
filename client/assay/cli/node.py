"""`assay node`: several roles of one account in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import settings_options
from assay.cli.running import metrics_option, run_json_option, run_players
from assay.cli.solver import make_solver, solver_options
from assay.cli.verifier import make_verifier, verifier_options
from assay.cli.whistleblower import make_whistleblower, whistleblower_options
from assay.roles.session import deployment_of
from assay.settings import Settings

if TYPE_CHECKING:
    from assay.roles.context import Player

MAKERS: Mapping[str, Callable[..., Player]] = {
    "verifier": make_verifier,
    "whistleblower": make_whistleblower,
    "solver": make_solver,
}
"""In the order in which they plan: what the verifier's seats need is brought before a solver needs stake for a task."""


@click.group()
def node() -> None:
    """Several roles with one account."""


@node.command()
@click.option(
    "--role",
    "roles",
    type=click.Choice(list(MAKERS)),
    multiple=True,
    required=True,
    help="A role to play; may be repeated.",
)
@solver_options
@verifier_options
@whistleblower_options
@metrics_option
@settings_options
@run_json_option
def run(roles: tuple[str, ...], metrics_port: int | None, settings: Settings, as_json: bool, **options: Any) -> None:
    """Play roles with one account in one process, until Ctrl-C.

    The options are those of `assay solver run`, `assay verifier run` and `assay whistleblower run`.
    """
    given = {"settings": settings, **options}
    if "whistleblower" not in roles:
        del given["stake"]
    elif "verifier" in roles:
        # Brought at once, since what was lost must never be brought again: seats, and beside them stake for bonds.
        given["stake"] = options["stake"] + options["seats"] * deployment_of(settings).parameters.seat
    run_players(settings, [_made(MAKERS[name], given) for name in MAKERS if name in roles], metrics_port, as_json)


def _made(maker: Callable[..., Player], given: Mapping[str, Any]) -> Player:
    """A player from those of the options that are its role's."""
    return maker(**{name: given[name] for name in signature(maker).parameters if name in given})
