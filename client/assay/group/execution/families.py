"""What belongs together in a program: parameters with their moments, and what every member can compute for itself.

- A **family** is a parameter with everything that its update keeps (momentum, Adam's moments): the unit that is dealt
  to members. Families are ordered by the first operator that reads them, which is the order of the model's layers.
- **Replicated** state depends on no data (powers of Adam's betas): every member keeps its own copy.
- **Free** operators read nothing but data, constants, the step number and replicated state, and cost less than their
  output would on a wire: whoever needs one computes it (the batch, dropout masks, the learning rate).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from assay.program.operator import BODY_RULES, Body, Operator, Program, Role, Source

FREE_WORK = 64
"""Units of work an element up to which computing it again beats receiving its 4 bytes (60 MB/s at 1e9 units/s)."""

REPLICATED_BYTES = 4096
"""Larger state is never replicated."""


@dataclass(frozen=True)
class Families:
    """`families`: state numbers by family, in order of first use. `live`: operators that the state or loss needs."""

    families: tuple[tuple[int, ...], ...]
    replicated: frozenset[int]
    free: frozenset[int]
    live: frozenset[int]


def find_families(program: Program) -> Families:
    """Analyse the step section; a pure function of the program."""
    section = program.section(Role.STEP)
    operators = section.operators
    replicated = _replicated(program)
    free = _free(operators, replicated)
    entries = [entry.operator for entry in section.next_state]
    roots = {entry for entry in entries if entry is not None} | ({program.loss} if program.loss is not None else set())
    live = _closure(operators, roots)
    leader = list(range(len(program.state)))

    def find(number: int) -> int:
        while leader[number] != number:
            leader[number] = leader[leader[number]]
            number = leader[number]
        return number

    for number, entry in enumerate(entries):
        if entry is None or number in replicated:
            continue
        for other in _same_shape_states(operators, entry, program.state[number].count):
            if other not in replicated and program.state[other].count == program.state[number].count:
                leader[max(find(number), find(other))] = min(find(number), find(other))
    first_use = _first_use(program)
    groups: dict[int, list[int]] = {}
    for number in range(len(program.state)):
        if number not in replicated:
            groups.setdefault(find(number), []).append(number)
    ordered = sorted(groups.values(), key=lambda group: (min(first_use[number] for number in group), group[0]))
    return Families(tuple(tuple(group) for group in ordered), replicated, free, live)


def with_copies(
    program: Program, families: Families, copied: Iterable[int], mirrored: Iterable[int], parameters: Iterable[int] = ()
) -> Families:
    """The families where every member that needs them also keeps the state tensors `copied` and computes `mirrored`.
    Members keep copies of `parameters` too, but only those whose place it is compute with them."""
    replicated = families.replicated | frozenset(copied)
    free = _free(program.section(Role.STEP).operators, replicated) | frozenset(mirrored)
    replicated |= frozenset(parameters)
    kept = tuple(left for group in families.families if (left := tuple(n for n in group if n not in replicated)))
    return Families(kept, replicated, free, families.live)


def operands_of(operator: Operator, source: Source) -> Iterator[int]:
    """Numbers of the tensors or operators of a source that an operator reads."""
    return (operand.index for operand in operator.operands if operand.source == source)


def _replicated(program: Program) -> frozenset[int]:
    """The largest set of small state tensors whose next values follow from themselves and the step number."""
    section = program.section(Role.STEP)
    chosen = {number for number, entry in enumerate(program.state) if 4 * entry.count <= REPLICATED_BYTES}
    allowed = {Source.IMMEDIATE, Source.STEP, Source.INDEX, Source.CONSTANT}
    while True:
        known: set[int] = set()
        for number, operator in enumerate(section.operators):
            if operator.work <= FREE_WORK * operator.elements and all(
                operand.source in allowed
                or (operand.source == Source.STATE and operand.index in chosen)
                or (operand.source == Source.OPERATOR and operand.index in known)
                for operand in operator.operands
            ):
                known.add(number)
        # Unchanged tensors are parameters that are not trained: they belong where they are read.
        kept = {number for number in chosen if section.next_state[number].operator in known}
        if kept == chosen:
            return frozenset(kept)
        chosen = kept


def _free(operators: tuple[Operator, ...], replicated: frozenset[int]) -> frozenset[int]:
    allowed = {Source.IMMEDIATE, Source.STEP, Source.INDEX, Source.CONSTANT, Source.DATA}
    free: set[int] = set()
    for number, operator in enumerate(operators):
        if operator.work <= FREE_WORK * operator.elements and all(
            operand.source in allowed
            or (operand.source == Source.STATE and operand.index in replicated)
            or (operand.source == Source.OPERATOR and operand.index in free)
            for operand in operator.operands
        ):
            free.add(number)
    return frozenset(free)


def _closure(operators: tuple[Operator, ...], roots: set[int]) -> frozenset[int]:
    """The operators that `roots` need, themselves included."""
    found = set(roots)
    for number in range(len(operators) - 1, -1, -1):
        if number in found:
            found.update(operands_of(operators[number], Source.OPERATOR))
    return frozenset(found)


def _same_shape_states(operators: tuple[Operator, ...], start: int, count: int) -> set[int]:
    """State tensors that elementwise operators over `count` elements lead from to operator `start`."""
    states: set[int] = set()
    waiting, seen = [start], {start}
    while waiting:
        operator = operators[waiting.pop()]
        if operator.elements != count or BODY_RULES[operator.body].fold or operator.body == Body.GATHER:
            continue
        states.update(operands_of(operator, Source.STATE))
        for other in operands_of(operator, Source.OPERATOR):
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    return states


def _first_use(program: Program) -> list[int]:
    """The first operator that reads each state tensor; one that is only written counts where it is computed."""
    section = program.section(Role.STEP)
    last = len(section.operators)
    first = [last if entry.operator is None else entry.operator for entry in section.next_state]
    for number in range(last - 1, -1, -1):
        for state in operands_of(section.operators[number], Source.STATE):
            first[state] = min(first[state], number)
    return first
