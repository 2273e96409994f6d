"""In which steps a stage needs a value that another computes, where the step number decides what is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from assay.group.execution.families import operands_of
from assay.group.execution.packing import NEVER, Packing
from assay.group.execution.partition import Partition
from assay.program.operator import Program, Role, Source

_ALWAYS, _NOT = Packing(), Packing(until=0, since=NEVER)


@dataclass(frozen=True)
class Choice:
    """An operator's result is that of `first` in steps below `until`, and that of `second` from there on."""

    first: int
    second: int
    until: int


class Needs:
    """The needs of one stage of a partition."""

    def __init__(self, program: Program, choices: Mapping[int, Choice], divided: Partition, stage: int) -> None:
        section = program.section(Role.STEP)
        part = divided.parts[stage]
        held = {*part.state, *part.copies}
        wanted = {section.next_state[number].operator for number in held} | {program.loss}
        wanted |= {
            crossing.value[1]
            for crossing in divided.crossings
            if crossing.sender == stage and crossing.value[0] == Source.OPERATOR
        }
        self._needs: dict[int, Packing] = {number: _ALWAYS for number in wanted if number is not None}
        for number in reversed(part.operators):
            own = self._needs.get(number, _NOT)
            choice = choices.get(number)
            for other in set(operands_of(section.operators[number], Source.OPERATOR)):
                asked = own if choice is None else _asked(own, choice, other)
                self._needs[other] = _either(self._needs.get(other, _NOT), asked)

    def of(self, number: int) -> Packing:
        """When an operator's result is needed: the steps of the packing are, its bits are not."""
        return self._needs.get(number, _NOT)


def _asked(own: Packing, choice: Choice, other: int) -> Packing:
    """What a choice by the step needs of one of its operands, where it is itself needed as `own` says."""
    if own == _NOT or other not in (choice.first, choice.second):  # the condition is always needed
        return own
    if other == choice.first:
        return Packing(until=choice.until, since=NEVER)
    return Packing(until=0, since=choice.until)


def _either(one: Packing, other: Packing) -> Packing:
    until, since = max(one.until, other.until), min(one.since, other.since)
    return _ALWAYS if since <= until else Packing(until=until, since=since)
