"""The program that checks a stage of a tolerant task, as the court can judge it (FORMAT, section 3).

Two honest members of a tolerant task do not compute the same bits, so what a member says about its stage is judged by
how far it lies from what its operators give: the stage is executed in the exact arithmetic, from what the member
started from and was sent, and compared with what it says it sent and ended with. Both are data of this program, and its
state is one number more than the stage's: the **fault**, the first state tensor, which begins at 0. A segment whose
fault ends at most 1 is honest; one above, or not a number, is garbage.

Bounds are those of the audits among members (`tolerance`), and four times as wide: nobody is convicted by rounding. A
sum whose terms cancel is measured by its terms, since rounding is all that is left of it; what is not finite in the
exact arithmetic (a run that diverged) says nothing about anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from assay.commitments import tensor, tree
from assay.group.execution.native.outline import Outline
from assay.group.execution.partition import Partition, StagePart
from assay.group.execution.stage_program import (
    Link,
    SegmentRoots,
    SegmentTensors,
    StageProgram,
    links_of,
)
from assay.group.execution.tolerance import SMALL_PART, TOLERANCES, Tolerance
from assay.program.graph import DataInput, Input, StateInput, Value
from assay.program.lowering import lower_part, used_constants
from assay.program.lowering import view as views
from assay.program.lowering.builder import FLOAT, INT, Builder, finish
from assay.program.lowering.optimizers import step_number
from assay.program.lowering.view import View
from assay.program.operator import (
    BODY_RULES,
    Array,
    Body,
    ElementType,
    Operand,
    Program,
    Role,
    Source,
    TensorDescriptor,
)
from assay.program.sections import LARGEST, Precision, bits_equal, largest, norm
from assay.program.validate import validate

MARGIN = 4.0
"""The court's bounds are so many times those of an audit."""

FAULT = TensorDescriptor("fault", ElementType.FLOAT, ())
NO_FAULT_ROOT = tensor.root(np.zeros((), np.float32))

_SUMS = frozenset({Body.FOLD_ADD, Body.FOLD_FMA, Body.FOLD_ADD_IF})


@dataclass(frozen=True, eq=False)
class CheckingProgram(StageProgram):
    """The state of `program`: the fault, then the tensors `held`. Its data: the task's, the tables of `received` and of
    `sent`, and the tensors `owned` before and after the segment, in increasing number."""

    owned: tuple[int, ...]

    def roots(self, known: SegmentRoots) -> tuple[bytes, bytes, bytes]:
        """As for any stage. The member says nothing about the state afterwards, which it has not computed: zeros."""
        tables = [known.tables[link] for link in (*self.received, *self.sent)]
        starts, ends = ([roots[number] for number in self.owned] for roots in (known.start, known.ends))
        return (
            tree.root([*known.data, *tables, *starts, *ends]),
            tree.root([NO_FAULT_ROOT, *(known.start[number] for number in self.held)]),
            tree.ZERO_HASH,
        )

    def tensors(self, data: Sequence[Array], segment: SegmentTensors) -> tuple[list[Array], list[Array]]:
        """The state and the data that a segment is checked with."""
        if segment.end is None:
            raise ValueError("a stage is checked against the state it says it ended in; none is given")
        starts, ends = ([tensors[number] for number in self.owned] for tensors in (segment.start, segment.end))
        state = [np.zeros((), np.float32), *(segment.start[number] for number in self.held)]
        return state, [*data, *segment.received, *segment.sent, *starts, *ends]


def fault_in(state: Sequence[Array]) -> float:
    """The fault in a state of a checking program."""
    return float(state[0].reshape(-1)[0])


def checking_program(
    plan: Outline, divided: Partition, stage: int, interval: int, steps: int, precision: Precision
) -> CheckingProgram:
    """What checks a stage of a task of `steps` steps, in segments of `interval`; a pure function of its arguments."""
    return _Maker(plan, divided, stage, interval, steps, TOLERANCES[precision]).make()


class _Maker:
    """Builds the checking program of one stage."""

    def __init__(
        self, plan: Outline, divided: Partition, stage: int, interval: int, steps: int, tolerance: Tolerance
    ) -> None:
        self.plan, self.graph, self.stage, self.interval = plan, plan.graph, stage, interval
        self.steps, self.tolerance = steps, tolerance
        self.part: StagePart = divided.parts[stage]
        links = links_of(plan.program, divided)
        self.received = tuple(link for link in links if link.receiver == stage)
        self.sent = tuple(link for link in links if link.sender == stage)
        self.held = tuple(sorted({*self.part.state, *self.part.copies}))
        self.builder = b = Builder()
        b.origin = "row of the step"
        self.row = b.apply(Body.IMOD, step_number(), interval)
        state, data = plan.graph.state, plan.graph.data
        self.owned = tuple(sorted(self.part.state))
        self.state = (FAULT, *(state[number] for number in self.held))
        owned = [state[number] for number in self.owned]
        tables = [link.table(interval) for link in (*self.received, *self.sent)]
        self.data = (*data, *tables, *_named("before", owned), *_named("stated after", owned))
        self.given: dict[Input, View] = {
            StateInput(number): self._state(1 + place) for place, number in enumerate(self.held)
        }
        self.values: Mapping[Value, View] = {}

    def make(self) -> CheckingProgram:
        b = self.builder
        for place, link in enumerate(self.received):
            b.origin = f"received {link.name}"
            row = self._row(len(self.graph.data) + place, link)
            source, number = link.value
            key: Input = StateInput(number) if source == Source.STATE else self.plan.values[number]
            self.given[key] = b.reshape(row, self.graph.meta(key).shape)
        self.values = lower_part(self.graph, self._nodes(), b, self.given)
        found = [self._message(place, link) for place, link in enumerate(self.sent)]
        following = [self._next(number) for number in self.held]
        b.origin = "fault"
        found.append(self._end(following))
        fault = b.copy(largest(b, [self._state(0), *found]))
        table: list[int | None] = [fault.operand.index]
        for place, view in enumerate(following, start=1):
            unchanged = view.is_whole and view.operand.source == Source.STATE and view.operand.index == place
            table.append(None if unchanged else b.copy(view).operand.index)
        section, _ = finish(b, Role.STEP, table)
        section, constants = used_constants(section, b.constants)
        program = Program(self.state, self.data, constants, (section,))
        validate(program)
        return CheckingProgram(self.stage, program, self.held, self.received, self.sent, self.owned)

    def _nodes(self) -> set[int]:
        """The nodes of the stage's part, and views of the state that it can read."""
        nodes = {self.plan.values[unit].node for unit in self.part.operators}
        looked_at = (value.node for value, state in self.plan.state_views.items() if StateInput(state) in self.given)
        return nodes.union(looked_at)

    # --- what is read ---

    def _state(self, index: int) -> View:
        descriptor = self.state[index]
        return views.whole(descriptor.type, descriptor.shape, Source.STATE, index)

    def _row(self, data: int, link: Link) -> View:
        """The step's row of a table, without the padding."""
        table = views.whole(link.kind, (self.interval, link.row), Source.DATA, data)
        return self.builder.gather(views.remap(table, 1, (link.elements,), (1,)), 0, self.row)

    def _value(self, value: Input) -> View:
        """A value of the graph, computed here or received."""
        if value in self.given:
            return self.given[value]
        if isinstance(value, DataInput):
            descriptor = self.graph.data[value.index]
            return views.whole(descriptor.type, descriptor.shape, Source.DATA, value.index)
        assert isinstance(value, Value)
        return self.values[value]

    def _next(self, number: int) -> View:
        """A held tensor after the step."""
        self.builder.origin = f"next {self.graph.state[number].name}"
        return self._value(self.graph.next_state[number])

    # --- what is compared ---

    def _message(self, place: int, link: Link) -> View:
        """How far what a step is said to have sent lies from what it computes, in units of what rounding may do."""
        b = self.builder
        b.origin = f"sent {link.name}"
        source, number = link.value
        value = self._value(StateInput(number) if source == Source.STATE else self.plan.values[number])
        own = _as_floats(b, b.reshape(value, (link.elements,)))
        stated = _as_floats(b, self._row(len(self.graph.data) + len(self.received) + place, link))
        allowed = b.apply(Body.MUL, norm(b, own), MARGIN * self.tolerance.message)
        terms = _terms(b, value)
        if terms is not None:
            allowed = b.apply(Body.FMA, norm(b, terms), self.tolerance.cancelled, allowed)
        ratio = self._ratio(own, stated, allowed)
        is_sent = self._is_sent(link)
        return ratio if is_sent is None else b.apply(Body.SELECT, is_sent, ratio, 0.0, kind=FLOAT)

    def _is_sent(self, link: Link) -> View | None:
        """Whether the step sends the value; None where all do."""
        until, since = link.packing.until, link.packing.since
        if since <= until:
            return None
        b = self.builder
        before = b.apply(Body.ILT, step_number(), min(until, 2**31 - 1))
        after = b.apply(Body.ILE, b.number(min(since, 2**31 - 1), INT), step_number())
        return b.apply(Body.IOR, before, after)

    def _end(self, following: Sequence[View]) -> View:
        """In a segment's last step, how much of the state is said to have ended elsewhere, in units of what may."""
        b = self.builder
        after = dict(zip(self.held, following, strict=True))
        total = sum(self.graph.state[number].count for number in self.owned)
        if not total:
            return b.number(0.0)
        first = len(self.graph.data) + len(self.received) + len(self.sent)
        off = b.number(0.0)
        for place, number in enumerate(self.owned):
            descriptor = self.graph.state[number]
            b.origin = f"end of {descriptor.name}"
            start, stated = (
                views.whole(descriptor.type, (descriptor.count,), Source.DATA, first + at)
                for at in (place, len(self.owned) + place)
            )
            own, before, said = (
                _as_floats(b, b.reshape(v, (descriptor.count,))) for v in (after[number], start, stated)
            )
            moved = norm(b, b.apply(Body.SUB, own, before))
            rounding = b.apply(Body.MUL, norm(b, own), MARGIN * self.tolerance.rounding)
            ratio = self._ratio(own, said, b.apply(Body.FMA, moved, MARGIN * self.tolerance.update, rounding))
            lies_close = b.apply(Body.LE, ratio, 1.0)  # a NaN does not
            beyond = b.apply(Body.SELECT, lies_close, 0.0, float(descriptor.count), kind=FLOAT)
            off = b.apply(Body.ADD, off, beyond)
        b.origin = "end"
        part = b.apply(Body.MUL, off, 1.0 / (SMALL_PART * total))
        is_last = b.apply(
            Body.IOR,
            b.apply(Body.SAME, self.row, b.number(self.interval - 1, INT)),
            b.apply(Body.SAME, step_number(), b.number(self.steps - 1, INT)),
        )
        return b.apply(Body.SELECT, is_last, part, 0.0, kind=FLOAT)

    def _ratio(self, own: View, stated: View, allowed: View) -> View:
        """|stated - own| / allowed: 0 where all bits are equal, and where `allowed` is not finite."""
        b = self.builder
        ratio = b.apply(Body.DIV, norm(b, b.apply(Body.SUB, stated, own)), allowed)
        ratio = b.apply(Body.SELECT, b.apply(Body.LE, allowed, LARGEST), ratio, 0.0, kind=FLOAT)
        return b.apply(Body.SELECT, bits_equal(b, own, stated), 0.0, ratio, kind=FLOAT)


def _as_floats(b: Builder, view: View) -> View:
    return b.as_type(view, FLOAT)


def _terms(b: Builder, view: View) -> View | None:
    """The sums of the absolute terms of what `view` looks at, where that is a sum."""
    operand = view.operand
    if operand.source != Source.OPERATOR or b.operators[operand.index].body not in _SUMS or view.type != FLOAT:
        return None
    return replace(view, operand=replace(operand, index=_absolute_sum(b, operand.index)))


def _absolute_sum(b: Builder, number: int) -> int:
    """The operator that is a sum of the absolute values of what operator `number` sums, down through sums of sums."""
    operator = b.operators[number]
    operands = []
    for operand, letter in zip(operator.operands, BODY_RULES[operator.body].operands, strict=True):
        if letter == "f":
            operand = _absolute(b, operand)
        kind = FLOAT if letter == "f" else INT
        operands.append(View(kind, (*operator.extents, *operator.reduced), operand))
    made = b.emit(operator.body, operator.type, operands, operator.extents, operator.reduced)
    return made.operand.index


def _absolute(b: Builder, operand: Operand) -> Operand:
    """An operand with the absolute values of what it reads."""
    if operand.source == Source.IMMEDIATE:
        return replace(operand, index=operand.index & 0x7FFFFFFF)
    if operand.source == Source.OPERATOR and b.operators[operand.index].body in _SUMS:
        return replace(operand, index=_absolute_sum(b, operand.index))
    whole = views.whole(FLOAT, (operand.count,), operand.source, operand.index)
    return replace(operand, source=Source.OPERATOR, index=b.apply(Body.ABS, whole).operand.index)


def _named(what: str, tensors: Sequence[TensorDescriptor]) -> list[TensorDescriptor]:
    return [replace(each, name=f"{each.name} {what}") for each in tensors]
