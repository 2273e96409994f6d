"""Compression that a task declares: part of its program, its state and its proof."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assay.engine.cpu.device import CpuDevice
from assay.engine.native.run import NativeRun
from assay.group.compression.boundary import make_codec
from assay.group.compression.choice import parse_compression
from assay.group.compression.crossing import MEMORY, compress_boundaries, cross_boundary, cross_remembered_boundary
from assay.group.errors import CompressionError
from assay.program.interpreter import Inputs, run_section
from assay.program.operator import Role
from assay.program.optimizer import SGD, AdamW
from assay.program.reference import StepContext
from assay.program.sections import Precision, build_program
from assay.program.trace import TracedTask, trace
from assay.training.canonical import CanonicalRun
from assay.training.checkpoint import CheckpointFolder
from assay.training.profile import profile
from assay.training.replay import Replayer
from assay.training.task import Mode, TrainingTask
from assay.training.train import train

SAMPLES, BATCH, FEATURES, HIDDEN = 24, 8, 6, 20
EPOCH = SAMPLES // BATCH


def data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    inputs = random.normal(size=(SAMPLES, FEATURES)).astype(np.float32)
    return inputs, (inputs[:, 0] > inputs[:, 1]).astype(np.int32)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(FEATURES, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 2)
    )


def traced_task(
    compression: str = "aqsgd-4-8", steps: int = 12, tolerant: bool = False
) -> tuple[TrainingTask, TracedTask]:
    model, (inputs, labels) = network(), data()
    batch = [torch.from_numpy(inputs[:BATCH]), torch.from_numpy(labels[:BATCH].astype(np.int64))]
    if compression != "none":
        compress_boundaries(model, ["1", "3"], parse_compression(compression), batch[:1], SAMPLES, steps)
    traced = trace(model, "cross_entropy", AdamW(0.02), batch, SAMPLES)
    program = build_program(traced.graph, Precision.FP32 if tolerant else None)
    mode = Mode.TOLERANT if tolerant else Mode.EXACT
    return TrainingTask(program, traced.initial_state, (inputs, labels), 5, steps, EPOCH, mode), traced


def test_the_crossing_computes_what_two_members_of_a_pipeline_compute() -> None:
    choice = parse_compression("aqsgd-3-6")
    ends = [make_codec(choice, (10, 20), SAMPLES, None, end) for end in ("sender", "receiver")]
    memory = torch.zeros(SAMPLES, 200)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(SAMPLES, 10, 20, generator=generator)
    for epoch in range(4):
        order = torch.randperm(SAMPLES, generator=generator)
        values = values + 0.1 * torch.randn(SAMPLES, 10, 20, generator=generator)
        for step, numbers in enumerate(order.split(BATCH), start=epoch * EPOCH):
            for end in ends:
                end.begin_step(numbers)
            activations = values[numbers].requires_grad_()
            expected = ends[1].decode_forward(ends[0].encode_forward(activations, numbers), numbers)
            crossed = cross_remembered_boundary(activations, memory, numbers, torch.tensor(step), EPOCH, choice)
            assert torch.equal(crossed.view(torch.int32), expected.view(torch.int32))
            gradients = torch.randn(BATCH, 10, 20, generator=generator)
            crossed.backward(gradients)
            assert activations.grad is not None
            received = ends[0].decode_backward(ends[1].encode_backward(gradients), BATCH)
            assert torch.equal(activations.grad, received)


@pytest.mark.parametrize("name", ["direct-4-8", "tile-4-8"])
def test_a_crossing_without_memory_is_the_wire_s(name: str) -> None:
    choice = parse_compression(name)
    codec = make_codec(choice, (10, 20), SAMPLES, None, "end")
    values = torch.randn(BATCH, 10, 20, generator=torch.Generator().manual_seed(0))
    numbers = torch.arange(BATCH)
    expected = codec.decode_forward(codec.encode_forward(values, numbers), numbers)
    assert torch.equal(cross_boundary(values, choice), expected)


def test_the_memory_of_the_canonical_run_is_the_cache_of_the_wire() -> None:
    """A product with a trained vector, then the boundary: what enters it is known to the bit from the state."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.linspace(0.5, 1.5, FEATURES))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    inputs, _ = data()
    model = nn.Sequential(Scaled())
    batch = [torch.from_numpy(inputs[:BATCH]), torch.from_numpy(inputs[:BATCH] * 2)]
    choice = parse_compression("aqsgd-4-8")
    compress_boundaries(model, ["0"], choice, batch[:1], SAMPLES, 9)
    traced = trace(model, "mse", SGD(0.5), batch, SAMPLES)
    task = TrainingTask(build_program(traced.graph), traced.initial_state, (inputs, inputs * 2), 5, 9, 3)
    names = [descriptor.name for descriptor in task.program.state]
    factor, memory = names.index("0.factor"), names.index(f"0.{MEMORY}")
    codec = make_codec(choice, (FEATURES,), SAMPLES, None, "sender")
    run = CanonicalRun(task.program, task.data, task.seed, CpuDevice())
    run.load(task.state)
    kept = np.zeros((SAMPLES, FEATURES), np.float32)
    for step in range(9):
        before = run.state[factor].copy()
        run.step(step)
        numbers = np.flatnonzero((run.state[memory] != kept).any(1))
        assert len(numbers) == BATCH
        chosen = torch.from_numpy(numbers)
        codec.begin_step(chosen)
        codec.encode_forward(torch.from_numpy(inputs[numbers] * before), chosen)
        kept = run.state[memory].copy()
        assert np.array_equal(codec.cache.read(chosen).numpy().view(np.int32), kept[numbers].view(np.int32))  # type: ignore[attr-defined]


def test_the_engine_and_the_reference_agree_on_a_compressed_step() -> None:
    task, _ = traced_task()
    run = CanonicalRun(task.program, task.data, task.seed, CpuDevice())
    run.load(task.state)
    for step in range(EPOCH):
        run.step(step)
    before = run.copy_state()
    run.step(EPOCH)
    context = StepContext(task.seed, EPOCH)
    expected = run_section(task.program, Role.STEP, Inputs(before, task.data, context)).next_state()
    for found, wanted in zip(run.state, expected, strict=True):
        assert np.array_equal(found.view(np.int32).reshape(-1), np.asarray(wanted).view(np.int32).reshape(-1))


def test_a_segment_in_the_middle_replays_alone(tmp_path: Path) -> None:
    task, _ = traced_task()
    proof = train(task, tmp_path)
    start = CheckpointFolder(tmp_path, task.program.state).read(2, proof.roots[2])
    replay = Replayer(task).replay(2, start, draw_seed=9)
    assert replay.leaf.end_root == proof.roots[3]
    # The memory counts: a checkpoint that forgot it does not lead to the next one.
    forgetful = [
        np.zeros_like(part) if descriptor.name.endswith(MEMORY) else part
        for part, descriptor in zip(start, task.program.state, strict=True)
    ]
    assert Replayer(task).replay(2, forgetful, draw_seed=9).leaf.end_root != proof.roots[3]


@pytest.mark.parametrize("name", ["aqsgd-4-8", "tile-4-8"])
def test_a_compressed_task_learns_as_an_uncompressed_one_does(name: str) -> None:
    losses = {}
    for compression in ("none", name):
        task, _ = traced_task(compression, steps=60)
        run = CanonicalRun(task.program, task.data, task.seed, CpuDevice())
        run.load(task.state)
        trace_of = []
        for step in range(task.steps):
            run.step(step)
            trace_of.append(run.loss() or 0.0)
        losses[compression] = float(np.mean(trace_of[-EPOCH:]))
    assert losses["none"] < 0.2
    assert losses[name] == pytest.approx(losses["none"], abs=0.05)


@pytest.mark.slow
def test_a_compressed_task_s_profile_separates_honest_native_runs_from_skipped_steps() -> None:
    task, traced = traced_task(tolerant=True)
    found = profile(task, draw_seed=4, segments=3)
    assert found.separates
    replayer = Replayer(task)
    native = NativeRun(traced.graph, task.data, task.seed)
    native.load(task.state)
    start = list(task.state)
    for segment in range(task.segments):
        first, steps = task.first_step(segment), task.segment_steps(segment)
        replayer.run.load(start)
        for step in range(first, first + steps):
            native.advance(step)
            replayer.run.step(step)
        end, honest = replayer.run.copy_state(), native.copy_state()
        assert replayer.distance(start, end, honest, found.thresholds) <= 1.0
        native.load(start)
        for step in range(first, first + steps - 1):
            native.advance(step)
        assert replayer.distance(start, end, native.copy_state(), found.thresholds) > 1.0
        native.load(honest)
        start = honest


def test_without_second_visits_the_tile_scheme_is_compiled_in_and_said() -> None:
    model, (inputs, _) = network(), data()
    batch = torch.from_numpy(inputs[:BATCH])
    said = compress_boundaries(model, ["1"], parse_compression("aqsgd-4-8"), [batch], SAMPLES, EPOCH)
    assert "tile-4-8 is used instead of aqsgd-4-8" in said
    assert not [name for name, _ in model.named_buffers()]


@pytest.mark.parametrize(
    ("boundaries", "compression", "samples", "message"),
    [
        (["7"], "aqsgd-4-8", SAMPLES, "no submodule '7'"),
        (["1"], "aqsgd-4-8", SAMPLES + 1, "whole batches"),
        (["1"], "none", SAMPLES, "leave \\[group\\] out"),
        (["1"], "tile-4-8-g8", SAMPLES, "use tile-4-8"),
    ],
)
def test_a_boundary_that_cannot_be_is_refused(
    boundaries: list[str], compression: str, samples: int, message: str
) -> None:
    batch = torch.from_numpy(data()[0][:BATCH])
    with pytest.raises(CompressionError, match=message):
        compress_boundaries(network(), boundaries, parse_compression(compression), [batch], samples, 100)
