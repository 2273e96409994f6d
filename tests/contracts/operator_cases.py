"""Random well-formed operators with tensors to read, for differential tests of the operators library.

The expected values come from `assay.program.reference`, the specification made executable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from assay.program.encoding import decode_operator, encode_operator
from assay.program.errors import ProgramError
from assay.program.operator import (
    BODY_RULES,
    Body,
    ElementType,
    Guard,
    Operand,
    Operator,
    Role,
    Source,
    TensorDescriptor,
)
from assay.program.reference import StepContext, evaluate_element, partial_sums
from assay.program.validate import _Context as OperatorContext
from assay.program.validate import affine_interval, position_interval, validate_operator
from binary32_cases import SPECIAL, Patterns, pack

Generator = np.random.Generator

OPENED = (Source.STATE, Source.OPERATOR, Source.DATA, Source.CONSTANT)


@dataclass(frozen=True)
class Case:
    """An operator, and for each operand the words of the tensor it reads (empty where nothing is opened)."""

    operator: Operator
    tensors: tuple[Patterns, ...]
    context: StepContext

    def _read(self, source: Source, index: int, position: int) -> int:
        # Every opened operand has its own number as tensor index: see `random_case`.
        return int(self.tensors[index][position])

    def output(self) -> list[int]:
        """All words of the operator's output, by the reference."""
        return [evaluate_element(self.operator, i, self._read, self.context) for i in range(self.operator.elements)]

    def partial_sums(self, element: int) -> list[int]:
        """The accumulators of one element, by the reference."""
        return list(partial_sums(self.operator, element, self._read, self.context))

    def packed(self) -> list[bytes]:
        """The tensors as the harness reads them."""
        return [pack(tensor) for tensor in self.tensors]


def random_case(generator: Generator, body: Body) -> Case:
    """A well-formed operator with this body; opened operand i reads tensor number i."""
    rule = BODY_RULES[body]
    extents = tuple(int(n) for n in generator.integers(1, 4, generator.integers(0, 4)))
    reduced = tuple(int(n) for n in generator.integers(1, 5, generator.integers(1, 4))) if rule.fold else ()
    kind = {"f": ElementType.FLOAT, "i": ElementType.INT, "t": ElementType(int(generator.integers(0, 2)))}[rule.output]
    p0, p1 = 0, 0
    if body == Body.GATHER:
        p0, p1 = int(generator.integers(0, 4)), int(generator.integers(1, 6))
    elif body == Body.PERMUTE:
        p0, p1 = int(generator.integers(1, 100)), int(generator.integers(1, 2 ** int(generator.integers(1, 31))))
    elif body == Body.UNIFORM:
        p0 = int(generator.integers(0, 2**32))
    operator = Operator(body, kind, extents, (), reduced, p0, p1)
    operands, tensors = [], []
    for number, letter in enumerate(rule.operands):
        wanted = {"f": ElementType.FLOAT, "i": ElementType.INT, "t": kind}.get(letter)
        if wanted is None:
            wanted = ElementType(int(generator.integers(0, 2)))
        operand = _random_operand(generator, operator, number, wanted)
        operands.append(operand)
        # Few different integers, so that comparisons meet and gathers hit; anything at all where they are arithmetic.
        small = body in (Body.GATHER, Body.FOLD_ADD_IF, Body.SELECT) or generator.integers(0, 4) == 0
        tensors.append(_random_words(generator, operand.count, wanted, small))
    step = int(generator.integers(0, 100000))
    if body == Body.PERMUTE:
        step = int(generator.integers(0, 2**31))
    seed = int(generator.integers(0, 2**64, dtype=np.uint64))
    return Case(replace(operator, operands=tuple(operands)), tuple(tensors), StepContext(seed, step))


def _random_operand(generator: Generator, operator: Operator, number: int, kind: ElementType) -> Operand:
    dimensions = len(operator.dimensions)
    fill = int(generator.choice(SPECIAL))
    choice = generator.integers(0, 8)
    if choice == 0:
        return Operand(Source.IMMEDIATE, int(generator.choice(SPECIAL)), 0, (0,) * dimensions)
    guards = tuple(_random_guard(generator, dimensions) for _ in range(generator.integers(0, 4)))
    if choice == 1 and kind == ElementType.INT:
        return Operand(Source.STEP, 0, 0, (0,) * dimensions, 0, fill, guards)
    stride = tuple(int(n) for n in generator.integers(-3, 7, dimensions))
    gathers = operator.body == Body.GATHER and number == 0
    if choice == 2 and kind == ElementType.INT:
        return Operand(Source.INDEX, 0, 0, stride, int(generator.integers(-1000, 1000)), fill, guards)
    operand = Operand(OPENED[int(generator.integers(0, len(OPENED)))], number, 0, stride, 0, fill, guards)
    low, high = position_interval(operator, operand, gathers)
    slack = int(generator.integers(0, 3))
    return replace(operand, offset=slack - low, count=high - low + 1 + slack + int(generator.integers(0, 3)))


def _random_guard(generator: Generator, dimensions: int) -> Guard:
    stride = tuple(int(n) for n in generator.integers(-2, 4, dimensions))
    divisor = int(generator.choice([1, 1, 2, 3]))
    offset = int(generator.integers(-3, 4))
    _, high = affine_interval(offset, stride, (3,) * dimensions)
    bound = max(1, int(generator.integers(1, max(2, high // divisor + 2))))
    return Guard(offset, stride, divisor, bound, int(generator.choice([0, 0, 1, -1, 5])))


def _random_words(generator: Generator, count: int, kind: ElementType, small: bool) -> Patterns:
    if kind == ElementType.INT:
        if small:
            return generator.integers(-2, 6, count).astype(np.int32).view(np.uint32)
        return generator.integers(0, 2**32, count, dtype=np.uint32)
    values = generator.standard_normal(count).astype(np.float32).view(np.uint32)
    special = generator.choice(SPECIAL, count)
    words = np.where(generator.integers(0, 12, count) == 0, special, values)
    return np.where((words & 0x7FFFFFFF) > 0x7F800000, 0x7FC00000, words).astype(np.uint32)


# ---- Records that may or may not be well-formed ----------------------------------------------------------------------

TABLE = 4
"""Every table of a `Judgement` has this many entries, and the operator judged has this number in its section."""


@dataclass(frozen=True)
class Judgement:
    """A record, what the four operands' sources really are, and whether it is well-formed by `assay.program`."""

    record: bytes
    source_types: tuple[int, ...]
    source_counts: tuple[int, ...]
    is_well_formed: bool


def judge(record: bytes, table: Sequence[tuple[ElementType, int]], role: Role) -> Judgement:
    """Judge a record as operator number `TABLE`, where entry k of every table has the k-th type and count."""
    descriptors = [TensorDescriptor(str(k), kind, (count,)) for k, (kind, count) in enumerate(table)]
    earlier = [Operator(Body.COPY, kind, (count,), ()) for kind, count in table]
    counts = [count for _, count in table]
    none = (0,) * TABLE
    try:
        operator = decode_operator(record)
    except ProgramError:
        return Judgement(record, none, none, False)
    found = [table[o.index] if o.index < TABLE else (ElementType.FLOAT, 0) for o in operator.operands]
    found += [(ElementType.FLOAT, 0)] * (TABLE - len(found))
    types, sizes = tuple(int(kind) for kind, _ in found), tuple(count for _, count in found)
    try:
        validate_operator(operator, TABLE, OperatorContext(role, descriptors, descriptors, counts, earlier))
    except ProgramError:
        return Judgement(record, types, sizes, False)
    return Judgement(record, types, sizes, True)


def random_judgement(generator: Generator, body: Body, role: Role) -> Judgement:
    """A record that is well-formed, or almost: a source, position, bound, type or byte of it changed."""
    operator = random_case(generator, body).operator
    rule = BODY_RULES[body]
    kinds = [{"f": ElementType.FLOAT, "i": ElementType.INT}.get(letter, operator.type) for letter in rule.operands]
    table = [(kind, max(1, operand.count)) for kind, operand in zip(kinds, operator.operands, strict=True)]
    table += [(ElementType.FLOAT, 1)] * (TABLE - len(table))
    change = int(generator.integers(0, 10))
    if operator.operands and change < 6:
        place = int(generator.integers(0, len(operator.operands)))
        changed = _changed(generator, operator.operands[place], change)
        operands = [changed if i == place else operand for i, operand in enumerate(operator.operands)]
        operator = replace(operator, operands=tuple(operands))
    elif change == 6:
        field = str(generator.choice(["type", "extents", "reduced", "p0", "p1", "operands", "body"]))
        value: object = {
            "type": ElementType(1 - operator.type),
            "extents": (*operator.extents, int(generator.choice([0, 1, 2, 65536, 2**31 - 1, 2**31]))),
            "reduced": (*operator.reduced, int(generator.choice([0, 1, 2**31 - 1, 2**31]))),
            "p0": int(generator.choice([0, 1, 2**32 - 1])),
            "p1": int(generator.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1])),
            "operands": operator.operands[:-1],
            "body": list(Body)[int(generator.integers(0, len(Body)))],
        }[field]
        operator = replace(operator, **{field: value})
        width = len(operator.dimensions)
        operator = replace(operator, operands=tuple(_widened(operand, width) for operand in operator.operands))
    record = encode_operator(operator)
    if change == 7:
        place = int(generator.integers(0, len(record)))
        flipped = record[place] ^ (1 << int(generator.integers(0, 8)))
        record = record[:place] + bytes([flipped]) + record[place + 1 :]
    elif change == 8:
        cut = int(generator.integers(0, len(record) + 1))
        record = record[:cut] if generator.integers(0, 2) else record + bytes(cut)
    return judge(record, table, role)


def _changed(generator: Generator, operand: Operand, change: int) -> Operand:
    if change == 0:
        return replace(operand, source=Source(int(generator.integers(0, 12))))
    if change == 1:
        return replace(operand, source=Source.THRESHOLD, count=TABLE + int(generator.integers(0, 2)), index=0)
    if change == 2:
        return replace(operand, offset=operand.offset + int(generator.choice([-1, 1, 2, 3, 2**62, -(2**62)])))
    if change == 3:
        return replace(operand, count=max(0, operand.count + int(generator.choice([-1, 1]))))
    if change == 4:
        return replace(operand, index=int(generator.integers(0, 6)))
    if not operand.guards:
        return replace(operand, stride=tuple(int(n) for n in generator.integers(-1, 2, len(operand.stride))))
    field = str(generator.choice(["divisor", "bound", "multiplier"]))
    value = int(generator.choice([0, 1, 2, 7, 2**31 - 1]))
    return replace(operand, guards=(replace(operand.guards[0], **{field: value}), *operand.guards[1:]))


def _widened(operand: Operand, dimensions: int) -> Operand:
    def fit(stride: tuple[int, ...]) -> tuple[int, ...]:
        return (stride + (0,) * dimensions)[:dimensions]

    guards = tuple(replace(guard, stride=fit(guard.stride)) for guard in operand.guards)
    return replace(operand, stride=fit(operand.stride), guards=guards)
