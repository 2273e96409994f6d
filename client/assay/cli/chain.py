"""`assay chain`: a chain on this machine for trying things out, with the market deployed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from assay.chain.local import LocalChain, LocalChainError, start_local_chain


@click.group()
def chain() -> None:
    """Run a local chain."""


@chain.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on; a free one by default.")
@click.option("--accounts", type=click.IntRange(1, 1000), default=10, show_default=True, help="Funded accounts.")
@click.option(
    "--block-time", type=click.FloatRange(min=0.1),
    help="Seconds between blocks; by default 1, and one block a transaction with --bare.",
)  # fmt: skip
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="Write anvil's output to this file.")
@click.option("--bare", is_flag=True, help="Deploy no contracts.")
@click.option(
    "--deployment", type=click.Path(dir_okay=False, path_type=Path), default=Path("deployment.json"),
    show_default=True, help="File to write the contracts' addresses to (for chain.deployment).",
)  # fmt: skip
@click.option("--parameter", "changes", multiple=True, metavar="NAME=NUMBER", help="Change one protocol parameter.")
@click.option("--json", "as_json", is_flag=True, help="Print the chain's data as one line of JSON.")
def up(
    port: int | None,
    accounts: int,
    block_time: float | None,
    log: Path | None,
    bare: bool,
    deployment: Path,
    changes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run anvil until Ctrl-C with the market deployed (in short windows), and print its address and accounts.

    The accounts' keys are publicly known: never send anything of value to them.
    """
    record: dict[str, Any]
    if bare:
        running = start_local_chain(port=port, accounts=accounts, block_time=block_time, log=log)
        record = _record(running)
    else:
        from assay.cli.deploy import changes_of
        from assay.market.deployment import write_deployment
        from assay.market.local import start_local_market
        from assay.market.parameters import LOCAL

        market = start_local_market(
            LOCAL.with_changes(changes_of(changes)),
            port=port,
            accounts=accounts,
            block_time=1.0 if block_time is None else block_time,
            log=log,
        )
        running = market.chain
        write_deployment(market.deployment, deployment)
        contracts = dict(market.deployment.addresses)
        record = _record(running) | {"deployment": str(deployment.resolve()), "contracts": contracts}
    try:
        if as_json:
            click.echo(json.dumps(record))
        else:
            click.echo(f"chain {running.chain_id} at {running.url} (Ctrl-C stops it)")
            for address, key in zip(running.addresses, running.private_keys, strict=True):
                click.echo(f"  {address}  {key}")
            if not bare:
                click.echo(f"market deployed; set chain.url to {running.url}")
                click.echo(f"and chain.deployment to {record['deployment']}")
        while running.is_running():
            time.sleep(0.2)
        raise LocalChainError(
            f"anvil ended by itself with exit code {running.process.returncode}: run this with --log FILE"
        )
    finally:
        running.stop()


def _record(running: LocalChain) -> dict[str, Any]:
    return {
        "url": running.url,
        "chain_id": running.chain_id,
        "addresses": running.addresses,
        "private_keys": running.private_keys,
    }
