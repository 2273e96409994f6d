"""Find a placement: exhaustive for up to eight devices, constructive layouts and annealing beyond.

Block-structured networks have few really different placements, and two layouts matter: stages that each lie in one
region (cheap exchange inside a stage, one dear hop between regions) and stages that all span the same regions (every
pipeline stays inside its region, the exchange spans all). Both are built, annealed, and compared with annealing from
random starts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from assay.group import kernels
from assay.group.cost import CostTables, StepTime, TrainingCosts, cost_tables, is_uniform, step_time
from assay.group.errors import PlacementError
from assay.group.network import Cluster, FloatArray, IntArray, interchangeable_classes

EXACT_DEVICES = 8


@dataclass(frozen=True)
class SearchSettings:
    """How hard to look. The result depends on these and the seed, never on the machine's speed."""

    seed: int = 0
    random_starts: int = 3
    iterations: int = 300_000


@dataclass(frozen=True)
class Placement:
    """`order`: device numbers, stage by stage; devices beyond stages * replicas are spares. `exact`: proven optimal."""

    order: tuple[int, ...]
    time: StepTime
    exact: bool


def find_placement(cluster: Cluster, costs: TrainingCosts, settings: SearchSettings | None = None) -> Placement:
    """The best placement found; exact for up to 8 devices.

    Raises PlacementError where there are too few devices or no placement fits the members' memory.
    """
    needed = costs.stages * costs.replicas
    if cluster.network.size < needed:
        raise PlacementError(
            f"{costs.stages} stages x {costs.replicas} replicas need {needed} devices, the cluster has "
            f"{cluster.network.size}; ask for fewer stages or replicas"
        )
    if cluster.network.size <= EXACT_DEVICES:
        return exact_placement(cluster, costs)
    return heuristic_placement(cluster, costs, settings or SearchSettings())


def exact_placement(cluster: Cluster, costs: TrainingCosts) -> Placement:
    """Try every ordered choice of stages (at most 8! of them) and keep the best."""
    tables = cost_tables(cluster, costs)
    best: tuple[float, IntArray, StepTime] | None = None
    for order in _ordered_stages(cluster.network.size, costs):
        time = step_time(order, tables, costs)
        if np.isfinite(time.total) and (best is None or time.total < best[0] - 1e-12):
            best = (time.total, order, time)
    if best is None:
        raise _does_not_fit(costs)
    return Placement(tuple(int(i) for i in best[1]), best[2], exact=True)


def heuristic_placement(
    cluster: Cluster, costs: TrainingCosts, settings: SearchSettings, starts: tuple[IntArray, ...] = ()
) -> Placement:
    """Anneal from both layouts, from `starts` (earlier plans) and from random placements; keep the best."""
    tables = cost_tables(cluster, costs)
    classes = interchangeable_classes(cluster)
    random = np.random.default_rng(settings.seed)
    candidates = [*starts, compact_layout(tables, costs), spanning_layout(tables, costs)]
    candidates += [random.permutation(cluster.network.size).astype(np.int64) for _ in range(settings.random_starts)]
    best: tuple[float, IntArray] | None = None
    for number, start in enumerate(candidates):
        order = _anneal(start, classes, tables, costs, settings, settings.seed + number)
        seconds = step_time(order, tables, costs).total
        if np.isfinite(seconds) and (best is None or seconds < best[0] - 1e-12):
            best = (seconds, order)
    if best is None:
        raise _does_not_fit(costs)
    return Placement(tuple(int(i) for i in best[1]), step_time(best[1], tables, costs), exact=False)


def compact_layout(tables: CostTables, costs: TrainingCosts) -> IntArray:
    """Stages of near neighbours, ordered so that each stage is followed by its nearest."""
    near = tables.exchange(costs.layer_count / costs.stages)
    stages, spares = _cluster_balanced(near, costs.stages, costs.replicas)
    partner = np.empty(costs.replicas, dtype=np.int64)
    ordered = [stages.pop(0)]
    while stages:
        seconds = [kernels.bottleneck_matching(ordered[-1], stage, tables.round_trip, partner) for stage in stages]
        ordered.append(stages.pop(int(np.argmin(seconds))))
    return np.concatenate([*ordered, spares])


def spanning_layout(tables: CostTables, costs: TrainingCosts) -> IntArray:
    """Pipelines of near neighbours: every stage takes one member of each."""
    pipelines, spares = _cluster_balanced(tables.round_trip, costs.replicas, costs.stages)
    return np.concatenate([np.stack(pipelines, axis=1).reshape(-1), spares])


def _cluster_balanced(distance: FloatArray, count: int, size: int) -> tuple[list[IntArray], IntArray]:
    """Cut devices into `count` sets of `size`: the most remote device first, with its nearest. Also the left over."""
    free = list(range(distance.shape[0]))
    sets: list[IntArray] = []
    for _ in range(count):
        remote = free[int(np.argmax([np.sort(distance[i, free])[:size].sum() for i in free]))]
        members = [remote]
        while len(members) < size:
            rest = [i for i in free if i not in members]
            members.append(rest[int(np.argmin([distance[i, members].sum() for i in rest]))])
        sets.append(np.array(members, dtype=np.int64))
        free = [i for i in free if i not in members]
    return sets, np.array(free, dtype=np.int64)


def _anneal(
    start: IntArray,
    classes: IntArray,
    tables: CostTables,
    costs: TrainingCosts,
    settings: SearchSettings,
    seed: int,
) -> IntArray:
    order = np.array(start, dtype=np.int64)
    scale = step_time(start, tables, costs).total
    if not np.isfinite(scale):
        scale = float(tables.round_trip.max()) * costs.stages
    hot, cold = max(0.03 * scale, 1e-9), max(0.0005 * scale, 1e-12)
    if is_uniform(tables, costs):
        kernels.anneal(
            start, classes, costs.stages, costs.replicas, tables.round_trip,
            tables.exchange(costs.layer_count // costs.stages), settings.iterations, hot, cold, seed, order,
        )  # fmt: skip
    else:
        kernels.anneal_unequal(
            start, classes, costs.stages, costs.replicas, tables.round_trip, tables.occupancy, tables.exchange_delay,
            tables.exchange_per_byte, tables.layer_volume, costs.layer_count, tables.speed, tables.room,
            costs.microbatches, settings.iterations // 4, hot, cold, seed, order,
        )  # fmt: skip
    return order


def _ordered_stages(devices: int, costs: TrainingCosts) -> Iterator[IntArray]:
    """Every way to fill the stages, members inside a stage in rising order; spares follow."""

    def fill(free: tuple[int, ...], left: int) -> Iterator[tuple[int, ...]]:
        if left == 0:
            yield free
            return
        for stage in itertools.combinations(free, costs.replicas):
            rest = tuple(i for i in free if i not in stage)
            for following in fill(rest, left - 1):
                yield stage + following

    for order in fill(tuple(range(devices)), costs.stages):
        yield np.array(order, dtype=np.int64)


def _does_not_fit(costs: TrainingCosts) -> PlacementError:
    return PlacementError(
        f"no placement of {costs.layer_count} layers of {costs.layer_memory_bytes:.3g} bytes in {costs.stages} stages "
        "fits the members' memory; use more stages or members with more memory"
    )
