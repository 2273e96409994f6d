"""The state of a case as the court keeps it (contracts/libraries/Cases.sol), and what its events have shown so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from assay.program.operator import Role


class Part(IntEnum):
    """The part of a claim's leaf that the challenger denies."""

    END = 0
    NOISY_END = 1
    DISTANCE = 2
    THRESHOLD = 3
    SEPARATION = 4
    TRACE = 5


class Phase(IntEnum):
    """What a case waits for."""

    NONE = 0
    EXPAND = 1
    REVEAL = 2
    CHOOSE = 3
    PROVE = 4
    CLOSED = 5


class Tree(IntEnum):
    """The tree a case is in."""

    SEGMENT = 0
    TRACE = 1
    OPERATORS = 2
    NEXT_STATE = 3
    TENSOR = 4
    SUMS = 5


FIRST_LEVELS = 3
"""Levels shown with an expansion."""
LEVELS = 5
"""Levels shown by a reveal."""

DEVIATION_PARTS = (Part.THRESHOLD, Part.SEPARATION)


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a case stands; fields as in the contract's `Cursor`."""

    phase: Phase
    tree: Tree
    levels: int
    shown: int
    index: int
    step: int
    operator: int
    element: int
    elements: int
    terms: int
    value: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What opening the case proved; fields as in the contract's `Facts`, in its order."""

    program_root: bytes
    data_root: bytes
    start_root: bytes
    end_root: bytes
    noisy_root: bytes
    compared_root: bytes
    threshold_root: bytes
    task_seed: int

    def as_tuple(self) -> tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, int]:
        """For the contract's ABI."""
        return (
            self.program_root,
            self.data_root,
            self.start_root,
            self.end_root,
            self.noisy_root,
            self.compared_root,
            self.threshold_root,
            self.task_seed,
        )


@dataclass(frozen=True, slots=True)
class TreePlace:
    """Names one tree of an execution: fields that a tree does not need are 0."""

    tree: Tree
    role: Role
    step: int = 0
    operator: int = 0
    element: int = 0


Nodes = Mapping[tuple[int, int], bytes]
"""(height above the leaves, index in that level) -> hash."""


@dataclass(frozen=True)
class CaseView:
    """A case as a player sees it: the court's state and what the claimant has shown in it.

    `known` holds every node of the claimant's trees that was shown in this case, those between shown levels computed.
    `shown` is what the last expansion or reveal showed: hashes one after the other, or a chunk.
    `segment_root` is the root of the segment tree the claimant committed to, if this case has one.
    """

    case_id: int
    position: bytes
    claimant: str
    challenger: str
    leaf: int
    part: Part
    noisy: bool
    steps: int
    first_step: int
    operators: int
    states: int
    draw_seed: int
    trace_place: int
    trace_value: int
    cursor: Cursor
    node: bytes
    claimed: bytes
    facts: Facts
    shown: bytes = b""
    segment_root: bytes | None = None
    known: Mapping[TreePlace, Nodes] = field(default_factory=dict)

    @property
    def role(self) -> Role:
        """The section that the case is about."""
        if self.part == Part.DISTANCE:
            return Role.DISTANCE
        if self.part in DEVIATION_PARTS:
            return Role.DEVIATION
        return self.run_role

    @property
    def run_role(self) -> Role:
        """The section whose run the segment tree is of."""
        return Role.NOISY_STEP if self.noisy else Role.STEP

    @property
    def place(self) -> TreePlace:
        """The tree the cursor is in."""
        cursor = self.cursor
        if cursor.tree in (Tree.SEGMENT, Tree.TRACE):
            return TreePlace(cursor.tree, self.run_role)
        if cursor.tree in (Tree.OPERATORS, Tree.NEXT_STATE):
            return TreePlace(cursor.tree, self.role, cursor.step)
        if cursor.tree == Tree.TENSOR:
            return TreePlace(cursor.tree, self.role, cursor.step, cursor.operator)
        return TreePlace(cursor.tree, self.role, cursor.step, cursor.operator, cursor.element)
