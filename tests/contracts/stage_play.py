"""A stage's execution with nothing in it but hashes, and both sides' moves about it before the real court.

Each of its steps gives some tensors out, and the state after it is made of them and of the state before by the table in
the program's header. So a case comes down to one tensor of one state, which the court looks up (`proveNextState`):
nothing has to be computed. Cases that come down to an operator are played in tests/client/dispute.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from market_world import ZERO, Tree, header, named, sha

PHASES = ("None", "Expand", "Reveal", "Choose", "Prove", "Closed")
TREES = ("Segment", "Trace", "Operators", "NextState", "Tensor", "Sums")
STEPS, OPERATORS = 10, 5
FIRST_LEVELS, LEVELS = 3, 5
PREVIOUS, OUTPUT = 1, 2
TABLE = ((OUTPUT, 1), (PREVIOUS, 0))
"""Where each tensor of the next state comes from: kind and index."""
ENTRIES = Tree([sha(b"\x04", bytes([kind]), index.to_bytes(4, "big"), bytes(5)) for kind, index in TABLE])
HEADER = header(True, states=len(TABLE), table_root=ENTRIES.root)
PROGRAM_ROOT = sha(b"\x02", HEADER)
EVIDENCE = (b"", [], b"", [], ZERO, [], HEADER)
"""What opens a case about a stage."""

Lie = tuple[int, int, bytes]  # step, tensor of the state after it, what is said of it
Call = tuple[Any, ...]  # function and arguments


def depth(tree: Tree) -> int:
    return len(tree.levels) - 1


def nodes(tree: Tree, level: int, first: int, count: int) -> list[bytes]:
    """Some of a tree's nodes, `level` levels above its leaves, with its padding."""
    padding = ZERO
    for _ in range(level):
        padding = sha(b"\x01", padding, padding)
    row = tree.levels[level]
    return [row[place] if place < len(row) else padding for place in range(first, first + count)]


@dataclass
class StageRun:
    """What somebody says that a stage did in a segment.

    :ivar last: the first tensor that its last step truly gives the state.
    :ivar lie: where the states depart from what the steps gave.
    :ivar end: another end than that of its steps.
    """

    name: Any
    last: bytes | None = None
    lie: Lie | None = None
    end: bytes | None = None
    states: list[Tree] = field(init=False)
    outputs: list[Tree] = field(init=False)

    def __post_init__(self) -> None:
        self.outputs, self.states = [], [Tree([named("start", self.name), named("start before", self.name)])]
        for step in range(STEPS):
            given = [named("output", self.name, step, operator) for operator in range(OPERATORS)]
            if self.last and step == STEPS - 1:
                given[TABLE[0][1]] = self.last
            before = self.states[-1].levels[0]
            state = [given[index] if kind == OUTPUT else before[index] for kind, index in TABLE]
            if self.lie and self.lie[0] == step:
                state[self.lie[1]] = self.lie[2]
            self.outputs.append(Tree(given))
            self.states.append(Tree(state))
        self.segment = Tree([state.root for state in self.states[1:]])

    @property
    def is_true(self) -> bool:
        return self.lie is None and self.end is None

    @property
    def end_root(self) -> bytes:
        return self.end or self.states[-1].root

    @property
    def roots(self) -> dict[str, bytes]:
        """What a member signs of it."""
        data = named("data", self.name)
        roots = {"programRoot": PROGRAM_ROOT, "dataRoot": data, "startRoot": self.states[0].root}
        return roots | {"endRoot": self.end_root}


@dataclass(frozen=True)
class Cursor:
    """Where a case stands, as the court has it."""

    phase: str = "Expand"
    tree: str = "Segment"
    levels: int = 0
    shown: int = 0
    index: int = 0
    step: int = 0

    @classmethod
    def of(cls, values: tuple[Any, ...]) -> Cursor:
        """As the event has it that tells of a choice."""
        phase, tree, *numbers = values[:6]
        return cls(PHASES[phase], TREES[tree], *numbers)

    def expanded(self, run: StageRun) -> Cursor:
        levels = depth(_tree(run, self))
        return replace(self, phase="Choose", levels=levels, shown=min(levels, FIRST_LEVELS), index=0)

    def revealed(self) -> Cursor:
        return replace(self, phase="Choose", shown=min(self.levels, LEVELS))


def _tree(run: StageRun, cursor: Cursor) -> Tree:
    if cursor.tree == "Segment":
        return run.segment
    return run.outputs[cursor.step] if cursor.tree == "Operators" else run.states[cursor.step + 1]


def expand(run: StageRun, cursor: Cursor) -> Call:
    """The claimant binds a tree, and shows its upper levels."""
    tree = _tree(run, cursor)
    after = cursor.expanded(run)
    return "expand", tree.root, b"".join(nodes(tree, after.levels - after.shown, 0, 1 << after.shown))


def reveal(run: StageRun, cursor: Cursor) -> Call:
    """Anyone shows the levels below the disputed node."""
    shown = cursor.revealed().shown
    return "reveal", b"".join(nodes(_tree(run, cursor), cursor.levels - shown, cursor.index << shown, 1 << shown))


def choose(run: StageRun, cursor: Cursor, step: int, tensor: int) -> Call:
    """The challenger goes down to that step and that tensor; where it took another way, to what is left of it."""
    if cursor.tree == "Operators":
        return "chooseNextState", run.states[cursor.step + 1].root, run.segment.proof(cursor.step)
    tree = _tree(run, cursor)
    shown, level = cursor.shown, cursor.levels - cursor.shown
    first = cursor.index << shown
    wanted = (step if cursor.tree == "Segment" else tensor) >> level
    there = [place for place in range(first, first + (1 << shown)) if place < len(tree.levels[level])]
    place = wanted if wanted in there else there[-1]
    if place << level >= len(tree.levels[0]):
        place = there[0]
    siblings = [nodes(tree, level + up, (place >> up) ^ 1, 1)[0] for up in range(shown)]
    return "choose", place - first, nodes(tree, level, place, 1)[0], siblings


def prove(run: StageRun, cursor: Cursor, facts: tuple[Any, ...]) -> Call:
    """Anyone shows where the disputed tensor comes from."""
    kind, index = TABLE[cursor.index]
    if kind == OUTPUT:
        tree, above = run.outputs[cursor.step], []
    else:
        tree = run.states[cursor.step]
        above = run.segment.proof(cursor.step - 1) if cursor.step else []
    source = (tree.levels[0][index], tree.proof(index) + above)
    return "proveNextState", facts, HEADER, (kind, index, 0, 0, ENTRIES.proof(cursor.index), *source)
