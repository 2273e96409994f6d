"""One member's part of a training step: its stage, its replica's boundaries, its stage's replicas."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.pipelining.schedules import PipelineScheduleSingle, Schedule1F1B, ScheduleGPipe

from assay.group.checkpoint import MemberParts
from assay.group.compression.boundary import BoundaryCodec, ChangeCodec, make_codec
from assay.group.compression.choice import CompressionChoice
from assay.group.errors import PlacementError
from assay.group.pipeline.model import Workload
from assay.group.pipeline.pacing import LinkPacer
from assay.group.pipeline.reduce import ReplicaAverage
from assay.group.pipeline.stage import CompressedStage, MessageObserver

SCHEDULES: dict[str, type[PipelineScheduleSingle]] = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B}


@dataclass(frozen=True)
class WorkerSettings:
    """Shape and manner of a group's run; equal on all members. Rank r is stage r % S of replica r // S.

    `schedule`: "gpipe" (all micro-batches forward, then all back) fills links with delay; "1f1b" needs less memory but
    lets only as many micro-batches travel as there are stages, so every one waits for a round trip.
    """

    split: tuple[int, ...]
    replicas: int
    microbatches: int
    compression: CompressionChoice
    schedule: str = "gpipe"
    cache_directory: Path | None = None
    device: str = "cpu"
    timeout_seconds: float = 300.0

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.split)


class PipelineWorker:
    """Runs steps of a workload as one member of an initialised process group of stages * replicas ranks."""

    def __init__(
        self,
        workload: Workload,
        settings: WorkerSettings,
        observer: MessageObserver | None = None,
        pacer: LinkPacer | None = None,
    ) -> None:
        world = dist.get_world_size()
        if world != settings.stages * settings.replicas:
            raise PlacementError(
                f"the plan has {settings.stages} x {settings.replicas} members, the process group {world}; start one "
                "process for every member"
            )
        rank = dist.get_rank()
        self.workload, self.settings = workload, settings
        self.replica, self.stage_index = divmod(rank, settings.stages)
        batch = workload.order(0).numel()
        if batch % (settings.replicas * settings.microbatches):
            raise PlacementError(
                f"a batch of {batch} samples does not divide into {settings.replicas} replicas of "
                f"{settings.microbatches} micro-batches; change the batch or the plan"
            )
        self.share = batch // settings.replicas
        self.microbatch = self.share // settings.microbatches
        pipeline_group, replica_group = _groups(settings)
        device = torch.device(settings.device)
        model = workload.build()
        self.module = model.stage(settings.split, self.stage_index).to(device)
        samples = workload.inputs.shape[0]

        def codec(boundary: int) -> BoundaryCodec | None:
            if not 0 <= boundary < settings.stages - 1:
                return None
            name = f"replica-{self.replica}-boundary-{boundary}-stage-{self.stage_index}"
            return make_codec(settings.compression, model.boundary_shape, samples, settings.cache_directory, name)

        self.before, self.after = codec(self.stage_index - 1), codec(self.stage_index)
        self.codecs = [c for c in (self.before, self.after) if c is not None]
        # The layers between the entry and the exit keep one shape, so all examples are known without running anything.
        example = torch.empty(self.microbatch, *model.boundary_shape, device=device)
        first, last = self.stage_index == 0, self.stage_index == settings.stages - 1
        example_input = workload.inputs[: self.microbatch].to(device) if first else example.clone().requires_grad_()
        with torch.no_grad():
            example_output = self.module(example_input.detach()) if last else example.clone()
        self.stage = CompressedStage(
            self.module, self.stage_index, settings.stages, self.microbatch, example_input,
            example_output.requires_grad_(), self.before, self.after, pipeline_group,
            device, observer, pacer,
        )  # fmt: skip
        if settings.schedule not in SCHEDULES:
            raise PlacementError(f"no schedule is called {settings.schedule!r}; use one of {', '.join(SCHEDULES)}")
        schedule: Callable[..., PipelineScheduleSingle] = SCHEDULES[settings.schedule]
        self.schedule = schedule(self.stage, settings.microbatches, loss_fn=workload.loss)
        self.parameters = [p for p in self.module.parameters() if p.requires_grad]
        self.optimizer = workload.optimizer(self.parameters)
        self.average = ReplicaAverage(
            sum(p.numel() for p in self.parameters), replica_group, settings.compression.gradient_bits, pacer
        )
        self.parts = MemberParts(self.module, self.optimizer, self.codecs, self.average)
        self.step_number = 0
        self.busy_seconds = 0.0

    def samples_of(self, step: int) -> torch.Tensor:
        """The sample numbers that this member's replica works on in a step."""
        return share_batch(self.workload.order(step), self.settings.replicas)[self.replica]

    def step(self) -> float | None:
        """Train one step; returns the replica's mean loss on the last stage, None elsewhere."""
        started, waited = time.monotonic(), self.stage.waited_seconds
        samples = self.samples_of(self.step_number)
        self.stage.begin_step(samples)
        losses: list[torch.Tensor] = []
        inputs: list[Any] = []
        target = None
        if self.stage.is_first:
            inputs.append(self.workload.inputs[samples].to(self.stage.device))
        if self.stage.is_last:
            target = self.workload.targets[samples].to(self.stage.device)
        self.schedule.step(*inputs, target=target, losses=losses if self.stage.is_last else None, return_outputs=False)
        # Waiting for neighbours is their time; what is left tells a slow member from a slow group.
        self.busy_seconds += time.monotonic() - started - (self.stage.waited_seconds - waited)
        self._average_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        self.step_number += 1
        return float(torch.stack(losses).detach().mean()) if self.stage.is_last else None

    def begin_segment(self) -> None:
        """Forget earlier visits, so that the steps from here can be replayed from the parameters alone."""
        for codec in self.codecs:
            if isinstance(codec, ChangeCodec):
                codec.cache.forget()

    def _average_gradients(self) -> None:
        if self.average.size == 1:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        flat = self.average.average(torch.cat([gradient.flatten() for gradient in gradients]))
        at = 0
        for parameter in self.parameters:
            parameter.grad = flat[at : at + parameter.numel()].view_as(parameter).clone()
            at += parameter.numel()


def share_batch(numbers: torch.Tensor, replicas: int) -> torch.Tensor:
    """Deal a batch out to replicas evenly: (batch,) to (replicas, batch / replicas).

    A sample goes to the same replica in every epoch (its number modulo the replicas) as far as even shares allow,
    because what a boundary remembers of a sample lies with the replica that saw it. Those left over fill the gaps in
    order. The batch, and so the averaged gradient, is the same as without replicas.
    """
    share = numbers.numel() // replicas
    home = numbers % replicas
    kept = [numbers[home == replica][:share] for replica in range(replicas)]
    rest = torch.cat([numbers[home == replica][share:] for replica in range(replicas)])
    shares = []
    for own in kept:
        missing = share - own.numel()
        shares.append(torch.cat([own, rest[:missing]]))
        rest = rest[missing:]
    return torch.stack(shares)


def _groups(settings: WorkerSettings) -> tuple[dist.ProcessGroup, dist.ProcessGroup]:
    """This member's pipeline and its stage's replicas. Every member makes all groups, in the same order."""
    rank = dist.get_rank()
    timeout = timedelta(seconds=settings.timeout_seconds)
    grid = torch.arange(settings.replicas * settings.stages).reshape(settings.replicas, settings.stages)
    pipelines = [dist.new_group(row.tolist(), timeout=timeout) for row in grid]
    replicas = [dist.new_group(column.tolist(), timeout=timeout) for column in grid.T]
    return pipelines[rank // settings.stages], replicas[rank % settings.stages]
