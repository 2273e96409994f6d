"""Who trains when in outer and inner training (`assay.program.local_steps`).

Roles that only read a task's manifest need no PyTorch for it, which takes more memory than all else they do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from assay.program.errors import UnsupportedError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class LocalSteps:
    """`members` train `inner_steps` steps between exchanges of `bits` bits (2 to 8) a parameter.

    Learning rate and momentum of the outer optimizer are by default those of the paper.
    """

    members: int
    inner_steps: int
    bits: int = 8
    outer_learning_rate: float = 0.7
    outer_momentum: float = 0.9

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("members", self.members, 2, 64),
            ("inner_steps", self.inner_steps, 1, 2**24),
            ("bits", self.bits, 2, 8),
        ):
            if not low <= value <= high:
                raise UnsupportedError(f"local steps: {name} is {value}; choose from {low} to {high}")
        if not 0 < self.outer_learning_rate < float("inf") or not 0 <= self.outer_momentum < 1:
            raise UnsupportedError(
                f"local steps: outer learning rate {self.outer_learning_rate} and momentum {self.outer_momentum}; "
                "choose a rate above 0 and a momentum from 0 to below 1"
            )

    @property
    def round_steps(self) -> int:
        """Steps of a round, over all members."""
        return self.members * self.inner_steps

    def place(self, step: int) -> tuple[int, int, int]:
        """(round, member, inner step) of a global step."""
        run, inner = divmod(step, self.inner_steps)
        number, member = divmod(run, self.members)
        return number, member, inner

    def inner_step_number(self, step: Tensor) -> Tensor:
        """How many inner steps each member has taken before: what a learning-rate schedule counts."""
        return step // self.round_steps * self.inner_steps + step % self.inner_steps

    def member(self, step: Tensor) -> Tensor:
        """Number of the member whose step this is."""
        return step // self.inner_steps % self.members
