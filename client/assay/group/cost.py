"""The cost model of decentralised training (Yuan et al., NeurIPS 2022, section 3), and what it leaves out.

A model is cut into stages, every stage is held by `replicas` members. A step costs

- data parallel: each member owns 1/D of its stage's gradients and exchanges it with its D - 1 peers, there and back:
  sum over peers of 2 (alpha + c_dp / (D beta)), for the slowest member of the slowest stage;
- pipeline: between neighbouring stages members are paired by a bottleneck perfect matching; activations go forward and
  gradients back over the slowest pair: alpha + c_pp / beta each way, summed along the stages.

With one micro-batch, equal devices and no compression this is the published model to the last bit of arithmetic.
Extensions, all off by default: compute time of unequal devices with an uneven split of layers under memory limits
(a stage is as fast as its slowest member), micro-batches (the slowest stage or link repeats), compression ratios; and
replicas that take several steps of their own between exchanges, after each of which they send each other more in the
background, of which counts what the next steps do not hide.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from assay.group import kernels
from assay.group.errors import PlacementError
from assay.group.network import Cluster, FloatArray, IntArray


@dataclass(frozen=True)
class TrainingCosts:
    """What a step of the program moves and computes.

    `activation_bytes`: over one stage boundary, one direction, for one replica's share of the batch.
    `parameter_bytes`: gradients of one stage when layers are split evenly.
    `layers`: layers that can be dealt out (0: one a stage). `layer_flops`: forward and backward of one layer on one
    replica's share of the batch. `layer_memory_bytes`: what one layer needs on a member.
    The ratios are how many times fewer bytes compression puts on the wire.
    `period`: steps that a replica takes between two exchanges. `background_bytes`: what each replica of a stage then
    sends to each other, while the next `period` steps are taken.
    """

    stages: int
    replicas: int
    activation_bytes: float
    parameter_bytes: float
    layers: int = 0
    layer_flops: float = 0.0
    layer_memory_bytes: float = 0.0
    microbatches: int = 1
    forward_ratio: float = 1.0
    backward_ratio: float = 1.0
    gradient_ratio: float = 1.0
    period: int = 1
    background_bytes: float = 0.0

    def __post_init__(self) -> None:
        if min(self.stages, self.replicas, self.microbatches, self.period) < 1:
            raise PlacementError(
                f"{self.stages} stages, {self.replicas} replicas, {self.microbatches} micro-batches, {self.period} "
                "steps between exchanges: each must be >= 1"
            )
        if self.layers and self.layers < self.stages:
            raise PlacementError(f"{self.layers} layers cannot fill {self.stages} stages; ask for fewer stages")
        if min(self.forward_ratio, self.backward_ratio, self.gradient_ratio) <= 0:
            raise PlacementError("compression ratios must be positive; 1 means uncompressed")

    @property
    def layer_count(self) -> int:
        """Layers to deal out; one a stage where the program does not say."""
        return self.layers or self.stages


@dataclass(frozen=True)
class CostTables:
    """Seconds of a step between every two devices, ready for the kernels; all (n, n) except `speed` and `room`, (n,).
    Of exchanges and of what travels in the background it is the part that falls to one step."""

    round_trip: FloatArray
    occupancy: FloatArray
    exchange_delay: FloatArray
    exchange_per_byte: FloatArray
    background: FloatArray
    layer_volume: float
    speed: FloatArray
    room: IntArray

    def exchange(self, layers_in_stage: float) -> FloatArray:
        """Seconds a member spends with each peer when its stage has that many layers; the diagonal is 0."""
        table = self.exchange_delay + self.layer_volume * layers_in_stage * self.exchange_per_byte
        np.fill_diagonal(table, 0.0)
        return table


@dataclass(frozen=True)
class StepTime:
    """Predicted seconds of one step and its parts."""

    data_parallel: float
    pipeline: float
    compute: float
    stalls: float

    @property
    def communication(self) -> float:
        """Data-parallel plus pipeline seconds: the figure of the published model."""
        return self.data_parallel + self.pipeline

    @property
    def total(self) -> float:
        """All parts of the step."""
        return self.data_parallel + self.pipeline + self.compute + self.stalls


def cost_tables(cluster: Cluster, costs: TrainingCosts) -> CostTables:
    """Turn links and volumes into seconds.

    Raises PlacementError where compute is to be predicted but a device's speed is not given.
    """
    delay, bandwidth = cluster.network.delay_seconds, cluster.network.bandwidth
    apart = ~np.eye(cluster.network.size, dtype=bool)
    per_byte = np.zeros_like(bandwidth)
    per_byte[apart] = 1.0 / bandwidth[apart]
    share = costs.activation_bytes / costs.microbatches
    wire = share / costs.forward_ratio + share / costs.backward_ratio
    flops = np.array([device.flops for device in cluster.devices])
    if costs.layer_flops > 0:
        if np.any(flops <= 0):
            silent = cluster.devices[int(np.argmax(flops <= 0))].name
            raise PlacementError(f"the program has layer_flops, but device {silent!r} has no flops; measure it")
        speed = flops / costs.layer_flops
    else:
        speed = np.full(cluster.network.size, np.inf)
    room = np.full(cluster.network.size, costs.layer_count, dtype=np.int64)
    if costs.layer_memory_bytes > 0:
        for i, device in enumerate(cluster.devices):
            if device.memory_bytes > 0:
                room[i] = min(costs.layer_count, int(device.memory_bytes // costs.layer_memory_bytes))
    return CostTables(
        round_trip=2 * delay + wire * per_byte,
        # Both directions run at once, so the busier one limits a link.
        occupancy=share / min(costs.forward_ratio, costs.backward_ratio) * per_byte,
        exchange_delay=np.where(apart, 2 * delay, 0.0) / costs.period,
        exchange_per_byte=2 * per_byte / costs.replicas / costs.period,
        background=costs.background_bytes * per_byte / costs.period,
        layer_volume=costs.parameter_bytes * costs.stages / costs.layer_count / costs.gradient_ratio,
        speed=speed,
        room=room,
    )


def is_uniform(tables: CostTables, costs: TrainingCosts) -> bool:
    """Whether only communication matters: the faster search and the lower bounds apply."""
    even = costs.layer_count % costs.stages == 0
    fits = bool(np.all(tables.room >= costs.layer_count // costs.stages))
    return costs.microbatches == 1 and bool(np.all(np.isinf(tables.speed))) and even and fits


def step_time(order: IntArray, tables: CostTables, costs: TrainingCosts) -> StepTime:
    """Predict a step of the placement `order` (at least stages * replicas devices, stage by stage)."""
    parts = np.zeros(4)
    seconds = kernels.evaluate(
        np.ascontiguousarray(order, dtype=np.int64),
        costs.stages,
        costs.replicas,
        tables.round_trip,
        tables.occupancy,
        tables.exchange_delay,
        tables.exchange_per_byte,
        tables.layer_volume,
        costs.layer_count,
        tables.speed,
        tables.room,
        costs.microbatches,
        parts,
    )
    if not np.isfinite(seconds):
        return StepTime(np.inf, np.inf, np.inf, np.inf)
    exchange, pipeline, compute, stalls = (float(part) for part in parts)
    # Where nobody says how long steps take, they are taken to hide what travels meanwhile.
    if costs.background_bytes and costs.layer_flops:
        stalls += max(0.0, _background_seconds(order, tables, costs) - compute)
    return StepTime(exchange, pipeline, compute, stalls)


def _background_seconds(order: IntArray, tables: CostTables, costs: TrainingCosts) -> float:
    """What replicas send each other in the background: its part of a step, of the slowest member."""
    stages = np.asarray(order[: costs.stages * costs.replicas]).reshape(costs.stages, costs.replicas)
    return max(float(tables.background[np.ix_(stage, stage)].sum(axis=1).max()) for stage in stages)


def layer_split(order: IntArray, tables: CostTables, costs: TrainingCosts) -> tuple[int, ...]:
    """Layers of each stage under the placement; raises PlacementError where they do not fit the members' memory."""
    stages = np.asarray(order[: costs.stages * costs.replicas]).reshape(costs.stages, costs.replicas)
    split = np.zeros(costs.stages, dtype=np.int64)
    slowest, smallest = tables.speed[stages].min(axis=1), tables.room[stages].min(axis=1)
    if not kernels.split_layers(slowest, smallest, costs.layer_count, split):
        raise PlacementError(
            f"{costs.layer_count} layers of {costs.layer_memory_bytes:.3g} bytes do not fit {costs.stages} stages "
            f"whose smallest members hold {smallest.tolist()} layers; use more stages or members with more memory"
        )
    return tuple(int(layers) for layers in split)


def pair_members(order: IntArray, tables: CostTables, costs: TrainingCosts) -> IntArray:
    """Which members form a pipeline: (replicas, stages) devices, each stage permuted by its bottleneck matching."""
    stages = np.asarray(order[: costs.stages * costs.replicas], dtype=np.int64).reshape(costs.stages, costs.replicas)
    pipelines = np.empty((costs.replicas, costs.stages), dtype=np.int64)
    pipelines[:, 0] = stages[0]
    partner = np.empty(costs.replicas, dtype=np.int64)
    for s in range(1, costs.stages):
        kernels.bottleneck_matching(np.ascontiguousarray(pipelines[:, s - 1]), stages[s], tables.round_trip, partner)
        pipelines[:, s] = stages[s][partner]
    return pipelines


def unplanned_time(order: IntArray, tables: CostTables, costs: TrainingCosts) -> StepTime:
    """A step of members in the given order without matching: position r of a stage feeds position r of the next.

    This is what the published comparison calls random placement (for a random order).
    """
    stages = np.asarray(order[: costs.stages * costs.replicas], dtype=np.int64).reshape(costs.stages, costs.replicas)
    planned = step_time(order, tables, costs)
    if not np.isfinite(planned.total):
        return planned
    pipeline = sum(float(tables.round_trip[a, b].max()) for a, b in itertools.pairwise(stages))
    busiest = max((float(tables.occupancy[a, b].max()) for a, b in itertools.pairwise(stages)), default=0.0)
    stalls = max(planned.stalls, (costs.microbatches - 1) * busiest)
    return StepTime(planned.data_parallel, pipeline, planned.compute, stalls)
