"""A slow tensor-level interpreter of sections: every operator, exact, one numpy pass for each term of a fold.

It stands between `reference` (one element, integers only) and the fast engine: quick enough for whole training steps of
tiny models, and written for reading. Bit-identical to both; tests hold it to `reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from assay.arithmetic import transcendental
from assay.program.errors import ProgramError
from assay.program.operator import (
    BODY_RULES,
    Array,
    Body,
    ElementType,
    Operand,
    Operator,
    Program,
    Role,
    Section,
    Source,
)
from assay.program.reference import StepContext, evaluate_element

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]
Positions = npt.NDArray[np.int64]
AnyArray = npt.NDArray[Any]

_NAN = np.uint32(0x7FC00000).view(np.float32)


@dataclass(frozen=True)
class Inputs:
    """What a section reads besides its own operators' outputs: flat or shaped arrays, by source."""

    state: Sequence[Array]
    data: Sequence[Array] = ()
    context: StepContext = field(default_factory=lambda: StepContext(0, 0))
    compared: Sequence[Array] = ()
    start: Sequence[Array] = ()
    threshold: Array | None = None
    noisy: Sequence[Array] = ()
    penultimate: Sequence[Array] = ()


def canonical_nans(values: AnyArray) -> AnyArray:
    """The array with every NaN as 0x7fc00000."""
    values[np.isnan(values)] = _NAN
    return values


def fused_multiply_add(a: Floats, b: Floats, c: Floats) -> Floats:
    """a * b + c with one rounding to binary32.

    The product of two binary32 numbers is exact in binary64. The sum is rounded to odd there (Boldo and Melquiond,
    "Emulation of FMA and correctly rounded sums", 2008), after which rounding to binary32 is the only one that counts.
    """
    product = a.astype(np.float64) * b.astype(np.float64)
    addend = c.astype(np.float64)
    total = product + addend
    virtual = total - product
    error = (product - (total - virtual)) + (addend - virtual)
    bits = total.view(np.int64).copy() if total.flags.c_contiguous else np.ascontiguousarray(total).view(np.int64)
    finite = np.isfinite(total)
    inexact = finite & (error != 0) & (bits & 1 == 0)
    # One unit towards the error makes the last bit odd; the sign-magnitude pattern grows away from zero.
    outwards = (error > 0) == (total > 0)
    bits = np.where(inexact, np.where(outwards, bits + 1, bits - 1), bits)
    return canonical_nans(bits.view(np.float64).astype(np.float32))


def _floor_divide(a: Ints, b: Ints) -> Ints:
    quotient = a.astype(np.int64) // np.where(b == 0, 1, b).astype(np.int64)
    result: Ints = np.where(b == 0, 0, quotient).astype(np.int32)
    return result


def _floor_modulo(a: Ints, b: Ints) -> Ints:
    rest = a.astype(np.int64) % np.where(b == 0, 1, b).astype(np.int64)
    result: Ints = np.where(b == 0, 0, rest).astype(np.int32)
    return result


def _choose(c: AnyArray, a: AnyArray, b: AnyArray) -> AnyArray:
    return np.where(c != 0, a, b)


def _larger(a: Floats, b: Floats) -> Floats:
    return np.where(np.isnan(a) | np.isnan(b), _NAN, np.where(a > b, a, b))


def _smaller(a: Floats, b: Floats) -> Floats:
    return np.where(np.isnan(a) | np.isnan(b), _NAN, np.where(a < b, a, b))


def _to_int(a: Floats) -> Ints:
    wide = np.clip(np.nan_to_num(np.trunc(a.astype(np.float64)), nan=0.0), -(2.0**31), 2.0**31 - 1)
    result: Ints = wide.astype(np.int64).astype(np.int32)
    return result


_Word = npt.NDArray[np.uint32]


def _as_floats(operation: Callable[..., AnyArray]) -> Callable[..., _Word]:
    """An operation on floats as one on words."""

    def apply(*words: _Word) -> _Word:
        result = operation(*(word.view(np.float32) for word in words))
        if result.dtype == np.bool_:
            return result.astype(np.uint32)
        return canonical_nans(result.astype(np.float32)).view(np.uint32)

    return apply


_SEQUENCE_OPERATIONS: dict[str, Callable[..., _Word]] = {
    "add": _as_floats(np.add),
    "sub": _as_floats(np.subtract),
    "mul": _as_floats(np.multiply),
    "div": _as_floats(np.divide),
    "fma": _as_floats(fused_multiply_add),
    "absolute": _as_floats(np.abs),
    "copysign": lambda a, b: (a & np.uint32(0x7FFFFFFF)) | (b & np.uint32(0x80000000)),
    "lt": _as_floats(np.less),
    "le": _as_floats(np.less_equal),
    "eq": _as_floats(np.equal),
    "select": _choose,
    "iadd": np.add,
    "isub": np.subtract,
    "iand": np.bitwise_and,
    "ixor": np.bitwise_xor,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "sar": lambda a, distance: (a.view(np.int32) >> distance.view(np.int32)).view(np.uint32),
}
"""The steps of `transcendental`'s listings on arrays of words."""


def _transcendental(name: str) -> Callable[[Floats], Floats]:
    """A listing of `transcendental`, step by step on whole arrays."""
    sequence = transcendental.SEQUENCES[name]

    def apply(a: Floats) -> Floats:
        values: dict[str, _Word] = {"x": canonical_nans(np.array(a, np.float32)).view(np.uint32)}
        for step in sequence.steps:
            words = [values[x] if isinstance(x, str) else np.full(a.shape, x, np.uint32) for x in step.arguments]
            values[step.name] = _SEQUENCE_OPERATIONS[step.operation](*words)
        return canonical_nans(values[sequence.result].view(np.float32).copy())

    return apply


_VECTOR_BODIES: dict[Body, Callable[..., AnyArray]] = {
    Body.ADD: lambda a, b: a + b,
    Body.SUB: lambda a, b: a - b,
    Body.MUL: lambda a, b: a * b,
    Body.DIV: lambda a, b: a / b,
    Body.SQRT: np.sqrt,
    Body.FMA: fused_multiply_add,
    Body.NEG: np.negative,
    Body.ABS: np.abs,
    Body.MAX: _larger,
    Body.MIN: _smaller,
    Body.EQ: lambda a, b: a == b,
    Body.LT: lambda a, b: a < b,
    Body.LE: lambda a, b: a <= b,
    Body.SAME: lambda a, b: a.view(np.uint32) == b.view(np.uint32),
    Body.TO_INT: _to_int,
    Body.TO_FLOAT: lambda a: a.astype(np.float32),
    Body.IADD: lambda a, b: a + b,
    Body.ISUB: lambda a, b: a - b,
    Body.IMUL: lambda a, b: a * b,
    Body.IDIV: _floor_divide,
    Body.IMOD: _floor_modulo,
    Body.IAND: lambda a, b: a & b,
    Body.IOR: lambda a, b: a | b,
    Body.IXOR: lambda a, b: a ^ b,
    Body.ILT: lambda a, b: a < b,
    Body.ILE: lambda a, b: a <= b,
    Body.COPY: lambda a: a.copy(),
    Body.SELECT: _choose,
    Body.EXP: _transcendental("exp"),
    Body.LOG: _transcendental("log"),
    Body.TANH: _transcendental("tanh"),
    Body.ERF: _transcendental("erf"),
    Body.SIN: _transcendental("sin"),
    Body.COS: _transcendental("cos"),
}


class SectionRun:
    """One execution of a section; `outputs[i]` is operator i's output, shaped as its extents."""

    def __init__(self, program: Program, section: Section, inputs: Inputs) -> None:
        self.program, self.section, self.inputs = program, section, inputs
        self.outputs: list[Array] = []
        self._tables: Mapping[Source, Sequence[Array]] = {
            Source.STATE: inputs.state,
            Source.DATA: inputs.data,
            Source.CONSTANT: program.constants,
            Source.COMPARED: inputs.compared,
            Source.START: inputs.start,
            Source.NOISY: inputs.noisy,
            Source.PENULTIMATE: inputs.penultimate,
            Source.OPERATOR: self.outputs,
        }

    def run(self) -> list[Array]:
        """Execute all operators in order."""
        with np.errstate(all="ignore"):
            for operator in self.section.operators:
                self.outputs.append(self._evaluate(operator))
        return self.outputs

    def next_state(self) -> list[Array]:
        """The state after the section, shaped as the state's descriptors."""
        return [
            (self.inputs.state[number] if entry.operator is None else self.outputs[entry.operator]).reshape(what.shape)
            for number, (entry, what) in enumerate(zip(self.section.next_state, self.program.state, strict=True))
        ]

    def read(self, source: Source, index: int, position: int) -> int:
        """The word of one element, for `reference.evaluate_element`."""
        array = self._table(source, index).reshape(-1)[position : position + 1].copy()
        if array.dtype == np.float32:
            array = canonical_nans(array)
        return int(array.view(np.uint32)[0])

    def _table(self, source: Source, index: int) -> Array:
        if source == Source.THRESHOLD:
            if self.inputs.threshold is None:
                raise ProgramError("the section reads the threshold vector, which was not given")
            return self.inputs.threshold
        return self._tables[source][index]

    def _evaluate(self, operator: Operator) -> Array:
        if operator.body in (Body.PERMUTE, Body.UNIFORM):
            words = [evaluate_element(operator, e, self.read, self.inputs.context) for e in range(operator.elements)]
            return _typed(np.array(words, np.uint32), operator)
        if BODY_RULES[operator.body].fold:
            result: AnyArray = self._fold(operator)
        else:
            loops = _loops(operator.extents)
            letters = BODY_RULES[operator.body].operands.replace("t", "if"[operator.type == ElementType.FLOAT])
            if operator.body == Body.GATHER:
                result = self._gather(operator, loops)
            else:
                values = [self._values(o, loops, c) for o, c in zip(operator.operands, letters, strict=True)]
                result = _VECTOR_BODIES[operator.body](*values)
        result = np.broadcast_to(result, (operator.elements,)).astype(operator.type.dtype)
        if operator.type == ElementType.FLOAT:
            result = canonical_nans(result)
        return _typed(result, operator)

    def _gather(self, operator: Operator, loops: list[Positions]) -> AnyArray:
        table, chooser = operator.operands
        rows = np.broadcast_to(self._values(chooser, loops, "i"), (operator.elements,)).astype(np.int64)
        valid = (rows >= 0) & (rows < operator.p1)
        letter = "if"[operator.type == ElementType.FLOAT]
        values = self._values(table, loops, letter, np.where(valid, rows, 0) * operator.p0)
        # Where a guard of the table fails, its fill stands, whatever the row.
        _, holds = _positions(table, loops)
        return np.where(valid | ~holds, values, np.zeros(1, values.dtype))

    def _fold(self, operator: Operator) -> AnyArray:
        outer = _loops(operator.extents)
        letters = BODY_RULES[operator.body].operands
        body, elements = operator.body, operator.elements
        floats = np.zeros(elements, np.float32)
        if body == Body.FOLD_MAX:
            floats[:] = -np.inf
        integers = np.zeros(elements, np.int32)
        for term in range(operator.terms):
            inner = [np.int64(index) for index in np.unravel_index(term, operator.reduced)]
            loops = [*outer, *(np.broadcast_to(index, (elements,)) for index in inner)]
            a, *rest = [self._values(o, loops, c) for o, c in zip(operator.operands, letters, strict=True)]
            if body == Body.FOLD_FMA:
                floats = fused_multiply_add(a, rest[0], floats)
            elif body == Body.FOLD_ADD:
                floats = floats + a
            elif body == Body.FOLD_MAX:
                floats = _larger(floats, a)
            elif body == Body.FOLD_ADD_IF:
                floats = np.where(a == rest[0], floats + rest[1], floats)
            elif body == Body.FOLD_IADD:
                integers = integers + a
            else:
                overtakes = (a > floats) | (np.isnan(a) & ~np.isnan(floats)) | (term == 0)
                floats, integers = np.where(overtakes, a, floats), np.where(overtakes, np.int32(term), integers)
        return integers if operator.type == ElementType.INT else floats

    def _values(
        self, operand: Operand, loops: list[Positions], letter: str, extra: Positions | None = None
    ) -> AnyArray:
        """An operand's values over all loop positions; `letter` says what an immediate's bits are (f or i)."""
        dtype = np.dtype(np.int32 if letter == "i" else np.float32 if letter == "f" else np.uint32)
        elements = loops[0].size if loops else 1
        if operand.source == Source.IMMEDIATE:
            return np.full(elements, operand.index, np.uint32).view(dtype)
        places, holds = _positions(operand, loops)
        if extra is not None:
            places = places + extra
        if operand.source == Source.STEP:
            values: AnyArray = np.full(elements, self.inputs.context.step, np.int32)
        elif operand.source == Source.INDEX:
            values = places.astype(np.int32)
        else:
            flat = self._table(operand.source, operand.index).reshape(-1)
            values = flat[np.where(holds, places, 0)]
            if values.dtype == np.float32:
                values = canonical_nans(values)
        fill = np.array(operand.fill, np.uint32).view(values.dtype)
        values = np.where(holds, values, fill)
        return values if letter == "x" else values.view(dtype)


def _typed(words: AnyArray, operator: Operator) -> Array:
    """An operator's output words as an array of its type and shape."""
    if operator.type == ElementType.FLOAT:
        return words.view(np.float32).reshape(operator.extents)
    return words.view(np.int32).reshape(operator.extents)


def _loops(extents: tuple[int, ...]) -> list[Positions]:
    """The loop index of each dimension, for every element in row-major order."""
    if not extents:
        return []
    return [grid.reshape(-1) for grid in np.indices(extents, np.int64)]


def _positions(operand: Operand, loops: list[Positions]) -> tuple[Positions, npt.NDArray[np.bool_]]:
    """Position of the operand for each loop position, and whether all its guards hold."""
    elements = loops[0].size if loops else 1
    places = np.full(elements, operand.offset, np.int64)
    for step, loop in zip(operand.stride, loops, strict=True):
        places = places + step * loop
    holds = np.ones(elements, np.bool_)
    for guard in operand.guards:
        c = np.full(elements, guard.offset, np.int64)
        for step, loop in zip(guard.stride, loops, strict=True):
            c = c + step * loop
        quotient = c // guard.divisor
        holds &= (c >= 0) & (c % guard.divisor == 0) & (quotient < guard.bound)
        places = places + quotient * guard.multiplier
    return places, holds


def run_section(program: Program, role: Role, inputs: Inputs) -> SectionRun:
    """Execute the section of a role and return the run, with all outputs."""
    run = SectionRun(program, program.section(role), inputs)
    run.run()
    return run


def total_bytes(section: Section) -> int:
    """Bytes of all operator outputs of a section together, which a run here keeps."""
    return 4 * sum(prod(operator.extents) for operator in section.operators)
