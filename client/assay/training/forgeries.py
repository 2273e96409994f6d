"""Which forgeries the thresholds of a tolerant task would show, and which they would let pass.

A threshold allows every tensor a part of its own update, `threshold * |end - start|`, and some rounding. What a forger
may leave out or change below that is computed here, from norms of the profiled segments alone: nothing is trained
again. The distances are those that a verifier's replay would measure where the tensor in question is all that differs.

None of this is on chain: the contracts know the skipped step only (contracts/FORMAT.md, section 3). It decides whether
this client posts a task in tolerant mode.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from assay.program.operator import Array, ElementType, TensorDescriptor
from assay.program.optimizer import BETA_POWERS, GRADIENT_ERROR, MOMENT_PREFIXES
from assay.program.sections import ROUNDINGS, UNIT_ROUNDOFF, Precision

LIMIT = 1.0
"""A distance in thresholds that passes is at most this; what is told apart lies at this or more."""
SMALL_PART = 0.05
"""Biases and gains may be left unchecked while they carry at most this part of the update's squared length, all
together. A key bias, or a bias before a batch norm, is moved by rounding alone, so that nobody could check it; a
matrix is never small in this sense."""
RATE_ERROR = 0.01
"""The error of the learning rate that is asked about."""

Norms = npt.NDArray[np.float64]


class Kind(Enum):
    """What a forger may do."""

    SKIPPED_STEP = "a step left out"
    HELD_WEIGHT = "a weight tensor not trained"
    HELD_BIAS = "a small bias or gain not trained"
    HELD_MOMENT = "a moment left as it was"
    HELD_BUFFER = "a buffer left as it was"
    RATE = "a learning rate 1 % off"
    TF32 = "trained at tf32"
    BF16 = "trained at bf16"

    @property
    def grave(self) -> bool:
        """Whether tolerant mode is worth nothing where this passes: what was paid for is not trained."""
        return self in (Kind.SKIPPED_STEP, Kind.HELD_WEIGHT)


@dataclass(frozen=True)
class Forgery:
    """How far a kind of forgery lies away where it shows least: in thresholds; at most 1 passes, and so does NaN."""

    kind: Kind
    distance: float
    tensor: str  # where it shows least, or for a step left out and for precision, where it shows best then
    segment: int
    others: int = 0  # further tensors of which the same kind passes

    @property
    def seen(self) -> bool:
        """Whether verifiers would see it."""
        return self.distance >= LIMIT

    def __str__(self) -> str:
        others = f" and {self.others} more" if self.others else ""
        return f"{self.kind.value} ({self.distance:.3g} thresholds, {self.tensor}{others})"


@dataclass(frozen=True, eq=False)
class SegmentNorms:
    """Euclidean norms of one profiled segment, each a vector with one entry a state tensor; 0 for integers."""

    update: Norms  # |end - start|
    skipped: Norms  # |end - end without the last step|
    noise: Norms  # |end - noisy end|
    end: Norms  # |end|

    def allowed(self, thresholds: Norms) -> Norms:
        """How far a checkpoint's tensors may lie from the replay's: what the distance section divides by."""
        with np.errstate(invalid="ignore"):  # an infinite threshold of what did not move
            allowed: Norms = self.update * thresholds + self.end * (ROUNDINGS * UNIT_ROUNDOFF)
        return allowed


def segment_norms(
    start: Sequence[Array], end: Sequence[Array], penultimate: Sequence[Array], noisy: Sequence[Array]
) -> SegmentNorms:
    """The norms of a segment from its states, clean and noisy."""
    return SegmentNorms(
        _norms(zip(end, start, strict=True)),
        _norms(zip(end, penultimate, strict=True)),
        _norms(zip(end, noisy, strict=True)),
        _norms((part, np.zeros_like(part)) for part in end),
    )


def _norms(pairs: Iterable[tuple[Array, Array]]) -> Norms:
    """|one - other| of every pair, in binary64; 0 for integers."""
    found = [
        float(np.linalg.norm((one.astype(np.float64) - other).reshape(-1))) if one.dtype == np.float32 else 0.0
        for one, other in pairs
    ]
    return np.array(found, np.float64)


def tensor_distances(
    start: Sequence[Array], end: Sequence[Array], checkpoint: Sequence[Array], thresholds: Array
) -> Norms:
    """The distance of every tensor of a checkpoint from a replay's end, in thresholds, as the distance section has it
    but for its rounding. The largest is the segment's; integers count 0 here."""
    nothing = np.zeros(len(end), np.float64)
    norms = SegmentNorms(
        _norms(zip(end, start, strict=True)), nothing, nothing, _norms((part, np.zeros_like(part)) for part in end)
    )
    return _ratio(_norms(zip(end, checkpoint, strict=True)), norms.allowed(thresholds.astype(np.float64)))


# --- what a tensor is ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Parts:
    """Numbers of the state tensors, by what they are to a user."""

    weights: tuple[int, ...]  # trained tensors that count: matrices, and vectors with too large a part of the update
    small: tuple[int, ...]  # the other trained tensors
    moments: tuple[int, ...]  # of the weights
    buffers: tuple[int, ...]  # float state that the optimizer does not train, such as running means


def _parts(tensors: Sequence[TensorDescriptor], thresholds: Norms, segments: Sequence[SegmentNorms]) -> _Parts:
    numbers = {tensor.name: number for number, tensor in enumerate(tensors)}
    moved = np.any([norms.update > 0 for norms in segments], axis=0)
    model = [
        number
        for number, tensor in enumerate(tensors)
        if tensor.type is ElementType.FLOAT
        and moved[number]
        and not tensor.name.startswith(MOMENT_PREFIXES)
        and tensor.name not in BETA_POWERS
    ]
    with_moments = {n for n in model if any(prefix + tensors[n].name in numbers for prefix in MOMENT_PREFIXES)}
    # An optimizer without moments does not show what it trains: everything that moves counts then, but for errors.
    trained = [
        n for n in model if n in with_moments or not (with_moments or tensors[n].name.startswith(GRADIENT_ERROR))
    ]
    vectors = [n for n in trained if len(tensors[n].shape) < 2]
    if _part_unseen(vectors, trained, thresholds, segments) <= SMALL_PART:
        weights = [n for n in trained if n not in vectors]
        small = vectors
    else:
        weights, small = trained, []
    moments = [
        numbers[prefix + tensors[n].name]
        for n in weights
        for prefix in MOMENT_PREFIXES
        if prefix + tensors[n].name in numbers
    ]
    buffers = [n for n in model if n not in trained]
    return _Parts(tuple(weights), tuple(small), tuple(moments), tuple(buffers))


def _part_unseen(
    vectors: Sequence[int], trained: Sequence[int], thresholds: Norms, segments: Iterable[SegmentNorms]
) -> float:
    """The largest part of a segment's squared update that lies in vectors which might as well not move."""
    parts = [0.0]
    for norms in segments:
        held = _ratio(norms.update, norms.allowed(thresholds))
        whole = float(np.sum(norms.update[list(trained)] ** 2))
        unseen = [n for n in vectors if not held[n] >= LIMIT]
        if whole > 0:
            parts.append(float(np.sum(norms.update[unseen] ** 2)) / whole)
    return max(parts)


# --- the kinds -------------------------------------------------------------------------------------------------------


def find_forgeries(
    tensors: Sequence[TensorDescriptor],
    thresholds: Array,
    segments: Sequence[SegmentNorms],
    precision: Precision,
    truncates: bool = False,
) -> tuple[Forgery, ...]:
    """Every kind of forgery with its least distance over the profiled segments, by the task's final thresholds.

    `truncates`: the step converts floats to integers and back. Its profiled noise is made of jumps then, which say
    nothing of a lower precision, so those kinds count as unseen.
    """
    wide = thresholds.astype(np.float64)
    parts = _parts(tensors, wide, segments)
    names = [tensor.name for tensor in tensors]
    return tuple(_kinds(names, wide, segments, precision, parts, truncates))


def _kinds(
    names: Sequence[str],
    thresholds: Norms,
    segments: Sequence[SegmentNorms],
    precision: Precision,
    parts: _Parts,
    truncates: bool,
) -> Iterator[Forgery]:
    allowed = [norms.allowed(thresholds) for norms in segments]
    moved = [_ratio(norms.update, most) for norms, most in zip(segments, allowed, strict=True)]
    # A tensor that did not move has nothing that could be left out.
    held = [np.where(norms.update > 0, each, np.inf) for norms, each in zip(segments, moved, strict=True)]
    # What no noise reaches (a power of beta) is easy to forge, and shows nothing.
    noisy = [n for n in range(len(names)) if thresholds[n] != 0]
    skipped = [_ratio(norms.skipped, most) for norms, most in zip(segments, allowed, strict=True)]
    yield _best_shown(Kind.SKIPPED_STEP, skipped, noisy, names)
    for kind, places in (
        (Kind.HELD_WEIGHT, parts.weights),
        (Kind.HELD_BIAS, parts.small),
        (Kind.HELD_MOMENT, parts.moments),
        (Kind.HELD_BUFFER, parts.buffers),
    ):
        if places:
            yield _least_shown(kind, held, places, names)
    trained = parts.weights + parts.small
    if trained:
        yield _best_shown(Kind.RATE, [RATE_ERROR * each for each in moved], trained, names)
    for lower, kind in ((Precision.TF32, Kind.TF32), (Precision.BF16, Kind.BF16)):
        times = lower.product_noise / precision.product_noise
        if times > 1:
            # The noise of a precision is in proportion to its unit, as far as products go.
            scale = 0.0 if truncates else times
            noise = [_ratio(scale * norms.noise, most) for norms, most in zip(segments, allowed, strict=True)]
            yield _best_shown(kind, noise, noisy, names)


def _ratio(norms: Norms, allowed: Norms) -> Norms:
    """norms / allowed: 0 where nothing differs, infinite where nothing is allowed, NaN where either is."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found: Norms = np.where(norms == 0, 0.0, norms / allowed)
    return found


def _least_shown(kind: Kind, distances: Sequence[Norms], places: Sequence[int], names: Sequence[str]) -> Forgery:
    """A forgery of one tensor of the forger's choice: the least of all distances."""
    found = [(_low(row[place]), place, segment) for segment, row in enumerate(distances) for place in places]
    least, place, segment = min(found)
    passing = {n for distance, n, _ in found if not distance >= LIMIT}
    return Forgery(kind, least, names[place], segment, len(passing - {place}))


def _best_shown(kind: Kind, distances: Sequence[Norms], places: Sequence[int], names: Sequence[str]) -> Forgery:
    """A forgery that all tensors show: the largest distance of each segment, and of these the least."""
    if not places:
        return Forgery(kind, 0.0, "no tensor", 0)
    rows = [max((_low(row[place]), place) for place in places) for row in distances]
    segment = min(range(len(rows)), key=lambda number: rows[number][0])
    return Forgery(kind, rows[segment][0], names[rows[segment][1]], segment)


def _low(value: float) -> float:
    """A NaN shows nothing."""
    return 0.0 if np.isnan(value) else float(value)
