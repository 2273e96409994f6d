"""The program that checks a stage of a tolerant task, as the court can judge it (FORMAT, section 3).

Two honest members of a tolerant task do not compute the same bits, so what a member says about its stage is judged by
how far it lies from what its operators give: the stage is executed in the exact arithmetic, from what the member
started from and was sent, and compared with what it says it sent and ended with. Both are data of this program, and its
state has one number more than the stage's: the **fault**, the first state tensor, which begins at 0. A segment whose
fault ends at most 1 is honest; one above, or not a number, is garbage.

Bounds are those of the audits among members (`tolerance`), four times as wide, and beside them sixteen times what noise
does: the stage is executed a second time with the seeded noise of the declared precision, as a task is profiled, since
there is no other way to know how far rounding carries a sum whose terms cancel, a difference that shrinks, or a bias
that moves by rounding alone. Both go on with what the member says it sent, so that differences do not build up across
codes. What is not finite in the exact arithmetic (a run that diverged) says nothing about anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod, sqrt

import numpy as np

from assay.commitments import tensor, tree
from assay.group.execution.declared.terms import MOST_CODE_BITS
from assay.group.execution.native.outline import Outline
from assay.group.execution.partition import Partition, StagePart
from assay.group.execution.stage_program import (
    Link,
    SegmentRoots,
    SegmentTensors,
    StageProgram,
    links_of,
)
from assay.group.execution.tolerance import TOLERANCES
from assay.program.graph import DataInput, Input, StateInput, Value
from assay.program.lowering import lower_part, used_constants
from assay.program.lowering import view as views
from assay.program.lowering.builder import FLOAT, INT, Builder, finish
from assay.program.lowering.optimizers import step_number
from assay.program.lowering.view import View
from assay.program.operator import (
    Array,
    Body,
    ElementType,
    Operator,
    Program,
    Role,
    Source,
    TensorDescriptor,
)
from assay.program.sections import LARGEST, NOISE_STREAM, NOISED, Precision, bits_equal, largest, noised, norm
from assay.program.validate import validate

MARGIN = 4.0
"""The court's bounds are so many times those of an audit,"""

NOISE_MARGIN = 16.0
"""and so many times what noise does are added."""

CODES_OFF = 0.5
"""Quantised values may be off by so many codes, root mean square, however few bits they have: a last bit tips a code
over, and what quantising itself loses is 0.29."""

FAULT = TensorDescriptor("fault", ElementType.FLOAT, ())
NO_FAULT_ROOT = tensor.root(np.zeros((), np.float32))


@dataclass(frozen=True, eq=False)
class CheckingProgram(StageProgram):
    """The state of `program`: the fault, then the tensors `held`, and once more with noise. Its data: the task's, the
    tables of `received` and of `sent`, and the tensors `owned` before and after the segment, in increasing number."""

    owned: tuple[int, ...]

    def roots(self, known: SegmentRoots) -> tuple[bytes, bytes, bytes]:
        """As for any stage. The member says nothing about the state afterwards, which it has not computed: zeros."""
        tables = [known.tables[link] for link in (*self.received, *self.sent)]
        starts, ends = ([roots[number] for number in self.owned] for roots in (known.start, known.ends))
        held = [known.start[number] for number in self.held]
        return (
            tree.root([*known.data, *tables, *starts, *ends]),
            tree.root([NO_FAULT_ROOT, *held, *held]),
            tree.ZERO_HASH,
        )

    def tensors(self, data: Sequence[Array], segment: SegmentTensors) -> tuple[list[Array], list[Array]]:
        """The state and the data that a segment is checked with."""
        if segment.end is None:
            raise ValueError("a stage is checked against the state it says it ended in; none is given")
        starts, ends = ([tensors[number] for number in self.owned] for tensors in (segment.start, segment.end))
        held = [segment.start[number] for number in self.held]
        state = [np.zeros((), np.float32), *held, *held]
        return state, [*data, *segment.received, *segment.sent, *starts, *ends]


def fault_in(state: Sequence[Array]) -> float:
    """The fault in a state of a checking program."""
    return float(state[0].reshape(-1)[0])


def checking_program(
    plan: Outline, divided: Partition, stage: int, interval: int, steps: int, precision: Precision
) -> CheckingProgram:
    """What checks a stage of a task of `steps` steps, in segments of `interval`; a pure function of its arguments."""
    return _Maker(plan, divided, stage, interval, steps, precision).make()


class _NoisyBuilder(Builder):
    """A builder that gives folds noise to read, while `precision` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.precision: Precision | None = None
        self._stream = NOISE_STREAM

    def emit(
        self,
        body: Body,
        kind: ElementType,
        operands: Sequence[View],
        shape: Sequence[int],
        reduced: Sequence[int] = (),
        p0: int = 0,
        p1: int = 0,
    ) -> View:
        """Add an operator, as `Builder.emit`."""
        if self.precision is not None and body in (Body.FOLD_FMA, Body.FOLD_ADD):
            amplitude = self.precision.fold_noise(body, prod(reduced))
            operands = [self._noisy(view, amplitude) for view in operands]
        return super().emit(body, kind, operands, shape, reduced, p0, p1)

    def _noisy(self, view: View, amplitude: float) -> View:
        if view.operand.source not in NOISED:
            return view
        number = noised(view.operand, amplitude, self._stream, self._append, self.origin)
        self._stream += 1
        return replace(view, operand=replace(view.operand, source=Source.OPERATOR, index=number))

    def _append(self, operator: Operator, origin: str) -> int:
        self.operators.append(operator)
        self.origins.append(origin)
        return len(self.operators) - 1


@dataclass(frozen=True)
class _Run:
    """The stage once: what is given to it, what it computes, and what it holds after the step."""

    given: Mapping[Input, View]
    values: Mapping[Value, View]
    following: Mapping[int, View]

    def value(self, value: Input) -> View:
        """A value of the graph, computed here or received."""
        return self.values[value] if isinstance(value, Value) and value in self.values else self.given[value]


class _Maker:
    """Builds the checking program of one stage."""

    def __init__(
        self, plan: Outline, divided: Partition, stage: int, interval: int, steps: int, precision: Precision
    ) -> None:
        self.plan, self.graph, self.stage, self.interval = plan, plan.graph, stage, interval
        self.steps, self.precision, self.tolerance = steps, precision, TOLERANCES[precision]
        self.part: StagePart = divided.parts[stage]
        links = links_of(plan.program, divided)
        self.received = tuple(link for link in links if link.receiver == stage)
        self.sent = tuple(link for link in links if link.sender == stage)
        # A value that several members are sent is the same for all of them: the first table stands for it.
        self.place_of = {self._crossing(link): place for place, link in reversed([*enumerate(self.sent)])}
        self.held = tuple(sorted({*self.part.state, *self.part.copies}))
        self.owned = tuple(sorted(self.part.state))
        self.builder = b = _NoisyBuilder()
        b.origin = "row of the step"
        self.row = b.apply(Body.IMOD, step_number(), interval)
        state, data = plan.graph.state, plan.graph.data
        held, owned = ([state[number] for number in numbers] for numbers in (self.held, self.owned))
        self.state = (FAULT, *held, *_named("with noise", held))
        tables = [link.table(interval) for link in (*self.received, *self.sent)]
        self.data = (*data, *tables, *_named("before", owned), *_named("stated after", owned))

    def make(self) -> CheckingProgram:
        b = self.builder
        own = self._run(1)
        b.precision = self.precision
        noisy = self._run(1 + len(self.held))
        b.precision = None
        found = [self._message(place, link, own, noisy) for place, link in enumerate(self.sent)]
        found.append(self._end(own, noisy))
        fault = b.copy(largest(b, [self._state(0), *found]))
        table: list[int | None] = [fault.operand.index]
        b.origin = "next state"
        for place, view in enumerate((*own.following.values(), *noisy.following.values()), start=1):
            unchanged = view.is_whole and view.operand.source == Source.STATE and view.operand.index == place
            table.append(None if unchanged else b.copy(view).operand.index)
        section, _ = finish(b, Role.STEP, table)
        section, constants = used_constants(section, b.constants)
        program = Program(self.state, self.data, constants, (section,))
        validate(program)
        return CheckingProgram(self.stage, program, self.held, self.received, self.sent, self.owned)

    def _run(self, first: int) -> _Run:
        """Execute the stage on the state tensors from `first` on."""
        b = self.builder
        given: dict[Input, View] = {
            StateInput(number): self._state(first + place) for place, number in enumerate(self.held)
        }
        for place, link in enumerate(self.received):
            b.origin = f"received {link.name}"
            row = self._row(len(self.graph.data) + place, link)
            key = self._crossing(link)
            given[key] = b.reshape(row, self.graph.meta(key).shape)
        values = lower_part(self.graph, self._nodes(given), b, given, self._stated)
        run = _Run(given, values, {})
        return replace(run, following={number: self._next(number, run) for number in self.held})

    def _nodes(self, given: Mapping[Input, View]) -> set[int]:
        """The nodes of the stage's part, and views of the state that it can read."""
        nodes = {self.plan.values[unit].node for unit in self.part.operators}
        looked_at = (value.node for value, state in self.plan.state_views.items() if StateInput(state) in given)
        return nodes.union(looked_at)

    def _next(self, number: int, run: _Run) -> View:
        """A held tensor after the step."""
        value = self.graph.next_state[number]
        if isinstance(value, DataInput):
            descriptor = self.graph.data[value.index]
            return views.whole(descriptor.type, descriptor.shape, Source.DATA, value.index)
        return run.value(value)

    # --- what is read ---

    def _state(self, index: int) -> View:
        descriptor = self.state[index]
        return views.whole(descriptor.type, descriptor.shape, Source.STATE, index)

    def _row(self, data: int, link: Link) -> View:
        """The step's row of a table, without the padding."""
        table = views.whole(link.kind, (self.interval, link.row), Source.DATA, data)
        return self.builder.gather(views.remap(table, 1, (link.elements,), (1,)), 0, self.row)

    def _sent_row(self, place: int) -> View:
        return self._row(len(self.graph.data) + len(self.received) + place, self.sent[place])

    def _owned(self, number: int, at_end: bool) -> View:
        """An owned tensor as a vector, before the segment or as stated after it."""
        descriptor, first = self.graph.state[number], len(self.graph.data) + len(self.received) + len(self.sent)
        place = self.owned.index(number) + at_end * len(self.owned)
        return views.whole(descriptor.type, (descriptor.count,), Source.DATA, first + place)

    def _crossing(self, link: Link) -> Input:
        source, number = link.value
        return StateInput(number) if source == Source.STATE else self.plan.values[number]

    def _stated(self, value: Value, own: View) -> View:
        """What the stage goes on with: what it says it sent, where it did."""
        place = self.place_of.get(value)
        if place is None:
            return own
        b = self.builder
        stated = b.reshape(self._sent_row(place), own.shape)
        is_sent = self._is_sent(self.sent[place])
        return stated if is_sent is None else b.apply(Body.SELECT, is_sent, stated, own, kind=own.type)

    def _is_sent(self, link: Link) -> View | None:
        """Whether the step sends the value; None where all do."""
        until, since = link.packing.until, link.packing.since
        if since <= until:
            return None
        b = self.builder
        before = b.apply(Body.ILT, step_number(), min(until, 2**31 - 1))
        after = b.apply(Body.ILE, b.number(min(since, 2**31 - 1), INT), step_number())
        return b.apply(Body.IOR, before, after)

    # --- what is compared ---

    def _message(self, place: int, link: Link, clean: _Run, noisy: _Run) -> View:
        """How far what a step is said to have sent lies from what it computes, in units of what rounding may do."""
        b = self.builder
        b.origin = f"sent {link.name}"
        own, other = (self._floats(run.value(self._crossing(link)), link.elements) for run in (clean, noisy))
        stated = self._floats(self._sent_row(place), link.elements)
        if link.packing.bits <= MOST_CODE_BITS:
            bound = b.number(CODES_OFF * sqrt(link.elements))
        else:
            bound = b.apply(Body.MUL, norm(b, own), MARGIN * self.tolerance.message)
        ratio = self._ratio(own, stated, other, bound)
        is_sent = self._is_sent(link)
        return ratio if is_sent is None else b.apply(Body.SELECT, is_sent, ratio, 0.0, kind=FLOAT)

    def _end(self, clean: _Run, noisy: _Run) -> View:
        """The same of what the segment is said to have ended with, in its last step."""
        b = self.builder
        found = [b.number(0.0)]
        for number in self.owned:
            b.origin = f"end of {self.graph.state[number].name}"
            start, stated = (self._floats(self._owned(number, at_end)) for at_end in (False, True))
            own, other = (self._floats(run.following[number]) for run in (clean, noisy))
            moved = norm(b, b.apply(Body.SUB, own, start))
            rounding = b.apply(Body.MUL, norm(b, own), MARGIN * self.tolerance.rounding)
            bound = b.apply(Body.FMA, moved, MARGIN * self.tolerance.update, rounding)
            found.append(self._ratio(own, stated, other, bound))
        b.origin = "end"
        is_last = b.apply(
            Body.IOR,
            b.apply(Body.SAME, self.row, b.number(self.interval - 1, INT)),
            b.apply(Body.SAME, step_number(), b.number(self.steps - 1, INT)),
        )
        return b.apply(Body.SELECT, is_last, largest(b, found), 0.0, kind=FLOAT)

    def _floats(self, view: View, count: int | None = None) -> View:
        """A tensor as a vector of floats."""
        return self.builder.as_type(self.builder.reshape(view, (view.count if count is None else count,)), FLOAT)

    def _ratio(self, own: View, stated: View, noisy: View, bound: View) -> View:
        """|stated - own| / (bound + what noise does): 0 where all bits are equal, and where that is not finite."""
        b = self.builder
        noise = norm(b, b.apply(Body.SUB, noisy, own))
        allowed = b.apply(Body.FMA, noise, NOISE_MARGIN, bound)
        ratio = b.apply(Body.DIV, norm(b, b.apply(Body.SUB, stated, own)), allowed)
        ratio = b.apply(Body.SELECT, b.apply(Body.LE, allowed, LARGEST), ratio, 0.0, kind=FLOAT)
        return b.apply(Body.SELECT, bits_equal(b, own, stated), 0.0, ratio, kind=FLOAT)


def _named(what: str, tensors: Sequence[TensorDescriptor]) -> list[TensorDescriptor]:
    return [replace(each, name=f"{each.name} {what}") for each in tensors]
