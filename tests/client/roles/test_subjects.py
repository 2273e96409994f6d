"""Leaves of claims: kept, compared, and judged."""

from __future__ import annotations

from dataclasses import replace

import pytest
from role_world import ROUND, TASK

from assay.commitments.execution import ProfileLeaf, ReplayLeaf, claim_root, derived_false_claim
from assay.dispute.case import Part
from assay.roles.subjects import (
    decode_leaf,
    first_difference,
    hashed,
    is_at_most_one,
    passes,
    profiles_on_chain,
    replays_on_chain,
)

ONE, TWO, NAN, MINUS = 0x3F800000, 0x40000000, 0x7FC00000, 0xBF800000
REPLAYS = [ReplayLeaf(5, b"a" * 32, ONE, b"t" * 32), ReplayLeaf(2, b"b" * 32, 0, b"u" * 32)]
PROFILES = [
    ProfileLeaf(0, b"c" * 32, b"n" * 32, b"h" * 32, TWO, b"t" * 32),
    ProfileLeaf(1, b"d" * 32, b"m" * 32, b"i" * 32, TWO, b"u" * 32),
]


def test_leaves_come_back_from_disk_and_from_the_chain() -> None:
    for leaf in (*REPLAYS, *PROFILES):
        assert decode_leaf(leaf.encode()) == leaf
    assert list(hashed(replays_on_chain(REPLAYS), [5, 2])) == REPLAYS
    assert list(hashed(profiles_on_chain(PROFILES), [0, 1])) == PROFILES


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("end_root", b"z" * 32, Part.END),
        ("distance_bits", TWO, Part.DISTANCE),
        ("trace_root", b"z" * 32, Part.TRACE),
    ],
)
def test_the_first_part_that_differs_in_a_replay(name: str, value: object, part: Part) -> None:
    theirs = [REPLAYS[0], replace(REPLAYS[1], **{name: value})]
    assert first_difference(REPLAYS, theirs) == (1, part)
    worse = [replace(REPLAYS[0], trace_root=b"q" * 32), theirs[1]]
    assert first_difference(REPLAYS, worse) == (0, Part.TRACE)


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("clean_root", b"z" * 32, Part.END),
        ("noisy_root", b"z" * 32, Part.NOISY_END),
        ("threshold_root", b"z" * 32, Part.THRESHOLD),
        ("separation_bits", ONE, Part.SEPARATION),
        ("trace_root", b"z" * 32, Part.TRACE),
    ],
)
def test_the_first_part_that_differs_in_a_profile(name: str, value: object, part: Part) -> None:
    theirs = [replace(PROFILES[0], **{name: value}), replace(PROFILES[1], clean_root=b"q" * 32)]
    assert first_difference(PROFILES, theirs) == (0, part)


def test_a_false_profile_is_derived_as_a_false_replay_is() -> None:
    for leaves in (REPLAYS, PROFILES):
        false = derived_false_claim(leaves, b"s" * 32, TASK, ROUND)
        place, part = first_difference(leaves, false)
        assert part is Part.TRACE
        assert replace(false[place], trace_root=leaves[place].trace_root) == leaves[place]
        assert claim_root(false) != claim_root(leaves)


def test_a_proof_passes_by_equal_bits_or_by_its_distance_in_tolerant_mode() -> None:
    assert [is_at_most_one(bits) for bits in (0, ONE, MINUS, TWO, NAN, NAN | 1 << 31)] == [True] * 3 + [False] * 3
    far = [replace(REPLAYS[0], distance_bits=TWO)]
    assert passes(far, [b"a" * 32], exact=False)
    assert not passes(far, [b"x" * 32], exact=False)
    assert passes(REPLAYS[:1], [b"x" * 32], exact=False)
    assert not passes(REPLAYS[:1], [b"x" * 32], exact=True)
