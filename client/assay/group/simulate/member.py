"""A member's process in a simulation: reads its orders as JSON, trains, prints its report as JSON."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from assay.group.compression.choice import parse_compression
from assay.group.pipeline.model import Workload, character_gpt, token_loss
from assay.group.pipeline.pacing import LinkPacer
from assay.group.pipeline.text import character_data
from assay.group.pipeline.worker import PipelineWorker, WorkerSettings


@dataclass(frozen=True)
class Trial:
    """What the simulated group trains: a character GPT, its batch, and how often to step.

    `warm_steps` come first and are not timed (connections, compiled kernels, first visits of the samples).
    """

    split: tuple[int, ...]
    replicas: int = 1
    microbatches: int = 8
    batch: int = 256
    samples: int = 256
    context: int = 64
    width: int = 64
    compression: str = "none"
    schedule: str = "gpipe"
    warm_steps: int = 1
    steps: int = 4
    learning_rate: float = 1e-3
    text: str = ""


def character_workload(
    batch: int,
    samples: int = 256,
    context: int = 64,
    width: int = 64,
    layers: int = 4,
    learning_rate: float = 1e-3,
    text: str = "",
) -> Workload:
    """A character GPT as a workload; every member that calls this with the same arguments builds the same."""
    data = character_data(samples, context, Path(text) if text else None)

    def order(step: int) -> torch.Tensor:
        epoch, position = divmod(step * batch, samples)
        generator = torch.Generator().manual_seed(epoch)
        return torch.randperm(samples, generator=generator)[position : position + batch]

    return Workload(
        build=lambda: character_gpt(data.vocabulary, context, width, layers, heads=max(1, width // 32)),
        inputs=data.inputs,
        targets=data.targets,
        order=order,
        loss=token_loss,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=learning_rate),
    )


def trial_workload(trial: Trial) -> Workload:
    """The workload that every member of the trial builds alike."""
    return character_workload(
        trial.batch, trial.samples, trial.context, trial.width, sum(trial.split), trial.learning_rate, trial.text
    )


def run_member(orders: dict[str, Any]) -> dict[str, Any]:
    """Join the group, train the trial, report seconds and bytes."""
    torch.set_num_threads(1)
    trial = Trial(**{**orders["trial"], "split": tuple(orders["trial"]["split"])})
    rank, size = int(orders["rank"]), int(orders["size"])
    os.environ["GLOO_SOCKET_IFNAME"] = orders["interface"]
    timeout = timedelta(seconds=float(orders["timeout_seconds"]))
    dist.init_process_group(
        "gloo", init_method=f"tcp://{orders['address']}:{orders['port']}", rank=rank, world_size=size, timeout=timeout
    )
    pacer = LinkPacer(orders["delay_seconds"], orders["bandwidth"]) if orders["delay_seconds"] else None
    settings = WorkerSettings(
        trial.split, trial.replicas, trial.microbatches, parse_compression(trial.compression), trial.schedule,
        timeout_seconds=timeout.total_seconds(),
    )  # fmt: skip
    worker = PipelineWorker(trial_workload(trial), settings, pacer=pacer)
    losses = [worker.step() for _ in range(trial.warm_steps)]
    warm_wire = asdict(worker.stage.wire)
    dist.barrier()
    seconds = []
    for _ in range(trial.steps):
        started = time.monotonic()
        losses.append(worker.step())
        seconds.append(time.monotonic() - started)
    dist.barrier()
    wire = asdict(worker.stage.wire)
    dist.destroy_process_group()
    return {
        "rank": rank,
        "seconds": seconds,
        "losses": [loss for loss in losses if loss is not None],
        "sent": {key: wire["sent"][key] - warm_wire["sent"][key] for key in wire["sent"]},
        "uncompressed": {key: wire["uncompressed"][key] - warm_wire["uncompressed"][key] for key in wire["sent"]},
        "exchanged": worker.average.sent_bytes,
    }


def main() -> None:
    """Entry point: the path of the orders, then the path for the report."""
    orders = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(run_member(orders)), encoding="utf-8")


if __name__ == "__main__":
    main()
