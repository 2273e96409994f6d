"""Loop nests and groups of them: what a plan hands to a back end's code generator.

The output of every operator of a group is cut into the same number of *rows* (of equal length, row-major); what one
operator reads of another lies in the same row. See `assay.engine.grouping` for how groups are formed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from itertools import pairwise
from math import prod

from assay.program.operator import BODY_RULES, Body, ElementType, Guard, Operand, Operator, Source, row_major_strides

MEMORYLESS = (Source.IMMEDIATE, Source.STEP, Source.INDEX)
"""Sources that read no tensor."""


class Location(Enum):
    """Where a value lives between the member that makes it and those that read it."""

    REGISTER = 0  # read only by the same loop
    SCRATCH = 1  # a block of rows in the worker's scratch memory
    BUFFER = 2  # a whole tensor in memory


@dataclass(frozen=True)
class Dim:
    """One loop, possibly several of the operator's collapsed into one."""

    extent: int
    last: int  # the operator's loop whose strides it takes


@dataclass(frozen=True)
class Reading:
    """An operand in its place: an index map, and how it meets the group."""

    source: Source
    index: int
    fill: int
    offset: int
    stride: tuple[int, ...]
    guards: tuple[Guard, ...]
    dtype: ElementType
    rows_flat: bool  # whether the row dimensions act as one flat row number
    in_register: bool  # whether it is what the same loop has just computed at the same place

    @property
    def has_memory(self) -> bool:
        return self.source not in MEMORYLESS


@dataclass(frozen=True)
class Nest:
    """One operator of a group, its loops split so that the first `rows` dimensions are the group's rows."""

    index: int
    operator: Operator
    row_extents: tuple[int, ...]
    readings: tuple[Reading, ...]
    inner: tuple[Dim, ...]  # output dimensions that are not rows
    fold: tuple[Dim, ...]
    location: Location
    row_elements: int

    @cached_property
    def output_strides(self) -> tuple[int, ...]:
        """Strides of the output over all loops (0 over the reduced ones)."""
        return row_major_strides(self.operator.extents) + (0,) * len(self.operator.reduced)


@dataclass(frozen=True)
class Member:
    """Nests that share one loop: several maps over one box, or one fold."""

    is_fold: bool
    nests: tuple[Nest, ...]


@dataclass(frozen=True)
class LoopGroup:
    """Operators that one kernel computes, in the order of `members`."""

    rows: int
    members: tuple[Member, ...]
    block_rows: int
    task_rows: int

    @cached_property
    def nests(self) -> tuple[Nest, ...]:
        return tuple(nest for member in self.members for nest in member.nests)

    @cached_property
    def members_of(self) -> frozenset[int]:
        """Numbers of the operators in the group."""
        return frozenset(nest.index for nest in self.nests)


def is_fold(operator: Operator) -> bool:
    return BODY_RULES[operator.body].fold


def chains(extents: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether dimensions with these strides act as one: each stride is the next one's times its extent."""
    seen = [(extent, stride) for extent, stride in zip(extents, strides, strict=True) if extent > 1]
    return all(outer[1] == inner[1] * inner[0] for outer, inner in pairwise(seen))


def index_maps(operand: Operand) -> list[tuple[int, ...]]:
    """All stride vectors of an operand: its own and its guards'."""
    return [operand.stride, *(guard.stride for guard in operand.guards)]


def collapse(extents: Sequence[int], first: int, maps: Sequence[Sequence[int]]) -> tuple[Dim, ...]:
    """Loops first, first + 1, ... of these extents with neighbours merged where every stride vector in `maps` allows
    it, and loops of one turn dropped."""
    dims: list[Dim] = []
    for place, extent in enumerate(extents):
        if extent == 1:
            continue
        loop = first + place
        if dims and all(strides[dims[-1].last] == strides[loop] * extent for strides in maps):
            dims[-1] = Dim(dims[-1].extent * extent, loop)
        else:
            dims.append(Dim(extent, loop))
    return tuple(dims)


@dataclass(frozen=True)
class Rowed:
    """An operator whose first `dims` dimensions make up a given number of rows."""

    operator: Operator
    dims: int

    @property
    def row_extents(self) -> tuple[int, ...]:
        return self.operator.extents[: self.dims]

    @property
    def inner_extents(self) -> tuple[int, ...]:
        return self.operator.extents[self.dims :]

    @property
    def row_elements(self) -> int:
        return prod(self.inner_extents)


def in_rows(operator: Operator, rows: int) -> Rowed | None:
    """The operator with its output cut into `rows` rows, a dimension split in two if need be; None if it cannot be."""
    product = 1
    for place, extent in enumerate(operator.extents):
        if product == rows and extent > 1:
            return Rowed(operator, place)
        if product * extent > rows:
            if rows % product or extent % (rows // product):
                return None
            return Rowed(_split(operator, place, rows // product), place + 1)
        product *= extent
    return Rowed(operator, len(operator.extents)) if product == rows else None


def _split(operator: Operator, place: int, first: int) -> Operator:
    """Output dimension `place` as two: `first` times what is left."""
    second = operator.extents[place] // first

    def strides(old: tuple[int, ...]) -> tuple[int, ...]:
        return (*old[:place], old[place] * second, old[place], *old[place + 1 :])

    operands = tuple(
        replace(
            operand,
            stride=strides(operand.stride),
            guards=tuple(replace(guard, stride=strides(guard.stride)) for guard in operand.guards),
        )
        for operand in operator.operands
    )
    extents = (*operator.extents[:place], first, second, *operator.extents[place + 1 :])
    return replace(operator, extents=extents, operands=operands)


def stays_in_row(operand: Operand, consumer: Rowed, row_elements: int) -> bool:
    """Whether the consumer, in row r, reads only row r of a producer whose rows have so many elements."""
    step = row_elements
    dims, extents = consumer.dims, consumer.operator.dimensions
    for place in range(dims - 1, -1, -1):
        if extents[place] > 1 and operand.stride[place] != step:
            return False
        if any(guard.multiplier and guard.stride[place] and extents[place] > 1 for guard in operand.guards):
            return False
        step *= extents[place]
    low = high = operand.offset
    for extent, stride in zip(extents[dims:], operand.stride[dims:], strict=True):
        low += min(0, stride * (extent - 1))
        high += max(0, stride * (extent - 1))
    for guard in operand.guards:
        low += min(0, guard.multiplier * (guard.bound - 1))
        high += max(0, guard.multiplier * (guard.bound - 1))
    return low >= 0 and high < row_elements


def reads_same_place(operand: Operand, consumer: Rowed, producer: Rowed) -> bool:
    """Whether the consumer, a map, reads of the producer exactly the element that it computes itself."""
    if consumer.operator.body == Body.GATHER and operand == consumer.operator.operands[0]:
        return False  # read where an index says
    if operand.guards or operand.offset or producer.inner_extents != consumer.inner_extents:
        return False
    if consumer.operator.reduced or not stays_in_row(operand, consumer, producer.row_elements):
        return False
    strides = row_major_strides(producer.inner_extents)
    return all(
        extent == 1 or mine == its
        for extent, mine, its in zip(consumer.inner_extents, operand.stride[consumer.dims :], strides, strict=True)
    )
