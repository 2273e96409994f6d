"""A case of the court as a tree: what each side said on the way down, and whose turn it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from assay.dispute.case import Phase, Tree
from assay.dispute.reader import cursor_of
from assay.market.events import CourtEvent
from assay.market.logs import Logged

TREE_NAMES = {
    Tree.SEGMENT: "the segment's steps",
    Tree.TRACE: "the trace",
    Tree.OPERATORS: "the step's operators",
    Tree.NEXT_STATE: "the next state's tensors",
    Tree.TENSOR: "the operator's output",
    Tree.SUMS: "the element's partial sums",
}


@dataclass(frozen=True)
class Said:
    """One thing that was said in a case. `depth` is how far down the trees the case was by then."""

    block: int
    side: str  # claimant, challenger or chain
    sentence: str
    depth: int


def descent(logs: Sequence[Logged]) -> list[Said]:
    """What was said in a case, in order, from the court's events about it."""
    said: list[Said] = []
    depth = 0
    tree: Tree | None = None
    for placed in logs:
        log = placed.event
        if not isinstance(log, CourtEvent):
            continue
        event = log.arguments
        if log.name == "CaseOpened":
            said.append(Said(placed.block, "challenger", f"denies leaf {event['leaf']} of the claim", 0))
        elif log.name == "Expanded":
            depth += 1
            said.append(
                Said(placed.block, "claimant", f"commits to a tree with root {event['root'].hex()[:16]}", depth)
            )
        elif log.name == "Revealed":
            count = len(event["shown"]) // 32
            said.append(Said(placed.block, "claimant", f"shows {count} hashes or {4 * count * 2} values", depth))
        elif log.name == "Chosen":
            cursor = cursor_of(event["cursor"])
            if cursor.tree is not tree:
                tree = cursor.tree
                depth += 1
            where = f"place {cursor.index} in {TREE_NAMES[cursor.tree]}"
            if cursor.phase is Phase.PROVE:
                where = f"term {cursor.index} of element {cursor.element} of operator {cursor.operator}"
            said.append(Said(placed.block, "challenger", f"disagrees: step {cursor.step}, {where}", depth))
        elif log.name == "Proven":
            words = f"claimed {event['claimed']:#010x}, executed {event['result']:#010x}"
            said.append(Said(placed.block, "chain", f"one operation: {words}", depth + 1))
        elif log.name == "NextStateProven":
            words = f"claimed {event['claimed'].hex()[:16]}, opened {event['result'].hex()[:16]}"
            said.append(Said(placed.block, "chain", f"one tensor of the next state: {words}", depth + 1))
        elif log.name == "TimedOut":
            said.append(Said(placed.block, "chain", f"{event['silent']} ran out of time", depth))
        elif log.name == "CaseClosed":
            winner = "challenger" if event["challengerWon"] else "claimant"
            said.append(Said(placed.block, "chain", f"the {winner} wins", 0))
    return said


def draw(said: Sequence[Said]) -> list[str]:
    """The descent as lines of text, one level of the trees a column."""
    return [
        f"{each.block:8} {each.side:10} {'│  ' * each.depth}{'└─ ' if each.depth else ''}{each.sentence}"
        for each in said
    ]
