"""How good a placement could be at most: lower bounds on modelled communication time.

`simple_bound` holds for every network. `proven_bound` uses that members of one class (region) are interchangeable: a
stage is then its *composition*, the number of members of each class. Stages form runs of equal composition. A boundary
inside a run costs at least the cheapest link, a boundary between runs at least the cheapest link between classes, since
some pair must cross. The more runs, the dearer the pipeline and the cheaper the exchange inside a stage must be to beat
what is known, so few compositions are left; they are enumerated run by run. A completed enumeration proves the bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from assay.group import kernels
from assay.group.cost import CostTables, TrainingCosts, cost_tables, is_uniform
from assay.group.network import Cluster, FloatArray, IntArray, interchangeable_classes

MAX_COMPOSITIONS = 20_000


@dataclass(frozen=True)
class LowerBound:
    """No placement communicates faster than `seconds`. `method`: "simple", or "enumeration" (proven by exhausting)."""

    seconds: float
    method: str
    visited: int = 0


def simple_bound(tables: CostTables, costs: TrainingCosts) -> float:
    """Nearest peers for every member, the cheapest link at every boundary.

    With no spares every device is in some stage, so the device whose nearest D - 1 peers are farthest counts; with
    spares, the best-connected ones might be the only ones used.
    """
    near = np.sort(tables.exchange(costs.layer_count / costs.stages), axis=1)[:, : costs.replicas].sum(axis=1)
    used = costs.stages * costs.replicas
    exchange = float(np.sort(near)[used - 1])
    links = tables.round_trip.copy()
    np.fill_diagonal(links, np.inf)
    pipeline = (costs.stages - 1) * float(links.min()) if costs.stages > 1 else 0.0
    return exchange + pipeline


def proven_bound(
    cluster: Cluster, costs: TrainingCosts, known_seconds: float, max_visited: int = 200_000_000
) -> LowerBound:
    """Try to prove that nothing beats `known_seconds`; otherwise return the best bound at hand.

    Applies to the published model (equal devices, one micro-batch, no spares, few classes); for anything else, or when
    the enumeration visits more than `max_visited` runs, it returns the simple bound. If the enumeration meets a better
    placement than `known_seconds`, its cost is the bound (it is then the optimum).
    """
    tables = cost_tables(cluster, costs)
    simple = LowerBound(min(simple_bound(tables, costs), known_seconds), "simple")
    classes = interchangeable_classes(cluster)
    counts = np.bincount(classes)
    exact_fit = cluster.network.size == costs.stages * costs.replicas
    if not is_uniform(tables, costs) or not exact_fit or _composition_count(counts, costs.replicas) > MAX_COMPOSITIONS:
        return simple
    members = [np.flatnonzero(classes == c) for c in range(len(counts))]
    compositions = _compositions(counts, costs.replicas)
    stages = [np.concatenate([members[c][:k] for c, k in enumerate(row)]) for row in compositions]
    dp_table = tables.exchange(costs.layer_count // costs.stages)
    exchange = np.array([float(dp_table[np.ix_(stage, stage)].sum(axis=1).max()) for stage in stages])
    links = tables.round_trip.copy()
    np.fill_diagonal(links, np.inf)
    cheapest = float(links.min())
    different = classes[:, None] != classes[None, :]
    step = float(links[different].min()) - cheapest if different.any() else np.inf
    tolerance = 1e-9 * known_seconds
    limit = known_seconds - tolerance - (costs.stages - 1) * cheapest
    order = np.argsort(exchange, kind="stable")
    # Two or more runs have at least one dearer boundary; single runs are looked at separately below.
    kept = order[exchange[order] + max(step, 0.0) < limit]
    best, visited = known_seconds, 0
    single = [row for row in order if np.array_equal(compositions[row] * costs.stages, counts)]
    for row in single:
        stage = _stage_members(compositions[row], members)
        partner = np.empty(costs.replicas, dtype=np.int64)
        other = _stage_members(compositions[row], members, second=True)
        boundary = kernels.bottleneck_matching(stage, other, tables.round_trip, partner) if costs.stages > 1 else 0.0
        best = min(best, float(exchange[row]) + (costs.stages - 1) * boundary)
    if len(kept):
        # Members of a class are interchangeable, so a class-to-class table is enough; inside a class two differ.
        between = np.full((len(counts), len(counts)), np.inf)
        for a, b in np.ndindex(between.shape):
            if a != b or len(members[a]) > 1:
                between[a, b] = tables.round_trip[members[a][0], members[b][0 if a != b else 1]]
        excess = _excess_table(compositions[kept], between, costs.replicas) - cheapest
        found, visited = _enumerate_runs(
            compositions[kept], exchange[kept], excess, counts, costs.stages, step, limit, max_visited,
            *_class_cuts(between, cheapest),
        )  # fmt: skip
        if visited >= max_visited:
            return LowerBound(simple.seconds, "simple", visited)
        if found < limit:
            best = min(best, found + (costs.stages - 1) * cheapest)
    return LowerBound(best, "enumeration", visited)


def _stage_members(composition: IntArray, members: list[IntArray], second: bool = False) -> IntArray:
    """Devices of a stage of that composition; `second`: others of the same classes where there are enough."""
    picked = [
        members[c][k : 2 * k] if second and len(members[c]) >= 2 * k else members[c][:k]
        for c, k in enumerate(composition)
    ]
    return np.concatenate(picked)


def _composition_count(counts: IntArray, size: int) -> int:
    ways = np.zeros(size + 1, dtype=object)
    ways[0] = 1
    for count in counts:
        new = np.zeros(size + 1, dtype=object)
        for taken in range(min(int(count), size) + 1):
            new[taken:] += ways[: size + 1 - taken]
        ways = new
    return int(ways[size])


def _compositions(counts: IntArray, size: int) -> IntArray:
    """All ways to take `size` members, at most `counts[c]` of class c: (compositions, classes)."""
    rows: list[list[int]] = [[]]
    for position, count in enumerate(counts):
        after = int(counts[position + 1 :].sum())
        rows = [
            [*row, taken]
            for row in rows
            for taken in range(min(int(count), size - sum(row)) + 1)
            if size - sum(row) - taken <= after
        ]
    return np.array(rows, dtype=np.int64)


def _class_cuts(between: FloatArray, cheapest: float) -> tuple[IntArray, FloatArray]:
    """Proper sets of classes (complements left out), and the least excess of a link leaving each; by falling excess."""
    classes = between.shape[0]
    # All sets where that is few, else single classes: any family of sets gives valid cuts.
    masks = range(1, 2 ** (classes - 1)) if classes <= 12 else [1 << c for c in range(classes)]
    sets = np.array([[mask >> c & 1 for c in range(classes)] for mask in masks], dtype=np.int64).reshape(-1, classes)
    excess = np.array([between[np.ix_(row == 1, row == 0)].min() - cheapest for row in sets])
    order = np.argsort(-excess, kind="stable")
    return sets[order], excess[order]


@njit(cache=True)
def _excess_table(compositions: IntArray, between: FloatArray, size: int) -> FloatArray:
    """Bottleneck link between stages of every two compositions: (compositions, compositions)."""
    rows = compositions.shape[0]
    expanded = np.empty((rows, size), np.int64)
    for row in range(rows):
        at = 0
        for c in range(compositions.shape[1]):
            for _ in range(compositions[row, c]):
                expanded[row, at] = c
                at += 1
    partner = np.empty(size, np.int64)
    table = np.empty((rows, rows))
    for a in range(rows):
        for b in range(a + 1):
            table[a, b] = kernels.bottleneck_matching(expanded[a], expanded[b], between, partner)
            table[b, a] = table[a, b]
    return table


@njit(cache=True)
def _enumerate_runs(
    compositions: IntArray,
    exchange: FloatArray,
    excess: FloatArray,
    counts: IntArray,
    stages: int,
    step: float,
    limit: float,
    max_visited: int,
    cuts: IntArray,
    cut_excess: FloatArray,
) -> tuple[float, int]:
    """Depth-first over (composition, length) runs; returns the best of exchange + summed excess below `limit`.

    `cuts`: sets of classes, (sets, classes) of 0 and 1, by falling `cut_excess`, the least a boundary costs across
    which the number of members from that set changes. Where the members left are not in proportion for a set, such a
    boundary is still to come. What is left after a run determines the last one, so that is looked up and not searched
    for; any other continuation has at least two more boundaries. Neighbours are tried by rising excess, so the first
    that is too dear ends the loop.
    """
    rows, classes = compositions.shape
    base = compositions[0].sum() + 1
    keys = np.zeros(rows, np.int64)
    for row in range(rows):
        for c in range(classes):
            keys[row] = keys[row] * base + compositions[row, c]
    by_key = np.argsort(keys)
    sorted_keys = keys[by_key]
    nearest = np.empty((rows, rows), np.int32)
    way_out = np.full(rows, np.inf)  # the cheapest boundary from a composition to another one
    for row in range(rows):
        nearest[row] = np.argsort(excess[row])
        for other in range(rows):
            if other != row:
                way_out[row] = min(way_out[row], excess[row, other])
    best = limit
    visited = 0
    # One stack entry per run: its composition, place in the neighbour list, length, and the sums up to it.
    chosen = np.full(stages + 1, -1, np.int64)
    place = np.full(stages + 1, -1, np.int64)
    length = np.zeros(stages + 1, np.int64)
    used = np.zeros(stages + 1, np.int64)
    summed = np.zeros(stages + 1)
    dearest = np.zeros(stages + 1)
    left = np.zeros((stages + 1, classes), np.int64)
    left[0] = counts
    depth = 1
    while depth > 0:
        remaining = stages - used[depth - 1]
        before = chosen[depth - 1]
        row = chosen[depth]
        advance = row < 0 or length[depth] + 1 >= remaining
        if not advance:
            length[depth] += 1
            for c in range(classes):
                if left[depth, c] < compositions[row, c]:
                    advance = True
        if advance:
            place[depth] += 1
            if place[depth] >= rows or remaining < 2:
                chosen[depth] = -1
                place[depth] = -1
                depth -= 1
                continue
            row = place[depth] if before < 0 else nearest[before, place[depth]]
            boundary = 0.0 if before < 0 else excess[before, row]
            if summed[depth - 1] + boundary + step + dearest[depth - 1] >= best:
                place[depth] = rows  # all further neighbours are as dear or dearer
                chosen[depth] = -1
                continue
            chosen[depth] = -1
            if row == before:
                continue
            fits = True
            for c in range(classes):
                left[depth, c] = left[depth - 1, c]
                if left[depth, c] < compositions[row, c]:
                    fits = False
            worst = max(dearest[depth - 1], exchange[row])
            if not fits or summed[depth - 1] + boundary + way_out[row] + worst >= best:
                continue
            chosen[depth] = row
            length[depth] = 1
            summed[depth] = summed[depth - 1] + boundary
            dearest[depth] = worst
        else:
            summed[depth] += excess[row, row]
        visited += 1
        if visited >= max_visited:
            return best, visited
        for c in range(classes):
            left[depth, c] -= compositions[row, c]
        coming = way_out[row]
        following = stages - used[depth - 1] - length[depth]
        for cut in range(cuts.shape[0]):
            if cut_excess[cut] <= coming:
                break
            imbalance = 0
            for c in range(classes):
                imbalance += cuts[cut, c] * (left[depth, c] - following * compositions[row, c])
            if imbalance != 0:
                coming = cut_excess[cut]
        if summed[depth] + way_out[row] + dearest[depth] >= best:
            length[depth] = remaining  # a longer run costs no less
            continue
        if summed[depth] + coming + dearest[depth] >= best:
            continue
        used[depth] = used[depth - 1] + length[depth]
        rest = stages - used[depth]
        divisible = True
        key = 0
        for c in range(classes):
            if left[depth, c] % rest != 0:
                divisible = False
                break
            key = key * base + left[depth, c] // rest
        if divisible:
            at = np.searchsorted(sorted_keys, key)
            if at < rows and sorted_keys[at] == key:
                last = by_key[at]
                if last != row:
                    total = summed[depth] + excess[row, last] + (rest - 1) * excess[last, last]
                    best = min(best, total + max(dearest[depth], exchange[last]))
        if rest >= 2 and summed[depth] + way_out[row] + step + dearest[depth] < best:
            depth += 1
            chosen[depth] = -1
            place[depth] = -1
            length[depth] = 0
    return best, visited
