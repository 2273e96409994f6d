"""In which order a stage computes, sends and receives within a step.

The **depth** of an operator is how many times the values it depends on have crossed between stages. Messages of depth d
hold what operators of depth d made (state that crosses: depth -1), so no two stages ever wait for each other. An
operator's **due** depth is the one at which somebody else waits for what it leads to: weight gradients and updates are
due last, and run while a stage would otherwise wait. Operators of one depth and due depth are a **phase**, compiled
together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from assay.group.execution.families import operands_of
from assay.group.execution.partition import Crossing, Partition, Value
from assay.program.operator import ElementType, Operand, Operator, Program, Role, Section, Source, TensorDescriptor

LAST = 1 << 30
"""Due depth of what nobody else waits for."""

EXTERNAL = (Source.STATE, Source.DATA, Source.OPERATOR)


@dataclass(frozen=True)
class Message:
    """Values that one stage sends another at one depth, packed in this order, 4 bytes an element."""

    sender: int
    receiver: int
    depth: int
    values: tuple[Value, ...]
    types: tuple[ElementType, ...]
    sizes: tuple[int, ...]  # elements

    @property
    def bytes(self) -> int:
        """Length on the wire."""
        return 4 * sum(self.sizes)


@dataclass(frozen=True)
class Phase:
    """Operators (program numbers) run together. `inputs` are bound as the compiled program's data, in this order;
    `kept` are operators whose values are read outside the phase."""

    depth: int
    due: int
    operators: tuple[int, ...]
    inputs: tuple[Value, ...]
    kept: tuple[int, ...]
    program: Program

    def local(self, operator: int) -> int:
        """The number in `program` of an operator."""
        return self.operators.index(operator)


@dataclass(frozen=True)
class StageSchedule:
    """Everything a stage does in a step. `phases` in an order in which they can run; messages by depth."""

    stage: int
    phases: tuple[Phase, ...]
    sends: tuple[Message, ...]
    receives: tuple[Message, ...]
    depth: int  # of the deepest phase or message


def make_schedules(program: Program, partition: Partition) -> tuple[StageSchedule, ...]:
    """The schedules of all stages; a pure function of its arguments."""
    depths = _depths(program, partition)
    messages = _messages(program, partition, depths)
    return tuple(
        _stage_schedule(program, partition, stage, depths[stage], messages) for stage in range(len(partition.parts))
    )


def _depths(program: Program, partition: Partition) -> list[dict[int, int]]:
    """Depth of every operator on every stage that computes it."""
    operators = program.section(Role.STEP).operators
    stages_of: dict[int, list[int]] = {}
    for stage, part in enumerate(partition.parts):
        for number in part.operators:
            stages_of.setdefault(number, []).append(stage)
    depths: list[dict[int, int]] = [{} for _ in partition.parts]
    for number in sorted(stages_of):
        for stage in stages_of[number]:
            depth = 0  # also of those that read state from elsewhere, which crosses at depth -1
            for other in operands_of(operators[number], Source.OPERATOR):
                here = depths[stage].get(other)
                depth = max(depth, depths[partition.home[other]][other] + 1 if here is None else here)
            depths[stage][number] = depth
    return depths


def _messages(program: Program, partition: Partition, depths: Sequence[Mapping[int, int]]) -> list[Message]:
    operators = program.section(Role.STEP).operators
    gathered: dict[tuple[int, int, int], list[Crossing]] = {}
    for crossing in partition.crossings:
        source, index = crossing.value
        depth = -1 if source == Source.STATE else depths[crossing.sender][index]
        gathered.setdefault((depth, crossing.sender, crossing.receiver), []).append(crossing)
    messages = []
    for (depth, sender, receiver), crossings in sorted(gathered.items()):
        values = tuple(crossing.value for crossing in crossings)
        types = tuple(
            program.state[index].type if source == Source.STATE else operators[index].type for source, index in values
        )
        messages.append(Message(sender, receiver, depth, values, types, tuple(c.elements for c in crossings)))
    return messages


def _stage_schedule(
    program: Program, partition: Partition, stage: int, depths: Mapping[int, int], messages: Sequence[Message]
) -> StageSchedule:
    section = program.section(Role.STEP)
    part = partition.parts[stage]
    sent = {value[1] for m in messages if m.sender == stage for value in m.values if value[0] == Source.OPERATOR}
    due: dict[int, int] = {}
    readers: dict[int, set[int]] = {}
    for number in reversed(part.operators):
        own = depths[number] if number in sent else LAST
        due[number] = min([own, *(due[reader] for reader in readers.get(number, ()))])
        for other in operands_of(section.operators[number], Source.OPERATOR):
            readers.setdefault(other, set()).add(number)
    groups: dict[tuple[int, int], list[int]] = {}
    for number in part.operators:
        groups.setdefault((due[number], depths[number]), []).append(number)
    held = {*part.state, *part.copies}
    wanted = {section.next_state[number].operator for number in held} | sent | {program.loss}
    phases = []
    for (when, depth), numbers in sorted(groups.items()):
        inside = set(numbers)
        kept = tuple(n for n in numbers if n in wanted or not readers.get(n, set()) <= inside)
        phases.append(_phase(program, section, depth, when, tuple(numbers), kept))
    sends = tuple(message for message in messages if message.sender == stage)
    receives = tuple(message for message in messages if message.receiver == stage)
    deepest = max([*(phase.depth for phase in phases), *(m.depth + 1 for m in receives), *(m.depth for m in sends)])
    return StageSchedule(stage, tuple(phases), sends, receives, deepest)


def _phase(
    program: Program, section: Section, depth: int, due: int, numbers: tuple[int, ...], kept: tuple[int, ...]
) -> Phase:
    """A phase as a program of its own, which reads everything from outside as data."""
    local = {number: place for place, number in enumerate(numbers)}
    inputs: dict[Value, int] = {}

    def moved(operand: Operand) -> Operand:
        if operand.source == Source.OPERATOR and operand.index in local:
            return replace(operand, index=local[operand.index])
        if operand.source in EXTERNAL:
            place = inputs.setdefault((operand.source, operand.index), len(inputs))
            return replace(operand, source=Source.DATA, index=place)
        return operand

    operators: list[Operator] = []
    for number in numbers:
        operator = section.operators[number]
        operators.append(replace(operator, operands=tuple(moved(operand) for operand in operator.operands)))
    tensors = tuple(_descriptor(program, section, value) for value in inputs)
    compiled = Program((), tensors, program.constants, (Section(Role.STEP, tuple(operators)),))
    return Phase(depth, due, numbers, tuple(inputs), kept, compiled)


def _descriptor(program: Program, section: Section, value: Value) -> TensorDescriptor:
    source, index = value
    if source == Source.OPERATOR:
        operator = section.operators[index]
        return TensorDescriptor(f"operator {index}", operator.type, operator.extents)
    return (program.state if source == Source.STATE else program.data)[index]
