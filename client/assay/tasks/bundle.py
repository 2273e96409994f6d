"""Bundles: a task's manifest, program, graph, initial state and data in a folder, loaded strictly, as data only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from assay.commitments.execution import data_root, state_root
from assay.program.encoding import program_root
from assay.program.errors import ProgramError
from assay.program.file import load_program
from assay.program.graph import MAX_GRAPH_BYTES, Graph, graph_hash, load_graph
from assay.program.operator import Array, Program
from assay.program.sections import Precision, build_program
from assay.program.validate import Limits
from assay.storage.directory import file_digest
from assay.tasks.errors import BundleError
from assay.tasks.manifest import FILE_NAMES, MANIFEST_NAME, MAX_MANIFEST, Manifest, load_manifest
from assay.training.checkpoint import read_tensors
from assay.training.errors import CheckpointError
from assay.training.task import Mode, TrainingTask


@dataclass(frozen=True)
class BundleLimits:
    """The most a client takes into memory or onto its disk, in bytes."""

    program: Limits = field(default_factory=Limits)
    graph: int = MAX_GRAPH_BYTES
    tensors: int = 4 << 30  # initial state and data, each

    @classmethod
    def at_most(cls, size: int) -> BundleLimits:
        """Limits under which no file has more than `size` bytes (`storage.limit_mib`)."""
        usual = cls()
        program = replace(usual.program, file_bytes=min(size, usual.program.file_bytes))
        return cls(program, min(size, usual.graph), size)

    def of(self, name: str) -> int:
        """The limit of one file of the bundle."""
        return {"program": self.program.file_bytes, "graph": self.graph}.get(name, self.tensors)


@dataclass(frozen=True, eq=False)
class Bundle:
    """A task's files, loaded and consistent with their manifest."""

    folder: Path
    manifest: Manifest
    graph: Graph
    task: TrainingTask


def lower(graph: Graph, mode: Mode, precision: Precision) -> Program:
    """The program of a graph, as the posted lowering version makes it."""
    return build_program(graph, precision if mode is Mode.TOLERANT else None)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle's folder."""
    return load_manifest(_content(folder / MANIFEST_NAME, MAX_MANIFEST, "the manifest"))


def load_bundle(folder: Path, limits: BundleLimits | None = None, check_lowering: bool = True) -> Bundle:
    """Load a bundle. Sizes are compared before anything is read, hashes before anything is parsed.

    With `check_lowering` the graph is lowered here too and must give the same program: whoever trains natively runs the
    graph, and answers for what the program says. Raises `BundleError`, or the program's, graph's or tensors' own error.
    """
    limits = limits or BundleLimits()
    manifest = read_manifest(folder)
    for name, entry in manifest.files.items():
        path = folder / FILE_NAMES[name]
        if entry.size > limits.of(name):
            raise BundleError(f"{path.name} has {entry.size} bytes, {limits.of(name)} are accepted")
        if not path.is_file() or path.is_symlink() or path.stat().st_size != entry.size:
            raise BundleError(f"{path} is missing or does not have its {entry.size} bytes: fetch the task again")
        if bytes.fromhex(file_digest(path)) != entry.digest:
            raise BundleError(f"{path} is not the file the manifest names (its SHA-256 differs): fetch the task again")
    program = load_program(
        _content(folder / FILE_NAMES["program"], limits.of("program"), "the program"), limits.program
    )
    if program_root(program) != manifest.program_root:
        raise BundleError("the program has another root than the manifest says: do not take this task")
    graph = load_graph(_content(folder / FILE_NAMES["graph"], limits.graph, "the graph"))
    if graph_hash(graph) != manifest.graph_hash:
        raise BundleError("the graph has another hash than the manifest says: do not take this task")
    if check_lowering:
        _check_lowering(graph, manifest)
    try:
        state = read_tensors(folder / FILE_NAMES["initial"], program.state, "initial state")
        data = read_tensors(folder / FILE_NAMES["data"], program.data, "data")
    except CheckpointError as error:
        raise BundleError(str(error)) from error
    for what, tensors, root, found in (
        ("initial state", state, manifest.initial_root, state_root(state)),
        ("data", data, manifest.data_root, data_root(data)),
    ):
        if found != root:
            raise BundleError(
                f"the {what} has root {found.hex()}, the manifest says {root.hex()}: fetch the task again"
            )
        _check_finite(what, tensors)
    task = TrainingTask(
        program, tuple(state), tuple(data), manifest.seed, manifest.steps, manifest.interval, manifest.mode,
        manifest.precision,
    )  # fmt: skip
    return Bundle(folder, manifest, graph, task)


def _content(path: Path, limit: int, what: str) -> bytes:
    try:
        size = path.stat().st_size
        if size > limit:
            raise BundleError(f"{what} has {size} bytes, {limit} are accepted")
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}; fetch the task again") from error


def _check_lowering(graph: Graph, manifest: Manifest) -> None:
    try:
        found = program_root(lower(graph, manifest.mode, manifest.precision))
    except ProgramError as error:
        raise BundleError(f"the graph cannot be lowered: {error}; do not take this task") from error
    if found != manifest.program_root:
        raise BundleError(
            f"the graph lowers to program {found.hex()}, the task posts {manifest.program_root.hex()}: they say "
            "different things, do not take this task"
        )


def _check_finite(what: str, tensors: list[Array]) -> None:
    for number, tensor in enumerate(tensors):
        if tensor.dtype == np.float32 and not np.isfinite(tensor).all():
            raise BundleError(f"the {what}'s tensor {number} holds NaN or infinite values: do not take this task")
