"""The process that trains a market task for one member during one generation of a group; `session.py` watches it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch._C._distributed_c10d import Store

from assay.engine.cpu.device import CpuDevice
from assay.group.execution.exchange import GroupChannel, links
from assay.group.execution.keeping import Keeping
from assay.group.execution.partition import member_order, member_shares, partition
from assay.group.execution.schedule import StageSchedule, make_schedules
from assay.group.execution.stage import StageRun, Words
from assay.group.execution.task_files import read_task
from assay.group.generation import (
    exchange_statements,
    inject,
    join_generation,
    ordered_fault,
    report_slow_members,
    run_trainer,
)
from assay.group.plan import read_plan
from assay.group.transcript import Transcript
from assay.training.checkpoint import CheckpointFolder
from assay.training.task import TrainingTask

KEEPERS = 2
"""Members that hold the whole proof unless the settings say otherwise."""


def proof_folder(directory: Path, name: str) -> Path:
    """Where a member keeps the checkpoints of the whole state."""
    return directory / "members" / name / "proof"


def train_generation(orders: dict[str, Any]) -> dict[str, Any]:
    """Train this member's stage from the newest checkpoint that a member has to the last step; returns the report."""
    plan = read_plan(Path(orders["plan"]))
    members, generation, settings = member_order(plan), int(orders["generation"]), orders.get("settings", {})
    store = join_generation(orders, members)
    task = read_task(orders["arguments"]["task"])
    divided = partition(task.program, member_shares(plan))
    schedule = make_schedules(task.program, divided)[dist.get_rank()]
    run = StageRun(task.program, divided, schedule, task.data, task.seed, CpuDevice(int(orders.get("threads", 1))))
    folder = CheckpointFolder(proof_folder(Path(orders["directory"]), orders["name"]), task.program.state)
    folder.claim(task.fingerprint.hex())
    keeping = Keeping(store, generation, members, task.program, divided, folder, int(settings.get("keepers", KEEPERS)))
    roots, tensors = keeping.begin(task.state, run.held)
    run.load(tensors)
    del tensors
    first = task.first_step(len(roots) - 1) if len(roots) <= task.segments else task.steps
    trainer = _SegmentTrainer(orders, task, members, schedule, run, store)
    for segment in range(len(roots) - 1, task.segments):
        trainer.train(segment)
        roots.append(keeping.checkpoint(segment + 1, run.state))
        report_slow_members(
            store, generation, members, trainer.busy_seconds / max(1, divided.parts[schedule.stage].work),
            float(orders.get("slow_factor", 0)), bool(plan.spares) and segment + 1 < task.segments,
        )  # fmt: skip
        trainer.busy_seconds = 0.0
    trainer.close()
    dist.destroy_process_group()
    return {
        "stage": schedule.stage,
        "generation": generation,
        "first_step": first,
        "loss": run.loss(),
        "roots": [root.hex() for root in roots],
        "keeper": keeping.is_keeper,
        "proof": str(folder.folder) if keeping.is_keeper else "",
        "sent_bytes": trainer.channel.sent_bytes,
        "predicted_bytes_per_step": divided.bytes_per_step,
        "step_seconds": trainer.step_seconds,
    }


class _SegmentTrainer:
    """Runs a stage's segments and states what was sent."""

    def __init__(
        self, orders: dict[str, Any], task: TrainingTask, members: tuple[str, ...], schedule: StageSchedule,
        run: StageRun, store: Store,
    ) -> None:  # fmt: skip
        self.orders, self.task, self.run, self.store = orders, task, run, store
        self.sent, self.received = links(schedule, members)
        self.transcript = Transcript() if orders.get("keys") else None
        self.channel = GroupChannel(schedule, members, self.transcript, self._distort)
        self.busy_seconds, self.step_seconds = 0.0, 0.0
        self._garbage = False

    def train(self, segment: int) -> None:
        """Run the segment's steps; at its end exchange signed statements about all messages."""
        first = self.task.first_step(segment)
        end = first + self.task.segment_steps(segment)
        for number in range(first, end):
            kind = ordered_fault(self.orders, number)
            self._garbage = kind == "garbage"
            if kind and not self._garbage:
                inject(kind)
            started, waited = time.monotonic(), self.channel.waited_seconds
            self.run.step(number, self.channel)
            self.step_seconds = time.monotonic() - started
            # Waiting for others is their time; what is left tells a slow member from a slow group.
            self.busy_seconds += self.step_seconds - (self.channel.waited_seconds - waited)
            self.store.set(f"progress/{self.orders['name']}", str(number + 1))
        if self.transcript is not None:
            exchange_statements(self.store, self.orders, self.transcript, (first, end), self.sent, self.received)
            self.transcript.begin_segment()

    def close(self) -> None:
        """Wait until everything has left."""
        self.channel.close()

    def _distort(self, payload: Words) -> None:
        """Send garbage where a test ordered it."""
        if self._garbage:
            payload ^= 1 << 20


if __name__ == "__main__":
    run_trainer(train_generation)
