"""Which operators one loop kernel computes together.

Operators are taken in program order. One joins the group of a producer when both can share row dimensions (see
`assay.engine.nest`) and no path through other groups would make a cycle. Groups change which intermediate tensors are
written to memory, never a result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import prod

from assay.engine.nest import (
    Dim,
    Location,
    LoopGroup,
    Member,
    Nest,
    Reading,
    chains,
    collapse,
    index_maps,
    is_fold,
    reads_same_place,
    stays_in_row,
)
from assay.program.operator import ElementType, Operand, Operator, Source, row_major_strides

GROUP_LIMIT = 48  # operators; keeps a kernel's compile time and registers in bounds
SCRATCH_LIMIT = 1 << 18  # bytes of one value a worker; larger ones go to memory
SMALL_TASK = 1 << 14  # element evaluations below which a kernel is one task
TASKS = 16


@dataclass
class Cluster:
    """A group in the making: its operators, the numbers of row dimensions that still suit all of them, and which
    clusters must run before it (a set of bits, transitively closed)."""

    number: int
    operators: list[int]
    rows: int  # bit p: p row dimensions are possible
    before: int
    fusable: bool


def dependencies(operator: Operator) -> list[Operand]:
    return [operand for operand in operator.operands if operand.source == Source.OPERATOR]


def possible_rows(operator: Operator) -> int:
    """Bit p set: the first p output dimensions can be the rows."""
    return (1 << (len(operator.extents) + 1)) - 1


def _shared_rows(consumer: Operator, producer: Operator, operands: Iterable[Operand]) -> int:
    """Numbers of row dimensions for which the consumer stays in its row of the producer."""
    bits = 0
    for rows in range(min(len(consumer.extents), len(producer.extents)) + 1):
        if all(stays_in_row(operand, consumer, producer, rows) for operand in operands):
            bits |= 1 << rows
    return bits


class Grouping:
    """Clusters of a section's operators."""

    def __init__(self, operators: Sequence[Operator], fusable: Collection[int]) -> None:
        self.operators = operators
        self.fusable = set(fusable)
        self.clusters: dict[int, Cluster] = {}
        self.cluster_of: dict[int, int] = {}
        for index in range(len(operators)):
            self._add(index)

    def _useful(self, rows: int, operator: Operator) -> bool:
        """Rows worth sharing: not the trivial single row, unless everything is small."""
        if rows & ~1:
            return True
        return bool(rows & 1) and operator.elements * operator.terms <= 256

    def _add(self, index: int) -> None:
        operator = self.operators[index]
        producers = {self.cluster_of[operand.index] for operand in dependencies(operator)}
        before = 0
        for number in producers:
            before |= self.clusters[number].before | (1 << number)
        own = Cluster(index, [index], possible_rows(operator), before, index in self.fusable)
        self.clusters[index] = own
        self.cluster_of[index] = index
        if not own.fusable:
            return
        for number in sorted(producers, reverse=True):
            current = self.clusters[self.cluster_of[index]]
            other = self.clusters.get(number)
            if other is not None and other is not current:
                self._try_merge(other, current)

    def _try_merge(self, first: Cluster, second: Cluster) -> None:
        """Merge `second` (which may depend on `first`) into `first`, if that is sound and useful."""
        if not (first.fusable and second.fusable) or len(first.operators) + len(second.operators) > GROUP_LIMIT:
            return
        rows = first.rows & second.rows
        members = set(first.operators)
        for consumer_index in second.operators:
            consumer = self.operators[consumer_index]
            inside: dict[int, list[Operand]] = {}
            for operand in dependencies(consumer):
                if operand.index in members:
                    inside.setdefault(operand.index, []).append(operand)
            for producer_index, operands in inside.items():
                rows &= _shared_rows(consumer, self.operators[producer_index], operands)
        # All members must agree on the extents of the shared rows.
        model, other = self.operators[first.operators[0]], self.operators[second.operators[0]]
        for count in range(rows.bit_length()):
            if rows >> count & 1 and model.extents[:count] != other.extents[:count]:
                rows &= ~(1 << count)
        if not self._useful(rows, other) or not self._keeps_parallel(rows, first, second):
            return
        # INVARIANT: no path from one to the other leads through a third cluster.
        if self._path_outside(first, second) or self._path_outside(second, first):
            return
        self._merge(first, second, rows)

    def _keeps_parallel(self, rows: int, first: Cluster, second: Cluster) -> bool:
        """Do not tie a large operator to few rows for the sake of a small one."""
        heaviest = max(
            (self.operators[i] for i in (*first.operators, *second.operators)), key=lambda op: op.elements * op.terms
        )
        if heaviest.elements * heaviest.terms <= SMALL_TASK:
            return True
        best = max(
            (prod(heaviest.extents[:count]) for count in range(rows.bit_length()) if rows >> count & 1), default=1
        )
        return best >= min(8, heaviest.elements)

    def _path_outside(self, start: Cluster, end: Cluster) -> bool:
        for index in end.operators:
            for operand in dependencies(self.operators[index]):
                number = self.cluster_of[operand.index]
                if number not in (start.number, end.number) and self.clusters[number].before >> start.number & 1:
                    return True
        return False

    def _merge(self, first: Cluster, second: Cluster, rows: int) -> None:
        first.operators = sorted(first.operators + second.operators)
        first.rows = rows
        gained = (first.before | second.before) & ~(1 << first.number) & ~(1 << second.number)
        first.before = gained
        for index in second.operators:
            self.cluster_of[index] = first.number
        del self.clusters[second.number]
        for cluster in self.clusters.values():
            if cluster is not first and cluster.before & (1 << second.number | 1 << first.number):
                cluster.before = (cluster.before & ~(1 << second.number)) | (1 << first.number) | gained

    def ordered(self) -> list[Cluster]:
        """Clusters in an order in which they can run."""
        waiting = dict(self.clusters)
        done = 0
        order: list[Cluster] = []
        while waiting:
            ready = [cluster for cluster in waiting.values() if not cluster.before & ~done]
            if not ready:
                raise AssertionError("clusters of operators wait for each other")
            # Those whose last operator comes first: close to program order, so values die early.
            cluster = min(ready, key=lambda each: each.operators[-1])
            order.append(cluster)
            del waiting[cluster.number]
            done |= 1 << cluster.number
        return order


# -- from a cluster to a loop group -------------------------------------------------------------------------------


def _stages(operators: Sequence[Operator], members: list[int]) -> dict[int, int]:
    inside = set(members)
    stage: dict[int, int] = {}
    for index in members:
        operator = operators[index]
        level = 0
        for operand in dependencies(operator):
            if operand.index in inside:
                producer = operators[operand.index]
                same = not is_fold(operator) and not is_fold(producer) and reads_same_place(operand, operator, producer)
                level = max(level, stage[operand.index] + (0 if same else 1))
        stage[index] = level
    return stage


def _in_register(operators: Sequence[Operator], stage: dict[int, int], consumer: int, operand: Operand) -> bool:
    # Stages are equal only for maps that read the same place.
    return operand.source == Source.OPERATOR and stage.get(operand.index) == stage[consumer]


def _choose_rows(operators: Sequence[Operator], members: list[int], rows: int, lanes: int) -> int:
    """The number of row dimensions, among those possible, that gives long inner loops and enough rows."""

    def quality(count: int) -> tuple[int, int, int]:
        shortest = 1 << 30
        for index in members:
            operator = operators[index]
            maps = [m for operand in operator.operands for m in index_maps(operand)]
            inner = collapse(operator.extents[count:], count, [*maps, _output(operator)])
            if inner:
                length = inner[-1].extent
            else:
                flat = all(chains(operator.extents[:count], m[:count]) for m in maps)
                length = prod(operator.extents[:count]) if flat else 1
            shortest = min(shortest, length)
        number = prod(operators[members[0]].extents[:count])
        return (min(shortest, 4 * lanes), min(number, 32), count)

    return max((count for count in range(rows.bit_length()) if rows >> count & 1), key=quality)


def _output(operator: Operator) -> tuple[int, ...]:
    return row_major_strides(operator.extents) + (0,) * len(operator.reduced)


def build_group(
    operators: Sequence[Operator],
    cluster: Cluster,
    keep: Collection[int],
    dtype_of: dict[tuple[Source, int], ElementType],
    lanes: int,
) -> LoopGroup:
    """The loop group of a cluster. `keep` are operators whose output must be a whole tensor in memory."""
    members = cluster.operators
    rows = _choose_rows(operators, members, cluster.rows, lanes)
    stage = _stages(operators, members)
    row_extents = operators[members[0]].extents[:rows]
    boxes: dict[tuple[int, bool, tuple[int, ...]], list[int]] = {}
    for index in members:
        operator = operators[index]
        fold = is_fold(operator)
        box = (stage[index], fold, (*operator.extents, index) if fold else operator.extents)
        boxes.setdefault(box, []).append(index)

    row_loops = False
    only_row_maps = True
    inner_of: dict[int, tuple[Dim, ...]] = {}
    for numbers in boxes.values():
        maps = [m for i in numbers for operand in operators[i].operands for m in index_maps(operand)]
        first = operators[numbers[0]]
        inner = collapse(first.extents[rows:], rows, [*maps, _output(first)])
        row_loops |= not inner
        only_row_maps &= not inner and not is_fold(first)
        for i in numbers:
            inner_of[i] = inner
    widest = max(prod(operators[i].extents[rows:]) for i in members)
    if only_row_maps:
        block_rows = 64 * lanes
    elif row_loops and widest == 1:
        block_rows = 4 * lanes
    elif row_loops:
        block_rows = lanes
    else:
        block_rows = max(1, min(lanes, 4096 // widest))

    used_outside_stage: set[int] = set()
    for index in members:
        for operand in dependencies(operators[index]):
            if operand.index in stage and stage[operand.index] != stage[index]:
                used_outside_stage.add(operand.index)

    def location(index: int) -> Location:
        if index in keep:
            return Location.BUFFER
        if index not in used_outside_stage:
            return Location.REGISTER
        elements = block_rows * prod(operators[index].extents[rows:])
        return Location.SCRATCH if 4 * elements <= SCRATCH_LIMIT else Location.BUFFER

    def nest(index: int) -> Nest:
        operator = operators[index]
        readings = []
        for operand in operator.operands:
            maps = index_maps(operand)
            kind = dtype_of.get((operand.source, operand.index), ElementType.INT)
            readings.append(
                Reading(
                    operand.source,
                    operand.index,
                    operand.fill,
                    operand.offset,
                    operand.stride,
                    operand.guards,
                    kind,
                    all(chains(row_extents, m[:rows]) for m in maps),
                    _in_register(operators, stage, index, operand),
                )
            )
        fold_maps = [m for operand in operator.operands for m in index_maps(operand)]
        fold = collapse(operator.reduced, len(operator.extents), fold_maps)
        return Nest(
            index, operator, tuple(readings), inner_of[index], fold, location(index), prod(operator.extents[rows:])
        )

    ordered = sorted(boxes.items(), key=lambda item: (item[0][0], item[1][0]))
    built = tuple(Member(box[1], tuple(nest(i) for i in numbers)) for box, numbers in ordered)
    total_rows = prod(row_extents)
    effort = sum(operators[i].elements * operators[i].terms for i in members)
    tasks = 1 if effort < SMALL_TASK else TASKS
    blocks = -(-total_rows // block_rows)
    return LoopGroup(row_extents, built, block_rows, -(-blocks // tasks) * block_rows)
