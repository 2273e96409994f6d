"""A member's part of a group checkpoint: everything its next step depends on; and the group's one state root.

A part holds the stage's parameters, its optimizer's tensors, the boundary caches and the errors of compressed
exchanges, so a run continues, and a segment can be replayed, to the same bits. The group's state is the parameters of
all stages in order, then each kind of optimizer tensor in order of stages: one tree over all roots, as on one machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from assay.commitments import tensor as tensor_tree
from assay.commitments import tree
from assay.group.compression.boundary import BoundaryCodec, ChangeCodec
from assay.group.errors import MemberFailedError
from assay.group.pipeline.reduce import ReplicaAverage


@dataclass(frozen=True)
class MemberParts:
    """The live objects that a checkpoint saves and restores."""

    module: torch.nn.Module
    optimizer: torch.optim.Optimizer
    codecs: Sequence[BoundaryCodec]
    average: ReplicaAverage | None


def part_path(directory: Path, step: int, stages: int, stage: int, replica: int) -> Path:
    """Where the part of one member after `step` steps lies."""
    return directory / f"step-{step:09d}-of-{stages}" / f"stage-{stage}-replica-{replica}.safetensors"


def save_part(parts: MemberParts, path: Path) -> None:
    """Write a part; the file appears under its name only when it is complete."""
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in _tensors(parts).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    save_file(tensors, unfinished)
    unfinished.replace(path)


def load_part(parts: MemberParts, paths: Sequence[Path], own: Path | None = None) -> None:
    """Continue from a checkpoint: parameters and optimizer from any of `paths`, by name.

    `own` is the part saved at the same place of the same plan; its caches and exchange errors are taken over. Without
    it they begin anew, which both ends of a boundary must then do. Raises MemberFailedError naming what is missing.
    """
    tensors: dict[str, torch.Tensor] = {}
    for path in paths:
        tensors.update(
            (key, value) for key, value in _read(path).items() if key.startswith(("parameter/", "optimizer/"))
        )
    if own is not None:
        tensors.update(_read(own))
    names = [name for name, _ in parts.module.named_parameters()]
    missing = [name for name in names if f"parameter/{name}" not in tensors]
    if missing:
        raise MemberFailedError(
            f"none of {', '.join(str(path) for path in paths)} holds the parameter {missing[0]!r}; "
            "fetch the other parts"
        )
    with torch.no_grad():
        for name, parameter in parts.module.named_parameters():
            parameter.copy_(tensors[f"parameter/{name}"])
    state: dict[int, dict[str, torch.Tensor]] = {}
    for index, name in enumerate(names):
        prefix = f"optimizer/{name}/"
        entry = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if entry:
            state[index] = entry
    parts.optimizer.load_state_dict({**parts.optimizer.state_dict(), "state": state})
    for number, codec in enumerate(parts.codecs):
        if isinstance(codec, ChangeCodec):
            key = f"cache/{number}/"
            codec.cache.forget()
            if f"{key}seen" in tensors:
                codec.cache.load_state({"seen": tensors[f"{key}seen"].bool(), "rows": tensors[f"{key}rows"]})
    if parts.average is not None and "exchange/result" in tensors:
        parts.average.load_state({"outgoing": tensors["exchange/outgoing"], "result": tensors["exchange/result"]})


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, ValueError) as error:
        raise MemberFailedError(f"the checkpoint part {path} cannot be read ({error}); fetch it again") from error
    return tensors


def tensor_roots(parts: MemberParts) -> dict[str, list[bytes]]:
    """Roots of a stage's tensors by kind ("parameter", then the optimizer's kinds), in the order of its parameters."""
    roots: dict[str, list[bytes]] = {"parameter": []}
    for parameter in parts.module.parameters():
        roots["parameter"].append(tensor_root(parameter))
        for kind, value in sorted(parts.optimizer.state.get(parameter, {}).items()):
            if isinstance(value, torch.Tensor):
                roots.setdefault(kind, []).append(tensor_root(value))
    return roots


def group_state_root(stages: Sequence[dict[str, list[bytes]]]) -> bytes:
    """One root over all stages' tensor roots: equal to the state root of the undivided model and optimizer."""
    kinds = ["parameter", *sorted({kind for stage in stages for kind in stage} - {"parameter"})]
    return tree.root([root for kind in kinds for stage in stages for root in stage.get(kind, [])])


def complete_checkpoints(directory: Path) -> list[tuple[int, list[Path]]]:
    """Checkpoints whose parts of replica 0 are all there: (step, parts in order of stages), newest first.

    The number of stages is in the folder's name, so a crash between two parts leaves an incomplete one behind, unused.
    """
    found = []
    for folder in directory.glob("step-*"):
        step, stages = (int(text) for text in folder.name.removeprefix("step-").split("-of-"))
        paths = [folder / f"stage-{stage}-replica-0.safetensors" for stage in range(stages)]
        if all(path.exists() for path in paths):
            found.append((step, paths))
    return sorted(found, reverse=True)


def _tensors(parts: MemberParts) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for name, parameter in parts.module.named_parameters():
        tensors[f"parameter/{name}"] = parameter
        for kind, value in parts.optimizer.state.get(parameter, {}).items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer/{name}/{kind}"] = value
    for number, codec in enumerate(parts.codecs):
        if isinstance(codec, ChangeCodec):
            for key, value in codec.cache.state().items():
                tensors[f"cache/{number}/{key}"] = value.to(torch.uint8) if key == "seen" else value
    if parts.average is not None:
        for key, value in parts.average.state().items():
            tensors[f"exchange/{key}"] = value
    return tensors


def tensor_root(value: torch.Tensor) -> bytes:
    """Root of a tensor's values as float32, as the project's commitments define it."""
    array: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = value.detach().cpu().to(torch.float32).numpy()
    return tensor_tree.root(np.ascontiguousarray(array).reshape(-1))
