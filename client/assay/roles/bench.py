"""The workbench of a role: everything that takes long or touches files. Results are kept, and those that a promise on
chain depends on are in the state folder before anything else happens with them."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.commitments import tree
from assay.commitments.execution import ReplayLeaf as CommittedLeaf
from assay.dispute.execution import LocalExecution
from assay.market.records import TaskRecord
from assay.market.types import Checkpoint, ProfileLeaf, ReplayLeaf
from assay.program.encoding import decode_header
from assay.program.operator import Array
from assay.program.reference import StepContext
from assay.state import StateFolder
from assay.storage.store import Store
from assay.tasks.bundle import Bundle
from assay.tasks.posting import check_posting
from assay.tasks.proof import ProofManifest, fetch_checkpoint, fetch_proof_manifest, publish_proof
from assay.tasks.publish import fetch_bundle
from assay.training.replay import Replayer
from assay.training.train import Proof, train

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedProof:
    """A finished run: what is registered."""

    roots: tuple[bytes, ...]
    locations: str

    @property
    def tree(self) -> list[list[bytes]]:
        """All levels of the checkpoint tree."""
        return tree.levels(self.roots)


def on_chain(leaf: CommittedLeaf) -> ReplayLeaf:
    """A leaf as the contracts take it: without the segment's number, which follows from the draw."""
    return ReplayLeaf(leaf.end_root, leaf.distance_bits, leaf.trace_root)


def committed(leaves: Sequence[ReplayLeaf | ProfileLeaf], segments: Sequence[int]) -> list[CommittedLeaf]:
    """The leaves of a replay claim as they are hashed, of the segments that they are about."""
    return [
        CommittedLeaf(segment, leaf.end, leaf.distance, leaf.trace)
        for leaf, segment in zip(leaves, segments, strict=True)
        if isinstance(leaf, ReplayLeaf)
    ]


class Workbench:
    """Files, training, replays and executions of the tasks a role works on."""

    replay_speed = 0.0
    """Units of work a second of the last segment replayed."""

    def __init__(self, folder: Path, stores: Sequence[Store], state: StateFolder) -> None:
        self.folder, self.stores, self.state = folder, stores, state
        self._bundles: dict[int, Bundle] = {}
        self._manifests: dict[tuple[int, bytes], ProofManifest] = {}
        self._replayers: dict[int, Replayer] = {}
        self._executions: dict[tuple[int, int, int], LocalExecution] = {}
        # Work of several kinds goes on at once: one fetches a task's files, one replays it.
        self._fetching: defaultdict[int, threading.RLock] = defaultdict(threading.RLock)
        self._replaying: defaultdict[int, threading.RLock] = defaultdict(threading.RLock)

    def place(self, task_id: int) -> Path:
        """The folder of a task."""
        return self.folder / f"{task_id:064x}"[:16]

    # ---- Files ------------------------------------------------------------------------------------------------------

    def bundle(self, task: TaskRecord) -> Bundle:
        """A task's files, fetched, lowered here, and compared with the chain."""
        if task.id in self._bundles:
            return self._bundles[task.id]
        with self._fetching[task.id]:
            if task.id not in self._bundles:
                bundle = fetch_bundle(self.stores, task.posting.locations, self.place(task.id) / "bundle")
                check_posting(bundle, task.posting)
                self._bundles[task.id] = bundle
            return self._bundles[task.id]

    def manifest(self, task: TaskRecord) -> ProofManifest:
        """The manifest of the proof registered for a task."""
        key = (task.id, task.checkpoint_root)
        if key in self._manifests:
            return self._manifests[key]
        with self._fetching[task.id]:
            if key not in self._manifests:
                folder = self.place(task.id) / "proof"
                self._manifests[key] = fetch_proof_manifest(
                    self.stores, task.proof_locations, folder, task.checkpoint_root, task.segments
                )
            return self._manifests[key]

    def checkpoint(self, task: TaskRecord, index: int) -> list[Array]:
        """A checkpoint of the registered proof, compared with its root."""
        program = self.bundle(task).task.program
        folder = self.place(task.id) / "proof"
        with self._fetching[task.id]:
            return fetch_checkpoint(self.stores, self.manifest(task), index, program, folder)

    def checkpoint_openings(self, task: TaskRecord, segments: Sequence[int]) -> tuple[Checkpoint, ...]:
        """The solver's checkpoints after some segments, opened (exact mode); empty in tolerant mode."""
        if not task.posting.exact:
            return ()
        levels = tree.levels(self.manifest(task).roots)
        return tuple(
            Checkpoint(levels[0][segment + 1], tuple(tree.proof_of(levels, segment + 1))) for segment in segments
        )

    # ---- Work -------------------------------------------------------------------------------------------------------

    def train(self, task: TaskRecord) -> TrainedProof:
        """Train (or finish training) and publish the checkpoints."""
        proof = self.run_training(task)
        locations = publish_proof(self.stores[0], proof)
        return TrainedProof(proof.roots, locations)

    def run_training(self, task: TaskRecord) -> Proof:
        """Train canonically; a run broken off goes on from its last checkpoint."""
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
        return train(bundle.task, self.place(task.id) / "run", progress=report, report_every=every)

    def replay(self, task: TaskRecord, segments: Sequence[int], draw_seed: int) -> tuple[CommittedLeaf, ...]:
        """Replay segments from the solver's checkpoints; the result is on disk when this returns."""
        key = f"replay:{task.id:x}:{draw_seed}:{','.join(map(str, segments))}:{task.checkpoint_root.hex()}"
        known = self.state.get(key)
        if known is None:
            leaves = [self.replay_segment(task, segment, draw_seed) for segment in segments]
            known = self.state.put_once(key, json.dumps([leaf.encode().hex() for leaf in leaves]))
        return tuple(_decode_leaf(bytes.fromhex(text)) for text in json.loads(known))

    def replay_segment(self, task: TaskRecord, segment: int, draw_seed: int) -> CommittedLeaf:
        """Replay one segment."""
        bundle = self.bundle(task)
        start = self.checkpoint(task, segment)
        with self._replaying[task.id]:
            if task.id not in self._replayers:
                self._replayers[task.id] = Replayer(bundle.task)
            begin = time.monotonic()
            leaf = self._replayers[task.id].replay(segment, start, draw_seed).leaf
        work = decode_header(task.posting.header).sections[0].work * bundle.task.segment_steps(segment)
        self.replay_speed = work / max(1e-9, time.monotonic() - begin)
        logger.info("replayed", extra={"task": f"{task.id:#x}", "segment": segment, "end": leaf.end_root.hex()})
        return leaf

    def execution(self, task: TaskRecord, segment: int, draw_seed: int) -> LocalExecution:
        """A segment's execution, for the court."""
        key = (task.id, segment, draw_seed)
        if key not in self._executions:
            self._executions[key] = self.make_execution(task, segment, draw_seed)
        return self._executions[key]

    def make_execution(self, task: TaskRecord, segment: int, draw_seed: int) -> LocalExecution:
        """An honest execution from the solver's checkpoint."""
        run = self.bundle(task).task
        return LocalExecution(
            run.program,
            StepContext(run.seed, run.first_step(segment)),
            run.segment_steps(segment),
            self.checkpoint(task, segment),
            run.data,
            draw_seed,
        )


def _decode_leaf(raw: bytes) -> CommittedLeaf:
    return CommittedLeaf(int.from_bytes(raw[:4], "big"), raw[4:36], int.from_bytes(raw[36:40], "big"), raw[40:72])
