"""Launches: one kernel of a plan, ready to be run on given addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np

from assay.arithmetic.native_random import permutations, uniforms
from assay.engine.convolution_pattern import ConvolutionPattern, Part
from assay.engine.cpu import convolution, jit, launch, loops, pooling, scatter
from assay.engine.cpu.matmul import batch_offsets, plan_batched_matmul
from assay.engine.nest import LoopGroup
from assay.engine.patterns import Pattern, Permute, Product, Scatter, Uniform
from assay.engine.pooling_pattern import PoolingGradient
from assay.program.operator import Array, Operand, Operator, Source

Key = tuple[Source, int]


@dataclass(frozen=True)
class Addresses:
    """Where every tensor lies in a run."""

    arrays: Mapping[Key, Array]
    seed: int

    def array(self, source: Source, index: int) -> Array:
        return self.arrays[(source, index)]

    def address(self, key: Key) -> int:
        found = self.arrays.get(key)
        if found is None:
            raise KeyError(f"the section reads {key[0].name.lower()} tensor {key[1]}, which is not bound")
        return int(found.ctypes.data)

    def signature(self) -> tuple[int, ...]:
        return tuple(int(array.ctypes.data) for array in self.arrays.values())


class Launch(Protocol):
    """One kernel with its place in the plan."""

    writes: tuple[Key, ...]  # the operators whose output it writes to memory

    def prepare(self, addresses: Addresses) -> Any:
        """What can be worked out once for a set of addresses."""

    def run(self, prepared: Any, addresses: Addresses, step: int, threads: int) -> None: ...


class _WritesOne:
    """Launches of a single operator, which is always in memory."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.writes: tuple[Key, ...] = ((Source.OPERATOR, index),)

    def prepare(self, addresses: Addresses) -> Any:
        return None


class LoopLaunch:
    """A generated loop kernel."""

    def __init__(self, group: LoopGroup) -> None:
        self.group = group
        self.kernel = loops.generate(group)
        self.code = jit.compile_loops(self.kernel.text)
        inside = group.members_of
        self.writes: tuple[Key, ...] = tuple(
            key for key in self.kernel.slots if key[0] == Source.OPERATOR and key[1] in inside
        )

    def _record(self, addresses: Mapping[Key, int], step: int, first: int, end: int, workers: int) -> Any:
        size = self.kernel.scratch_bytes
        scratch = launch.scratch("loops", max(64, size * workers)) if size else 0
        words = [step, scratch, size, first, end, *(addresses[key] for key in self.kernel.slots)]
        return np.array(words, np.int64)

    def prepare(self, addresses: Addresses) -> Any:
        places = {key: addresses.address(key) for key in self.kernel.slots}
        return self._record(places, 0, 0, self.group.rows, 1)

    def run(self, prepared: Any, addresses: Addresses, step: int, threads: int) -> None:
        workers = min(threads, self.kernel.tasks)
        prepared[0] = step
        if self.kernel.scratch_bytes:
            prepared[1] = launch.scratch("loops", self.kernel.scratch_bytes * workers)
        launch.run(self.code, prepared, self.kernel.tasks, workers)


class BlockRunner:
    """Runs one block of rows of a group again with everything written out, to look at a value that otherwise never
    leaves the kernel. The group must keep all its operators."""

    def __init__(self, group: LoopGroup) -> None:
        self.launch = LoopLaunch(group)
        self.group = group
        self._nests = {nest.index: nest for nest in group.nests}
        slots = self.launch.kernel.slots
        places = [place for place, key in enumerate(slots) if key in self.launch.writes]
        self._buffers = {
            slots[place][1]: np.empty(group.block_rows * self._nests[slots[place][1]].row_elements, np.uint32)
            for place in places
        }
        self._words = np.array([loops.HEADER_WORDS + place for place in places], np.int64)
        self._starts = np.array([self._buffers[slots[place][1]].ctypes.data for place in places], np.int64)
        self._row_bytes = np.array([4 * self._nests[slots[place][1]].row_elements for place in places], np.int64)

    def prepare(self, addresses: Addresses) -> Any:
        """The record for a set of addresses, but for what depends on the block."""
        kernel = self.launch.kernel
        known = [0 if key in self.launch.writes else addresses.address(key) for key in kernel.slots]
        return np.array([0, 0, kernel.scratch_bytes, 0, 0, *known], np.int64)

    def bits(self, record: Any, elements: Sequence[tuple[int, int]], step: int) -> list[int]:
        """The 32 bits of some elements (operator, element), each block of rows run once."""
        block = self.group.block_rows
        found = [0] * len(elements)
        by_block: dict[int, list[int]] = {}
        for number, (index, element) in enumerate(elements):
            first = element // self._nests[index].row_elements // block * block
            by_block.setdefault(first, []).append(number)
        size = self.launch.kernel.scratch_bytes
        record[0], record[1] = step, launch.scratch("loops", size) if size else 0
        for first, numbers in by_block.items():
            record[3], record[4] = first, min(first + block, self.group.rows)
            # The kernel addresses whole tensors: shift the block so that its rows fall into place.
            record[self._words] = self._starts - first * self._row_bytes
            launch.run(self.launch.code, record, 1, 1)
            for number in numbers:
                index, element = elements[number]
                found[number] = int(self._buffers[index][element - first * self._nests[index].row_elements])
        return found


class _PlannedLaunch(_WritesOne):
    """Launches of hand-written kernels, planned once for a set of addresses and a number of threads."""

    def prepare(self, addresses: Addresses) -> dict[int, launch.Plan | convolution.InputGradientPlan]:
        return {}

    def run(
        self,
        prepared: dict[int, launch.Plan | convolution.InputGradientPlan],
        addresses: Addresses,
        step: int,
        threads: int,
    ) -> None:
        plan = prepared.get(threads)
        if plan is None:
            plan = prepared[threads] = self.plan(addresses, threads)
        plan.run()

    def plan(self, addresses: Addresses, threads: int) -> launch.Plan | convolution.InputGradientPlan:
        raise NotImplementedError


class ProductLaunch(_PlannedLaunch):
    """Matrix products."""

    def __init__(self, index: int, operator: Operator, pattern: Product) -> None:
        super().__init__(index)
        self.pattern = pattern
        self.left, self.right = operator.operands[pattern.left], operator.operands[pattern.right]

    def plan(self, addresses: Addresses, threads: int) -> launch.Plan:
        p = self.pattern
        a = addresses.array(self.left.source, self.left.index)
        b = addresses.array(self.right.source, self.right.index)
        c = addresses.array(Source.OPERATOR, self.index)
        extents = [dim[0] for dim in p.batch]
        offsets = [
            batch_offsets(offset, extents, [dim[1 + which] for dim in p.batch])
            for which, offset in enumerate((self.left.offset, self.right.offset, 0))
        ]
        return plan_batched_matmul(
            a, offsets[0], p.left_strides, b, offsets[1], p.right_strides, c, offsets[2], p.output_stride,
            p.rows, p.columns, p.depth, threads,
        )  # fmt: skip


class ConvolutionLaunch(_PlannedLaunch):
    """Convolutions and their gradients."""

    def __init__(self, index: int, operator: Operator, pattern: ConvolutionPattern) -> None:
        super().__init__(index)
        self.pattern = pattern
        self.windows, self.other = operator.operands[pattern.windows], operator.operands[pattern.other]

    def plan(self, addresses: Addresses, threads: int) -> launch.Plan | convolution.InputGradientPlan:
        shape = self.pattern.shape
        out: Any = addresses.array(Source.OPERATOR, self.index)

        def operand(read: Operand, size: tuple[int, ...]) -> Any:
            flat = addresses.array(read.source, read.index).reshape(-1)
            return flat[read.offset : read.offset + prod(size)]

        if self.pattern.part == Part.FORWARD:
            x, w = operand(self.windows, shape.x_shape), operand(self.other, shape.w_shape)
            return convolution.plan_forward(shape, x, w, out, threads)
        if self.pattern.part == Part.INPUT_GRADIENT:
            dy, w = operand(self.windows, shape.y_shape), operand(self.other, shape.w_shape)
            return convolution.InputGradientPlan(shape, dy, w, out, threads)
        x, dy = operand(self.windows, shape.x_shape), operand(self.other, shape.y_shape)
        return convolution.plan_weight_gradient(shape, x, dy, out, threads)


class PoolingGradientLaunch(_PlannedLaunch):
    """Input gradients of max pooling."""

    def __init__(self, index: int, operator: Operator, pattern: PoolingGradient) -> None:
        super().__init__(index)
        self.pattern, self.operands = pattern, operator.operands

    def plan(self, addresses: Addresses, threads: int) -> launch.Plan:
        chosen, _, value = self.operands
        out = addresses.array(Source.OPERATOR, self.index)
        numbers, gradient = (  # type: Any, Any
            addresses.array(each.source, each.index).reshape(-1)[each.offset :] for each in (chosen, value)
        )
        return pooling.plan_max_pool_gradient(self.pattern, numbers, gradient, out, threads)


class ScatterLaunch(_WritesOne):
    """Scatter-add of rows, in the fold's order."""

    def __init__(self, index: int, operator: Operator, pattern: Scatter) -> None:
        super().__init__(index)
        self.pattern = pattern
        by_index = operator.operands[1] if operator.operands[0].source == Source.INDEX else operator.operands[0]
        self.by, self.rows = by_index, operator.operands[2]
        self.code = jit.compile_loops(scatter.text(pattern))

    def prepare(self, addresses: Addresses) -> Any:
        keys = ((self.by.source, self.by.index), (self.rows.source, self.rows.index), self.writes[0])
        return np.array([addresses.address(key) for key in keys], np.int64)

    def run(self, prepared: Any, addresses: Addresses, step: int, threads: int) -> None:
        tasks = scatter.tasks(self.pattern)
        launch.run(self.code, prepared, tasks, min(threads, tasks))


class PermuteLaunch(_WritesOne):
    """Sample numbers of a batch."""

    def __init__(self, index: int, operator: Operator) -> None:
        super().__init__(index)
        self.operator = operator

    def run(self, prepared: Any, addresses: Addresses, step: int, threads: int) -> None:
        batch, samples = self.operator.p0, self.operator.p1
        output = addresses.array(Source.OPERATOR, self.index).reshape(-1)
        position, done = step * batch, 0
        while done < output.size:  # a batch may straddle epochs
            epoch, place = divmod(position + done, samples)
            number = min(output.size - done, samples - place)
            output[done : done + number] = permutations(addresses.seed, epoch, place, number, samples)
            done += number


class UniformLaunch(_WritesOne):
    """Uniform random numbers of one stream."""

    def __init__(self, index: int, operator: Operator) -> None:
        super().__init__(index)
        self.operator = operator

    def run(self, prepared: Any, addresses: Addresses, step: int, threads: int) -> None:
        output = addresses.array(Source.OPERATOR, self.index).reshape(-1)
        output[:] = uniforms(addresses.seed, step, self.operator.p0, 0, self.operator.elements)


def make_launch(what: LoopGroup | tuple[int, Pattern], operators: Sequence[Operator]) -> Launch:
    """The launch of a loop group or of a recognised operator."""
    if isinstance(what, LoopGroup):
        return LoopLaunch(what)
    index, pattern = what
    operator = operators[index]
    if isinstance(pattern, Product):
        return ProductLaunch(index, operator, pattern)
    if isinstance(pattern, ConvolutionPattern):
        return ConvolutionLaunch(index, operator, pattern)
    if isinstance(pattern, PoolingGradient):
        return PoolingGradientLaunch(index, operator, pattern)
    if isinstance(pattern, Scatter):
        return ScatterLaunch(index, operator, pattern)
    if isinstance(pattern, Permute):
        return PermuteLaunch(index, operator)
    if isinstance(pattern, Uniform):
        return UniformLaunch(index, operator)
    raise AssertionError(f"no launch for {pattern}")
