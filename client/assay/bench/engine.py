"""How fast the canonical and the native run are beside PyTorch, and what the proof adds.

Every figure is a ratio of times taken in turn in one process; see `assay.bench.measure`.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from assay.bench.hardware import CPU, hardware_of, wait_for
from assay.bench.measure import compare, seconds
from assay.bench.models import Workload, workload
from assay.commitments import tensor
from assay.engine.cpu import isa
from assay.engine.cpu.device import CpuDevice
from assay.engine.cpu.matmul import matmul
from assay.engine.native.run import NativeRun, tf32_products
from assay.errors import UsageError
from assay.program.graph import Graph
from assay.program.lowering import lower_step
from assay.program.operator import Array, Role
from assay.program.sections import Precision
from assay.program.trace import trace
from assay.training.canonical import CanonicalRun
from assay.training.task import TrainingTask
from assay.training.trace import trace_elements
from assay.training.train import CanonicalRunner, train

MODELS = ("mlp", "cnn", "gpt")
SIZES = (512, 1024, 2048)
DEFAULT_INTERVAL = 100
"""Steps between checkpoints unless a task says otherwise."""
HASH_BYTES = 256 << 20
SEED = 7
GPU_STEPS = 20
FIGURES = ("step", "matmul", "native", "proof", "replay", "hash")

Say = Callable[[str], None]


@dataclass(frozen=True)
class EngineBenchSettings:
    """What to measure: repetitions a figure, threads of both sides, and which figures."""

    repetitions: int = 15
    threads: int = 0  # 0: every processor
    figures: Sequence[str] = FIGURES
    device: str = "cpu"  # of the native figure, the only one that a GPU has: "cpu" or "cuda"


def as_arrays(tensors: Sequence[torch.Tensor]) -> list[Array]:
    """float32 and int32 arrays of a workload's data."""
    return [part.numpy().astype(np.int32) if not part.is_floating_point() else part.numpy() for part in tensors]


def traced(work: Workload) -> tuple[Graph, tuple[Array, ...]]:
    """Graph and initial state of a workload."""
    example = [part[: work.batch] for part in work.data]
    task = trace(work.module, work.loss, work.optimizer, example, len(work.data[0]))  # type: ignore[arg-type]
    return task.graph, task.initial_state


def eager_step(work: Workload, device: str = "cpu") -> Callable[[], None]:
    """The loop body a user would write, with the data on the device."""
    module = work.module.to(device)
    data = [part.to(device) for part in work.data]
    optimizer = work.torch_optimizer(module)
    position = 0

    def step() -> None:
        nonlocal position
        chosen = torch.arange(position, position + work.batch, device=device) % len(data[0])
        position += work.batch
        *inputs, target = (part[chosen] for part in data)
        loss = work.torch_loss(module(*inputs), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def _counter(step: Callable[[int], object]) -> Callable[[], None]:
    number = 0

    def following() -> None:
        nonlocal number
        step(number)
        number += 1

    return following


def step_ratios(settings: EngineBenchSettings, say: Say) -> dict[str, float]:
    """Eager PyTorch's step time over the canonical one's."""
    ratios = {}
    for name in MODELS:
        work = workload(name)
        graph, state = traced(work)
        run = CanonicalRun(lower_step(graph), as_arrays(work.data), SEED, CpuDevice(settings.threads))
        run.load(state)
        result = compare(_counter(run.step), eager_step(work), settings.repetitions)
        ratios[name] = round(result.ratio, 4)
        say(
            f"step {name}: canonical {1e3 * median(result.ours):.1f} ms, eager {1e3 * median(result.theirs):.1f} ms, "
            f"ratio {ratios[name]:.3f}"
        )
    return ratios


def native_ratios(settings: EngineBenchSettings, say: Say) -> dict[str, float]:
    """The user's own loop's step time over the native run's, both at fp32.

    On a GPU, `GPU_STEPS` steps are asked for before it is waited for, as both loops would do.
    """
    ratios = {}
    device = settings.device
    steps = 1 if device == "cpu" else GPU_STEPS
    for name in MODELS:
        work = workload(name)
        graph, state = traced(work)
        run = NativeRun(graph, as_arrays(work.data), SEED, device)
        run.load(state)
        ours, theirs = _counter(run.advance), eager_step(work, device)
        with tf32_products(Precision.FP32, torch.device(device)):
            result = compare(_block(ours, steps, device), _block(theirs, steps, device), settings.repetitions)
        ratios[name] = round(result.ratio, 4)
        times = (1e3 * median(side) / steps for side in (result.ours, result.theirs))
        say("native {}: {:.2f} ms, eager {:.2f} ms, ratio {:.3f}".format(name, *times, ratios[name]))
    return ratios


def _block(step: Callable[[], None], steps: int, device: str) -> Callable[[], None]:
    """Some steps, done when the device is done with them."""

    def block() -> None:
        for _ in range(steps):
            step()
        wait_for(device)

    return block


def matmul_ratios(settings: EngineBenchSettings, say: Say) -> dict[str, float]:
    """torch.mm's time over the canonical matrix product's, for squares."""
    ratios = {}
    for size in SIZES:
        a, b = torch.randn(size, size), torch.randn(size, size)
        left, right, out = a.numpy(), b.numpy(), np.empty((size, size), np.float32)

        def ours(left: Array = left, right: Array = right, out: Array = out, size: int = size) -> None:
            strides = (size, 1)
            matmul(left, 0, strides, right, 0, strides, out, 0, size, size, size, size, settings.threads)

        result = compare(ours, lambda a=a, b=b: torch.mm(a, b), 2 * settings.repetitions, 10)  # type: ignore[misc]
        ratios[str(size)] = round(result.ratio, 4)
        say(f"matmul {size}: ratio {ratios[str(size)]:.3f}")
    return ratios


def hash_ratio(settings: EngineBenchSettings, say: Say) -> float:
    """Speed of a tensor root over hashlib's SHA-256 of the same bytes in one stream, times the cores used."""
    values = np.random.default_rng(0).standard_normal(HASH_BYTES // 4, dtype=np.float32)
    result = compare(lambda: tensor.root(values, settings.threads), lambda: hashlib.sha256(values.data), 5, 1)
    ratio = round(result.ratio / settings.threads, 4)
    say(f"hash: {HASH_BYTES / 1e9 / median(result.ours):.2f} GB/s on {settings.threads} threads, ratio {ratio:.3f}")
    return ratio


def proof_overhead(settings: EngineBenchSettings, say: Say) -> float:
    """How much longer training takes with checkpoints written and hashed than without, as a fraction."""
    work = workload("cnn")
    graph, state = traced(work)
    data = tuple(as_arrays(work.data))
    task = TrainingTask(lower_step(graph), state, data, SEED, 2 * DEFAULT_INTERVAL, DEFAULT_INTERVAL)
    runner = CanonicalRunner(task, CpuDevice(settings.threads))

    def plain() -> None:
        runner.load(task.state)
        for number in range(task.steps):
            runner.advance(number)

    def proven() -> None:
        with tempfile.TemporaryDirectory() as folder:
            train(task, Path(folder) / "run", runner)

    seconds(lambda: runner.load(task.state) or runner.advance(0))  # type: ignore[func-returns-value]
    result = compare(proven, plain, 3, 0)
    overhead = round(1 / result.ratio - 1, 4)
    say(f"proof: {100 * overhead:+.2f} % at {DEFAULT_INTERVAL} steps between checkpoints")
    return overhead


def replay_overheads(settings: EngineBenchSettings, say: Say) -> dict[str, float]:
    """How much longer a step takes in a replay, which takes its trace along, than in training, as a fraction."""
    overheads = {}
    for name in MODELS:
        work = workload(name)
        graph, state = traced(work)
        program = lower_step(graph)
        run = CanonicalRun(program, as_arrays(work.data), SEED, CpuDevice(settings.threads))
        run.load(state)
        operators = program.section(Role.STEP).operators
        replayed = _counter(
            lambda number, run=run, operators=operators: run.step(  # type: ignore[misc]
                number, trace_elements(operators, SEED, number)
            )
        )
        # Many rounds first: each part of a step is compiled once more when the trace first looks into it.
        result = compare(replayed, _counter(run.step), settings.repetitions, 2 * settings.repetitions)
        overheads[name] = round(1 / result.ratio - 1, 4)
        say(f"replay {name}: {100 * overheads[name]:+.1f} % over training")
    return overheads


def run_engine_bench(settings: EngineBenchSettings, say: Say = lambda _: None) -> dict[str, Any]:
    """All figures asked for, keyed as `assay bench engine --json` prints them. Raises MissingDependencyError where the
    device is not there, and UsageError for figures that it does not have."""
    hardware = hardware_of(settings.device)
    if hardware != CPU and set(settings.figures) != {"native"}:
        raise UsageError("on a GPU only native training is measured: add --figure native and leave other figures out")
    threads = settings.threads or isa.available_threads()
    settings = replace(settings, threads=threads)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    isa.set_threads(threads)
    try:
        figures: dict[str, Any] = {}
        if "matmul" in settings.figures:
            figures["matmul_ratio"] = matmul_ratios(settings, say)
        if "step" in settings.figures:
            figures["step_ratio"] = step_ratios(settings, say)
        if "native" in settings.figures:
            figures["native_ratio"] = native_ratios(settings, say)
        if "hash" in settings.figures:
            figures["hash_ratio"] = hash_ratio(settings, say)
        if "replay" in settings.figures:
            figures["replay_overhead"] = replay_overheads(settings, say)
        if "proof" in settings.figures:
            figures["proof_overhead"] = proof_overhead(settings, say)
    finally:
        torch.set_num_threads(before)
    return {**figures, "threads": threads, "vector_unit": isa.UNIT.name, "hardware": hardware}
