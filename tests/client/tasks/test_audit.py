"""Audits of tolerant proofs: thresholds found again from the task, distances, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assay.commitments import tensor
from assay.storage.directory import DirectoryStore
from assay.tasks.audit import THRESHOLDS_NAME, audit_segment, thresholds_of
from assay.tasks.build import build_bundle
from assay.tasks.errors import ProofFilesError
from assay.tasks.proof import fetch_proof_manifest, publish_proof
from assay.tasks.task_file import read_task_file
from assay.training.checkpoint import CheckpointFolder
from assay.training.errors import TaskError
from assay.training.profile import profile
from assay.training.train import Proof, train

from .example import TASK, write_task


def test_a_tolerant_proof_is_audited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = TASK.replace('mode = "exact"', 'mode = "tolerant"\nprecision = "bf16"')
    bundle = build_bundle(read_task_file(write_task(tmp_path / "task", text)), tmp_path / "bundle")
    measured = profile(bundle.task, 77, 2)
    root = tensor.root(measured.thresholds)
    # What is kept in the folder counts only with the right root.
    (tmp_path / "work").mkdir()
    np.save(tmp_path / "work" / THRESHOLDS_NAME, measured.thresholds + 1)
    found = thresholds_of(bundle, 2, root, tmp_path / "work")
    assert found is not None
    assert (found == measured.thresholds).all()
    for torn in (b"", (tmp_path / "work" / THRESHOLDS_NAME).read_bytes()[:-3]):  # as a crash leaves it
        (tmp_path / "work" / THRESHOLDS_NAME).write_bytes(torn)
        again = thresholds_of(bundle, 2, root, tmp_path / "work")
        assert again is not None
        assert (again == found).all()
    monkeypatch.setattr("assay.tasks.audit.profile", lambda *_words, **_more: measured)
    assert thresholds_of(bundle, 2, root, tmp_path / "work") is not None
    with pytest.raises(ProofFilesError, match="assay doctor"):
        thresholds_of(bundle, 2, bytes(32), tmp_path / "work")
    proof = train(bundle.task, tmp_path / "run")
    # The first three checkpoints are right, the fourth is far from where the replay ends.
    folder = CheckpointFolder(proof.folder, bundle.task.program.state)
    state = folder.read(3)
    state[0] = state[0] + np.float32(0.5)
    cheat = Proof(proof.folder, (*proof.roots[:3], folder.write(3, state)))
    store = DirectoryStore(tmp_path / "store")
    manifest = fetch_proof_manifest([store], publish_proof(store, cheat), tmp_path / "fetched", cheat.root, 3)
    good = audit_segment(bundle, [store], manifest, tmp_path / "fetched", 1, found)
    assert (good.matches, good.distance) == (True, 0.0)
    bad = audit_segment(bundle, [store], manifest, tmp_path / "fetched", 2, found)
    assert not bad.matches
    assert bad.distance is not None
    assert bad.distance > 1
    assert bad.replayed != bad.registered
    with pytest.raises(TaskError, match="numbered from 0"):
        audit_segment(bundle, [store], manifest, tmp_path / "fetched", 4, found)
