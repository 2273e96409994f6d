"""The process that trains for one member during one generation of a group; `session.py` starts and watches it.

A generation is the life of one process group: it ends when the work is done or when anybody fails. Whatever state the
process had beyond the last checkpoint is lost with it, so a failure cannot leave half a step behind.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from assay.errors import AssayError
from assay.group.checkpoint import complete_checkpoints, group_state_root, load_part, part_path, save_part, tensor_roots
from assay.group.compression.choice import parse_compression
from assay.group.errors import MemberFailedError
from assay.group.pipeline.model import Workload
from assay.group.pipeline.stage import BACKWARD, FORWARD
from assay.group.pipeline.worker import PipelineWorker, WorkerSettings
from assay.group.plan import GroupPlan, read_plan
from assay.group.transcript import Statement, Transcript, account_signer, check_statement, make_statement

DONE, FAILED, SLOW = 0, 3, 4


def load_factory(name: str) -> Callable[..., Workload]:
    """The function "module:function" that builds the workload. It is this member's own code, never a peer's."""
    module, _, function = name.partition(":")
    found: Callable[..., Workload] = getattr(importlib.import_module(module), function)
    return found


def train_generation(orders: dict[str, Any]) -> dict[str, Any]:
    """Train from the newest complete checkpoint to the last step; returns the report of this member."""
    torch.set_num_threads(int(orders.get("threads", 1)))
    plan = read_plan(Path(orders["plan"]))
    name, generation, directory = orders["name"], int(orders["generation"]), Path(orders["directory"])
    rank = plan.members.index(name)
    timeout = timedelta(seconds=float(orders["timeout_seconds"]))
    os.environ["GLOO_SOCKET_IFNAME"] = orders["interface"]
    store = TCPStore(orders["store_host"], int(orders["store_port"]), is_master=False, timeout=timeout)
    dist.init_process_group(
        "gloo", store=PrefixStore(f"generation-{generation}", store), rank=rank, world_size=len(plan.members),
        timeout=timeout,
    )  # fmt: skip
    workload = load_factory(orders["factory"])(**orders["arguments"])
    settings = WorkerSettings(
        plan.layers, plan.replicas, plan.microbatches, parse_compression(plan.compression),
        timeout_seconds=timeout.total_seconds(),
    )  # fmt: skip
    transcript = Transcript()
    worker = PipelineWorker(workload, settings, transcript.observe)
    _resume(worker, plan, directory)
    first = worker.step_number
    losses: dict[int, float] = {}
    segment = worker.step_number
    while worker.step_number < int(orders["steps"]):
        transcript.step = worker.step_number
        fault = orders.get("fault", {})
        if fault.get("member") == name and fault["step"] == worker.step_number and fault["generation"] == generation:
            _inject(fault["kind"])
        loss = worker.step()
        if loss is not None:
            losses[worker.step_number - 1] = loss
        store.set(f"progress/{name}", str(worker.step_number))
        if worker.step_number % int(orders["checkpoint_interval"]) == 0 or worker.step_number == int(orders["steps"]):
            place = part_path(directory, worker.step_number, plan.stages, worker.stage_index, worker.replica)
            if orders.get("keys"):
                _exchange_statements(store, orders, plan, worker, transcript, segment)
            save_part(worker.parts, place)
            dist.barrier()
            transcript.begin_segment()
            segment = worker.step_number
            slow = _slow_members(plan, worker, store, generation, float(orders.get("slow_factor", 0)))
            if slow and plan.spares and worker.step_number < int(orders["steps"]):
                store.set(f"slow/{generation}", json.dumps(slow))
                raise SlowMemberError(f"{', '.join(slow)} work far slower than the others; planning without them")
    root = _state_root(worker, plan)
    dist.destroy_process_group()
    return {
        "rank": rank,
        "generation": generation,
        "first_step": first,
        "losses": losses,
        "state_root": root.hex(),
        "sent": worker.stage.wire.sent,
    }


class SlowMemberError(MemberFailedError):
    """Members fell too far behind and there are spares to take their place."""

    code = "member-slow"


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


def _exchange_statements(
    store: Store,
    orders: dict[str, Any],
    plan: GroupPlan,
    worker: PipelineWorker,
    transcript: Transcript,
    first: int,
) -> None:
    """Sign what was sent to both neighbours in this segment, and check what they signed."""
    sign, task = account_signer(orders["keys"]["private_key"]), int(orders["keys"]["task"])
    pipeline, steps = plan.pipelines[worker.replica], (first, worker.step_number)
    name, prefix = orders["name"], f"statement/{orders['generation']}/{steps[1]}"
    for direction, offset in ((FORWARD, 1), (BACKWARD, -1)):
        receiver = worker.stage_index + offset
        if 0 <= receiver < plan.stages:
            made = make_statement(transcript, task, direction, name, pipeline[receiver], steps, sign)
            fields = {**made.__dict__, "root": made.root.hex(), "signature": made.signature.hex()}
            store.set(f"{prefix}/{name}/{pipeline[receiver]}", json.dumps(fields))
    for direction, offset in ((FORWARD, -1), (BACKWARD, 1)):
        sender = worker.stage_index + offset
        if 0 <= sender < plan.stages:
            fields = json.loads(store.get(f"{prefix}/{pipeline[sender]}/{name}"))
            fields.update(root=bytes.fromhex(fields["root"]), signature=bytes.fromhex(fields["signature"]))
            address = orders["keys"]["addresses"][pipeline[sender]]
            check_statement(Statement(**fields), transcript, task, direction, pipeline[sender], name, steps, address)


def _slow_members(plan: GroupPlan, worker: PipelineWorker, store: Store, generation: int, factor: float) -> list[str]:
    """Members whose own work for a layer takes `factor` times the median member's; every rank computes the same."""
    if factor <= 0:
        return []
    busy = torch.zeros(len(plan.members), dtype=torch.float64)
    busy[dist.get_rank()] = worker.busy_seconds / plan.layers[worker.stage_index]
    worker.busy_seconds = 0.0
    dist.all_reduce(busy)
    median = float(np.median(busy.numpy()))
    return [name for name, seconds in zip(plan.members, busy.tolist(), strict=True) if seconds > factor * median]


def _end_with_parent(parent: int) -> None:
    """A trainer whose session was killed must not go on in its name."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(FAILED)


def _inject(kind: str) -> None:
    """Misbehave as a test ordered."""
    if kind == "die":
        os._exit(9)
    if kind == "stall":
        import signal

        os.kill(os.getpid(), signal.SIGSTOP)
    raise MemberFailedError(f"an ordered fault: {kind}")


def main() -> None:
    """Entry point: the path of the orders, then the path for the report."""
    orders = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    report, status = Path(sys.argv[2]), DONE
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        result = train_generation(orders)
    except SlowMemberError as error:
        result, status = {"error": str(error), "code": error.code}, SLOW
    except AssayError as error:
        result, status = {"error": str(error), "code": error.code}, FAILED
    except RuntimeError as error:
        # gloo and the store report lost and late peers this way.
        result, status = {"error": f"lost contact with the group: {error}", "code": MemberFailedError.code}, FAILED
    report.write_text(json.dumps(result), encoding="utf-8")
    # Threads of a broken process group would keep a normal exit waiting.
    sys.stdout.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
