"""`assay task profile`: whether tolerant mode separates, known before a task is posted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner, Result

from assay.cli.task_profile import profile
from assay.tasks.errors import TaskFileError
from assay.training.profile import Profile

from .example import TASK, write_task


def profiled(folder: Path, training: str, *options: str, rate: str = "0.01", interval: int = 3) -> Result:
    text = TASK.replace('mode = "exact"', training).replace("learning_rate = 0.01", f"learning_rate = {rate}")
    text = text.replace("steps = 12", f"steps = {4 * interval}")
    text = text.replace("checkpoint_interval = 3", f"checkpoint_interval = {interval}")
    return CliRunner().invoke(profile, [str(write_task(folder, text)), *options])


def test_a_binary32_task_separates(tmp_path: Path) -> None:
    result = profiled(tmp_path, 'mode = "tolerant"', "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["separates"]
    assert found["acceptable"]
    assert all(forgery["seen"] for forgery in found["forgeries"] if forgery["grave"])
    assert min(found["separations"]) > 1
    assert len(found["separations"]) == 4
    assert {"0.weight", "first_moment.0.weight"} <= set(found["thresholds"])


def test_a_tiny_learning_rate_under_bf16_is_refused_and_exact_mode_proposed(tmp_path: Path) -> None:
    result = profiled(tmp_path, 'mode = "tolerant"\nprecision = "bf16"', rate="1e-7", interval=12)
    assert result.exit_code == 1
    assert "cannot tell honest from dishonest training" in result.stdout
    assert "use exact mode" in result.stdout


def test_a_verdict_says_that_a_coarse_separation_shows_a_skipped_step_and_no_more() -> None:
    def verdict(*separations: float) -> str:
        return Profile((), np.zeros(1, np.float32), separations).verdict

    assert "what changes less than a skipped step may pass" in verdict(3.4, 50.0)
    assert "may pass" not in verdict(50.0, 60.0)
    assert "use exact mode" in verdict(50.0, 0.9)
    assert "use exact mode" in verdict(50.0, float("nan"))


def test_a_weight_that_could_stay_untrained_is_refused_though_a_skipped_step_shows(tmp_path: Path) -> None:
    training = 'mode = "tolerant"\nprecision = "bf16"'
    result = profiled(tmp_path / "text", training, interval=1)
    assert result.exit_code == 1
    assert "WOULD PASS" in result.stdout
    found = json.loads(profiled(tmp_path / "json", training, "--json", interval=1).stdout)
    assert (found["separates"], found["acceptable"]) == (True, False)
    unseen = [forgery for forgery in found["forgeries"] if forgery["grave"] and not forgery["seen"]]
    assert [forgery["kind"] for forgery in unseen] == ["held_weight"]
    assert unseen[0]["distance"] < 1


def test_what_is_subtle_is_accepted_with_a_warning(tmp_path: Path) -> None:
    result = profiled(tmp_path, 'mode = "tolerant"\nprecision = "tf32"', interval=3)
    assert result.exit_code == 0, result.output
    assert "would pass" in result.stdout
    assert "Unseen would pass" in result.stdout
    assert "trained at bf16" in result.stdout


def test_an_exact_task_has_nothing_to_profile(tmp_path: Path) -> None:
    result = profiled(tmp_path, 'mode = "exact"')
    assert isinstance(result.exception, TaskFileError)
