"""Errors of group training, each with a code of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from assay.errors import AssayError


class ClusterError(AssayError):
    """A cluster description is incomplete or contradicts itself."""

    code: ClassVar[str] = "cluster"


class PlacementError(AssayError):
    """No placement satisfies what was asked (too few devices, too little memory)."""

    code: ClassVar[str] = "placement"


class MemoryLimitError(PlacementError):
    """A member would hold more than it has memory for. `place`: which one, in the order of stages; `held`: what, in
    words."""

    code: ClassVar[str] = "memory-limit"

    def __init__(self, place: int, held: str, limit: float, name: str = "") -> None:
        self.place, self.held, self.limit = place, held, limit
        who = repr(name) if name else f"member {place} of the plan (counted from 0, stage by stage)"
        super().__init__(
            f"state and intermediate values do not fit the members' memory: {who} would hold {held}, its memory_bytes "
            f"are {limit:.0f}; use more members, or give it more memory"
        )

    def naming(self, members: Sequence[str]) -> MemoryLimitError:
        """The same with the member's name."""
        return MemoryLimitError(self.place, self.held, self.limit, members[self.place])


class CompressionError(AssayError):
    """A compressed message or a compression setting is not valid."""

    code: ClassVar[str] = "compression"


class GroupMessageError(AssayError):
    """A message between members is malformed, or its hash or signature does not match; names the sender."""

    code: ClassVar[str] = "group-message"


class MemberFailedError(AssayError):
    """A member of the group died, stalled or fell too far behind; names the member."""

    code: ClassVar[str] = "member-failed"


class SimulationError(AssayError):
    """A simulated network cannot be set up on this machine."""

    code: ClassVar[str] = "simulation"


class FalseStageError(GroupMessageError):
    """A member signed something false about its stage: a court can be shown it."""

    code = "group-stage-false"
