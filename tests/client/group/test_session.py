"""A member's seat in a group: what lies at the meeting place may be garbage, and a member that cannot go on says so."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from planned_group import planned
from torch._C._distributed_c10d import TCPStore

from assay.group.errors import GroupMessageError, MemberFailedError
from assay.group.generation import run_trainer
from assay.group.plan import render_plan
from assay.group.session import SessionOrders, SessionResult, run_session

DONE, FAILED = 0, 3


@pytest.fixture
def store() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@pytest.fixture
def orders(tmp_path: Path, store: TCPStore, monkeypatch: pytest.MonkeyPatch) -> SessionOrders:
    """Ann's, of a group in which nobody else is there; a trainer trains nothing."""
    planned(tmp_path, ("ann", "ben"), 2)
    trainer_that_ends(tmp_path, DONE, {"trained": True})
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    return SessionOrders(
        name="ann", cluster=str(tmp_path / "cluster.toml"), plan=str(tmp_path / "plan.toml"), directory=str(tmp_path),
        store_host="127.0.0.1", store_port=store.port, steps=40, checkpoint_interval=5, factory="", arguments={},
        trainer="told_trainer", grace_seconds=0.3, deadline_seconds=30,
    )  # fmt: skip


def trainer_that_ends(folder: Path, status: int, report: object) -> None:
    """Another trainer in the place of the real one."""
    code = f"import sys\nopen(sys.argv[2], 'w').write({json.dumps(report)!r})\nsys.exit({status})\n"
    (folder / "told_trainer.py").write_text(code)


def goes_on(orders: SessionOrders, generation: int = 1) -> SessionResult:
    """The session comes to an end, alone, in a generation."""
    result = run_session(orders)
    assert result.report == {"trained": True}
    assert result.plan.members == ("ann",)
    assert result.generations == generation + 1
    return result


@pytest.mark.parametrize("garbage", ["abc", '{"ann": 1}', pytest.param("[" * 100_000, id="nested"), "[[], {}]"])
@pytest.mark.parametrize("key", ["progress/ben", "guilty/0", "slow/0"])
def test_garbage_at_the_meeting_place_keeps_no_member_from_going_on(
    store: TCPStore, orders: SessionOrders, key: str, garbage: str
) -> None:
    store.set("failed/0", "ben: lost")
    store.set(key, garbage)
    goes_on(orders)


def test_a_plan_that_is_none_is_followed_by_another_generation(
    store: TCPStore, orders: SessionOrders, tmp_path: Path
) -> None:
    plan = planned(tmp_path, ("ann", "ben"), 2)
    store.set("failed/0", "ben: lost")
    store.set("plan/1", "garbage = [")
    store.set("plan/2", "a = " + "[" * 100_000)
    store.set("plan/3", render_plan(plan).replace('"none"', '"magic"'))
    store.set("plan/4", render_plan(replace(plan, layers=(2, 1 << 40))))
    store.set("plan/5", render_plan(plan).replace('"ben"', '"mallory"'))
    failures = goes_on(orders, 6).failures
    assert "left as the plan of generation 1 is none" in failures[0]
    assert all("is not one for this group" in failure for failure in failures[2:])
    assert failures[4].endswith("strangers: mallory)")


@pytest.mark.parametrize("code", ["placement", "checkpoint", "disk"])
def test_a_member_that_cannot_go_on_says_so_and_leaves_the_others_to_it(
    store: TCPStore, orders: SessionOrders, tmp_path: Path, code: str
) -> None:
    trainer_that_ends(tmp_path, FAILED, {"error": "no space left", "code": code})
    with pytest.raises(MemberFailedError, match="'ann' cannot go on: no space left"):
        run_session(orders)
    assert store.get("failed/0") == b"ann: no space left"
    assert not store.check(["join/1/ann"])


def test_a_member_that_lost_others_goes_on_without_them(store: TCPStore, orders: SessionOrders, tmp_path: Path) -> None:
    trainer_that_ends(tmp_path, FAILED, {"error": "lost contact with 'ben'", "code": MemberFailedError.code})
    with pytest.raises(MemberFailedError, match="the deadline passed after"):
        run_session(replace(orders, deadline_seconds=3))
    assert store.get("failed/1") == b"ann: lost contact with 'ben'"


def test_what_an_earlier_trainer_reported_is_not_what_this_one_failed_by(
    store: TCPStore, orders: SessionOrders, tmp_path: Path
) -> None:
    report = tmp_path / "members" / "ann" / "report-0.json"
    report.parent.mkdir(parents=True)
    report.write_text(json.dumps({"error": "lost contact with 'ben'", "code": MemberFailedError.code}))
    (tmp_path / "told_trainer.py").write_text("import os\nos._exit(9)\n")
    with pytest.raises(MemberFailedError, match="the deadline passed"):
        run_session(replace(orders, deadline_seconds=0.1))
    assert store.get("failed/0") == b"ann: the trainer of 'ann' ended with status 9"


@pytest.mark.parametrize(
    ("problem", "code", "told"),
    [
        (OSError(28, "No space left on device", "messages.bin"), "disk", "No space left on device: 'messages.bin'"),
        (KeyError("ben"), "unforeseen", "nobody foresaw: KeyError('ben')"),
        (GroupMessageError("'ben' sent garbage"), "group-message", "'ben' sent garbage"),
    ],
)
def test_a_trainer_reports_whatever_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: Exception, code: str, told: str
) -> None:
    def train(_orders: dict[str, Any]) -> dict[str, Any]:
        raise problem

    (tmp_path / "orders.json").write_text("{}")
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "orders.json"), str(tmp_path / "report.json")])
    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setattr("assay.group.generation._end_with_parent", lambda _parent: None)
    with pytest.raises(SystemExit) as ended:
        run_trainer(train)
    assert ended.value.code == FAILED
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["code"] == code
    assert told in report["error"]
