"""A training task as every role sees it: program, initial state, data and schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from hashlib import sha256

from assay.commitments.execution import data_root, state_root
from assay.program.encoding import program_root
from assay.program.operator import Array, ElementType, Program, Role, TensorDescriptor
from assay.program.sections import Precision
from assay.training.errors import TaskError

MAX_STEPS = 2**31 - 1
"""The step number is an int32 wherever a program reads it."""
MOST_SEGMENTS = 2**20 - 1
"""Of a task: a proof of more has a manifest that nobody reads."""
FEWEST_PROFILED, MOST_PROFILED = 4, 12
"""Segments that a profile covers unless the task says otherwise: a quarter of the run, within these. Momenta and
running means settle over dozens of steps. Four segments of a few steps see only how they start, when they move most: an
honest MLP at tf32 was over such thresholds in one segment of a thousand, over those of twelve in two of ten thousand
(attacks/SEPARATION.md)."""


def usually_profiled(segments: int) -> int:
    """How many of a task's segments are profiled unless it says otherwise."""
    return min(segments, max(FEWEST_PROFILED, min(MOST_PROFILED, segments // 4)))


class Mode(Enum):
    """How a proof is judged."""

    EXACT = "exact"  # the solver trains canonically; roots must be equal
    TOLERANT = "tolerant"  # the solver trains natively; distances must stay within the profiled thresholds


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """Everything needed to train, and nothing about money.

    `state` and `data` are float32 or int32 arrays in the program's order. Raises `TaskError` where they do not fit the
    program, or where the schedule is impossible.
    """

    program: Program
    state: tuple[Array, ...]
    data: tuple[Array, ...]
    seed: int
    steps: int
    interval: int  # steps a segment
    mode: Mode = Mode.EXACT
    precision: Precision = Precision.FP32

    def __post_init__(self) -> None:
        check_tensors("initial state", self.program.state, self.state)
        check_tensors("data", self.program.data, self.data)
        if not 0 <= self.seed < 2**64:
            raise TaskError(f"the seed is a 64-bit number, not {self.seed}: choose one in [0, 2^64)")
        if not 1 <= self.steps <= MAX_STEPS:
            raise TaskError(f"a task has between 1 and {MAX_STEPS} steps, not {self.steps}: set `steps`")
        if not 1 <= self.interval <= self.steps:
            raise TaskError(f"the checkpoint interval is between 1 and the {self.steps} steps, not {self.interval}")
        if self.segments > MOST_SEGMENTS:
            raise TaskError(
                f"a task has at most {MOST_SEGMENTS} segments, and {self.steps} steps of which {self.interval} are one "
                f"make {self.segments}: lengthen the checkpoint interval"
            )
        for role in (Role.DISTANCE, Role.NOISY_STEP, Role.DEVIATION) if self.mode is Mode.TOLERANT else ():
            if not self.program.has(role):
                raise TaskError(f"a tolerant task needs the {role.name.lower()} section, which the program lacks")

    @property
    def segments(self) -> int:
        return -(-self.steps // self.interval)

    def first_step(self, segment: int) -> int:
        """Global number of the segment's first step."""
        if not 0 <= segment < self.segments:
            raise TaskError(f"segment {segment} does not exist: the task has {self.segments}, numbered from 0")
        return segment * self.interval

    def segment_steps(self, segment: int) -> int:
        """Steps of a segment; the last one may be shorter."""
        return min(self.interval, self.steps - self.first_step(segment))

    @cached_property
    def program_root(self) -> bytes:
        return program_root(self.program)

    @cached_property
    def initial_root(self) -> bytes:
        return state_root(self.state)

    @cached_property
    def data_root(self) -> bytes:
        return data_root(self.data)

    @cached_property
    def fingerprint(self) -> bytes:
        """Identifies the run this task asks for: program, data, initial state, seed and schedule."""
        schedule = f"{self.seed} {self.steps} {self.interval}".encode()
        return sha256(self.program_root + self.data_root + self.initial_root + schedule).digest()

    @property
    def state_bytes(self) -> int:
        return sum(4 * entry.count for entry in self.program.state)


def check_tensors(what: str, descriptors: Sequence[TensorDescriptor], arrays: Sequence[Array]) -> None:
    """Raise `TaskError` unless the arrays have the descriptors' types and shapes."""
    if len(descriptors) != len(arrays):
        raise TaskError(f"the {what} has {len(arrays)} tensors, the program wants {len(descriptors)}")
    for number, (descriptor, array) in enumerate(zip(descriptors, arrays, strict=True)):
        if array.dtype != descriptor.type.dtype:
            raise TaskError(f"{what} tensor {number} ({descriptor.name}) is {array.dtype}, not {descriptor.type.dtype}")
        if tuple(array.shape) != descriptor.shape:
            raise TaskError(
                f"{what} tensor {number} ({descriptor.name}) has shape {tuple(array.shape)}, not {descriptor.shape}"
            )


def is_float(descriptor: TensorDescriptor) -> bool:
    return descriptor.type is ElementType.FLOAT
