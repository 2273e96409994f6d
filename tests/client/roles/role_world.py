"""Events of a task, made by hand, and the picture of the market that they make."""

from __future__ import annotations

from collections.abc import Sequence

from eth_utils.address import to_checksum_address

from assay.market import events as e
from assay.market.types import Class, Posting
from assay.market.view import MarketView

SUBMITTER, SOLVER, VERIFIER, WITNESS = (to_checksum_address(f"0x{n:040x}") for n in (1, 2, 3, 4))
TASK, ROUND = 7, 77


def posting(exact: bool = True) -> Posting:
    return Posting(
        b"", bytes(32), 1, bytes(32), bytes(32), 0, 5, 40, 10, exact, 1, 2, 0, 100, 300, 10, 0, 100, 1000, "here",
    )  # fmt: skip


def view_of(events: Sequence[e.Event], block: int = 10, time: int = 1100) -> MarketView:
    """The picture after some events."""
    view = MarketView()
    for place, event in enumerate(events):
        view.apply(e.Logged(1, place, "0x", "", event))
    view.block, view.time = block, time
    return view


def opened(posted: Posting | None = None) -> list[e.Event]:
    return [
        e.TaskSubmitted(TASK, SUBMITTER, bytes(32), 4, 1, 0, posted or posting()),
        e.TaskOpened(TASK, bytes(32), 100, 300, 1000),
    ]


def drawn() -> list[e.Event]:
    return [
        e.TaskTaken(TASK, SOLVER, 150, 9, 5000),
        e.ProofRegistered(TASK, SOLVER, b"c" * 32, b"f" * 32, "proof"),
        e.DrawDue(TASK, 0, 0, 3, 1),
        e.Drawn(TASK, 0, VERIFIER, ROUND, 0, 9, (2, 0), 6000),
    ]


def deposited(account: str) -> e.Event:
    return e.CoinEntered(Class.FREE, int(account, 16), 1)
