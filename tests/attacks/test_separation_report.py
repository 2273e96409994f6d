"""Studies made in parts are one study, and what cannot be measured counts as over the threshold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from assay.bench.engine import EngineBenchSettings, run_engine_bench
from assay.bench.group import GroupBenchSettings, run_group_bench
from assay.bench.kernels import Kernels, chosen, honest_kernels
from assay.bench.separation import SeparationSettings, render, run_separation_bench
from assay.bench.separation_report import Plain, combined, markdown, studies_of, summary
from assay.errors import MissingDependencyError
from assay.program.sections import Precision


def part(distances: list[float | None], interval: int = 5, attacks: bool = False) -> Plain:
    """One study as the command prints it, with a task refused beside those accepted."""
    attack = {
        "name": "copied checkpoints",
        "distances": [0.1, None, 7.0],
        "cheated": [1, 2],
        "over": 2,
        "least_cheated": 7.0,
        "separated": True,
        "initial_refused": False,
        "suspected": 1,
        "detection_computed": 0.9,
        "detection_measured": 0.91,
    }
    study = {
        "model": "mlp",
        "precision": "fp32",
        "separation": [20.0, 30.0],
        "proposed_mode": "tolerant",
        "tasks": {"all": 2, "accepted": 1},
        "honest": summary(distances),
        "honest_in_refused_tasks": summary([3.0]),
        "kernels": {"1 thread": 0.5},
        "attacks": [attack] if attacks else [],
    }
    return {"segments": 3, "interval": interval, "drawn": 2, "studies": [study]}


def test_parts_of_a_study_are_one_study() -> None:
    parts = [part([0.1, 0.2]), part([0.3, 1.5], attacks=True), part([0.4], interval=2)]
    first, second = combined([study for each in parts for study in studies_of(each)])
    assert (first["interval"], second["interval"]) == (5, 2)
    assert first["honest"] == summary([0.1, 0.2, 0.3, 1.5])
    assert (first["honest"]["segments"], first["honest"]["over"], first["honest"]["largest"]) == (4, 1, 1.5)
    assert first["honest_in_refused_tasks"]["over"] == 2
    assert first["tasks"] == {"all": 4, "accepted": 2}
    assert len(first["attacks"]) == 1
    assert second["honest"]["segments"] == 1


def test_studies_on_other_hardware_stay_apart() -> None:
    here, there = (studies_of(part(distances))[0] for distances in ([0.1], [0.2, 0.3]))
    found = combined([here, there | {"hardware": "NVIDIA H200"}, here | {"hardware": "cpu"}])
    assert [study["honest"]["segments"] for study in found] == [2, 2]
    assert "| mlp, fp32, 5, NVIDIA H200 |" in markdown(found)
    assert "| mlp, fp32, 5 |" in markdown(found)


@pytest.mark.skipif(torch.cuda.is_available(), reason="PyTorch finds a CUDA device")
def test_a_gpu_that_is_not_there_is_said_before_anything_is_measured() -> None:
    with pytest.raises(MissingDependencyError, match="no CUDA device: install the driver .* or leave --device out"):
        run_separation_bench(SeparationSettings(device="cuda"))
    with pytest.raises(MissingDependencyError, match="finds no CUDA device"):
        run_engine_bench(EngineBenchSettings(figures=("native",), device="cuda"))
    with pytest.raises(MissingDependencyError, match="finds no CUDA device"):
        run_group_bench(GroupBenchSettings(device="cuda"))


def test_a_gpu_trains_with_its_own_tf32_and_the_processor_with_an_emulated_one() -> None:
    for device in ("cpu", "cuda"):
        names = [kernels.name for kernels in honest_kernels(device)]
        assert len(set(names)) == len(names)
        assert {kernels.device for kernels in honest_kernels(device)} == {device}
    enabled = torch.backends.cudnn.enabled
    with chosen(Kernels("", device="cuda", cudnn=False), Precision.TF32) as precision:
        assert precision is Precision.TF32
        assert not torch.backends.cudnn.enabled
        assert torch.mm(torch.full((1, 1), 1 + 2**-20), torch.ones(1, 1)).item() != 1.0
    assert torch.backends.cudnn.enabled is enabled
    with chosen(Kernels(""), Precision.TF32):
        assert torch.mm(torch.full((1, 1), 1 + 2**-20), torch.ones(1, 1)).item() == 1.0


def test_a_distance_that_is_no_number_is_over_the_threshold() -> None:
    found = summary([0.1, None])
    assert (found["over"], found["largest"]) == (1, None)


def test_what_was_combined_can_be_combined_again() -> None:
    once = render([part([0.1], attacks=True), part([0.2])], None, None)
    assert render([{"studies": once}], None, None) == once


def test_the_tables_say_what_was_measured(tmp_path: Path) -> None:
    render([part([0.1, 1.5], attacks=True)], None, tmp_path / "tables.md")
    text = (tmp_path / "tables.md").read_text()
    assert "| mlp, fp32, 5 | 20 | 1 of 2 | 2 | 1.5 | 1.5 | 1.5 | 1 | 1 | 3 | 1 |" in text
    assert "| copied checkpoints | 2 of 3 | 0.90 | 7 / 0.91* |" in text


def test_the_plot_is_an_image(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    render([part([0.1, None], attacks=True)], tmp_path / "plot.png", None)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
