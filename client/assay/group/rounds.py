"""The predicted round of members that train alone between exchanges (`assay.group.local_steps`)."""

from __future__ import annotations

from dataclasses import dataclass

from assay.group.cost import StepTime
from assay.program.local_schedule import LocalSteps


@dataclass(frozen=True)
class RoundTime:
    """Seconds in which each of `members` takes `inner_steps` steps of its own, all at once, and hears from the others.

    `waiting_seconds`: for the replicas of the round before, which travel while this one is trained, where the steps
    take less time than they do.
    """

    members: int
    inner_steps: int
    seconds: float
    compute_seconds: float
    exchange_seconds: float
    waiting_seconds: float

    @staticmethod
    def of(local: LocalSteps, step: StepTime) -> RoundTime:
        """Of the time of a step, which has its part of the round's exchange."""
        count = local.inner_steps
        return RoundTime(
            local.members, count, count * step.total, count * step.compute, count * step.data_parallel,
            count * step.stalls,
        )  # fmt: skip

    def in_words(self) -> str:
        """A line, with what the round consists of."""
        count, members = self.inner_steps, self.members
        return (
            f"predicted round     {self.seconds:10.4f} s  ({count} such steps of each of the {members} members, "
            f"{members * count} of the task's; exchange {self.exchange_seconds:.4f}, compute "
            f"{self.compute_seconds:.4f}, waiting for replicas {self.waiting_seconds:.4f})"
        )
