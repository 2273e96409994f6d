"""Whether thresholds separate: distances of honest native runs and of forged proofs, in thresholds, at small scale.

A distance of at most 1 passes. What is measured goes the way a verifier goes: profile, canonical replay, distance.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from assay.arithmetic.permutation import permutation_key, permute
from assay.attacks.material import other_weights, prepare, train
from assay.attacks.proofs import Attack, Forgery, attacks_on
from assay.bench.hardware import CPU, hardware_of
from assay.bench.kernels import HONEST, chosen, honest_kernels
from assay.bench.separation_report import Plain, combined, describe, markdown, plot, studies_of, summary
from assay.bench.subjects import MODELS, Subject, subject
from assay.commitments.execution import state_root
from assay.economics.formulas import missed
from assay.engine.cpu.device import CpuDevice
from assay.engine.device import Device, Executable
from assay.program.operator import Array, Program, Role
from assay.program.sections import Precision
from assay.training.forgeries import tensor_distances
from assay.training.profile import Profile, profile
from assay.training.replay import DISTANCE_LIMIT, Replayer
from assay.training.suspicion import rank_segments
from assay.training.task import MOST_PROFILED, Mode, TrainingTask

PROFILED_SEGMENTS = MOST_PROFILED
DRAW_SEED = 3
FULL_SEGMENTS = {"mlp": 10_000, "cnn": 1_000, "gpt": 1_000, "wide-cnn": 1_000, "tanh": 1_000}
"""Honest segments of a model and precision in the full study."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class SeparationSettings:
    """Size of the study. `honest` is the number of honest segments a model and precision, in runs of `honest_run`,
    which are trained on `device` ("cpu" or "cuda"); all else is on the processor."""

    models: Sequence[str] = MODELS
    precisions: Sequence[Precision] = tuple(Precision)
    segments: int = 8  # of a forged proof
    interval: int = 5
    drawn: int = 2
    draws: int = 4000  # draws of `drawn` segments, for the measured probability of detection
    honest: int = 40
    honest_run: int = 20
    profiled: int = PROFILED_SEGMENTS
    first_run: int = 0  # number of the first honest run, for a study in parts
    full: bool = False
    attacks: bool = True
    device: str = "cpu"

    def honest_segments(self, model: str) -> int:
        return FULL_SEGMENTS[model] if self.full else self.honest


@dataclass(frozen=True)
class Finding:
    """What an attack came to."""

    attack: str
    distances: tuple[float, ...]  # one a segment, in thresholds; NaN fails
    cheated: frozenset[int]
    initial_refused: bool  # checkpoint 0 is not the task's initial state
    suspected: int  # the segment that looks most suspicious without a replay
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


@dataclass(frozen=True)
class HonestRun:
    """Distances of an honest run, one a segment, and whether its own profile allowed tolerant mode at all."""

    kernels: str
    accepted: bool  # by this client; the market refuses fewer
    distances: tuple[float, ...]
    worst: tuple[str, ...]  # the tensor of each segment that lies farthest off

    @property
    def over(self) -> tuple[int, ...]:
        """Segments that do not pass."""
        return tuple(s for s, distance in enumerate(self.distances) if not distance <= DISTANCE_LIMIT)


@dataclass(frozen=True, eq=False)
class Study:
    """Both distributions of one model at one declared precision."""

    model: str
    precision: Precision
    profile: Profile
    runs: tuple[HonestRun, ...]
    findings: tuple[Finding, ...]
    hardware: str = CPU  # that the honest runs were trained on

    def honest(self, accepted: bool) -> tuple[float, ...]:
        """Distances of all segments of the tasks that profiling accepted, or of those it refused."""
        return tuple(d for run in self.runs if run.accepted is accepted for d in run.distances)

    @property
    def false_accusations(self) -> int:
        """Honest segments over the threshold in tasks that profiling accepted."""
        return sum(len(run.over) for run in self.runs if run.accepted)

    @property
    def proposed_mode(self) -> Mode:
        """What profiling proposes for the task that was attacked."""
        return Mode.TOLERANT if self.profile.acceptable else Mode.EXACT


class CompiledOnce:
    """A device that compiles each section once: all honest tasks of a model have the same program."""

    def __init__(self, device: Device) -> None:
        self.device, self.name = device, device.name
        self._compiled: dict[tuple[Program, Role, frozenset[int]], Executable] = {}

    def compile(
        self,
        program: Program,
        role: Role,
        keep: Collection[int],
        observe: Callable[[int, Array], None] | None = None,
    ) -> Executable:
        if observe is not None:
            return self.device.compile(program, role, keep, observe)
        key = program, role, frozenset(keep)
        if key not in self._compiled:
            self._compiled[key] = self.device.compile(program, role, keep)
        return self._compiled[key]


# --- distances -------------------------------------------------------------------------------------------------------


def distances(
    replayer: Replayer,
    states: Sequence[Sequence[Array]],
    thresholds: Array,
    observe: Callable[[Sequence[Array], Sequence[Array], Sequence[Array]], None] = lambda start, end, posted: None,
) -> tuple[float, ...]:
    """Distance of every segment of a proof; checkpoint 0 is the task's initial state, whatever was posted.

    `observe` gets the start, the replay's end and the checkpoint of each segment.
    """
    starts = [replayer.task.state, *states[1:]]
    found = []
    for segment in range(replayer.task.segments):
        start, posted = starts[segment], starts[segment + 1]
        replay = replayer.replay(segment, start, DRAW_SEED, posted, thresholds)
        observe(start, replay.end, posted)
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
    """Measure a forgery as verifiers would, and as a whistleblower looks at it before any replay."""
    task = replayer.task
    refused = state_root(forgery.states[0]) != task.initial_root
    measured = distances(replayer, forgery.states, thresholds)
    drawn = min(settings.drawn, task.segments)
    computed = 1.0 - missed(len(forgery.cheated), task.segments, drawn)
    names = [descriptor.name for descriptor in task.program.state]
    suspected = rank_segments([task.state, *forgery.states[1:]], names)[0].segment
    finding = Finding(attack.name, measured, forgery.cheated, refused, suspected, computed, 0.0)
    chosen_segments = draws_of(settings.draws, task.segments, drawn)
    hits = sum(not finding.failing.isdisjoint(segments) for segments in chosen_segments)
    return replace(finding, measured=hits / settings.draws)


def honest_runs(model: Subject, precision: Precision, settings: SeparationSettings) -> tuple[HonestRun, ...]:
    """Honest native runs, each a task of its own: another seed, other weights, other kernels.

    Every task is judged by its own profile, as in the market.
    """
    segments = settings.honest_segments(model.name)
    base = model.task(precision, settings.honest_run, settings.interval)
    device = CompiledOnce(CpuDevice())
    numbers = range(settings.first_run, settings.first_run - (-segments // settings.honest_run))
    return tuple(honest_run(model, base, number, device, settings) for number in numbers)


def honest_run(
    model: Subject, base: TrainingTask, number: int, device: Device, settings: SeparationSettings
) -> HonestRun:
    """Honest run `number` of a model: its first segments profiled, trained on the kernels whose turn it is, and every
    segment replayed on `device`."""
    task = replace(base, seed=1000 + number, state=other_weights(base.state, 1000 + number))
    profiled = profile(task, DRAW_SEED, settings.profiled, device)
    choice = honest_kernels(settings.device)
    kernels = choice[number % len(choice)]
    with chosen(kernels, task.precision) as trained_at:
        trained = train(task, model.graph, task.state, precision=trained_at, device=kernels.device)
    states = [task.state, *trained]
    names = [descriptor.name for descriptor in task.program.state]
    worst: list[str] = []

    def note(start: Sequence[Array], end: Sequence[Array], posted: Sequence[Array]) -> None:
        worst.append(names[int(np.argmax(tensor_distances(start, end, posted, profiled.thresholds)))])

    measured = distances(Replayer(task, device), states, profiled.thresholds, note)
    return HonestRun(kernels.name, profiled.acceptable, measured, tuple(worst))


def examine(model: Subject, precision: Precision, settings: SeparationSettings, say: Say = lambda _: None) -> Study:
    """Profile a task, forge its proof in every known way, and train others honestly."""
    task = model.task(precision, settings.segments, settings.interval)
    profiled = profile(task, DRAW_SEED, settings.profiled)
    findings = []
    if settings.attacks:
        replayer = Replayer(task)
        with chosen(HONEST[0], precision):
            material = prepare(task, model.graph, model.half, model.optimizer)
            for attack in attacks_on(precision):
                findings.append(find(attack, attack.forge(material), replayer, profiled.thresholds, settings))
    runs = honest_runs(model, precision, settings)
    study = Study(model.name, precision, profiled, runs, tuple(findings), hardware_of(settings.device))
    say(describe(as_json(study)))
    return study


def as_json(study: Study) -> Plain:
    """The study as plain data; NaN and infinite distances are null."""

    def plain(value: float) -> float | None:
        return float(f"{value:.3g}") if np.isfinite(value) else None

    def honest(accepted: bool) -> Plain:
        return summary([plain(value) for value in study.honest(accepted)])

    return {
        "model": study.model,
        "precision": study.precision.value,
        "hardware": study.hardware,
        "separation": [plain(value) for value in study.profile.separations],
        "proposed_mode": study.proposed_mode.value,
        "tasks": {"all": len(study.runs), "accepted": sum(run.accepted for run in study.runs)},
        "honest": honest(True),
        "honest_in_refused_tasks": honest(False),
        "would_pass": [
            {"kind": f.kind.name.lower(), "distance": plain(f.distance), "tensor": f.tensor, "grave": f.kind.grave}
            for f in study.profile.unseen
        ],
        "over": [
            {"tensor": run.worst[segment], "distance": plain(run.distances[segment]), "accepted": run.accepted}
            for run in study.runs
            for segment in run.over
        ],
        "kernels": {
            name: max(
                (plain(d) or 0.0 for run in study.runs if run.kernels == name for d in run.distances), default=0.0
            )
            for name in dict.fromkeys(run.kernels for run in study.runs)
        },
        "attacks": [
            {
                "name": finding.attack,
                "distances": [plain(value) for value in finding.distances],
                "cheated": sorted(finding.cheated),
                "over": len(finding.failing & finding.cheated),
                "least_cheated": plain(finding.least),
                "separated": finding.separated,
                "initial_refused": finding.initial_refused,
                "suspected": finding.suspected,
                "detection_computed": round(finding.computed, 6),
                "detection_measured": round(finding.measured, 6),
            }
            for finding in study.findings
        ],
    }


def run_separation_bench(settings: SeparationSettings, say: Say = lambda _: None) -> Plain:
    """All studies asked for, as `assay bench separation --json` prints them. Raises MissingDependencyError."""
    hardware_of(settings.device)  # before anything is measured
    studies = []
    for name in settings.models:
        model = subject(name)
        studies += [as_json(examine(model, precision, settings, say)) for precision in settings.precisions]
    return {
        "segments": settings.segments,
        "interval": settings.interval,
        "drawn": settings.drawn,
        "studies": studies,
    }


def render(parts: Sequence[Plain], plot_path: Path | None, markdown_path: Path | None) -> list[Plain]:
    """Write the plot and the tables of studies made now or earlier, and return them, the parts of one study as one."""
    studies = combined([study for part in parts for study in studies_of(part)])
    if plot_path is not None:
        plot(studies, plot_path)
    if markdown_path is not None:
        markdown_path.write_text(markdown(studies))
    return studies
