"""Measuring one thing against another on a machine that others use too."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Comparison:
    """Times of two ways to do the same, measured in turn."""

    ours: tuple[float, ...]  # seconds
    theirs: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median of theirs / ours, pair by pair: above 1, ours is faster."""
        return median(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))


SETTLE_SECONDS = 0.005
"""Pause before a measurement: threads of the other side's pool spin for some milliseconds before they sleep, and would
take a processor from this side meanwhile."""


def seconds(action: Callable[[], object]) -> float:
    """Seconds one call takes."""
    time.sleep(SETTLE_SECONDS)
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def compare(ours: Callable[[], object], theirs: Callable[[], object], repetitions: int, warmups: int = 2) -> Comparison:
    """Run both in turn `repetitions` times after `warmups` uncounted rounds, swapping who goes first."""
    for _ in range(warmups):
        ours()
        theirs()
    mine, other = [], []
    for number in range(repetitions):
        if number % 2:
            other.append(seconds(theirs))
            mine.append(seconds(ours))
        else:
            mine.append(seconds(ours))
            other.append(seconds(theirs))
    return Comparison(tuple(mine), tuple(other))
