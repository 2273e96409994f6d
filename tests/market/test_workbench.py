"""The workbench on a tolerant task, without a chain: what is claimed is what the court would be shown."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tiny_market import make_task

from assay.commitments import tensor
from assay.commitments.execution import ProfileLeaf, ReplayLeaf
from assay.demo.stage import PARAMETERS
from assay.dispute.execution import word_of
from assay.dispute.hash_tree import root
from assay.market.records import DemandRecord, TaskRecord
from assay.market.types import Place, TaskState
from assay.program.operator import Role
from assay.roles.bench import Workbench
from assay.roles.demands import chunk_of
from assay.roles.subjects import Subject
from assay.state import StateFolder
from assay.storage.directory import DirectoryStore
from assay.storage.errors import TooLargeError
from assay.tasks.bundle import BundleLimits
from assay.tasks.posting import make_posting
from assay.tasks.publish import publish_bundle
from assay.training.profile import profile

SEED = 77


@dataclass
class Office:
    """A registered tolerant proof, and what it takes to work on it."""

    folder: Path
    store: DirectoryStore
    task: TaskRecord
    solver: Workbench

    def bench(self, name: str) -> Workbench:
        """A workbench of somebody else."""
        return Workbench(self.folder / name, [self.store], StateFolder(self.folder / name / "state"))


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Office:
    folder = tmp_path_factory.mktemp("office")
    file, bundle = make_task(folder / "task", tolerant=True)
    store = DirectoryStore(folder / "store")
    posting = make_posting(bundle, file.market, publish_bundle(store, bundle), PARAMETERS)
    thresholds = profile(bundle.task, 0, posting.profile_segments).thresholds
    task = TaskRecord(
        5, "submitter", posting, bundle.manifest.program_root, bundle.task.segments, 1, 1, TaskState.TAKEN, 1,
        threshold_root=tensor.root(thresholds),
    )  # fmt: skip
    found = Office(folder, store, task, Workbench(folder / "solver", [store], StateFolder(folder / "solver" / "state")))
    proof = found.solver.train(task, checks=2)
    assert 0 < proof.distance <= 1
    found.task = replace(
        task, state=TaskState.VERIFYING, checkpoint_root=proof.tree[-1][0], final_root=proof.roots[-1],
        proof_locations=proof.locations,
    )  # fmt: skip
    return found


def test_the_thresholds_come_with_the_proof(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = profile(office.solver.bundle(office.task).task, 0, office.task.posting.profile_segments).thresholds

    def nobody_profiles(*_words: object, **_more: object) -> object:
        raise AssertionError("profiled though the proof carries the thresholds")

    monkeypatch.setattr("assay.tasks.audit.profile", nobody_profiles)
    found = office.bench("reader").thresholds(office.task)
    assert found is not None
    assert np.array_equal(found, expected)


def test_thresholds_of_a_proof_that_are_not_those_on_chain_are_found_anew(office: Office) -> None:
    bench = office.bench("doubter")
    manifest = bench.manifest(office.task)
    assert manifest.thresholds is not None
    lied = replace(manifest, thresholds=manifest.thresholds * 2)
    bench._manifests[office.task.id, office.task.checkpoint_root] = lied
    found = bench.thresholds(office.task)
    assert found is not None
    assert tensor.root(found) == office.task.threshold_root


@pytest.mark.parametrize("segment", [0, 3])
def test_a_replay_claims_what_its_execution_shows(office: Office, segment: int) -> None:
    bench = office.bench("verifier")
    subject = Subject(office.task, (segment,), SEED)
    (leaf,) = bench.claim(subject)
    assert isinstance(leaf, ReplayLeaf)
    run = bench.execution(subject, 0)
    last = run.program.section(Role.DISTANCE).operators
    shown = (
        root(run.state(Role.STEP, run.steps - 1)),
        word_of(run.run_outputs(Role.DISTANCE, 0)[len(last) - 1], 0),
        root(run.trace(Role.STEP)),
    )
    assert (leaf.end_root, leaf.distance_bits, leaf.trace_root) == shown
    assert leaf.distance_bits > 0
    assert bench.passes(subject, [leaf])


@pytest.mark.parametrize("segment", [0, 1])
def test_a_profile_claims_what_its_execution_shows(office: Office, segment: int) -> None:
    bench = office.bench("profiler")
    subject = Subject(office.task, (0, 1), SEED, is_profile=True)
    leaf = bench.claim(subject)[segment]
    assert isinstance(leaf, ProfileLeaf)
    run = bench.execution(subject, segment)
    outputs = run.run_outputs(Role.DEVIATION, 0)
    shown = (
        root(run.state(Role.STEP, run.steps - 1)),
        root(run.state(Role.NOISY_STEP, run.steps - 1)),
        tensor.root(outputs[-2]),
        word_of(outputs[-1], 0),
        root(run.trace(Role.NOISY_STEP)),
    )
    claimed = (leaf.clean_root, leaf.noisy_root, leaf.threshold_root, leaf.separation_bits, leaf.trace_root)
    assert claimed == shown


def test_a_claim_is_on_disk_and_not_worked_out_twice(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(office.task, (1, 2), SEED)
    bench = office.bench("witness")
    leaves = bench.claim(subject)

    def nobody_replays(*_words: object) -> object:
        raise AssertionError("replayed again")

    monkeypatch.setattr(bench, "replay_segment", nobody_replays)
    assert bench.claim(subject) == leaves


def test_files_of_few_tasks_are_kept_in_memory(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.roles.bench.MOST_TASKS", 2)
    bench = office.bench("many")
    for number in range(5, 9):
        task = replace(office.task, id=number)
        bench.bundle(task)
        bench.manifest(task)
    assert list(bench._bundles) == [7, 8]
    assert [number for number, _ in bench._manifests] == [7, 8]


def test_files_larger_than_the_benchs_limits_are_not_fetched(office: Office) -> None:
    bench = office.bench("small disk")
    bench.limits = BundleLimits.at_most(100)
    with pytest.raises(TooLargeError):
        bench.bundle(office.task)
    bench.limits = BundleLimits.at_most(1 << 20)
    assert bench.bundle(office.task).manifest.steps == 8


def test_a_checkpoint_that_comes_slowly_does_not_hold_up_who_needs_the_manifest(office: Office) -> None:
    bench, done = office.bench("restarted"), threading.Event()

    def look() -> None:
        bench.checkpoint_openings(office.task, (1,))
        done.set()

    with bench._fetching[office.task.id]:  # as while a checkpoint is fetched
        threading.Thread(target=look, daemon=True).start()
        assert done.wait(20)


def test_a_solver_answers_for_its_proof_from_its_own_disk_when_the_store_is_gone(
    office: Office, tmp_path: Path
) -> None:
    solver = Workbench(office.solver.folder, [DirectoryStore(tmp_path / "empty")], office.solver.state)
    for index in range(office.task.segments + 1):
        place = Place(False, index, 0, 0)
        chunk, proof = chunk_of(solver, office.task, DemandRecord(1, office.task.id, "asker", place, 2**40))
        assert len(chunk) == 1024
        assert proof
