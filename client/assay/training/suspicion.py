"""Which segments of a proof to look at first: what a forged checkpoint shows without any replay.

One pass over the checkpoints, three states in memory at a time: some ten passes over a state's bytes for each segment,
where a replay computes the whole training of one. Nothing here is evidence, and a forger can plant honest segments that
stand out more than its false ones, as it can against verifiers that look at the largest updates (Fang et al.,
"Proof-of-Learning is Currently More Broken Than You Think", 2023). So an auditor adds the most suspicious segment to
segments chosen at random, and never takes it in their place: what the random ones find, they find whatever was planted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from assay.program.operator import Array
from assay.program.optimizer import FIRST_MOMENT, MOMENTUM, SECOND_MOMENT

NEIGHBOURS = 3
"""Segments on either side that a segment is compared with."""
SMALLEST_SCALE = 0.05
"""Spread below which a series counts as this spread: differences of a few percent are no news."""
LEANING = 0.5
"""Cosine of an update with the moments at its end: honest segments of a few steps measured 0.75 and more, invented ones
about 0."""
EPSILON = 1e-12

Series = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Suspicion:
    """How far a segment stands out: infinite for what honest training does not do, else in typical spreads."""

    segment: int
    score: float
    reason: str


def rank_segments(checkpoints: Iterable[Sequence[Array]], names: Sequence[str]) -> list[Suspicion]:
    """All segments of a proof, the most suspicious first.

    `checkpoints` are the states 0 to S in order, each read once; `names` are the state tensors' names, by which the
    optimizer's moments are told from what they move.
    """
    facts: dict[int, str] = {}
    rows: list[list[float]] = []
    pairs = _pairs(names)
    floats: list[int] = []
    trained: list[int] = []
    before: Sequence[Array] | None = None
    last_update: Series | None = None
    for place, state in enumerate(checkpoints):
        if before is None:
            before, floats = state, [t for t, part in enumerate(state) if part.dtype == np.float32]
            trained = [parameter for parameter, _, _ in pairs] or floats
            continue
        segment = place - 1
        finite = _finite(before, floats), _finite(state, floats)
        if finite == (True, False):
            facts[segment] = "the first state that is not finite"
        elif finite[1] and all(np.array_equal(before[t], state[t]) for t in trained):
            facts[segment] = "no parameter has moved"
        if finite != (True, True):
            rows.append([np.nan] * (len(floats) + 2))
            last_update = None
        else:
            update = _update(before, state, trained)
            sizes = [_log_norm(state[t], before[t]) for t in floats]
            straight = np.nan if last_update is None else _cosine(update, last_update)
            rows.append([*sizes, _cosine(update, _pull(state, pairs)) if pairs else np.nan, straight])
            last_update = update
        before = state
    return _ranked(np.array(rows, np.float64), facts) if rows else []


def _ranked(rows: Series, facts: dict[int, str]) -> list[Suspicion]:
    """Rows (segments, features): log sizes of each tensor's update, alignment with the moments, straightness."""
    # A segment is foreign if it goes another way than both neighbours: after a jump only the jump is.
    rows[:, -1] = np.fmax(rows[:, -1], np.append(rows[1:, -1], np.nan))
    scores = np.stack([_standing_out(column) for column in rows.T], axis=1)
    scores[:, -2] += np.nan_to_num(np.maximum(0.0, LEANING - rows[:, -2]) / SMALLEST_SCALE)
    found = []
    for segment, row in enumerate(scores):
        kinds = {
            "its update is of another size than its neighbours'": float(np.mean(row[:-2])),
            "its update does not follow the moments": float(row[-2]),
            "its direction stands to those beside it as its neighbours' do not": float(row[-1]),
        }
        reason, score = max(kinds.items(), key=lambda item: item[1])
        found.append(
            Suspicion(segment, float("inf"), facts[segment]) if segment in facts else Suspicion(segment, score, reason)
        )
    return sorted(found, key=lambda suspicion: (-suspicion.score, suspicion.segment))


def _standing_out(values: Series) -> Series:
    """How far each value lies from the median of its neighbours, in the series' typical such distance; 0 if unknown."""
    away = np.zeros(len(values))
    for place, value in enumerate(values):
        around = np.r_[values[max(0, place - NEIGHBOURS) : place], values[place + 1 : place + 1 + NEIGHBOURS]]
        around = around[np.isfinite(around)]
        if np.isfinite(value) and len(around):
            away[place] = abs(value - np.median(around))
    known = away[np.isfinite(values)]
    scale = max(SMALLEST_SCALE, 1.4826 * float(np.median(known))) if len(known) else 1.0
    result: Series = away / scale
    return result


# --- features --------------------------------------------------------------------------------------------------------


def _pairs(names: Sequence[str]) -> list[tuple[int, int, int | None]]:
    """(parameter, first moment or momentum, second moment) for every tensor that the optimizer keeps moments of."""
    numbers = {name: number for number, name in enumerate(names)}
    found = []
    for name, number in numbers.items():
        moment = numbers.get(FIRST_MOMENT + name, numbers.get(MOMENTUM + name))
        if moment is not None:
            found.append((number, moment, numbers.get(SECOND_MOMENT + name)))
    return found


def _finite(state: Sequence[Array], floats: Sequence[int]) -> bool:
    return all(bool(np.isfinite(state[t]).all()) for t in floats)


def _log_norm(after: Array, before: Array) -> float:
    return float(np.log(np.linalg.norm((after.astype(np.float64) - before).reshape(-1)) + EPSILON))


def _update(before: Sequence[Array], after: Sequence[Array], places: Sequence[int]) -> Series:
    """What some tensors moved by, as one vector."""
    return np.concatenate([(after[place].astype(np.float64) - before[place]).reshape(-1) for place in places])


def _pull(state: Sequence[Array], pairs: Sequence[tuple[int, int, int | None]]) -> Series:
    """Where the optimizer's moments move the parameters next, but for the rate: neighbouring steps go much the same
    way, so that an honest segment's update leans on it."""
    parts = []
    for _, first, second in pairs:
        way = -state[first].astype(np.float64)
        if second is not None:
            way = way / (np.sqrt(np.maximum(state[second], 0)) + 1e-8)
        parts.append(way.reshape(-1))
    return np.concatenate(parts)


def _cosine(x: Series, y: Series) -> float:
    lengths = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / lengths if lengths > 0 and np.isfinite(lengths) else float("nan")
