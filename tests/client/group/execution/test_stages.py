from __future__ import annotations

import numpy as np
import pytest

from assay.commitments.execution import state_root
from assay.engine.cpu.device import CpuDevice
from assay.group.execution.engines import ExactEngine
from assay.training.canonical import CanonicalRun

from .tasks import run_stages, task_of


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "cnn", "gpt"])
def test_stages_train_to_one_machines_bits(name: str) -> None:
    task = task_of(name)
    run = CanonicalRun(task.program, task.data, task.seed, CpuDevice(1))
    run.load(task.state)
    expected = []
    for number in range(100):
        run.step(number)
        if number % 10 == 9:
            expected.append(state_root(run.state))
    for shares, pieces in (([1.0, 1.0], 1), ([1.0, 2.0, 1.0], 4)):
        engine = ExactEngine(task, pieces)
        divided = engine.divide(shares)
        states, sent, loss = run_stages(task, engine, divided, 100, 10)
        assert [state_root(state) for state in states] == expected
        assert sent == 100 * divided.bytes_per_step
        assert np.float32(loss) == np.float32(run.loss())
