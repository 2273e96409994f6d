"""`assay bench group`: placement, compression and throughput of group training, measured.

Placement figures are modelled communication seconds (data parallel plus pipeline) on the networks of the decentralised
foundation-model study; `search_seconds` is wall-clock time on one core. `aqsgd` are final losses (mean over the last of
20 epochs, and over seeds: one run's differs by 0.01 from another's by chance alone) of a 4-layer character GPT, 64
wide, on 256 samples, cut into 4 stages. `wire_ratio` counts bytes of whole messages on repeated visits.
`slow_link_speedup` is throughput of the same pipeline with 4/8 bits over without, at 100 Mbit/s and 50 ms;
`fast_link_slowdown` how much longer a step takes where the link costs nothing.
`execution` is that of `group_execution`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.bench.group_execution import execution_figures, native_figures
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
SEEDS = 3


@dataclass(frozen=True)
class GroupBenchSettings:
    """`text`: a file to train on instead of made text. `pairs`: interleaved slow-link measurements of each kind.
    `device`: of native execution, "cpu" or "cuda"."""

    text: Path | None = None
    mode: str = "auto"
    pairs: int = 3
    seed: int = 0
    bound_visits: int = 200_000_000
    device: str = "cpu"


def run_group_bench(settings: GroupBenchSettings, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """All figures; `say` receives a line when a part is done. On a GPU, only what runs there: native execution."""
    if settings.device != "cpu":
        return {"execution": {"native": native_figures(say, settings.device)}}
    losses, count = compression_losses(settings, say)
    return {
        "placement": placement_figures(settings, say),
        "aqsgd": losses,
        "wire_ratio": wire_figures(count),
        **throughput_figures(settings, say),
        "execution": execution_figures(say),
    }


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
    """Final losses of all settings, each the mean over `SEEDS` runs, and the bytes counted at 4/8 bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        losses: dict[str, float] = {}
        counted = BoundaryBytes()
        steps = SAMPLES // BATCH
        for key, name in SETTINGS.items():
            final = []
            for seed in range(settings.seed, settings.seed + SEEDS):
                workload = character_workload(replace(settings, seed=seed))
                trace, count = train_emulated(workload, parse_compression(name), BOUNDARIES, epochs * steps, steps)
                final.append(float(np.mean(trace[-steps:])))
                if key == "aq_4_8":
                    counted = count
            losses[key] = float(np.mean(final))
            say(f"{key}: final loss {losses[key]:.4f} ({losses[key] - losses['fp32']:+.4f})")
        return losses, counted
    finally:
        torch.set_num_threads(threads)


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
    """Two stages, one member each: the same steps with and without compression, interleaved, on two links."""
    # A long step, so that the link's delay (paid twice a step, compressed or not) is small beside its transfers.
    slow = Trial(split=(2, 2), microbatches=16, batch=1024, samples=1024, steps=6, text=str(settings.text or ""))
    trials = {"slow_link": slow, "fast_link": replace(slow, batch=256, samples=256, microbatches=8, steps=16)}
    seconds: dict[tuple[str, str], list[float]] = {}
    mode = ""
    for link in ("slow_link", "fast_link"):
        wanted = settings.mode if link == "slow_link" else "loopback"
        with simulated_network(load_scenario(link).cluster.network, wanted) as network:
            for _ in range(settings.pairs):
                for kind, name in (("plain", "none"), ("packed", "aqsgd-4-8")):
                    report = network.run(replace(trials[link], compression=name))
                    seconds.setdefault((link, kind), []).extend(report.step_seconds)
            mode = network.mode if link == "slow_link" else mode
        plain, packed = min(seconds[link, "plain"]), min(seconds[link, "packed"])
        say(f"{link}: {plain:.3f} s a step without, {packed:.3f} s with compression")
    return {
        # The least disturbed step of each kind: other work on the machine only ever adds time.
        "slow_link_speedup": min(seconds["slow_link", "plain"]) / min(seconds["slow_link", "packed"]),
        "fast_link_slowdown": min(seconds["fast_link", "packed"]) / min(seconds["fast_link", "plain"]) - 1,
        "slow_link_mode": mode,
    }
