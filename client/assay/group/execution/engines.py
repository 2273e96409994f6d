"""How a group executes a task: in the exact arithmetic, or, a tolerant task, with PyTorch's own kernels.

Both divide the same way. An engine gives the program that is divided, the order of every stage, and the stages.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from assay.engine.cpu.device import CpuDevice
from assay.engine.device import Device
from assay.group.errors import MemoryLimitError
from assay.group.execution.declared.compression import hints_of, packed
from assay.group.execution.declared.program import read_compression
from assay.group.execution.native.checking import checking_program
from assay.group.execution.native.outline import Outline, outline
from assay.group.execution.native.stage import NativeStage
from assay.group.execution.partition import Partition, member_order, member_shares, partition
from assay.group.execution.pieces import WHOLE_BATCH, find_pieces
from assay.group.execution.schedule import StageSchedule, make_schedules
from assay.group.execution.stage import Stage, StageRun
from assay.group.execution.stage_program import StageProgram, stage_program
from assay.group.plan import GroupPlan
from assay.program.graph import Graph
from assay.program.operator import Program
from assay.training.task import TrainingTask


class StageEngine(ABC):
    """`program` is what members divide; `is_exact` says that all machines compute the same bits. `not_shared` says why
    the replicas of a stage do not share the batch, where they do not; they divide the stage's layers then."""

    program: Program
    is_exact: bool
    not_shared: str

    @abstractmethod
    def divide(self, shares: Sequence[float], memory_bytes: Sequence[float] = ()) -> Partition:
        """Who computes what; see `partition`. Members are in the order of stages, and of replicas within each."""

    def divide_plan(self, plan: GroupPlan, memory_bytes: Sequence[float] = ()) -> Partition:
        """Who computes what of a plan's members. Raises MemoryLimitError naming one that would hold more than its
        memory, PlacementError where the program cannot be divided so."""
        try:
            return self.divide(member_shares(plan), memory_bytes)
        except MemoryLimitError as error:
            raise error.naming(member_order(plan)) from error

    @abstractmethod
    def schedules(self, divided: Partition) -> tuple[StageSchedule, ...]:
        """The order of every stage."""

    @abstractmethod
    def stage_program(self, divided: Partition, stage: int) -> StageProgram:
        """What a member's statement about its stage is judged by."""

    @abstractmethod
    def stage(self, divided: Partition, schedule: StageSchedule) -> Stage:
        """A stage, compiled, without a state yet."""


class ExactEngine(StageEngine):
    """The canonical engine."""

    is_exact = True
    not_shared = "in exact mode sums are strictly sequential"

    def __init__(self, task: TrainingTask, microbatches: int, device: Device | None = None) -> None:
        self.task, self.device = task, device or CpuDevice(1)
        self.program, self.compression = read_compression(task.program)
        self.hints = hints_of(self.program, self.compression, task.steps)
        self.pieces = find_pieces(self.program, self.hints.families.free - self.hints.mirrored, microbatches)

    def divide(self, shares: Sequence[float], memory_bytes: Sequence[float] = ()) -> Partition:
        """Who computes what, and how many bits of it cross."""
        return packed(self.program, self.compression, partition(self.program, shares, memory_bytes, self.hints))

    def schedules(self, divided: Partition) -> tuple[StageSchedule, ...]:
        """The order of every stage."""
        return make_schedules(self.program, divided, self.pieces if len(divided.parts) > 1 else WHOLE_BATCH)

    def stage_program(self, divided: Partition, stage: int) -> StageProgram:
        """The stage itself as a program."""
        return stage_program(self.program, divided, stage, self.task.interval)

    def stage(self, divided: Partition, schedule: StageSchedule) -> Stage:
        """A stage in the exact arithmetic."""
        return StageRun(self.program, divided, schedule, self.task.data, self.task.seed, self.device)


class NativeEngine(StageEngine):
    """PyTorch's kernels on `device` ("cpu", "cuda"), for the recorded `graph` of a tolerant task. The `replicas` of a
    stage share the batch where the step allows it."""

    is_exact = False

    def __init__(
        self, task: TrainingTask, graph: Graph, microbatches: int, device: str = "cpu", replicas: int = 1
    ) -> None:
        self.task, self.device = task, device
        self.plan: Outline = outline(graph, microbatches, task.steps, replicas)
        self.program, self.not_shared = self.plan.program, self.plan.not_shared

    def divide(self, shares: Sequence[float], memory_bytes: Sequence[float] = ()) -> Partition:
        """Who computes what, and how many bits of it cross."""
        return self.plan.divide(shares, memory_bytes)

    def schedules(self, divided: Partition) -> tuple[StageSchedule, ...]:
        """The order of every stage."""
        pieces = self.plan.pieces if len(divided.parts) > 1 else WHOLE_BATCH
        return make_schedules(self.program, divided, pieces, [value.node for value in self.plan.values])

    def stage_program(self, divided: Partition, stage: int) -> StageProgram:
        """What tells garbage from rounding."""
        task = self.task
        return checking_program(self.plan, divided, stage, task.interval, task.steps, task.precision)

    def stage(self, divided: Partition, schedule: StageSchedule) -> Stage:
        """A stage with PyTorch's kernels."""
        task = self.task
        return NativeStage(self.plan, divided, schedule, task.data, task.seed, self.device, task.precision)


def engine_of(task: TrainingTask, graph: Graph | None, plan: GroupPlan, device: str, threads: int) -> StageEngine:
    """The engine for a task and a plan's pieces and replicas: native where the task's graph is given."""
    if graph is None:
        return ExactEngine(task, plan.microbatches, CpuDevice(threads))
    return NativeEngine(task, graph, plan.microbatches, device, plan.replicas)
