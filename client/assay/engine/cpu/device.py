"""The CPU back end: plans a section into launches of kernels over one arena of memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from assay.engine.cpu import isa
from assay.engine.cpu.launches import Addresses, BlockRunner, Launch, make_launch
from assay.engine.device import Bindings, Element, typed
from assay.engine.grouping import Grouping, build_group
from assay.engine.patterns import Pattern, recognise
from assay.program.operator import Array, ElementType, Operator, Program, Role, Source

ALIGNMENT = 64
RECORD_VARIANTS = 4
"""Sets of addresses remembered by an executable: a run alternates between two states' buffers."""


@dataclass
class _Records:
    """What launches worked out for one set of addresses."""

    launches: list[Any]
    blocks: dict[int, Any] = field(default_factory=dict)


class CpuDevice:
    """Canonical execution on the CPU; the same bits for any number of threads and any vector unit."""

    name = "cpu"

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads

    def compile(
        self,
        program: Program,
        role: Role,
        keep: Collection[int],
        observe: Callable[[int, Array], None] | None = None,
    ) -> CpuExecutable:
        return CpuExecutable(program, role, keep, self.threads, observe)


def _types(program: Program, operators: Sequence[Operator]) -> dict[tuple[Source, int], ElementType]:
    types: dict[tuple[Source, int], ElementType] = {(Source.THRESHOLD, 0): ElementType.FLOAT}
    for source in (Source.STATE, Source.COMPARED, Source.START, Source.NOISY, Source.PENULTIMATE):
        types.update({(source, number): entry.type for number, entry in enumerate(program.state)})
    types.update({(Source.DATA, number): entry.type for number, entry in enumerate(program.data)})
    types.update({(Source.CONSTANT, number): ElementType.of(array) for number, array in enumerate(program.constants)})
    types.update({(Source.OPERATOR, number): operator.type for number, operator in enumerate(operators)})
    return types


class CpuExecutable:
    """A section planned for the CPU."""

    def __init__(
        self,
        program: Program,
        role: Role,
        keep: Collection[int],
        threads: int | None = None,
        observe: Callable[[int, Array], None] | None = None,
    ) -> None:
        self.operators = program.section(role).operators
        self.constants = program.constants
        self.threads = threads
        self.keep = frozenset(keep)
        self.observe = observe
        self._types = _types(program, self.operators)
        patterns: dict[int, Pattern] = {}
        fusable: set[int] = set()
        for index, operator in enumerate(self.operators):
            pattern = recognise(operator)
            if pattern is None:
                fusable.add(index)
            else:
                patterns[index] = pattern
        clusters = Grouping(self.operators, fusable).ordered()
        readers: dict[int, set[int]] = {}
        place_of = {index: place for place, cluster in enumerate(clusters) for index in cluster.operators}
        for index, operator in enumerate(self.operators):
            for operand in operator.operands:
                if operand.source == Source.OPERATOR:
                    readers.setdefault(operand.index, set()).add(place_of[index])
        if observe is not None:
            outside = set(range(len(self.operators)))
        else:
            outside = {i for i, places in readers.items() if places != {place_of[i]}} | self.keep
            outside |= set(patterns)
        self.launches: list[Launch] = []
        self._place_of = place_of
        self._clusters = clusters
        self._blocks: dict[int, BlockRunner] = {}
        self._patterns = patterns
        held: list[set[int]] = []
        for cluster in clusters:
            if cluster.fusable:
                group = build_group(self.operators, cluster, outside, self._types, isa.UNIT.lanes)
                launch = make_launch(group, self.operators)
            else:
                index = cluster.operators[0]
                launch = make_launch((index, patterns[index]), self.operators)
            self.launches.append(launch)
            held.append({key[1] for key in launch.writes})
        self._layout(held, readers)
        self._records: dict[tuple[int, ...], _Records] = {}

    # -- memory --------------------------------------------------------------------------------------------------

    def _layout(self, held: list[set[int]], readers: dict[int, set[int]]) -> None:
        """Place every materialised value in the arena; values whose lives do not meet share memory."""
        last_use = {
            index: max(readers.get(index, set()) | {place}, default=place)
            for place, values in enumerate(held)
            for index in values
        }
        if self.observe is None:
            for index in self.keep:
                last_use[index] = len(held)
        offsets: dict[int, int] = {}
        free: list[tuple[int, int]] = []  # offset, size; sorted by offset
        end = 0
        expiring: dict[int, list[int]] = {}
        for place, values in enumerate(held):
            for index in sorted(values, key=lambda i: -self.operators[i].elements):
                size = -(-4 * self.operators[index].elements // ALIGNMENT) * ALIGNMENT
                best = min((block for block in free if block[1] >= size), key=lambda block: block[1], default=None)
                if best is None:
                    offsets[index] = end
                    end += size
                else:
                    free.remove(best)
                    offsets[index] = best[0]
                    if best[1] > size:
                        free.append((best[0] + size, best[1] - size))
                expiring.setdefault(last_use[index], []).append(index)
            for index in expiring.pop(place, []):
                size = -(-4 * self.operators[index].elements // ALIGNMENT) * ALIGNMENT
                free = _release(free, offsets[index], size)
        self._offsets = offsets
        arena = np.empty(end + ALIGNMENT, np.uint8)
        shift = -arena.ctypes.data % ALIGNMENT
        self._arena = arena[shift : shift + end]

    @property
    def memory_bytes(self) -> int:
        return int(self._arena.size)

    def value(self, operator: int) -> Array:
        return self._own(operator).reshape(self.operators[operator].extents)

    def _own(self, index: int) -> Array:
        operator = self.operators[index]
        start = self._offsets[index]
        return typed(self._arena[start : start + 4 * operator.elements], operator.type)

    # -- running -------------------------------------------------------------------------------------------------

    def run(
        self,
        bindings: Bindings,
        step: int,
        outputs: Mapping[int, Array],
        watch: Sequence[Element] = (),
    ) -> npt.NDArray[np.uint32]:
        addresses = self._addresses(bindings, outputs)
        signature = addresses.signature()
        records = self._records.get(signature)
        if records is None:
            if len(self._records) >= RECORD_VARIANTS:
                self._records.clear()
            records = self._records[signature] = _Records([launch.prepare(addresses) for launch in self.launches])
        threads = isa.threads(self.threads)
        watched = np.zeros(len(watch), np.uint32)
        by_place: dict[int, list[int]] = {}
        for number, (index, _) in enumerate(watch):
            by_place.setdefault(self._place_of[index], []).append(number)
        for place, launch in enumerate(self.launches):
            launch.run(records.launches[place], addresses, step, threads)
            numbers = by_place.get(place)
            if numbers:
                watched[numbers] = self._watch(place, [watch[n] for n in numbers], addresses, records, step)
            if self.observe is not None:
                for index in self._clusters[place].operators:
                    self.observe(index, addresses.array(Source.OPERATOR, index))
        return watched

    def _addresses(self, bindings: Bindings, outputs: Mapping[int, Array]) -> Addresses:
        arrays: dict[tuple[Source, int], Array] = dict(bindings.arrays)
        for number, constant in enumerate(self.constants):
            arrays[(Source.CONSTANT, number)] = constant
        for index in self._offsets:
            arrays[(Source.OPERATOR, index)] = outputs[index] if index in outputs else self._own(index)
        return Addresses(arrays, bindings.seed)

    def _watch(
        self, place: int, elements: Sequence[Element], addresses: Addresses, records: _Records, step: int
    ) -> list[int]:
        """The bits of some elements of the operators of the launch that has just run."""
        found = [0] * len(elements)
        inside: list[int] = []
        for number, (index, element) in enumerate(elements):
            held = addresses.arrays.get((Source.OPERATOR, index))
            if held is None:
                inside.append(number)
            else:
                found[number] = int(held.reshape(-1)[element].view(np.uint32))
        if inside:
            runner = self._blocks.get(place)
            if runner is None:
                cluster = self._clusters[place]
                group = build_group(self.operators, cluster, cluster.operators, self._types, isa.UNIT.lanes)
                runner = self._blocks[place] = BlockRunner(group)
            record = records.blocks.get(place)
            if record is None:
                record = records.blocks[place] = runner.prepare(addresses)
            bits = runner.bits(record, [elements[number] for number in inside], step)
            for number, value in zip(inside, bits, strict=True):
                found[number] = value
        for number, (index, _) in enumerate(elements):
            if self.operators[index].type == ElementType.FLOAT and (found[number] & 0x7FFFFFFF) > 0x7F800000:
                found[number] = 0x7FC00000
        return found


def _release(free: list[tuple[int, int]], offset: int, size: int) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, length in sorted([*free, (offset, size)]):
        if merged and merged[-1][0] + merged[-1][1] == start:
            merged[-1] = (merged[-1][0], merged[-1][1] + length)
        else:
            merged.append((start, length))
    return merged
