"""From settings and players to a running node."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from assay.accounts import open_keystore, read_password
from assay.chain.sender import FeePolicy, Sender
from assay.market.connection import connect
from assay.roles.bench import Workbench
from assay.roles.context import Player
from assay.roles.logs import set_up_logs
from assay.roles.metrics import Metrics
from assay.roles.node import Node
from assay.roles.stores import open_stores
from assay.settings import Settings, SettingsError
from assay.state import StateFolder
from assay.storage.store import Store

BenchMaker = Callable[[Path, Sequence[Store], StateFolder], Workbench]


@contextlib.contextmanager
def open_node(
    settings: Settings,
    players: Sequence[Player],
    metrics_port: int | None = None,
    make_bench: BenchMaker = Workbench,
) -> Iterator[Node]:
    """A node with the account, chain, stores and state folder that the settings name."""
    role = "+".join(player.name for player in players)
    set_up_logs(role, settings.text("log.format"), settings.text("log.level"))
    deployment = settings.text("chain.deployment")
    if not deployment:
        raise SettingsError("chain.deployment is not set: name the file that `assay deploy` or `assay chain up` wrote")
    keystore = settings.text("account.keystore")
    if not keystore:
        raise SettingsError("account.keystore is not set: make a key file with `assay account new`")
    market = connect(settings.text("chain.url"), Path(deployment))
    password = read_password(f"password of {keystore}: ", settings.text("account.password_file"))
    account = open_keystore(Path(keystore), password)
    fees = FeePolicy(
        int(settings.number("chain.fee_cap") * 1e9), int(settings.number("chain.tip") * 1e9),
        settings.number("chain.stuck_seconds"),
    )  # fmt: skip
    metrics = Metrics(role)
    if metrics_port is not None:
        metrics.serve(metrics_port)
    with StateFolder(Path(settings.text("state.folder"))) as state:
        sender = Sender(market.chain, account, state, fees, settings.whole("chain.confirmations"))
        bench = make_bench(state.folder / "work", open_stores(settings), state)
        yield Node(market, sender, state, bench, players, metrics, settings.number("chain.poll_seconds"))
