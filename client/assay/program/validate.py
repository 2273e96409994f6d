"""Whether a program is well-formed (contracts/FORMAT.md, section 2.3).

Every refusal names the section, the operator's number, the field and its value. The chain checks the same rules one
operator at a time, so whatever passes here cannot be refuted there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from assay.program.encoding import MAX_DIMENSIONS, MAX_GUARDS, STATE_TABLE_ROLES
from assay.program.errors import ProgramError
from assay.program.operator import (
    BODY_RULES,
    Body,
    ElementType,
    Operand,
    Operator,
    Program,
    Role,
    Section,
    Source,
    TensorDescriptor,
)

MAX_ELEMENTS = 2**31 - 1
INT32_RANGE = (-(2**31), 2**31 - 1)

_EVERYWHERE = {Source.IMMEDIATE, Source.STATE, Source.OPERATOR, Source.DATA, Source.CONSTANT, Source.STEP, Source.INDEX}
ALLOWED_SOURCES: dict[Role, frozenset[Source]] = {
    Role.STEP: frozenset(_EVERYWHERE),
    Role.NOISY_STEP: frozenset(_EVERYWHERE),
    Role.DISTANCE: frozenset(_EVERYWHERE | {Source.COMPARED, Source.START, Source.THRESHOLD}),
    Role.DEVIATION: frozenset(_EVERYWHERE | {Source.START, Source.THRESHOLD, Source.NOISY, Source.PENULTIMATE}),
}
STATE_LIKE = frozenset({Source.STATE, Source.COMPARED, Source.START, Source.NOISY, Source.PENULTIMATE})


@dataclass(frozen=True)
class Limits:
    """The most a client accepts, checked before memory is allocated."""

    operators: int = 1 << 18  # in one section
    tensors: int = 1 << 16  # of the state, of the data, and of the constants
    constant_bytes: int = 1 << 28
    tensor_elements: int = MAX_ELEMENTS
    live_elements: int = 1 << 33  # all operator outputs of a section together
    file_bytes: int = 1 << 30


@dataclass(frozen=True)
class _Context:
    role: Role
    state: Sequence[TensorDescriptor]
    data: Sequence[TensorDescriptor]
    constants: Sequence[int]  # counts
    earlier: Sequence[Operator]


def affine_interval(offset: int, stride: Sequence[int], extents: Sequence[int]) -> tuple[int, int]:
    """Smallest and largest value of `offset + sum(stride * d)` over all d in the box of `extents`."""
    low = high = offset
    for step, extent in zip(stride, extents, strict=True):
        if step < 0:
            low += step * (extent - 1)
        else:
            high += step * (extent - 1)
    return low, high


def position_interval(operator: Operator, operand: Operand, gathers: bool) -> tuple[int, int]:
    """The interval that section 2.3 assigns to an operand's position: conservative on purpose."""
    low, high = affine_interval(operand.offset, operand.stride, operator.dimensions)
    for guard in operand.guards:
        reach = guard.multiplier * (guard.bound - 1)
        low, high = low + min(0, reach), high + max(0, reach)
    if gathers:
        high += operator.p0 * (operator.p1 - 1)
    return low, high


def validate_operator(operator: Operator, number: int, context: _Context) -> None:
    """Raise `ProgramError` unless operator `number` is well-formed in its section."""
    name = f"{context.role.name.lower()} operator {number} ({operator.body.name.lower()})"

    def refuse(message: str) -> ProgramError:
        return ProgramError(f"{name}: {message}")

    rule = BODY_RULES[operator.body]
    if rule.output != "t" and (rule.output == "i") != (operator.type == ElementType.INT):
        raise refuse(f"output type is {operator.type.name.lower()}, the body gives {_letter_name(rule.output)}")
    outer, inner = len(operator.extents), len(operator.reduced)
    if outer + inner > MAX_DIMENSIONS:
        raise refuse(f"{outer} + {inner} dimensions, {MAX_DIMENSIONS} are allowed")
    if rule.fold != (inner > 0):
        raise refuse(f"{inner} reduced dimensions; {'a fold needs one' if rule.fold else 'only folds have them'}")
    for place, extent in enumerate(operator.dimensions):
        if extent < 1:
            raise refuse(f"extent {place} is {extent}, at least 1 is needed")
    for what, size in (("output elements", operator.elements), ("terms", prod(operator.reduced))):
        if size > MAX_ELEMENTS:
            raise refuse(f"{size} {what}, fewer than 2^31 are allowed")
    if operator.body in (Body.PERMUTE, Body.GATHER) and operator.p1 < 1:
        raise refuse("p1 is 0, at least 1 is needed")
    if operator.body == Body.PERMUTE and operator.p1 > MAX_ELEMENTS:
        raise refuse(f"p1 is {operator.p1}, fewer than 2^31 samples are allowed")
    if len(operator.operands) != len(rule.operands):
        raise refuse(f"number of operands is {len(operator.operands)}, the body takes {len(rule.operands)}")
    for place, (operand, letter) in enumerate(zip(operator.operands, rule.operands, strict=True)):
        gathers = operator.body == Body.GATHER and place == 0
        _check_operand(operator, operand, letter, gathers, number, context, f"{name}: operand {place}")


def _check_operand(
    operator: Operator,
    operand: Operand,
    letter: str,
    gathers: bool,
    number: int,
    context: _Context,
    name: str,
) -> None:
    if operand.source not in ALLOWED_SOURCES[context.role]:
        raise ProgramError(
            f"{name} source {operand.source.name.lower()} does not exist in a {context.role.name.lower()} section"
        )
    if len(operand.stride) != len(operator.dimensions):
        raise ProgramError(f"{name} has {len(operand.stride)} strides for {len(operator.dimensions)} dimensions")
    if len(operand.guards) > MAX_GUARDS:
        raise ProgramError(f"{name} has {len(operand.guards)} guards, {MAX_GUARDS} are allowed")
    for place, guard in enumerate(operand.guards):
        if len(guard.stride) != len(operator.dimensions):
            raise ProgramError(
                f"{name} guard {place} has {len(guard.stride)} strides for {len(operator.dimensions)} dimensions"
            )
        if guard.divisor < 1 or guard.bound < 1:
            raise ProgramError(
                f"{name} guard {place} has divisor {guard.divisor} and bound {guard.bound}, both at least 1"
            )
    source_type = _check_source(operand, number, context, name)
    wanted = {"f": ElementType.FLOAT, "i": ElementType.INT, "t": operator.type, "x": source_type}[letter]
    if source_type is not None and source_type != wanted:
        raise ProgramError(
            f"{name} is {source_type.name.lower()}, the body takes {_letter_name(letter, operator.type)}"
        )
    if operand.source in (Source.IMMEDIATE, Source.STEP):
        if any(operand.stride):
            raise ProgramError(f"{name} has strides {operand.stride}, an {operand.source.name.lower()} has none")
        if operand.source == Source.IMMEDIATE and operand.guards:
            raise ProgramError(f"{name} is an immediate with guards")
        return
    low, high = position_interval(operator, operand, gathers)
    first, last = INT32_RANGE if operand.source == Source.INDEX else (0, operand.count - 1)
    if low < first or high > last:
        raise ProgramError(f"{name} may read positions {low}..{high}, outside {first}..{last}")


def _check_source(operand: Operand, number: int, context: _Context, name: str) -> ElementType | None:
    """The operand's element type (None: any), after checking its index and count against its source."""
    source = operand.source
    if source == Source.OPERATOR:
        if operand.index >= number:
            raise ProgramError(f"{name} reads operator {operand.index}, which is not earlier")
        earlier = context.earlier[operand.index]
        if operand.count != earlier.elements:
            raise ProgramError(
                f"{name} count is {operand.count}, operator {operand.index} has {earlier.elements} elements"
            )
        return earlier.type
    if source in STATE_LIKE or source == Source.DATA:
        table = context.data if source == Source.DATA else context.state
        if operand.index >= len(table):
            raise ProgramError(f"{name} reads {source.name.lower()} tensor {operand.index} of {len(table)}")
        if operand.count != table[operand.index].count:
            raise ProgramError(f"{name} count is {operand.count}, the tensor has {table[operand.index].count} elements")
        return table[operand.index].type
    if source == Source.CONSTANT:
        if operand.index >= len(context.constants):
            raise ProgramError(f"{name} reads constant {operand.index} of {len(context.constants)}")
        if operand.count != context.constants[operand.index]:
            raise ProgramError(
                f"{name} count is {operand.count}, the constant has {context.constants[operand.index]} elements"
            )
        return None
    if source == Source.THRESHOLD:
        if operand.count != len(context.state):
            raise ProgramError(
                f"{name} count is {operand.count}, the threshold vector has {len(context.state)} elements"
            )
        return ElementType.FLOAT
    if operand.count != 0:
        raise ProgramError(f"{name} count is {operand.count}, it is 0 for source {source.name.lower()}")
    return None if source == Source.IMMEDIATE else ElementType.INT


def _letter_name(letter: str, output: ElementType | None = None) -> str:
    if letter == "t" and output is not None:
        return output.name.lower()
    return {"f": "float", "i": "int"}.get(letter, "either")


def validate_section(program: Program, section: Section, limits: Limits | None = None) -> None:
    """Raise `ProgramError` unless all operators of a section are well-formed and its next-state table fits."""
    limits = limits or Limits()
    role = section.role.name.lower()
    operators = section.operators
    if not 1 <= len(operators) <= limits.operators:
        raise ProgramError(f"the {role} section has {len(operators)} operators, 1 to {limits.operators} are accepted")
    context = _Context(section.role, program.state, program.data, [c.size for c in program.constants], operators)
    for number, operator in enumerate(operators):
        validate_operator(operator, number, context)
    total = sum(operator.elements for operator in operators)
    if total > limits.live_elements:
        raise ProgramError(f"the {role} section computes {total} elements a run, {limits.live_elements} are accepted")
    _check_outputs(program, section)


def _check_outputs(program: Program, section: Section) -> None:
    role, operators = section.role.name.lower(), section.operators
    if section.role not in STATE_TABLE_ROLES:
        if section.next_state:
            raise ProgramError(f"the {role} section has a next-state table of {len(section.next_state)} entries")
        wanted = [1] if section.role == Role.DISTANCE else [len(program.state), 1]
        found = [operator.elements for operator in operators[-len(wanted) :]]
        if found != wanted or any(o.type != ElementType.FLOAT for o in operators[-len(wanted) :]):
            raise ProgramError(f"the {role} section ends in outputs of {found} elements, not in float32 of {wanted}")
        return
    if len(section.next_state) != len(program.state):
        raise ProgramError(
            f"the {role} section's next-state table has {len(section.next_state)} entries "
            f"for {len(program.state)} state tensors"
        )
    for number, (entry, descriptor) in enumerate(zip(section.next_state, program.state, strict=True)):
        if entry.operator is None:
            continue
        if not 0 <= entry.operator < len(operators):
            raise ProgramError(f"{role}: next state {number} names operator {entry.operator} of {len(operators)}")
        output = operators[entry.operator]
        if (output.type, output.elements) != (descriptor.type, descriptor.count):
            raise ProgramError(
                f"{role}: next state {number} ({descriptor.name}) is "
                f"{descriptor.type.name.lower()}[{descriptor.count}], "
                f"operator {entry.operator} gives {output.type.name.lower()}[{output.elements}]"
            )


def validate_tensors(descriptors: Sequence[TensorDescriptor], what: str, limits: Limits | None = None) -> None:
    """Raise `ProgramError` unless a table of tensors has unique names and sizes within the limits."""
    limits = limits or Limits()
    if len(descriptors) > limits.tensors:
        raise ProgramError(f"{len(descriptors)} {what} tensors, {limits.tensors} are accepted")
    seen: set[str] = set()
    for number, descriptor in enumerate(descriptors):
        if any(extent < 0 for extent in descriptor.shape) or not 1 <= descriptor.count <= limits.tensor_elements:
            raise ProgramError(
                f"{what} tensor {number} ({descriptor.name}) has shape {descriptor.shape}: "
                f"1 to {limits.tensor_elements} elements are accepted"
            )
        if descriptor.name in seen:
            raise ProgramError(f"{what} tensor {number}: the name {descriptor.name!r} is taken by an earlier one")
        seen.add(descriptor.name)


def validate(program: Program, limits: Limits | None = None) -> None:
    """Raise `ProgramError` unless the program is well-formed and within the limits."""
    limits = limits or Limits()
    if not program.state:
        raise ProgramError("the program has no state tensors: a step has nothing to change")
    validate_tensors(program.state, "state", limits)
    validate_tensors(program.data, "data", limits)
    if len(program.constants) > limits.tensors:
        raise ProgramError(f"{len(program.constants)} constants, {limits.tensors} are accepted")
    if sum(constant.nbytes for constant in program.constants) > limits.constant_bytes:
        raise ProgramError(f"the constants are larger than {limits.constant_bytes} bytes")
    if any(constant.size < 1 for constant in program.constants):
        raise ProgramError("a constant has no elements")
    roles = [section.role for section in program.sections]
    if roles != sorted(set(roles)) or Role.STEP not in roles:
        raise ProgramError(f"sections have roles {[int(r) for r in roles]}: ascending, each once, and 0 among them")
    for section in program.sections:
        validate_section(program, section, limits)
    if program.loss is not None:
        operators = program.section(Role.STEP).operators
        if not 0 <= program.loss < len(operators) or operators[program.loss].elements != 1:
            raise ProgramError(f"loss names operator {program.loss}, which is not an operator with one element")
