"""From the contracts' events, in chain order, to what a role knows. Pure: the same events give the same records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from assay.market.abi import DecodedLog
from assay.market.claims import training_line_of
from assay.market.types import ClaimKind, Class, RoundState, TaskState
from assay.roles.records import (
    CaseRecord,
    ClaimRecord,
    DemandRecord,
    DrawRecord,
    LineRecord,
    MarketRecord,
    RoundRecord,
    TaskRecord,
)


@dataclass(frozen=True)
class PlacedLog:
    """A decoded log and the block it is in."""

    block: int
    log: DecodedLog


Handler = Callable[[MarketRecord, Any, int], None]


def fold(logs: Iterable[PlacedLog], into: MarketRecord | None = None) -> MarketRecord:
    """The market after `logs`, on top of what `into` (changed in place) holds."""
    market = into or MarketRecord()
    for placed in logs:
        handler = HANDLERS.get((placed.log.contract, placed.log.name))
        if handler is not None:
            handler(market, placed.log.arguments, placed.block)
    return market


# ---- Tasks ----------------------------------------------------------------------------------------------------------


def _submitted(market: MarketRecord, event: Any, _block: int) -> None:
    posting = event["posting"]
    market.tasks[event["taskId"]] = TaskRecord(
        task_id=event["taskId"],
        submitter=event["submitter"],
        posting=posting,
        program_root=event["programRoot"],
        segments=event["segments"],
        replay_work=event["replayWork"],
        state=TaskState.OPEN if posting.exact else TaskState.PROFILING,
        lowest=posting.lowest_reward,
        highest=posting.highest_reward,
    )
    market.training_lines[training_line_of(event["taskId"])] = event["taskId"]


def _opened(market: MarketRecord, event: Any, _block: int) -> None:
    task = market.tasks[event["taskId"]]
    task.state, task.since, task.solver = TaskState.OPEN, event["since"], None
    task.lowest, task.highest, task.threshold_root = (
        event["lowestReward"],
        event["highestReward"],
        event["thresholdRoot"],
    )


def _taken(market: MarketRecord, event: Any, _block: int) -> None:
    task = market.tasks[event["taskId"]]
    task.state, task.solver, task.price = TaskState.TAKEN, event["solver"], event["price"]
    task.stake, task.deadline = event["stake"], event["deadline"]


def _stepped_down(market: MarketRecord, event: Any, _block: int) -> None:
    task = market.tasks[event["taskId"]]
    task.solver = None
    task.relists += 1


def _registered(market: MarketRecord, event: Any, _block: int) -> None:
    task = market.tasks[event["taskId"]]
    task.state, task.locations = TaskState.VERIFYING, event["locations"]
    task.checkpoint_root, task.final_root = event["checkpointRoot"], event["finalRoot"]


def _finished(market: MarketRecord, event: Any, _block: int) -> None:
    task = market.tasks[event["taskId"]]
    task.state = TaskState(event["state"])
    task.draws.clear()


# ---- Rounds ---------------------------------------------------------------------------------------------------------


def _draw_due(market: MarketRecord, event: Any, _block: int) -> None:
    market.tasks[event["taskId"]].draws[event["share"]] = DrawRecord(event["attempt"], event["drawBlock"])


def _drawn(market: MarketRecord, event: Any, _block: int) -> None:
    task = market.tasks[event["taskId"]]
    task.draws.pop(event["share"], None)
    task.rounds.setdefault(event["share"], []).append(event["roundId"])
    market.rounds[event["roundId"]] = RoundRecord(
        round_id=event["roundId"],
        task_id=event["taskId"],
        share=event["share"],
        attempt=event["attempt"],
        verifier=event["verifier"],
        draw_seed=event["drawSeed"],
        segments=tuple(event["segments"]),
        deadline=event["deadline"],
    )


def _committed(market: MarketRecord, event: Any, _block: int) -> None:
    found = market.rounds[event["roundId"]]
    found.state, found.hidden = RoundState.COMMITTED, event["hidden"]
    found.lottery_block, found.show_until_block = event["lotteryBlock"], event["showUntilBlock"]


def _shown(market: MarketRecord, event: Any, _block: int) -> None:
    found = market.rounds[event["roundId"]]
    found.state, found.shown, found.leaves = RoundState.SHOWN, event["shown"], tuple(event["leaves"])
    found.answers_until, found.reveals_until = event["answersUntil"], event["revealsUntil"]
    found.deadline = event["discloseUntil"]


def _disclosed(market: MarketRecord, event: Any, _block: int) -> None:
    found = market.rounds[event["roundId"]]
    found.state, found.forced = RoundState.DISCLOSED, event["forced"]
    if event["forced"]:
        word = _derived_word(found, event["secret"])
        place = int.from_bytes(word, "big") % len(found.leaves)
        true_leaf = replace(found.leaves[place], trace=event["trueTrace"])
        found.leaves = (*found.leaves[:place], true_leaf, *found.leaves[place + 1 :])
    line = market.lines.get(found.round_id)
    if line is not None:
        line.leaves[event["root"]] = found.leaves


def _derived_word(found: RoundRecord, secret: bytes) -> bytes:
    from hashlib import sha256

    return sha256(secret + found.task_id.to_bytes(32, "big") + found.round_id.to_bytes(32, "big")).digest()


def _voided(market: MarketRecord, event: Any, _block: int) -> None:
    market.rounds[event["roundId"]].state = RoundState.VOID


def _joined(market: MarketRecord, event: Any, _block: int) -> None:
    market.rounds[event["roundId"]].joined.add(event["whistleblower"])


def _answer_committed(market: MarketRecord, event: Any, _block: int) -> None:
    market.rounds[event["roundId"]].committed.add(event["whistleblower"])


def _answer_revealed(market: MarketRecord, event: Any, _block: int) -> None:
    market.rounds[event["roundId"]].revealed[event["whistleblower"]] = event["root"]


def _resolved(market: MarketRecord, event: Any, _block: int) -> None:
    market.rounds[event["roundId"]].resolved = True


def _collected(market: MarketRecord, event: Any, _block: int) -> None:
    market.rounds[event["roundId"]].collected.add(event["whistleblower"])


def _released(market: MarketRecord, event: Any, _block: int) -> None:
    found = market.rounds.get(event["roundId"])
    if found is not None:
        found.released = True


# ---- Claims and cases -----------------------------------------------------------------------------------------------


def _entered(market: MarketRecord, event: Any, _block: int) -> None:
    line = LineRecord(event["line"], event["root"], event["claimant"], event["until"], event["passes"])
    market.lines[event["line"]] = line


def _claim_opened(market: MarketRecord, event: Any, _block: int) -> None:
    market.claims[event["claimId"]] = ClaimRecord(
        event["claimId"], event["line"], event["root"], event["claimant"], ClaimKind(event["kind"])
    )


def _replay_published(market: MarketRecord, event: Any, _block: int) -> None:
    line = market.lines.get(event["line"])
    if line is not None:
        line.leaves[event["root"]] = tuple(event["leaves"])


def _fell(market: MarketRecord, event: Any, _block: int) -> None:
    line = market.lines[event["line"]]
    line.root, line.claimant, line.passes = event["newRoot"], event["newClaimant"], event["passes"]
    line.until, line.has_fallen = event["until"], True


def _case_opened(market: MarketRecord, event: Any, block: int) -> None:
    market.cases[event["caseId"]] = CaseRecord(
        event["caseId"], event["claimId"], event["challenger"], event["claimant"], event["leaf"], block
    )


def _case_moved(market: MarketRecord, event: Any, _block: int) -> None:
    case = market.cases.get(event["caseId"])
    if case is not None:
        case.moves += 1


def _case_closed(market: MarketRecord, event: Any, _block: int) -> None:
    case = market.cases.get(event["caseId"])
    if case is not None:
        case.challenger_won = event["challengerWon"]


# ---- Demands and money ----------------------------------------------------------------------------------------------


def _demanded(market: MarketRecord, event: Any, _block: int) -> None:
    market.demands[event["demandId"]] = DemandRecord(
        event["demandId"], event["taskId"], event["asker"], event["place"], event["deadline"]
    )


def _served(market: MarketRecord, event: Any, _block: int) -> None:
    market.demands[event["demandId"]].served = True


def _not_served(market: MarketRecord, event: Any, _block: int) -> None:
    market.demands[event["demandId"]].served = False


def _money_entered(market: MarketRecord, event: Any, _block: int) -> None:
    if Class(event["class"]) == Class.FREE:
        market.deposits[event["id"]] = market.deposits.get(event["id"], 0) + 1


def _left(market: MarketRecord, event: Any, _block: int) -> None:
    market.withdrawals[event["account"]] = market.withdrawals.get(event["account"], 0) + 1


HANDLERS: dict[tuple[str, str], Handler] = {
    ("Market", "Submitted"): _submitted,
    ("Market", "Opened"): _opened,
    ("Market", "Taken"): _taken,
    ("Market", "SteppedDown"): _stepped_down,
    ("Market", "Registered"): _registered,
    ("Market", "Finished"): _finished,
    ("Verification", "DrawDue"): _draw_due,
    ("Verification", "Drawn"): _drawn,
    ("Verification", "Committed"): _committed,
    ("Verification", "ReplayShown"): _shown,
    ("Verification", "Disclosed"): _disclosed,
    ("Verification", "Voided"): _voided,
    ("Answers", "Joined"): _joined,
    ("Answers", "AnswerCommitted"): _answer_committed,
    ("Answers", "AnswerRevealed"): _answer_revealed,
    ("Answers", "Resolved"): _resolved,
    ("Answers", "Collected"): _collected,
    ("Settlement", "Released"): _released,
    ("Claims", "Entered"): _entered,
    ("Claims", "Opened"): _claim_opened,
    ("Claims", "ReplayPublished"): _replay_published,
    ("Claims", "Fell"): _fell,
    ("Court", "CaseOpened"): _case_opened,
    ("Court", "Expanded"): _case_moved,
    ("Court", "Revealed"): _case_moved,
    ("Court", "Chosen"): _case_moved,
    ("Court", "CaseClosed"): _case_closed,
    ("Demands", "Demanded"): _demanded,
    ("Demands", "Served"): _served,
    ("Demands", "NotServed"): _not_served,
    ("Stakes", "Entered"): _money_entered,
    ("Stakes", "Left"): _left,
}
