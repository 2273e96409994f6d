"""Figures of conditions and simulations (PNG). Needs matplotlib, the extra `plots`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from assay.economics import formulas
from assay.economics.conditions import Situation, amounts, limits
from assay.economics.prices import Prices
from assay.economics.report import earnings
from assay.economics.simulation import Outcome
from assay.errors import MissingDependencyError
from assay.market.parameters import Parameters


def _figure(columns: int) -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "plots need matplotlib, which is not installed: pip install 'assay[plots]', or leave --plot out"
        ) from error
    figure = Figure(figsize=(6 * columns, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def plot_simulation(outcome: Outcome, path: Path) -> None:
    """Profit of an act by role and behaviour; whistleblowers, watched claims and the pool over time."""
    figure, (left, middle, right) = _figure(3)
    rows = [row for row in earnings(outcome) if row["profit_act"] is not None]
    names = [f"{row['role']}: {row['behaviour']}" for row in rows]
    colours = ["tab:green" if row["behaviour"] == "honest" else "tab:red" for row in rows]
    left.barh(names, [row["profit_act"] for row in rows], color=colours)
    left.axvline(0, color="black", linewidth=0.8)
    left.set_xlabel("profit of an act, coin")
    tasks = [moment.task for moment in outcome.moments]
    middle.plot(tasks, [moment.active for moment in outcome.moments])
    middle.set_xlabel("tasks")
    middle.set_ylabel("active whistleblowers")
    other = middle.twinx()
    other.plot(tasks, [moment.watched for moment in outcome.moments], color="tab:orange", alpha=0.7)
    other.set_ylabel("claims an honest whistleblower joined")
    other.set_ylim(0, 1)
    right.plot(tasks, [moment.pool for moment in outcome.moments])
    right.set_xlabel("tasks")
    right.set_ylabel("jackpot pool, coin")
    figure.savefig(path, dpi=120)


def plot_conditions(parameters: Parameters, situation: Situation, prices: Prices, margin: float, path: Path) -> None:
    """Detection against the faked fraction; watched claims against whistleblowers; the largest ring by reward."""
    figure, (left, middle, right) = _figure(3)
    fractions = np.linspace(0.005, 1, 200)
    for drawn in (1, 2, 4, 8, 16):
        if drawn <= situation.segments:
            left.plot(
                fractions, [formulas.detection(f, situation.segments, drawn) for f in fractions], label=str(drawn)
            )
    left.plot(fractions, fractions, color="black", linewidth=0.8, linestyle=":")
    left.set_xlabel(f"fraction faked of {situation.segments} segments")
    left.set_ylabel("chance that a drawn segment is wrong")
    left.legend(title="drawn")
    a = amounts(parameters, situation, prices)
    numbers = list(range(31))
    for part, label in ((1.0, "no sybils"), (0.5, "every verifier has one")):
        middle.plot(
            numbers,
            [formulas.watched(a.income * part, a.answer_cost, w, situation.honest) for w in numbers],
            label=label,
        )
    middle.set_xlabel("whistleblowers")
    middle.set_ylabel("claims an honest one joins")
    middle.legend()
    rewards = np.geomspace(0.05, 100, 40)
    for verifiers in (1, 2, 3):
        found = [limits(parameters, replace(situation, reward=r, verifiers=verifiers), prices, margin) for r in rewards]
        right.plot(rewards, [limit.largest_ring for limit in found], label=f"{verifiers} verifiers")
    right.set_xscale("log")
    right.set_xlabel("highest reward, coin")
    right.set_ylabel(f"largest coalition (share of seats), margin {margin:g}")
    right.legend()
    figure.savefig(path, dpi=120)
