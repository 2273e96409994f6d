"""Every kind of model trains to the same bits: for any number of threads, any vector unit, any process, and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.engine.cpu import isa
from assay.engine.cpu.device import CpuDevice
from assay.program.interpreter import Inputs, run_section
from assay.program.operator import Role
from assay.program.reference import StepContext
from assay.training.canonical import CanonicalRun

from . import models

STEPS = 100
SOME_STEPS = 40
"""What is enough to tell vector units apart: every step is made by the same code."""


def in_fresh_process(names: Sequence[str], steps: int, **environment: str) -> dict[str, list[str]]:
    """The state roots of some models by a process of its own."""
    answer = subprocess.run(
        [sys.executable, str(Path(models.__file__)), str(steps), *names],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    return {name: roots for name, (roots, *_) in json.loads(answer.stdout).items()}


@pytest.fixture(scope="module")
def here() -> dict[str, list[Any]]:
    return {name: list(models.digest(name, STEPS)) for name in models.NAMES}


@pytest.mark.slow
def test_a_hundred_steps_are_the_same_on_one_thread_and_resumed_in_the_middle(here: dict[str, list[Any]]) -> None:
    again = {name: list(models.digest(name, STEPS, resume_at=50, threads=1)) for name in models.NAMES}
    assert again == here


@pytest.mark.slow
@pytest.mark.parametrize(
    ("unit", "names"), [("own", models.NAMES), ("avx2", models.NAMES), ("generic", ("cnn", "gpt"))]
)
def test_training_is_the_same_in_a_fresh_process_on_any_vector_unit(
    unit: str, names: tuple[str, ...], here: dict[str, list[Any]]
) -> None:
    if unit != "own" and unit not in isa.supported_units():
        pytest.skip(f"this machine has no {unit}")
    steps, forced = (STEPS, {}) if unit == "own" else (SOME_STEPS, {"ASSAY_SIMD": unit})
    found = in_fresh_process(names, steps, **forced)
    assert found == {name: here[name][0][: steps // 10] for name in names}
    assert all(len(roots) == steps // 10 for roots in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", models.NAMES)
def test_a_step_of_the_engine_equals_the_interpreter(name: str) -> None:
    program, state, data = models.traced(name)
    run = CanonicalRun(program, data, 7, CpuDevice())
    run.load(state)
    run.step(0)
    expected = run_section(program, Role.STEP, Inputs(list(state), data, StepContext(7, 0))).next_state()
    for descriptor, mine, its in zip(program.state, run.state, expected, strict=True):
        mine_bits = np.where(np.isnan(mine), 0x7FC00000, mine.view(np.uint32)) if mine.dtype == np.float32 else mine
        its = np.asarray(its).reshape(mine.shape)
        its_bits = its.view(np.uint32) if mine.dtype == np.float32 else its
        np.testing.assert_array_equal(mine_bits, its_bits, descriptor.name)


@pytest.mark.slow
def test_training_lowers_the_loss(here: dict[str, list[Any]]) -> None:
    for name in ("mlp", "cnn", "residual", "gpt", "gpt_modern", "lstm"):
        _, first, last = here[name]
        assert isinstance(first, float)
        assert isinstance(last, float)
        assert last < 0.8 * first, f"{name}: {first} to {last}"
