"""`assay status`: the market and the own account at a glance."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime

import click

from assay.cli.options import ADDRESS, json_option, settings_options
from assay.settings import Settings


@click.command()
@click.option("--account", type=ADDRESS, help="Address to look at; by default the key file's.")
@settings_options
@json_option
def status(account: str | None, settings: Settings, as_json: bool) -> None:
    """Show tasks by state, open cases, the jackpot pool, and what an account has in the market."""
    from assay.accounts import keystore_address
    from assay.market.types import Class
    from assay.roles.disputes import own_cases
    from assay.roles.session import keystore_path, open_market, open_reader

    market = open_market(settings)
    reader = open_reader(settings, market)
    reader.poll()
    if account is None and settings.text("account.keystore"):
        account = keystore_address(keystore_path(settings))
    view = reader.view
    document: dict[str, object] = {
        "chain": market.deployment.chain_id,
        "block": view.block,
        "time": view.time,
        "tasks": dict(Counter(task.state.name.lower() for task in view.tasks.values())),
        "open_cases": len(view.claims.open_cases()),
        "active_whistleblowers": market.stakes.active_whistleblowers(),
        "jackpot_pool": str(market.stakes.pool()),
        "held": str(market.stakes.total()),
    }
    if account is not None:
        me = str(market.chain.web3.to_checksum_address(account))
        kinds = (Class.FREE, Class.LOCKED, Class.LEAVING, Class.CREDIT)
        document["account"] = {
            "address": me,
            **{kind.name.lower(): str(market.stakes.balance(kind, me)) for kind in kinds},
            "seats": market.stakes.seats(me),
            "solving": sum(task.solver == me for task in view.running()),
            "verifying": sum(
                found.verifier == me and not view.task(found.task_id).state.is_over for found in view.rounds_holding(me)
            ),
            "cases": len(own_cases(view, me)),
        }
    if as_json:
        click.echo(json.dumps(document))
        return
    for name, value in {**document, "time": clock(view.time)}.items():
        if value == {}:
            click.echo(f"{name:22} none")
        elif isinstance(value, dict):
            click.echo(f"{name}:")
            for key, each in value.items():
                click.echo(f"  {key:12} {_shown(each)}")
        else:
            click.echo(f"{name.replace('_', ' '):22} {_shown(value)}")


def clock(seconds: int) -> str:
    """A block's time as people read it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "seconds")


def _shown(value: object) -> str:
    """Amounts (decimal text) in coins, everything else as it is."""
    return f"{int(value) / 1e18:.6f} coins" if isinstance(value, str) and value.isdigit() else str(value)
