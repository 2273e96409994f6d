"""`assay solver`: take tasks, train them, register and defend the proof, be paid."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import settings_options
from assay.cli.running import COINS, Command, metrics_option, run_json_option, run_node, run_players
from assay.settings import Settings

if TYPE_CHECKING:
    from assay.roles.solver import Solver


def solver_options(command: Command) -> Command:
    """What a solver accepts; `make_solver` takes them."""
    for option in (
        click.option("--checks", type=click.IntRange(0, 100), default=1, show_default=True,
                     help="Segments of an own tolerant proof replayed before it is registered; where they fail, the "
                          "solver steps down for the forfeit."),
        click.option("--stake-limit", type=COINS, default="10", show_default=True,
                     help="Most stake put in for one task, in coins."),
        click.option("--speed", type=click.FloatRange(min=1), default=1e9, show_default=True,
                     help="Units of work a second of this machine."),
        click.option("--work-limit", type=click.IntRange(1), default=1 << 62, help="Most units of work of a task."),
        click.option("--price", type=COINS, default="0", show_default=True,
                     help="Least price, in coins for 10^12 units of work."),
    ):  # fmt: skip
        command = option(command)
    return command


def make_solver(settings: Settings, price: int, work_limit: int, speed: float, stake_limit: int, checks: int) -> Solver:
    """The player of these options."""
    from assay.roles.solver import Solver, SolverOptions

    memory = settings.whole("compute.memory_mib") << 20
    return Solver(SolverOptions(price, work_limit, memory, speed, stake_limit, checks))


@click.group()
def solver() -> None:
    """Earn by training tasks."""


@solver.command()
@solver_options
@click.option(
    "--group", "group_file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Be one solver with the other members of this group (group.toml; see `assay group draft`).",
)  # fmt: skip
@metrics_option
@settings_options
@run_json_option
def run(metrics_port: int | None, settings: Settings, as_json: bool, group_file: Path | None, **options: Any) -> None:
    """Take tasks, train them, register and defend their proofs, withdraw earnings, until Ctrl-C."""
    player = make_solver(settings, **options)
    if group_file is None:
        run_players(settings, [player], metrics_port, as_json)
    else:
        from assay.roles.group_start import open_member

        run_node(open_member(settings, group_file, player.options, metrics_port, as_json), as_json)
