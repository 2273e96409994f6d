"""The process that trains a pipeline of PyTorch modules for one member during one generation of a group."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from assay.group.checkpoint import complete_checkpoints, group_state_root, load_part, part_path, save_part, tensor_roots
from assay.group.compression.choice import parse_compression
from assay.group.generation import (
    exchange_statements,
    inject,
    join_generation,
    ordered_fault,
    report_slow_members,
    run_trainer,
)
from assay.group.pipeline.model import Workload
from assay.group.pipeline.stage import BACKWARD, FORWARD
from assay.group.pipeline.worker import PipelineWorker, WorkerSettings
from assay.group.plan import GroupPlan, read_plan
from assay.group.transcript import Transcript


def load_factory(name: str) -> Callable[..., Workload]:
    """The function "module:function" that builds the workload. It is this member's own code, never a peer's."""
    module, _, function = name.partition(":")
    found: Callable[..., Workload] = getattr(importlib.import_module(module), function)
    return found


def train_generation(orders: dict[str, Any]) -> dict[str, Any]:
    """Train from the newest complete checkpoint to the last step; returns the report of this member."""
    plan = read_plan(Path(orders["plan"]))
    name, generation, directory = orders["name"], int(orders["generation"]), Path(orders["directory"])
    store = join_generation(orders, plan.members)
    workload = load_factory(orders["factory"])(**orders["arguments"])
    settings = WorkerSettings(
        plan.layers, plan.replicas, plan.microbatches, parse_compression(plan.compression),
        timeout_seconds=float(orders["timeout_seconds"]),
    )  # fmt: skip
    transcript = Transcript()
    worker = PipelineWorker(workload, settings, transcript.observe)
    _resume(worker, plan, directory)
    first = worker.step_number
    losses: dict[int, float] = {}
    segment = worker.step_number
    while worker.step_number < int(orders["steps"]):
        transcript.step = worker.step_number
        if kind := ordered_fault(orders, worker.step_number):
            inject(kind)
        loss = worker.step()
        if loss is not None:
            losses[worker.step_number - 1] = loss
        store.set(f"progress/{name}", str(worker.step_number))
        if worker.step_number % int(orders["checkpoint_interval"]) == 0 or worker.step_number == int(orders["steps"]):
            place = part_path(directory, worker.step_number, plan.stages, worker.stage_index, worker.replica)
            if orders.get("keys"):
                sent, received = _links(plan, worker)
                exchange_statements(store, orders, transcript, (segment, worker.step_number), sent, received)
            save_part(worker.parts, place)
            dist.barrier()
            transcript.begin_segment()
            segment = worker.step_number
            report_slow_members(
                store, generation, plan.members, worker.busy_seconds / plan.layers[worker.stage_index],
                float(orders.get("slow_factor", 0)), bool(plan.spares) and worker.step_number < int(orders["steps"]),
            )  # fmt: skip
            worker.busy_seconds = 0.0
    root = _state_root(worker, plan)
    dist.destroy_process_group()
    return {
        "rank": plan.members.index(name),
        "generation": generation,
        "first_step": first,
        "losses": losses,
        "state_root": root.hex(),
        "sent": worker.stage.wire.sent,
    }


def _resume(worker: PipelineWorker, plan: GroupPlan, directory: Path) -> None:
    """Load the newest complete checkpoint. All members see the same one: they passed a barrier after writing it."""
    checkpoints = complete_checkpoints(directory)
    if checkpoints:
        worker.step_number, paths = checkpoints[0]
        # Caches are valid only where every member finds its own: same shape, same samples for each replica.
        places = [
            part_path(directory, worker.step_number, plan.stages, stage, replica)
            for stage in range(plan.stages)
            for replica in range(plan.replicas)
        ]
        own = part_path(directory, worker.step_number, plan.stages, worker.stage_index, worker.replica)
        load_part(worker.parts, paths, own if all(place.exists() for place in places) else None)


def _state_root(worker: PipelineWorker, plan: GroupPlan) -> bytes:
    """The group's state root, from the tensor roots of replica 0's stages."""
    mine = {kind: [root.hex() for root in roots] for kind, roots in tensor_roots(worker.parts).items()}
    encoded = json.dumps(mine).encode()
    # Plain bytes, not pickled objects: what arrives from a peer is parsed, never executed.
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([len(encoded)]))
    longest = int(max(int(size) for size in sizes))
    padded = torch.zeros(longest, dtype=torch.uint8)
    padded[: len(encoded)] = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
    gathered = [torch.zeros(longest, dtype=torch.uint8) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, padded)
    stages = []
    for stage in range(plan.stages):
        text = bytes(gathered[stage][: int(sizes[stage])].tolist())
        stages.append({kind: [bytes.fromhex(root) for root in roots] for kind, roots in json.loads(text).items()})
    return group_state_root(stages)


def _links(plan: GroupPlan, worker: PipelineWorker) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(direction, neighbour) of what this member sends, and of what it receives."""
    pipeline, own = plan.pipelines[worker.replica], worker.stage_index
    after = [(FORWARD, BACKWARD, pipeline[own + 1])] if own + 1 < plan.stages else []
    before = [(BACKWARD, FORWARD, pipeline[own - 1])] if own > 0 else []
    links = [*after, *before]
    return [(sent, peer) for sent, _, peer in links], [(received, peer) for _, received, peer in links]


if __name__ == "__main__":
    run_trainer(train_generation)
