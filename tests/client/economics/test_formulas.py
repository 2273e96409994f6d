"""Closed forms against counting and sampling."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from assay.economics import formulas


@pytest.mark.parametrize(("wrong", "segments", "drawn"), [(1, 10, 3), (4, 20, 5), (7, 9, 2), (5, 8, 4), (10, 10, 1)])
def test_a_draw_misses_as_counting_says(wrong: int, segments: int, drawn: int) -> None:
    expected = math.comb(segments - wrong, drawn) / math.comb(segments, drawn)
    assert formulas.missed(wrong, segments, drawn) == pytest.approx(expected)
    assert formulas.missed(drawn, segments, wrong) == pytest.approx(expected)


def test_one_drawn_segment_hits_in_proportion_and_more_hit_more() -> None:
    assert formulas.detection(0.3, 100, 1) == pytest.approx(0.3)
    chances = [formulas.detection(0.1, 100, drawn) for drawn in range(1, 100)]
    assert chances == sorted(chances)
    assert chances[90] == 1.0


def test_a_cheat_is_caught_by_truthful_shares_only() -> None:
    """Every truthfulness of three shares of two segments, by sampling the draw."""
    random = np.random.default_rng(5)
    segments, verifiers, per, truthful, wrong = 12, 3, 2, 0.6, 3
    caught = 0
    trials = 40_000
    for _ in range(trials):
        drawn = random.permutation(segments)[: verifiers * per]
        seen = random.random(verifiers) < truthful
        caught += any(seen[i // per] and segment < wrong for i, segment in enumerate(drawn))
    chance = formulas.caught(wrong / segments, segments, verifiers, per, truthful)
    assert caught / trials == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / trials))
    assert formulas.caught(0.25, segments, verifiers, per, 0.0) == 0
    assert formulas.caught(0.25, 12, 3, 2, 1.0) == pytest.approx(formulas.detection(0.25, 12, 6))


def test_the_fewest_drawn_segments_reach_the_certainty_and_one_less_does_not() -> None:
    drawn = formulas.least_drawn(0.25, 0.9, 200)
    assert formulas.detection(0.25, 200, drawn) >= 0.9 > formulas.detection(0.25, 200, drawn - 1)


def test_with_every_share_true_faking_everything_is_the_worst_case() -> None:
    margin, at = formulas.cheat_margin(10.0, 10.0, 2.0, 100, 2, 1, 1.0)
    assert (margin, at) == (pytest.approx(1.2), 1.0)
    doubtful, _ = formulas.cheat_margin(10.0, 10.0, 2.0, 100, 2, 1, 0.5)
    assert doubtful == pytest.approx(1.2 * 0.75)


def test_joining_makes_whistleblowers_indifferent() -> None:
    for others, ratio in product((2, 5, 20), (0.3, 0.7, 0.95)):
        chance = formulas.join_chance(1.0, ratio, others)
        if chance < 1:
            expected = sum(
                math.comb(others, k) * chance**k * (1 - chance) ** (others - k) * 0.5**k for k in range(others + 1)
            )
            assert expected == pytest.approx(ratio)


def test_of_many_whistleblowers_none_looks_at_the_square_of_cost_over_income() -> None:
    assert 1 - formulas.watched(1.0, 0.3, 20_000) == pytest.approx(0.09, rel=1e-3)
    assert formulas.income_for(0.09, 0.3) == pytest.approx(1.0)


def test_the_payout_threshold_is_the_last_answer_that_pays() -> None:
    for income, cost in [(1.0, 0.3), (1.0, 0.25), (1.0, 1.0), (0.9, 1.0), (40.0, 0.07)]:
        k = formulas.payout_threshold(income, cost)
        assert k == 0 or income / 2 ** (k - 1) >= cost
        assert income / 2**k < cost


def test_a_second_identity_wins_nothing_more() -> None:
    for honest in range(4):
        gains = [formulas.sybil_gain(1.0, honest, own) for own in range(1, 8)]
        assert gains[0] == gains[1] == 0.5**honest
        assert gains[1:] == sorted(gains[1:], reverse=True)


def test_guessing_never_pays() -> None:
    assert formulas.guesser_gain(0.05, 0.01, 0.0) < 0


def test_a_second_identity_does_not_bring_a_stake_back() -> None:
    assert formulas.out_of_reach(10.0, 1.0, 0.4) == pytest.approx(10 - 0.4 * 9)
    assert formulas.seat_at_risk(1.0, 0.4, 0.5) == 0.5
    assert formulas.seat_at_risk(1.0, 0.8, 0.5) == pytest.approx(0.2)


def test_the_largest_ring_is_where_the_margin_is_met() -> None:
    ring = (10.0, 10.0, 2.0, 0.5, 0.1, 2)
    share = formulas.largest_ring(*ring, watch=0.2, margin=2.0)
    assert formulas.ring_margin(*ring, share=share, watch=0.2) == pytest.approx(2.0, rel=1e-6)
    assert share < formulas.largest_ring(*ring, watch=0.6, margin=2.0)


def test_serving_accomplices_only_succeeds_while_fewer_than_the_most_step_back() -> None:
    """By drawing accomplices (one in five) until each of two shares has one, or four others have stepped back."""
    random = np.random.default_rng(1)
    accomplices = random.random((50_000, 6)) < 0.2
    second = np.where(accomplices.cumsum(axis=1) == 2, np.arange(6), 6).min(axis=1)
    chance, backs = formulas.served_to_accomplices(0.2, 2, 4)
    # The second accomplice comes with the fifth draw at the latest: three others have stepped back by then.
    assert chance == pytest.approx((second < 5).mean(), abs=0.01)
    assert backs == pytest.approx(np.where(second < 5, second - 1, 0).mean(), abs=0.02)
    forfeit = formulas.starving_forfeit(3.0, 0.2, 2, 4, charge=0.1)
    assert (1 - chance) * forfeit == pytest.approx(chance * 3.0 + backs * 0.1)


def test_stepping_back_on_purpose_is_worth_what_playing_it_brings() -> None:
    """Always stepping back, the best play where it pays at all, against sampled draws."""
    random = np.random.default_rng(2)
    share, verifiers, most, prize, charge = 0.4, 2, 3, 10.0, 0.1
    total = 0.0
    for _ in range(20_000):
        backs = served = 0
        while served < verifiers and backs < most:
            if random.random() < share:
                backs += 1
            else:
                served += 1
        total += prize * (backs == most) - charge * backs
    assert formulas.starving_value(prize, charge, share, verifiers, most) == pytest.approx(total / 20_000, rel=0.03)


def test_the_least_charge_makes_stepping_back_on_purpose_worthless_and_less_does_not() -> None:
    for share, verifiers, most in product((0.1, 0.3), (1, 2, 4), (2, 4, 5)):
        charge = formulas.starving_charge(5.0, share, verifiers, most)
        assert formulas.starving_value(5.0, charge, share, verifiers, most) == 0
        assert formulas.starving_value(5.0, charge * 0.99, share, verifiers, most) > 0


def test_one_false_segment_needs_nearly_every_draw_or_an_audit() -> None:
    price, saved, lost, segments = 1.0, 1.0, 0.6, 200
    drawn = formulas.draws_against(price, saved, lost, segments, 1)
    assert drawn == 125  # 1 / 1.6 of them
    assert formulas.one_segment_needs(price, saved, lost, segments, 125) == 0
    audits = formulas.one_segment_needs(price, saved, lost, segments, 2)
    assert (1 - (1 - 2 / 200) * (1 - audits)) * (price + lost) == pytest.approx(saved)
    assert formulas.draws_against(price, 2.0, lost, segments, 1) is None


def test_from_the_least_number_of_false_segments_on_the_draw_alone_makes_a_cheat_lose() -> None:
    least = formulas.least_wrong(1.0, 1.0, 0.6, 200, 8)
    assert least is not None
    for wrong in (least, least + 10, 200):
        assert (1 - formulas.missed(wrong, 200, 8)) * 1.6 >= 1.0
    assert (1 - formulas.missed(least - 1, 200, 8)) * 1.6 < 1.0
