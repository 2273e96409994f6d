"""A market played in one process, a block a beat, while things go wrong: roles are killed at writes and started again,
blocks are dropped, stores and the endpoint fail."""

from __future__ import annotations

import contextlib
import logging
import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from eth_account import Account

from assay.bench.load import books
from assay.bench.load.faults import FaultyProvider, FaultyStore, Killed, MortalState
from assay.bench.load.people import CAST, HONEST, Part, SharingBench, Submitter, Sweeper
from assay.bench.load.task import make_task
from assay.chain.sender import Sender
from assay.demo.stage import COURT, PARAMETERS
from assay.errors import AssayError
from assay.market.connection import Market, open_chain
from assay.market.local import LocalMarket, local_market
from assay.market.reader import MarketReader
from assay.market.types import Class
from assay.roles.metrics import Metrics
from assay.roles.node import Node
from assay.storage.directory import DirectoryStore
from assay.tasks.posting import estimate, make_posting
from assay.tasks.publish import publish_bundle

logger = logging.getLogger(__name__)

WINDOWS = PARAMETERS.with_changes(
    {
        "forced_rate": 300_000,
        "commit_seconds": 600,
        "answer_seconds": 300,
        "reveal_seconds": 300,
        "disclose_seconds": 600,
        "dispute_seconds": 300,
        "volunteer_seconds": 300,
        "hold_seconds": 3600,
        "train_seconds": 600,
        "join_blocks": 6,
        "unbonding_seconds": 20_000,
    }
)
"""Windows of some tens of blocks, so that absent roles do not hold a task for long."""


class LoadError(AssayError):
    """The market did not come to rest."""

    code = "load"


@dataclass(frozen=True)
class LoadSettings:
    """What to play. Rates are chances: of a kill for each role and beat, of a reorganisation for each beat, of a fault
    for each call of a store or of the endpoint. `tick` is seconds a block."""

    tasks: int = 300
    seed: int = 1
    at_once: int = 8
    is_large: bool = True
    kills: float = 0.004
    reorganisations: float = 0.02
    deepest: int = 3
    store_faults: float = 0.03
    endpoint_faults: float = 0.002
    attention: float = 0.5
    """Chance that a role gets its turn before a block: they are never all as quick as the chain."""
    tick: int = 20
    patience: int = 4000
    """Beats without a task that ends, after which the market is taken to be stuck."""


@dataclass
class Actor:
    """A participant: its account and state folder stay, its node is made anew after every death."""

    part: str
    place: int
    make: Callable[[], Node]
    state: MortalState | None = None
    node: Node | None = None
    dirty: bool = True
    deaths: int = 0


@dataclass
class Counts:
    """What went wrong on purpose, and how long things took."""

    kills: int = 0
    reorganisations: int = 0
    dropped_blocks: int = 0
    failed_turns: int = 0
    beats: int = 0
    turn_seconds: list[float] = field(default_factory=list)


class LoadWorld:
    """The market, its participants and their misfortunes.

    Each kind of misfortune has a source of chance of its own, from the seed: what threads and the system's scheduling
    change in one of them does not decide whether another ever strikes.
    """

    def __init__(self, local: LocalMarket, folder: Path, settings: LoadSettings) -> None:
        self.local, self.folder, self.settings = local, folder, settings
        self.chance, self.of_kills, self.of_blocks, self.of_stores, self.of_endpoints = (
            random.Random(f"{settings.seed} {kind}") for kind in ("turns", "kills", "blocks", "stores", "endpoints")
        )
        self.store = DirectoryStore(folder / "store")
        self.reader = MarketReader(local.market)
        self.counts = Counts()
        self.stores: list[FaultyStore] = []
        self.providers: list[FaultyProvider] = []
        file, bundle = make_task(folder / "task")
        locations = publish_bundle(self.store, bundle)
        postings = []
        for verifiers in (1, 1, 2):
            posting = make_posting(bundle, replace(file.market, verifiers=verifiers), locations, WINDOWS)
            postings.append((posting, estimate(posting, bundle.task.program, WINDOWS).escrow))
        submitter = Part("submitter", lambda: Submitter(settings.tasks, settings.at_once, postings), 1, 1)
        self.actors: list[Actor] = []
        for part in (submitter, *CAST, Part("sweeper", Sweeper, 1, 1)):
            for _ in range(part.many if settings.is_large else part.few):
                self._add(part)
        self.quiet = False

    def _add(self, part: Part) -> None:
        place = len(self.actors) + 1
        actor = Actor(part.name, place, lambda: self._node(actor, part))
        self.actors.append(actor)

    def _node(self, actor: Actor, part: Part) -> Node:
        account = Account.from_key(self.local.chain.private_keys[actor.place])
        home = self.folder / f"{actor.place:02d}-{part.name.replace(' ', '-')}"
        actor.state = MortalState(home)
        chain = open_chain(self.local.chain.url)
        provider = FaultyProvider(self.local.chain.url, self.settings.endpoint_faults, self.of_endpoints)
        chain.web3.provider = provider
        store = FaultyStore(self.store, self.settings.store_faults, self.of_stores)
        self.providers.append(provider)
        self.stores.append(store)
        market = Market(chain, self.local.deployment)
        sender = Sender(chain, account, actor.state)
        bench: SharingBench = part.bench(home / "work", (store,), actor.state)  # type: ignore[assignment]
        return Node(market, sender, actor.state, bench, [part.make()], Metrics(f"load{actor.place}"))

    # ---- Misfortunes ------------------------------------------------------------------------------------------------

    def kill(self, actor: Actor) -> None:
        """End an actor's process where it is; it is started again with its next turn."""
        if actor.node is not None:
            actor.node.jobs.close()
        if actor.state is not None:
            actor.state.is_dead = True
            actor.state.close()
        actor.node, actor.state, actor.dirty = None, None, True
        actor.deaths += 1
        self.counts.kills += 1

    def reorganise(self) -> None:
        """Replace the last blocks by empty ones."""
        depth = self.of_blocks.randint(1, self.settings.deepest)
        answer = self._request("anvil_reorg", depth, [])
        if "error" not in answer:
            self.counts.reorganisations += 1
            self.counts.dropped_blocks += depth

    def _request(self, method: str, *values: Any) -> Any:
        return self.local.market.chain.web3.provider.make_request(method, list(values))  # type: ignore[arg-type]

    def calm(self) -> None:
        """No more misfortunes, so that everything can come to rest."""
        self.quiet = True
        for store in self.stores:
            store.rate = 0.0
        for provider in self.providers:
            provider.rate = 0.0

    # ---- Playing ----------------------------------------------------------------------------------------------------

    def beat(self) -> None:
        """Everybody's turn, in some order, and a block."""
        settings = self.settings
        self.counts.beats += 1
        for actor in self.chance.sample(self.actors, len(self.actors)):
            if self.chance.random() >= settings.attention:
                continue
            if actor.node is None:
                actor.node = actor.make()
            assert actor.state is not None
            if not self.quiet and self.of_kills.random() < settings.kills:
                # At one of its next writes, or, if it writes nothing, between two turns.
                actor.state.arm(self.of_kills.randint(1, 4))
            begin = time.perf_counter()
            try:
                done = actor.node.step(actor.dirty)
                actor.dirty = done is not False
                self.counts.failed_turns += done is None
            except Killed:
                self.kill(actor)
            else:
                if actor.state.is_dead:
                    self.kill(actor)
            self.counts.turn_seconds.append(time.perf_counter() - begin)
        self._request("evm_increaseTime", settings.tick)
        self._request("evm_mine")
        if not self.quiet and self.of_blocks.random() < settings.reorganisations:
            self.reorganise()

    def play(self, done: Callable[[], bool], say: Callable[[str], None]) -> None:
        """Beats until `done`. `LoadError` where nothing ends any more."""
        last, over, told = self.counts.beats, -1, -1
        while not done():
            self.beat()
            self.reader.poll()
            tasks = self.reader.view.tasks.values()
            ended = sum(task.state.is_over for task in tasks)
            if ended != over:
                over, last = ended, self.counts.beats
            if self.counts.beats - last > self.settings.patience:
                words = "; ".join(books.unfinished(self.reader)) or f"left over: {books.left_over(self.reader)}"
                raise LoadError(f"nothing has ended for {self.settings.patience} blocks: {words[:2000]}")
            if self.counts.beats % 20 == 0 and told != self.counts.beats:
                told = self.counts.beats
                say(
                    f"block {self.reader.view.block}: {len(tasks)} tasks posted, {ended} over, "
                    f"{self.counts.kills} kills, {self.counts.reorganisations} reorganisations, {memory()} MB"
                )

    def all_over(self) -> bool:
        """Whether every task was posted, is over, and holds nothing any more."""
        view = self.reader.view
        if len(view.tasks) < self.settings.tasks or any(True for _ in view.running()) or view.unreleased():
            return False
        return not books.left_over(self.reader)

    def close(self) -> None:
        for actor in self.actors:
            if actor.node is not None:
                actor.node.jobs.close()
            if actor.state is not None:
                actor.state.close()

    # ---- Afterwards -------------------------------------------------------------------------------------------------

    def worth(self, actor: Actor) -> int:
        """What an actor has in the ledger and its wallet, in wei."""
        market = self.local.market
        address = market.chain.web3.to_checksum_address(self.local.chain.addresses[actor.place])
        held = sum(
            market.stakes.balance(kind, address) for kind in (Class.FREE, Class.LOCKED, Class.LEAVING, Class.CREDIT)
        )
        return held + int(market.chain.web3.eth.get_balance(address))


def memory() -> int:
    """Most memory this process has used, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@contextlib.contextmanager
def load_world(folder: Path, settings: LoadSettings) -> Iterator[LoadWorld]:
    """A fresh chain that mines when it is told to."""
    options = ("--gas-limit", "200000000", "--block-base-fee-per-gas", "0")
    SharingBench.known.clear()
    with local_market(WINDOWS, COURT, accounts=30, options=options) as local:
        # The contracts are there: from here on a block comes with every beat and at no other time.
        local.market.chain.web3.provider.make_request("evm_setAutomine", [False])  # type: ignore[arg-type]
        world = LoadWorld(local, folder, settings)
        try:
            yield world
        finally:
            world.close()


def run_load(settings: LoadSettings, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Play a load to its end and examine the accounts. `LoadError` where the market is stuck."""
    begin = time.monotonic()
    with load_world(folder, settings) as world:
        before = {actor.place: world.worth(actor) for actor in world.actors}
        first = memory()
        world.play(lambda: not any(True for _ in world.reader.view.running()) and all_posted(world), say)
        world.calm()
        world.play(world.all_over, say)
        # What was dropped in the last reorganisation is there again after some blocks.
        for _ in range(5):
            world.beat()
        world.reader.poll()
        reader, counts = world.reader, world.counts
        gains: Counter[str] = Counter()
        for actor in world.actors:
            gains[actor.part] += world.worth(actor) - before[actor.place]
        turns = counts.turn_seconds
        tenth = max(1, len(turns) // 10)
        return {
            "settings": asdict(settings),
            "tasks": len(reader.view.tasks),
            "ends": books.ends(reader),
            "blocks": reader.view.block,
            "cases": len(reader.view.claims.cases),
            "rounds": len(reader.view.rounds),
            "kills": counts.kills,
            "reorganisations": counts.reorganisations,
            "dropped_blocks": counts.dropped_blocks,
            "store_faults": sum(store.faults for store in world.stores),
            "endpoint_faults": sum(provider.faults for provider in world.providers),
            "failed_turns": counts.failed_turns,
            "faults_of_the_accounts": books.examine(reader),
            "done_twice": books.doubled(reader),
            "left_over_wei": books.left_over(reader),
            "unfinished": books.unfinished(reader),
            "gains_coin": {part: gain / 10**18 for part, gain in gains.items()},
            "honest_lost": sorted(part for part in HONEST if gains[part] < 0),
            "pool_wei": str(reader.market.stakes.pool()),
            "seconds": round(time.monotonic() - begin, 1),
            "median_turn_ms": {
                "first tenth": round(1000 * median(turns[:tenth]), 1),
                "last tenth": round(1000 * median(turns[-tenth:]), 1),
            },
            "memory_mb": {"start": first, "end": memory()},
        }


def all_posted(world: LoadWorld) -> bool:
    """Whether every task is on chain."""
    return len(world.reader.view.tasks) >= world.settings.tasks
