"""What declared compression means for a group: which values cross in few bits, which in some steps only, and which
state both ends of a boundary keep.

Everything here is about the operators of a program, or of the outline of a graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from assay.group.compression.crossing import MEMORY
from assay.group.execution.declared.needs import Choice, Needs
from assay.group.execution.declared.terms import MOST_CODE_BITS
from assay.group.execution.families import find_families, operands_of, with_copies
from assay.group.execution.packing import FULL
from assay.group.execution.partition import Crossing, Hints, Partition
from assay.program.operator import Operator, Program, Role, Source


@dataclass(frozen=True)
class Compression:
    """`bits` of results that need fewer than all, and `choices` by the step, by operator. `memories`: for each state
    tensor that both ends of a boundary keep, the codes that change it. `copies`: the same for parameters (and their
    moments) that every replica of a stage keeps. `mirrored`: what both ends compute from what crosses."""

    bits: Mapping[int, int]
    choices: Mapping[int, Choice]
    memories: Mapping[int, int]
    mirrored: frozenset[int]
    copies: Mapping[int, int] = field(default_factory=dict)

    def codes_of(self, operators: Sequence[Operator], number: int) -> int:
        """The codes that a result stands for."""
        crossing = _ancestors(operators, [number], self.bits)
        return min(other for other in crossing if self.bits.get(other, FULL) <= MOST_CODE_BITS)


def complete(
    program: Program, bits: Mapping[int, int], choices: Mapping[int, Choice], sent: Iterable[int] = ()
) -> Compression:
    """Find the memories. The first value of a choice has to be an operator that nothing else reads. `sent` are results
    that the sender of a message computes as well as who receives it.

    A memory is state of which a step reads rows and replaces those rows, by a choice between the rows themselves (in
    the first steps) and what was kept plus a change. Both ends compute that from the codes.
    """
    section = program.section(Role.STEP)
    memories: dict[int, int] = {}
    # From what few bits say to what they stand for.
    mirrored = _ancestors(section.operators, sent, bits).difference(bits)
    for state, descriptor in enumerate(program.state):
        following = section.next_state[state].operator
        if not descriptor.name.endswith(MEMORY) or following is None:
            continue
        # Not beyond the rows themselves: behind them lies the model, with boundaries of its own.
        ends = {*bits, *(choice.first for choice in choices.values())}
        crossing = _ancestors(section.operators, [following], ends)
        codes = sorted(number for number in crossing if bits.get(number, FULL) <= MOST_CODE_BITS)
        made = [choices[number] for number in crossing if number in choices]
        if not codes or len(made) != 1:
            continue
        memories[state] = codes[0]
        # Everything on the way from what crosses to the next memory; what lies before that is the sender's.
        crosses = sorted({number for number in crossing if number in bits} | {made[0].first})
        mirrored |= crossing - _ancestors(section.operators, crosses)
    return Compression(bits, choices, memories, frozenset(mirrored))


def _ancestors(operators: Sequence[Operator], numbers: Iterable[int], stop: Iterable[int] = ()) -> set[int]:
    """The operators themselves and all that they are computed from, not beyond `stop`."""
    ends = frozenset(stop)
    found: set[int] = set()
    waiting = list(numbers)
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            if number not in ends:
                waiting.extend(operands_of(operators[number], Source.OPERATOR))
    return found


def hints_of(program: Program, compression: Compression, steps: int) -> Hints:
    """What a partition has to know; `steps` of the task tell how often what only the first steps send is sent."""
    operators = program.section(Role.STEP).operators
    families = with_copies(
        program, find_families(program), compression.memories, compression.mirrored, compression.copies
    )
    # What depends on no crossing is simply free.
    mirrored = compression.mirrored - with_copies(program, families, (), ()).free
    wire = {number: -(-operators[number].elements * bits // 8) for number, bits in compression.bits.items()}
    for choice in compression.choices.values():
        size = 4 * operators[choice.first].elements
        wire[choice.first] = max(1, size * min(choice.until, steps) // steps)
    return Hints(families, wire, mirrored, {**compression.memories, **compression.copies})


def packed(program: Program, compression: Compression, divided: Partition) -> Partition:
    """The partition with how what crosses is sent."""
    needs = [Needs(program, compression.choices, divided, stage) for stage in range(len(divided.parts))]

    def with_packing(crossing: Crossing) -> Crossing:
        source, number = crossing.value
        if source == Source.STATE:
            return crossing
        needed = needs[crossing.receiver].of(number)
        return replace(crossing, packing=replace(needed, bits=compression.bits.get(number, FULL)))

    return replace(divided, crossings=tuple(with_packing(crossing) for crossing in divided.crossings))
