"""Conditions, limits, the parameters that come out of them, and advice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from assay.economics.advice import AdviceError, Wish, advise
from assay.economics.conditions import Condition, Situation, amounts, conditions, limits
from assay.economics.defaults import Target, needs, recommended
from assay.economics.formulas import missed
from assay.economics.prices import Prices
from assay.market.parameters import PUBLIC, Parameters

PRICES = Prices()
SITUATION = Situation(honest=1.0, whistleblowers=30)


def named(parameters: Parameters, situation: Situation) -> dict[str, Condition]:
    return {condition.name: condition for condition in conditions(parameters, situation, PRICES)}


def test_trading_with_oneself_for_jackpots_never_pays_whatever_the_parameters() -> None:
    for forced in (1_000, 50_000, 500_000):
        for reward in (0.01, 1.0, 100.0):
            parameters = replace(PUBLIC, forced_rate=forced)
            assert named(parameters, replace(SITUATION, reward=reward))["trades with itself for jackpots"].holds


def test_a_claim_nobody_is_paid_to_watch_is_said_to_be_unsafe() -> None:
    dear = replace(SITUATION, reward=50.0)
    found = named(PUBLIC, dear)
    assert not found["looks (alone)"].holds
    assert not found["does not replay"].holds
    assert limits(PUBLIC, dear, PRICES).least_whistleblowers is None


@pytest.mark.parametrize("reward", [0.3, 1.0, 10.0])
def test_the_parameters_that_come_out_make_the_conditions_hold(reward: float) -> None:
    situation = replace(SITUATION, reward=reward, ring=0.3)
    target = Target(margin=2.0, unwatched=0.25)
    parameters = recommended(PUBLIC, PRICES, target, (situation,))
    assert all(need.suffices for need in needs(parameters, situation, PRICES, target))
    found = named(parameters, situation)
    for name in ("looks beside a verifier's sybil", "does not replay", "fails an honest proof"):
        assert found[name].margin >= 1.99, name
    assert next(c for n, c in found.items() if n.startswith("trains nothing")).margin >= 1.9
    assert 1 - amounts(parameters, situation, PRICES).watched_with_sybils <= 0.3


def test_joining_by_the_count_leaves_a_coalition_unwatched() -> None:
    good = recommended(PUBLIC, PRICES, Target(), (SITUATION,))
    blind = limits(good, SITUATION, PRICES).largest_ring
    count = limits(good, replace(SITUATION, joining="count"), PRICES).largest_ring
    assert count < blind


def test_more_verifiers_keep_larger_coalitions_out() -> None:
    rings = [limits(PUBLIC, replace(SITUATION, verifiers=n), PRICES).largest_ring_unwatched for n in (1, 2, 3)]
    assert rings == sorted(rings)
    assert rings[0] < rings[2]


def test_serving_only_accomplices_loses_up_to_a_fifth_of_the_seats_and_more_verifiers_reach_further() -> None:
    def margin(ring: float, verifiers: int = 2, **changes: int) -> float:
        situation = replace(SITUATION, ring=ring, verifiers=verifiers)
        return named(replace(PUBLIC, **changes), situation)["serves files to its own verifiers only"].margin

    assert margin(0.15) >= 2
    assert margin(0.2) >= 1 > margin(0.2, unavailable_rate=0)
    assert margin(0.3, verifiers=2) < 1 < margin(0.3, verifiers=4)


@pytest.mark.parametrize("reward", [0.2, 1.0, 15.0])
def test_ending_a_task_by_stepping_back_costs_more_than_it_brings_whatever_the_price(reward: float) -> None:
    situation = replace(SITUATION, reward=reward, ring=0.15)
    assert named(PUBLIC, situation)["steps back to end a task for its submitter"].margin >= 2
    # With the forfeit it destroys more than the price, and still less than it costs.
    assert limits(PUBLIC, situation, PRICES).starved_loss <= 1


def test_one_false_segment_that_saves_everything_pays_without_audits_and_loses_with_them() -> None:
    name = "saves everything by one false segment"
    assert not named(PUBLIC, SITUATION)[name].holds
    needed = limits(PUBLIC, SITUATION, PRICES).one_segment_audits
    assert named(PUBLIC, replace(SITUATION, audits=needed))[name].margin == pytest.approx(1.0)
    drawn = limits(PUBLIC, SITUATION, PRICES).one_segment_draws
    assert drawn is not None
    assert named(PUBLIC, replace(SITUATION, verifiers=1, per_verifier=drawn + 1))[name].holds


def test_advice_draws_enough_and_prices_within_the_markets_rules() -> None:
    wish = Wish(step_work=2e15, steps=20_000, replay_ratio=1.5, training_cost=1.0, ring=0.1)
    advice = advise(replace(PUBLIC, fee_per_terawork=10**9), wish, PRICES)
    assert advice.detection["25%"] >= 0.9
    assert advice.lowest_reward <= advice.highest_reward
    assert advice.verifiers * advice.per_verifier <= advice.segments
    assert advice.escrow > advice.highest_reward + advice.verifiers * advice.verifier_fee
    assert advice.verifier_fee >= advice.amounts.verifier_cost
    assert advice.interval * advice.segments >= 20_000


def test_advice_warns_where_checking_costs_more_than_training() -> None:
    advice = advise(PUBLIC, Wish(step_work=1e12, steps=1_000), PRICES)
    assert any("checking would cost" in warning for warning in advice.warnings)
    assert any("times a trained one" in warning for warning in advice.warnings)


def test_advice_says_how_many_draws_make_cheating_lose_down_to_one_segment() -> None:
    wish = Wish(step_work=2e15, steps=20_000, segments=64, replay_ratio=1.5, training_cost=1.0)
    advice = advise(PUBLIC, wish, PRICES)
    a = advice.amounts
    for name, wrong in (("1 segment", 1), ("10%", 7), ("50%", 32)):
        drawn = advice.draws[name]
        assert drawn is not None
        assert (1 - missed(wrong, 64, drawn)) * (a.price + a.stake_lost) >= a.training_cost
        assert drawn == 1 or (1 - missed(wrong, 64, drawn - 1)) * (a.price + a.stake_lost) < a.training_cost
    assert any("look yourself" in warning for warning in advice.warnings)
    followed = advise(PUBLIC, replace(wish, audits=0.99), PRICES)
    assert not any("look yourself" in warning for warning in followed.warnings)


def test_advice_for_one_segment_says_that_the_market_draws_no_more_than_it_does() -> None:
    wish = Wish(step_work=2e15, steps=20_000, segments=1024, fraction=0.0, replay_ratio=1.5, training_cost=1.0)
    advice = advise(PUBLIC, wish, PRICES)
    assert advice.verifiers * advice.per_verifier == 128
    assert any("at most 128 segments" in warning for warning in advice.warnings)


def test_larger_coalitions_are_answered_by_more_verifiers() -> None:
    wish = Wish(step_work=2e15, steps=20_000, segments=512, replay_ratio=1.5, training_cost=1.0)
    numbers = [advise(PUBLIC, replace(wish, ring=ring), PRICES).verifiers for ring in (0.05, 0.2, 0.3)]
    assert numbers == sorted(numbers)
    assert numbers[0] < numbers[2]


def test_advice_names_work_that_the_markets_clocks_cannot_carry() -> None:
    advice = advise(PUBLIC, Wish(step_work=1e17, steps=100_000), PRICES)
    assert any("refuses the task" in warning for warning in advice.warnings)
    assert any("stay bound" in warning for warning in advice.warnings)


def test_advice_for_no_work_is_refused() -> None:
    with pytest.raises(AdviceError, match="no work"):
        advise(PUBLIC, Wish(step_work=0, steps=10), PRICES)
