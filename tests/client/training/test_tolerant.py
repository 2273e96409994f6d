"""Tolerant mode: honest native runs stay within the profiled thresholds, and a skipped step does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from assay.engine.native.run import NativeRun
from assay.program.graph import Graph
from assay.program.operator import Array
from assay.program.optimizer import SGD, AdamW
from assay.program.sections import Precision, build_program
from assay.program.trace import trace
from assay.training.profile import profile
from assay.training.replay import Replayer
from assay.training.task import Mode, TrainingTask

SAMPLES, BATCH, INTERVAL = 64, 16, 10


def tolerant_task(precision: Precision = Precision.FP32) -> tuple[TrainingTask, Graph]:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(8, 24), nn.GELU(approximate="tanh"), nn.LayerNorm(24), nn.Linear(24, 4))
    inputs, labels = torch.randn(SAMPLES, 8), torch.randint(0, 4, (SAMPLES,))
    traced = trace(module, "cross_entropy", AdamW(0.01), [inputs[:BATCH], labels[:BATCH]], SAMPLES)
    data = (inputs.numpy(), labels.numpy().astype(np.int32))
    program = build_program(traced.graph, precision)
    task = TrainingTask(program, traced.initial_state, data, 11, 3 * INTERVAL, INTERVAL, Mode.TOLERANT, precision)
    return task, traced.graph


def native_states(task: TrainingTask, graph: Graph, skip: int | None = None) -> list[list[Array]]:
    """States after each segment of a native run; step `skip` is left out."""
    run = NativeRun(graph, task.data, task.seed)
    run.load(task.state)
    states = [list(task.state)]
    for segment in range(task.segments):
        first = task.first_step(segment)
        for number in range(first, first + task.segment_steps(segment)):
            if number != skip:
                run.advance(number)
        states.append(run.copy_state())
    return states


@pytest.fixture(scope="module")
def world() -> tuple[TrainingTask, Graph, Array, Replayer]:
    task, graph = tolerant_task()
    found = profile(task, draw_seed=5, segments=2)
    assert found.separates
    assert found.thresholds.shape == (len(task.program.state),)
    return task, graph, found.thresholds, Replayer(task)


def test_an_honest_native_run_passes_in_every_segment(world: tuple[TrainingTask, Graph, Array, Replayer]) -> None:
    task, graph, thresholds, replayer = world
    states = native_states(task, graph)
    for segment in range(task.segments):
        replay = replayer.replay(segment, states[segment], 3, states[segment + 1], thresholds)
        assert replay.distance is not None
        assert replay.passes(b""), f"segment {segment}: distance {replay.distance}"


def test_a_skipped_step_fails_its_segment(world: tuple[TrainingTask, Graph, Array, Replayer]) -> None:
    task, graph, thresholds, replayer = world
    states = native_states(task, graph, skip=14)
    distances = [
        replayer.replay(segment, states[segment], 3, states[segment + 1], thresholds).distance
        for segment in range(task.segments)
    ]
    assert [distance is not None and distance <= 1 for distance in distances] == [True, False, True]


@pytest.mark.parametrize("lie", ["nan", "one tensor", "moment", "not trained"])
def test_one_false_tensor_fails(lie: str, world: tuple[TrainingTask, Graph, Array, Replayer]) -> None:
    task, graph, thresholds, replayer = world
    states = native_states(task, graph)
    end = [part.copy() for part in states[1]]
    names = [entry.name for entry in task.program.state]
    if lie == "nan":
        end = [np.full_like(part, np.nan) if part.dtype == np.float32 else part for part in end]
    elif lie == "one tensor":
        end[0] = states[0][0]
    elif lie == "moment":
        place = next(i for i, name in enumerate(names) if "first_moment" in name)
        end[place] = np.zeros_like(end[place])
    else:
        end = states[0]
    replay = replayer.replay(0, states[0], 3, end, thresholds)
    assert not replay.passes(b""), f"{lie}: distance {replay.distance}"


def test_a_bit_equal_checkpoint_has_distance_zero(world: tuple[TrainingTask, Graph, Array, Replayer]) -> None:
    task, _, thresholds, replayer = world
    end = replayer.replay(0, task.state, 3, task.state, thresholds).end
    assert replayer.replay(0, task.state, 3, end, thresholds).distance == 0.0


def test_a_profile_is_the_same_twice_and_says_when_nothing_separates() -> None:
    task, _ = tolerant_task(Precision.BF16)
    first, second = profile(task, 5), profile(task, 5)
    assert [leaf.leaf() for leaf in first.leaves] == [leaf.leaf() for leaf in second.leaves]
    coarse = replace(task, steps=200, interval=200)
    assert profile(coarse, 5).separations[0] < first.separations[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cnn", "gpt"])
def test_canonical_training_reaches_the_loss_that_pytorch_reaches(kind: str) -> None:
    from assay.training.train import CanonicalRunner

    torch.manual_seed(2)
    if kind == "cnn":
        module: nn.Module = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(128, 10),
        )
        digits = pytest.importorskip("sklearn.datasets").load_digits()
        inputs = torch.tensor(digits.images[:512, None] / 16, dtype=torch.float32)
        labels, optimizer = torch.tensor(digits.target[:512]), SGD(0.1, momentum=0.9)
        loss: object = "cross_entropy"
    else:
        from assay.bench.models import Gpt, language_loss

        module = Gpt(vocabulary=16, width=32, heads=2, layers=2, time=16)
        text = torch.tensor([(i * i + 3 * (i // 7)) % 16 for i in range(512 + 17)])
        inputs = torch.stack([text[i : i + 16] for i in range(512)])
        labels, optimizer = torch.stack([text[i + 1 : i + 17] for i in range(512)]), AdamW(0.003)
        loss = language_loss
    traced = trace(module, loss, optimizer, [inputs[:32], labels[:32]], 512)  # type: ignore[arg-type]
    data = tuple(
        part.numpy().astype(np.int32) if not part.is_floating_point() else part.numpy() for part in (inputs, labels)
    )
    task = TrainingTask(build_program(traced.graph), traced.initial_state, data, 3, 150, 50)
    canonical, native = CanonicalRunner(task), NativeRun(traced.graph, data, task.seed)
    canonical.load(task.state)
    native.load(task.state)
    curves: list[tuple[float, float]] = []
    for number in range(task.steps):
        canonical.advance(number)
        native.advance(number)
        curves.append((canonical.loss() or 0.0, native.loss() or 0.0))
    assert curves[0][0] == pytest.approx(curves[0][1], rel=1e-5)
    ours, theirs = (float(np.mean([pair[side] for pair in curves[-20:]])) for side in (0, 1))
    assert ours < 0.6 * curves[0][0]
    assert ours == pytest.approx(theirs, rel=0.03)
