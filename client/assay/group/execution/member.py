"""The process that trains a market task for one member during one generation of a group; `session.py` watches it."""

from __future__ import annotations

import json
import math
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from assay.commitments import tensor
from assay.engine.native.placement import native_device
from assay.group.cluster_file import read_cluster_file
from assay.group.errors import PlacementError
from assay.group.execution.audit import is_audited
from assay.group.execution.engines import engine_of
from assay.group.execution.exchange import GroupChannel
from assay.group.execution.keeping import Keeping
from assay.group.execution.message_log import MessageLog
from assay.group.execution.packing import Words
from assay.group.execution.partition import Partition, member_order
from assay.group.execution.receipts import RECEIPTS, ReceiptBook, Receipts
from assay.group.execution.ring import AuditRing
from assay.group.execution.run import AUDIT_RATE, PROOF, member_folder
from assay.group.execution.schedule import StageSchedule, bytes_in_step
from assay.group.execution.stage import Stage
from assay.group.execution.stage_statements import SignedStage, Signer, StageStatements
from assay.group.execution.task_files import read_task
from assay.group.generation import (
    inject,
    join_generation,
    ordered_fault,
    report_slow_members,
    run_trainer,
    wait_until_ready,
)
from assay.group.plan import read_plan
from assay.training.checkpoint import CheckpointFolder
from assay.training.task import TrainingTask

KEEPERS = 2
"""Members that hold the whole proof unless the settings say otherwise."""


def train_generation(orders: dict[str, Any]) -> dict[str, Any]:
    """Train this member's stage from the newest checkpoint that a member has to the last step; returns the report."""
    plan = read_plan(Path(orders["plan"]))
    members, generation, settings = member_order(plan), int(orders["generation"]), orders.get("settings", {})
    store = join_generation(orders, members)
    task, graph = read_task(orders["arguments"]["task"])
    engine = engine_of(
        task, graph, plan, native_device(str(settings.get("device", "auto"))), int(orders.get("threads", 1))
    )
    memory = _memory(orders, members)
    divided = engine.divide_plan(plan, memory)
    _agree_on_partition(store, generation, members, divided)
    schedules = engine.schedules(divided)
    schedule = schedules[dist.get_rank()]
    run = engine.stage(divided, schedule)
    place = member_folder(Path(orders["directory"]), orders["name"])
    folder = CheckpointFolder(place / PROOF, task.program.state)
    folder.claim(task.fingerprint.hex())
    wait_until_ready(store, generation, orders["name"], members, float(orders["timeout_seconds"]))
    copies = int(settings.get("keepers", KEEPERS))
    keeping = Keeping(store, generation, members, task.program, divided, folder, copies)
    roots, tensors = keeping.begin(task.state, run.held)
    run.load(tensors)
    del tensors
    done = len(roots) - 1
    ring: AuditRing | None = None
    rate = float(settings.get("audit_rate", AUDIT_RATE))
    if orders.get("keys") and rate > 0 and len(members) > 1:
        ring = AuditRing(store, orders, task, divided, schedules, members, place / "audit", engine, memory)
    signer = Signer.of(orders["keys"]) if orders.get("keys") else None
    receipts: Receipts | None = None
    if signer is not None:
        book = ReceiptBook(place / RECEIPTS)
        receipts = Receipts(store, signer, members, schedule.stage, generation, book)
        receipts.catch_up()
    statements: StageStatements | None = None
    if ring is not None and signer is not None:
        statements = StageStatements(store, signer, task, engine, divided, members, schedule.stage, generation)
    trainer = _SegmentTrainer(orders, task, members, schedule, run, store, ring, statements)
    for segment in range(done, task.segments):
        trainer.train(segment)
        # Copies of what others answer for are part of what is signed about an exact stage, and of nothing else.
        ended = run.held_state if statements is not None and engine.is_exact else run.state
        ends = {number: tensor.root(array) for number, array in ended.items()}
        if ring is not None and statements is not None:
            ring.end_segment(run.state)
            statements.state(segment, keeping.tensor_roots, ends, ring.keep)
        root = keeping.agree(segment + 1, {number: ends[number] for number in run.owned})
        signed: tuple[SignedStage, ...] = ()
        if ring is not None and statements is not None:
            signed = statements.check(segment, keeping.tensor_roots, keeping.agreed_roots)
            ring.keep_all(signed)
        if ring is not None and is_audited(root, rate):
            starts, ends_stated = keeping.tensor_roots, keeping.stated
            ring.audit(segment, trainer.segment_seconds, root, starts, ends_stated, run.state, signed)
        if receipts is not None:
            # Nobody is paid for a segment in which it was found to cheat, and nobody's work is kept without a receipt.
            receipts.exchange(segment)
        keeping.collect(segment + 1, run.state, root)
        if not engine.is_exact and any(part.copies for part in divided.parts) and segment + 1 < task.segments:
            strayed = keeping.strayed_copies(segment + 1, run.held_state)
            if strayed:
                run.load({**run.held_state, **strayed})
        roots.append(root)
        report_slow_members(
            store, generation, members, trainer.busy_seconds / max(1, divided.parts[schedule.stage].work),
            float(orders.get("slow_factor", 0)), bool(plan.spares) and segment + 1 < task.segments,
        )  # fmt: skip
    trainer.channel.close()
    dist.destroy_process_group()
    return {
        "stage": schedule.stage,
        "generation": generation,
        "not_shared": engine.not_shared if plan.replicas > 1 else "",
        "first_step": min(done * task.interval, task.steps),
        "loss": run.loss(),
        "roots": [root.hex() for root in roots],
        "keeper": keeping.is_keeper,
        "proof": str(folder.folder) if keeping.is_keeper else "",
        "sent_bytes": trainer.channel.sent_bytes,
        "last_step_sent_bytes": bytes_in_step([schedule], task.steps - 1),
        "predicted_bytes_per_step": bytes_in_step(schedules, task.steps - 1),
        "step_seconds": trainer.step_seconds,
        "segment_end_seconds": trainer.end_seconds,
    }


def _memory(orders: dict[str, Any], members: tuple[str, ...]) -> tuple[float, ...]:
    """Bytes of memory of each member, as the cluster's description says; 0 where it sets no limit."""
    devices = {device.name: device for device in read_cluster_file(Path(orders["cluster"])).cluster.devices}
    return tuple(devices[name].memory_bytes if name in devices else 0.0 for name in members)


def _agree_on_partition(store: Store, generation: int, members: tuple[str, ...], divided: Partition) -> None:
    """Raise PlacementError where members derived different partitions, before anything is sent."""
    crossings = [
        (int(c.value[0]), c.value[1], c.sender, c.receiver, c.elements, c.packing.bits) for c in divided.crossings
    ]
    mine = sha256(json.dumps([members, divided.owner, crossings]).encode()).hexdigest()
    agreed = store.compare_set(f"partition/{generation}", "", mine).decode()
    if agreed != mine:
        raise PlacementError(
            f"this member's partition has hash {mine[:16]}, the group's {agreed[:16]}: use the same cluster.toml and "
            "the same version of assay on every member"
        )


class _SegmentTrainer:
    """Runs a stage's segments."""

    def __init__(
        self, orders: dict[str, Any], task: TrainingTask, members: tuple[str, ...], schedule: StageSchedule,
        run: Stage, store: Store, ring: AuditRing | None, statements: StageStatements | None,
    ) -> None:  # fmt: skip
        self.orders, self.task, self.run, self.store, self.ring = orders, task, run, store, ring
        self.recorder = None if statements is None else statements.recorder
        self.log = None if ring is None else MessageLog(ring.log_path)
        sent = None if ring is None or ring.sent_log_path is None else MessageLog(ring.sent_log_path)
        self.logs = [log for log in (self.log, sent) if log is not None]
        self.channel = GroupChannel(schedule, members, self.log, self._distort, sent, self.recorder)
        self.busy_seconds, self.segment_seconds = 0.0, 0.0
        self.step_seconds = math.inf  # a step's mean over the fastest segment
        self.end_seconds = math.inf  # the least between the last step of a segment and the first of the next
        self._ended = -math.inf
        self._garbage = False

    def train(self, segment: int) -> None:
        """Run the segment's steps."""
        first = self.task.first_step(segment)
        end = first + self.task.segment_steps(segment)
        if self.ring is not None:
            self.ring.begin_segment(self.run.held_state)
        for log in self.logs:
            log.begin_segment()
        if self.recorder is not None:
            self.recorder.begin_segment()
        started, waited = time.monotonic(), self.channel.waited_seconds
        self.end_seconds = min(self.end_seconds, started - self._ended)
        for number in range(first, end):
            kind = ordered_fault(self.orders, number)
            self._garbage = kind == "garbage"
            if kind and not self._garbage:
                inject(kind)
            self.run.step(number, self.channel)
            if self.recorder is not None:
                self.recorder.end_step(number)
            self.store.set(f"progress/{self.orders['name']}", str(number + 1))
        self._ended = time.monotonic()
        self.segment_seconds = self._ended - started
        self.step_seconds = min(self.step_seconds, self.segment_seconds / (end - first))
        # Waiting for others is their time; what is left tells a slow member from a slow group.
        self.busy_seconds = self.segment_seconds - (self.channel.waited_seconds - waited)
        for log in self.logs:
            log.flush()

    def _distort(self, payload: Words) -> None:
        """Send garbage where a test ordered it."""
        if self._garbage:
            payload ^= np.uint32(self.orders["fault"].get("bits", 1 << 20))


if __name__ == "__main__":
    run_trainer(train_generation)
