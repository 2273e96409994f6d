"""`assay whistleblower`: check claims, answer, dispute, accuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from assay.cli.leak import leak
from assay.cli.options import settings_options
from assay.cli.running import COINS, Command, metrics_option, run_json_option, run_players
from assay.settings import Settings

if TYPE_CHECKING:
    from assay.roles.whistleblower import Whistleblower


def whistleblower_options(command: Command) -> Command:
    """What a whistleblower does; `make_whistleblower` takes them."""
    for option in (
        click.option("--idle-blocks", type=click.IntRange(1), default=50_000, show_default=True,
                     help="Blocks without joining anything after which it counts as idle."),
        click.option("--when-idle", type=click.Choice(["stay", "leave", "verify"]), default="stay", show_default=True,
                     help="What to do when it has not paid for long: wait, take the stake out, or take a verifier's "
                          "seat beside."),
        click.option("--join-chance", type=click.FloatRange(0, 1), default=0.05, show_default=True,
                     help="Chance of joining a round although enough whistleblowers are active: many accounts of one "
                          "owner cannot crowd it out."),
        click.option("--audits", type=click.IntRange(0, 8), default=1, show_default=True,
                     help="Segments of every task checked at random though nobody was drawn for them; with any, the "
                     "one that looks most suspicious too."),
        click.option("--cost", type=COINS, default="0", show_default=True,
                     help="What one answer costs you, in coins: it joins while the jackpot pays that; 0: always."),
        click.option("--stake", type=COINS, default="1", show_default=True,
                     help="Stake to bring for bonds of answers, in coins."),
    ):  # fmt: skip
        command = option(command)
    return command


def make_whistleblower(
    stake: int, cost: int, audits: int, join_chance: float, when_idle: str, idle_blocks: int
) -> Whistleblower:
    """The player of these options."""
    from assay.market.types import MILLION
    from assay.roles.whistleblower import WhenIdle, Whistleblower, WhistleblowerOptions

    return Whistleblower(
        WhistleblowerOptions(
            stake=stake,
            cost=cost,
            audits=audits,
            join_chance=round(join_chance * MILLION),
            when_idle=WhenIdle(when_idle),
            idle_blocks=idle_blocks,
        )
    )


@click.group()
def whistleblower() -> None:
    """Earn by checking verifiers."""


whistleblower.add_command(leak)


@whistleblower.command()
@whistleblower_options
@metrics_option
@settings_options
@run_json_option
def run(metrics_port: int | None, settings: Settings, as_json: bool, **options: Any) -> None:
    """Join claims, replay, answer, dispute and accuse what is wrong, until Ctrl-C."""
    run_players(settings, [make_whistleblower(**options)], metrics_port, as_json)
