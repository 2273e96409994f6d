"""One element of any operator, evaluated alone: the executable meaning of an operator record.

Slow and obvious on purpose. The fast engine, the contracts and `interpreter` are held to these results bit for bit.
Values are words (32-bit patterns as integers), as in `assay.arithmetic.binary32`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from assay.arithmetic import binary32, transcendental
from assay.arithmetic.permutation import permutation
from assay.arithmetic.philox import philox
from assay.program.errors import ProgramError
from assay.program.operator import BODY_RULES, Body, ElementType, Operand, Operator, Source

Read = Callable[[Source, int, int], int]
"""(source, tensor or operator number, position) -> the element's word. NaNs of float tensors must be canonical."""

_SIGNED_MINIMUM = -(2**31)


@dataclass(frozen=True)
class StepContext:
    """What a step knows besides its tensors: the task's 64-bit seed and the global step number."""

    seed: int
    step: int


def _bool(function: Callable[[int, int], bool]) -> Callable[[int, int], int]:
    return lambda a, b: int(function(a, b))


def integer_divide(a: int, b: int) -> int:
    """Floor division of int32 words; by 0 gives 0, and -2^31 / -1 wraps."""
    divisor = binary32.to_signed(b)
    return 0 if divisor == 0 else (binary32.to_signed(a) // divisor) & binary32.WORD_MASK


def integer_modulo(a: int, b: int) -> int:
    """a - b * floor(a / b) of int32 words; by 0 gives 0."""
    divisor = binary32.to_signed(b)
    return 0 if divisor == 0 else (binary32.to_signed(a) % divisor) & binary32.WORD_MASK


SCALAR_BODIES: dict[Body, Callable[..., int]] = {
    Body.ADD: binary32.add,
    Body.SUB: binary32.sub,
    Body.MUL: binary32.mul,
    Body.DIV: binary32.div,
    Body.SQRT: binary32.sqrt,
    Body.FMA: binary32.fma,
    Body.NEG: binary32.neg,
    Body.ABS: binary32.absolute,
    Body.MAX: binary32.maximum,
    Body.MIN: binary32.minimum,
    Body.EQ: _bool(binary32.eq),
    Body.LT: _bool(binary32.lt),
    Body.LE: _bool(binary32.le),
    Body.SAME: lambda a, b: int(a == b),
    Body.TO_INT: binary32.float_to_int,
    Body.TO_FLOAT: binary32.int_to_float,
    Body.EXP: transcendental.exp,
    Body.LOG: transcendental.log,
    Body.TANH: transcendental.tanh,
    Body.ERF: transcendental.erf,
    Body.SIN: transcendental.sin,
    Body.COS: transcendental.cos,
    Body.IADD: lambda a, b: (a + b) & binary32.WORD_MASK,
    Body.ISUB: lambda a, b: (a - b) & binary32.WORD_MASK,
    Body.IMUL: lambda a, b: (a * b) & binary32.WORD_MASK,
    Body.IDIV: integer_divide,
    Body.IMOD: integer_modulo,
    Body.IAND: lambda a, b: a & b,
    Body.IOR: lambda a, b: a | b,
    Body.IXOR: lambda a, b: a ^ b,
    Body.ILT: lambda a, b: int(binary32.to_signed(a) < binary32.to_signed(b)),
    Body.ILE: lambda a, b: int(binary32.to_signed(a) <= binary32.to_signed(b)),
}
"""Bodies whose value is a function of their operands' words alone, whatever the output type."""


def loop_indices(number: int, extents: tuple[int, ...]) -> tuple[int, ...]:
    """The indices of row-major element `number` of a box."""
    indices = []
    for extent in reversed(extents):
        number, index = divmod(number, extent)
        indices.append(index)
    return tuple(reversed(indices))


def position(operand: Operand, indices: tuple[int, ...]) -> int | None:
    """Where an operand is read at loop indices d_0.., or None where a guard fails and its fill is read."""
    place = operand.offset + sum(step * index for step, index in zip(operand.stride, indices, strict=True))
    for guard in operand.guards:
        c = guard.offset + sum(step * index for step, index in zip(guard.stride, indices, strict=True))
        if c < 0 or c % guard.divisor != 0 or c // guard.divisor >= guard.bound:
            return None
        place += c // guard.divisor * guard.multiplier
    return place


def operand_word(operand: Operand, indices: tuple[int, ...], read: Read, context: StepContext) -> int:
    """The word an operand has at loop indices d_0.. ."""
    if operand.source == Source.IMMEDIATE:
        return operand.index
    place = position(operand, indices)
    if place is None:
        return operand.fill
    return _fetch(operand, place, read, context)


def _fetch(operand: Operand, place: int, read: Read, context: StepContext) -> int:
    if operand.source == Source.STEP:
        return context.step & binary32.WORD_MASK
    if operand.source == Source.INDEX:
        return place & binary32.WORD_MASK
    return read(operand.source, operand.index, place)


def partial_sums(operator: Operator, element: int, read: Read, context: StepContext) -> Iterator[int]:
    """The accumulator of a fold's output element after each of its terms, in order; the last one is the element."""
    if not BODY_RULES[operator.body].fold:
        raise ProgramError(f"{operator.body.name.lower()} is no fold: it has no partial sums")
    outer = loop_indices(element, operator.extents)

    def terms() -> Iterator[tuple[int, ...]]:
        for term in range(operator.terms):
            indices = outer + loop_indices(term, operator.reduced)
            yield tuple(operand_word(operand, indices, read, context) for operand in operator.operands)

    yield from fold(operator.body, terms())


def fold(body: Body, terms: Iterator[tuple[int, ...]]) -> Iterator[int]:
    """The accumulator after each term, for the operands' words of each term."""
    if body == Body.FOLD_ARGMAX:
        best, leader = 0, 0
        for number, (a,) in enumerate(terms):
            overtakes = binary32.lt(leader, a) or (binary32.is_nan(a) and not binary32.is_nan(leader))
            if number == 0 or overtakes:
                best, leader = number, a
            yield best
        return
    accumulator = binary32.NEGATIVE_INFINITY if body == Body.FOLD_MAX else 0
    for operands in terms:
        accumulator = fold_step(body, accumulator, operands)
        yield accumulator


def fold_step(body: Body, accumulator: int, operands: tuple[int, ...]) -> int:
    """One term of a fold other than fold_argmax."""
    if body == Body.FOLD_FMA:
        return binary32.fma(operands[0], operands[1], accumulator)
    if body == Body.FOLD_ADD:
        return binary32.add(accumulator, operands[0])
    if body == Body.FOLD_MAX:
        return binary32.maximum(accumulator, operands[0])
    if body == Body.FOLD_ADD_IF:
        return binary32.add(accumulator, operands[2]) if operands[0] == operands[1] else accumulator
    if body == Body.FOLD_IADD:
        return (accumulator + operands[0]) & binary32.WORD_MASK
    raise ProgramError(f"{body.name.lower()} is no fold with a scalar step")


def evaluate_element(operator: Operator, element: int, read: Read, context: StepContext) -> int:
    """The word of output element `element` (row-major) of an operator."""
    if BODY_RULES[operator.body].fold:
        result = 0
        for result in partial_sums(operator, element, read, context):  # noqa: B007
            pass
        return result
    if operator.body == Body.PERMUTE:
        epoch, place = divmod(context.step * operator.p0 + element, operator.p1)
        return permutation(context.seed, epoch & binary32.WORD_MASK, place, operator.p1)
    if operator.body == Body.UNIFORM:
        draw = philox(context.seed, context.step, operator.p0, element)
        return binary32.mul(binary32.int_to_float(draw >> 8), binary32.from_float(2.0**-24))
    indices = loop_indices(element, operator.extents)
    if operator.body == Body.GATHER:
        return _gather(operator, indices, read, context)
    words = [operand_word(operand, indices, read, context) for operand in operator.operands]
    if operator.body == Body.COPY:
        return _canonical(words[0], operator.type)
    if operator.body == Body.SELECT:
        return _canonical(words[1] if words[0] != 0 else words[2], operator.type)
    return SCALAR_BODIES[operator.body](*words)


def _gather(operator: Operator, indices: tuple[int, ...], read: Read, context: StepContext) -> int:
    table, chooser = operator.operands
    row = binary32.to_signed(operand_word(chooser, indices, read, context))
    place = 0 if table.source == Source.IMMEDIATE else position(table, indices)
    if place is None:
        return _canonical(table.fill, operator.type)
    if not 0 <= row < operator.p1:
        return 0
    if table.source == Source.IMMEDIATE:
        return _canonical(table.index, operator.type)
    return _canonical(_fetch(table, place + operator.p0 * row, read, context), operator.type)


def _canonical(word: int, kind: ElementType) -> int:
    return binary32.canonical(word) if kind == ElementType.FLOAT else word
