"""What a task's own program declares for the groups that train it: what a plan for the task goes by."""

from __future__ import annotations

from dataclasses import dataclass, replace

from assay.group.compression.choice import parse_compression
from assay.program.local_schedule import LocalSteps


@dataclass(frozen=True)
class Declared:
    """What a task's own program compresses, whoever trains it: what crosses at `boundaries` of the model by the scheme
    `compression`, and with `replicas`, which have a part of each batch, their gradients in `gradient_bits`.

    Or its members train alone (`local_steps`), each with whole batches and `moments` tensors of the optimizer for each
    of its parameters, and tell each other how the parameters changed.
    """

    boundaries: tuple[str, ...] = ()
    compression: str = "none"
    replicas: int = 1
    gradient_bits: int = 0
    local_steps: LocalSteps | None = None
    moments: int = 2

    def __str__(self) -> str:
        choice, local = parse_compression(self.compression), self.local_steps
        return str(replace(choice, gradient_bits=self.gradient_bits if local is None else local.bits))

    def in_words(self, replicas: int) -> str:
        """What a plan of so many replicas has of it."""
        parts, local = self.replicas, self.local_steps
        if local is not None:
            return (
                f"{local.members} members that train alone, {local.inner_steps} steps at a time, and tell each other "
                f"how their parameters changed in {local.bits} bits"
            )
        if self.boundaries:
            crossing = f"{self.compression} behind {', '.join(self.boundaries)}"
        else:
            crossing = "what crosses between stages in full"
        if parts == 1:
            return f"{crossing}; nothing of replicas, whose gradients travel in full"
        dealt = f" ({parts // replicas} for each of the {replicas} that the cluster asks for)"
        each = "" if replicas == parts else dealt
        return f"{parts} replicas{each}, their gradients in {self.gradient_bits} bits; {crossing}"
