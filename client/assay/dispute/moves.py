"""Moves of a case, ready for the court's ABI: each names its function and gives its arguments after the case's id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Opening = tuple[bytes, Sequence[bytes]]
"""A chunk and its siblings; empty where nothing is opened."""

NOTHING: Opening = (b"", ())

RecordOpening = tuple[bytes, int, Sequence[tuple[bytes, int]]]
"""An operator's record, its work, and its siblings (hash, work) in the program tree."""


@dataclass(frozen=True)
class Move:
    """A call of the court: `court.<function>(case id, position, *arguments)`; `timeout` takes the id alone."""

    function: str
    arguments: tuple[Any, ...]


def expand(root: bytes, shown: bytes) -> Move:
    """Commit to a finer tree."""
    return Move("expand", (root, shown))


def reveal(shown: bytes) -> Move:
    """Show the next levels, or a chunk."""
    return Move("reveal", (shown,))


def choose(place: int, child: bytes, proof: Sequence[bytes]) -> Move:
    """Name a node just shown."""
    return Move("choose", (place, child, list(proof)))


def choose_operator(place: int, child: bytes, proof: Sequence[bytes], operator: RecordOpening) -> Move:
    """Name an operator's output, with the operator's record."""
    return Move("chooseOperator", (place, child, list(proof), operator))


def choose_next_state(state_root: bytes, proof: Sequence[bytes]) -> Move:
    """Grant the operators' outputs and deny the state after the step."""
    return Move("chooseNextState", (state_root, list(proof)))


def choose_element(place: int, chunk: bytes) -> Move:
    """Name an element of the chunk just shown."""
    return Move("chooseElement", (place, chunk))


def choose_segment_tree(facts: tuple[Any, ...], header: bytes) -> Move:
    """Deny the segment tree in place of what was denied."""
    return Move("chooseSegmentTree", (facts, header))


def prove(
    facts: tuple[Any, ...], header: bytes, operator: RecordOpening, operands: Sequence[Opening], previous: Opening
) -> Move:
    """Open the operator and what it reads."""
    return Move("prove", (facts, header, (operator, list(operands), previous)))


def prove_next_state(facts: tuple[Any, ...], header: bytes, evidence: tuple[Any, ...]) -> Move:
    """Open where a tensor of the next state comes from."""
    return Move("proveNextState", (facts, header, evidence))


TIMEOUT = Move("timeout", ())
