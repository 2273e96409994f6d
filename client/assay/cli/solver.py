"""`assay solver`: take tasks, train them, register and defend the proof, be paid."""

from __future__ import annotations

from decimal import Decimal

import click

from assay.cli.options import settings_options
from assay.settings import Settings

COIN = 10**18


@click.group()
def solver() -> None:
    """Earn by training tasks."""


@solver.command()
@click.option("--price", default="0", show_default=True, help="Least price, in coins for 10^12 units of work.")
@click.option("--work-limit", type=int, default=1 << 62, help="Most units of work of a task.")
@click.option("--speed", type=float, default=1e9, show_default=True, help="Units of work a second of this machine.")
@click.option("--stake-limit", default="10", show_default=True, help="Most stake put in for one task, in coins.")
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Serve figures for Prometheus on this port.")
@settings_options
def run(
    price: str, work_limit: int, speed: float, stake_limit: str, metrics_port: int | None, settings: Settings
) -> None:
    """Run until Ctrl-C."""
    from assay.roles.solver import Solver, SolverOptions
    from assay.roles.start import open_node

    options = SolverOptions(
        price_per_terawork=int(Decimal(price) * COIN),
        work_limit=work_limit,
        memory_limit=settings.whole("compute.memory_mib") << 20,
        speed=speed,
        stake_limit=int(Decimal(stake_limit) * COIN),
    )
    with open_node(settings, [Solver(options)], metrics_port) as node:
        node.run()
