"""The simulated market: its books, its agreement with the formulas, and who earns what."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from assay.cli.economics import economics
from assay.economics.agents import SimulationError
from assay.economics.formulas import watched
from assay.economics.report import as_json, coalition, earnings
from assay.economics.simulated_market import Config
from assay.economics.simulation import Outcome, Simulation, simulate


@pytest.fixture(scope="module")
def market() -> Outcome:
    return simulate(Config(agents=400, tasks=1500, seed=3))


def test_the_books_balance_to_the_wei(market: Outcome) -> None:
    assert market.entered == market.held
    assert market.moves > 30_000


def test_the_same_seed_gives_the_same_market() -> None:
    config = Config(agents=60, tasks=150, seed=9)
    assert as_json(simulate(config)) == as_json(simulate(config))
    assert as_json(simulate(config))["earnings"] != as_json(simulate(replace(config, seed=10)))["earnings"]


def test_no_other_behaviour_earns_as_much_as_honesty(market: Outcome) -> None:
    """Outside the coalition: what its verifiers' identities win of forced errors is a known, bounded gain."""
    rows = {(row["role"], row["behaviour"]): row for row in earnings(market)}
    for role in ("solver", "verifier", "whistleblower"):
        honest = rows[role, "honest"]["profit_act"]
        assert honest > 0
        for (other, behaviour), row in rows.items():
            if other == role and behaviour not in ("honest", "colluding") and row["acts"]:
                assert row["profit_act"] < min(honest, 0), (role, behaviour)


def test_the_coalition_as_a_whole_loses(market: Outcome) -> None:
    assert coalition(market) < 0


def test_lazy_solvers_are_caught_as_often_as_the_formula_says() -> None:
    honest_but_lazy_solvers = Simulation(Config(agents=200, tasks=1500, seed=1, mix={"lazy": 0.0}))
    for agent in honest_but_lazy_solvers.solvers[::2]:
        agent.behaviour = "lazy"
    outcome = honest_but_lazy_solvers.run()
    assert outcome.lazy_trials > 80
    chance = outcome.expected_caught / outcome.lazy_trials
    spread = math.sqrt(outcome.lazy_trials * chance * (1 - chance))
    assert abs(outcome.lazy_caught - outcome.expected_caught) < 4 * spread


def test_claims_are_watched_as_often_as_the_formula_says() -> None:
    config = Config(
        agents=200, tasks=1000, seed=2, mix={}, reward_spread=0.0, hardware_spread=0.0, exact=1.0, capacity=10**6
    )
    outcome = simulate(config)
    late = outcome.moments[len(outcome.moments) // 2 :]
    parameters, prices = config.parameters, config.prices
    tax = config.reward * parameters.tax_rate / 1e6 / config.verifiers
    income = min(tax, parameters.forced_rate * parameters.jackpot_rate / 1e12)
    cost = config.reward * config.training_part * config.replay_part + prices.gas("whistleblower")
    number = round(sum(moment.active for moment in late) / len(late))
    seen = sum(moment.watched for moment in late) / len(late)
    assert seen == pytest.approx(watched(income, cost, number), abs=0.04)


def test_joining_by_the_count_lets_a_large_coalition_crowd_whistleblowers_out() -> None:
    results = {}
    for joining in ("blind", "count"):
        outcome = simulate(Config(agents=300, tasks=700, seed=4, mix={"colluding": 0.6}, joining=joining))
        stood, fell = outcome.claims["colluding", "false claim stood"], outcome.claims["colluding", "silent"]
        results[joining] = stood / (stood + fell)
    assert results["count"] > results["blind"]


def test_joining_beyond_the_threshold_now_and_then_keeps_a_coalition_from_crowding_everybody_out() -> None:
    crowded = Config(agents=300, tasks=700, seed=4, mix={"colluding": 0.6}, joining="count")
    results = []
    for beyond in (0.0, 0.05):
        outcome = simulate(replace(crowded, beyond=beyond))
        stood, silent = outcome.claims["colluding", "false claim stood"], outcome.claims["colluding", "silent"]
        results.append((stood / (stood + silent), coalition(outcome)))
    (alone, richer), (watched, poorer) = results
    assert alone == 1.0
    assert watched < 0.5
    assert poorer < richer


def test_a_solver_that_serves_only_its_own_verifiers_loses() -> None:
    outcome = simulate(Config(agents=300, tasks=600, seed=6, mix={"withholding": 0.15, "colluding": 0.05}))
    ends = {end for (solver, end), number in outcome.ends.items() if solver == "withholding" and number}
    assert ends == {"Unavailable", "Settled"}
    rows = {(row["role"], row["behaviour"]): row for row in earnings(outcome)}
    assert rows["solver", "withholding"]["profit_agent"] < 0
    assert coalition(outcome) < 0


def test_audits_find_what_the_draw_misses() -> None:
    few = Config(agents=200, tasks=400, seed=5, mix={"lazy": 0.3}, lazy_fraction=0.05)
    alone, audited = simulate(few), simulate(replace(few, audits=0.2))
    assert audited.lazy_caught / audited.lazy_trials > alone.lazy_caught / alone.lazy_trials


def test_imitation_spreads_honesty() -> None:
    mix = {"lazy": 0.2, "lying": 0.1, "griefing": 0.1, "absent": 0.1}
    moments = simulate(Config(agents=200, tasks=1500, seed=7, mix=mix, imitation=0.05)).moments
    assert moments[-1].dishonest < 0.8 * moments[0].dishonest


def test_a_mix_that_is_none_is_refused() -> None:
    with pytest.raises(SimulationError, match="sneaky"):
        simulate(Config(mix={"sneaky": 0.1}))
    with pytest.raises(SimulationError, match="at most 1"):
        simulate(Config(mix={"lazy": 0.8, "lying": 0.4}))


@pytest.mark.slow
def test_a_thousand_agents_play_ten_thousand_tasks_within_two_minutes_of_one_core() -> None:
    start = time.process_time()
    outcome = simulate(Config())
    assert sum(outcome.ends.values()) >= 10_000
    assert time.process_time() - start < 120


# ---- The command line ----


def run(*words: str) -> str:
    result = CliRunner().invoke(economics, words)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.output


def test_every_command_prints_one_json_document() -> None:
    simulated = json.loads(run("simulate", "--tasks", "60", "--agents", "60", "--mix", "lazy=0.2", "--json"))
    assert simulated["accounts"]["entered_wei"] == simulated["accounts"]["held_wei"]
    assert simulated["left_out"]
    found = json.loads(run("conditions", "--reward", "3", "--parameter", "forced_rate=200000", "--json"))
    assert {"conditions", "limits", "parameters", "assumptions"} <= set(found)
    advice = json.loads(run("advise", "--step-work", "1e14", "--steps", "5000", "--json"))
    assert advice["verifiers"] >= 1


def test_tables_say_what_was_left_out() -> None:
    assert "left out:" in run("simulate", "--tasks", "40", "--agents", "60")
    assert "assumed:" in run("conditions")
    assert "assumed:" in run("advise", "--step-work", "1e14", "--steps", "5000")


def test_plots_are_png_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run("simulate", "--tasks", "60", "--agents", "60", "--plot", str(tmp_path / "market.png"))
    run("conditions", "--plot", str(tmp_path / "conditions.png"))
    for name in ("market.png", "conditions.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
