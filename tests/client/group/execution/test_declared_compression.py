"""Compression that a task declares, where a group trains it: the same values as on one machine, in fewer bytes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from assay.commitments.execution import state_root
from assay.engine.cpu.device import CpuDevice
from assay.engine.native.run import NativeRun
from assay.group.compression.choice import parse_compression
from assay.group.compression.crossing import MEMORY, compress_boundaries
from assay.group.execution.declared.program import read_compression
from assay.group.execution.engines import ExactEngine, NativeEngine, StageEngine
from assay.group.execution.native.outline import outline
from assay.group.execution.packing import FULL, NEVER, SHORT, Packing
from assay.group.execution.partition import held_by
from assay.group.execution.schedule import bytes_in_step
from assay.program.graph import Graph
from assay.program.lowering import lower_step
from assay.program.operator import Role
from assay.program.optimizer import AdamW
from assay.program.sections import Precision, build_program
from assay.program.trace import trace
from assay.program.validate import validate
from assay.training.canonical import CanonicalRun
from assay.training.task import Mode, TrainingTask

from .tasks import one_thread, run_stages

SAMPLES, BATCH, FEATURES, WIDTH, CLASSES, STEPS = 24, 8, 6, 128, 64, 12
EPOCH = SAMPLES // BATCH


@cache
def compressed(name: str, mode: Mode = Mode.TOLERANT, classes: int = CLASSES) -> tuple[TrainingTask, Graph]:
    """An MLP with a boundary behind each of its two hidden layers."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(FEATURES, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, classes)
    )
    inputs, labels = torch.randn(SAMPLES, FEATURES), torch.randint(0, classes, (SAMPLES,))
    batch = [inputs[:BATCH], labels[:BATCH]]
    if name != "none":
        compress_boundaries(model, ["1", "3"], parse_compression(name), batch[:1], SAMPLES, STEPS)
    traced = trace(model, "cross_entropy", AdamW(0.002), batch, SAMPLES)
    program = build_program(traced.graph, Precision.FP32 if mode is Mode.TOLERANT else None)
    data = (inputs.numpy(), labels.numpy().astype(np.int32))
    return TrainingTask(program, traced.initial_state, data, 5, STEPS, EPOCH, mode), traced.graph


def engine_of(name: str, mode: Mode, pieces: int = 1) -> StageEngine:
    """What members of a group train the task with."""
    task, graph = compressed(name, mode)
    return ExactEngine(task, pieces) if mode is Mode.EXACT else NativeEngine(task, graph, pieces)


@pytest.mark.parametrize("name", ["direct-4-8", "tile-3-6", "aqsgd-4-8", "aqsgd-2-2"])
@pytest.mark.parametrize(("stages", "pieces"), [(2, 1), (3, 4)])
def test_a_compressed_group_computes_what_one_machine_does(name: str, stages: int, pieces: int) -> None:
    task, graph = compressed(name)
    run = NativeRun(graph, task.data, task.seed)
    run.load(task.state)
    with one_thread():
        for number in range(EPOCH + 1):
            run.advance(number)
    engine = NativeEngine(task, graph, pieces)
    (state,), _, loss = run_stages(task, engine, engine.divide([1.0] * stages), EPOCH + 1, EPOCH + 1)
    assert loss == pytest.approx(run.loss(), rel=1e-3)
    for mine, theirs in zip(state, run.copy_state(), strict=True):
        # A product of fewer samples may round otherwise, and a code falls to the other side now and then.
        close = np.isclose(mine, theirs, rtol=1e-3, atol=1e-3)
        assert close.mean() > 0.99


@pytest.mark.parametrize("name", ["direct-4-8", "aqsgd-4-8"])
def test_in_one_piece_a_compressed_group_gives_the_very_bits(name: str) -> None:
    task, graph = compressed(name)
    run = NativeRun(graph, task.data, task.seed)
    run.load(task.state)
    with one_thread():
        for number in range(STEPS):
            run.advance(number)
    engine = NativeEngine(task, graph, 1)
    (state,), _, _ = run_stages(task, engine, engine.divide([1.0, 1.0]), STEPS, STEPS)
    for mine, theirs in zip(state, run.copy_state(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("name", ["direct-4-8", "tile-3-6", "aqsgd-4-8"])
@pytest.mark.parametrize(("stages", "pieces"), [(2, 1), (3, 4)])
def test_an_exact_compressed_group_gives_one_machine_s_bits(name: str, stages: int, pieces: int) -> None:
    task, _ = compressed(name, Mode.EXACT)
    run = CanonicalRun(task.program, task.data, task.seed, CpuDevice(1))
    run.load(task.state)
    for number in range(STEPS):
        run.step(number)
    engine = engine_of(name, Mode.EXACT, pieces)
    (state,), sent, _ = run_stages(task, engine, engine.divide([1.0] * stages), STEPS, STEPS)
    assert state_root(state) == state_root(run.state)
    full = STEPS * engine.divide([1.0] * stages).bytes_per_step
    assert sent < full / 2


@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize(
    ("name", "bits", "scales"), [("direct-4-8", 12, 2), ("tile-4-8", 12, 3), ("aqsgd-4-8", 12, 2), ("aqsgd-3-6", 9, 2)]
)
def test_codes_and_half_scales_are_all_that_crosses(name: str, bits: int, scales: int, mode: Mode) -> None:
    engine = engine_of(name, mode)
    divided = engine.divide([1.0, 1.0])
    codes, groups = BATCH * WIDTH * bits // 8, BATCH
    assert bytes_in_step(engine.schedules(divided), STEPS - 1) == codes + groups * scales * 2


@pytest.mark.parametrize("mode", list(Mode))
def test_first_visits_are_sent_in_full_and_later_ones_as_changes(mode: Mode) -> None:
    task, _ = compressed("aqsgd-4-8", mode)
    engine = engine_of("aqsgd-4-8", mode)
    schedules = engine.schedules(engine.divide([1.0, 1.0]))
    backward = BATCH * WIDTH + 2 * BATCH
    assert bytes_in_step(schedules, EPOCH - 1) == 4 * BATCH * WIDTH + backward
    assert bytes_in_step(schedules, EPOCH) == BATCH * WIDTH // 2 + 2 * BATCH + backward
    sent = run_stages(task, engine, engine.divide([1.0, 1.0]), STEPS, STEPS)[1]
    assert sent == sum(bytes_in_step(schedules, step) for step in range(STEPS))


@pytest.mark.parametrize("mode", list(Mode))
def test_both_ends_keep_the_memory_and_the_sender_answers_for_it(mode: Mode) -> None:
    task, _ = compressed("aqsgd-4-8", mode)
    engine = engine_of("aqsgd-4-8", mode)
    divided = engine.divide([1.0, 1.0])
    memories = [number for number, entry in enumerate(task.program.state) if entry.name.endswith(MEMORY)]
    assert len(memories) == 2
    (shared,) = (number for number in memories if number in divided.parts[1].copies)  # the one that is cut through
    assert divided.owner[shared] == 0
    assert shared in divided.parts[0].state


@pytest.mark.parametrize("mode", list(Mode))
def test_the_memory_that_both_ends_keep_counts_at_both(mode: Mode) -> None:
    engine = engine_of("aqsgd-4-8", mode)
    divided = engine.divide([1.0, 1.0])
    held = held_by(engine.program, divided)[1]
    assert held.copies == 8 * SAMPLES * WIDTH + 16  # and both powers of beta
    limit = held.total - held.copies / 2
    assert held_by(engine.program, engine.divide([1.0, 1.0], [0.0, limit]))[1].total <= limit


def test_a_narrow_end_of_the_model_does_not_lure_the_cut_away_from_a_boundary() -> None:
    task, graph = compressed("direct-4-8", Mode.TOLERANT, 2)  # behind the last layer, 16 numbers would cross
    divided = NativeEngine(task, graph, 1).divide([1.0, 1.0])
    assert min(part.work for part in divided.parts) > 0.05 * sum(part.work for part in divided.parts)
    assert {crossing.packing.bits for crossing in divided.crossings} == {4, 8, SHORT}


@pytest.mark.parametrize("mode", list(Mode))
def test_what_is_not_compressed_is_not_taken_for_it(mode: Mode) -> None:
    task, graph = compressed("none", mode)
    found = read_compression(task.program)[1] if mode is Mode.EXACT else outline(graph, 1).compression
    assert not found.bits
    assert not found.choices
    assert not found.memories
    assert not found.mirrored


def test_the_copy_before_a_choice_changes_no_state_of_the_exact_step() -> None:
    task, _ = compressed("aqsgd-4-8", Mode.EXACT)
    program, found = read_compression(task.program)
    before, after = (each.section(Role.STEP) for each in (task.program, program))
    assert len(after.operators) == len(before.operators) + len(found.choices)
    validate(program)


def test_a_cut_off_that_keeps_fractions_is_sent_in_full() -> None:
    class Bounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(FEATURES, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.layer(x)
            y = torch.where(y > 0.0, y, 0.0)
            return torch.where(y < 15.0, y, 15.0)

    data = [torch.randn(BATCH, FEATURES), torch.randint(0, 2, (BATCH,))]
    traced = trace(Bounded(), "cross_entropy", AdamW(0.01), data, SAMPLES)
    assert not outline(traced.graph, 1).compression.bits
    assert not read_compression(lower_step(traced.graph))[1].bits


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_packed_codes_come_back(bits: int, kind: type) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, 101).astype(kind)
    packing = Packing(bits)
    words = np.zeros(packing.words(101), np.uint32)
    assert words.size == -(-101 * bits // 32)
    packing.pack(values, words)
    np.testing.assert_array_equal(packing.unpack(words, 101, np.dtype(kind)), values)


def test_short_floats_come_back() -> None:
    values = np.array([0.0, -1.5, 2.0**-90, 3.0 * 2.0**40, np.nan], np.float32)
    words = np.zeros(Packing(SHORT).words(5), np.uint32)
    assert words.size == 3
    Packing(SHORT).pack(values, words)
    np.testing.assert_array_equal(Packing(SHORT).unpack(words, 5, np.dtype(np.float32)), values)


def test_a_packing_says_in_which_steps_it_is_sent() -> None:
    assert all(Packing().is_sent(step) for step in (0, 1, 10**9))
    first = Packing(FULL, until=3, since=NEVER)
    assert [first.is_sent(step) for step in (0, 2, 3, 4)] == [True, True, False, False]
    later = Packing(4, until=0, since=3)
    assert [later.is_sent(step) for step in (0, 2, 3, 4)] == [False, False, True, True]
