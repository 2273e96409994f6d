"""Operators and programs as data (contracts/FORMAT.md, section 2).

An operator is a loop nest: its output dimensions, its reduced dimensions, one scalar body, and operands that are read
through affine index maps. Nothing here computes; `encoding` turns these into bytes, `validate` says whether they are
well-formed, `reference` evaluates them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from math import prod

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32] | npt.NDArray[np.int32]


class ElementType(IntEnum):
    """Type of a tensor's elements, 4 bytes each."""

    FLOAT = 0  # IEEE-754 binary32
    INT = 1  # 32-bit two's complement

    @property
    def dtype(self) -> np.dtype[np.float32] | np.dtype[np.int32]:
        """The numpy type of the elements."""
        return np.dtype(np.float32) if self is ElementType.FLOAT else np.dtype(np.int32)

    @staticmethod
    def of(array: npt.NDArray[np.generic]) -> ElementType:
        """The element type of a numpy array; `ValueError` for any dtype but float32 and int32."""
        if array.dtype == np.float32:
            return ElementType.FLOAT
        if array.dtype == np.int32:
            return ElementType.INT
        raise ValueError(f"tensors of programs are float32 or int32, not {array.dtype}")


class Source(IntEnum):
    """Where an operand is read from."""

    IMMEDIATE = 0
    STATE = 1
    OPERATOR = 2
    DATA = 3
    CONSTANT = 4
    COMPARED = 5
    START = 6
    STEP = 7
    INDEX = 8
    THRESHOLD = 9
    NOISY = 10
    PENULTIMATE = 11


class Role(IntEnum):
    """What a section computes."""

    STEP = 0
    DISTANCE = 1
    NOISY_STEP = 2
    DEVIATION = 3


class Body(IntEnum):
    """The scalar function at the heart of an operator."""

    COPY = 0x01
    ADD = 0x02
    SUB = 0x03
    MUL = 0x04
    DIV = 0x05
    SQRT = 0x06
    FMA = 0x07
    NEG = 0x08
    ABS = 0x09
    MAX = 0x0A
    MIN = 0x0B
    EQ = 0x0C
    LT = 0x0D
    LE = 0x0E
    SAME = 0x0F
    SELECT = 0x10
    TO_INT = 0x11
    TO_FLOAT = 0x12
    EXP = 0x13
    LOG = 0x14
    TANH = 0x15
    ERF = 0x16
    SIN = 0x17
    COS = 0x18
    IADD = 0x20
    ISUB = 0x21
    IMUL = 0x22
    IDIV = 0x23
    IMOD = 0x24
    IAND = 0x25
    IOR = 0x26
    IXOR = 0x27
    ILT = 0x28
    ILE = 0x29
    FOLD_FMA = 0x40
    FOLD_ADD = 0x41
    FOLD_MAX = 0x42
    FOLD_ARGMAX = 0x43
    FOLD_ADD_IF = 0x44
    FOLD_IADD = 0x45
    GATHER = 0x60
    PERMUTE = 0x61
    UNIFORM = 0x62


@dataclass(frozen=True)
class BodyRule:
    """What a body demands: one letter an operand (f float, i int, t the output type, x any), the output's letter
    (f, i, or t for either), the weight of one evaluation, and whether it folds."""

    operands: str
    output: str
    weight: int
    fold: bool = False


BODY_RULES: dict[Body, BodyRule] = {
    Body.COPY: BodyRule("t", "t", 1),
    Body.ADD: BodyRule("ff", "f", 1),
    Body.SUB: BodyRule("ff", "f", 1),
    Body.MUL: BodyRule("ff", "f", 1),
    Body.DIV: BodyRule("ff", "f", 4),
    Body.SQRT: BodyRule("f", "f", 4),
    Body.FMA: BodyRule("fff", "f", 1),
    Body.NEG: BodyRule("f", "f", 1),
    Body.ABS: BodyRule("f", "f", 1),
    Body.MAX: BodyRule("ff", "f", 1),
    Body.MIN: BodyRule("ff", "f", 1),
    Body.EQ: BodyRule("ff", "i", 1),
    Body.LT: BodyRule("ff", "i", 1),
    Body.LE: BodyRule("ff", "i", 1),
    Body.SAME: BodyRule("xx", "i", 1),
    Body.SELECT: BodyRule("itt", "t", 1),
    Body.TO_INT: BodyRule("f", "i", 1),
    Body.TO_FLOAT: BodyRule("i", "f", 1),
    Body.EXP: BodyRule("f", "f", 16),
    Body.LOG: BodyRule("f", "f", 16),
    Body.TANH: BodyRule("f", "f", 24),
    Body.ERF: BodyRule("f", "f", 24),
    Body.SIN: BodyRule("f", "f", 24),
    Body.COS: BodyRule("f", "f", 24),
    Body.IADD: BodyRule("ii", "i", 1),
    Body.ISUB: BodyRule("ii", "i", 1),
    Body.IMUL: BodyRule("ii", "i", 1),
    Body.IDIV: BodyRule("ii", "i", 4),
    Body.IMOD: BodyRule("ii", "i", 4),
    Body.IAND: BodyRule("ii", "i", 1),
    Body.IOR: BodyRule("ii", "i", 1),
    Body.IXOR: BodyRule("ii", "i", 1),
    Body.ILT: BodyRule("ii", "i", 1),
    Body.ILE: BodyRule("ii", "i", 1),
    Body.FOLD_FMA: BodyRule("ff", "f", 1, fold=True),
    Body.FOLD_ADD: BodyRule("f", "f", 1, fold=True),
    Body.FOLD_MAX: BodyRule("f", "f", 1, fold=True),
    Body.FOLD_ARGMAX: BodyRule("f", "i", 2, fold=True),
    Body.FOLD_ADD_IF: BodyRule("iif", "f", 1, fold=True),
    Body.FOLD_IADD: BodyRule("i", "i", 1, fold=True),
    Body.GATHER: BodyRule("ti", "t", 2),
    Body.PERMUTE: BodyRule("", "i", 16),
    Body.UNIFORM: BodyRule("", "f", 8),
}


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition of an index map: `c = offset + sum(stride * d)` must be >= 0, divisible by `divisor`, and its
    quotient below `bound`; the quotient times `multiplier` is added to the position."""

    offset: int
    stride: tuple[int, ...]  # one for each loop dimension
    divisor: int
    bound: int
    multiplier: int = 0


@dataclass(frozen=True, slots=True)
class Operand:
    """One value that a body reads: a source and an affine index map over all loop dimensions."""

    source: Source
    index: int  # tensor number, operator number, or an immediate's 32 bits
    count: int  # elements of the source tensor; 0 for immediate, step and index
    stride: tuple[int, ...]  # in elements, one for each loop dimension
    offset: int = 0
    fill: int = 0  # the 32 bits read where a guard fails
    guards: tuple[Guard, ...] = ()


@dataclass(frozen=True)
class Operator:
    """A loop nest over `extents` (the output's shape) and `reduced` (the fold's), with one scalar body."""

    body: Body
    type: ElementType
    extents: tuple[int, ...]
    operands: tuple[Operand, ...]
    reduced: tuple[int, ...] = ()
    p0: int = 0
    p1: int = 0

    @cached_property
    def elements(self) -> int:
        """Number of output elements."""
        return prod(self.extents)

    @cached_property
    def terms(self) -> int:
        """Number of terms of the fold; 1 for other bodies."""
        return prod(self.reduced)

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Extents of all loops: output, then reduced."""
        return self.extents + self.reduced

    @property
    def work(self) -> int:
        """Work units: all extents times the body's weight (exact)."""
        return self.elements * self.terms * BODY_RULES[self.body].weight


@dataclass(frozen=True, slots=True)
class StateEntry:
    """Where a tensor of the next state comes from: `operator` is None where it stays as it was."""

    operator: int | None

    @property
    def kind(self) -> int:
        """1: unchanged, 2: output of an operator."""
        return 1 if self.operator is None else 2


@dataclass(frozen=True, slots=True)
class TensorDescriptor:
    """Name, type and shape of a tensor of the state or the data. Names and shapes are not hashed: the chain knows
    tensors by number, type and count."""

    name: str
    type: ElementType
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements; a scalar has one."""
        return prod(self.shape)


@dataclass(frozen=True)
class Section:
    """A list of operators in execution order, and for the two step sections where the next state comes from.

    `origins[i]` says in words which call of the traced graph operator i belongs to; it is for people and engines, and
    is neither hashed nor compared.
    """

    role: Role
    operators: tuple[Operator, ...]
    next_state: tuple[StateEntry, ...] = ()
    origins: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def work(self) -> int:
        """Work units of one execution of the section."""
        return sum(operator.work for operator in self.operators)


@dataclass(frozen=True, eq=False)
class Program:
    """All sections of a task, the tensors they read, and the constants they carry.

    `loss` is the number of the step section's operator that holds the step's loss (one float32), or None. It is for
    people: not hashed.
    """

    state: tuple[TensorDescriptor, ...]
    data: tuple[TensorDescriptor, ...]
    constants: tuple[Array, ...]
    sections: tuple[Section, ...]
    loss: int | None = None

    def section(self, role: Role) -> Section:
        """The section of a role; `KeyError` where the program has none."""
        for section in self.sections:
            if section.role == role:
                return section
        raise KeyError(f"the program has no section for role {role.name.lower()}")

    def has(self, role: Role) -> bool:
        """Whether the program has a section of a role."""
        return any(section.role == role for section in self.sections)


def row_major_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a contiguous row-major tensor."""
    strides: list[int] = []
    step = 1
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


def float_bits(value: float) -> int:
    """The 32 bits of a number rounded to binary32, NaN as 0x7fc00000."""
    bits = int(np.float32(value).view(np.uint32))
    return 0x7FC00000 if (bits & 0x7FFFFFFF) > 0x7F800000 else bits


def immediate(bits: int, dimensions: int) -> Operand:
    """An operand whose value is these 32 bits everywhere, in an operator with so many loop dimensions."""
    return Operand(Source.IMMEDIATE, bits & 0xFFFFFFFF, 0, (0,) * dimensions)
