"""A graph in outline: the same step as a program of opaque operators, one for each output of each node.

What decides where things run and in which order (`execution.partition`, `execution.schedule`) asks of an operator only
what it reads, how large its result is and how much work it is. An outline answers that for calls of PyTorch, so that
members divide a recorded graph exactly as they divide a program in the exact arithmetic.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from assay.engine.native.compiler import VIEWS
from assay.group.errors import PlacementError
from assay.group.execution.declared.compression import Compression, complete, hints_of, packed
from assay.group.execution.declared.needs import Choice
from assay.group.execution.families import operands_of
from assay.group.execution.memory import Held, divide_within
from assay.group.execution.native.expand import UPDATES, expand
from assay.group.execution.native.pieces import WHOLE_BATCH, NodePieces, find_node_pieces
from assay.group.execution.native.replicas import declared_replicas
from assay.group.execution.native.samples import NodeReach
from assay.group.execution.native.shards import NotSharedError, SharedBatch, share_batch
from assay.group.execution.native.terms import GraphReader
from assay.group.execution.packing import FULL, SHORT
from assay.group.execution.partition import Division, Hints, Partition, arrange, held_by, partition
from assay.group.execution.pieces import Pieces
from assay.program.graph import (
    ConstantInput,
    DataInput,
    Graph,
    Input,
    StateInput,
    Value,
    inputs_of,
)
from assay.program.lowering import LoweredNodes, lower_nodes
from assay.program.operator import (
    Body,
    ElementType,
    Operand,
    Operator,
    Program,
    Role,
    Section,
    Source,
    StateEntry,
    TensorDescriptor,
)

_SOURCES: dict[type[Input], Source] = {
    StateInput: Source.STATE,
    DataInput: Source.DATA,
    ConstantInput: Source.CONSTANT,
}


@dataclass(frozen=True)
class OutlineOperator(Operator):
    """An output of a call: what it reads, its shape, and `cost` units of work. It cannot be evaluated."""

    cost: int = 0

    @property
    def work(self) -> int:
        """Work units of the call."""
        return self.cost


@dataclass(frozen=True)
class Outline:
    """`graph` is the expanded one; operator u of `program` stands for `values[u]`; `parts` are the pieces of nodes.

    Where the batch is shared, `shared` tells whose part of it each node computes, `layers` is the outline of the step
    before it was shared, and a stage has `members` to compute the parts; where a plan's replicas do not share it,
    `not_shared` says why. `state_views` are the values that only look at a state tensor in another way, with its
    number: whoever has the tensor has them, and nothing reads their operators.
    """

    graph: Graph
    state_views: Mapping[Value, int]
    program: Program
    values: tuple[Value, ...]
    parts: NodePieces
    compression: Compression
    steps: int
    shared: SharedBatch | None = None
    layers: Outline | None = None
    members: int = 1
    not_shared: str = ""

    @cached_property
    def units(self) -> dict[Value, int]:
        """The operator that stands for each value."""
        return {value: number for number, value in enumerate(self.values)}

    @cached_property
    def hints(self) -> Hints:
        """What the compression means for who computes what."""
        return hints_of(self.program, self.compression, self.steps)

    @cached_property
    def pieces(self) -> Pieces:
        """The pieces of the program's operators."""
        free = self.hints.families.free - self.hints.mirrored
        split = frozenset(self.units[value] for value in self.parts.split) - free
        return Pieces(self.parts.count if split else 1, split)

    def divide(self, shares: Sequence[float], memory_bytes: Sequence[float]) -> Partition:
        """Who computes what, and how what crosses is sent. Members are in the order of stages, and of replicas within
        each."""
        if self.shared is None or self.layers is None:
            divided = partition(self.program, shares, memory_bytes, self.hints)
        else:
            divided = self._share(self.shared, self.layers, shares, memory_bytes)
        return packed(self.program, self.compression, divided)

    def _share(
        self, shared: SharedBatch, layers: Outline, shares: Sequence[float], memory_bytes: Sequence[float]
    ) -> Partition:
        """Layers are divided among the stages, each stage's batch and parameters among its replicas."""
        members = self.members
        if len(shares) % members:
            raise PlacementError(f"{len(shares)} members cannot be {members} replicas of the same stages")
        stages = [sum(shares[first : first + members]) for first in range(0, len(shares), members)]
        division = Division(layers.program, stages, layers.hints)

        def attempt(bounds: Sequence[float]) -> tuple[Partition, Sequence[Held], Sequence[float]]:
            # Dealt out are whole layers, with the whole batch; held is what each replica has of it.
            divided, dealt = division.within(bounds)
            made = self._among_replicas(shared, layers, divided, len(shares))
            return made, held_by(self.program, made), dealt

        return divide_within(memory_bytes, attempt, len(stages))

    def _among_replicas(self, shared: SharedBatch, layers: Outline, divided: Partition, member_count: int) -> Partition:
        members = self.members

        def place(original: Value, replica: int) -> int | None:
            stage = divided.home.get(layers.units.get(original, -1))
            return None if stage is None else stage * members + replica * members // shared.count

        pinned = {}
        for unit, value in enumerate(self.values):
            replica = shared.replica[value.node]
            home = None if replica is None else place(shared.origin(value), replica)
            if home is not None:
                pinned[unit] = home
        # An error stays with the member whose part of a gradient it is the error of.
        errors = {number: place(origin, replica) or 0 for number, (replica, origin) in shared.errors.items()}
        owner = _owners(self.program, self.hints, divided.owner, members, errors)
        return arrange(self.program, self.hints, owner, pinned, member_count)


def _owners(
    program: Program, hints: Hints, stage_of: Sequence[int], members: int, errors: Mapping[int, int]
) -> list[int]:
    """The member that answers for each state tensor: those of `errors` have theirs. A stage's families go, largest
    first, each to the replica that has the least so far (every replica updates a part of the parameters, and sends it
    to the others)."""
    owner = [errors[n] if n in errors else stage_of[n] * members for n in range(len(program.state))]
    load: dict[int, int] = {}
    size = {family: sum(program.state[number].count for number in family) for family in hints.families.families}
    for family in sorted(hints.families.families, key=lambda family: -size[family]):
        if family[0] in errors:
            continue
        first = stage_of[family[0]] * members
        chosen = min(range(first, first + members), key=lambda member: load.get(member, 0))
        load[chosen] = load.get(chosen, 0) + size[family]
        for number in family:
            owner[number] = chosen
    return owner


def outline(recorded: Graph, microbatches: int, steps: int = 1, replicas: int = 1) -> Outline:
    """The outline of a recorded step whose batches are shared by `replicas` and cut into `microbatches` pieces where
    that can be done.

    A step that declares replicas is shared as it says, by as many members of a stage as have equal parts. `steps` of
    the task tell how often what only the first steps send is sent. A pure function, so every member derives the same.
    Raises PlacementError for a step that ends in a state tensor which no node computed, or that declares replicas it
    does not have.
    """
    if recorded.shared_from is not None:
        made = _shared_outline(*declared_replicas(recorded), microbatches, steps)
        parts = recorded.shared_from.replicas
        if parts % replicas:
            reason = f"{replicas} replicas cannot have as many of the {parts} parts that the task's batch is in"
            return replace(made, members=1, not_shared=reason)
        return _updated_everywhere(replace(made, members=replicas), recorded.shared_from.gradient_bits)
    graph = expand(recorded)
    lowered = lower_nodes(graph)
    not_shared = ""
    if replicas > 1:
        try:
            return _shared_outline(graph, lowered, share_batch(graph, lowered, replicas), microbatches, steps)
        except NotSharedError as error:
            not_shared = str(error)
    whole = _outline(graph, lowered, find_node_pieces(graph, lowered, microbatches), steps)
    return replace(whole, not_shared=not_shared)


def _shared_outline(graph: Graph, lowered: LoweredNodes, shared: SharedBatch, microbatches: int, steps: int) -> Outline:
    found = find_node_pieces(graph, lowered, microbatches, shared.count)
    # A replica's part is cut into pieces as the whole batch would be into more.
    parts = NodePieces(
        found.count,
        frozenset(value for value, original in shared.parts.items() if original in found.aligned),
        frozenset(v for v, original in shared.parts.items() if original in found.split and v not in shared.cut),
    )
    layers = _outline(graph, lowered, WHOLE_BATCH, steps)  # only divided, never computed
    made = _outline(shared.graph, lower_nodes(shared.graph), parts, steps, shared.sent)
    return replace(made, shared=shared, layers=layers, members=shared.count)


def _updated_everywhere(plan: Outline, bits: int) -> Outline:
    """The outline in which every replica of a stage updates its own copy of a parameter whose gradient is exchanged, if
    the messages of all to all are smaller than those to one member and the parameter from there.

    Parameters then never travel. Copies that devices round apart are brought together at every checkpoint (`keeping`).
    """
    shared, members, found = plan.shared, plan.members, plan.compression
    if shared is None or members < 2 or shared.count * bits * (members - 1) >= FULL * members:
        return plan
    operators, entries = plan.program.section(Role.STEP).operators, plan.program.section(Role.STEP).next_state
    codes = {
        (replica, origin): found.codes_of(operators, plan.units[sent])
        for sent in shared.sent
        if (replica := shared.replica[sent.node]) is not None
        for origin in [shared.origin(sent)]
    }
    load = [0] * shared.count
    copies, mirrored = dict(found.copies), set(found.mirrored)
    size = {family: sum(plan.program.state[n].count for n in family) for family in plan.hints.families.families}
    for family in sorted(size, key=lambda family: -size[family]):
        updates = {entry for number in family if (entry := entries[number].operator) is not None}
        made = _made_of_messages(plan, updates, mirrored)
        if len(updates) != len(family) or made is None:
            continue
        chosen = min(range(shared.count), key=lambda replica: load[replica])
        load[chosen] += size[family]
        mirrored |= made[0]
        copies.update(dict.fromkeys(family, codes[chosen, made[1]]))
    return replace(plan, compression=replace(found, copies=copies, mirrored=frozenset(mirrored)))


def _made_of_messages(
    plan: Outline, updates: Collection[int], decoded: Collection[int]
) -> tuple[set[int], Value] | None:
    """What leads from what is `decoded` to a parameter's updates element by element, and what was exchanged. None where
    the update needs anything else that is not computed everywhere, but for single numbers (as clipping does)."""
    operators, shared = plan.program.section(Role.STEP).operators, plan.shared
    assert shared is not None
    elements = max((operators[number].elements for number in updates), default=0)
    found: set[int] = set()
    origin: Value | None = None
    waiting = list(updates)
    while waiting:
        number = waiting.pop()
        if number in found:
            continue
        value = plan.values[number]
        if shared.replica[value.node] is not None:
            return None
        found.add(number)
        for other in operands_of(operators[number], Source.OPERATOR):
            if other in decoded:
                origin = shared.origin(plan.values[other])
            elif other not in plan.hints.families.free and operators[other].elements > 1:
                if operators[other].elements != elements:
                    return None
                waiting.append(other)
    return None if origin is None else (found, origin)


def _outline(
    graph: Graph, lowered: LoweredNodes, parts: NodePieces, steps: int, sent: Collection[Value] = ()
) -> Outline:
    """`sent`: what everybody makes of a message."""
    reach = NodeReach(graph, lowered)
    values = tuple(
        Value(number, output)
        for number, node in enumerate(graph.nodes)
        for output, meta in enumerate(node.outputs)
        if meta is not None
    )
    units = {value: unit for unit, value in enumerate(values)}
    state_views = _state_views(graph)
    operators = tuple(_operator(graph, value, units, reach, state_views) for value in values)
    entries = tuple(_entry(graph, number, units) for number in range(len(graph.state)))
    constants = tuple(constant.values for constant in graph.constants)
    section = Section(Role.STEP, operators, entries)
    program = Program(graph.state, graph.data, constants, (section,), units[graph.loss])
    return Outline(graph, state_views, program, values, parts, _compression(graph, program, units, sent), steps)


def _compression(graph: Graph, program: Program, units: Mapping[Value, int], sent: Collection[Value]) -> Compression:
    reader = GraphReader(graph)
    bits: dict[int, int] = {}
    choices: dict[int, Choice] = {}
    for value, unit in units.items():
        found = reader.code_bits(value) or (SHORT if reader.is_short(value) else FULL)
        if found < FULL:
            bits[unit] = found
        choice = reader.choice(value)
        if choice is not None and isinstance(choice[0], Value) and isinstance(choice[1], Value):
            choices[unit] = Choice(units[choice[0]], units[choice[1]], choice[2])
    return complete(program, bits, choices, [units[value] for value in sent])


def _state_views(graph: Graph) -> dict[Value, int]:
    found: dict[Value, int] = {}
    for number, node in enumerate(graph.nodes):
        source = node.arguments[0] if node.arguments and node.call in VIEWS else None
        if isinstance(source, StateInput):
            found[Value(number)] = source.index
        elif isinstance(source, Value) and source in found:
            found[Value(number)] = found[source]
    return found


def _operator(
    graph: Graph, value: Value, units: dict[Value, int], reach: NodeReach, state_views: Mapping[Value, int]
) -> OutlineOperator:
    node, meta = graph.nodes[value.node], graph.meta(value)
    operands: dict[Operand, None] = {}

    for read in inputs_of(node):
        if isinstance(read, Value) and read in state_views:
            read = StateInput(state_views[read])
        if isinstance(read, Value):
            operands[Operand(Source.OPERATOR, units[read], graph.meta(read).count, (0,) * len(meta.shape))] = None
        else:
            source, count = _SOURCES[type(read)], graph.meta(read).count
            operands[Operand(source, read.index, count, (0,) * len(meta.shape))] = None
    # A parameter and its moments are found by following bodies that are no folds from one to the other.
    body = Body.COPY if node.call in UPDATES else Body.FOLD_ADD
    kind = ElementType.FLOAT if meta.type == "float32" else ElementType.INT
    return OutlineOperator(body, kind, meta.shape, tuple(operands), cost=reach.work(value))


def _entry(graph: Graph, number: int, units: dict[Value, int]) -> StateEntry:
    following = graph.next_state[number]
    if isinstance(following, Value):
        return StateEntry(units[following])
    if following == StateInput(number):
        return StateEntry(None)
    descriptor: TensorDescriptor = graph.state[number]
    raise PlacementError(
        f"the step takes {descriptor.name!r} over from another tensor, which a group's native kernels do not do"
    )
