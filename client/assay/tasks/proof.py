"""Published proofs of learning: checkpoints in a store, each checked against the root on chain when it is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from assay.commitments.execution import checkpoint_root, state_root
from assay.program.operator import Array, Program
from assay.storage.store import MAX_LOCATOR, Progress, Store
from assay.tasks.errors import ProofFilesError
from assay.tasks.fields import Fields
from assay.tasks.publish import FileProgress, _silent
from assay.tasks.references import (
    MAX_PLACES,
    FileReference,
    decode_locations,
    fetch_file,
    parse_json,
    put_file,
    reference_of,
)
from assay.training.checkpoint import CheckpointFolder, read_tensors
from assay.training.task import MOST_SEGMENTS
from assay.training.train import Proof

FORMAT = 1
PROOF_NAME = "proof.json"
MAX_CHECKPOINTS = MOST_SEGMENTS + 1
MAX_ENTRY = MAX_PLACES * (MAX_LOCATOR + 8) + 512  # bytes of a checkpoint in a manifest; usually about 300
MAX_PROOF = 1 << 29
MAX_THRESHOLDS = 1 << 20  # characters: 131 072 state tensors


@dataclass(frozen=True)
class ProofManifest:
    """Roots and places of the S + 1 checkpoints, in order.

    `thresholds` is the task's threshold vector (tolerant mode) as the solver gives it: to be compared with the root on
    chain before use. It saves whoever replays the profiling.
    """

    roots: tuple[bytes, ...]
    files: tuple[FileReference, ...]
    thresholds: Array | None = field(default=None, compare=False)

    @property
    def root(self) -> bytes:
        """Root of the checkpoint tree."""
        return checkpoint_root(self.roots)


def publish_proof(store: Store, proof: Proof, progress: FileProgress = _silent, thresholds: Array | None = None) -> str:
    """Store a run's checkpoints and their manifest; returns the `locations` text to register.

    `thresholds` is the task's vector, a float32 a state tensor, if it has one. Storing the same proof again is cheap
    and gives the same text.
    """
    files = []
    for index in range(len(proof.roots)):
        path = CheckpointFolder(proof.folder, ()).path(index)
        files.append(put_file(store, path, progress(path.name)))
    document: dict[str, object] = {
        "format": FORMAT,
        "checkpoints": [
            {"root": root.hex(), "file": file.as_json()} for root, file in zip(proof.roots, files, strict=True)
        ],
    }
    if thresholds is not None:
        document["thresholds"] = thresholds.astype("<f4").tobytes().hex()
    path = proof.folder / PROOF_NAME
    path.write_text(json.dumps(document, sort_keys=True) + "\n")
    return put_file(store, path).encode()


def load_proof_manifest(content: bytes) -> ProofManifest:
    """Read a proof's manifest strictly."""
    fields = Fields(parse_json(content, "the proof's manifest", ProofFilesError), "proof", ProofFilesError)
    if fields.whole("format", 0, 2**31) != FORMAT:
        raise ProofFilesError(f"the proof's manifest is not of format {FORMAT}, which this client reads")

    def entry(value: object, name: str) -> tuple[bytes, FileReference]:
        inner = Fields(value, name, ProofFilesError)
        root = inner.digest("root")
        file = reference_of(inner.table("file").rest(), f"{name}.file", ProofFilesError)
        inner.finish()
        return root, file

    entries = fields.each("checkpoints", MAX_CHECKPOINTS, entry)
    vector = fields.text("thresholds", "", MAX_THRESHOLDS)
    fields.finish()
    if len(entries) < 2:
        raise ProofFilesError(f"the proof's manifest names {len(entries)} checkpoints: a proof has at least two")
    return ProofManifest(tuple(root for root, _ in entries), tuple(file for _, file in entries), _thresholds(vector))


def _thresholds(text: str) -> Array | None:
    if not text:
        return None
    try:
        return np.frombuffer(bytes.fromhex(text), "<f4").astype(np.float32)
    except ValueError as error:
        raise ProofFilesError("the proof's thresholds are not float32 values in hexadecimal") from error


def fetch_proof_manifest(
    stores: Sequence[Store], locations: str, folder: Path, root: bytes, segments: int
) -> ProofManifest:
    """The manifest of a registered proof, which must have the registered checkpoint root `root`.

    How large it may be follows from the number of segments: read as JSON, it takes many times its size in memory.
    """
    reference = decode_locations(locations, ProofFilesError)
    limit = min(MAX_PROOF, 4096 + MAX_THRESHOLDS + (segments + 1) * MAX_ENTRY)
    path = fetch_file(stores, reference, folder / PROOF_NAME, limit)
    manifest = load_proof_manifest(path.read_bytes())
    if len(manifest.roots) != segments + 1 or manifest.root != root:
        raise ProofFilesError(
            f"the published checkpoints ({len(manifest.roots)}) have root {manifest.root.hex()}, the solver registered "
            f"{root.hex()} over {segments + 1}: demand the chunks on chain"
        )
    return manifest


def fetch_checkpoint(
    stores: Sequence[Store],
    manifest: ProofManifest,
    index: int,
    program: Program,
    folder: Path,
    progress: Progress | None = None,
) -> list[Array]:
    """Checkpoint `index` (0: the initial state) in the program's order, compared with its root.

    Its size follows from the program, so no server can send more than that.
    """
    path = CheckpointFolder(folder, program.state).path(index)
    limit = sum(4 * descriptor.count for descriptor in program.state) + 8 + 4096 + 160 * len(program.state)
    fetch_file(stores, manifest.files[index], path, limit, progress)
    state = read_tensors(path, program.state, f"checkpoint {index}")
    found = state_root(state)
    if found != manifest.roots[index]:
        path.unlink()
        raise ProofFilesError(
            f"checkpoint {index} has root {found.hex()}, the solver registered {manifest.roots[index].hex()}: demand "
            "the chunks on chain"
        )
    return state
