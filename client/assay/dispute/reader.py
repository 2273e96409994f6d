"""The reader: from what the court stores and has logged about a case to the view a player takes. Pure: whoever talks to
the chain hands over `caseOf(id)`, `positionOf(id)` and the case's decoded events in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from assay.commitments.tensor import chunks_of
from assay.commitments.tree import depth_of
from assay.dispute.case import (
    DEVIATION_PARTS,
    FIRST_LEVELS,
    LEVELS,
    CaseView,
    Cursor,
    Facts,
    Part,
    Phase,
    Tree,
    TreePlace,
)
from assay.dispute.errors import DisputeError
from assay.dispute.hash_tree import nodes_above


@dataclass(frozen=True)
class Event:
    """One log of the court: its name and arguments (structs as mappings)."""

    name: str
    arguments: Mapping[str, Any]


def cursor_of(fields: Mapping[str, Any]) -> Cursor:
    """A cursor from the ABI's struct."""
    return Cursor(
        Phase(fields["phase"]),
        Tree(fields["tree"]),
        *(
            int(fields[name])
            for name in ("levels", "shown", "index", "step", "operator", "element", "elements", "terms", "value")
        ),
    )


def facts_of(fields: Mapping[str, Any]) -> Facts:
    """The facts from the ABI's struct."""
    return Facts(
        program_root=bytes(fields["programRoot"]),
        data_root=bytes(fields["dataRoot"]),
        start_root=bytes(fields["startRoot"]),
        end_root=bytes(fields["endRoot"]),
        noisy_root=bytes(fields["noisyRoot"]),
        compared_root=bytes(fields["comparedRoot"]),
        threshold_root=bytes(fields["thresholdRoot"]),
        task_seed=int(fields["taskSeed"]),
    )


@dataclass
class _Transcript:
    """What the claimant has shown, and where the case stood after the last event read."""

    part: Part
    cursor: Cursor
    shown: bytes = b""
    segment_root: bytes | None = None
    known: dict[TreePlace, dict[tuple[int, int], bytes]] = field(default_factory=dict)


def view_of(case_id: int, position: bytes, case: Mapping[str, Any], events: Sequence[Event]) -> CaseView:
    """The view of a case from `caseOf`, `positionOf` and its events from `CaseOpened` on.

    Raises `DisputeError` where the events do not begin with the case's opening (page further back).
    """
    opened = [event for event in events if event.name == "CaseOpened"]
    if not opened:
        raise DisputeError(f"case {case_id:#x}: its CaseOpened event is missing: read the logs from an earlier block")
    facts = facts_of(opened[0].arguments["facts"])
    view = CaseView(
        case_id=case_id,
        position=bytes(position),
        claimant=case["claimant"],
        challenger=case["challenger"],
        leaf=int(case["leaf"]),
        part=Part(case["part"]),
        noisy=bool(case["noisy"]),
        steps=int(case["steps"]),
        first_step=int(case["firstStep"]),
        operators=int(case["operators"]),
        states=int(case["states"]),
        draw_seed=int(case["drawSeed"]),
        trace_place=int(case["tracePlace"]),
        trace_value=int(case["traceValue"]),
        cursor=cursor_of(case["cursor"]),
        node=bytes(case["node"]),
        claimed=bytes(case["claimed"]),
        facts=facts,
    )
    transcript = read_transcript(view, Part(opened[0].arguments["part"]), events)
    return replace(view, shown=transcript.shown, segment_root=transcript.segment_root, known=transcript.known)


def read_transcript(view: CaseView, part: Part, events: Sequence[Event]) -> _Transcript:
    """Goes through a case's events and keeps every node that was shown. `part` is the one the case was opened with."""
    if part == Part.DISTANCE or view.steps == 1:
        tree = Tree.TRACE if part == Part.TRACE else Tree.OPERATORS
    else:
        tree = Tree.SEGMENT
    start = Cursor(Phase.EXPAND, tree, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    transcript = _Transcript(part, start)
    for event in events:
        if event.name == "Chosen":
            transcript.cursor = cursor_of(event.arguments["cursor"])
            # Only `chooseSegmentTree` leads from a trace or deviation into the segment tree.
            if transcript.cursor.tree == Tree.SEGMENT and transcript.part not in (Part.END, Part.NOISY_END):
                transcript.part = Part.NOISY_END if view.noisy else Part.END
        elif event.name == "Expanded":
            _read_expansion(view, transcript, bytes(event.arguments["root"]), bytes(event.arguments["shown"]))
        elif event.name == "Revealed":
            _read_shown(view, transcript, bytes(event.arguments["shown"]), transcript.cursor, LEVELS)
    return transcript


def _read_expansion(view: CaseView, transcript: _Transcript, root: bytes, shown: bytes) -> None:
    cursor = transcript.cursor
    tree = cursor.tree
    levels = depth_of(view.steps)
    if tree == Tree.SEGMENT:
        transcript.segment_root = root
        if transcript.part in DEVIATION_PARTS:
            transcript.cursor = replace(cursor, tree=Tree.OPERATORS)
            return
        if transcript.part == Part.TRACE:
            tree = Tree.TRACE
    elif tree == Tree.OPERATORS:
        levels = depth_of(view.operators)
    else:
        levels = depth_of(chunks_of(cursor.terms))
    transcript.cursor = replace(cursor, tree=tree, levels=levels, index=0)
    if tree == Tree.SUMS and levels == 0:
        return
    _read_shown(view, transcript, shown, transcript.cursor, FIRST_LEVELS)


def _read_shown(view: CaseView, transcript: _Transcript, shown: bytes, cursor: Cursor, most: int) -> None:
    transcript.shown = shown
    if cursor.levels == 0 and cursor.tree != Tree.OPERATORS:
        return
    place = replace(view, cursor=cursor, part=transcript.part).place
    nodes = transcript.known.setdefault(place, {})
    nodes.update(nodes_above(shown, cursor.levels, cursor.index, min(cursor.levels, most)))
