"""Forged proofs of learning land over the threshold in every segment they cheat in; honest ones never do."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from assay.attacks.material import Material, prepare
from assay.attacks.proofs import ATTACKS, Attack, Forgery, forged_momentum, large_updates_planted, sorted_initial_state
from assay.bench.separation import PROFILED_SEGMENTS, Finding, SeparationSettings, distances, find, honest_runs
from assay.bench.subjects import subject
from assay.commitments.execution import state_root
from assay.program.sections import Precision
from assay.training.profile import Profile, profile
from assay.training.replay import DISTANCE_LIMIT, Replayer

SETTINGS = SeparationSettings(segments=4, interval=3, drawn=2, draws=2000, honest=8, honest_run=4)
SAMPLING_ERROR = 0.04
"""Three and a half standard deviations of a frequency over 2000 draws."""

models = pytest.mark.parametrize("model", ["mlp", "cnn", "gpt"])


traced = cache(subject)


@cache
def world(model: str) -> tuple[Material, Replayer, Profile]:
    made = traced(model)
    task = made.task(Precision.FP32, SETTINGS.segments, SETTINGS.interval)
    return prepare(task, made.graph, made.half, made.optimizer), Replayer(task), profile(task, 5, PROFILED_SEGMENTS)


@cache
def forged(attack: Attack, model: str) -> tuple[Forgery, Finding]:
    material, replayer, profiled = world(model)
    forgery = attack.forge(material)
    return forgery, find(attack, forgery, replayer, profiled.thresholds, SETTINGS)


@models
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_forged_proof_is_over_the_threshold_wherever_it_cheats(attack: Attack, model: str) -> None:
    _, finding = forged(attack, model)
    assert finding.cheated
    assert finding.separated, f"distances {finding.distances}, cheated {sorted(finding.cheated)}"


@models
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_a_draw_finds_a_forged_proof_as_often_as_computed(attack: Attack, model: str) -> None:
    _, finding = forged(attack, model)
    assert finding.measured >= finding.computed - SAMPLING_ERROR
    if finding.failing == finding.cheated:
        assert finding.measured == pytest.approx(finding.computed, abs=SAMPLING_ERROR)


@models
def test_honest_runs_pass_in_every_segment_on_any_number_of_threads(model: str) -> None:
    material, replayer, profiled = world(model)
    assert profiled.separates
    found = list(distances(replayer, material.honest, profiled.thresholds))
    runs = honest_runs(traced(model), Precision.FP32, SETTINGS)
    assert [run.kernels for run in runs] == ["1 thread", "2 threads"]
    assert all(run.accepted for run in runs)
    found += [distance for run in runs for distance in run.distances]
    assert len(found) == 3 * SETTINGS.segments
    assert all(distance <= DISTANCE_LIMIT for distance in found), found


@models
def test_a_sorted_initial_state_is_not_the_tasks(model: str) -> None:
    material, _, _ = world(model)
    forgery = sorted_initial_state(material)
    place = material.parameters[0]
    start, honest, stolen = (
        s[place].reshape(-1) for s in (forgery.states[0], material.task.state, material.stolen[-1])
    )
    assert np.corrcoef(start, stolen)[0, 1] > 0.9 > np.corrcoef(honest, stolen)[0, 1]
    assert sorted(start) == sorted(honest)
    assert state_root(forgery.states[0]) != material.task.initial_root


@models
def test_forged_momentum_lands_on_the_stolen_weights_and_its_last_segment_passes(model: str) -> None:
    attack = next(attack for attack in ATTACKS if attack.forge is forged_momentum)
    material, _, _ = world(model)
    forgery, finding = forged(attack, model)
    assert finding.distances[-1] <= DISTANCE_LIMIT, "the attack is no attack"
    end, start, stolen = (
        np.concatenate([state[place].reshape(-1) for place in material.parameters])
        for state in (forgery.states[-1], material.task.state, material.stolen[-1])
    )
    assert np.linalg.norm(end - stolen) <= 0.15 * np.linalg.norm(start - stolen)


@models
def test_whoever_looks_at_the_largest_updates_alone_finds_nothing(model: str) -> None:
    attack = next(attack for attack in ATTACKS if attack.forge is large_updates_planted)
    material, _, _ = world(model)
    forgery, finding = forged(attack, model)
    sizes = [
        sum(float(np.linalg.norm(after[p] - before[p])) for p in material.parameters)
        for before, after in zip(forgery.states, forgery.states[1:], strict=False)
    ]
    largest = sorted(range(len(sizes)), key=lambda segment: -sizes[segment])[: SETTINGS.drawn]
    assert finding.failing.isdisjoint(largest)
    assert finding.measured > 0.5


@models
@pytest.mark.parametrize("name", ["concatenated runs", "not a number"])
def test_a_proof_false_in_one_segment_shows_which_before_any_replay(name: str, model: str) -> None:
    attack = next(attack for attack in ATTACKS if attack.name == name)
    _, finding = forged(attack, model)
    assert finding.cheated == {finding.suspected}
