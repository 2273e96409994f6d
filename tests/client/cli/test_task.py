"""`assay task estimate` and `submit` before anything is signed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay.cli import main
from assay.market.deployment import COMPANIONS, HELPERS, MODULES, Deployment, write_deployment
from assay.market.parameters import PUBLIC, PUBLIC_COURT
from assay.templates import write_task

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing answers there


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task to start from, and the file of a deployment with the parameters of public chains."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    write_task(tmp_path / "task")
    addresses = dict.fromkeys((*MODULES, *HELPERS, *COMPANIONS), "0x" + "11" * 20)
    deployment = Deployment(1, 1, "0x" + "22" * 20, addresses, PUBLIC, PUBLIC_COURT)
    write_deployment(deployment, tmp_path / "deployment.json")
    return tmp_path


def estimate(folder: Path, *words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["task", "estimate", str(folder / "task" / "task.toml"), "--rpc", NOWHERE, *words])
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("verifier_fee = 0", "market.verifier_fee is 0 coins: this deployment asks for at least"),
        ("training_seconds = 1", "market.training_seconds is 1: this deployment asks for at least"),
    ],
)
def test_an_estimate_says_what_the_deployment_would_refuse(
    folder: Path, line: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with (folder / "task" / "task.toml").open("a") as file:
        file.write(line + "\n")
    deployed = ("--set", f"chain.deployment={folder / 'deployment.json'}")
    assert estimate(folder, *deployed, "--json") == 1
    captured = capsys.readouterr()
    assert words in json.loads(captured.err)["error"]
    assert captured.out == ""


def test_what_the_models_code_prints_is_no_part_of_the_answer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = folder / "task" / "model.py"
    model.write_text('print("imported")\n' + model.read_text().replace("    return", '    print("made")\n    return'))
    assert estimate(folder, "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["segments"] == 8
    assert ("imported" in captured.err, "made" in captured.err) == (True, True)
