"""Whether thresholds separate: distances of honest native runs and of forged proofs, in thresholds, at small scale.

A distance of at most 1 passes. What is measured goes the way a verifier goes: profile, canonical replay, distance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from assay.arithmetic.permutation import permutation_key, permute
from assay.attacks.material import Material, State, other_weights, prepare, train
from assay.attacks.proofs import ATTACKS, Attack, Forgery, attacks_on
from assay.bench.models import Gpt, language_loss
from assay.commitments.execution import state_root
from assay.economics.formulas import missed
from assay.errors import MissingDependencyError
from assay.program.graph import Graph
from assay.program.operator import Array
from assay.program.optimizer import SGD, AdamW, Optimizer
from assay.program.sections import Precision, build_program
from assay.program.trace import trace
from assay.training.profile import Profile, profile
from assay.training.replay import DISTANCE_LIMIT, Replayer
from assay.training.task import Mode, TrainingTask

MODELS = ("mlp", "cnn", "gpt")
SAMPLES, BATCH = 64, 16
PROFILED_SEGMENTS = 2
THREAD_COUNTS = (1, 2)
DRAW_SEED = 3

Say = Callable[[str], None]


@dataclass(frozen=True)
class SeparationSettings:
    """Size of the study. `honest` is the number of honest runs a model and precision, of `segments` segments each."""

    models: Sequence[str] = MODELS
    precisions: Sequence[Precision] = (Precision.FP32, Precision.BF16)
    segments: int = 8
    interval: int = 5
    drawn: int = 2
    draws: int = 4000  # draws of `drawn` segments, for the measured probability of detection
    honest: int = 2


@dataclass(frozen=True, eq=False)
class Subject:
    """A traced model with data, of which tasks are made."""

    name: str
    graph: Graph
    initial: State
    data: State
    optimizer: Optimizer

    def task(self, precision: Precision, segments: int, interval: int, seed: int = 11) -> TrainingTask:
        """A tolerant task that trains this model."""
        program = build_program(self.graph, precision)
        return TrainingTask(
            program, self.initial, self.data, seed, segments * interval, interval, Mode.TOLERANT, precision
        )


@dataclass(frozen=True)
class Finding:
    """What an attack came to."""

    attack: str
    distances: tuple[float, ...]  # one a segment, in thresholds; NaN fails
    cheated: frozenset[int]
    initial_refused: bool  # checkpoint 0 is not the task's initial state
    computed: float  # probability that a draw holds a cheated segment
    measured: float  # part of the draws made that held a segment which fails

    @property
    def failing(self) -> frozenset[int]:
        return frozenset(s for s, distance in enumerate(self.distances) if not distance <= DISTANCE_LIMIT)

    @property
    def separated(self) -> bool:
        """Whether every cheated segment fails."""
        return self.cheated <= self.failing

    @property
    def least(self) -> float:
        """The smallest distance over the cheated segments; infinite where all are NaN."""
        return min((self.distances[s] for s in self.cheated if not np.isnan(self.distances[s])), default=float("inf"))


def subject(name: str) -> Subject:
    """`mlp`, `cnn` or `gpt`, small enough to train in milliseconds, with seeded weights and learnable data."""
    torch.manual_seed(1)
    optimizer: Optimizer = AdamW(0.01)
    loss: Any = "cross_entropy"
    if name == "mlp":
        module: nn.Module = nn.Sequential(
            nn.Linear(8, 24), nn.GELU(approximate="tanh"), nn.LayerNorm(24), nn.Linear(24, 4)
        )
        inputs = torch.randn(SAMPLES, 8)
        labels = (inputs @ torch.randn(8, 4)).argmax(1)
    elif name == "cnn":
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 4)
        )
        inputs = torch.randn(SAMPLES, 1, 8, 8)
        labels = (inputs.flatten(1) @ torch.randn(64, 4)).argmax(1)
        optimizer = SGD(0.05, momentum=0.9, weight_decay=1e-4)
    elif name == "gpt":
        module = Gpt(vocabulary=16, width=16, heads=2, layers=1, time=8)
        text = torch.tensor([(i * i + 3 * (i // 7)) % 16 for i in range(SAMPLES + 9)])
        inputs = torch.stack([text[i : i + 8] for i in range(SAMPLES)])
        labels = torch.stack([text[i + 1 : i + 9] for i in range(SAMPLES)])
        optimizer, loss = AdamW(0.003), language_loss
    else:
        raise KeyError(f"no model {name!r}: choose {', '.join(MODELS)}")
    traced = trace(module, loss, optimizer, [inputs[:BATCH], labels[:BATCH]], SAMPLES)
    arrays = [p.numpy() if p.is_floating_point() else p.numpy().astype(np.int32) for p in (inputs, labels)]
    return Subject(name, traced.graph, traced.initial_state, tuple(arrays), optimizer)


# --- distances -------------------------------------------------------------------------------------------------------


def distances(replayer: Replayer, states: Sequence[Sequence[Array]], thresholds: Array) -> tuple[float, ...]:
    """Distance of every segment of a proof; checkpoint 0 is the task's initial state, whatever was posted."""
    starts = [replayer.task.state, *states[1:]]
    found = []
    for segment in range(replayer.task.segments):
        replay = replayer.replay(segment, starts[segment], DRAW_SEED, starts[segment + 1], thresholds)
        found.append(float("nan") if replay.distance is None else replay.distance)
    return tuple(found)


@cache
def draws_of(draws: int, segments: int, drawn: int) -> tuple[frozenset[int], ...]:
    """Segments that the draw seeds 0 .. draws - 1 choose: the first of a keyed permutation, as in the market."""
    keys = [permutation_key(seed, 0) for seed in range(draws)]
    return tuple(frozenset(permute(key, place, segments) for place in range(drawn)) for key in keys)


def find(
    attack: Attack, forgery: Forgery, replayer: Replayer, thresholds: Array, settings: SeparationSettings
) -> Finding:
    """Measure a forgery as verifiers would."""
    task = replayer.task
    refused = state_root(forgery.states[0]) != task.initial_root
    measured = distances(replayer, forgery.states, thresholds)
    drawn = min(settings.drawn, task.segments)
    computed = 1.0 - missed(len(forgery.cheated), task.segments, drawn)
    finding = Finding(attack.name, measured, forgery.cheated, refused, computed, 0.0)
    chosen = draws_of(settings.draws, task.segments, drawn)
    hits = sum(not finding.failing.isdisjoint(segments) for segments in chosen)
    return replace(finding, measured=hits / settings.draws)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """PyTorch on a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def honest_distances(model: Subject, precision: Precision, settings: SeparationSettings) -> tuple[float, ...]:
    """Distances of honest native runs, each a task of its own: another seed, other weights, another thread count.

    Every task is judged by its own profile, as in the market.
    """
    found: list[float] = []
    for number in range(settings.honest):
        task = model.task(precision, settings.segments, settings.interval)
        task = replace(task, seed=1000 + number, state=other_weights(task.state, 1000 + number))
        thresholds = profile(task, DRAW_SEED, PROFILED_SEGMENTS).thresholds
        with threads(THREAD_COUNTS[number % len(THREAD_COUNTS)]):
            states = [task.state, *train(task, model.graph, task.state)]
        found += distances(Replayer(task), states, thresholds)
    return tuple(found)


@dataclass(frozen=True, eq=False)
class Study:
    """Both distributions of one model at one declared precision."""

    model: str
    precision: Precision
    profile: Profile
    honest: tuple[float, ...]
    findings: tuple[Finding, ...]

    @property
    def false_accusations(self) -> int:
        return sum(not distance <= DISTANCE_LIMIT for distance in self.honest)

    @property
    def proposed_mode(self) -> Mode:
        """What profiling proposes."""
        return Mode.TOLERANT if self.profile.separates else Mode.EXACT


def examine(model: Subject, precision: Precision, settings: SeparationSettings, say: Say = lambda _: None) -> Study:
    """Profile a task, forge its proof in every known way, and train it honestly."""
    task = model.task(precision, settings.segments, settings.interval)
    profiled = profile(task, DRAW_SEED, PROFILED_SEGMENTS)
    material: Material = prepare(task, model.graph, model.optimizer)
    replayer = Replayer(task)
    honest = distances(replayer, material.honest, profiled.thresholds)
    findings = []
    for attack in attacks_on(precision):
        findings.append(find(attack, attack.forge(material), replayer, profiled.thresholds, settings))
    honest += honest_distances(model, precision, settings)
    study = Study(model.name, precision, profiled, honest, tuple(findings))
    say(describe(study))
    return study


# --- output ----------------------------------------------------------------------------------------------------------


def describe(study: Study) -> str:
    """The study as a table for people."""
    finite = [distance for distance in study.honest if np.isfinite(distance)]
    separation = min(study.profile.separations)
    lines = [
        f"{study.model}, {study.precision.value}: a skipped step lies {separation:.3g} thresholds away; "
        f"profiling proposes {study.proposed_mode.value} mode",
        f"  {'honest':40s} median {np.median(finite):9.3g}  largest  {max(study.honest):9.3g}  "
        f"over {study.false_accusations} of {len(study.honest)} segments",
    ]
    for finding in study.findings:
        over = f"{len(finding.failing & finding.cheated)}/{len(finding.cheated)}"
        notes = ", initial root refused" if finding.initial_refused else ""
        notes += "" if finding.separated else ", NOT SEPARATED"
        lines.append(
            f"  {finding.attack:40s} least  {finding.least:9.3g}  over {over:>5s} cheated  "
            f"found {finding.measured:.3f} computed {finding.computed:.3f}{notes}"
        )
    return "\n".join(lines)


def as_json(study: Study) -> dict[str, Any]:
    """The study as plain data; NaN and infinite distances are null."""

    def plain(value: float) -> float | None:
        return float(f"{value:.6g}") if np.isfinite(value) else None

    return {
        "model": study.model,
        "precision": study.precision.value,
        "separation": [plain(value) for value in study.profile.separations],
        "proposed_mode": study.proposed_mode.value,
        "honest": {
            "segments": len(study.honest),
            "over": study.false_accusations,
            "largest": plain(max(study.honest)),
            "quantiles": {str(q): plain(float(np.quantile(study.honest, q))) for q in (0.5, 0.9, 0.99, 0.999)},
        },
        "attacks": [
            {
                "name": finding.attack,
                "distances": [plain(value) for value in finding.distances],
                "cheated": sorted(finding.cheated),
                "cheated_fraction": len(finding.cheated) / len(finding.distances),
                "least_cheated": plain(finding.least),
                "separated": finding.separated,
                "initial_refused": finding.initial_refused,
                "detection_computed": round(finding.computed, 6),
                "detection_measured": round(finding.measured, 6),
            }
            for finding in study.findings
        ],
    }


def plot(studies: Sequence[Study], path: Path) -> None:
    """Both distributions as a PNG: distances of honest segments, and of each attack's cheated ones."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "plots need matplotlib, which is not installed: pip install 'assay[plots]', or leave --plot out"
        ) from error
    figure = Figure(figsize=(7 * len(studies), 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(studies), squeeze=False, sharey=True)[0]
    names = [attack.name for attack in ATTACKS]
    for panel, study in zip(panels, studies, strict=True):
        # A distance of 0 (equal bits) and an infinite one have no place on a logarithmic axis: shown at its ends.
        rows = [("honest", study.honest, "tab:green")]
        rows += [(f.attack, tuple(f.distances[s] for s in sorted(f.cheated)), "tab:red") for f in study.findings]
        for name, values, colour in rows:
            height = len(names) if name == "honest" else len(names) - 1 - names.index(name)
            shown = np.clip(np.nan_to_num(np.array(values), nan=1e12, posinf=1e12), 1e-4, 1e12)
            panel.scatter(shown, np.full(len(shown), height), s=12, alpha=0.5, color=colour)
        panel.axvline(DISTANCE_LIMIT, color="black", linewidth=1)
        panel.set_xscale("log")
        panel.set_yticks(range(len(names) + 1), [*reversed(names), "honest"])
        panel.set_title(f"{study.model}, {study.precision.value} ({study.proposed_mode.value} mode proposed)")
        panel.set_xlabel("distance in thresholds")
    figure.savefig(path, dpi=120)


def run_separation_bench(
    settings: SeparationSettings, say: Say = lambda _: None, plot_path: Path | None = None
) -> dict[str, Any]:
    """All studies asked for, as `assay bench separation --json` prints them."""
    studies = []
    for name in settings.models:
        model = subject(name)
        studies += [examine(model, precision, settings, say) for precision in settings.precisions]
    if plot_path is not None:
        plot(studies, plot_path)
    return {
        "segments": settings.segments,
        "interval": settings.interval,
        "drawn": settings.drawn,
        "studies": [as_json(study) for study in studies],
    }
