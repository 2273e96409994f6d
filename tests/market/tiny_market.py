"""A market on a local chain with a task so small that a test can play it many times, and nodes inside this process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from eth_account import Account

from assay.bench.load import task as tiny
from assay.chain.sender import Sender
from assay.demo.stage import COURT, PARAMETERS
from assay.market.connection import Market, open_chain
from assay.market.deployment import write_deployment
from assay.market.local import LocalMarket, local_market
from assay.market.reader import MarketReader
from assay.roles.bench import Workbench
from assay.roles.context import Player
from assay.roles.metrics import Metrics
from assay.roles.node import Node
from assay.state import StateFolder
from assay.storage.directory import DirectoryStore
from assay.storage.store import Store
from assay.tasks.bundle import Bundle
from assay.tasks.posting import estimate, make_posting
from assay.tasks.publish import publish_bundle
from assay.tasks.task_file import TaskFile

SUBMITTER, SOLVER, VERIFIER, WITNESS, LIAR = 1, 2, 3, 4, 5
"""Places of the actors among the chain's accounts."""
TICK_SECONDS = 20
CONTRACTS = ("stakes", "tasks", "verification", "answers", "claims", "settlement", "demands", "court")

TASK = tiny.TASK


def make_task(
    folder: Path, tolerant: bool = False, steps: int = 8, changes: Mapping[str, str] = MappingProxyType({})
) -> tuple[TaskFile, Bundle]:
    """The tiny task's bundle, in exact or in tolerant mode; `changes` replace lines of its task.toml."""
    mode = {"seed = 3": 'seed = 3\nmode = "tolerant"'} if tolerant else {}
    return tiny.make_task(folder, {**mode, "steps = 8": f"steps = {steps}", **changes})


class MortalState(StateFolder):
    """A state folder whose process is killed right after it has written something durable."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._armed = False

    def arm(self) -> None:
        """From now on the first write is the last thing the process does."""
        self._armed = True

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        nested = self._database.in_transaction
        before = self._database.total_changes
        with super().transaction() as database:
            yield database
        if self._armed and not nested and self._database.total_changes != before:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class World:
    """The market, and the nodes that play on it."""

    local: LocalMarket
    folder: Path
    file: TaskFile
    bundle: Bundle
    nodes: list[Node] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = DirectoryStore(self.folder / "store")
        self.market = self.local.market
        self.reader = MarketReader(self.market)

    def node(
        self,
        place: int,
        players: Sequence[Player],
        mortal: bool = False,
        make_bench: type[Workbench] = Workbench,
        url: str | None = None,
        stores: Sequence[Store] | None = None,
    ) -> Node:
        """A node with an account of the chain, on a connection of its own; its state stays from call to call."""
        account = Account.from_key(self.local.chain.private_keys[place])
        folder = self.folder / f"account-{place}"
        state = MortalState(folder) if mortal else StateFolder(folder)
        market = Market(open_chain(url or self.local.chain.url), self.local.deployment)
        sender = Sender(market.chain, account, state)
        bench = make_bench(folder / "work", stores or (self.store,), state)
        if isinstance(state, MortalState):
            state.arm()
        return Node(market, sender, state, bench, players, Metrics(f"role{place}"), pause=0.02)

    def address(self, place: int) -> str:
        return self.market.chain.web3.to_checksum_address(self.local.chain.addresses[place])

    def submit(self, verifiers: int = 1) -> int:
        """Post the task; returns its number."""
        locations = publish_bundle(self.store, self.bundle)
        terms = replace(self.file.market, verifiers=verifiers)
        posting = make_posting(self.bundle, terms, locations, PARAMETERS)
        escrow = estimate(posting, self.bundle.task.program, PARAMETERS).escrow
        with StateFolder(self.folder / "submitter") as state:
            account = Account.from_key(self.local.chain.private_keys[SUBMITTER])
            sender = Sender(self.market.chain, account, state)
            known = set(self.tasks())
            sender.send(f"submit:{len(known)}", self.market.tasks.submit(posting, escrow))
        (task,) = set(self.tasks()) - known
        return task

    def tasks(self) -> list[int]:
        self.reader.poll()
        return list(self.reader.view.tasks)

    def tick(self) -> None:
        """Let time pass, and mine a block."""
        for method, values in (("evm_increaseTime", [TICK_SECONDS]), ("evm_mine", [])):
            self.market.chain.web3.provider.make_request(method, values)  # type: ignore[arg-type]

    def calls(self, place: int, only_succeeded: bool = False, contracts: Sequence[str] = CONTRACTS) -> list[str]:
        """Names of the functions that an account has called, in order."""
        eth = self.market.chain.web3.eth
        names = {}
        for contract in contracts:
            access = getattr(self.market, contract)
            for name, function in access.interface._functions.items():
                names[access.address.lower(), function.selector] = name
        found = []
        for number in range(eth.block_number + 1):
            for transaction in eth.get_block(number, full_transactions=True)["transactions"]:
                if transaction["from"] == self.address(place) and transaction.get("to"):  # type: ignore[index,union-attr]
                    if only_succeeded and not eth.get_transaction_receipt(transaction["hash"])["status"]:  # type: ignore[index]
                        continue
                    key = (str(transaction["to"]).lower(), bytes(transaction["input"])[:4])  # type: ignore[index,arg-type]
                    if key in names or contracts == CONTRACTS:
                        found.append(names.get(key, "unknown"))
        return found

    def play(
        self,
        done: Callable[[], bool],
        idle: Callable[[], bool] = lambda: True,
        limit: float = 120.0,
        outlast: bool = False,
    ) -> None:
        """Let the nodes of this process play, and time pass while nobody does anything.

        `outlast`: what fails in a turn is left to a later one, as in a role's own loop.
        """
        end = time.monotonic() + limit
        while not done():
            assert time.monotonic() < end, f"still not done after {limit:.0f} s"
            acted = [node.step() if outlast else node.turn() for node in self.nodes]
            busy = any(each is not False for each in acted)
            busy = busy or any(node.jobs.running or node.sender.pending() for node in self.nodes)
            self.reader.poll()
            if not busy and idle():
                self.tick()
            time.sleep(0.01)


def settings_of(world: World) -> list[str]:
    """Flags by which a command finds a world's chain, market and files."""
    path = world.folder / "deployment.json"
    write_deployment(world.local.deployment, path)
    values = {
        "chain.url": world.local.chain.url,
        "chain.deployment": path,
        "state.folder": world.folder / "cli",
        "storage.folder": world.folder / "store",
    }
    return [part for name, value in values.items() for part in ("--set", f"{name}={value}")]


def run_and_die(
    world: World, place: int, make: Callable[[], Player], status: Path, make_bench: type[Workbench] = Workbench
) -> None:
    """In a forked child: play a role until the first durable write, saying in `status` at which block it waits."""
    node = world.node(place, [make()], mortal=True, make_bench=make_bench)
    dirty = True
    while True:
        dirty = node.turn(dirty)
        if not dirty and not node.jobs.running and not node.sender.pending():
            partial = status.with_suffix(".partial")
            partial.write_text(json.dumps({"waiting": node.reader.view.block}))
            partial.replace(status)
        time.sleep(0.01)


@contextlib.contextmanager
def tiny_world(folder: Path, file: TaskFile, bundle: Bundle) -> Iterator[World]:
    """A fresh chain with the market and no nodes."""
    with local_market(PARAMETERS, COURT, options=("--gas-limit", "60000000")) as local:
        world = World(local, folder, file, bundle)
        try:
            yield world
        finally:
            for node in world.nodes:
                node.jobs.close()
                node.state.close()
