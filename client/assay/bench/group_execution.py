"""Group execution measured: a market task trained by two members beside one, on this machine, a thread each.

`bytes_per_step`: what the partition predicts and what was sent. `speedup`: one member's step time over that of two,
each the mean over its fastest segment, with the batch in one piece and in four. The state roots of the exact task must
be equal.

`native` is a tolerant task in PyTorch's kernels, without and with a boundary compressed by AQ-SGD at 4/8 bits;
`wire_ratio` compares the bytes of a step after all samples have been visited, by direction; and as the partition has
them, all that two replicas tell each other, parameters included, where the task declares 4 bits for gradients.

Three ways with two stages and four pieces are measured in turn; each figure is the least of several runs.
`pipeline_ratio` is the step time of PyTorch's own pipeline (`torch_pipeline`: ScheduleGPipe, the same task; on the
processor only) over that of the own execution (`two_pieces`). `signed_overhead` is how much longer a step takes whose
members hash and log all that crosses, to sign it and answer for it (`two_signed`). What they do between segments is not
in the time of a step: `segment_end_seconds` is the least that it took (hashes and checkpoint; statements and receipts
where they sign).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from assay.bench.hardware import hardware_of
from assay.bench.models import Gpt, language_loss
from assay.group.compression.choice import parse_compression
from assay.group.compression.crossing import compress_boundaries
from assay.group.errors import GroupMessageError
from assay.group.execution.engines import NativeEngine
from assay.group.execution.local import run_local_group
from assay.group.execution.native.replicas import with_replicas
from assay.group.execution.run import TRAINER
from assay.group.execution.schedule import bytes_in_step
from assay.program.graph import Graph
from assay.program.operator import Array
from assay.program.optimizer import AdamW
from assay.program.sections import Precision, build_program
from assay.program.trace import TracedTask, trace
from assay.training.task import Mode, TrainingTask

BATCH, SAMPLES, TIME, WIDTH, LAYERS = 16, 128, 64, 128, 4
STEPS, INTERVAL = 24, 6
RATE, WEIGHT_DECAY = 1e-3, 0.01
GRADIENT_BITS = 4
LIMIT_SECONDS = 900.0
TORCH_PIPELINE = "assay.bench.torch_pipeline"
LOSS_TOLERANCE = 1e-3
"""Both pipelines train the same: so far apart, relatively, may their last losses be by rounding."""


def gpt_module() -> Gpt:
    """The character GPT that is trained; always with the same parameters."""
    torch.manual_seed(0)
    return Gpt(width=WIDTH, layers=LAYERS, time=TIME)


def gpt_task(mode: Mode = Mode.EXACT, compression: str = "none", replicas: int = 1) -> tuple[TrainingTask, Graph]:
    """A character GPT of 4 layers, 128 wide, on random text, with AdamW; compressed between its second and third, and
    between replicas."""
    traced, data = traced_gpt(compression)
    if replicas > 1:
        traced = with_replicas(traced, replicas, GRADIENT_BITS)
    program = build_program(traced.graph, Precision.FP32 if mode is Mode.TOLERANT else None)
    return TrainingTask(program, traced.initial_state, data, 7, STEPS, INTERVAL, mode), traced.graph


def traced_gpt(compression: str = "none") -> tuple[TracedTask, tuple[Array, Array]]:
    """Its step, and the text: int32 (samples, time) and what follows each character."""
    module = gpt_module()
    data = (torch.randint(0, 65, (SAMPLES, TIME)), torch.randint(0, 65, (SAMPLES, TIME)))
    batch = [part[:BATCH] for part in data]
    if compression != "none":
        compress_boundaries(module, ["blocks.1"], parse_compression(compression), batch[:1], SAMPLES, STEPS)
    traced = trace(module, language_loss, AdamW(RATE, weight_decay=WEIGHT_DECAY), batch, SAMPLES)
    inputs, targets = (part.numpy().astype(np.int32) for part in data)
    return traced, (inputs, targets)


def execution_figures(say: Callable[[str], None], rounds: int = 3) -> dict[str, Any]:
    """Both ways of execution; `rounds` as for `native_figures`."""
    return {**exact_figures(say), "native": native_figures(say, rounds=rounds)}


def native_figures(say: Callable[[str], None], device: str = "cpu", rounds: int = 3) -> dict[str, Any]:
    """Train a tolerant task with one member, with two stages, and with two replicas, all on `device` ("cpu" or "cuda");
    count the bytes of two stages with compression. What is compared is measured `rounds` times in turn.

    Raises MissingDependencyError where the device is not there."""
    hardware = hardware_of(device)
    seconds: dict[str, float] = {}
    sent: dict[str, list[int]] = {}
    runs = (("one", 1, 1, "none"), ("two", 2, 1, "none"), ("two_replicas", 2, 1, "none"))
    for key, members, microbatches, compression in (*runs, ("two_compressed", 2, 4, "aqsgd-4-8")):
        task, graph = gpt_task(Mode.TOLERANT, compression)
        replicas = 2 if key == "two_replicas" else 1
        reports = run_local_group(task, members, microbatches, LIMIT_SECONDS, graph, replicas, device)
        seconds[key] = max(report["step_seconds"] for report in reports)
        sent[key] = [report["last_step_sent_bytes"] for report in reports]
        say(
            f"{members} member(s) with PyTorch's kernels, {replicas} to a batch, in {microbatches} piece(s), "
            f"{compression}: {seconds[key]:.3f} s"
        )
    compared = compare_pipelines(say, device, rounds)
    seconds.update(compared["step_seconds"])
    plain, packed = compared.pop("sent"), sent["two_compressed"]
    return {
        "hardware": hardware,
        **compared,
        "step_seconds": seconds,
        "speedup": seconds["one"] / min(seconds["two"], seconds["two_pieces"], seconds["two_replicas"]),
        "wire_ratio": {
            "forward": plain[0] / packed[0],
            "backward": plain[1] / packed[1],
            "replicas": _bytes_between_replicas(1) / _bytes_between_replicas(2),
        },
    }


def compare_pipelines(say: Callable[[str], None], device: str, rounds: int) -> dict[str, Any]:
    """Two stages with four pieces: as they are, signed, and, on the processor, by PyTorch's own pipeline; in turn.
    `sent`: bytes of a step, by member. Raises GroupMessageError where the pipelines do not train the same."""
    task, graph = gpt_task(Mode.TOLERANT)
    kinds = ("two_pieces", "two_signed", *(("torch_pipeline",) if device == "cpu" else ()))
    steps: dict[str, list[float]] = {kind: [] for kind in kinds}
    ends: dict[str, list[float]] = {kind: [] for kind in kinds}
    losses: dict[str, float] = {}
    sent: list[int] = []
    for number in range(rounds):
        for kind in kinds if number % 2 == 0 else kinds[::-1]:
            trainer = TORCH_PIPELINE if kind == "torch_pipeline" else TRAINER
            reports = run_local_group(
                task, 2, 4, LIMIT_SECONDS, graph, device=device, signed=kind == "two_signed", trainer=trainer
            )
            steps[kind].append(max(report["step_seconds"] for report in reports))
            ends[kind].append(max(report.get("segment_end_seconds", 0.0) for report in reports))
            losses[kind] = reports[-1]["loss"]
            if kind == "two_pieces":
                sent = [report["last_step_sent_bytes"] for report in reports]
            say(f"two stages in four pieces, {kind}: {steps[kind][-1]:.4f} s a step")
    if max(losses.values()) - min(losses.values()) > LOSS_TOLERANCE * min(losses.values()):
        raise GroupMessageError(f"the pipelines that are compared do not train the same: their losses are {losses}")
    seconds = {kind: min(found) for kind, found in steps.items()}
    found: dict[str, Any] = {
        "step_seconds": seconds,
        "signed_overhead": seconds["two_signed"] / seconds["two_pieces"] - 1,
        "segment_end_seconds": {kind: min(ends[kind]) for kind in ("two_pieces", "two_signed")},
        "sent": sent,
    }
    if "torch_pipeline" in seconds:
        found["pipeline_ratio"] = seconds["torch_pipeline"] / seconds["two_pieces"]
    return found


def _bytes_between_replicas(declared: int) -> int:
    """Bytes a step of two replicas."""
    task, graph = gpt_task(Mode.TOLERANT, replicas=declared)
    engine = NativeEngine(task, graph, 1, replicas=2)
    return bytes_in_step(engine.schedules(engine.divide([1.0, 1.0])), STEPS - 1)


def exact_figures(say: Callable[[str], None]) -> dict[str, Any]:
    """Train the same task with one member, two, and two with pieces."""
    task, _ = gpt_task()
    seconds: dict[str, float] = {}
    roots: set[str] = set()
    sent = predicted = 0
    for key, members, microbatches in (("one", 1, 1), ("two", 2, 1), ("two_pieces", 2, 4)):
        reports = run_local_group(task, members, microbatches, LIMIT_SECONDS)
        seconds[key] = max(report["step_seconds"] for report in reports)
        roots.add(reports[0]["roots"][-1])
        if members > 1:
            sent = sum(report["sent_bytes"] for report in reports) // task.steps
            predicted = reports[0]["predicted_bytes_per_step"]
        say(f"{members} member(s), batch in {microbatches}: {seconds[key]:.3f} s a step")
    if len(roots) != 1:
        raise GroupMessageError(f"one and two members ended in different states: {sorted(roots)}")
    return {
        "step_seconds": seconds,
        "speedup": seconds["one"] / seconds["two_pieces"],
        "speedup_whole_batch": seconds["one"] / seconds["two"],
        "bytes_per_step": {"predicted": predicted, "sent": sent},
    }
