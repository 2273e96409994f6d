"""Which operators one loop kernel computes together.

Operators are taken in program order. One joins the group of a producer when the outputs of both can be cut into the
same rows (see `assay.engine.nest`) and no path through other groups would make a cycle. Groups change which
intermediate tensors are written to memory, never a result.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from assay.engine.nest import (
    Dim,
    Location,
    LoopGroup,
    Member,
    Nest,
    Reading,
    Rowed,
    chains,
    collapse,
    in_rows,
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
MANY_ROWS = 32

Rows = frozenset[int]


@dataclass
class Cluster:
    """A group in the making: its operators, the numbers of rows that still suit all of them, and which clusters must
    run before it (a set of bits, transitively closed)."""

    number: int
    operators: list[int]
    rows: Rows
    before: int
    fusable: bool


def dependencies(operator: Operator) -> list[Operand]:
    return [operand for operand in operator.operands if operand.source == Source.OPERATOR]


class Grouping:
    """Clusters of a section's operators."""

    def __init__(self, operators: Sequence[Operator], fusable: Collection[int]) -> None:
        self.operators = operators
        self.fusable = set(fusable)
        self.clusters: dict[int, Cluster] = {}
        self.cluster_of: dict[int, int] = {}
        self.rowed = cache(lambda index, rows: in_rows(operators[index], rows))
        self._interesting = {1}
        for operator in operators:
            product = 1
            for extent in operator.extents:
                product *= extent
                self._interesting.add(product)
        for index in range(len(operators)):
            self._add(index)

    def _possible_rows(self, index: int) -> Rows:
        elements = self.operators[index].elements
        return frozenset(
            rows for rows in self._interesting if elements % rows == 0 and self.rowed(index, rows) is not None
        )

    def _add(self, index: int) -> None:
        operator = self.operators[index]
        producers = {self.cluster_of[operand.index] for operand in dependencies(operator)}
        before = 0
        for number in producers:
            before |= self.clusters[number].before | (1 << number)
        fusable = index in self.fusable
        rows = self._possible_rows(index) if fusable else frozenset()
        own = Cluster(index, [index], rows, before, fusable)
        self.clusters[index] = own
        self.cluster_of[index] = index
        if not fusable:
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
        rows = self._useful(first.rows & second.rows, first, second)
        if not rows:
            return
        members = set(first.operators)
        for consumer in second.operators:
            for operand in dependencies(self.operators[consumer]):
                if operand.index in members:
                    rows = frozenset(count for count in rows if self._stays(operand, consumer, count))
        # INVARIANT: no path from one to the other leads through a third cluster.
        if not rows or self._path_outside(first, second) or self._path_outside(second, first):
            return
        self._merge(first, second, rows)

    def _stays(self, operand: Operand, consumer: int, rows: int) -> bool:
        reader = self.rowed(consumer, rows)
        place = self.operators[consumer].operands.index(operand)
        if reader is None:
            return False
        return stays_in_row(reader.operator.operands[place], reader, self.operators[operand.index].elements // rows)

    def _useful(self, rows: Rows, first: Cluster, second: Cluster) -> Rows:
        """Numbers of rows that do not tie a large operator to few rows for the sake of a small one."""
        heaviest = max(
            (self.operators[i] for i in (*first.operators, *second.operators)), key=lambda op: op.elements * op.terms
        )
        if heaviest.elements * heaviest.terms <= SMALL_TASK:
            return rows
        return frozenset(count for count in rows if count >= min(8, heaviest.elements))

    def _path_outside(self, start: Cluster, end: Cluster) -> bool:
        for index in end.operators:
            for operand in dependencies(self.operators[index]):
                number = self.cluster_of[operand.index]
                if number not in (start.number, end.number) and self.clusters[number].before >> start.number & 1:
                    return True
        return False

    def _merge(self, first: Cluster, second: Cluster, rows: Rows) -> None:
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


def _maps(operators: Iterable[Operator]) -> list[tuple[int, ...]]:
    return [m for operator in operators for operand in operator.operands for m in index_maps(operand)]


def _output(operator: Operator) -> tuple[int, ...]:
    return row_major_strides(operator.extents) + (0,) * len(operator.reduced)


def _stages(members: dict[int, Rowed]) -> dict[int, int]:
    """Loops that must follow each other: maps of one stage may share a loop, and then pass values in registers."""
    stage: dict[int, int] = {}
    for index, rowed in members.items():
        level = 0
        for operand in dependencies(rowed.operator):
            producer = members.get(operand.index)
            if producer is None:
                continue
            folds = is_fold(rowed.operator) or is_fold(producer.operator)
            same = not folds and reads_same_place(operand, rowed, producer)
            level = max(level, stage[operand.index] + (0 if same else 1))
        stage[index] = level
    return stage


def _choose_rows(operators: Sequence[Operator], cluster: Cluster, lanes: int) -> int:
    """The number of rows, among those possible, that gives long inner loops and enough rows."""

    def quality(rows: int) -> tuple[int, int, int]:
        shortest = 1 << 30
        for index in cluster.operators:
            rowed = in_rows(operators[index], rows)
            assert rowed is not None
            maps = _maps([rowed.operator])
            inner = collapse(rowed.inner_extents, rowed.dims, [*maps, _output(rowed.operator)])
            if inner:
                length = inner[-1].extent
            else:
                length = rows if all(chains(rowed.row_extents, m[: rowed.dims]) for m in maps) else 1
            shortest = min(shortest, length)
        return (min(shortest, 4 * lanes), min(rows, MANY_ROWS), rows)

    return max(cluster.rows, key=quality)


def build_group(
    operators: Sequence[Operator],
    cluster: Cluster,
    keep: Collection[int],
    types: dict[tuple[Source, int], ElementType],
    lanes: int,
) -> LoopGroup:
    """The loop group of a cluster. `keep` are operators whose output must be a whole tensor in memory."""
    rows = _choose_rows(operators, cluster, lanes)
    members: dict[int, Rowed] = {}
    for index in cluster.operators:
        rowed = in_rows(operators[index], rows)
        assert rowed is not None
        members[index] = rowed
    stage = _stages(members)
    boxes: dict[tuple[int, bool, tuple[int, ...]], list[int]] = {}
    for index, rowed in members.items():
        fold = is_fold(rowed.operator)
        box = (stage[index], fold, (*rowed.inner_extents, index) if fold else rowed.inner_extents)
        boxes.setdefault(box, []).append(index)

    row_loops, only_row_maps = False, True
    inner_of: dict[int, tuple[Dim, ...]] = {}
    for numbers in boxes.values():
        # A map's loops are shared by all maps of its box: they collapse only where all of them allow it.
        shared = [
            (members[i].dims, m) for i in numbers for m in (*_maps([members[i].operator]), _output(members[i].operator))
        ]
        extents = members[numbers[0]].inner_extents
        aligned = [strides[dims : dims + len(extents)] for dims, strides in shared]
        inner = collapse(extents, 0, aligned)
        row_loops |= not inner
        only_row_maps &= not inner and not is_fold(members[numbers[0]].operator)
        for i in numbers:
            inner_of[i] = tuple(Dim(dim.extent, dim.last + members[i].dims) for dim in inner)
    widest = max(rowed.row_elements for rowed in members.values())
    if only_row_maps:
        block_rows = 64 * lanes
    elif row_loops and widest == 1:
        block_rows = 4 * lanes
    elif row_loops:
        block_rows = lanes
    else:
        block_rows = max(1, min(lanes, 4096 // widest))

    crosses_stages = {
        operand.index
        for index, rowed in members.items()
        for operand in dependencies(rowed.operator)
        if operand.index in stage and stage[operand.index] != stage[index]
    }

    def location(index: int) -> Location:
        if index in keep:
            return Location.BUFFER
        if index not in crosses_stages:
            return Location.REGISTER
        fits = 4 * block_rows * members[index].row_elements <= SCRATCH_LIMIT
        return Location.SCRATCH if fits else Location.BUFFER

    def nest(index: int) -> Nest:
        rowed = members[index]
        operator = rowed.operator
        readings = tuple(
            Reading(
                operand.source,
                operand.index,
                operand.fill,
                operand.offset,
                operand.stride,
                operand.guards,
                types.get((operand.source, operand.index), ElementType.INT),
                all(chains(rowed.row_extents, m[: rowed.dims]) for m in index_maps(operand)),
                # Stages are equal only for maps that read the same place.
                operand.source == Source.OPERATOR and stage.get(operand.index) == stage[index],
            )
            for operand in operator.operands
        )
        fold = collapse(operator.reduced, len(operator.extents), _maps([operator]))
        return Nest(
            index, operator, rowed.row_extents, readings, inner_of[index], fold, location(index), rowed.row_elements
        )

    ordered = sorted(boxes.items(), key=lambda item: (item[0][0], item[1][0]))
    built = tuple(Member(box[1], tuple(nest(i) for i in numbers)) for box, numbers in ordered)
    effort = sum(operators[i].elements * operators[i].terms for i in cluster.operators)
    tasks = 1 if effort < SMALL_TASK else TASKS
    blocks = -(-rows // block_rows)
    return LoopGroup(rows, built, block_rows, -(-blocks // tasks) * block_rows)
