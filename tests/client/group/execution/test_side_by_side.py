"""A group whose members train whole segments, side by side: the proof of one machine, whoever is lost or cheats."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from test_local_steps import SETTINGS, local_task

from assay.group.cost import StepTime
from assay.group.errors import PlacementError
from assay.group.execution.run import trains_side_by_side
from assay.group.execution.side_by_side import assign_runs
from assay.group.execution.stage_records import dossiers_in
from assay.group.plan import GroupPlan
from assay.market.group_agreement import statement_signer
from assay.training.task import TrainingTask
from assay.training.train import train

from .test_group_run import Group, found_by, group

NAMES = ("ann", "ben", "cho")
KEYS = {name: Account.from_key(sha256(name.encode()).digest()) for name in NAMES}
ADDRESSES = {name: account.address for name, account in KEYS.items()}
SIGNED = {"addresses": ADDRESSES, "task_id": 9, "audit_rate": 1.0}


def test_each_run_is_its_owners_and_the_runs_of_who_is_lost_are_dealt_out() -> None:
    assert assign_runs(3, (), NAMES) == (0, 1, 2)
    assert assign_runs(3, ("cho", "ann", "ben"), NAMES) == (2, 0, 1)
    assert assign_runs(3, ("cho", "ann", "ben"), ("ann", "cho")) == (1, 0, 0)
    assert assign_runs(3, ("cho", "ann", "ben"), ("ann", "cho", "dan")) == (1, 0, 2)
    assert assign_runs(5, (), ("ann", "ben")) == (0, 1, 0, 1, 0)


def plan_of(*names: str) -> GroupPlan:
    """One stage, a replica for each member."""
    pipelines = tuple((name,) for name in names)
    return GroupPlan(pipelines, (1,), (), "none", 1, StepTime(0.0, 0.0, 0.0, 0.0), 0.0, 0.0, False)


def test_owners_that_are_not_one_for_each_run_are_refused() -> None:
    assert trains_side_by_side(plan_of(*NAMES), (), SETTINGS)
    assert trains_side_by_side(plan_of(*NAMES[:2]), NAMES, SETTINGS)
    with pytest.raises(PlacementError, match="trains 3 members side by side, and 2 answer"):
        trains_side_by_side(plan_of(*NAMES), NAMES[:2], SETTINGS)


def test_other_tasks_and_plans_of_several_stages_are_trained_in_stages() -> None:
    assert not trains_side_by_side(plan_of(*NAMES), NAMES, None)
    assert not trains_side_by_side(replace(plan_of(*NAMES), layers=(1, 1)), NAMES, SETTINGS)


def test_a_plan_of_more_members_than_a_round_has_runs_is_refused() -> None:
    with pytest.raises(PlacementError, match=r"trains 3 members side by side, the plan has 4: .* replicas = 3"):
        trains_side_by_side(plan_of(*NAMES, "dan"), (), SETTINGS)


@contextmanager
def side_by_side(folder: Path, task: TrainingTask) -> Iterator[Group]:
    (folder / "local-steps.json").write_text(json.dumps(asdict(SETTINGS)))
    with group(folder, task, 3, NAMES, replicas=3) as formed:
        yield formed


def start(formed: Group, names: Sequence[str], **settings: Any) -> None:
    for name in names:
        formed.start(name, private_key=KEYS[name].key.to_0x_hex(), **SIGNED | settings)


def check_proof(outcome: dict[str, Any], task: TrainingTask, folder: Path) -> None:
    assert [bytes.fromhex(root) for root in outcome["roots"]] == list(train(task, folder).roots)


@pytest.mark.slow
def test_members_that_train_side_by_side_end_with_one_machines_proof_and_answer_for_their_segments(
    tmp_path: Path,
) -> None:
    task = local_task(rounds=4)
    with side_by_side(tmp_path, task) as formed:
        start(formed, NAMES, owners=["cho", "ann", "ben"])
        outcomes = {name: formed.outcome(name) for name in NAMES}
    for name in NAMES:
        check_proof(outcomes[name], task, tmp_path / "alone")
        assert outcomes[name]["generations"] == 1
        kept = list(dossiers_in(tmp_path / name / "members" / name / "audit" / "records", pytest.fail))
        assert len(kept) == task.segments
        for dossier in kept:
            work = dossier.work
            assert dossier.member == ("cho", "ann", "ben")[work.segment % 3]
            assert dossier.load(task).end(task.seed).root == work.end_root
            assert statement_signer(work.statement(9), 0, work.group, dossier.signature) == ADDRESSES[dossier.member]
        assert not found_by(tmp_path, name)


@pytest.mark.slow
def test_the_runs_of_a_member_that_is_lost_are_trained_by_the_others(tmp_path: Path) -> None:
    task = local_task(rounds=200)
    with side_by_side(tmp_path, task) as formed:
        start(formed, NAMES, audit_rate=0.01)
        formed.wait_for_step("ben", 100)
        formed.signal("ben", signal.SIGKILL)
        outcomes = {name: formed.outcome(name) for name in ("ann", "cho")}
    for outcome in outcomes.values():
        check_proof(outcome, task, tmp_path / "alone")
        assert sorted(outcome["members"]) == ["ann", "cho"]
        assert outcome["first_step"] % SETTINGS.round_steps == 0
        assert outcome["first_step"] > 0


@pytest.mark.slow
def test_a_member_that_tells_others_what_it_did_not_train_is_excluded_by_what_its_segment_shows(
    tmp_path: Path,
) -> None:
    task = local_task(rounds=4)
    with side_by_side(tmp_path, task) as formed:
        cheat = formed.plan.members[1]
        fault = {"member": cheat, "step": 18, "generation": 0, "kind": "garbage"}  # in its run of the second round
        start(formed, NAMES, fault=fault)
        outcomes = {name: formed.outcome(name) for name in NAMES}
    assert "excluded it" in outcomes[cheat]["error"]
    honest = [name for name in NAMES if name != cheat]
    for name in honest:
        check_proof(outcomes[name], task, tmp_path / "alone")
        assert f"{cheat!r} trained segment 4 to another state" in outcomes[name]["failures"][0]
        assert outcomes[name]["first_step"] == SETTINGS.round_steps
    # Its judge keeps what takes it to court.
    (finding,) = (found for name in honest for found in found_by(tmp_path, name))
    assert (finding.member, finding.work.segment) == (cheat, 4)
    assert finding.load(task).end(task.seed).root != finding.work.end_root
