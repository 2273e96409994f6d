"""A member's seat in a group: what lies at the meeting place may be garbage, and a member that cannot go on says so."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from planned_group import planned
from torch._C._distributed_c10d import TCPStore

from assay.group.plan import render_plan
from assay.group.session import SessionOrders, SessionResult, run_session

DONE = 0


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
