"""The separation study as a table for people, a page, and a plot of both distributions; all from its plain data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from assay.bench.hardware import CPU
from assay.errors import MissingDependencyError

Plain = dict[str, Any]
"""A study as `assay.bench.separation.as_json` gives it. Distances that are NaN or infinite are null: both fail."""

LIMIT = 1.0
UNMEASURABLE = 1e9  # where the plot shows them; a distance of 0 (equal bits) is shown at the other end
EQUAL = 1e-4
PANELS_ACROSS = 5


def summary(distances: Sequence[float | None]) -> Plain:
    """Honest distances with their number, how many do not pass, and quantiles."""
    values = np.array([np.inf if value is None else value for value in distances], np.float64)
    quantiles = {"median": 0.5, "quantile_99": 0.99, "quantile_999": 0.999, "largest": 1.0}
    found = {
        name: float(np.quantile(values, q, method="higher")) if len(values) else 0.0 for name, q in quantiles.items()
    }
    return {
        "segments": len(values),
        "over": int(np.sum(values > LIMIT)),
        **{name: value if np.isfinite(value) else None for name, value in found.items()},
        "distances": list(distances),
    }


def studies_of(figures: Plain) -> list[Plain]:
    """The studies in the command's JSON, each with the settings that were common to them."""
    settings = {name: value for name, value in figures.items() if name != "studies"}
    return [settings | study for study in figures["studies"]]


def combined(studies: Sequence[Plain]) -> list[Plain]:
    """Studies of the same model, precision, interval and hardware as one: their honest runs together, the attacks of
    the first with any."""
    found: dict[tuple[str, str, int, str], Plain] = {}
    for study in studies:
        key = study["model"], study["precision"], study["interval"], _hardware(study)
        if key not in found:
            found[key] = dict(study)
            continue
        whole = found[key]
        for part in ("honest", "honest_in_refused_tasks"):
            whole[part] = summary([*whole[part]["distances"], *study[part]["distances"]])
        whole["tasks"] = {name: whole["tasks"][name] + study["tasks"][name] for name in whole["tasks"]}
        names = dict.fromkeys([*whole["kernels"], *study["kernels"]])
        whole["kernels"] = {n: max(whole["kernels"].get(n, 0.0), study["kernels"].get(n, 0.0)) for n in names}
        whole["attacks"] = whole["attacks"] or study["attacks"]
        whole["over"] = [*whole.get("over", ()), *study.get("over", ())]
    return list(found.values())


def describe(study: Plain) -> str:
    """The study as a table for a terminal."""
    honest, refused = study["honest"], study["honest_in_refused_tasks"]
    where = "" if _hardware(study) == CPU else f" on {_hardware(study)}"
    separation = _figure(min(study["separation"]))
    lines = [
        f"{study['model']}, {study['precision']}{where}: a skipped step lies {separation} thresholds away; "
        f"profiling proposes {study['proposed_mode']} mode",
    ]
    for words, part in (("honest", honest), ("honest, where exact mode is proposed", refused)):
        if part["segments"]:
            lines.append(
                f"  {words:40s} median {_figure(part['median']):>9s}  largest  {_figure(part['largest']):>9s}  "
                f"over {part['over']} of {part['segments']} segments"
            )
    for attack in study["attacks"]:
        over = f"{attack['over']}/{len(attack['cheated'])}"
        notes = ", initial root refused" if attack["initial_refused"] else ""
        notes += ", looks most suspicious" if attack["suspected"] in attack["cheated"] else ""
        notes += "" if attack["separated"] else ", NOT SEPARATED"
        lines.append(
            f"  {attack['name']:40s} least  {_figure(attack['least_cheated']):>9s}  over {over:>5s} cheated  "
            f"found {attack['detection_measured']:.3f} computed {attack['detection_computed']:.3f}{notes}"
        )
    return "\n".join(lines)


def markdown(studies: Sequence[Plain]) -> str:
    """The studies as three Markdown tables: honest segments, what profiling says of the task that is attacked, and the
    attacks on each model."""
    lines = [
        "| model, declared, steps a segment | separation | tasks accepted | their honest segments | median | 99.9 % "
        "| largest | over | in refused tasks: segments | largest | over |",
        "|---" * 11 + "|",
    ]
    for study in studies:
        part, refused = study["honest"], study["honest_in_refused_tasks"]
        cells = [
            _title(study),
            _figure(min(study["separation"])),
            f"{study['tasks']['accepted']} of {study['tasks']['all']}",
            str(part["segments"]),
            *(_figure(part[name]) for name in ("median", "quantile_999", "largest")),
            str(part["over"]),
            str(refused["segments"]),
            _figure(refused["largest"]),
            str(refused["over"]),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| model, declared, steps a segment | proposed | would pass |", "|---" * 3 + "|"]
    for study in studies:
        passing = [f"{f['kind']} {_figure(f['distance'])} ({f['tensor']})" for f in study.get("would_pass", ())]
        lines.append(f"| {_title(study)} | {study['proposed_mode']} | {'; '.join(passing) or '-'} |")
    columns = [_title(study) for study in studies if study["attacks"]]
    names = list(dict.fromkeys(attack["name"] for study in studies for attack in study["attacks"]))
    if not columns:
        return "\n".join(lines) + "\n"
    lines += ["", "| attack | cheated | computed | " + " | ".join(columns) + " |", "|---" * (3 + len(columns)) + "|"]
    for name in names:
        found = [{a["name"]: a for a in study["attacks"]}.get(name) for study in studies if study["attacks"]]
        first = next(attack for attack in found if attack is not None)
        cells = ["-" if a is None else _cell(a) for a in found]
        share = f"{len(first['cheated'])} of {len(first['distances'])}"
        lines.append(f"| {name} | {share} | {first['detection_computed']:.2f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _title(study: Plain) -> str:
    title = f"{study['model']}, {study['precision']}, {study['interval']}"
    return title if _hardware(study) == CPU else f"{title}, {_hardware(study)}"


def _hardware(study: Plain) -> str:
    """What the honest runs were trained on; studies of before there was a choice do not say."""
    return str(study.get("hardware", CPU))


def _cell(attack: Plain) -> str:
    """Least distance of a cheated segment, the measured chance of detection, and whether it looks suspicious."""
    mark = "*" if attack["suspected"] in attack["cheated"] else ""
    return f"{_figure(attack['least_cheated'])} / {attack['detection_measured']:.2f}{mark}"


def _figure(value: float | None) -> str:
    return (
        "inf"
        if value is None
        else f"{value:.2g}"
        if abs(value) < 100
        else f"{value:.0f}"
        if value < 1e5
        else f"{value:.0e}"
    )


def plot(studies: Sequence[Plain], path: Path) -> None:
    """Both distributions as a PNG: distances of honest segments, and of each attack's cheated ones."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "plots need matplotlib, which is not installed: pip install 'assay[plots]', or leave --plot out"
        ) from error
    names = list(dict.fromkeys(attack["name"] for study in studies for attack in study["attacks"]))
    across = min(len(studies), PANELS_ACROSS)
    down = -(-len(studies) // PANELS_ACROSS)
    figure = Figure(figsize=(2 + 3 * across, down * (1 + 0.27 * (len(names) + 2))), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).reshape(-1)
    for unused in panels[len(studies) :]:
        unused.set_visible(False)
    labels = [*reversed(names), "honest, exact mode proposed", "honest"]
    for panel, study in zip(panels, studies, strict=False):
        rows = [("honest", study["honest"]["distances"], "tab:green")]
        rows.append((labels[-2], study["honest_in_refused_tasks"]["distances"], "tab:olive"))
        rows += [(a["name"], [a["distances"][s] for s in a["cheated"]], "tab:red") for a in study["attacks"]]
        for name, values, colour in rows:
            shown = np.array([UNMEASURABLE if value is None else value for value in values], np.float64)
            shown = np.clip(shown, EQUAL, UNMEASURABLE)
            panel.scatter(shown, np.full(len(shown), labels.index(name)), s=14, alpha=0.4, color=colour, linewidths=0)
        panel.axvline(LIMIT, color="black", linewidth=1)
        panel.set_xscale("log")
        panel.set_yticks(range(len(labels)), labels)
        panel.set_title(f"{_title(study)}\n({study['proposed_mode']} mode proposed)", fontsize=9)
        panel.set_xlabel("distance in thresholds")
    figure.savefig(path, dpi=80)
