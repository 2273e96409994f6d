"""Checkpoints on disk: safetensors written atomically and synced, checked against their roots when read.

A checkpoint counts only once its line stands in the folder's journal, which is synced after the file itself: a run
killed at any instant finds the last complete one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from assay.commitments.execution import state_root
from assay.program.operator import Array, TensorDescriptor
from assay.training.errors import CheckpointError

JOURNAL = "checkpoints.jsonl"
OWNER = "run.json"


def tensor_name(number: int) -> str:
    """Name of a state or data tensor in its safetensors file: its number, so that names never collide."""
    return f"t{number:05d}"


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_synced(path: Path, text: str) -> None:
    """Replace a small file atomically and durably. `CheckpointError` where the disk refuses."""
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error) from error


def append_synced(path: Path, line: str) -> None:
    """Add a line to a file, durably; what a crash cut off before it stays a line of its own. `CheckpointError` where
    the disk refuses."""
    try:
        is_new = not path.exists()
        with path.open("ab+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(path.parent)
    except OSError as error:
        raise _refused(path, error) from error


def write_tensors(path: Path, tensors: Sequence[Array]) -> None:
    """Write tensors atomically: a temporary file, synced, then renamed. `CheckpointError` where the disk refuses."""
    temporary = path.with_name(path.name + ".partial")
    try:
        save_file({tensor_name(number): np.asarray(part, order="C") for number, part in enumerate(tensors)}, temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except (OSError, SafetensorError) as error:  # the library tells a full disk in an error of its own
        temporary.unlink(missing_ok=True)
        raise _refused(path, error) from error


def _refused(path: Path, error: Exception) -> CheckpointError:
    words = getattr(error, "strerror", None) or error
    return CheckpointError(
        f"cannot write {path.name} in {path.parent}: {words}; free disk space there and start again, finished "
        "checkpoints are kept"
    )


def read_tensors(path: Path, descriptors: Sequence[TensorDescriptor], what: str) -> list[Array]:
    """Read tensors that must have exactly these types and shapes.

    Sizes are compared before anything is read into memory, so a stranger's file cannot ask for more than the program
    says. Raises `CheckpointError` naming the tensor that does not fit.
    """
    expected = sum(4 * descriptor.count for descriptor in descriptors)
    try:
        size = path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"{what}: cannot read {path}: {error.strerror}; fetch it again") from error
    header_limit = 8 + 4096 + 160 * len(descriptors)
    if not expected <= size <= expected + header_limit:
        raise CheckpointError(
            f"{what}: {path.name} has {size} bytes, its {len(descriptors)} tensors need {expected}; fetch it again"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            names = set(file.keys())
            wanted = {tensor_name(number) for number in range(len(descriptors))}
            if names != wanted:
                odd = sorted(names ^ wanted)[:3]
                raise CheckpointError(f"{what}: {path.name} does not hold the program's tensors (see {', '.join(odd)})")
            tensors = []
            for number, descriptor in enumerate(descriptors):
                view = file.get_slice(tensor_name(number))
                kind = {"F32": np.float32, "I32": np.int32}.get(view.get_dtype())
                if (
                    kind is None
                    or np.dtype(kind) != descriptor.type.dtype
                    or tuple(view.get_shape()) != descriptor.shape
                ):
                    raise CheckpointError(
                        f"{what}: tensor {number} ({descriptor.name}) is {view.get_dtype()}{view.get_shape()}, "
                        f"the program wants {descriptor.type.dtype}{list(descriptor.shape)}"
                    )
                tensors.append(file.get_tensor(tensor_name(number)))
            return tensors
    except SafetensorError as error:
        raise CheckpointError(
            f"{what}: {path.name} is not a complete safetensors file ({error}); fetch it again"
        ) from error


@dataclass(frozen=True)
class JournalEntry:
    """One finished checkpoint: the state after `segment` segments (0: the initial state)."""

    index: int
    root: bytes


class CheckpointFolder:
    """The checkpoints of one run."""

    def __init__(self, folder: Path, descriptors: Sequence[TensorDescriptor]) -> None:
        self.folder = folder
        self.descriptors = descriptors
        folder.mkdir(parents=True, exist_ok=True)

    def claim(self, fingerprint: str) -> None:
        """Bind the folder to one task. `CheckpointError` if it holds another task's run."""
        path = self.folder / OWNER
        if path.exists():
            try:
                held = str(json.loads(path.read_text())["task"])
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(f"{path} is damaged: delete the folder to start the run again") from error
            if held != fingerprint:
                raise CheckpointError(
                    f"{self.folder} holds the run of task {held}, not of {fingerprint}: give another folder"
                )
            return
        write_synced(path, json.dumps({"task": fingerprint}) + "\n")

    def path(self, index: int) -> Path:
        return self.folder / f"checkpoint-{index:06d}.safetensors"

    def entries(self) -> list[JournalEntry]:
        """Finished checkpoints 0, 1, 2, ... as far as they are complete. A torn last line is ignored."""
        path = self.folder / JOURNAL
        if not path.exists():
            return []
        found: list[JournalEntry] = []
        for line in path.read_text().splitlines():
            try:
                entry = json.loads(line)
                index, root = int(entry["index"]), bytes.fromhex(entry["root"])
            except (ValueError, KeyError, TypeError):
                break
            if index != len(found) or len(root) != 32:
                break
            found.append(JournalEntry(index, root))
        return found

    def write(self, index: int, state: Sequence[Array], threads: int | None = 1) -> bytes:
        """Write, hash and journal checkpoint `index`; returns its state root."""
        root = self.put(index, state, threads)
        self.note(index, root)
        return root

    def put(self, index: int, state: Sequence[Array], threads: int | None = 1) -> bytes:
        """Write and hash checkpoint `index`, which is not finished before it is in the journal (`note`)."""
        write_tensors(self.path(index), state)
        return state_root(state, threads)

    def note(self, index: int, root: bytes) -> None:
        """Journal checkpoint `index`. What the journal had from there on is no longer part of the run."""
        kept = self.entries()[:index]
        lines = [json.dumps({"index": entry.index, "root": entry.root.hex()}) for entry in kept]
        lines.append(json.dumps({"index": index, "root": root.hex()}))
        write_synced(self.folder / JOURNAL, "\n".join(lines) + "\n")

    def read(self, index: int, root: bytes | None = None) -> list[Array]:
        """Checkpoint `index`, compared with `root` (the journal's, if not given). `CheckpointError` if it differs."""
        if root is None:
            entries = self.entries()
            if index >= len(entries):
                raise CheckpointError(
                    f"checkpoint {index} is not finished: the run has {len(entries)}; resume training"
                )
            root = entries[index].root
        state = read_tensors(self.path(index), self.descriptors, f"checkpoint {index}")
        found = state_root(state)
        if found != root:
            raise CheckpointError(
                f"checkpoint {index} has root {found.hex()}, not {root.hex()}: the file was changed; "
                "delete it and resume training"
            )
        return state
