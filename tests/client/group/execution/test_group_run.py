from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from planned_group import planned
from torch._C._distributed_c10d import TCPStore

from assay.commitments.execution import data_root, state_root
from assay.commitments.tree import ZERO_HASH
from assay.engine.cpu.device import CpuDevice
from assay.group.execution.engines import ExactEngine
from assay.group.execution.partition import held_by
from assay.group.execution.stage_records import StageDossier, dossiers_in
from assay.group.execution.task_files import write_task
from assay.market.group_agreement import statement_signer
from assay.program.graph import Graph
from assay.training.canonical import CanonicalRun
from assay.training.checkpoint import CheckpointFolder
from assay.training.profile import profile
from assay.training.replay import Replayer
from assay.training.task import Mode, TrainingTask
from assay.training.train import train

from .tasks import task_and_graph, task_of
from .test_declared_replicas import compressed

PATIENT = {"grace_seconds": 6.0, "timeout_seconds": 15.0, "deadline_seconds": 240.0}


class Group:
    """Members as processes that meet at a store of this one."""

    def __init__(
        self, folder: Path, task: TrainingTask, working: int, names: Sequence[str], graph: Graph | None = None,
        replicas: int = 1,
    ) -> None:  # fmt: skip
        self.folder, self.task = folder, task
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.plan = planned(folder, names, working // replicas, replicas)
        write_task(task, folder / "task", graph)
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str, **settings: Any) -> None:
        script = Path(__file__).with_name("seat.py")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        self.processes[name] = subprocess.Popen(
            [sys.executable, str(script), str(self.folder), name, str(self.store.port), json.dumps(PATIENT | settings)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
        )  # fmt: skip

    def wait_for_step(self, name: str, step: int) -> None:
        ends = time.monotonic() + 200
        while not (self.store.check([f"progress/{name}"]) and int(self.store.get(f"progress/{name}")) >= step):
            assert time.monotonic() < ends, f"{name} did not reach step {step}"
            time.sleep(0.02)

    def signal(self, name: str, number: signal.Signals) -> None:
        os.killpg(self.processes[name].pid, number)

    def outcome(self, name: str) -> dict[str, Any]:
        output, problems = self.processes[name].communicate(timeout=300)
        assert self.processes[name].returncode == 0, problems
        return dict(json.loads(output))


@contextmanager
def group(
    folder: Path, task: TrainingTask, working: int, names: Sequence[str], graph: Graph | None = None, replicas: int = 1
) -> Iterator[Group]:
    formed = Group(folder, task, working, names, graph, replicas)
    try:
        yield formed
    finally:
        for process in formed.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.slow
def test_a_group_that_loses_two_members_ends_with_one_machines_proof(tmp_path: Path) -> None:
    task = task_of("mlp", 1200, 100)
    with group(tmp_path, task, 2, ("ann", "ben", "cho", "dee")) as formed:
        first, second = formed.plan.members
        for name in ("ann", "ben", "cho", "dee"):
            formed.start(name)
        formed.wait_for_step(first, 150)
        formed.signal(first, signal.SIGKILL)
        (replacement,) = {"ann", "ben", "cho", "dee"} - {first, second} - _idle(formed, 1)
        formed.wait_for_step(replacement, 500)
        formed.signal(replacement, signal.SIGSTOP)
        last = {"ann", "ben", "cho", "dee"} - {first, replacement}
        outcomes = {name: formed.outcome(name) for name in last}
    alone = train(task, tmp_path / "alone")
    for outcome in outcomes.values():
        assert outcome["generations"] == 3
        assert sorted(outcome["members"]) == sorted(last)
        assert outcome["first_step"] >= 400
        assert [bytes.fromhex(root) for root in outcome["roots"]] == list(alone.roots)
    _assert_replayable(task, Path(outcomes[second]["proof"]), alone.roots)


def _idle(formed: Group, generation: int) -> set[str]:
    """The members that the plan of a later generation leaves out."""
    ends = time.monotonic() + 120
    while not formed.store.check([f"plan/{generation}"]):
        assert time.monotonic() < ends, "no new plan was made"
        time.sleep(0.05)
    text = formed.store.get(f"plan/{generation}").decode()
    working = next(line for line in text.splitlines() if line.startswith("members"))
    return {name for name in ("ann", "ben", "cho", "dee") if f'"{name}"' not in working}


def _assert_replayable(task: TrainingTask, folder: Path, roots: Sequence[bytes]) -> None:
    """A verifier that knows nothing of the group reads its checkpoints and replays a segment."""
    checkpoints = CheckpointFolder(folder, task.program.state)
    for index, root in enumerate(roots):
        assert state_root(checkpoints.read(index, root)) == root
    replay = Replayer(task).replay(7, checkpoints.read(7, roots[7]), draw_seed=5)
    assert replay.passes(roots[8])


@pytest.mark.slow
def test_a_native_group_that_loses_a_member_ends_with_a_proof_within_the_thresholds(tmp_path: Path) -> None:
    task, graph = task_and_graph("gpt", 240, 20, Mode.TOLERANT)
    names = ("ann", "ben", "cho")
    with group(tmp_path, task, 2, names, graph) as formed:
        lost = formed.plan.members[1]
        for name in names:
            formed.start(name, device="cpu")
        formed.wait_for_step(lost, 50)
        formed.signal(lost, signal.SIGKILL)
        outcomes = {name: formed.outcome(name) for name in names if name != lost}
    roots = [bytes.fromhex(root) for root in outcomes[formed.plan.members[0]]["roots"]]
    for outcome in outcomes.values():
        assert outcome["generations"] == 2
        assert outcome["first_step"] >= 40
        assert [bytes.fromhex(root) for root in outcome["roots"]] == roots
    checkpoints = CheckpointFolder(Path(outcomes[formed.plan.members[0]]["proof"]), task.program.state)
    thresholds = profile(task, 1, segments=2).thresholds
    for segment in (0, 5, 11):
        start, end = (checkpoints.read(index, roots[index]) for index in (segment, segment + 1))
        replay = Replayer(task).replay(segment, start, 3, end, thresholds)
        assert replay.leaf.end_root != roots[segment + 1]  # PyTorch rounds otherwise
        assert replay.passes(roots[segment + 1]), replay.distance


@pytest.mark.slow
@pytest.mark.parametrize("declared", [False, True], ids=["in full", "compressed"])
def test_a_native_replica_that_sends_garbage_is_named(tmp_path: Path, declared: bool) -> None:
    task, graph = task_and_graph("mlp", 40, 10, Mode.TOLERANT)
    if declared:
        task, graph = compressed(2, 8)
        task = replace(task, steps=40, interval=10)
    names = ("ann", "ben", "cho")
    keys = {name: Account.from_key(sha256(name.encode()).digest()) for name in names}
    addresses = {name: account.address for name, account in keys.items()}
    with group(tmp_path, task, 2, names, graph, replicas=2) as formed:
        cheat = formed.plan.members[1]
        fault = {"member": cheat, "step": 15, "generation": 0, "kind": "garbage"}
        for name in names:
            key = keys[name].key.to_0x_hex()
            formed.start(name, private_key=key, addresses=addresses, task_id=9, audit_rate=1.0, fault=fault)
        outcomes = {name: formed.outcome(name) for name in names}
    assert "sent garbage" in outcomes[cheat]["error"]
    for name in set(names) - {cheat}:
        assert outcomes[name]["generations"] == 2
        assert f"{cheat!r} in segment 1 sent" in outcomes[name]["failures"][0]
        assert outcomes[name]["first_step"] == 10
    for name in names:
        # What everybody signed holds when it is checked from what it kept; what the cheat signed does not.
        for dossier in dossiers_in(tmp_path / name / "members" / name / "audit" / "records", pytest.fail):
            end, is_false = dossier.load(task, graph).end(task.seed), name == cheat and dossier.work.segment == 1
            assert (end.fault <= 1) != is_false
            assert dossier.work.end_root == ZERO_HASH
    (finding,) = (found for name in names for found in found_by(tmp_path, name))
    assert (finding.member, finding.work.segment) == (cheat, 1)
    assert not finding.load(task, graph).end(task.seed).fault <= 1


@pytest.mark.slow
def test_a_member_that_sends_garbage_is_named_and_the_proof_is_still_one_machines(tmp_path: Path) -> None:
    task = task_of("mlp", 40, 10)
    names = ("ann", "ben", "cho")
    keys = {name: Account.from_key(sha256(name.encode()).digest()) for name in names}
    addresses = {name: account.address for name, account in keys.items()}
    with group(tmp_path, task, 2, names) as formed:
        cheat = formed.plan.members[1]
        fault = {"member": cheat, "step": 15, "generation": 0, "kind": "garbage"}
        for name in names:
            key = keys[name].key.to_0x_hex()
            formed.start(name, private_key=key, addresses=addresses, task_id=9, audit_rate=1.0, fault=fault)
        outcomes = {name: formed.outcome(name) for name in names}
    assert outcomes[cheat]["code"] == "member-failed"
    assert "sent garbage" in outcomes[cheat]["error"]
    alone = train(task, tmp_path / "alone")
    for name in set(names) - {cheat}:
        assert outcomes[name]["generations"] == 2
        assert f"{cheat!r} in segment 1 sent" in outcomes[name]["failures"][0]
        assert outcomes[name]["first_step"] == 10  # the segment with garbage was never kept
        assert [bytes.fromhex(root) for root in outcomes[name]["roots"]] == list(alone.roots)
    for name in names:
        audit = tmp_path / name / "members" / name / "audit"
        # What everybody signed holds when it is executed from what it kept; what the cheat signed does not.
        kept = list(dossiers_in(audit / "records", pytest.fail))
        assert [dossier.member for dossier in kept] == [name] * len(kept)
        for dossier in kept:
            is_false = name == cheat and dossier.work.segment == 1
            assert (end_of(dossier, task) == dossier.work.end_root) != is_false
    judge = next(name for name in names if found_by(tmp_path, name))
    (finding,) = found_by(tmp_path, judge)
    assert finding.member == cheat
    statement = finding.work.statement(9)
    assert statement_signer(statement, 0, finding.work.group, finding.signature) == addresses[cheat]
    assert end_of(finding, task) != finding.work.end_root


@pytest.mark.slow
def test_a_group_with_a_member_of_little_memory_trains_and_keeps_what_can_be_replayed(tmp_path: Path) -> None:
    task = task_of("mlp", 20, 10)
    names = ("ann", "ben")
    keys = {name: Account.from_key(sha256(name.encode()).digest()) for name in names}
    addresses = {name: account.address for name, account in keys.items()}
    with group(tmp_path, task, 2, names) as formed:
        engine, small = ExactEngine(task, 1), formed.plan.members[0]
        roomy = engine.divide([1.0, 1.0])
        limits = (float(held_by(engine.program, roomy)[0].total - 1), 0.0)
        cluster = tmp_path / "cluster.toml"
        described = cluster.read_text().replace(f'name = "{small}"', f'name = "{small}"\nmemory_bytes = {limits[0]}')
        cluster.write_text(described)
        for name in names:
            key = keys[name].key.to_0x_hex()
            formed.start(name, private_key=key, addresses=addresses, task_id=9, audit_rate=1.0)
        outcomes = [formed.outcome(name) for name in names]
    alone = train(task, tmp_path / "alone")
    for outcome in outcomes:
        assert [bytes.fromhex(root) for root in outcome["roots"]] == list(alone.roots)
    assert engine.stage_program(engine.divide([1.0, 1.0], limits), 0).root != engine.stage_program(roomy, 0).root
    for name in names:
        kept = list(dossiers_in(tmp_path / name / "members" / name / "audit" / "records", pytest.fail))
        assert [dossier.memory for dossier in kept] == [limits] * 2
        assert all(end_of(dossier, task) == dossier.work.end_root for dossier in kept)


def found_by(folder: Path, name: str) -> list[StageDossier]:
    """The false statements that a member found."""
    return list(dossiers_in(folder / name / "members" / name / "audit" / "findings", pytest.fail))


def end_of(dossier: StageDossier, task: TrainingTask) -> bytes:
    """Where a stage's segment ends when it is executed from a record."""
    segment = dossier.load(task)
    assert state_root(segment.start) == dossier.work.start_root
    assert data_root(segment.data) == dossier.work.data_root
    run = CanonicalRun(segment.program, segment.data, task.seed, CpuDevice(1))
    run.load(segment.start)
    for number in range(segment.first, segment.first + segment.steps):
        run.step(number)
    return state_root(run.state)
