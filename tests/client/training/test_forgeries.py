"""What a profile says of each kind of forgery: computed from norms, and true of the replay's distance."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest

from assay.bench.subjects import subject
from assay.program.operator import Array, ElementType, TensorDescriptor
from assay.program.sections import Precision
from assay.training.canonical import CanonicalRun
from assay.training.forgeries import Forgery, Kind, Norms, SegmentNorms, find_forgeries, tensor_distances
from assay.training.profile import Profile, profile
from assay.training.replay import Replayer
from assay.training.task import TrainingTask

WEIGHT, BIAS, MOMENT, BIAS_MOMENT, BUFFER, POWER = range(6)
TENSORS = tuple(
    TensorDescriptor(name, ElementType.FLOAT, shape)
    for name, shape in (
        ("weight", (30, 20)),
        ("bias", (20,)),
        ("first_moment.weight", (30, 20)),
        ("first_moment.bias", (20,)),
        ("running_mean", (20,)),
        ("beta1_power", ()),
    )
)
UPDATES = {WEIGHT: 10.0, BIAS: 1.0, MOMENT: 10.0, BIAS_MOMENT: 1.0, BUFFER: 1.0, POWER: 0.1}
THRESHOLDS = {WEIGHT: 0.01, BIAS: 0.01, MOMENT: 0.01, BIAS_MOMENT: 0.01, BUFFER: 0.01, POWER: 0.0}


def vector(values: dict[int, float]) -> Norms:
    return np.array([values[place] for place in range(len(TENSORS))], np.float64)


def found(
    thresholds: dict[int, float] | None = None,
    updates: dict[int, float] | None = None,
    precision: Precision = Precision.FP32,
    truncates: bool = False,
    tensors: tuple[TensorDescriptor, ...] = TENSORS,
) -> dict[Kind, Forgery]:
    """One segment's forgeries; states so small that rounding counts for nothing, noise a 64th of the thresholds."""
    limits, moved = vector(THRESHOLDS | (thresholds or {})), vector(UPDATES | (updates or {}))
    with np.errstate(invalid="ignore"):
        noise = np.where(np.isfinite(limits), limits, 1.0) * moved / 64
    norms = SegmentNorms(moved, moved / 5, noise, np.zeros(len(TENSORS)))
    forgeries = find_forgeries(tensors, limits.astype(np.float32), [norms], precision, truncates)
    return {forgery.kind: forgery for forgery in forgeries}


def test_a_tensor_left_as_it_was_lies_its_own_update_away() -> None:
    forgeries = found({WEIGHT: 0.05})
    assert forgeries[Kind.HELD_WEIGHT].distance == pytest.approx(20)
    assert forgeries[Kind.HELD_WEIGHT].tensor == "weight"
    assert forgeries[Kind.SKIPPED_STEP].distance == pytest.approx(20)
    assert forgeries[Kind.RATE].distance == pytest.approx(1)
    assert all(forgery.seen for kind, forgery in forgeries.items() if kind.grave)


@pytest.mark.parametrize("threshold", [1.5, inf, nan])
def test_a_weight_within_whose_threshold_its_whole_update_lies_would_pass_untrained(threshold: float) -> None:
    held = found({WEIGHT: threshold})[Kind.HELD_WEIGHT]
    assert (held.seen, held.kind.grave, held.tensor) == (False, True, "weight")


def test_a_bias_that_hardly_moves_may_go_unchecked_and_one_that_carries_training_may_not() -> None:
    small = found({BIAS: 100.0})  # a hundredth of the squared update
    assert small[Kind.HELD_WEIGHT].seen
    assert (small[Kind.HELD_BIAS].seen, small[Kind.HELD_BIAS].kind.grave) == (False, False)
    large = found({BIAS: 100.0}, {BIAS: 5.0})  # a fifth of it
    assert (large[Kind.HELD_WEIGHT].seen, large[Kind.HELD_WEIGHT].tensor) == (False, "bias")


def test_a_matrix_is_never_too_small_to_matter() -> None:
    assert not found({WEIGHT: 2.0}, {WEIGHT: 1e-3})[Kind.HELD_WEIGHT].seen


def test_moments_and_buffers_are_named_and_do_not_refuse_a_task() -> None:
    forgeries = found({MOMENT: 2.0, BUFFER: 4.0})
    for kind, tensor in ((Kind.HELD_MOMENT, "first_moment.weight"), (Kind.HELD_BUFFER, "running_mean")):
        assert (forgeries[kind].seen, forgeries[kind].tensor, kind.grave) == (False, tensor, False)
    assert forgeries[Kind.HELD_WEIGHT].seen


def test_what_no_noise_reaches_shows_no_skipped_step() -> None:
    """A power of beta differs after a skipped step, and is forged for nothing."""
    blind = {place: 100.0 for place in range(len(TENSORS)) if place != POWER}
    assert found(blind)[Kind.SKIPPED_STEP].distance < 1


def test_a_tensor_that_did_not_move_cannot_be_held() -> None:
    assert Kind.HELD_BIAS not in found({BIAS: inf}, {BIAS: 0.0})


def test_lower_precisions_are_told_by_how_much_coarser_they_round() -> None:
    single, coarse, half = (found(precision=precision) for precision in Precision)
    assert single[Kind.TF32].distance == pytest.approx(256 / 64)
    assert single[Kind.BF16].distance == pytest.approx(2048 / 64)
    assert Kind.TF32 not in coarse
    assert coarse[Kind.BF16].distance == pytest.approx(8 / 64)
    assert Kind.BF16 not in half


def test_a_step_that_truncates_tells_nothing_of_precision() -> None:
    assert not found(truncates=True)[Kind.BF16].seen


def test_without_moments_everything_that_moves_counts_as_trained() -> None:
    plain = tuple(replace(tensor, name=f"part{place}") for place, tensor in enumerate(TENSORS))
    assert not found({MOMENT: 3.0}, tensors=plain)[Kind.HELD_WEIGHT].seen


def test_verdicts_refuse_what_is_grave_and_warn_of_what_is_not() -> None:
    def judged(*kinds: Kind) -> Profile:
        forgeries = tuple(Forgery(kind, 0.5, "layer", 0) for kind in kinds)
        return Profile((), np.zeros(1, np.float32), (50.0,), forgeries)

    held, subtle, clean = judged(Kind.HELD_WEIGHT, Kind.RATE), judged(Kind.RATE, Kind.BF16), judged()
    assert not held.acceptable
    assert "use exact mode" in held.verdict
    assert "a weight tensor not trained (0.5 thresholds, layer)" in held.verdict
    assert held.separates, "the market asks only for the skipped step"
    assert subtle.acceptable
    assert "Unseen would pass a learning rate 1 % off" in subtle.verdict
    assert clean.acceptable
    assert "pass" not in clean.verdict


# --- against replays -------------------------------------------------------------------------------------------------


def posted_with(task: TrainingTask, replayer: Replayer, thresholds: Array, held: str) -> tuple[float, list[float]]:
    """The replay's distance of an honest first segment in whose end one tensor is what it was at the start, and what
    is said tensor by tensor."""
    place = [tensor.name for tensor in task.program.state].index(held)
    run = CanonicalRun(task.program, task.data, task.seed, replayer.device)
    run.load(task.state)
    for number in range(task.segment_steps(0)):
        run.step(number)
    end = run.copy_state()
    posted = [*end[:place], task.state[place], *end[place + 1 :]]
    distance = replayer.replay(0, task.state, 3, posted, thresholds).distance
    assert distance is not None
    return distance, list(tensor_distances(task.state, end, posted, thresholds))


@pytest.mark.parametrize("held", ["0.weight", "3.weight"])
def test_the_computed_distance_is_the_one_that_a_replay_measures(held: str) -> None:
    task = subject("mlp").task(Precision.BF16, 4, 2)
    task_profile = profile(task, 5)
    measured, by_tensor = posted_with(task, Replayer(task), task_profile.thresholds, held)
    assert measured == pytest.approx(max(by_tensor), rel=1e-4)
    (said,) = (forgery for forgery in task_profile.forgeries if forgery.kind is Kind.HELD_WEIGHT)
    if held == said.tensor:
        assert measured == pytest.approx(said.distance, rel=1e-4)
    else:
        assert measured > said.distance


@pytest.mark.parametrize(
    ("name", "precision", "interval", "acceptable"),
    [("mlp", Precision.FP32, 5, True), ("mlp", Precision.BF16, 2, False), ("cnn", Precision.BF16, 2, False)],
)
def test_a_task_that_shows_a_skipped_step_is_refused_where_a_layer_could_stay_untrained(
    name: str, precision: Precision, interval: int, acceptable: bool
) -> None:
    found_profile = profile(subject(name).task(precision, 8, interval), 3, 4)
    assert found_profile.separates
    assert found_profile.acceptable is acceptable
    assert ("0.weight" in found_profile.verdict) is not acceptable
