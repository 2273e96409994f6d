"""Replaying segments of a registered proof on the own machine: match or mismatch, with nothing at stake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from assay.commitments import tensor
from assay.program.operator import Array
from assay.storage.store import Store
from assay.tasks.bundle import Bundle
from assay.tasks.errors import ProofFilesError
from assay.tasks.proof import ProofManifest, fetch_checkpoint
from assay.training.errors import TaskError
from assay.training.profile import profile
from assay.training.replay import Replayer
from assay.training.task import Mode

Progress = Callable[[int, int], None]
"""(steps done, steps)"""
THRESHOLDS_NAME = "thresholds.npy"


@dataclass(frozen=True)
class Audit:
    """What a replay of one segment found. `distance` is None in exact mode, and at most 1 passes."""

    segment: int
    matches: bool
    distance: float | None
    replayed: bytes  # state root of the replay's end
    registered: bytes  # state root of the solver's checkpoint


def audit_segment(
    bundle: Bundle,
    stores: Sequence[Store],
    manifest: ProofManifest,
    folder: Path,
    segment: int,
    thresholds: Array | None = None,
    replayer: Replayer | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Replay `segment` from the solver's checkpoint and compare with the next one.

    `thresholds` (tolerant mode) come from `thresholds_of`. Checkpoints are fetched to `folder`.
    """
    task = bundle.task
    if not 0 <= segment < task.segments:
        raise TaskError(f"segment {segment} does not exist: the task has {task.segments}, numbered from 0")
    start = fetch_checkpoint(stores, manifest, segment, task.program, folder)
    end = fetch_checkpoint(stores, manifest, segment + 1, task.program, folder)
    # The trace is of no interest here, so any draw seed will do.
    result = (replayer or Replayer(task)).replay(segment, start, 0, end, thresholds, progress)
    registered = manifest.roots[segment + 1]
    return Audit(segment, result.passes(registered), result.distance, result.leaf.end_root, registered)


def thresholds_of(
    bundle: Bundle,
    segments: int,
    root: bytes,
    folder: Path,
    progress: Progress | None = None,
    offered: Array | None = None,
) -> Array | None:
    """The task's threshold vector (a float32 a state tensor), which must have the root on chain; None in exact mode.

    `segments` is how many are profiled (`Posting.profile_segments`). The chain holds only the root. `offered` is
    somebody's vector (`ProofManifest.thresholds`), taken if it has that root; otherwise the vector, a function of the
    task, is found by profiling again, and kept in `folder`.
    """
    if bundle.task.mode is Mode.EXACT:
        return None
    if offered is not None and offered.size == len(bundle.task.program.state) and tensor.root(offered) == root:
        return offered
    path = folder / THRESHOLDS_NAME
    kept = _kept(path)
    if kept is not None and tensor.root(kept) == root:
        return kept
    found = profile(bundle.task, 0, segments, progress=progress).thresholds
    if tensor.root(found) == root:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(path, found)
        return found
    raise ProofFilesError(
        f"profiling this task does not give the thresholds {root.hex()} on chain: the profile that stood is not what "
        "this machine computes; run `assay doctor`"
    )


def _kept(path: Path) -> Array | None:
    """The vector in a file of `thresholds_of`; None where there is none, as after a crash while it was written."""
    try:
        kept: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return kept if kept.dtype == np.float32 and kept.ndim == 1 else None
