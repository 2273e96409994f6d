"""From a task.toml to a bundle: the model is made and traced here, on the submitter's machine, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.commitments.execution import data_root, state_root
from assay.group.compression.choice import parse_compression
from assay.group.compression.crossing import compress_boundaries
from assay.group.errors import CompressionError
from assay.program.encoding import program_root
from assay.program.file import dump_program
from assay.program.graph import dump_graph, graph_hash
from assay.program.local_steps_graph import with_local_steps
from assay.program.lowering import LOWERING_VERSION
from assay.program.operator import Array
from assay.program.trace import TracedTask, trace
from assay.storage.directory import file_digest
from assay.tasks.bundle import Bundle, lower
from assay.tasks.errors import TaskFileError
from assay.tasks.manifest import FILE_NAMES, MANIFEST_NAME, FileEntry, Manifest, dump_manifest
from assay.tasks.samples import read_samples
from assay.tasks.sources import load_function, make_model
from assay.tasks.task_file import FunctionSource, GroupTerms, TaskFile
from assay.training.checkpoint import read_tensors, write_tensors
from assay.training.task import TrainingTask

Report = Callable[[str], None]
"""Gets a sentence about each stage as it begins."""

DATA_LIMIT = 4 << 30


def build_bundle(file: TaskFile, folder: Path, data_limit: int = DATA_LIMIT, report: Report | None = None) -> Bundle:
    """Trace, lower and write the bundle of a task into `folder`.

    Raises `TaskFileError`, and `UnsupportedError` with the submitter's source line for what cannot be lowered.
    """
    say = report or (lambda _sentence: None)
    say("reading the samples")
    samples = read_samples(file.data, data_limit)
    say("making the model")
    model = make_model(file.model, file.seed)
    batch = _example_batch(samples, file.batch_size)
    if file.group is not None and file.group.boundaries:
        say(_compress(model, file.group, batch, len(samples[0]), file.steps))
    loss: Any = load_function(file.loss) if isinstance(file.loss, FunctionSource) else file.loss
    say("tracing one step")
    traced = trace(model, loss, file.optimizer, batch, len(samples[0]), file.data.tensors)
    if file.group is not None and file.group.replicas > 1:
        traced = _share(traced, file.group)
        say(f"gradients between {file.group.replicas} replicas travel in {file.group.gradient_bits} bits")
    if file.local_steps is not None:
        traced = with_local_steps(traced, file.local_steps)
    say("lowering it to operators")
    program = lower(traced.graph, file.mode, file.precision)
    state = traced.initial_state
    if file.model.base_state is not None:
        # The state of a settled task goes on, optimizer included; its root is compared on chain.
        state = tuple(read_tensors(file.model.base_state, program.state, "model.base_state"))
    for descriptor, tensor in zip(program.state, state, strict=True):
        if tensor.dtype == np.float32 and not np.isfinite(tensor).all():
            raise TaskFileError(f"the initial {descriptor.name} holds NaN or infinite values: correct the model")
    task = TrainingTask(program, state, samples, file.seed, file.steps, file.interval, file.mode, file.precision)
    say("writing and hashing the files")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE_NAMES["program"]).write_bytes(dump_program(program))
    (folder / FILE_NAMES["graph"]).write_bytes(dump_graph(traced.graph))
    write_tensors(folder / FILE_NAMES["initial"], state)
    write_tensors(folder / FILE_NAMES["data"], samples)
    manifest = Manifest(
        file.title,
        program_root(program),
        graph_hash(traced.graph),
        data_root(samples),
        state_root(state),
        LOWERING_VERSION,
        file.seed,
        file.steps,
        file.interval,
        traced.batch,
        traced.samples,
        file.mode,
        file.precision,
        {name: _entry(folder / file_name) for name, file_name in FILE_NAMES.items()},
        file.local_steps,
    )
    (folder / MANIFEST_NAME).write_bytes(dump_manifest(manifest))
    return Bundle(folder, manifest, traced.graph, task)


def _compress(
    model: torch.nn.Module, group: GroupTerms, batch: Sequence[torch.Tensor], samples: int, steps: int
) -> str:
    try:
        choice = parse_compression(group.compression)
        return compress_boundaries(model, group.boundaries, choice, batch[:-1], samples, steps)
    except CompressionError as error:
        raise TaskFileError(f"[group]: {error}") from error


def _share(traced: TracedTask, group: GroupTerms) -> TracedTask:
    # Only a task that declares replicas needs what groups train with.
    from assay.group.execution.native.replicas import with_replicas

    try:
        return with_replicas(traced, group.replicas, group.gradient_bits)
    except CompressionError as error:
        raise TaskFileError(f"[group]: {error}") from error


def _entry(path: Path) -> FileEntry:
    return FileEntry(path.stat().st_size, bytes.fromhex(file_digest(path)))


def _example_batch(samples: Sequence[Array], size: int) -> list[torch.Tensor]:
    """One batch as the model sees it: integers as PyTorch's int64, which its losses and embeddings ask for."""
    places = np.arange(size) % len(samples[0])
    return [
        torch.from_numpy(part[places] if part.dtype == np.float32 else part[places].astype(np.int64))
        for part in samples
    ]
