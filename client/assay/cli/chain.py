"""`assay chain`: a chain on this machine for trying things out."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from assay.chain.local import LocalChainError, start_local_chain


@click.group()
def chain() -> None:
    """Run a local chain."""


@chain.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on; a free one by default.")
@click.option("--accounts", type=click.IntRange(1, 1000), default=10, show_default=True, help="Funded accounts.")
@click.option(
    "--block-time", type=click.FloatRange(min=0.1), help="Seconds between blocks; by default one a transaction."
)
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="Write anvil's output to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the chain's data as one line of JSON.")
def up(port: int | None, accounts: int, block_time: float | None, log: Path | None, as_json: bool) -> None:
    """Run anvil until Ctrl-C and print its address and accounts.

    The accounts' keys are publicly known: never send anything of value to them.
    """
    running = start_local_chain(port=port, accounts=accounts, block_time=block_time, log=log)
    try:
        if as_json:
            record = {
                "url": running.url,
                "chain_id": running.chain_id,
                "addresses": running.addresses,
                "private_keys": running.private_keys,
            }
            click.echo(json.dumps(record))
        else:
            click.echo(f"chain {running.chain_id} at {running.url} (Ctrl-C stops it)")
            for address, key in zip(running.addresses, running.private_keys, strict=True):
                click.echo(f"  {address}  {key}")
        while running.is_running():
            time.sleep(0.2)
        raise LocalChainError(
            f"anvil ended by itself with exit code {running.process.returncode}: run this with --log FILE"
        )
    finally:
        running.stop()
