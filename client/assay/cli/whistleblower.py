"""`assay whistleblower`: check claims, answer, dispute, accuse."""

from __future__ import annotations

from decimal import Decimal

import click

from assay.cli.options import settings_options
from assay.settings import Settings

COIN = 10**18


@click.group()
def whistleblower() -> None:
    """Earn by checking verifiers."""


@whistleblower.command()
@click.option("--stake", default="1", show_default=True, help="Stake to bring, in coins.")
@click.option("--cost", default="0", show_default=True, help="What one answer costs you, in coins; 0: always join.")
@click.option(
    "--audits", type=click.IntRange(0, 8), default=1, show_default=True, help="Extra segments checked a task."
)
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Serve figures for Prometheus on this port.")
@settings_options
def run(stake: str, cost: str, audits: int, metrics_port: int | None, settings: Settings) -> None:
    """Run until Ctrl-C."""
    from assay.roles.start import open_node
    from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions

    options = WhistleblowerOptions(stake=int(Decimal(stake) * COIN), cost=int(Decimal(cost) * COIN), audits=audits)
    with open_node(settings, [Whistleblower(options)], metrics_port) as node:
        node.run()
