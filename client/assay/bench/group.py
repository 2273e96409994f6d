"""`assay bench group`: placement, compression and throughput of group training, measured.

Placement figures are modelled communication seconds (data parallel plus pipeline) on the networks of the decentralised
foundation-model study; `search_seconds` is wall-clock time on one core. `aqsgd` are final losses (mean over the last of
20 epochs, and over 16 seeds: one run's differs by 0.01 from another's by chance alone) of a 4-layer character GPT, 64
wide, on 256 samples, cut into 4 stages. `wire_ratio` counts bytes of whole messages on repeated visits.
`slow_link_speedup` is throughput of the same 4 stages with 4/8 bits over without, at 100 Mbit/s and 50 ms between any
two members; `fast_link_slowdown` how much longer a step of 2 stages takes where the link costs nothing.
`execution` is that of `group_execution`, `local_steps` that of `group_local_steps`.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.bench.group_execution import execution_figures, native_figures
from assay.bench.group_local_steps import local_steps_figures
from assay.engine.cpu.isa import available_threads
from assay.group.bound import proven_bound
from assay.group.compression.choice import parse_compression
from assay.group.compression.emulate import BoundaryBytes, train_emulated
from assay.group.pipeline.model import Workload, character_gpt, token_loss
from assay.group.pipeline.text import character_data
from assay.group.scenarios import load_scenario, published_costs
from assay.group.search import SearchSettings, find_placement
from assay.group.simulate.member import Trial
from assay.group.simulate.run import simulated_network

PLACEMENT_SCENARIOS = ("two_data_centers", "regional", "world_wide")
# The published solver's results after minutes of search.
PUBLISHED_SECONDS = {"two_data_centers": 16.0868, "regional": 34.8020, "world_wide": 49.2184}
SETTINGS = {
    "fp32": "none",
    "aq_4_8": "aqsgd-4-8",
    "aq_3_6": "aqsgd-3-6",
    "direct_4_8": "direct-4-8",
    "direct_3_6": "direct-3-6",
    "tile_4_8": "tile-4-8",
}
SAMPLES, CONTEXT, BATCH, EPOCHS, BOUNDARIES = 256, 64, 16, 20, 3
SEEDS = 16
FIGURES = ("placement", "compression", "throughput", "execution", "local-steps")


@dataclass(frozen=True)
class GroupBenchSettings:
    """`text`: a file to train on instead of made text. `pairs`: interleaved measurements of each kind on slow
    links and of pipelines; where links cost nothing, twice as many. `device`: of native execution, "cpu" or "cuda".
    `figures`: which of `FIGURES`."""

    text: Path | None = None
    mode: str = "auto"
    pairs: int = 3
    seed: int = 0
    bound_visits: int = 200_000_000
    device: str = "cpu"
    figures: Sequence[str] = FIGURES


def run_group_bench(settings: GroupBenchSettings, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """The figures; `say` receives a line when a part is done. On a GPU, only what runs there: native execution."""
    if settings.device != "cpu":
        return {"execution": {"native": native_figures(say, settings.device, settings.pairs)}}
    found: dict[str, Any] = {}
    if "placement" in settings.figures:
        found["placement"] = placement_figures(settings, say)
    if "compression" in settings.figures:
        found["aqsgd"], count = compression_losses(settings, say)
        found["wire_ratio"] = wire_figures(count)
    if "throughput" in settings.figures:
        found.update(throughput_figures(settings, say))
    if "execution" in settings.figures:
        found["execution"] = execution_figures(say, settings.pairs)
    if "local-steps" in settings.figures:
        found["local_steps"] = local_steps_figures(say)
    return found


def placement_figures(settings: GroupBenchSettings, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """Search every scenario of the study and prove how good a placement could be."""
    costs = published_costs()
    # Load the compiled search, so that its compilation on a machine's first run is not counted as search.
    find_placement(load_scenario("two_data_centers").cluster, costs, SearchSettings(random_starts=0, iterations=10))
    figures: dict[str, dict[str, Any]] = {}
    for name in PLACEMENT_SCENARIOS:
        cluster = load_scenario(name).cluster
        started = time.perf_counter()
        found = find_placement(cluster, costs, SearchSettings(seed=settings.seed))
        searched = time.perf_counter() - started
        bound = proven_bound(cluster, costs, found.time.communication, settings.bound_visits)
        figures[name] = {
            "seconds": found.time.communication,
            "search_seconds": searched,
            "published_seconds": PUBLISHED_SECONDS[name],
            "lower_bound": bound.seconds,
            "lower_bound_method": bound.method,
        }
        say(f"{name}: {found.time.communication:.4f} s in {searched:.1f} s, lower bound {bound.seconds:.4f} s")
    return figures


def compression_losses(
    settings: GroupBenchSettings, say: Callable[[str], None], epochs: int = EPOCHS
) -> tuple[dict[str, float], BoundaryBytes]:
    """Final losses of all settings, each the mean over `SEEDS` runs, and the bytes counted at 4/8 bits.

    Runs share the processor's cores, a thread each: what a run computes does not depend on the others.
    """
    losses: dict[str, float] = {}
    counted = BoundaryBytes()
    seeds = [replace(settings, seed=settings.seed + number) for number in range(SEEDS)]
    workers = min(available_threads(), SEEDS * len(SETTINGS))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        runs = {key: [pool.submit(_final_loss, seed, name, epochs) for seed in seeds] for key, name in SETTINGS.items()}
        for key, results in runs.items():
            losses[key] = float(np.mean([result.result()[0] for result in results]))
            if key == "aq_4_8":
                counted = results[0].result()[1]
            say(f"{key}: final loss {losses[key]:.4f} ({losses[key] - losses['fp32']:+.4f})")
    return losses, counted


def _final_loss(settings: GroupBenchSettings, compression: str, epochs: int) -> tuple[float, BoundaryBytes]:
    """One run's mean loss over its last epoch, and the bytes of its boundaries; in a process of its own."""
    torch.set_num_threads(1)
    steps = SAMPLES // BATCH
    workload = character_workload(settings)
    trace, count = train_emulated(workload, parse_compression(compression), BOUNDARIES, epochs * steps, steps)
    return float(np.mean(trace[-steps:])), count


def character_workload(settings: GroupBenchSettings) -> Workload:
    """The 4-layer character GPT; samples in a new order every epoch, each once."""
    data = character_data(SAMPLES, CONTEXT, settings.text, settings.seed)
    steps = SAMPLES // BATCH

    def order(step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1_000 * settings.seed + step // steps)
        numbers = torch.randperm(SAMPLES, generator=generator)
        return numbers[step % steps * BATCH : (step % steps + 1) * BATCH]

    return Workload(
        build=lambda: character_gpt(data.vocabulary, CONTEXT, seed=settings.seed),
        inputs=data.inputs,
        targets=data.targets,
        order=order,
        loss=token_loss,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    )


def wire_figures(count: BoundaryBytes) -> dict[str, float]:
    """Bytes of float32 over bytes sent; `forward_all` includes the first epoch, whose visits are sent in full."""
    return {
        "forward": count.repeat_uncompressed / count.repeat_forward,
        "backward": count.uncompressed / count.backward,
        "forward_all": count.uncompressed / count.forward,
    }


def throughput_figures(settings: GroupBenchSettings, say: Callable[[str], None]) -> dict[str, Any]:
    """The same steps with and without compression, interleaved, a member a stage.

    On slow links the model is cut as for `aqsgd`, a layer a stage: uncompressed micro-batches cross three of them, one
    after the other. Where links cost nothing it is cut into two; cut into four, quantising costs more of a step.
    """
    # A long step, so that the links' delay (paid twice a boundary, compressed or not) is small beside the transfers.
    slow = Trial(
        split=(1, 1, 1, 1), microbatches=16, batch=1024, samples=1024, warm_steps=2, steps=6,
        text=str(settings.text or ""),
    )  # fmt: skip
    fast = replace(slow, split=(2, 2), batch=256, samples=256, microbatches=8, steps=16)
    trials = {"slow_links": slow, "fast_link": fast}
    seconds: dict[tuple[str, str], list[float]] = {}
    mode = ""
    for link, trial in trials.items():
        wanted = settings.mode if link == "slow_links" else "loopback"
        # Short runs, so more of them: the processor's speed changes from one to the next.
        runs = settings.pairs if link == "slow_links" else 2 * settings.pairs
        with simulated_network(load_scenario(link).cluster.network, wanted) as network:
            for _ in range(runs):
                for kind, name in (("plain", "none"), ("packed", "aqsgd-4-8")):
                    report = network.run(replace(trial, compression=name))
                    seconds.setdefault((link, kind), []).extend(report.step_seconds)
            mode = network.mode if link == "slow_links" else mode
    # Slow links bind one kind and the processor the other, which other work on the machine can only slow down: the
    # least disturbed steps tell. Without slow links the processor binds both, and disturbances fall on both alike.
    slow_plain, slow_packed = (min(seconds["slow_links", kind]) for kind in ("plain", "packed"))
    fast_plain, fast_packed = (float(np.median(seconds["fast_link", kind])) for kind in ("plain", "packed"))
    say(f"slow_links: {slow_plain:.3f} s a step without, {slow_packed:.3f} s with compression")
    say(f"fast_link: {fast_plain:.3f} s a step without, {fast_packed:.3f} s with compression")
    return {
        "slow_link_speedup": slow_plain / slow_packed,
        "fast_link_slowdown": fast_packed / fast_plain - 1,
        "slow_link_mode": mode,
    }
