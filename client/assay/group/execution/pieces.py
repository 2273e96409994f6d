"""Which operators can be computed a few samples at a time, so that stages work on different samples at once.

An operator is **split** when each piece of its output (an equal part of the row-major elements) reads only the same
piece of what is split itself: layers, whose first dimension is the batch. What folds over the batch (weight gradients,
batch norm) is not, and waits for all pieces. Every element is computed by the same scalar operations in the same order
as ever, so splitting changes no bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from math import gcd

from assay.program.operator import Body, Operand, Operator, Program, Role, Source
from assay.program.validate import position_interval


@dataclass(frozen=True)
class Pieces:
    """`count` pieces of every operator in `split`; the pieces of an element range are numbered in order."""

    count: int
    split: frozenset[int]


WHOLE_BATCH = Pieces(1, frozenset())
"""Nothing is split."""


def find_pieces(program: Program, free: AbstractSet[int], wanted: int) -> Pieces:
    """Split as many operators as possible into `wanted` pieces, or the largest number below that divides the batch.

    The `free` ones are computed at once, before the first piece.
    """
    operators = program.section(Role.STEP).operators
    count = wanted
    for operator in operators:
        if operator.body == Body.PERMUTE:
            count = gcd(count, operator.p0) if operator.p0 % count else count
    if count == 1:
        return WHOLE_BATCH
    by_sample: set[int] = set()  # those whose pieces hold different samples
    for number, operator in enumerate(operators):
        if is_order(operator) or splits(operator, by_sample, count):
            by_sample.add(number)
    return Pieces(count, frozenset(by_sample - free))


def is_order(operator: Operator) -> bool:
    """Whether an operator draws the samples of a step's batch."""
    return operator.body == Body.PERMUTE and operator.elements == operator.p0


def splits(operator: Operator, by_sample: AbstractSet[int], count: int) -> bool:
    """Whether each of `count` pieces of an operator reads only the same piece of the operators in `by_sample`, and it
    reads any of them."""
    if not operator.extents or operator.extents[0] % count or operator.body == Body.UNIFORM:
        return False
    parts = [piece_of(operator, piece, count) for piece in range(count)]
    places = [
        place
        for place, operand in enumerate(operator.operands)
        if operand.source == Source.OPERATOR and operand.index in by_sample
    ]
    return bool(places) and all(reads_same_piece(parts, place) for place in places)


def reads_same_piece(parts: Sequence[Operator], place: int) -> bool:
    """Whether each of an operator's parts reads, as operand `place`, only the piece of the same number."""
    for piece, part in enumerate(parts):
        operand = part.operands[place]
        size = operand.count // len(parts)
        low, high = position_interval(part, operand, part.body == Body.GATHER and place == 0)
        if low < piece * size or high >= (piece + 1) * size:
            return False
    return True


def piece_of(operator: Operator, piece: int, count: int, place: int = 0) -> Operator:
    """The operator restricted to a piece of a dimension, the first unless told otherwise; positions it reads are those
    in the whole tensors."""
    dimensions, outer = list(operator.dimensions), len(operator.extents)
    dimensions[place] //= count
    start = piece * dimensions[place]
    operands = tuple(_shifted(operand, place, start) for operand in operator.operands)
    return replace(operator, extents=tuple(dimensions[:outer]), reduced=tuple(dimensions[outer:]), operands=operands)


def _shifted(operand: Operand, place: int, start: int) -> Operand:
    """The operand as the loop that begins at `start` of a dimension sees it."""
    guards = tuple(replace(guard, offset=guard.offset + guard.stride[place] * start) for guard in operand.guards)
    return replace(operand, offset=operand.offset + operand.stride[place] * start, guards=guards)
