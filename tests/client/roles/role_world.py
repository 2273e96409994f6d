"""Events of a task, made by hand, the picture of the market that they make, and what players decide from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any

from eth_utils.address import to_checksum_address

from assay.chain.rpc import Chain
from assay.commitments.execution import ReplayLeaf
from assay.market import events as e
from assay.market.connection import Market
from assay.market.deployment import COMPANIONS, HELPERS, MODULES, Deployment
from assay.market.logs import Logged
from assay.market.parameters import LOCAL, LOCAL_COURT
from assay.market.types import Class, Posting
from assay.market.view import MarketView
from assay.roles.bench import Workbench
from assay.roles.context import Context, Purse
from assay.roles.subjects import subject_of_round

SUBMITTER, SOLVER, VERIFIER, WITNESS = (to_checksum_address(f"0x{n:040x}") for n in (1, 2, 3, 4))
TASK, ROUND = 7, 77


def posting(exact: bool = True) -> Posting:
    return Posting(
        b"", bytes(32), 1, bytes(32), bytes(32), 0, 5, 40, 10, exact, 1, 2, 0, 100, 300, 10, 0, 100, 1000, "here",
    )  # fmt: skip


def view_of(events: Sequence[e.MarketEvent], block: int = 10, time: int = 1100) -> MarketView:
    """The picture after some events."""
    view = MarketView()
    for place, event in enumerate(events):
        view.apply(Logged(1, place, "0x", "", event))
    view.block, view.time = block, time
    return view


def opened(posted: Posting | None = None) -> list[e.MarketEvent]:
    return [
        e.TaskSubmitted(TASK, SUBMITTER, bytes(32), 4, 1, 0, posted or posting()),
        e.TaskOpened(TASK, bytes(32), 100, 300, 1000),
    ]


def drawn() -> list[e.MarketEvent]:
    return [
        e.TaskTaken(TASK, SOLVER, 150, 9, 5000),
        e.ProofRegistered(TASK, SOLVER, b"c" * 32, b"f" * 32, "proof"),
        e.DrawDue(TASK, 0, 0, 3, 1),
        e.Drawn(TASK, 0, VERIFIER, ROUND, 0, 9, (2, 0), 6000),
    ]


def deposited(account: str) -> e.MarketEvent:
    return e.CoinEntered(Class.FREE, int(account, 16), 1)


ADDRESSES = {name: f"0x{n + 100:040x}" for n, name in enumerate((*MODULES, *HELPERS, *COMPANIONS))}
MARKET = Market(Chain("http://127.0.0.1:1"), Deployment(1, 0, SUBMITTER, ADDRESSES, LOCAL, LOCAL_COURT))
LEAVES = (ReplayLeaf(2, b"a" * 32, 0, b"t" * 32), ReplayLeaf(0, b"b" * 32, 0, b"u" * 32))
RICH = Purse(free=10**20, locked=0, credit=0, seats=1)


@dataclass
class Known:
    """Results that are there already."""

    results: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)

    def result(self, key: str) -> Any | None:
        return self.results.get(key)

    def failures(self, key: str) -> int:
        return self.failed.get(key, 0)


class OpenedBench(Workbench):
    """A workbench whose checkpoints need no files."""

    def __init__(self) -> None:
        pass

    def checkpoint_openings(self, task: Any, segments: Any) -> Any:
        return ()


def replay_key(events: list[e.MarketEvent]) -> str:
    """Name of the work of the only round."""
    view = view_of(events)
    return subject_of_round(view, view.rounds[ROUND]).key


def secret(name: str) -> bytes:
    return sha256(name.encode()).digest()


def context(
    me: str, events: list[e.MarketEvent], known: Known | None = None, block: int = 10, time: int = 1100, **changes: Any
) -> Context:
    view = view_of(events, block, time)
    return replace(Context(MARKET, me, view, RICH, known or Known(), OpenedBench(), secret), **changes)


def keys(actions: Any) -> list[str]:
    return [action.key.partition(":")[0] for action in actions]
