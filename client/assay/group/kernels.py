"""Compiled parts of the placement cost and search; `cost.py` and `search.py` are what to call.

A placement is an order of all devices: the first stages * replicas entries fill the stages row by row, the rest are
spares. Tables hold seconds; -1 marks nothing.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from assay.group.network import FloatArray, IntArray


@njit(cache=True)
def bottleneck_matching(first: IntArray, second: IntArray, link: FloatArray, partner: IntArray) -> float:
    """The smallest possible largest link of a perfect matching between two stages of equal size.

    Grows augmenting paths under a threshold that rises only when no path is left (the threshold method for the
    bottleneck assignment problem). `partner[i]` becomes the position in `second` matched to position i of `first`.
    """
    size = first.shape[0]
    cost = np.empty((size, size))
    threshold = 0.0
    for i in range(size):
        smallest = np.inf
        for j in range(size):
            cost[i, j] = link[first[i], second[j]]
            smallest = min(smallest, cost[i, j])
        threshold = max(threshold, smallest)
    for j in range(size):
        smallest = np.inf
        for i in range(size):
            smallest = min(smallest, cost[i, j])
        threshold = max(threshold, smallest)
    row_of = np.full(size, -1, np.int64)
    came_from = np.empty(size, np.int64)
    queue = np.empty(size, np.int64)
    for i in range(size):
        partner[i] = -1
    for root in range(size):
        seen = np.zeros(size, np.bool_)
        queue[0] = root
        head, tail, free = 0, 1, -1
        while free < 0:
            while head < tail and free < 0:
                row = queue[head]
                head += 1
                for j in range(size):
                    if not seen[j] and cost[row, j] <= threshold:
                        seen[j] = True
                        came_from[j] = row
                        if row_of[j] < 0:
                            free = j
                            break
                        queue[tail] = row_of[j]
                        tail += 1
            if free < 0:
                # Stuck: the next larger link out of the reached rows is the new threshold.
                threshold = np.inf
                for q in range(tail):
                    for j in range(size):
                        if not seen[j]:
                            threshold = min(threshold, cost[queue[q], j])
                head = 0
        column = free
        while column >= 0:
            row = came_from[column]
            before = partner[row]
            partner[row] = column
            row_of[column] = row
            column = before
    return threshold


@njit(cache=True)
def data_parallel_seconds(stage: IntArray, delay: FloatArray, per_byte: FloatArray, volume: float) -> float:
    """The slowest member's exchange: sum over its peers of `delay` + `volume` * `per_byte` (both hold the factor 2)."""
    slowest = 0.0
    for i in range(stage.shape[0]):
        total = 0.0
        for j in range(stage.shape[0]):
            if i != j:
                total += delay[stage[i], stage[j]] + volume * per_byte[stage[i], stage[j]]
        slowest = max(slowest, total)
    return slowest


@njit(cache=True)
def split_layers(speed: FloatArray, room: IntArray, layers: int, split: IntArray) -> bool:
    """Give each stage its number of layers so that the slowest stage takes as little time as possible.

    `speed`: layers a second of each stage's slowest member; `room`: the most layers its smallest member can hold.
    Every stage gets one, each further layer goes where it finishes first, which is optimal for the largest time.
    Returns False where the layers do not fit.
    """
    stages = speed.shape[0]
    for s in range(stages):
        if room[s] < 1:
            return False
        split[s] = 1
    for _ in range(layers - stages):
        best, best_time = -1, np.inf
        for s in range(stages):
            if split[s] < room[s]:
                time = (split[s] + 1) / speed[s]
                if time < best_time:
                    best, best_time = s, time
        if best < 0:
            return False
        split[best] += 1
    return True


@njit(cache=True)
def evaluate(
    order: IntArray,
    stages: int,
    replicas: int,
    link: FloatArray,
    occupancy: FloatArray,
    dp_delay: FloatArray,
    dp_per_byte: FloatArray,
    layer_volume: float,
    layers: int,
    speed: FloatArray,
    room: IntArray,
    microbatches: int,
    parts: FloatArray,
) -> float:
    """Predicted seconds of a training step; `parts` receives (data parallel, pipeline communication, compute, stalls).

    `link`: round-trip seconds of one micro-batch's activations and gradients; `occupancy`: the part of it that keeps
    the link busy. Infinite where a stage's layers do not fit its smallest member.
    """
    split = np.empty(stages, np.int64)
    stage_speed = np.empty(stages)
    stage_room = np.empty(stages, np.int64)
    for s in range(stages):
        stage_speed[s] = np.inf
        stage_room[s] = layers
        for r in range(replicas):
            device = order[s * replicas + r]
            stage_speed[s] = min(stage_speed[s], speed[device])
            stage_room[s] = min(stage_room[s], room[device])
    if not split_layers(stage_speed, stage_room, layers, split):
        return np.inf
    exchange = 0.0
    communication = 0.0
    compute = 0.0
    steady = 0.0
    partner = np.empty(replicas, np.int64)
    for s in range(stages):
        stage = order[s * replicas : (s + 1) * replicas]
        exchange = max(exchange, data_parallel_seconds(stage, dp_delay, dp_per_byte, layer_volume * split[s]))
        busy = split[s] / stage_speed[s] / microbatches
        compute += busy
        steady = max(steady, busy)
        if s > 0:
            previous = order[(s - 1) * replicas : s * replicas]
            communication += bottleneck_matching(previous, stage, link, partner)
            for r in range(replicas):
                steady = max(steady, occupancy[previous[r], stage[partner[r]]])
    parts[0], parts[1], parts[2] = exchange, communication, compute
    parts[3] = (microbatches - 1) * steady
    total: float = exchange + communication + compute + parts[3]
    return total


@njit(cache=True)
def anneal(
    start: IntArray,
    classes: IntArray,
    stages: int,
    replicas: int,
    link: FloatArray,
    dp_table: FloatArray,
    iterations: int,
    hot: float,
    cold: float,
    seed: int,
    order: IntArray,
) -> float:
    """Simulated annealing of communication alone (equal devices, one micro-batch): the published cost model.

    Only what a move touches is computed again. `dp_table`: seconds a member spends with a peer. Moves: exchange one or
    two members between two stages or with a spare, reverse a run of stages, exchange two stages. The best placement is
    written to `order`, its cost returned. Seeded: the same arguments give the same result.
    """
    np.random.seed(seed)
    used = stages * replicas
    total = start.shape[0]
    current = start.copy()
    proposal = start.copy()
    exchange = np.empty(stages)
    boundary = np.zeros(stages + 1)  # boundary[s] lies between stages s - 1 and s
    partner = np.empty(replicas, np.int64)
    for s in range(stages):
        exchange[s] = _exchange(current[s * replicas : (s + 1) * replicas], dp_table)
        if s > 0:
            boundary[s] = bottleneck_matching(
                current[(s - 1) * replicas : s * replicas], current[s * replicas : (s + 1) * replicas], link, partner
            )
    new_exchange, new_boundary = exchange.copy(), boundary.copy()
    cost: float = exchange.max() + boundary.sum()
    best = cost
    order[:] = current
    touched = np.zeros(stages, np.bool_)
    for iteration in range(iterations):
        temperature = hot * (cold / hot) ** (iteration / iterations)
        proposal[:] = current
        new_exchange[:] = exchange
        new_boundary[:] = boundary
        touched[:] = False
        kind = np.random.random()
        if kind < 0.85 or stages < 2:
            swaps = 2 if kind < 0.25 else 1
            changed = False
            first, second = np.random.randint(used), np.random.randint(total)
            for swap in range(swaps):
                if swap == 1:
                    # A second exchange between the same two stages keeps their balance of regions.
                    if second >= used:
                        break
                    first = first // replicas * replicas + np.random.randint(replicas)
                    second = second // replicas * replicas + np.random.randint(replicas)
                if first // replicas == second // replicas or classes[proposal[first]] == classes[proposal[second]]:
                    continue
                proposal[first], proposal[second] = proposal[second], proposal[first]
                touched[first // replicas] = True
                if second < used:
                    touched[second // replicas] = True
                changed = True
            if not changed:
                continue
        else:
            low, high = np.random.randint(stages), np.random.randint(stages)
            if low > high:
                low, high = high, low
            if low == high:
                continue
            for s in range(low, high + 1):
                source = s
                if kind < 0.95:
                    source = low + high - s
                elif s in (low, high):
                    source = high if s == low else low
                if source != s:
                    proposal[s * replicas : (s + 1) * replicas] = current[source * replicas : (source + 1) * replicas]
                    touched[s] = True
        for s in range(stages):
            if touched[s]:
                new_exchange[s] = _exchange(proposal[s * replicas : (s + 1) * replicas], dp_table)
        for s in range(1, stages):
            if touched[s] or touched[s - 1]:
                new_boundary[s] = bottleneck_matching(
                    proposal[(s - 1) * replicas : s * replicas],
                    proposal[s * replicas : (s + 1) * replicas],
                    link,
                    partner,
                )
        new_cost = new_exchange.max() + new_boundary.sum()
        if new_cost <= cost or np.random.random() < np.exp((cost - new_cost) / temperature):
            current[:] = proposal
            exchange[:] = new_exchange
            boundary[:] = new_boundary
            cost = new_cost
            if cost < best - 1e-12:
                best = cost
                order[:] = current
    return best


@njit(cache=True)
def _exchange(stage: IntArray, dp_table: FloatArray) -> float:
    slowest = 0.0
    for i in range(stage.shape[0]):
        total = 0.0
        for j in range(stage.shape[0]):
            total += dp_table[stage[i], stage[j]]
        slowest = max(slowest, total)
    return slowest


@njit(cache=True)
def anneal_unequal(
    start: IntArray,
    classes: IntArray,
    stages: int,
    replicas: int,
    link: FloatArray,
    occupancy: FloatArray,
    dp_delay: FloatArray,
    dp_per_byte: FloatArray,
    layer_volume: float,
    layers: int,
    speed: FloatArray,
    room: IntArray,
    microbatches: int,
    iterations: int,
    hot: float,
    cold: float,
    seed: int,
    order: IntArray,
) -> float:
    """Simulated annealing of the whole step: unequal speeds, memory limits, uneven layers, several micro-batches.

    One changed member can move layers between all stages, so every proposal is evaluated in full.
    """
    np.random.seed(seed)
    used = stages * replicas
    total = start.shape[0]
    current = start.copy()
    proposal = start.copy()
    parts = np.zeros(4)
    cost = evaluate(
        current, stages, replicas, link, occupancy, dp_delay, dp_per_byte, layer_volume, layers, speed, room,
        microbatches, parts,
    )  # fmt: skip
    best = cost
    order[:] = current
    for iteration in range(iterations):
        temperature = hot * (cold / hot) ** (iteration / iterations)
        proposal[:] = current
        if np.random.random() < 0.9 or stages < 2:
            first, second = np.random.randint(used), np.random.randint(total)
            if first // replicas == second // replicas or classes[proposal[first]] == classes[proposal[second]]:
                continue
            proposal[first], proposal[second] = proposal[second], proposal[first]
        else:
            low, high = np.random.randint(stages), np.random.randint(stages)
            if low >= high:
                continue
            for s in range(low, high + 1):
                source = low + high - s
                proposal[s * replicas : (s + 1) * replicas] = current[source * replicas : (source + 1) * replicas]
        new_cost = evaluate(
            proposal, stages, replicas, link, occupancy, dp_delay, dp_per_byte, layer_volume, layers, speed, room,
            microbatches, parts,
        )  # fmt: skip
        # From a placement that does not fit, any move is worth making.
        if not np.isfinite(cost) or new_cost <= cost or np.random.random() < np.exp((cost - new_cost) / temperature):
            current[:] = proposal
            cost = new_cost
            if cost < best:
                best = cost
                order[:] = current
    return best
