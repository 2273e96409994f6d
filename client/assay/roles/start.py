"""From settings and players to a running node."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from assay.market.connection import Market
from assay.roles.bench import Workbench
from assay.roles.context import Player
from assay.roles.logs import set_up_logs
from assay.roles.metrics import Metrics
from assay.roles.node import Node
from assay.roles.session import open_market, open_sender, use_threads
from assay.roles.stores import open_stores
from assay.settings import Settings
from assay.state import StateFolder
from assay.storage.store import Store
from assay.tasks.bundle import BundleLimits

BenchMaker = Callable[[Path, Sequence[Store], StateFolder], Workbench]


@contextlib.contextmanager
def open_node(
    settings: Settings,
    players: Sequence[Player],
    metrics_port: int | None = None,
    make_bench: BenchMaker = Workbench,
    as_json: bool = False,
) -> Iterator[Node]:
    """A node with the account, chain, stores and state folder that the settings name.

    Under `as_json` the logs are JSON lines on standard output.
    """
    role = "+".join(player.name for player in players)
    use_threads(settings)
    set_up_logs(role, settings.text("log.format"), settings.text("log.level"), as_json)
    market: Market = open_market(settings)
    stores = open_stores(settings)
    metrics = Metrics(role)
    if metrics_port is not None:
        metrics.serve(metrics_port)
    with open_sender(settings, market) as sender:
        bench = make_bench(sender.state.folder / "work", stores, sender.state)
        bench.device = settings.text("compute.device")
        bench.limits = BundleLimits.at_most(settings.whole("storage.limit_mib") << 20)
        yield Node(market, sender, sender.state, bench, players, metrics, settings.number("chain.poll_seconds"))
