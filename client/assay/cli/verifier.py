"""`assay verifier`: replay drawn segments, claim the result, disclose, defend."""

from __future__ import annotations

import click

from assay.cli.options import settings_options
from assay.settings import Settings


@click.group()
def verifier() -> None:
    """Earn by verifying proofs."""


@verifier.command()
@click.option("--seats", type=click.IntRange(1, 1000), default=1, show_default=True, help="Seats on the roll.")
@click.option(
    "--limit", type=click.IntRange(1, 79), default=50, show_default=True, help="Shares of up to 2^LIMIT work."
)
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Serve figures for Prometheus on this port.")
@settings_options
def run(seats: int, limit: int, metrics_port: int | None, settings: Settings) -> None:
    """Run until Ctrl-C."""
    from assay.roles.start import open_node
    from assay.roles.verifier import Verifier, VerifierOptions

    with open_node(settings, [Verifier(VerifierOptions(seats=seats, limit=limit))], metrics_port) as node:
        node.run()
