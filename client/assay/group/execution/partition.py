"""Who computes what: a program's operators on a plan's stages, and the values that cross between them.

A pure function of program and shares, so every member derives the same partition for itself. State is dealt out by
`dealing`. An operator that reads trained state runs where that state lies: parameters never travel, except to an
operator that reads several members'. Free operators run wherever they are needed. All others are placed so that the
fewest bytes cross: exactly by a minimum cut for two stages, and by repeated minimum cuts between two stages at a time
for more.

Every working member of the plan is a stage of its own here. In exact mode a fold is strictly sequential, so replicas
cannot share a batch and add up their sums: the replicas of a stage divide its layers instead. Native groups share the
batch where they can (`native.shards`); operators then have their places, and parameters travel to the replicas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from assay.group.execution.dealing import Dealing
from assay.group.execution.families import Families, find_families, operands_of
from assay.group.execution.memory import Held, divide_within
from assay.group.execution.min_cut import UNBOUNDED, FlowNetwork
from assay.group.execution.packing import IN_FULL, Packing
from assay.group.plan import GroupPlan
from assay.program.operator import Operator, Program, Role, Source

MAX_ROUNDS = 4

Value = tuple[Source, int]
"""What can cross: (Source.OPERATOR, number) or (Source.STATE, number)."""


@dataclass(frozen=True)
class Crossing:
    """A value of `elements` that `sender` (a stage) computes or holds and `receiver` reads."""

    value: Value
    sender: int
    receiver: int
    elements: int
    packing: Packing = IN_FULL


@dataclass(frozen=True)
class StagePart:
    """What one stage does. `state`: the tensors it holds and answers for; `copies`: replicated ones it needs too;
    `operators`: in program order, its own and the free ones it needs."""

    state: tuple[int, ...]
    copies: tuple[int, ...]
    operators: tuple[int, ...]
    work: int


@dataclass(frozen=True)
class Partition:
    """`home[i]` is the stage that computes operator i; free and dead operators have none."""

    parts: tuple[StagePart, ...]
    crossings: tuple[Crossing, ...]
    home: dict[int, int]
    owner: tuple[int, ...]  # the stage that answers for each state tensor

    @cached_property
    def bytes_per_step(self) -> int:
        """Bytes of values between members in one step if all are sent, and in full."""
        return sum(4 * crossing.elements for crossing in self.crossings)


@dataclass(frozen=True)
class Hints:
    """What is known of a program beyond its operators.

    `wire_bytes`: expected bytes a step of what is not sent in full. `mirrored`: operators that are computed wherever
    they are read, though they depend on values that cross (`families.free` has them too). `anchors`: for replicated
    state that changes with the data, the operator whose stage answers for it.
    """

    families: Families
    wire_bytes: Mapping[int, int]
    mirrored: frozenset[int]
    anchors: Mapping[int, int]

    @staticmethod
    def of(program: Program) -> Hints:
        """Nothing beyond the operators."""
        return Hints(find_families(program), {}, frozenset(), {})

    def reads(self, operators: Sequence[Operator], number: int) -> set[int]:
        """Operators that an operator reads, directly or through mirrored ones, and that are not free."""
        found: set[int] = set()
        waiting = [number]
        while waiting:
            for other in operands_of(operators[waiting.pop()], Source.OPERATOR):
                if other in found:
                    continue
                if other in self.mirrored:
                    waiting.append(other)
                elif other not in self.families.free:
                    found.add(other)
        return found

    def size(self, operators: Sequence[Operator], number: int) -> int:
        """Expected bytes of an operator's result on the wire."""
        return self.wire_bytes.get(number, 4 * operators[number].elements)


def member_order(plan: GroupPlan) -> tuple[str, ...]:
    """The members in the order of execution stages: stage by stage, each stage's replicas side by side."""
    return tuple(name for stage in range(plan.stages) for name in plan.stage_members(stage))


def member_shares(plan: GroupPlan) -> tuple[float, ...]:
    """How much of the work each member of `member_order` should get: the plan's uneven split of layers."""
    return tuple(plan.layers[stage] / plan.replicas for stage in range(plan.stages) for _ in range(plan.replicas))


class Division:
    """The step section of a program, to be divided among `len(shares)` stages. Raises PlacementError where that many
    cannot be filled."""

    def __init__(self, program: Program, shares: Sequence[float], hints: Hints | None = None) -> None:
        self.program, self.stages = program, len(shares)
        self.hints = hints or Hints.of(program)
        self._reads = _reads_of(program, self.hints)
        # Where some values take few bytes, the best place of a cut is not seen from the sizes of values alone.
        measured = self._cut_before if self.hints.wire_bytes else None
        self._dealing = Dealing(program, self.hints.families, shares, self._reads, measured)

    def within(self, bounds: Sequence[float]) -> tuple[Partition, list[float]]:
        """A partition whose stages get families estimated at no more bytes than `bounds`, and at how many. Raises
        PlacementError where they do not fit."""
        stage_of = self._dealing.deal(bounds)
        return self._placed(stage_of, self.stages).result(), self._dealing.estimated(stage_of)

    def _placed(self, stage_of: Sequence[int], stages: int) -> _Placement:
        owner = [0] * len(self.program.state)  # replicated state: the first stage answers for it
        for group, stage in zip(self.hints.families.families, stage_of, strict=True):
            for state in group:
                owner[state] = stage
        placement = _Placement(self.program, self.hints, self._reads, owner, stages)
        placement.improve()
        return placement

    def _cut_before(self, family: int) -> tuple[int, int]:
        operators = self.program.section(Role.STEP).operators
        placement = self._placed([int(number >= family) for number in range(len(self.hints.families.families))], 2)
        return placement.cost(), sum(operators[n].work for n, stage in placement.home.items() if stage == 0)


def partition(
    program: Program, shares: Sequence[float], memory_bytes: Sequence[float] = (), hints: Hints | None = None
) -> Partition:
    """Divide the step section among `len(shares)` stages, each of which holds no more than its `memory_bytes` (0 for no
    limit; `memory.Held` says what counts). Raises PlacementError where that many cannot be filled, MemoryLimitError
    where no division was found that fits."""
    division = Division(program, shares, hints)

    def attempt(bounds: Sequence[float]) -> tuple[Partition, Sequence[Held], Sequence[float]]:
        made, dealt = division.within(bounds)
        return made, held_by(program, made), dealt

    return divide_within(memory_bytes, attempt, len(shares))


def held_by(program: Program, divided: Partition) -> list[Held]:
    """What every member holds."""
    operators = program.section(Role.STEP).operators
    received = [0] * len(divided.parts)
    for crossing in divided.crossings:
        received[crossing.receiver] += 4 * crossing.elements
    return [
        Held(
            sum(8 * program.state[number].count for number in part.state),
            sum(8 * program.state[number].count for number in part.copies),
            sum(4 * operators[number].elements for number in part.operators),
            received[stage],
        )
        for stage, part in enumerate(divided.parts)
    ]


def arrange(program: Program, hints: Hints, owner: Sequence[int], pinned: Mapping[int, int], stages: int) -> Partition:
    """The partition in which every state tensor has its owner and the operators in `pinned` their stage; the others go
    where the fewest bytes cross."""
    placement = _Placement(program, hints, _reads_of(program, hints), list(owner), stages, pinned)
    placement.improve()
    return placement.result()


def _reads_of(program: Program, hints: Hints) -> dict[int, set[int]]:
    operators = program.section(Role.STEP).operators
    return {number: hints.reads(operators, number) for number in hints.families.live}


class _Placement:
    """Stages of operators, improved until no cut between two stages saves bytes."""

    def __init__(
        self, program: Program, hints: Hints, reads: Mapping[int, set[int]], owner: list[int], stages: int,
        pinned: Mapping[int, int] | None = None,
    ) -> None:  # fmt: skip
        families = hints.families
        self.program, self.families, self.owner, self.stages = program, families, owner, stages
        self.hints, self.reads = hints, reads
        self.operators = program.section(Role.STEP).operators
        self.next_state = program.section(Role.STEP).next_state
        self.placed = [i for i in range(len(self.operators)) if i in families.live and i not in families.free]
        self.given = pinned or {}
        self.pinned: dict[int, int] = {}
        # Readers of each value among placed operators; `demands`: stages that need it whatever is placed where.
        self.readers: dict[Value, list[int]] = {}
        self.demands: dict[Value, set[int]] = {}
        for number in self.placed:
            self._connect(number)
        for state, entry in enumerate(self.next_state):
            operator = entry.operator
            # What is replicated or free is computed where it is needed.
            if operator is not None and state not in families.replicated and operator not in families.free:
                self.demands.setdefault((Source.OPERATOR, operator), set()).add(owner[state])
        self.home = dict(self.pinned)
        self._place_the_rest()

    def _connect(self, number: int) -> None:
        operator = self.operators[number]
        states = [state for state in operands_of(operator, Source.STATE) if state not in self.families.replicated]
        if number in self.given:
            self.pinned[number] = self.given[number]
        elif states:
            self.pinned[number] = self.owner[max(states, key=lambda state: (self.program.state[state].count, -state))]
        for state in states:
            if self.owner[state] != self.pinned[number]:
                self.demands.setdefault((Source.STATE, state), set()).add(self.pinned[number])
        for other in sorted(self.reads[number]):
            self.readers.setdefault((Source.OPERATOR, other), []).append(number)

    def _place_the_rest(self) -> None:
        """Start: each operator where most of what it reads lies."""
        for number in self.placed:
            if number in self.home:
                continue
            weight: dict[int, int] = {}
            for other in sorted(self.reads[number]):
                if other in self.home:
                    stage = self.home[other]
                    weight[stage] = weight.get(stage, 0) + self.operators[other].elements
            # Nothing placed before it: computed from the data, so where the model begins.
            self.home[number] = max(weight, key=lambda stage: (weight[stage], stage), default=0)

    def improve(self) -> None:
        """Minimum cuts between every two stages, neighbours first, while they save bytes."""
        pairs = sorted(
            ((a, b) for a in range(self.stages) for b in range(a + 1, self.stages)), key=lambda p: (p[1] - p[0], p)
        )
        movable = [number for number in self.placed if number not in self.pinned]
        touched = self._touched(movable)
        for _ in range(MAX_ROUNDS):
            is_better = False
            for a, b in pairs:
                free = [number for number in movable if self.home[number] in (a, b)]
                if not free:
                    continue
                values = sorted(set().union(*(touched[number] for number in free)))
                old, before = {number: self.home[number] for number in free}, self.cost(values)
                self.home.update(self._cut(a, b, free, values))
                if self.cost(values) < before:
                    is_better = True
                else:
                    self.home.update(old)
            if not is_better:
                return

    def cost(self, values: Sequence[Value] | None = None) -> int:
        """Bytes that cross, of these values or of all."""
        values = self._values() if values is None else values
        return sum(self._size(value) * len(self._needed(value)) for value in values)

    def _touched(self, numbers: Sequence[int]) -> dict[int, set[Value]]:
        """The values that each of these operators makes or reads."""
        found: dict[int, set[Value]] = {number: set() for number in numbers}
        for value in self._values():
            ends = [*self.readers.get(value, ()), *([value[1]] if value[0] == Source.OPERATOR else [])]
            for number in ends:
                if number in found:
                    found[number].add(value)
        return found

    def _values(self) -> list[Value]:
        return sorted({*self.readers, *self.demands})

    def _size(self, value: Value) -> int:
        source, index = value
        if source == Source.STATE:
            return 4 * self.program.state[index].count
        return self.hints.size(self.operators, index)

    def _elements(self, value: Value) -> int:
        source, index = value
        return self.program.state[index].count if source == Source.STATE else self.operators[index].elements

    def _maker(self, value: Value) -> int:
        source, index = value
        return self.owner[index] if source == Source.STATE else self.home[index]

    def _needed(self, value: Value) -> set[int]:
        """Stages other than its own that need a value."""
        stages = {self.home[reader] for reader in self.readers.get(value, ())} | self.demands.get(value, set())
        return stages - {self._maker(value)}

    def _cut(self, a: int, b: int, free: Sequence[int], values: Sequence[Value]) -> dict[int, int]:
        """New stages for the operators `free`, now on `a` or `b`, as a minimum cut places them; `values` are all that
        they make or read."""
        node = {number: place + 2 for place, number in enumerate(free)}
        network = FlowNetwork(len(free) + 2)
        source, sink = 0, 1

        def node_of(stage: int) -> int | None:
            return source if stage == a else sink if stage == b else None

        for value in values:
            readers = self.readers.get(value, [])
            maker = node.get(value[1]) if value[0] == Source.OPERATOR else None
            ends = [node[r] if r in node else node_of(self.home[r]) for r in readers]
            ends += [node_of(stage) for stage in sorted(self.demands.get(value, set()))]
            inside = sorted({end for end in ends if end is not None})
            made = maker if maker is not None else node_of(self._maker(value))
            size = self._size(value)
            # Paid once if any reader is on b while the maker is not, and likewise for a. A maker elsewhere pays both.
            if inside and made != sink:
                any_b = network.add_node()
                network.add_edge(source if made is None else made, any_b, size)
                for end in inside:
                    network.add_edge(any_b, end, UNBOUNDED)
            if inside and made != source:
                any_a = network.add_node()
                network.add_edge(any_a, sink if made is None else made, size)
                for end in inside:
                    network.add_edge(end, any_a, UNBOUNDED)
        side = network.source_side(source, sink)
        return {number: a if place in side else b for number, place in node.items()}

    def result(self) -> Partition:
        """The finished partition."""
        for state, anchor in self.hints.anchors.items():
            self.owner[state] = self.home[anchor]
        parts = tuple(self._part(stage) for stage in range(self.stages))
        for stage, part in enumerate(parts):
            for number in self.hints.mirrored.intersection(part.operators):
                for other in self.reads[number]:
                    self.demands.setdefault((Source.OPERATOR, other), set()).add(stage)
        crossings = [
            Crossing(value, self._maker(value), stage, self._elements(value))
            for value in self._values()
            for stage in sorted(self._needed(value))
        ]
        # What is computed in several places has one of them as its home: it waits for pieces like all that is placed.
        home = dict(self.home)
        for number in self.hints.mirrored:
            home[number] = next((stage for stage, part in enumerate(parts) if number in part.operators), 0)
        return Partition(parts, tuple(crossings), home, tuple(self.owner))

    def _part(self, stage: int) -> StagePart:
        own = {number for number in self.placed if self.home[number] == stage}
        state = tuple(number for number, owner in enumerate(self.owner) if owner == stage)
        copies = {number for number in state if number in self.families.replicated}
        needed = set(own)
        for number in state:
            entry = self.next_state[number].operator
            if entry is not None and entry in self.families.free:
                needed.add(entry)
        if self.program.loss in self.families.free and stage == self.stages - 1:
            needed.add(self.program.loss)
        # Free operators that are read here, and replicated state that they read, with what computes its next value.
        waiting = sorted(needed)
        while waiting:
            operator: Operator = self.operators[waiting.pop()]
            found = {other for other in operands_of(operator, Source.OPERATOR) if other in self.families.free}
            for number in operands_of(operator, Source.STATE):
                if number in self.families.replicated and number not in copies:
                    copies.add(number)
                    entry = self.next_state[number].operator
                    assert entry is not None
                    found.add(entry)
            waiting.extend(sorted(found - needed))
            needed |= found
        work = sum(self.operators[number].work for number in needed)
        return StagePart(state, tuple(sorted(copies - set(state))), tuple(sorted(needed)), work)
