"""In which order a stage computes, sends and receives within a step.

Everything has a **slot**, a pair (depth, piece). The depth of an operator is how often what it depends on has crossed
between stages (or waited for all pieces of a batch). Pieces of split operators come in order; whole operators of the
same depth after all of them; free ones before. Messages have the slot of the operators that made their values (state
that crosses: depth -1). Stages only ever wait for smaller slots than their own, so no two wait for each other.

The **due** slot of an operator is the one at which somebody else waits for what it leads to. Weight gradients and
updates are due last, and run while a stage would otherwise wait. Operators of one slot and due slot are a **phase**,
compiled together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from assay.group.execution.families import operands_of
from assay.group.execution.packing import Packing
from assay.group.execution.partition import Crossing, Partition, Value
from assay.group.execution.pieces import Pieces, piece_of
from assay.program.operator import ElementType, Operand, Operator, Program, Role, Section, Source, TensorDescriptor

Slot = tuple[int, int]

FIRST: Slot = (-2, 0)
"""Before all messages."""

LAST: Slot = (1 << 30, 0)
"""Due slot of what nobody else waits for."""

WHOLE = -1
"""Piece number of an input that is read as a whole."""

_FREE = -1
_EXTERNAL = (Source.STATE, Source.DATA, Source.OPERATOR)

Input = tuple[Source, int, int]
"""Source, number, and the piece (or WHOLE) that a phase reads."""


@dataclass(frozen=True)
class Message:
    """Values that one stage sends another in one slot, packed in this order, each from a whole word on. `order` numbers
    a step's messages in the order of slots. Where `piece` is not WHOLE, values are those pieces of their tensors."""

    sender: int
    receiver: int
    slot: Slot
    order: int
    piece: int
    values: tuple[Value, ...]
    types: tuple[ElementType, ...]
    sizes: tuple[int, ...]  # elements
    packings: tuple[Packing, ...]

    def words(self, step: int) -> int:
        """Length on the wire in a step, in words of 4 bytes. A message is never empty: that it comes says something."""
        return max(1, sum(size for _, size in self.layout(step)))

    def layout(self, step: int) -> list[tuple[int, int]]:
        """The values that are sent in a step, by place, and how many words each takes."""
        return [
            (place, packing.words(size))
            for place, (packing, size) in enumerate(zip(self.packings, self.sizes, strict=True))
            if packing.is_sent(step)
        ]

    @cached_property
    def most_words(self) -> int:
        """The longest it can be."""
        return max(1, sum(p.words(size) for p, size in zip(self.packings, self.sizes, strict=True)))


@dataclass(frozen=True, eq=False)
class Phase:
    """Operators (program numbers) run together. `inputs` are bound as the compiled program's data, in this order;
    `kept` are operators whose values are read outside the phase; `needs` is the last message that must have come."""

    slot: Slot
    due: Slot
    needs: Slot
    piece: int
    operators: tuple[int, ...]
    inputs: tuple[Input, ...]
    kept: tuple[int, ...]

    def local(self, operator: int) -> int:
        """The number in the phase's own program of an operator."""
        return self.operators.index(operator)


@dataclass(frozen=True)
class StageSchedule:
    """Everything a stage does in a step. `phases` in an order in which they can run; messages in order of slots."""

    stage: int
    pieces: Pieces
    phases: tuple[Phase, ...]
    sends: tuple[Message, ...]
    receives: tuple[Message, ...]


def make_schedules(
    program: Program, partition: Partition, pieces: Pieces, calls: Sequence[int] = ()
) -> tuple[StageSchedule, ...]:
    """The schedules of all stages; a pure function of its arguments. `calls`, if given, has a number for each operator:
    those with the same one are results of one call, which read the same and are best computed at once."""
    maker = _Maker(program, partition, pieces, calls)
    return tuple(maker.stage(number) for number in range(len(partition.parts)))


def bytes_in_step(schedules: Sequence[StageSchedule], step: int) -> int:
    """Bytes that all members send each other in a step."""
    return sum(4 * message.words(step) for schedule in schedules for message in schedule.sends)


class _Maker:
    """Depths and messages of all stages, from which each stage's schedule follows."""

    def __init__(self, program: Program, partition: Partition, pieces: Pieces, calls: Sequence[int] = ()) -> None:
        self.program, self.partition, self.pieces = program, partition, pieces
        self.section = program.section(Role.STEP)
        self.calls = calls or range(len(self.section.operators))
        self.depths = self._depths()
        self.messages = self._messages()

    def _depths(self) -> list[dict[int, int]]:
        """Depth of every operator on every stage that computes it."""
        stages_of: dict[int, list[int]] = {}
        for stage, part in enumerate(self.partition.parts):
            for number in part.operators:
                stages_of.setdefault(number, []).append(stage)
        depths: list[dict[int, int]] = [{} for _ in self.partition.parts]
        for number in sorted(stages_of):
            for stage in stages_of[number]:
                depth = 0  # also of those that read state from elsewhere, which crosses at depth -1
                for other in operands_of(self.section.operators[number], Source.OPERATOR):
                    here = depths[stage].get(other)
                    before = depths[self.partition.home[other]][other] + 1 if here is None else here
                    if here is not None and number in self.pieces.split and self._is_whole(other):
                        before += 1  # its slot comes after the pieces of its depth
                    depth = max(depth, before)
                depths[stage][number] = depth
        return depths

    def _is_whole(self, number: int) -> bool:
        return number in self.partition.home and number not in self.pieces.split

    def _slots(self, number: int, depth: int) -> list[Slot]:
        """The slot of each piece of an operator, or its only one."""
        if number in self.pieces.split:
            return [(depth, piece) for piece in range(self.pieces.count)]
        return [(depth, self.pieces.count if number in self.partition.home else _FREE)]

    def _messages(self) -> list[Message]:
        gathered: dict[tuple[Slot, int, int, int], list[Crossing]] = {}
        for crossing in self.partition.crossings:
            source, index = crossing.value
            ends = (crossing.sender, crossing.receiver)
            if source == Source.STATE:
                gathered.setdefault(((-1, 0), WHOLE, *ends), []).append(crossing)
                continue
            for slot in self._slots(index, self.depths[crossing.sender][index]):
                piece = slot[1] if index in self.pieces.split else WHOLE
                gathered.setdefault((slot, piece, *ends), []).append(crossing)
        messages = []
        program = self.program
        for order, ((slot, piece, sender, receiver), crossings) in enumerate(sorted(gathered.items())):
            parts = 1 if piece == WHOLE else self.pieces.count
            types = tuple(descriptor_of(program, crossing.value).type for crossing in crossings)
            sizes = tuple(crossing.elements // parts for crossing in crossings)
            values = tuple(crossing.value for crossing in crossings)
            packings = tuple(crossing.packing for crossing in crossings)
            messages.append(Message(sender, receiver, slot, order, piece, values, types, sizes, packings))
        return messages

    def stage(self, stage: int) -> StageSchedule:
        """The schedule of one stage."""
        part, operators = self.partition.parts[stage], self.section.operators
        sends = tuple(message for message in self.messages if message.sender == stage)
        receives = tuple(message for message in self.messages if message.receiver == stage)
        sent = {value[1] for message in sends for value in message.values if value[0] == Source.OPERATOR}
        # An instance is (operator, its slot); pieces are instances of their own.
        instances = [
            (number, slot) for number in part.operators for slot in self._slots(number, self.depths[stage][number])
        ]
        readers: dict[int, list[tuple[int, Slot]]] = {}
        for number, slot in instances:
            for other in set(operands_of(operators[number], Source.OPERATOR)):
                readers.setdefault(other, []).append((number, slot))
        due: dict[tuple[int, Slot], Slot] = {}  # by call: that of the result which is due first
        for number, slot in reversed(instances):
            followers = [
                due[self.calls[reader], when]
                for reader, when in readers.get(number, ())
                if self._reads_piece(number, slot, reader, when)
            ]
            before = due.get((self.calls[number], slot), LAST)
            due[self.calls[number], slot] = min([before, slot if number in sent else LAST, *followers])
        groups: dict[tuple[Slot, Slot], list[int]] = {}
        for number, slot in instances:
            groups.setdefault((due[self.calls[number], slot], slot), []).append(number)
        held = {*part.state, *part.copies}
        wanted = {self.section.next_state[number].operator for number in held} | sent | {self.program.loss}
        arrival = {(value, message.piece): message.slot for message in receives for value in message.values}
        phases: list[Phase] = []
        need_of: dict[tuple[int, Slot], Slot] = {}
        for (when, slot), numbers in sorted(groups.items()):
            inside = {(number, slot) for number in numbers}
            kept = tuple(
                number for number in numbers
                if number in wanted or any(
                    reader not in inside for reader in readers.get(number, ())
                    if self._reads_piece(number, slot, *reader)
                )
            )  # fmt: skip
            needs = self._needs(stage, numbers, slot, arrival, need_of)
            need_of.update(((number, slot), needs) for number in numbers)
            phases.append(self._phase(slot, when, needs, tuple(numbers), kept))
        return StageSchedule(stage, self.pieces, tuple(phases), sends, receives)

    def _reads_piece(self, number: int, slot: Slot, reader: int, reader_slot: Slot) -> bool:
        """Whether a reader's instance reads this instance: of two split operators, only the same pieces meet."""
        both = number in self.pieces.split and reader in self.pieces.split
        return not both or slot[1] == reader_slot[1]

    def _needs(
        self, stage: int, numbers: Sequence[int], slot: Slot, arrival: Mapping[tuple[Value, int], Slot],
        need_of: Mapping[tuple[int, Slot], Slot],
    ) -> Slot:  # fmt: skip
        """The last message that must have come before these operators can run."""
        needs = FIRST
        here = self.depths[stage]
        for number in numbers:
            for operand in self.section.operators[number].operands:
                if operand.source not in (Source.STATE, Source.OPERATOR):
                    continue
                value = (operand.source, operand.index)
                for piece in (WHOLE, *range(self.pieces.count)):
                    if number in self.pieces.split and piece not in (WHOLE, slot[1]):
                        continue
                    needs = max(needs, arrival.get((value, piece), FIRST))
                if operand.source == Source.OPERATOR and operand.index in here:
                    for made in self._slots(operand.index, here[operand.index]):
                        if self._reads_piece(operand.index, made, number, slot):
                            needs = max(needs, need_of.get((operand.index, made), FIRST))
        return needs

    def _phase(self, slot: Slot, due: Slot, needs: Slot, numbers: tuple[int, ...], kept: tuple[int, ...]) -> Phase:
        """A phase, and what it reads from outside."""
        piece = slot[1] if numbers[0] in self.pieces.split else WHOLE
        inputs: dict[Input, None] = {}
        inside = {(Source.OPERATOR, number) for number in numbers}
        for number in numbers:
            for operand in self.section.operators[number].operands:
                if operand.source in _EXTERNAL and (operand.source, operand.index) not in inside:
                    inputs[input_of(operand, piece, self.pieces)] = None
        return Phase(slot, due, needs, piece, numbers, tuple(inputs), kept)


def input_of(operand: Operand, piece: int, pieces: Pieces) -> Input:
    """What a phase of some piece reads for an operand."""
    is_part = piece != WHOLE and operand.source == Source.OPERATOR and operand.index in pieces.split
    return (operand.source, operand.index, piece if is_part else WHOLE)


def phase_program(program: Program, phase: Phase, pieces: Pieces) -> Program:
    """A phase as a program of its own, which reads everything from outside as data."""
    section = program.section(Role.STEP)
    places = {each: place for place, each in enumerate(phase.inputs)}
    local = {number: place for place, number in enumerate(phase.operators)}

    def moved(operand: Operand) -> Operand:
        if operand.source not in _EXTERNAL:
            return operand
        read = input_of(operand, phase.piece, pieces)
        if read[2] != WHOLE:
            size = operand.count // pieces.count
            operand = replace(operand, count=size, offset=operand.offset - phase.piece * size)
        if operand.source == Source.OPERATOR and operand.index in local:
            return replace(operand, index=local[operand.index])
        return replace(operand, source=Source.DATA, index=places[read])

    operators: list[Operator] = []
    for number in phase.operators:
        operator = section.operators[number]
        if phase.piece != WHOLE:
            operator = piece_of(operator, phase.piece, pieces.count)
        operators.append(replace(operator, operands=tuple(moved(operand) for operand in operator.operands)))
    tensors = []
    for source, index, part in phase.inputs:
        descriptor = descriptor_of(program, (source, index))
        if part != WHOLE:
            descriptor = replace(descriptor, shape=(descriptor.count // pieces.count,))
        tensors.append(descriptor)
    return Program((), tuple(tensors), program.constants, (Section(Role.STEP, tuple(operators)),))


def descriptor_of(program: Program, value: Value) -> TensorDescriptor:
    """Type and shape of what can cross, or of a data tensor."""
    source, index = value
    if source == Source.OPERATOR:
        operator = program.section(Role.STEP).operators[index]
        return TensorDescriptor(f"operator {index}", operator.type, operator.extents)
    return (program.state if source == Source.STATE else program.data)[index]
