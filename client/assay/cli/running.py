"""`run`, of one role or of several in one process."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation, Overflow
from typing import TYPE_CHECKING, Any

import click

from assay.settings import Settings

if TYPE_CHECKING:
    from assay.roles.context import Player
    from assay.roles.node import Node

Command = Callable[..., Any]


class Coins(click.ParamType[int]):
    """An amount in whole coins, as wei."""

    name = "coins"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            wei = Decimal(str(value)) * 10**18
        except (InvalidOperation, Overflow):
            self.fail(f"{value!r} is no amount of coins: write it as 0.25", param, ctx)
        if not wei.is_finite() or wei < 0 or wei != wei.to_integral_value():
            self.fail(f"{value!r} is no amount of coins: it has at most 18 decimal places and no sign", param, ctx)
        return int(wei)


COINS = Coins()


def metrics_option(command: Command) -> Command:
    """--metrics-port, of every `run`."""
    return click.option(
        "--metrics-port", type=click.IntRange(1, 65535), help="Serve figures for Prometheus on this port of 127.0.0.1."
    )(command)


def run_json_option(command: Command) -> Command:
    """--json, of every `run`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print what happens as JSON lines on standard output, a summary last."
    )(command)


def run_players(settings: Settings, players: Sequence[Player], metrics_port: int | None, as_json: bool) -> None:
    """Run roles with the settings' account until the process is told to end."""
    from assay.roles.start import open_node

    run_node(open_node(settings, players, metrics_port, as_json=as_json), as_json)


def run_node(opened: contextlib.AbstractContextManager[Node], as_json: bool) -> None:
    """Run a node until the process is told to end."""
    with opened as node:
        try:
            node.run()
        finally:
            if as_json:
                with contextlib.suppress(OSError):
                    click.echo(json.dumps(node.closing_summary()))
