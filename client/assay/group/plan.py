"""A group's plan: who holds which layers, who sends to whom, what a step should take; a new one when members change."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from assay.group.cost import (
    StepTime,
    TrainingCosts,
    cost_tables,
    layer_split,
    pair_members,
    step_time,
    unplanned_time,
)
from assay.group.errors import ClusterError, PlacementError
from assay.group.network import Cluster
from assay.group.search import Placement, SearchSettings, find_placement, heuristic_placement

RANDOM_BASELINES = 200


@dataclass(frozen=True)
class GroupPlan:
    """Stages in order. `pipelines[r][s]` is the member of replica r in stage s; `layers[s]` what stage s holds."""

    pipelines: tuple[tuple[str, ...], ...]
    layers: tuple[int, ...]
    spares: tuple[str, ...]
    compression: str
    microbatches: int
    time: StepTime
    random_seconds: float
    naive_seconds: float
    exact: bool

    @property
    def stages(self) -> int:
        """How many stages the model is cut into."""
        return len(self.layers)

    @property
    def replicas(self) -> int:
        """How many pipelines train side by side."""
        return len(self.pipelines)

    @property
    def members(self) -> tuple[str, ...]:
        """All working members, pipeline by pipeline: the order of ranks."""
        return tuple(name for pipeline in self.pipelines for name in pipeline)

    def stage_members(self, stage: int) -> tuple[str, ...]:
        """The members that hold the same layers, in the order of their replicas."""
        return tuple(pipeline[stage] for pipeline in self.pipelines)


def make_plan(
    cluster: Cluster, costs: TrainingCosts, compression: str = "none", settings: SearchSettings | None = None
) -> GroupPlan:
    """Search for a placement and describe it beside naive (as listed) and random placements."""
    placement = find_placement(cluster, costs, settings)
    return describe(cluster, costs, placement, compression)


def choose_plan(
    cluster: Cluster, candidates: Sequence[tuple[TrainingCosts, str]], settings: SearchSettings | None = None
) -> tuple[GroupPlan, TrainingCosts]:
    """The fastest plan of several shapes; shapes that do not fit are passed over, unless none does."""
    best: tuple[GroupPlan, TrainingCosts] | None = None
    problem: PlacementError | None = None
    for costs, compression in candidates:
        try:
            plan = make_plan(cluster, costs, compression, settings)
        except PlacementError as error:
            problem = error
            continue
        if best is None or plan.time.total < best[0].time.total:
            best = (plan, costs)
    if best is None:
        raise problem or PlacementError("no shape was given to plan for; name stages and replicas")
    return best


def describe(cluster: Cluster, costs: TrainingCosts, placement: Placement, compression: str) -> GroupPlan:
    """Turn device numbers into a plan of names with its baselines."""
    tables = cost_tables(cluster, costs)
    order = np.array(placement.order, dtype=np.int64)
    names = [device.name for device in cluster.devices]
    pipelines = pair_members(order, tables, costs)
    used = costs.stages * costs.replicas
    random = np.random.default_rng(0)
    trials = [unplanned_time(random.permutation(len(names)), tables, costs).total for _ in range(RANDOM_BASELINES)]
    finite = [seconds for seconds in trials if np.isfinite(seconds)]
    return GroupPlan(
        pipelines=tuple(tuple(names[i] for i in row) for row in pipelines),
        layers=layer_split(order, tables, costs),
        spares=tuple(names[i] for i in order[used:]),
        compression=compression,
        microbatches=costs.microbatches,
        time=placement.time,
        random_seconds=float(np.mean(finite)) if finite else float("inf"),
        naive_seconds=unplanned_time(np.arange(len(names)), tables, costs).total,
        exact=placement.exact,
    )


@dataclass(frozen=True)
class Replan:
    """A plan after members changed. `moved`: members that hold other layers than before and must fetch them."""

    plan: GroupPlan
    costs: TrainingCosts
    moved: tuple[str, ...]
    migration_seconds: float


def replan(
    cluster: Cluster,
    costs: TrainingCosts,
    plan: GroupPlan,
    absent: Sequence[str],
    remaining_steps: int,
    settings: SearchSettings | None = None,
) -> Replan:
    """A new plan when members left, and perhaps others (in `cluster`, not in the plan) joined.

    Weighs two answers by the seconds of all remaining steps plus the time to move layers: put the best spares into
    the gaps and leave everybody else in place, or search anew. Where devices no longer suffice, replicas are given up
    first, then stages. Raises PlacementError where nothing fits.
    """
    present = [i for i, device in enumerate(cluster.devices) if device.name not in set(absent)]
    rest = cluster.subset(present)
    position = {device.name: i for i, device in enumerate(rest.devices)}
    while costs.stages * costs.replicas > rest.network.size:
        if costs.replicas > 1:
            # A smaller group works through the same batch: every remaining replica takes a larger share.
            share = costs.replicas / (costs.replicas - 1)
            costs = replace(
                costs,
                replicas=costs.replicas - 1,
                activation_bytes=costs.activation_bytes * share,
                layer_flops=costs.layer_flops * share,
            )
        elif costs.stages > 1:
            shrink = costs.stages / (costs.stages - 1)
            costs = replace(
                costs,
                stages=costs.stages - 1,
                parameter_bytes=costs.parameter_bytes * shrink,
                layers=costs.layer_count,
            )
        else:
            raise PlacementError("no member is left; the task cannot go on")
    candidates: list[Placement] = []
    patched = _patched_order(plan, costs, position, rest)
    tables = cost_tables(rest, costs)
    if patched is not None:
        time = step_time(patched, tables, costs)
        if np.isfinite(time.total):
            candidates.append(Placement(tuple(int(i) for i in patched), time, exact=False))
    starts = () if patched is None else (patched,)
    chosen = settings or SearchSettings(random_starts=1, iterations=50_000)
    try:
        if rest.network.size <= 8:
            candidates.append(find_placement(rest, costs, chosen))
        else:
            candidates.append(heuristic_placement(rest, costs, chosen, starts))
    except PlacementError:
        if not candidates:
            raise
    results = []
    for candidate in candidates:
        new = describe(rest, costs, candidate, plan.compression)
        moved = _moved_members(plan, new)
        seconds = _migration_seconds(rest, costs, new, moved)
        results.append(Replan(new, costs, moved, seconds))
    return min(results, key=lambda result: result.migration_seconds + remaining_steps * result.plan.time.total)


def _patched_order(
    plan: GroupPlan, costs: TrainingCosts, position: dict[str, int], cluster: Cluster
) -> np.ndarray[tuple[int], np.dtype[np.int64]] | None:
    """The old placement with each gap filled by the spare that makes the step fastest; None for another shape."""
    if costs.stages != plan.stages:
        return None
    rows = [[position[name] for name in plan.stage_members(s) if name in position] for s in range(plan.stages)]
    # Where replicas were given up, the pipelines that lost a member are the ones to end.
    extra = [i for row in rows for i in row[costs.replicas :]]
    rows = [row[: costs.replicas] for row in rows]
    used = {i for row in rows for i in row}
    spares = [i for i in range(cluster.network.size) if i not in used]
    spares = [i for i in spares if i not in extra] + extra
    tables = cost_tables(cluster, costs)
    for s, row in enumerate(rows):
        while len(row) < costs.replicas:
            if not spares:
                return None
            best = min(spares, key=lambda i: _fill_cost(rows, s, i, tables.round_trip, tables.exchange(1.0)))
            row.append(best)
            spares.remove(best)
    return np.array([i for row in rows for i in row] + spares, dtype=np.int64)


def _fill_cost(rows: list[list[int]], stage: int, device: int, link: Any, exchange: Any) -> float:
    """Seconds that putting `device` into `stage` would cost against those already placed around it."""
    seconds = float(exchange[device, rows[stage]].sum())
    for neighbour in (stage - 1, stage + 1):
        if 0 <= neighbour < len(rows) and rows[neighbour]:
            seconds += float(link[device, rows[neighbour]].min())
    return seconds


def _held_layers(plan: GroupPlan) -> dict[str, set[int]]:
    first = np.concatenate([[0], np.cumsum(plan.layers)])
    return {
        name: set(range(int(first[s]), int(first[s + 1]))) for s in range(plan.stages) for name in plan.stage_members(s)
    }


def _moved_members(old: GroupPlan, new: GroupPlan) -> tuple[str, ...]:
    before, after = _held_layers(old), _held_layers(new)
    return tuple(sorted(name for name, layers in after.items() if not layers <= before.get(name, set())))


def _migration_seconds(cluster: Cluster, costs: TrainingCosts, plan: GroupPlan, moved: Sequence[str]) -> float:
    """The slowest fetch: a stage's parameters and two optimizer moments over the member's best link."""
    if not moved:
        return 0.0
    index = {device.name: i for i, device in enumerate(cluster.devices)}
    layer_bytes = costs.parameter_bytes * costs.stages / costs.layer_count
    slowest = 0.0
    for stage in range(plan.stages):
        for name in set(plan.stage_members(stage)) & set(moved):
            row = cluster.network.bandwidth[index[name]].copy()
            row[index[name]] = 0.0
            if row.max() > 0:
                slowest = max(slowest, 3 * layer_bytes * plan.layers[stage] / float(row.max()))
    return slowest


def write_plan(plan: GroupPlan, path: Path) -> None:
    """Write `plan.toml`, which every member passes to `assay solver run --group`."""
    try:
        path.write_text(render_plan(plan), encoding="utf-8")
    except OSError as error:
        raise ClusterError(f"cannot write the plan to {path}: {error.strerror}; name another place") from error


def render_plan(plan: GroupPlan) -> str:
    """The plan as TOML."""
    lines = [
        "[plan]",
        f"compression = {json.dumps(plan.compression)}",
        f"microbatches = {plan.microbatches}",
        f"layers = {list(plan.layers)}",
        f"spares = {json.dumps(list(plan.spares))}",
        f"exact = {str(plan.exact).lower()}",
        "",
        "[predicted]",
        *(f"{key} = {getattr(plan.time, key)!r}" for key in ("data_parallel", "pipeline", "compute", "stalls")),
        f"random_seconds = {plan.random_seconds!r}",
        f"naive_seconds = {plan.naive_seconds!r}",
    ]
    for pipeline in plan.pipelines:
        lines += ["", "[[pipeline]]", f"members = {json.dumps(list(pipeline))}"]
    return "\n".join(lines) + "\n"


def read_plan(path: Path) -> GroupPlan:
    """Read what `write_plan` wrote; raises ClusterError where it is not a plan."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        head, predicted = document["plan"], document["predicted"]
        plan = GroupPlan(
            pipelines=tuple(tuple(str(name) for name in entry["members"]) for entry in document["pipeline"]),
            layers=tuple(int(count) for count in head["layers"]),
            spares=tuple(str(name) for name in head["spares"]),
            compression=str(head["compression"]),
            microbatches=int(head["microbatches"]),
            time=StepTime(*(float(predicted[key]) for key in ("data_parallel", "pipeline", "compute", "stalls"))),
            random_seconds=float(predicted["random_seconds"]),
            naive_seconds=float(predicted["naive_seconds"]),
            exact=bool(head["exact"]),
        )
    except OSError as error:
        raise ClusterError(f"cannot read {path}: {error.strerror}; make a plan with `assay group plan`") from error
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ClusterError(f"{path} is not a plan ({error}); make one with `assay group plan`") from error
    if any(len(pipeline) != len(plan.layers) for pipeline in plan.pipelines) or not plan.pipelines:
        raise ClusterError(f"{path}: every pipeline needs {len(plan.layers)} members, one for each stage")
    if len(set(plan.members)) != len(plan.members):
        raise ClusterError(f"{path}: a member appears twice; a device holds one stage of one pipeline")
    return plan
