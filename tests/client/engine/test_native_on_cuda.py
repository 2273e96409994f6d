"""Native training on a GPU passes where a verifier replays it, draws what the canonical run draws, and can go on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from assay.arithmetic.native_random import uniforms
from assay.attacks.material import train
from assay.bench.separation import DRAW_SEED, distances
from assay.bench.subjects import subject
from assay.engine.native.random import bernoulli, device_uniforms
from assay.engine.native.run import NativeRun
from assay.program.optimizer import AdamW, WarmupCosine
from assay.program.sections import Precision
from assay.training.profile import profile
from assay.training.replay import DISTANCE_LIMIT, Replayer

from .test_native import SEED, arrays, traced

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device")
CUDA = "cuda"
SEGMENTS, INTERVAL = 4, 5


@pytest.mark.parametrize("precision", list(Precision))
@pytest.mark.parametrize("model", ["mlp", "cnn", "gpt"])
def test_an_honest_run_passes_in_every_segment(model: str, precision: Precision) -> None:
    chosen = subject(model)
    task = chosen.task(precision, SEGMENTS, INTERVAL)
    thresholds = profile(task, DRAW_SEED, SEGMENTS).thresholds
    states = [task.state, *train(task, chosen.graph, task.state, device=CUDA)]
    found = distances(Replayer(task), states, thresholds)
    print(f"{model}, {precision.value}: distances {found}")
    assert all(distance <= DISTANCE_LIMIT for distance in found), found


def test_what_is_declared_is_what_products_are_computed_in() -> None:
    """A run at fp32 lies nearer to the canonical one than a run at tf32, and that nearer than one at bf16."""
    chosen = subject("mlp")
    task = chosen.task(Precision.FP32, 1, INTERVAL)
    thresholds = profile(task, DRAW_SEED, 1).thresholds
    found = []
    for precision in Precision:
        states = [task.state, *train(task, chosen.graph, task.state, precision=precision, device=CUDA)]
        found += distances(Replayer(task), states, thresholds)
    fp32, tf32, bf16 = found
    assert 10 * fp32 < tf32 < bf16


def test_dropout_masks_are_the_canonical_run_s_to_the_bit() -> None:
    device = torch.device(CUDA)
    for step in (0, 7, 2**31 - 1):
        found = device_uniforms(2**63 + 12345, step, 3, 100_001, device)
        assert found.cpu().numpy().tobytes() == uniforms(2**63 + 12345, step, 3, 0, 100_001).tobytes()
        here, there = (bernoulli(1, step, 3, (10, 1000), 0.8, torch.device(name)) for name in (CUDA, "cpu"))
        assert here.device.type == CUDA
        assert torch.equal(here.cpu(), there)


def test_a_model_of_all_kinds_of_layers_trains_as_on_the_processor() -> None:
    task = traced(AdamW(WarmupCosine(0.01, 2, 8), clip_norm=0.5, decay="matrices"))
    runs = [NativeRun(task.graph, arrays(), SEED, device) for device in (CUDA, "cpu")]
    for run in runs:
        run.load(task.initial_state)
    for step in range(4):
        for run in runs:
            run.advance(step)
        ours, theirs = (run.loss() for run in runs)
        assert ours == pytest.approx(theirs or 0.0, rel=1e-4)


@pytest.mark.parametrize("precision", list(Precision))
def test_a_run_resumed_from_its_state_goes_on_as_it_would_have(precision: Precision) -> None:
    task = traced(AdamW(WarmupCosine(0.01, 2, 8), clip_norm=0.5, decay="matrices"))
    whole, resumed = (NativeRun(task.graph, arrays(), SEED, CUDA, precision) for _ in range(2))
    whole.load(task.initial_state)
    for step in range(3):
        whole.advance(step)
    resumed.load(whole.copy_state())
    for step in range(3, 5):
        whole.advance(step)
        resumed.advance(step)
    for ours, theirs in zip(whole.copy_state(), resumed.copy_state(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
