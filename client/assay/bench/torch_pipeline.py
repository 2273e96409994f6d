"""The benchmark's task by PyTorch's own pipeline stages and schedule: what `group_execution` compares with.

The same module with the same initial parameters, the same samples in the same steps, the same loss and the same fused
optimizer: with the batch in as many pieces, losses are those of the own execution but for rounding.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from assay.bench.group_execution import BATCH, RATE, SAMPLES, TIME, WEIGHT_DECAY, WIDTH, gpt_module
from assay.bench.models import Gpt, language_loss
from assay.engine.native import random
from assay.group.compression.choice import parse_compression
from assay.group.execution.task_files import read_task
from assay.group.generation import join_generation, run_trainer
from assay.group.pipeline.model import LayeredModel, Workload
from assay.group.pipeline.worker import PipelineWorker, WorkerSettings
from assay.group.plan import read_plan
from assay.training.task import TrainingTask


class _Entry(nn.Module):
    def __init__(self, model: Gpt) -> None:
        super().__init__()
        self.model = nn.ModuleList([model.tokens, model.positions])

    def forward(self, tokens: Tensor) -> Tensor:
        embedding, positions = self.model
        summed: Tensor = embedding(tokens) + positions(torch.arange(tokens.shape[1], device=tokens.device))
        return summed


def layered(model: Gpt) -> LayeredModel:
    """A GPT of the benchmarks as a row of layers; shares its parameters."""
    return LayeredModel(_Entry(model), tuple(model.blocks), nn.Sequential(model.norm, model.head), (TIME, WIDTH))


def workload_of(task: TrainingTask) -> Workload:
    """The task as the pipeline takes it."""
    inputs, targets = (torch.from_numpy(part).long() for part in task.data)
    return Workload(
        build=lambda: layered(gpt_module()),
        inputs=inputs,
        targets=targets,
        order=lambda step: torch.from_numpy(random.samples(task.seed, step, BATCH, SAMPLES)).long(),
        loss=language_loss,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=RATE, weight_decay=WEIGHT_DECAY, fused=True),
    )


def train_generation(orders: dict[str, Any]) -> dict[str, Any]:
    """Train the whole task as a member; returns the report."""
    plan = read_plan(Path(orders["plan"]))
    task, _ = read_task(orders["arguments"]["task"])
    join_generation(orders, plan.members)
    workload = workload_of(task)
    layers = len(workload.build().layers) // plan.stages
    settings = WorkerSettings((layers,) * plan.stages, plan.replicas, plan.microbatches, parse_compression("none"))
    worker = PipelineWorker(workload, settings)
    fastest, loss = math.inf, None
    for segment in range(task.segments):
        steps = task.segment_steps(segment)
        dist.barrier()
        started = time.monotonic()
        for _ in range(steps):
            loss = worker.step()
        fastest = min(fastest, (time.monotonic() - started) / steps)
    dist.barrier()
    dist.destroy_process_group()
    return {"step_seconds": fastest, "loss": loss, "sent_bytes": sum(worker.stage.wire.sent.values())}


if __name__ == "__main__":
    run_trainer(train_generation)
