"""`assay doctor` finds what is wrong and says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from assay.arithmetic import self_check
from assay.chain.local import local_chain
from assay.cli import main
from assay.doctor import State, check_chain, check_deployment, check_disk, check_kernels, check_storage
from assay.market.deployment import COMPANIONS, HELPERS, MODULES, Deployment, write_deployment
from assay.market.parameters import LOCAL, LOCAL_COURT
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


@pytest.mark.parametrize(
    "named",
    [
        {"storage__kind": "ipfs", "storage__ipfs_address": "http://127.0.0.1:5001"},
        {"storage__kind": "s3", "storage__s3_bucket": "models", "storage__s3_endpoint": "minio"},
    ],
)
def test_an_address_that_is_none_is_a_problem_of_the_store(tmp_path: Path, named: dict[str, str]) -> None:
    if named["storage__kind"] == "s3":
        pytest.importorskip("boto3")
    finding = check_storage(settings(tmp_path, **named))
    assert finding.state is State.PROBLEM
    assert "storage." in finding.message


def test_a_deployment_has_to_be_one_and_on_the_chain(tmp_path: Path) -> None:
    file = tmp_path / "deployment.json"
    file.write_text("{}")
    assert check_deployment(settings(tmp_path, chain__deployment=str(file))).state is State.PROBLEM
    addresses = dict.fromkeys((*MODULES, *HELPERS, *COMPANIONS), "0x" + "11" * 20)
    write_deployment(Deployment(31337, 1, "0x" + "22" * 20, addresses, LOCAL, LOCAL_COURT), file)
    assert check_deployment(settings(tmp_path, chain__deployment=str(file), chain__url=NOWHERE)).state is State.OK
    with local_chain() as chain:
        finding = check_deployment(settings(tmp_path, chain__deployment=str(file), chain__url=chain.url))
    assert finding.state is State.PROBLEM
    assert "was the local chain started anew?" in finding.message


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
