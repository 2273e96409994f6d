"""What claims are about: segments of a proof replayed, or the first segments profiled; and the leaves that say it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from assay.commitments.execution import ProfileLeaf as HashedProfile
from assay.commitments.execution import ReplayLeaf as HashedReplay
from assay.dispute.case import Part
from assay.market.records import CaseRecord, LineRecord, RoundRecord, TaskRecord
from assay.market.types import ClaimKind, ProfileLeaf, ReplayLeaf
from assay.market.view import MarketView

HashedLeaf: TypeAlias = HashedReplay | HashedProfile
"""A leaf as it is hashed, with its segment's number; `assay.market.types` has leaves as the contracts take them."""

REPLAY_BYTES = 72
"""Length of a replay leaf's record; a profile leaf's is longer (contracts/FORMAT.md, section 3)."""


@dataclass(frozen=True)
class Subject:
    """What a claim is about. Whoever works it out gets the same leaves: trace positions are those of the draw seed."""

    task: TaskRecord
    segments: tuple[int, ...]
    draw_seed: int
    is_profile: bool = False

    @property
    def key(self) -> str:
        """Name of the work of finding the true claim."""
        kind = "profile" if self.is_profile else "replay"
        numbers = ",".join(map(str, self.segments))
        return f"{kind}:{self.task.id:x}:{self.draw_seed:x}:{numbers}:{self.task.checkpoint_root.hex()}"


def subject_of_round(view: MarketView, found: RoundRecord) -> Subject:
    """What the claims of a round are about."""
    return Subject(view.task(found.task_id), found.segments, found.draw_seed, found.is_profile)


def subject_of_accusation(view: MarketView, line: LineRecord) -> Subject:
    """What an accusation is about."""
    assert line.segment is not None
    return Subject(view.task(line.task_id), (line.segment,), line.draw_seed)


def subject_of_case(view: MarketView, case: CaseRecord) -> tuple[Subject, int] | None:
    """What a case is about, and which of its segments."""
    claim = view.claims.opened.get(case.claim_id)
    if claim is None:
        return None
    if claim.kind is ClaimKind.TRAINING:
        return Subject(view.task(case.task_id), (case.leaf - 1,), 0), 0
    if claim.line in view.rounds:
        return subject_of_round(view, view.rounds[claim.line]), case.leaf
    return subject_of_accusation(view, view.claims.lines[claim.line]), 0


# ---- Leaves ---------------------------------------------------------------------------------------------------------


def on_chain(leaf: HashedLeaf) -> ReplayLeaf | ProfileLeaf:
    """A leaf as the contracts take it: without the segment's number, which follows from the draw."""
    if isinstance(leaf, HashedReplay):
        return ReplayLeaf(leaf.end_root, leaf.distance_bits, leaf.trace_root)
    return ProfileLeaf(leaf.clean_root, leaf.noisy_root, leaf.threshold_root, leaf.separation_bits, leaf.trace_root)


def replays_on_chain(leaves: Sequence[HashedLeaf]) -> list[ReplayLeaf]:
    """The leaves of a replay claim as the contracts take them."""
    return [each for leaf in leaves if isinstance(each := on_chain(leaf), ReplayLeaf)]


def profiles_on_chain(leaves: Sequence[HashedLeaf]) -> list[ProfileLeaf]:
    """The leaves of a profile claim as the contracts take them."""
    return [each for leaf in leaves if isinstance(each := on_chain(leaf), ProfileLeaf)]


def hashed(leaves: Sequence[ReplayLeaf | ProfileLeaf], segments: Sequence[int]) -> tuple[HashedLeaf, ...]:
    """Leaves as they are hashed, of the segments that they are about."""
    return tuple(_hashed(leaf, segment) for leaf, segment in zip(leaves, segments, strict=True))


def _hashed(leaf: ReplayLeaf | ProfileLeaf, segment: int) -> HashedLeaf:
    if isinstance(leaf, ReplayLeaf):
        return HashedReplay(segment, leaf.end, leaf.distance, leaf.trace)
    return HashedProfile(segment, leaf.clean, leaf.noisy, leaf.thresholds, leaf.separation, leaf.trace)


def decode_leaf(raw: bytes) -> HashedLeaf:
    """A leaf from its record (`encode`)."""
    segment = int.from_bytes(raw[:4], "big")
    if len(raw) == REPLAY_BYTES:
        return HashedReplay(segment, raw[4:36], int.from_bytes(raw[36:40], "big"), raw[40:72])
    bits = int.from_bytes(raw[100:104], "big")
    return HashedProfile(segment, raw[4:36], raw[36:68], raw[68:100], bits, raw[104:136])


def first_difference(mine: Sequence[HashedLeaf], theirs: Sequence[HashedLeaf]) -> tuple[int, Part]:
    """The leftmost leaf that differs, and its first part that does: what comes before it, a challenger grants."""
    place = next(number for number, (one, other) in enumerate(zip(mine, theirs, strict=True)) if one != other)
    return place, next(part for part, one, other in _parts(mine[place], theirs[place]) if one != other)


def _parts(one: HashedLeaf, other: HashedLeaf) -> list[tuple[Part, object, object]]:
    """The parts of two leaves of a kind, in the order in which each depends on those before it."""
    if isinstance(one, HashedReplay) and isinstance(other, HashedReplay):
        return [
            (Part.END, one.end_root, other.end_root),
            (Part.DISTANCE, one.distance_bits, other.distance_bits),
            (Part.TRACE, one.trace_root, other.trace_root),
        ]
    assert isinstance(one, HashedProfile)
    assert isinstance(other, HashedProfile)
    return [
        (Part.END, one.clean_root, other.clean_root),
        (Part.NOISY_END, one.noisy_root, other.noisy_root),
        (Part.THRESHOLD, one.threshold_root, other.threshold_root),
        (Part.SEPARATION, one.separation_bits, other.separation_bits),
        (Part.TRACE, one.trace_root, other.trace_root),
    ]


def is_at_most_one(bits: int) -> bool:
    """Whether the binary32 number with these bits is <= 1; a NaN is not (contracts/libraries/Leaves.sol)."""
    return bits <= 0x3F800000 or (bits > 0x7FFFFFFF and bits & 0x7FFFFFFF <= 0x7F800000)


def passes(leaves: Sequence[HashedLeaf], checkpoints: Sequence[bytes], exact: bool) -> bool:
    """Whether a proof passes by the leaves of a replay; `checkpoints` are the solver's after their segments."""
    return all(
        isinstance(leaf, HashedReplay)
        and (leaf.end_root == checkpoint or (not exact and is_at_most_one(leaf.distance_bits)))
        for leaf, checkpoint in zip(leaves, checkpoints, strict=True)
    )
