"""Events of a task, made by hand."""

from __future__ import annotations

from assay.market.abi import DecodedLog
from assay.market.types import Posting
from assay.roles.fold import PlacedLog

SUBMITTER, SOLVER, VERIFIER, WITNESS = (f"0x{n:040x}" for n in (1, 2, 3, 4))
TASK, ROUND = 7, 77


def posting(exact: bool = True) -> Posting:
    return Posting(
        b"", bytes(32), 1, bytes(32), bytes(32), 0, 5, 40, 10, exact, 1, 2, 0, 100, 300, 10, 0, 100, 1000, "here",
    )  # fmt: skip


def log(contract: str, name: str, **arguments: object) -> PlacedLog:
    return PlacedLog(1, DecodedLog(contract, name, arguments))


def opened() -> list[PlacedLog]:
    return [
        log("Market", "Submitted", taskId=TASK, submitter=SUBMITTER, programRoot=bytes(32), segments=4,
            replayWork=1, profileWork=0, posting=posting()),
        log("Market", "Opened", taskId=TASK, thresholdRoot=bytes(32), lowestReward=100, highestReward=300, since=1000),
    ]  # fmt: skip


def drawn() -> list[PlacedLog]:
    return [
        log("Market", "Taken", taskId=TASK, solver=SOLVER, price=150, stake=9, deadline=5000),
        log("Market", "Registered", taskId=TASK, solver=SOLVER, checkpointRoot=b"c" * 32, finalRoot=b"f" * 32,
            locations="proof"),
        log("Verification", "DrawDue", taskId=TASK, share=0, attempt=0, drawBlock=3, snapshot=1),
        log("Verification", "Drawn", taskId=TASK, share=0, verifier=VERIFIER, roundId=ROUND, attempt=0, drawSeed=9,
            segments=(2, 0), deadline=6000),
    ]  # fmt: skip
