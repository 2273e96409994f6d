"""`assay doctor` finds what is wrong and says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay.arithmetic import self_check
from assay.chain.local import local_chain
from assay.cli import main
from assay.doctor import State, check_chain, check_disk, check_kernels, check_storage
from assay.settings import Settings, load_settings

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing answers there


def settings(folder: Path, **flags: object) -> Settings:
    """Settings of a node below `folder`; names with a double underscore for the dot."""
    named = {"state.folder": str(folder / "state"), "storage.folder": str(folder / "store")}
    return load_settings(named | {name.replace("__", "."): value for name, value in flags.items()}, environment={})


def test_a_running_chain_is_found(tmp_path: Path) -> None:
    with local_chain() as chain:
        finding = check_chain(settings(tmp_path, chain__url=chain.url))
    assert finding.state is State.OK
    assert str(chain.chain_id) in finding.message


def test_a_chain_that_was_asked_for_and_is_not_there_is_a_problem(tmp_path: Path) -> None:
    finding = check_chain(settings(tmp_path, chain__url=NOWHERE))
    assert finding.state is State.PROBLEM
    assert NOWHERE in finding.message
    assert "assay chain up" in finding.advice


def test_this_machine_computes_the_right_bits(tmp_path: Path) -> None:
    assert check_kernels(settings(tmp_path)).state is State.OK


def test_other_bits_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(self_check, "EXPECTED_DIGEST", "0" * 64)
    finding = check_kernels(settings(tmp_path))
    assert finding.state is State.PROBLEM
    assert "make no claims" in finding.advice


def test_a_store_that_cannot_be_used_is_a_problem(tmp_path: Path) -> None:
    blocked = tmp_path / "store"
    blocked.write_text("a file where the folder should be")
    assert check_storage(settings(tmp_path)).state is State.PROBLEM


def test_room_is_measured_where_the_folders_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def disk_usage(folder: Path) -> tuple[int, int, int]:
        seen.append(folder)
        return Usage(100, 100, 0)

    monkeypatch.setattr("assay.doctor.shutil.disk_usage", disk_usage)
    finding = check_disk(settings(tmp_path))
    assert finding.state is State.PROBLEM
    assert set(seen) == {tmp_path}


class Usage(tuple[int, int, int]):
    """What shutil.disk_usage returns: (total, used, free)."""

    def __new__(cls, total: int, used: int, free: int) -> Usage:
        return super().__new__(cls, (total, used, free))

    @property
    def free(self) -> int:
        return self[2]


def test_the_report_for_machines_names_every_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--set", f"state.folder={tmp_path}", "--set", f"storage.folder={tmp_path}", "--rpc", NOWHERE, "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *flags])
    report = json.loads(capsys.readouterr().out)
    assert ended.value.code == 1
    assert not report["healthy"]
    names = {check["name"]: check["state"] for check in report["checks"]}
    assert names["chain"] == "problem"
    assert {"kernels", "compute", "storage", "disk", "clock"} <= names.keys()
