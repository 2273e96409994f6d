"""The workbench of a role: everything that takes long or touches files. Results are kept, and those that a promise on
chain depends on are in the state folder before anything else happens with them.

Exact and tolerant tasks, replays and profiles go through the same doors: `train`, `claim`, `execution`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.commitments import tree
from assay.commitments.execution import ProfileLeaf, ReplayLeaf
from assay.dispute.execution import LocalExecution
from assay.engine.cpu.device import CpuDevice
from assay.market.presence import Receipt
from assay.market.records import TaskRecord
from assay.market.types import Checkpoint, StageWork
from assay.program.encoding import decode_header
from assay.program.operator import Array
from assay.program.reference import StepContext
from assay.roles.group_work import SignedWork
from assay.roles.subjects import HashedLeaf, Subject, decode_leaf, passes
from assay.state import StateFolder
from assay.storage.store import Store
from assay.tasks.audit import thresholds_of
from assay.tasks.bundle import Bundle, BundleLimits
from assay.tasks.errors import ProofFilesError
from assay.tasks.posting import check_posting
from assay.tasks.proof import (
    PROOF_NAME,
    ProofManifest,
    fetch_checkpoint,
    fetch_proof_manifest,
    load_proof_manifest,
    publish_proof,
)
from assay.tasks.publish import fetch_bundle
from assay.training.canonical import CanonicalRun
from assay.training.checkpoint import CheckpointFolder
from assay.training.errors import CheckpointError
from assay.training.profile import profile
from assay.training.replay import Replayer
from assay.training.train import CanonicalRunner, Proof, Runner, train

if TYPE_CHECKING:
    # Who trains in no group needs no PyTorch for it.
    from assay.group.execution.stage_records import StageDossier, StageEnd, StageSegment

logger = logging.getLogger(__name__)

MOST_TASKS = 16
"""Tasks whose files are kept in memory; those of others are read again from disk."""
MOST_EXECUTIONS = 8
"""Executions kept in memory: each holds the states after every step of its segment."""


@dataclass(frozen=True)
class TrainedProof:
    """A finished run: what is registered. `distance` is the worst of the own replays made of it (0 if none was)."""

    roots: tuple[bytes, ...]
    locations: str
    distance: float = 0.0

    @property
    def tree(self) -> list[list[bytes]]:
        """All levels of the checkpoint tree."""
        return tree.levels(self.roots)


def _own_proof(task_id: int, root: bytes) -> str:
    """Name of the fact where an own proof lies."""
    return f"proof:{task_id:x}:{root.hex()}"


class Workbench:
    """Files, training, replays and executions of the tasks a role works on.

    `device` is that of native training: auto, cpu or cuda; everything canonical runs on the processor. `limits` bounds
    what is fetched of a task; None: as much as is usual.
    """

    device = "auto"
    limits: BundleLimits | None = None

    replay_speed = 0.0
    """Units of work a second of the last segment replayed."""

    def __init__(self, folder: Path, stores: Sequence[Store], state: StateFolder) -> None:
        self.folder, self.stores, self.state = folder, stores, state
        self._bundles: dict[int, Bundle] = {}
        self._manifests: dict[tuple[int, bytes], ProofManifest] = {}
        self._thresholds: dict[int, Array | None] = {}
        self._replayers: dict[int, Replayer] = {}
        self._executions: dict[tuple[int, int, int, bool], LocalExecution] = {}
        self._recent: dict[int, None] = {}  # tasks in order of their last use
        # Work of several kinds goes on at once: one fetches a task's files, one replays it.
        self._fetching: defaultdict[int, threading.RLock] = defaultdict(threading.RLock)
        self._replaying: defaultdict[int, threading.RLock] = defaultdict(threading.RLock)
        # The loop of a role reads manifests itself: it must not wait there for a checkpoint that comes slowly.
        self._listing: defaultdict[int, threading.RLock] = defaultdict(threading.RLock)
        self._noting = threading.Lock()

    def place(self, task_id: int) -> Path:
        """The folder of a task."""
        return self.folder / f"{task_id:064x}"[:16]

    # ---- Files ------------------------------------------------------------------------------------------------------

    def bundle(self, task: TaskRecord) -> Bundle:
        """A task's files, fetched, lowered here, and compared with the chain."""
        bundle = self._bundles.get(task.id)
        if bundle is None:
            with self._fetching[task.id]:
                bundle = self._bundles.get(task.id)
                if bundle is None:  # still, after whoever held the lock
                    bundle = fetch_bundle(
                        self.stores, task.posting.locations, self.place(task.id) / "bundle", self.limits
                    )
                    check_posting(bundle, task.posting)
                    self._bundles[task.id] = bundle
        self._keep(task.id)
        return bundle

    def _keep(self, task_id: int) -> None:
        """Note that a task is in use, and forget the one that was used longest ago when there are too many."""
        with self._noting:
            self._recent.pop(task_id, None)
            self._recent[task_id] = None
            if len(self._recent) > MOST_TASKS:
                oldest = next(iter(self._recent))
                del self._recent[oldest]
                for kept in (self._bundles, self._thresholds, self._replayers):
                    kept.pop(oldest, None)
                for key in [key for key in list(self._manifests) if key[0] == oldest]:
                    self._manifests.pop(key, None)

    def manifest(self, task: TaskRecord) -> ProofManifest:
        """The manifest of the proof registered for a task."""
        key = (task.id, task.checkpoint_root)
        found = self._manifests.get(key)
        if found is None:
            with self._listing[task.id]:
                found = self._manifests.get(key)
                if found is None:
                    found = self._manifests[key] = self._own_manifest(task) or fetch_proof_manifest(
                        self.stores, task.proof_locations, self.place(task.id) / "proof", task.checkpoint_root,
                        task.segments,
                    )  # fmt: skip
        self._keep(task.id)
        return found

    def checkpoint(self, task: TaskRecord, index: int) -> list[Array]:
        """A checkpoint of the registered proof, compared with its root."""
        program, manifest = self.bundle(task).task.program, self.manifest(task)
        own = self._own_folder(task)
        if own is not None:
            with contextlib.suppress(CheckpointError):
                return CheckpointFolder(own, program.state).read(index, manifest.roots[index])
        with self._fetching[task.id]:
            return fetch_checkpoint(self.stores, manifest, index, program, self.place(task.id) / "proof")

    def _own_folder(self, task: TaskRecord) -> Path | None:
        """Where the registered proof was trained, if it was trained here: what is said of it is answered for from
        there, whatever becomes of the store."""
        own = self.state.get(_own_proof(task.id, task.checkpoint_root))
        return None if own is None else self.folder / own

    def _own_manifest(self, task: TaskRecord) -> ProofManifest | None:
        """The manifest of the registered proof as it was published from here."""
        own = self._own_folder(task)
        if own is None:
            return None
        try:
            found = load_proof_manifest((own / PROOF_NAME).read_bytes())
        except (OSError, ProofFilesError):
            return None
        return found if found.root == task.checkpoint_root else None

    def checkpoint_openings(self, task: TaskRecord, segments: Sequence[int]) -> tuple[Checkpoint, ...]:
        """The solver's checkpoints after some segments, opened."""
        levels = tree.levels(self.manifest(task).roots)
        return tuple(
            Checkpoint(levels[0][segment + 1], tuple(tree.proof_of(levels, segment + 1))) for segment in segments
        )

    def thresholds(self, task: TaskRecord) -> Array | None:
        """A task's threshold vector, compared with its root on chain; None in exact mode.

        The solver's proof carries it. Where it does not, or lies, the task is profiled again.
        """
        if task.posting.exact:
            return None
        found = self._thresholds.get(task.id)
        if found is None:
            offered = self.manifest(task).thresholds if task.proof_locations else None
            with self._replaying[task.id]:
                found = self._thresholds.get(task.id)
                if found is None:
                    found = self._thresholds[task.id] = thresholds_of(
                        self.bundle(task), task.posting.profile_segments, task.threshold_root, self.place(task.id),
                        offered=offered,
                    )  # fmt: skip
        return found

    # ---- Training ---------------------------------------------------------------------------------------------------

    def train(self, task: TaskRecord, checks: int = 0) -> TrainedProof:
        """Train (or finish training), replay the last `checks` segments of a tolerant proof, and publish it."""
        proof = self.run_training(task)
        thresholds = self.thresholds(task)
        distance = 0.0 if task.posting.exact else self.own_distance(task, proof, checks)
        locations = publish_proof(self.stores[0], proof, thresholds=thresholds)
        self.state.put(_own_proof(task.id, proof.root), os.path.relpath(proof.folder, self.folder))
        return TrainedProof(proof.roots, locations, distance)

    def signed_work(self, task: TaskRecord) -> SignedWork | None:
        """What the owners of a task's segments have signed, where a group trained it."""
        return None

    def run_training(self, task: TaskRecord) -> Proof:
        """Train as the task's mode wants it; a run broken off goes on from its last checkpoint."""
        bundle = self.bundle(task)

        def report(progress: Any) -> None:
            logger.info(
                "training",
                extra={
                    "task": f"{task.id:#x}",
                    "step": progress.step,
                    "steps": progress.steps,
                    "loss": progress.loss,
                },
            )

        every = max(1, task.posting.steps // 4)
        runner = self.runner(task)
        return train(bundle.task, self.place(task.id) / "run", runner, progress=report, report_every=every)

    def runner(self, task: TaskRecord) -> Runner:
        """What trains a task: in exact mode the exact arithmetic, else PyTorch's kernels at the declared precision."""
        bundle = self.bundle(task)
        if task.posting.exact:
            return CanonicalRunner(bundle.task)
        from assay.engine.native.placement import native_device
        from assay.engine.native.run import NativeRun

        run = bundle.task
        return NativeRun(bundle.graph, run.data, run.seed, native_device(self.device), run.precision)

    def own_distance(self, task: TaskRecord, proof: Proof, segments: int) -> float:
        """The worst distance of the last segments of an own proof, as verifiers will find it; a NaN is infinite.

        The last ones: thresholds come from the first segments, and updates shrink beside their rounding later on.
        """
        run, thresholds = self.bundle(task).task, self.thresholds(task)
        folder = CheckpointFolder(proof.folder, run.program.state)
        worst = 0.0
        for segment in range(max(0, run.segments - segments), run.segments):
            start, end = folder.read(segment, proof.roots[segment]), folder.read(segment + 1, proof.roots[segment + 1])
            with self._replaying[task.id]:
                replay = self._replayer(task).replay(segment, start, 0, end, thresholds)
            assert replay.distance is not None
            bit_equal = replay.leaf.end_root == proof.roots[segment + 1]
            found = 0.0 if bit_equal else float(np.nan_to_num(replay.distance, nan=np.inf))
            worst = max(worst, found)
        return worst

    # ---- Claims -----------------------------------------------------------------------------------------------------

    def claim(self, subject: Subject) -> tuple[HashedLeaf, ...]:
        """The true claim about a subject; it is on disk when this returns."""
        known = self.state.get(subject.key)
        if known is None:
            task, seed = subject.task, subject.draw_seed
            leaves: Sequence[HashedLeaf]
            if subject.is_profile:
                leaves = self.profile_segments(task, len(subject.segments), seed)
            else:
                leaves = [self.replay_segment(task, segment, seed) for segment in subject.segments]
            known = self.state.put_once(subject.key, json.dumps([leaf.encode().hex() for leaf in leaves]))
        return tuple(decode_leaf(bytes.fromhex(text)) for text in json.loads(known))

    def passes(self, subject: Subject, leaves: Sequence[HashedLeaf]) -> bool:
        """Whether the solver's proof passes by a replay claim."""
        roots = self.manifest(subject.task).roots
        return passes(leaves, [roots[segment + 1] for segment in subject.segments], subject.task.posting.exact)

    def replay_segment(self, task: TaskRecord, segment: int, draw_seed: int) -> ReplayLeaf:
        """Replay one segment from the solver's checkpoint."""
        start = self.checkpoint(task, segment)
        end = None if task.posting.exact else self.checkpoint(task, segment + 1)
        thresholds = self.thresholds(task)
        with self._replaying[task.id]:
            begin = time.monotonic()
            leaf = self._replayer(task).replay(segment, start, draw_seed, end, thresholds).leaf
        work = decode_header(task.posting.header).sections[0].work * self.bundle(task).task.segment_steps(segment)
        self.replay_speed = work / max(1e-9, time.monotonic() - begin)
        logger.info("replayed", extra={"task": f"{task.id:#x}", "segment": segment, "end": leaf.end_root.hex()})
        return leaf

    def _replayer(self, task: TaskRecord) -> Replayer:
        found = self._replayers.get(task.id)
        if found is None:
            found = self._replayers[task.id] = Replayer(self.bundle(task).task)
        return found

    def profile_segments(self, task: TaskRecord, segments: int, draw_seed: int) -> tuple[ProfileLeaf, ...]:
        """Profile the first segments."""
        leaves = profile(self.bundle(task).task, draw_seed, segments).leaves
        logger.info("profiled", extra={"task": f"{task.id:#x}", "thresholds": leaves[-1].threshold_root.hex()})
        return leaves

    # ---- Stages of a group's members --------------------------------------------------------------------------------

    def stage_findings(self, task: TaskRecord) -> list[StageDossier]:
        """What shows that members signed something false about their stages, where a group trains."""
        return []

    def cannot_train(self, task: TaskRecord) -> str:
        """Why a group cannot train a task whose files are right, "" if it can."""
        return ""

    def trained_roots(self, task: TaskRecord) -> Sequence[bytes]:
        """Roots of the checkpoints that were trained here, in a group; nothing where they are not."""
        return ()

    def inquire(self, task: TaskRecord, segment: int) -> bool:
        """Find out, with the other members of a group, who was wrong in a segment. Whether there is no more to find:
        it is known of all members, nobody can find out here, or somebody was found."""
        return True

    def member_account(self, name: str) -> str:
        """A member's account by its name, "" where there is none."""
        return ""

    def stage_dossier(self, task: TaskRecord, work: StageWork) -> StageDossier | None:
        """What is kept here about a statement on a stage, the own or another's."""
        return None

    def receipts(self, task: TaskRecord) -> Sequence[Receipt]:
        """Who took part in which segments, as far as it is known here, where a group trains."""
        return ()

    def stage_execution(self, task: TaskRecord, dossier: StageDossier) -> LocalExecution:
        """The execution of a stage's segment."""
        # All that the execution follows from.
        subject = dossier.work.statement(task.id).subject
        key = (task.id, dossier.work.segment, int.from_bytes(subject, "big"), False)
        if key not in self._executions:
            self._make_room()
            segment = self._stage_segment(task, dossier)
            context = StepContext(self.bundle(task).task.seed, segment.first)
            self._executions[key] = LocalExecution(
                segment.program, context, segment.steps, segment.start, segment.data
            )  # fmt: skip
        return self._executions[key]

    def stage_end(self, task: TaskRecord, dossier: StageDossier) -> StageEnd:
        """Where a stage's segment ends."""
        return self._stage_segment(task, dossier).end(self.bundle(task).task.seed)

    def _stage_segment(self, task: TaskRecord, dossier: StageDossier) -> StageSegment:
        bundle = self.bundle(task)
        return dossier.load(bundle.task, None if task.posting.exact else bundle.graph)

    # ---- Executions, for the court ----------------------------------------------------------------------------------

    def execution(self, subject: Subject, place: int) -> LocalExecution:
        """The execution of one of a subject's segments."""
        key = (subject.task.id, subject.segments[place], subject.draw_seed, subject.is_profile)
        if key not in self._executions:
            self._make_room()
            make = self.make_profile_execution if subject.is_profile else self.make_execution
            self._executions[key] = make(subject.task, subject.segments[place], subject.draw_seed)
        return self._executions[key]

    def _make_room(self) -> None:
        while len(self._executions) >= MOST_EXECUTIONS:
            self._executions.pop(next(iter(self._executions)))

    def make_execution(self, task: TaskRecord, segment: int, draw_seed: int) -> LocalExecution:
        """An honest execution from the solver's checkpoint, with what its distance is measured by."""
        run = self.bundle(task).task
        return LocalExecution(
            run.program,
            StepContext(run.seed, run.first_step(segment)),
            run.segment_steps(segment),
            self.checkpoint(task, segment),
            run.data,
            draw_seed,
            () if task.posting.exact else self.checkpoint(task, segment + 1),
            self.thresholds(task),
        )

    def make_profile_execution(self, task: TaskRecord, segment: int, draw_seed: int) -> LocalExecution:
        """An honest clean and noisy execution of a profiled segment, from where the clean run before it ended."""
        run = self.bundle(task).task
        first = run.first_step(segment)
        clean = CanonicalRun(run.program, run.data, run.seed, CpuDevice())
        clean.load(run.state)
        for number in range(first):
            clean.step(number)
        thresholds: Array = np.zeros(len(run.program.state), np.float32)
        if segment:
            thresholds = profile(run, 0, segment).thresholds
        return LocalExecution(
            run.program,
            StepContext(run.seed, first),
            run.segment_steps(segment),
            clean.copy_state(),
            run.data,
            draw_seed,
            threshold=thresholds,
        )
