"""Dishonest members of groups. Each is the honest one with one thing wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np

from assay.market.groups import GroupView
from assay.market.records import TaskRecord
from assay.program.operator import Array
from assay.roles.bench import TrainedProof, Workbench
from assay.roles.context import Action, Context
from assay.roles.group_member import GroupMember
from assay.tasks.references import FileReference
from assay.training.task import TrainingTask
from assay.training.train import Runner


class NeverContributes(GroupMember):
    """Signs the agreement, and pays nothing."""

    def _contribute(self, context: Context, group: GroupView, place: int) -> Iterator[Action]:
        yield from ()


class Idle(GroupMember):
    """Takes a task if it leads, and then does nothing but keep the lead until the task is over."""

    def _work(self, context: Context, group: GroupView, place: int) -> Iterator[Action]:
        task = context.view.tasks[group.task]
        if task.state.is_over or task.solver != group.address:
            yield from super()._work(context, group, place)


class Gone(Idle):
    """The same, and does not even keep the lead."""

    def _keep_the_lead(self, context: Context, group: GroupView, place: int) -> Iterator[Action]:
        yield from ()


class SilentInCourt(GroupMember):
    """Makes no move in cases, its own segments' included."""

    def _defend(self, acting: Context, me: str, group: GroupView) -> Iterator[Action]:
        yield from ()


class Spoilt:
    """A runner that goes wrong at the end of one segment and trains on from there, as those do who get its state."""

    def __init__(self, honest: Runner, task: TrainingTask, segment: int) -> None:
        self.honest = honest
        self.last = task.first_step(segment) + task.segment_steps(segment) - 1

    def load(self, state: Sequence[Array]) -> None:
        self.honest.load(state)

    def advance(self, number: int) -> None:
        self.honest.advance(number)
        if number == self.last:
            self.honest.load([part + np.float32(1) for part in self.honest.copy_state()])

    def loss(self) -> float | None:
        return self.honest.loss()

    def copy_state(self) -> list[Array]:
        return self.honest.copy_state()


def spoiling(segment: int) -> type[Workbench]:
    """What the members have trained together, after one of them has spoilt its segment: each of them holds it all."""

    class Bench(Workbench):
        def runner(self, task: TaskRecord) -> Runner:
            return Spoilt(super().runner(task), self.bundle(task).task, segment)

    return Bench


class HidingBench(Workbench):
    """Registers files that lie nowhere."""

    def train(self, task: TaskRecord, checks: int = 0) -> TrainedProof:
        nowhere = sha256(b"nothing has this hash").digest()
        return replace(
            super().train(task, checks), locations=FileReference((f"dir:{nowhere.hex()}",), 100, nowhere).encode()
        )
