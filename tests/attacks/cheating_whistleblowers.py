"""Dishonest whistleblowers and challengers. Each is the honest one with one thing wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from assay.demo.dishonest import FalseAccuser
from assay.market.records import RoundRecord, TaskRecord
from assay.market.types import RoundState, TaskState
from assay.roles.context import Action, Context
from assay.roles.disputes import dispute
from assay.roles.subjects import HashedLeaf, hashed, subject_of_round
from assay.roles.whistleblower import Whistleblower


@dataclass(frozen=True)
class Shown:
    """The claim that is shown, in the place of an own result."""

    leaves: tuple[HashedLeaf, ...]

    def result(self, _key: str) -> tuple[HashedLeaf, ...]:
        return self.leaves


class Agreeing(Whistleblower):
    """Answers every claim with that claim, and looks at nothing."""

    def _plan(self, context: Context) -> Iterator[Action]:
        for action in super()._plan(context):
            if not action.key.startswith(("publish:", "case:", "claim:")):
                yield action

    def _answer(self, context: Context, found: RoundRecord, task: TaskRecord) -> Iterator[Action]:
        shown: Any = Shown(hashed(found.leaves, found.segments))
        yield from super()._answer(replace(context, results=shown), found, task)


class NeverReveals(Whistleblower):
    """Joins and commits, and does not reveal."""

    def _plan(self, context: Context) -> Iterator[Action]:
        for action in super()._plan(context):
            if not action.key.startswith("reveal:"):
                yield action


class Joiner(NeverReveals):
    """Joins, and does nothing more."""

    def _plan(self, context: Context) -> Iterator[Action]:
        for action in super()._plan(context):
            if not action.key.startswith(("answer:", "publish:", "case:")):
                yield action


class LosingChallenger(FalseAccuser):
    """Opens a case on the first false claim it finds, and then says nothing, to be the one who lost it."""

    def _plan(self, context: Context) -> Iterator[Action]:
        for task in context.view.in_state(TaskState.VERIFYING):
            for number in task.rounds:
                found = context.view.rounds[number]
                if found.state is RoundState.DISCLOSED:
                    yield from dispute(context, subject_of_round(context.view, found), found.id)
