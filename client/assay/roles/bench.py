"""The workbench of a role: everything that takes long or touches files. Results are kept, and those that a promise on
chain depends on are in the state folder before anything else happens with them."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.commitments import tree
from assay.commitments.execution import ReplayLeaf as CommittedLeaf
from assay.dispute.execution import LocalExecution
from assay.errors import AssayError
from assay.market.records import TaskRecord
from assay.market.types import Checkpoint, ProfileLeaf, ReplayLeaf
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

    def __init__(self, folder: Path, stores: Sequence[Store], state: StateFolder) -> None:
        self.folder, self.stores, self.state = folder, stores, state
        self._bundles: dict[int, Bundle] = {}
        self._manifests: dict[tuple[int, bytes], ProofManifest] = {}
        self._replayers: dict[int, Replayer] = {}
        self._executions: dict[tuple[int, int, int], LocalExecution] = {}
        self._lock = threading.RLock()

    def place(self, task_id: int) -> Path:
        """The folder of a task."""
        return self.folder / f"{task_id:064x}"[:16]

    # ---- Files ------------------------------------------------------------------------------------------------------

    def bundle(self, task: TaskRecord) -> Bundle:
        """A task's files, fetched, lowered here, and compared with the chain."""
        with self._lock:
            if task.id not in self._bundles:
                bundle = fetch_bundle(self.stores, task.posting.locations, self.place(task.id) / "bundle")
                check_posting(bundle, task.posting)
                self._bundles[task.id] = bundle
            return self._bundles[task.id]

    def manifest(self, task: TaskRecord) -> ProofManifest:
        """The manifest of the proof registered for a task."""
        key = (task.id, task.checkpoint_root)
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
        if task.id not in self._replayers:
            self._replayers[task.id] = Replayer(bundle.task)
        start = self.checkpoint(task, segment)
        leaf = self._replayers[task.id].replay(segment, start, draw_seed).leaf
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


class Jobs:
    """Work done on a thread of its own, each piece once, with its result or failure kept until it is asked for."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="work")
        self._futures: dict[str, Future[Any]] = {}
        self._failures: dict[str, int] = {}

    def start(self, key: str, work: Callable[[], Any]) -> None:
        """Begin a piece of work unless it was begun before."""
        if key not in self._futures:
            self._futures[key] = self._pool.submit(work)

    def result(self, key: str) -> Any | None:
        """The result, or None while there is none. A failed piece can be started again."""
        future = self._futures.get(key)
        if future is None or not future.done():
            return None
        error = future.exception()
        if error is None:
            return future.result()
        del self._futures[key]
        self._failures[key] = self._failures.get(key, 0) + 1
        if not isinstance(error, AssayError):
            raise error
        logger.warning("%s failed: %s", key, error, extra={"code": error.code, "failures": self._failures[key]})
        return None

    def failures(self, key: str) -> int:
        """How often a piece of work has failed."""
        return self._failures.get(key, 0)

    @property
    def running(self) -> int:
        """Pieces not finished."""
        return sum(not future.done() for future in self._futures.values())

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
