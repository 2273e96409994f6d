"""A stage as a program of its own: what one member does in a segment, as the court can judge it (FORMAT, section 3).

Everything that crosses to or from a member in a segment is a **link table**: `interval` rows, one a step, of a value
that one stage sends another, zeros where the step sends none. A member's stage program reads the tables it received as
data, and its state is what the member holds and the tables of what it sends. Its end state thus says everything that
the member did, and it follows from what the member started from and was sent: whoever holds both can execute it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from assay.commitments import tree
from assay.commitments.tensor import CHUNK_ELEMENTS
from assay.group.execution.packing import Packing
from assay.group.execution.partition import Crossing, Partition, Value
from assay.group.execution.schedule import descriptor_of
from assay.program.encoding import program_root
from assay.program.operator import (
    Array,
    Body,
    ElementType,
    Guard,
    Operand,
    Operator,
    Program,
    Role,
    Section,
    Source,
    StateEntry,
    TensorDescriptor,
    immediate,
)
from assay.training.canonical import aligned

_MOST_INT = 2**31 - 1


@dataclass(frozen=True)
class Link:
    """A value that `sender` sends `receiver` (stages). Its table has rows of `row` elements: the value's, and zeros up
    to a whole number of chunks, so that a row can be hashed when it has come."""

    value: Value
    sender: int
    receiver: int
    kind: ElementType
    elements: int
    packing: Packing

    @property
    def row(self) -> int:
        """Elements of a row."""
        return -(-self.elements // CHUNK_ELEMENTS) * CHUNK_ELEMENTS

    @property
    def name(self) -> str:
        """What members call it among themselves."""
        source, number = self.value
        return f"{'state' if source == Source.STATE else 'operator'} {number}: {self.sender}>{self.receiver}"

    def table(self, interval: int) -> TensorDescriptor:
        """Its table in segments of so many steps."""
        return TensorDescriptor(f"sent {self.name}", self.kind, (interval, self.row))


def links_of(program: Program, divided: Partition) -> tuple[Link, ...]:
    """All links of a partition, in the order of stage programs: by value, sender and receiver."""

    def link(crossing: Crossing) -> Link:
        kind = descriptor_of(program, crossing.value).type
        return Link(crossing.value, crossing.sender, crossing.receiver, kind, crossing.elements, crossing.packing)

    found = (link(crossing) for crossing in divided.crossings)
    return tuple(sorted(found, key=lambda each: (each.value, each.sender, each.receiver)))


@dataclass(frozen=True)
class SegmentRoots:
    """Roots of what a stage's segment is about. `data`: of the task's data; `start`: of all state tensors before it;
    `ends`: of tensors after it, by number, those that the stage holds at least; `tables`: of the link tables; `empty`:
    of those that are sent, before anything was."""

    data: Sequence[bytes]
    start: Sequence[bytes]
    ends: Mapping[int, bytes]
    tables: Mapping[Link, bytes]
    empty: Mapping[Link, bytes]


@dataclass(frozen=True)
class SegmentTensors:
    """The tensors behind `SegmentRoots`: the held ones before the segment, the tables received and sent, and the held
    ones after it. What was sent and how it ended is given only where it is what a member says, not what is found."""

    start: Mapping[int, Array]
    received: Sequence[Array]
    sent: Sequence[Array] = ()
    end: Mapping[int, Array] | None = None


@dataclass(frozen=True, eq=False)
class StageProgram:
    """`program` is what `stage` does in a step. Its state: the tensors `held`, by their numbers in the task's program,
    then the tables of `sent`; its data: the task's, then the tables of `received`."""

    stage: int
    program: Program
    held: tuple[int, ...]
    received: tuple[Link, ...]
    sent: tuple[Link, ...]

    @cached_property
    def root(self) -> bytes:
        """The program's root."""
        return program_root(self.program)

    def roots(self, known: SegmentRoots) -> tuple[bytes, bytes, bytes]:
        """What a statement about a segment says: the roots of its data, its state before, and its state after it."""
        return (
            tree.root([*known.data, *(known.tables[link] for link in self.received)]),
            tree.root([*(known.start[number] for number in self.held), *(known.empty[link] for link in self.sent)]),
            tree.root([*(known.ends[number] for number in self.held), *(known.tables[link] for link in self.sent)]),
        )

    def tensors(self, data: Sequence[Array], segment: SegmentTensors) -> tuple[list[Array], list[Array]]:
        """The state and the data that a segment is executed with; `data` are the task's."""
        empty = [aligned(table) for table in self.program.state[len(self.held) :]]
        for table in empty:
            table.fill(0)
        return [*(segment.start[number] for number in self.held), *empty], [*data, *segment.received]


def stage_program(program: Program, divided: Partition, stage: int, interval: int) -> StageProgram:
    """The program of a stage in segments of `interval` steps; a pure function of its arguments."""
    return _Maker(program, divided, stage, interval).make()


class _Maker:
    """Builds one stage's program."""

    def __init__(self, program: Program, divided: Partition, stage: int, interval: int) -> None:
        self.whole, self.stage, self.interval = program, stage, interval
        self.part = divided.parts[stage]
        self.held = tuple(sorted({*self.part.state, *self.part.copies}))
        links = links_of(program, divided)
        self.received = tuple(link for link in links if link.receiver == stage)
        self.sent = tuple(link for link in links if link.sender == stage)
        self.operators: list[Operator] = []
        self.origins: list[str] = []
        self.place: dict[Value, int] = {}  # local operators, by what they compute or bring

    def make(self) -> StageProgram:
        section = self.whole.section(Role.STEP)
        row = self._add(
            Operator(
                Body.IMOD, ElementType.INT, (), (Operand(Source.STEP, 0, 0, ()), immediate(self.interval, 0)),
            ),
            "row of the step",
        )  # fmt: skip
        tables = len(self.whole.data)
        for number, link in enumerate(self.received):
            self.place[link.value] = self._add(self._read(link, tables + number, row), f"received {link.name}")
        for number in self.part.operators:
            operator = section.operators[number]
            moved = replace(operator, operands=tuple(self._moved(operand) for operand in operator.operands))
            origin = section.origins[number] if section.origins else ""
            self.place[Source.OPERATOR, number] = self._add(moved, origin)
        entries = [self._next(section.next_state[number]) for number in self.held]
        here = self._add(self._same_row(row), "the step's row of a table")
        for number, link in enumerate(self.sent):
            entries.append(StateEntry(self._write(link, len(self.held) + number, here)))
        state = [self.whole.state[number] for number in self.held]
        made = Program(
            (*state, *(link.table(self.interval) for link in self.sent)),
            (*self.whole.data, *(link.table(self.interval) for link in self.received)),
            self.whole.constants,
            (Section(Role.STEP, tuple(self.operators), tuple(entries), tuple(self.origins)),),
        )
        return StageProgram(self.stage, made, self.held, self.received, self.sent)

    def _add(self, operator: Operator, origin: str) -> int:
        self.operators.append(operator)
        self.origins.append(origin)
        return len(self.operators) - 1

    def _moved(self, operand: Operand) -> Operand:
        """An operand as the stage reads it: what it does not compute or hold was received."""
        if operand.source not in (Source.STATE, Source.OPERATOR):
            return operand
        value = (operand.source, operand.index)
        if value in self.place:
            return replace(operand, source=Source.OPERATOR, index=self.place[value])
        return replace(operand, index=self.held.index(operand.index))

    def _next(self, entry: StateEntry) -> StateEntry:
        return entry if entry.operator is None else StateEntry(self.place[Source.OPERATOR, entry.operator])

    def _read(self, link: Link, data: int, row: int) -> Operator:
        """The row of a received table that belongs to the step."""
        count = self.interval * link.row
        return Operator(
            Body.GATHER, link.kind, (link.elements,),
            (Operand(Source.DATA, data, count, (1,)), Operand(Source.OPERATOR, row, 1, (0,))),
            p0=link.row, p1=self.interval,
        )  # fmt: skip

    def _same_row(self, row: int) -> Operator:
        """For each row of a table, whether it is the step's."""
        return Operator(
            Body.SAME, ElementType.INT, (self.interval,),
            (Operand(Source.INDEX, 0, 0, (1,)), Operand(Source.OPERATOR, row, 1, (0,))),
        )  # fmt: skip

    def _write(self, link: Link, state: int, here: int) -> int:
        """A sent table after the step: the step's row is the value, if the step sends it."""
        if link.packing.since > link.packing.until:
            here = self._and_sent(link.packing, here)
        return self._add(
            Operator(
                Body.SELECT, link.kind, (self.interval, link.row),
                (
                    Operand(Source.OPERATOR, here, self.interval, (1, 0)),
                    self._padded(link),
                    Operand(Source.STATE, state, self.interval * link.row, (link.row, 1)),
                ),
            ),
            f"sent {link.name}",
        )  # fmt: skip

    def _padded(self, link: Link) -> Operand:
        """A sent value as a row of its table, for every row."""
        source, index = link.value
        if link.value in self.place:
            source, index = Source.OPERATOR, self.place[link.value]
        else:
            index = self.held.index(index)
        if link.row == link.elements:
            return Operand(source, index, link.elements, (0, 1))
        # The guard gives the position: behind the value's elements lie zeros.
        return Operand(source, index, link.elements, (0, 0), guards=(Guard(0, (0, 1), 1, link.elements, 1),))

    def _and_sent(self, packing: Packing, here: int) -> int:
        """The condition, where only some steps send the value."""
        step = Operand(Source.STEP, 0, 0, ())
        before = self._add(
            Operator(Body.ILT, ElementType.INT, (), (step, immediate(min(packing.until, _MOST_INT), 0))), "sent before"
        )
        after = self._add(
            Operator(Body.ILE, ElementType.INT, (), (immediate(min(packing.since, _MOST_INT), 0), step)), "sent since"
        )
        either = self._add(
            Operator(
                Body.IOR, ElementType.INT, (),
                (Operand(Source.OPERATOR, before, 1, ()), Operand(Source.OPERATOR, after, 1, ())),
            ),
            "whether the step sends it",
        )  # fmt: skip
        return self._add(
            Operator(
                Body.IAND, ElementType.INT, (self.interval,),
                (Operand(Source.OPERATOR, here, self.interval, (1,)), Operand(Source.OPERATOR, either, 1, (0,))),
            ),
            "the step's row, if it is sent",
        )  # fmt: skip
