"""The training loop: exact, resumable at any instant, and honest about damaged files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from assay.commitments.execution import state_root
from assay.program.interpreter import Inputs, run_section
from assay.program.operator import Role
from assay.program.reference import StepContext, evaluate_element
from assay.training.checkpoint import CheckpointFolder
from assay.training.errors import CheckpointError, TaskError
from assay.training.replay import Replayer
from assay.training.task import TrainingTask
from assay.training.trace import trace_elements
from assay.training.train import CanonicalRunner, Progress, Proof, train

from .programs import regression_task


@pytest.fixture(scope="module")
def proof(tmp_path_factory: pytest.TempPathFactory) -> Proof:
    return train(regression_task(), tmp_path_factory.mktemp("run"))


def test_training_equals_the_interpreter_at_every_checkpoint(proof: Proof) -> None:
    task = regression_task()
    state = list(task.state)
    roots = [state_root(state)]
    for step in range(task.steps):
        run = run_section(task.program, Role.STEP, Inputs(state, task.data, StepContext(task.seed, step)))
        state = [np.asarray(part) for part in run.next_state()]
        if (step + 1) % task.interval == 0 or step + 1 == task.steps:
            roots.append(state_root(state))
    assert list(proof.roots) == roots
    assert len(proof.roots) == task.segments + 1 == 8


def test_training_learns() -> None:
    task = regression_task(steps=150, interval=50)
    runner = CanonicalRunner(task)
    runner.load(task.state)
    losses = []
    for step in range(task.steps):
        runner.advance(step)
        losses.append(runner.loss())
    assert losses[-1] is not None
    assert losses[0] is not None
    assert losses[-1] < losses[0] / 100


def test_a_run_cut_off_after_any_checkpoint_ends_with_the_same_proof(proof: Proof, tmp_path: Path) -> None:
    task = regression_task()

    class CutError(Exception):
        pass

    for stop in (1, 5, 12, 24):

        def halt(progress: object, stop: int = stop) -> None:
            if getattr(progress, "step", 0) == stop:
                raise CutError

        folder = tmp_path / str(stop)
        with pytest.raises(CutError):
            train(task, folder, progress=halt)
        assert train(task, folder).roots == proof.roots


_CHILD = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from client.training.programs import regression_task
from assay.training.train import train
train(regression_task(steps=100000, interval=4), Path(sys.argv[1]), progress=lambda p: print(p.step, flush=True))
"""


def test_a_run_killed_by_the_system_resumes_to_the_same_bits(tmp_path: Path) -> None:
    tests = str(Path(__file__).parents[2])
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD.format(tests=tests), str(tmp_path / "killed")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) >= 30:
            os.kill(child.pid, signal.SIGKILL)
            break
    child.wait()
    folder = CheckpointFolder(tmp_path / "killed", regression_task().program.state)
    entries = folder.entries()
    assert len(entries) >= 2
    fresh = train(regression_task(steps=4 * (len(entries) - 1), interval=4), tmp_path / "fresh")
    assert [entry.root for entry in entries] == list(fresh.roots)
    assert state_root(folder.read(len(entries) - 1)) == fresh.final_root


def test_a_replay_from_the_checkpoint_ends_at_the_next_one_with_a_true_trace(proof: Proof) -> None:
    task = regression_task()
    checkpoints = CheckpointFolder(proof.folder, task.program.state)
    replay = Replayer(task).replay(2, checkpoints.read(2), draw_seed=99)
    assert replay.leaf.end_root == proof.roots[3]
    assert replay.passes(proof.roots[3])
    assert not replay.passes(proof.roots[2])
    other = Replayer(task).replay(2, checkpoints.read(2), draw_seed=98)
    assert other.leaf.trace_root != replay.leaf.trace_root


def test_watched_elements_equal_the_reference(proof: Proof) -> None:
    task = regression_task()
    runner = CanonicalRunner(task)
    runner.load(task.state)
    runner.advance(0)
    state = runner.copy_state()
    operators = task.program.section(Role.STEP).operators
    elements = trace_elements(operators, 42, 1)
    bits = runner.run.step(1, elements)
    run = run_section(task.program, Role.STEP, Inputs(state, task.data, StepContext(task.seed, 1)))
    for (operator, element), word in zip(elements, bits, strict=True):
        assert word == evaluate_element(operators[operator], element, run.read, StepContext(task.seed, 1))


def test_a_changed_checkpoint_is_refused(proof: Proof, tmp_path: Path) -> None:
    task = regression_task()
    train(task, tmp_path)
    path = tmp_path / "checkpoint-000002.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="was changed"):
        CheckpointFolder(tmp_path, task.program.state).read(2)
    path.write_bytes(content[:-9])
    with pytest.raises(CheckpointError):
        CheckpointFolder(tmp_path, task.program.state).read(2)


@pytest.mark.parametrize("kept", [None, b"", b"rubbish"])
def test_a_run_whose_last_checkpoint_is_lost_goes_on_from_the_one_before(
    proof: Proof, tmp_path: Path, kept: bytes | None
) -> None:
    task = regression_task()

    class StoppedError(Exception):
        """Ends the run."""

    def stop(progress: Progress) -> None:
        if progress.checkpoints == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(task, tmp_path, progress=stop)
    last = CheckpointFolder(tmp_path, task.program.state).entries()[-1].index
    path = CheckpointFolder(tmp_path, ()).path(last)
    path.unlink()
    if kept is not None:
        path.write_bytes(kept)
    assert train(task, tmp_path).roots == proof.roots
    assert state_root(CheckpointFolder(tmp_path, task.program.state).read(last)) == proof.roots[last]


def test_a_folder_of_another_task_is_refused(tmp_path: Path) -> None:
    train(regression_task(), tmp_path)
    with pytest.raises(CheckpointError, match="another folder"):
        train(regression_task(steps=24), tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"interval": 26}, "interval"),
        ({"steps": 2**21, "interval": 2}, "make 1048576: lengthen the checkpoint interval"),
        ({"seed": -1}, "seed"),
        ({"state": ()}, "initial state"),
    ],
)
def test_an_impossible_task_is_refused(change: dict[str, object], message: str) -> None:
    task = regression_task()
    parts: dict[str, object] = {
        "program": task.program,
        "state": task.state,
        "data": task.data,
        "seed": 5,
        "steps": 25,
        "interval": 4,
    }
    with pytest.raises(TaskError, match=message):
        TrainingTask(**{**parts, **change})  # type: ignore[arg-type]
