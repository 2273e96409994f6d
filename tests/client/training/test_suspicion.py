"""Suspicion: what checkpoints show without a replay, and what they cost to look at."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import numpy as np

from assay.program.operator import Array
from assay.training.suspicion import rank_segments

NAMES = ("count", "weight", "momentum.weight")
SEGMENTS, STEPS, SIZE = 12, 4, 200

State = list[Array]


def trained(seed: int) -> list[State]:
    """Checkpoints of noisy gradient descent with momentum on a quadratic, from other weights for every seed."""
    random = np.random.default_rng(seed)
    weight, momentum = random.standard_normal(SIZE), np.zeros(SIZE)
    curvature = np.linspace(0.1, 1, SIZE)
    states: list[State] = []
    for step in range(SEGMENTS * STEPS + 1):
        if step % STEPS == 0:
            parts = weight.astype(np.float32), momentum.astype(np.float32)
            states.append([np.array([step], np.int32), *parts])
        momentum = 0.9 * momentum + curvature * weight + 0.02 * random.standard_normal(SIZE)
        weight = weight - 0.01 * momentum
    return states


def test_segments_of_an_honest_run_stand_out_little() -> None:
    ranked = rank_segments(trained(1), NAMES)
    assert sorted(each.segment for each in ranked) == list(range(SEGMENTS))
    assert all(0 <= each.score < 6 for each in ranked)


def test_the_jump_between_two_honest_runs_comes_first() -> None:
    ranked = rank_segments([*trained(1)[:6], *trained(2)[6:]], NAMES)
    assert ranked[0].segment == 5
    assert ranked[0].score > 2 * ranked[1].score


def test_the_first_state_that_is_not_finite_comes_first_and_those_after_it_do_not() -> None:
    states = trained(1)
    for state in states[4:]:
        state[1] = np.full(SIZE, np.nan, np.float32)
    first, second, *_ = rank_segments(states, NAMES)
    assert (first.segment, first.score) == (3, float("inf"))
    assert second.score < float("inf")
    assert "not finite" in first.reason


def test_parameters_that_did_not_move_come_first_whatever_the_moments_did() -> None:
    states = trained(1)
    states[8][1] = states[7][1]
    assert rank_segments(states, NAMES)[0].segment == 7


def test_an_update_against_the_moments_stands_out_though_its_size_is_right() -> None:
    states = trained(1)
    random = np.random.default_rng(3)
    for place in range(9, SEGMENTS + 1):
        size = np.linalg.norm(states[place][1] - states[place - 1][1])
        way = random.standard_normal(SIZE)
        states[place][1] = (states[place - 1][1] + size * way / np.linalg.norm(way)).astype(np.float32)
    assert {each.segment for each in rank_segments(states, NAMES)[:4]} >= {9, 10, 11}


def test_large_honest_updates_hide_a_segment_from_the_ranking_but_not_from_a_random_choice() -> None:
    """A forger trains honestly with updates that stand out, and cheats by little elsewhere."""
    states = trained(1)
    states[10][2] = states[10][2] * np.float32(1.02)  # false: the momentum is 2 % off
    joint = [*states[:3], *trained(2)[3:5], *states[5:]]
    assert rank_segments(joint, NAMES)[0].segment in (2, 4), "the decoy comes first"
    random = np.random.default_rng(0)
    found = np.mean([9 in random.choice(SEGMENTS, 3, replace=False) for _ in range(4000)])
    assert abs(found - 3 / SEGMENTS) < 0.03


def test_checkpoints_are_read_once_and_let_go() -> None:
    living: list[weakref.ref[Array]] = []
    most = 0

    def stream() -> Iterator[State]:
        nonlocal most
        for state in trained(1):
            copies = [part.copy() for part in state]
            living.extend(weakref.ref(part) for part in copies)
            most = max(most, sum(reference() is not None for reference in living))
            yield copies
            del copies, state

    rank_segments(stream(), NAMES)
    assert most <= 3 * len(NAMES)


def test_a_model_without_moments_is_judged_by_its_updates() -> None:
    states = [[state[1]] for state in trained(1)]
    states[6:] = [[state[1]] for state in trained(2)[6:]]
    assert rank_segments(states, ("weight",))[0].segment == 5


def test_a_single_checkpoint_has_no_segments() -> None:
    assert rank_segments(trained(1)[:1], NAMES) == []
