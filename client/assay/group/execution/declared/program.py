"""Declared compression in a lowered program, for groups that compute in the exact arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from assay.group.execution.declared.compression import Compression, complete
from assay.group.execution.declared.needs import Choice
from assay.group.execution.declared.terms import Part, Reader, Term
from assay.group.execution.packing import FULL, SHORT
from assay.program.operator import (
    Body,
    ElementType,
    Operand,
    Operator,
    Program,
    Role,
    Source,
    StateEntry,
    row_major_strides,
)

_KINDS = {
    Body.SELECT: "choose",
    Body.LT: "less",
    Body.ILT: "less",
    Body.MUL: "product",
    Body.SUB: "difference",
    Body.TO_INT: "to_int",
    Body.TO_FLOAT: "to_float",
}


class ProgramReader(Reader):
    """Terms of a program's step; a reference is an operand, so that equal ones read the same elements."""

    def __init__(self, program: Program) -> None:
        self.operators = program.section(Role.STEP).operators

    def term(self, part: Part) -> Term | None:
        """What an operand reads."""
        if not isinstance(part, Operand) or part.guards or part.offset:
            return None
        if part.source == Source.STEP:
            return Term("step")
        return self.of(part.index) if part.source == Source.OPERATOR else None

    def of(self, number: int) -> Term | None:
        """What an operator computes."""
        operator = self.operators[number]
        kind = _KINDS.get(operator.body)
        if kind is None:
            return None
        is_float = operator.body != Body.ILT and (operator.body != Body.SELECT or operator.type == ElementType.FLOAT)
        return Term(kind, tuple(_part(operand, is_float) for operand in operator.operands))

    def operand(self, number: int) -> Operand:
        """An operator's result, element by element."""
        operator = self.operators[number]
        return Operand(Source.OPERATOR, number, operator.elements, row_major_strides(operator.extents))


def _part(operand: Operand, is_float: bool) -> Part:
    if operand.source != Source.IMMEDIATE:
        return operand
    bits = np.array([operand.index], np.uint32)
    return float(bits.view(np.float32 if is_float else np.int32)[0])


def read_compression(recorded: Program) -> tuple[Program, Compression]:
    """The program with its compression.

    Where a choice by the step is found, the program given back copies what the first steps take before it is chosen:
    the copy is read by nothing else, so it need not be sent in later steps. The state that it computes is the same.
    """
    reader = ProgramReader(recorded)
    found = {number: choice for number in range(len(reader.operators)) if (choice := _choice(reader, number))}
    program, places = _with_copies_of_firsts(recorded, found) if found else (recorded, {})
    reader = ProgramReader(program)
    bits: dict[int, int] = {}
    for number in range(len(reader.operators)):
        operand = reader.operand(number)
        few = reader.code_bits(operand) or (SHORT if reader.is_short(operand) else FULL)
        if few < FULL:
            bits[number] = few
    choices = {
        places[number]: Choice(places[number] - 1, places[choice.second], choice.until)
        for number, choice in found.items()
    }
    return program, complete(program, bits, choices)


def _choice(reader: ProgramReader, number: int) -> Choice | None:
    """A choice by the step between two operators' whole results."""
    found = reader.choice(reader.operand(number))
    if found is None:
        return None
    first, second, until = found
    elements = reader.operators[number].elements
    for part in (first, second):
        if not isinstance(part, Operand) or part.source != Source.OPERATOR or part.guards or part.offset:
            return None
        if part.count != elements or part.stride != row_major_strides(reader.operators[number].extents):
            return None
    assert isinstance(first, Operand)
    assert isinstance(second, Operand)
    return Choice(first.index, second.index, until)


def _with_copies_of_firsts(program: Program, found: dict[int, Choice]) -> tuple[Program, dict[int, int]]:
    """The program with a copy before every choice, and where each operator has gone."""
    section = program.section(Role.STEP)
    places: dict[int, int] = {}
    operators: list[Operator] = []
    for number, operator in enumerate(section.operators):
        operands = tuple(
            replace(operand, index=places[operand.index]) if operand.source == Source.OPERATOR else operand
            for operand in operator.operands
        )
        if number in found:
            first = operands[1]
            operators.append(Operator(Body.COPY, operator.type, operator.extents, (first,)))
            operands = (operands[0], replace(first, index=len(operators) - 1), operands[2])
        places[number] = len(operators)
        operators.append(replace(operator, operands=operands))
    entries = tuple(
        StateEntry(None if entry.operator is None else places[entry.operator]) for entry in section.next_state
    )
    step = replace(section, operators=tuple(operators), next_state=entries, origins=())
    sections = tuple(step if each.role == Role.STEP else each for each in program.sections)
    loss = None if program.loss is None else places[program.loss]
    return replace(program, sections=sections, loss=loss), places
