"""One segment's execution as a player needs it: every tree of it, made when it is asked for.

`LocalExecution` reruns steps from the segment's start; it keeps the states after every step and the outputs of the step
asked for last. How a section is run is a parameter, so that the fast engine can take the interpreter's place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Protocol

import numpy as np

from assay.arithmetic.philox import philox
from assay.commitments import tensor
from assay.commitments.execution import TRACE_VALUES
from assay.dispute.errors import DisputeError
from assay.dispute.hash_tree import ChunkTree, HashTree, LeafTree, TensorTree, root
from assay.program.interpreter import Inputs, run_section
from assay.program.operator import Array, ElementType, Operator, Program, Role, Source
from assay.program.reference import StepContext, partial_sums

TRACE_STREAM = 0xFFFFFFFF

Runner = Callable[[Program, Role, Inputs], Sequence[Array]]
"""Runs a section and returns all its operators' outputs."""


class Execution(Protocol):
    """What a player reads. Steps count from 0 in the segment; the state of step -1 is the segment's start."""

    @property
    def program(self) -> Program: ...
    @property
    def steps(self) -> int: ...
    @property
    def context(self) -> StepContext:
        """Seed of the task, and the global number of the segment's first step."""
        ...

    @property
    def draw_seed(self) -> int: ...

    def segment(self, role: Role) -> HashTree:
        """Over the state roots after each step of the clean (step) or noisy run."""
        ...

    def trace(self, role: Role) -> HashTree:
        """Over the trace chunks of each step."""
        ...

    def trace_chunk(self, role: Role, step: int) -> bytes:
        """The 256 bytes of a step's trace."""
        ...

    def state(self, role: Role, step: int) -> HashTree:
        """Over the tensor roots of the state after a step."""
        ...

    def outputs(self, role: Role, step: int) -> HashTree:
        """Over the operators' output roots."""
        ...

    def output(self, role: Role, step: int, operator: int) -> ChunkTree: ...

    def sums(self, role: Role, step: int, operator: int, element: int) -> ChunkTree:
        """The partial sums of a fold's element."""
        ...

    def tensor(self, role: Role, step: int, source: Source, index: int) -> ChunkTree:
        """A tensor that operators of a section read at a step, from any source with tensors."""
        ...

    def tensors(self, role: Role, step: int, source: Source) -> HashTree:
        """The tree over such a source's tensors."""
        ...


def trace_position(draw_seed: int, step: int, place: int, operators: Sequence[Operator]) -> tuple[int, int]:
    """Operator and element that value `place` of global step `step`'s trace is of (FORMAT, section 1)."""
    operator = philox(draw_seed, step, TRACE_STREAM, 2 * place) % len(operators)
    element = philox(draw_seed, step, TRACE_STREAM, 2 * place + 1) % operators[operator].elements
    return operator, element


def word_of(value: Array, position: int) -> int:
    """The canonical 32 bits of one element of a flat or shaped array."""
    return int.from_bytes(tensor.chunk(value.reshape(-1)[position : position + 1], 0)[:4], "little")


def context_of(execution: Execution, role: Role, step: int) -> StepContext:
    """What a section knows at a step: its global number, which reads 0 outside the steps."""
    first = execution.context.step + step if role in (Role.STEP, Role.NOISY_STEP) else 0
    return StepContext(execution.context.seed, first)


def interpret(program: Program, role: Role, inputs: Inputs) -> Sequence[Array]:
    """The slow runner: the interpreter."""
    return run_section(program, role, inputs).outputs


@dataclass(frozen=True, eq=False)
class LocalExecution:
    """A segment run here. `context.step` is the global number of its first step."""

    program: Program
    context: StepContext
    steps: int
    start: Sequence[Array]
    data: Sequence[Array]
    draw_seed: int = 0
    compared: Sequence[Array] = ()
    threshold: Array | None = None
    runner: Runner = interpret
    _states: dict[Role, list[Sequence[Array]]] = field(default_factory=dict, repr=False)
    _traces: dict[Role, list[bytes]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        # Each entry is a whole step's outputs, or their hashes: only the last few are kept.
        object.__setattr__(self, "run_outputs", lru_cache(maxsize=2)(self._run_outputs))
        object.__setattr__(self, "outputs", lru_cache(maxsize=2)(self._outputs))
        object.__setattr__(self, "segment", lru_cache(maxsize=2)(self._segment))

    run_outputs: Callable[[Role, int], Sequence[Array]] = field(init=False, repr=False)
    outputs: Callable[[Role, int], HashTree] = field(init=False, repr=False)
    segment: Callable[[Role], HashTree] = field(init=False, repr=False)

    def inputs(self, role: Role, step: int) -> Inputs:
        """What a section reads at a step."""
        context = context_of(self, role, step)
        if role in (Role.STEP, Role.NOISY_STEP):
            return Inputs(self.arrays(role, step - 1), self.data, context)
        end = self.arrays(Role.STEP, self.steps - 1)
        inputs = Inputs(end, self.data, context, start=self.start, threshold=self.threshold)
        if role == Role.DISTANCE:
            return replace(inputs, compared=self.compared)
        noisy = self.arrays(Role.NOISY_STEP, self.steps - 1)
        return replace(inputs, noisy=noisy, penultimate=self.arrays(Role.STEP, self.steps - 2))

    def _run_outputs(self, role: Role, step: int) -> Sequence[Array]:
        return self.runner(self.program, role, self.inputs(role, step))

    def arrays(self, role: Role, step: int) -> Sequence[Array]:
        """The state after a step of the clean or noisy run; -1 is the start."""
        if step < 0:
            return self.start
        states = self._states.setdefault(role, [])
        section = self.program.section(role)
        while len(states) <= step:
            number = len(states)
            before = self.start if number == 0 else states[-1]
            outputs = self.run_outputs(role, number)
            self._traces.setdefault(role, []).append(self._trace_of(role, number, outputs))
            states.append(
                [
                    before[place] if entry.operator is None else outputs[entry.operator]
                    for place, entry in enumerate(section.next_state)
                ]
            )
        return states[step]

    def _trace_of(self, role: Role, step: int, outputs: Sequence[Array]) -> bytes:
        operators = self.program.section(role).operators
        words = []
        for place in range(TRACE_VALUES):
            operator, element = trace_position(self.draw_seed, self.context.step + step, place, operators)
            words.append(word_of(outputs[operator], element).to_bytes(4, "little"))
        return b"".join(words)

    def _segment(self, role: Role) -> HashTree:
        return LeafTree([root(self.state(role, step)) for step in range(self.steps)])

    def trace(self, role: Role) -> HashTree:
        chunks = [self.trace_chunk(role, step) for step in range(self.steps)]
        return LeafTree([tensor.chunk_leaf(chunk.ljust(tensor.CHUNK_BYTES, b"\0")) for chunk in chunks])

    def trace_chunk(self, role: Role, step: int) -> bytes:
        self.arrays(role, step)
        return self._traces[role][step]

    def state(self, role: Role, step: int) -> HashTree:
        return _tensors(self.arrays(role, step))

    def _outputs(self, role: Role, step: int) -> HashTree:
        return _tensors(self.run_outputs(role, step))

    def output(self, role: Role, step: int, operator: int) -> ChunkTree:
        return TensorTree(self.run_outputs(role, step)[operator])

    def sums(self, role: Role, step: int, operator: int, element: int) -> ChunkTree:
        record = self.program.section(role).operators[operator]
        context = context_of(self, role, step)

        def read(source: Source, index: int, position: int) -> int:
            return word_of(self._source(role, step, source)[index], position)

        words = np.array(list(partial_sums(record, element, read, context)), np.uint32)
        values: Array = words.view(np.float32) if record.type == ElementType.FLOAT else words.view(np.int32)
        return TensorTree(values)

    def tensor(self, role: Role, step: int, source: Source, index: int) -> ChunkTree:
        return TensorTree(self._source(role, step, source)[index])

    def tensors(self, role: Role, step: int, source: Source) -> HashTree:
        return _tensors(self._source(role, step, source))

    def _source(self, role: Role, step: int, source: Source) -> Sequence[Array]:
        if source == Source.OPERATOR:
            return self.run_outputs(role, step)
        if source == Source.CONSTANT:
            return self.program.constants
        inputs = self.inputs(role, step)
        if source == Source.THRESHOLD:
            if inputs.threshold is None:
                raise DisputeError("the execution was given no threshold vector: pass the one in force")
            return [inputs.threshold]
        tables = {
            Source.STATE: inputs.state,
            Source.DATA: inputs.data,
            Source.COMPARED: inputs.compared,
            Source.START: inputs.start,
            Source.NOISY: inputs.noisy,
            Source.PENULTIMATE: inputs.penultimate,
        }
        return tables[source]


def _tensors(arrays: Sequence[Array]) -> HashTree:
    return LeafTree([root(TensorTree(array)) for array in arrays])
