"""Members of a group that train on a GPU: within the thresholds a verifier asks for, alone or beside a processor."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from assay.bench.separation import DRAW_SEED, distances
from assay.engine.native.run import NativeRun
from assay.group.execution.engines import NativeEngine
from assay.group.execution.local import run_local_group
from assay.group.execution.native.stage import NativeStage
from assay.group.execution.partition import Partition
from assay.group.execution.schedule import StageSchedule
from assay.program.operator import Array
from assay.training.profile import profile
from assay.training.replay import DISTANCE_LIMIT, Replayer
from assay.training.task import Mode

from .tasks import run_stages, task_and_graph

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device")
CUDA, CPU = "cuda", "cpu"
STEPS, INTERVAL = 15, 5


class Members(NativeEngine):
    """Stages on devices that differ."""

    devices: tuple[str, ...] = ()

    def stage(self, divided: Partition, schedule: StageSchedule) -> NativeStage:
        task = self.task
        return NativeStage(self.plan, divided, schedule, task.data, task.seed, self.devices[schedule.stage])


@cache
def thresholds_of(name: str) -> Array:
    task, _ = task_and_graph(name, STEPS, INTERVAL, Mode.TOLERANT)
    return profile(task, DRAW_SEED, task.segments).thresholds


@pytest.mark.parametrize("name", ["mlp", "cnn", "gpt"])
@pytest.mark.parametrize(
    ("devices", "pieces"), [((CUDA, CUDA), 1), ((CUDA, CUDA), 4), ((CUDA, CPU), 4), ((CPU, CUDA), 1)]
)
def test_stages_on_a_gpu_pass_in_every_segment(
    name: str, devices: tuple[str, ...], pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Stages are threads here, and settings of PyTorch are the whole process's.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    task, graph = task_and_graph(name, STEPS, INTERVAL, Mode.TOLERANT)
    engine = Members(task, graph, pieces)
    engine.devices = devices
    states, _, _ = run_stages(task, engine, engine.divide([1.0, 1.0]), STEPS, INTERVAL)
    found = distances(Replayer(task), [task.state, *states], thresholds_of(name))
    print(f"{name}, {devices}, {pieces}: distances {found}")
    assert all(distance <= DISTANCE_LIMIT for distance in found), found


@pytest.mark.parametrize("pieces", [1, 4])
def test_two_members_on_a_gpu_end_where_one_machine_does(pieces: int) -> None:
    task, graph = task_and_graph("gpt", STEPS, INTERVAL, Mode.TOLERANT)
    run = NativeRun(graph, task.data, task.seed, CUDA)
    run.load(task.state)
    for number in range(STEPS):
        run.advance(number)
    reports = run_local_group(task, 2, pieces, 120.0, graph, device=CUDA)
    (loss,) = [report["loss"] for report in reports if report["loss"] is not None]
    assert loss == pytest.approx(run.loss() or 0.0, rel=1e-4)
    assert reports[0]["roots"] == reports[1]["roots"]
    assert len(reports[0]["roots"]) == task.segments + 1
