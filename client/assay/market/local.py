"""A market on a local chain: anvil with the contracts deployed, for demonstrations, development and tests."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from eth_account import Account

from assay.chain.local import LocalChain, start_local_chain
from assay.chain.sender import Sender
from assay.market.connection import Market, open_chain
from assay.market.deploy import Report, deploy_market
from assay.market.deployment import Deployment
from assay.market.parameters import LOCAL, LOCAL_COURT, CourtParameters, Parameters
from assay.state import StateFolder


@dataclass(frozen=True)
class LocalMarket:
    """A running anvil and the market on it. The first account deployed the contracts and owns nothing by it."""

    chain: LocalChain
    market: Market

    @property
    def deployment(self) -> Deployment:
        return self.market.deployment

    def stop(self) -> None:
        """End the chain."""
        self.chain.stop()


def start_local_market(
    parameters: Parameters = LOCAL,
    court: CourtParameters = LOCAL_COURT,
    *,
    port: int | None = None,
    accounts: int = 10,
    balance: int = 10_000,
    block_time: float | None = None,
    log: Path | None = None,
    options: tuple[str, ...] = (),
    report: Report | None = None,
) -> LocalMarket:
    """Start anvil and deploy the market. Arguments as for `start_local_chain`.

    Time goes on by blocks only: windows need `block_time`, or somebody who mines.
    """
    running = start_local_chain(
        port=port, accounts=accounts, balance=balance, block_time=block_time, log=log, options=options
    )
    try:
        chain = open_chain(running.url)
        with (
            tempfile.TemporaryDirectory(prefix="assay-deploy-") as folder,
            StateFolder(Path(folder) / "state") as state,
        ):
            sender = Sender(chain, Account.from_key(running.private_keys[0]), state)
            deployment = deploy_market(sender, parameters, court, report)
        return LocalMarket(running, Market(chain, deployment))
    except BaseException:
        running.stop()
        raise


@contextlib.contextmanager
def local_market(
    parameters: Parameters = LOCAL,
    court: CourtParameters = LOCAL_COURT,
    *,
    port: int | None = None,
    accounts: int = 10,
    balance: int = 10_000,
    block_time: float | None = None,
    log: Path | None = None,
    options: tuple[str, ...] = (),
) -> Iterator[LocalMarket]:
    """A local market for the time of a block."""
    running = start_local_market(
        parameters, court, port=port, accounts=accounts, balance=balance, block_time=block_time, log=log,
        options=options,
    )  # fmt: skip
    try:
        yield running
    finally:
        running.stop()
