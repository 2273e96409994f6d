"""`assay verifier`: replay drawn segments, claim the result, disclose, defend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import settings_options
from assay.cli.running import Command, metrics_option, run_json_option, run_players
from assay.settings import Settings

if TYPE_CHECKING:
    from assay.roles.verifier import Verifier


def verifier_options(command: Command) -> Command:
    """What a verifier offers; `make_verifier` takes them."""
    for option in (
        click.option("--volunteer/--no-volunteer", default=True, show_default=True,
                     help="Serve shares for which nobody could be drawn."),
        click.option("--limit", type=click.IntRange(1, 79), default=50, show_default=True,
                     help="Verify shares of up to 2^LIMIT units of work."),
        click.option("--seats", type=click.IntRange(1, 1000), default=1, show_default=True,
                     help="Seats on the verifiers' roll; each is a stake and a chance to be drawn."),
    ):  # fmt: skip
        command = option(command)
    return command


def make_verifier(seats: int, limit: int, volunteer: bool, stake: int = 0) -> Verifier:
    """The player of these options; `stake` (wei) is brought at the start where the seats need less."""
    from assay.roles.verifier import Verifier, VerifierOptions

    return Verifier(VerifierOptions(seats=seats, stake=stake, limit=limit, volunteer=volunteer))


@click.group()
def verifier() -> None:
    """Earn by verifying proofs."""


@verifier.command()
@verifier_options
@metrics_option
@settings_options
@run_json_option
def run(metrics_port: int | None, settings: Settings, as_json: bool, **options: Any) -> None:
    """Take seats, serve when drawn (replay, commit, show, disclose), defend claims in court, until Ctrl-C."""
    run_players(settings, [make_verifier(**options)], metrics_port, as_json)
