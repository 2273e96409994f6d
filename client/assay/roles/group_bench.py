"""A member's workbench: training is done together, everything else as by anyone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from assay.group.errors import MemberFailedError
from assay.group.execution.run import Seat, run_group_training
from assay.group.plan import GroupPlan
from assay.market.records import TaskRecord
from assay.roles.bench import Workbench
from assay.state import StateFolder
from assay.storage.store import Store
from assay.training.task import Mode
from assay.training.train import Proof

logger = logging.getLogger(__name__)


class GroupBench(Workbench):
    """Trains with the group of `plan`, from `seat`."""

    def __init__(self, folder: Path, stores: Sequence[Store], state: StateFolder, plan: GroupPlan, seat: Seat) -> None:
        super().__init__(folder, stores, state)
        self.plan, self.seat = plan, seat

    def run_training(self, task: TaskRecord) -> Proof:
        """Train a task together, or finish what was begun. Every member keeps the whole proof, since any of them may
        have to register it. Raises `MemberFailedError` where the group went on without this member."""
        everybody = len(self.plan.members) + len(self.plan.spares)
        seat = replace(self.seat, task_id=task.id, keepers=everybody, device=self.device)
        bundle = self.bundle(task)
        graph = bundle.graph if bundle.task.mode is Mode.TOLERANT else None
        done = run_group_training(bundle.task, self.plan, seat, self.place(task.id) / "group", graph)
        logger.info(
            "trained together",
            extra={"task": f"{task.id:#x}", "members": ",".join(done.members), "generations": done.generations},
        )
        if done.proof is None:
            raise MemberFailedError(f"{seat.name!r} does not hold the proof of {task.id:#x}; another member registers")
        return done.proof


def group_bench(plan: GroupPlan, seat: Seat) -> Callable[[Path, Sequence[Store], StateFolder], GroupBench]:
    """A maker of workbenches for `open_node`."""
    return lambda folder, stores, state: GroupBench(folder, stores, state, plan, seat)
