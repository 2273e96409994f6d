"""Distance, noise and deviation: what the sections of a tolerant task say of real and made-up states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from assay.program.errors import ProgramError
from assay.program.interpreter import Inputs, run_section
from assay.program.operator import Array, ElementType, Program, Role, Section, Source, StateEntry, TensorDescriptor
from assay.program.optimizer import AdamW
from assay.program.reference import StepContext
from assay.program.sections import (
    MARGIN,
    NEAR_ZERO,
    NOISE_STREAM,
    ROUNDINGS,
    UNIT_ROUNDOFF,
    Precision,
    build_program,
    deviation_section,
    distance_section,
    noisy_section,
)
from assay.program.trace import TracedTask, trace

from .models import as_arrays, token_data, uniform_data

DATA = (uniform_data(20, 6), token_data(3, 20))
STATE = (
    TensorDescriptor("a", ElementType.FLOAT, (70,)),
    TensorDescriptor("b", ElementType.FLOAT, ()),
    TensorDescriptor("n", ElementType.INT, (2,)),
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.fixture(scope="module")
def task() -> TracedTask:
    torch.manual_seed(1)
    return trace(Net(), "cross_entropy", AdamW(0.01), tuple(d[:8] for d in DATA), 20)


def states_of(program: Program, role: Role, start: list[Array], steps: int) -> list[list[Array]]:
    states = [start]
    for step in range(steps):
        inputs = Inputs(states[-1], as_arrays(*DATA), StepContext(5, step))
        states.append(run_section(program, role, inputs).next_state())
    return states


def made(first: np.ndarray, second: float, third: list[int]) -> list[Array]:
    return [first.astype(np.float32), np.array(second, np.float32), np.array(third, np.int32)]


SECTIONS = Program(
    STATE,
    (),
    (),
    (
        Section(Role.STEP, (), (StateEntry(None),) * 3),
        distance_section(STATE),
        deviation_section(STATE),
    ),
)
START = made(np.zeros(70), 1.0, [1, 2])
END = made(np.linspace(1, 2, 70), 3.0, [3, 4])


def distance(
    compared: list[Array], thresholds: list[float], end: list[Array] = END, start: list[Array] = START
) -> float:
    vector = np.array(thresholds, np.float32)
    inputs = Inputs(end, compared=compared, start=start, threshold=vector)
    return float(run_section(SECTIONS, Role.DISTANCE, inputs).outputs[-1])


def test_a_bit_equal_checkpoint_has_distance_zero_whatever_the_thresholds() -> None:
    for thresholds in ([1, 1, 1], [0, 0, 0], [np.nan, np.inf, 0]):
        assert distance(END, thresholds) == 0.0
    broken = made(np.full(70, np.nan), np.inf, [3, 4])
    assert distance(broken, [1, 1, 1], end=broken) == 0.0


ROUNDING = ROUNDINGS * UNIT_ROUNDOFF


def test_the_distance_is_the_largest_relative_one_in_units_of_its_threshold() -> None:
    off = made(END[0] + 0.01, 3.02, [3, 4])
    first = np.linalg.norm(np.full(70, 0.01)) / np.linalg.norm(END[0])
    assert distance(off, [0.1, 0.1, 0.0]) == pytest.approx(max(first, 0.01) / 0.1, rel=1e-4)
    assert distance(off, [0.001, 0.1, 0.0]) == pytest.approx(first / (0.001 + ROUNDING), rel=1e-4)


def test_tiny_updates_neither_underflow_nor_hide() -> None:
    start, end = made(np.zeros(70), 0.0, [0, 0]), made(np.full(70, 1e-30), 1e-35, [0, 0])
    off = made(np.full(70, 1.01e-30), 1e-35, [0, 0])
    assert distance(off, [1, 1, 1], end=end, start=start) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("moved", [0.0, 1e-7, 1e-3])
def test_rounding_passes_however_little_a_tensor_moved_and_nothing_more_does(moved: float) -> None:
    start, end = made(np.full(70, 1.0), 1.0, [0, 0]), made(np.full(70, 1.0 + moved), 1.0, [0, 0])
    for roundings, passes in ((0.4, True), (4.0, False)):
        off = made(end[0] + np.float32(roundings * ROUNDING), 1.0, [0, 0])
        assert (distance(off, [0, 0, 0], end=end, start=start) <= 1) is passes


def test_a_state_too_large_to_measure_does_not_excuse_everything() -> None:
    end = made(np.full(70, 3e38), 3.0, [3, 4])
    assert distance(made(np.zeros(70), 3.0, [3, 4]), [1, 1, 1], end=end) == np.inf


@pytest.mark.parametrize(
    ("compared", "end"),
    [
        (made(END[0], 3.0, [3, 5]), END),  # an integer differs
        (made(START[0], 1.001, [3, 4]), made(START[0], 1.0, [3, 4])),  # nothing moved, but bits differ
        (made(END[0] * np.nan, 3.0, [3, 4]), END),
        (made(END[0] * np.inf, 3.0, [3, 4]), END),
        (END, made(END[0] * np.nan, 3.0, [3, 4])),
    ],
)
def test_what_cannot_be_measured_does_not_pass(compared: list[Array], end: list[Array]) -> None:
    assert not distance(compared, [1, 1, 1], end=end) <= 1


def margin_of(elements: int) -> float:
    return float(MARGIN * NEAR_ZERO ** (-1 / elements))


def test_a_deviation_raises_thresholds_and_never_lowers_them() -> None:
    noisy = made(END[0] * 1.001, 3.0, [3, 4])
    before = np.array([0.0, 7.0, 0.0], np.float32)
    inputs = Inputs(END, start=START, noisy=noisy, penultimate=START, threshold=before)
    *_, vector, separation = run_section(SECTIONS, Role.DEVIATION, inputs).outputs
    assert vector[0] == pytest.approx(margin_of(70) * 0.001, rel=1e-3)
    assert vector[1] == 7.0
    assert vector[2] == 0.0
    # The last step did everything here; the scalar, which no noise reached, does not count.
    assert float(separation) == pytest.approx(1 / (margin_of(70) * 0.001), rel=1e-3)


def test_small_tensors_get_a_wider_margin() -> None:
    noisy = made(END[0] * 1.001, 3.0 + 0.002, [3, 4])
    inputs = Inputs(END, start=START, noisy=noisy, penultimate=START, threshold=np.zeros(3, np.float32))
    *_, vector, _ = run_section(SECTIONS, Role.DEVIATION, inputs).outputs
    assert vector[1] / vector[0] == pytest.approx(margin_of(1) / margin_of(70), rel=2e-3)
    assert margin_of(1) / MARGIN == pytest.approx(1000)
    assert margin_of(10_000) / MARGIN < 1.001


def test_what_noise_does_not_reach_has_no_threshold_but_rounding() -> None:
    inputs = Inputs(END, start=START, noisy=END, penultimate=START, threshold=np.zeros(3, np.float32))
    *_, vector, separation = run_section(SECTIONS, Role.DEVIATION, inputs).outputs
    assert list(vector) == [0.0, 0.0, 0.0]
    assert separation == 0.0


def test_integers_that_noise_changed_have_no_threshold() -> None:
    noisy = made(END[0], 3.0, [3, 5])
    inputs = Inputs(END, start=START, noisy=noisy, penultimate=START, threshold=np.zeros(3, np.float32))
    assert run_section(SECTIONS, Role.DEVIATION, inputs).outputs[-2][2] == np.inf


@pytest.mark.parametrize("precision", list(Precision))
def test_honest_noise_passes_and_a_skipped_step_does_not(task: TracedTask, precision: Precision) -> None:
    program = build_program(task.graph, precision)
    start = list(task.initial_state)
    clean = states_of(program, Role.STEP, start, 3)
    noisy = states_of(program, Role.NOISY_STEP, start, 3)
    zeros = np.zeros(len(start), np.float32)
    profile = Inputs(clean[-1], start=start, noisy=noisy[-1], penultimate=clean[-2], threshold=zeros)
    *_, thresholds, separation = run_section(program, Role.DEVIATION, profile).outputs
    assert float(separation) > 1

    def judged(checkpoint: list[Array]) -> float:
        inputs = Inputs(clean[-1], start=start, compared=checkpoint, threshold=thresholds)
        return float(run_section(program, Role.DISTANCE, inputs).outputs[-1])

    assert 0 < judged(noisy[-1]) <= 1 / MARGIN
    assert not judged(clean[-2]) <= 1
    assert judged(clean[-1]) == 0


def test_noise_grows_with_the_precision_and_reaches_every_fold(task: TracedTask) -> None:
    deviations = []
    for precision in Precision:
        program = build_program(task.graph, precision)
        clean = states_of(program, Role.STEP, list(task.initial_state), 1)[-1]
        noisy = states_of(program, Role.NOISY_STEP, list(task.initial_state), 1)[-1]
        deviations.append(float(np.abs(clean[0] - noisy[0]).max()))
        step, noise = program.section(Role.STEP), program.section(Role.NOISY_STEP)
        streams = [o.p0 for o in noise.operators if o.body.name == "UNIFORM" and o.p0 >= NOISE_STREAM]
        assert len(streams) == len(set(streams)) > 10
        assert len(noise.operators) == len(step.operators) + 3 * len(streams)
        for operator in noise.operators:
            if operator.body.name in ("FOLD_FMA", "FOLD_ADD"):
                assert all(o.source in (Source.OPERATOR, Source.IMMEDIATE, Source.INDEX) for o in operator.operands)
    assert deviations[0] < deviations[1] < deviations[2]


def test_sections_are_pure_functions(task: TracedTask) -> None:
    program = build_program(task.graph, Precision.TF32)
    again = build_program(task.graph, Precision.TF32)
    assert program.sections == again.sections
    assert noisy_section(program.sections[0], Precision.TF32) == program.section(Role.NOISY_STEP)


def test_a_state_without_floats_has_no_deviation() -> None:
    with pytest.raises(ProgramError, match="exact mode"):
        deviation_section(STATE[2:])
