"""Members' memory limits: what a member holds, and dividing again where that is more than it has.

What a member holds is known only when everything is placed: which operators it computes, of whose state it keeps copies
(parameters that all replicas update, the memory of both ends of a boundary), which parameters and values it receives.
Dealing goes by estimates of each family instead. So a division is made and measured, and where a member holds too much
made again with less to deal to its stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from assay.group.errors import MemoryLimitError, PlacementError

MOST_ATTEMPTS = 24
"""Divisions made before members are said to have too little memory."""

_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Held:
    """Bytes that a member holds: state that it answers for and copies of others', both twice (they are read while they
    are replaced); the result of every operator that it computes, and every value that it receives, once.

    More than is needed at any moment, since results go when nobody needs them any more. The data are not counted, which
    every member has whole.
    """

    state: int
    copies: int
    values: int
    received: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.state + self.copies + self.values + self.received

    def __str__(self) -> str:
        return (
            f"{self.total} bytes ({self.state} of state, {self.copies} of copies, {self.values} of computed values, "
            f"{self.received} of received ones)"
        )


def divide_within(
    limits: Sequence[float], attempt: Callable[[Sequence[float]], tuple[_Made, Sequence[Held], Sequence[float]]],
    stages: int,
) -> _Made:  # fmt: skip
    """What `attempt` makes when no member holds more than its limit (0 for none). Members are in the order of stages.

    `attempt` deals out by estimates, at most as much to each stage as it is given; it returns what it made, what every
    member holds, and what was dealt to each stage. The first is given no bound: limits that nobody meets change
    nothing. A pure function of what `attempt` is one of. Raises MemoryLimitError where no division was found.
    """
    bounds = [float("inf")] * stages
    closest: MemoryLimitError | None = None
    least_excess = float("inf")
    for _ in range(MOST_ATTEMPTS):
        try:
            made, held, dealt = attempt(bounds)
        except PlacementError:
            if closest is None:
                raise
            break  # with less for those that hold too much, the others cannot take the rest
        given = limits or [0.0] * len(held)
        over = [each.total - limit if limit else 0.0 for each, limit in zip(held, given, strict=True)]
        excess = max(over, default=0.0)
        if excess <= 0:
            return made
        if excess < least_excess:
            place = over.index(excess)
            closest, least_excess = MemoryLimitError(place, str(held[place]), limits[place]), excess
        beside = len(held) // stages
        for place, more in enumerate(over):
            if more > 0:
                # Not less than fits: part of what it holds is not in proportion to what it was dealt.
                bound = dealt[place // beside] * limits[place] / held[place].total
                bounds[place // beside] = min(bounds[place // beside], bound)
    assert closest is not None
    raise closest
