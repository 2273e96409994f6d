"""Read `cluster.toml`: the devices, the links between them, and what the program costs (`templates/cluster.toml`)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from assay.group.compression.choice import declared_gradient_ratio, parse_compression, told_to_all_ratio, wire_ratios
from assay.group.cost import TrainingCosts
from assay.group.declared import Declared
from assay.group.errors import ClusterError
from assay.group.network import Cluster, Device, Network
from assay.group.scenarios import load_scenario
from assay.program.local_schedule import LocalSteps


@dataclass(frozen=True)
class ClusterFile:
    """A parsed description. `shapes`: the (stages, replicas) to consider; `model_bytes`: gradients of all layers;
    `declared`: what the task to plan for declares, where that is known."""

    cluster: Cluster
    regions: tuple[str, ...]
    addresses: tuple[str, ...]
    program: dict[str, float]
    compression: str
    shapes: tuple[tuple[int, int], ...]
    declared: Declared | None = None

    def for_task(self, declared: Declared) -> ClusterFile:
        """The description for a task: its replicas, unless the file asks for fewer that have equally many parts each,
        and its compression instead of the file's. With local steps one stage, and a replica for each member. Raises
        ClusterError where the file asks for another shape than the task can be trained in, or has too few devices."""
        if declared.local_steps is not None:
            shape = self._side_by_side(declared.local_steps)
            return replace(self, compression=str(declared), shapes=(shape,), declared=declared)
        parts, asked, devices = declared.replicas, int(self.program.get("replicas", 0)), self.cluster.network.size
        even = [count for count in range(1, parts + 1) if parts % count == 0]
        shapes = self.shapes
        if parts > 1 and asked:
            if asked not in even:
                raise ClusterError(
                    f"[program] replicas is {asked}, and the task has each batch in {parts} parts ([group] replicas), "
                    f"of which {asked} cannot have equally many: they would divide layers and share no batch. Leave "
                    f"replicas out, or write {' or '.join(map(str, even))}"
                )
        elif parts > 1:
            stages = int(self.program.get("stages", 0)) or 1
            if stages * parts > devices:
                enough = [str(count) for count in even if stages * count <= devices]
                raise ClusterError(
                    f"{stages} stage(s) of the {parts} replicas that the task declares need {stages * parts} devices, "
                    f"the cluster has {devices}; "
                    + (f"write replicas = {' or '.join(enough)} in [program], " if enough else "ask for fewer stages, ")
                    + "or add devices"
                )
            shapes = _shapes({**self.program, "replicas": float(parts)}, devices)
        return replace(self, compression=str(declared), shapes=shapes, declared=declared)

    def _side_by_side(self, local: LocalSteps) -> tuple[int, int]:
        """The shape in which members train alone."""
        members, devices = local.members, self.cluster.network.size
        for key, wanted in (("stages", 1), ("replicas", members)):
            asked = int(self.program.get(key, wanted))
            if asked != wanted:
                raise ClusterError(
                    f"[program] {key} is {asked}, and the task has [local_steps]: its {members} members train alone, "
                    f"which is one stage of {members} replicas; write {key} = {wanted}, or leave it out"
                )
        if devices < members:
            raise ClusterError(
                f"the task trains {members} members side by side ([local_steps]), the cluster has {devices} devices; "
                "add devices, or submit the task with fewer members"
            )
        return 1, members

    def costs(self, stages: int, replicas: int) -> TrainingCosts:
        """The program's costs when cut into that shape; per-replica volumes are given for the file's own replicas.

        With local steps a replica's share is a whole batch of the task's, and what fewer replicas than the task has
        members train for the others.
        """
        program = self.program
        local = None if self.declared is None else self.declared.local_steps
        asked = program.get("replicas", 0) if local is None else local.members
        # A replica's share of the batch shrinks as replicas are added.
        share = asked / replicas if asked else 1.0 / replicas
        forward, backward, gradient = wire_ratios(parse_compression(self.compression))
        if self.declared is not None:
            forward, backward = (
                _over_cuts(ratio, stages - 1, len(self.declared.boundaries)) for ratio in (forward, backward)
            )
            if local is not None:
                gradient = told_to_all_ratio(local.bits, local.members)
            elif self.declared.replicas > 1:
                gradient = declared_gradient_ratio(self.declared.gradient_bits, self.declared.replicas, replicas)
        layers = int(program.get("layers", 0))
        if "model_bytes" in program:
            parameter_bytes = program["model_bytes"] / stages
        else:
            parameter_bytes = program["parameter_bytes"] * (program.get("stages", stages) / stages)
        made = TrainingCosts(
            stages=stages,
            replicas=replicas,
            activation_bytes=program["activation_bytes"] * share,
            parameter_bytes=parameter_bytes,
            layers=layers,
            layer_flops=program.get("layer_flops", 0.0) * share,
            layer_memory_bytes=program.get("layer_memory_bytes", 0.0),
            microbatches=int(program.get("microbatches", 1)),
            forward_ratio=forward,
            backward_ratio=backward,
            gradient_ratio=gradient,
        )
        if self.declared is None or local is None:
            return made
        # What a run ended in goes to all others, who compose the proof, while the next one is trained.
        replica_bytes = (1 + self.declared.moments) * parameter_bytes * local.members / replicas
        return replace(made, microbatches=1, period=local.inner_steps, background_bytes=replica_bytes)


def _over_cuts(ratio: float, cuts: int, compressed: int) -> float:
    """The ratio over all cuts between stages; what crosses at more than are `compressed` travels in full."""
    if cuts <= compressed:
        return ratio
    return cuts / (compressed / ratio + cuts - compressed)


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < MOST:
        raise ClusterError(f"{what} is {value!r}; write a number below {MOST:.0e}")
    return float(value)


MOST = 1e30
"""Whoever writes a larger number has something else in mind."""

PROGRAM_KEYS = {
    "stages", "replicas", "activation_bytes", "parameter_bytes", "model_bytes", "layers", "layer_flops",
    "layer_memory_bytes", "microbatches", "compression",
}  # fmt: skip


def read_cluster_file(path: Path) -> ClusterFile:
    """Parse a description; raises ClusterError naming what is missing or contradictory."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClusterError(f"cannot read {path}: {error.strerror}; give the path of a cluster.toml") from error
    except ValueError as error:  # also what is no text
        raise ClusterError(f"{path} is not valid TOML: {error}") from error
    return parse_cluster(document)


def parse_cluster(document: dict[str, Any]) -> ClusterFile:
    """The same from a parsed document."""
    unknown = set(document) - {"scenario", "program", "device", "link"}
    if unknown:
        raise ClusterError(f"unknown entries {sorted(unknown)}; a cluster has scenario, program, device and link")
    if "scenario" in document:
        scenario = load_scenario(str(document["scenario"]))
        cluster, regions = scenario.cluster, scenario.groups
        addresses = tuple("" for _ in regions)
    else:
        cluster, regions, addresses = _devices_and_links(document)
    program = document.get("program", {})
    if not isinstance(program, dict):
        raise ClusterError(f"[program] is {program!r}; write it as a table")
    program = dict(program)
    compression = str(program.pop("compression", "none"))
    parse_compression(compression)
    unknown = set(program) - PROGRAM_KEYS
    if unknown:
        raise ClusterError(f"unknown entries {sorted(unknown)} in [program]; known are {sorted(PROGRAM_KEYS)}")
    if "activation_bytes" not in program or not {"parameter_bytes", "model_bytes"} & set(program):
        raise ClusterError(
            "[program] needs activation_bytes, and parameter_bytes (a stage) or model_bytes (all layers)"
        )
    values = {key: _number(value, f"[program] {key}") for key, value in program.items()}
    return ClusterFile(cluster, regions, addresses, values, compression, _shapes(values, cluster.network.size))


def _shapes(program: dict[str, float], devices: int) -> tuple[tuple[int, int], ...]:
    """Shapes to consider: the one asked for, or all that use every device (or all but the fewest)."""
    stages, replicas = int(program.get("stages", 0)), int(program.get("replicas", 0))
    layers = int(program.get("layers", 0)) or devices
    if stages and replicas:
        return ((stages, replicas),)
    if stages:
        return ((stages, max(1, devices // stages)),)
    if replicas:
        return ((min(layers, max(1, devices // replicas)), replicas),)
    return tuple((s, devices // s) for s in range(1, min(devices, layers) + 1) if devices % s == 0)


def _devices_and_links(document: dict[str, Any]) -> tuple[Cluster, tuple[str, ...], tuple[str, ...]]:
    entries, links = document.get("device", []), document.get("link", [])
    if not entries:
        raise ClusterError("the cluster has no [[device]]; list the members, or name a scenario")
    for what, rows in (("device", entries), ("link", links)):
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ClusterError(f"{what} is {rows!r}; write each as a table, [[{what}]]")
    for entry in entries:
        if "name" not in entry:
            raise ClusterError(f"a [[device]] has no name: {entry}")
        unknown = set(entry) - {"name", "region", "flops", "memory_bytes", "address"}
        if unknown:
            raise ClusterError(f"device {entry['name']!r} has unknown entries {sorted(unknown)}")
    names = [str(entry["name"]) for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ClusterError(f"several [[device]] are named {', '.join(twice)}: give each a name of its own")
    regions = [str(entry.get("region", entry["name"])) for entry in entries]
    devices = tuple(
        Device(name, *(_number(entry.get(key, 0), f"{key} of {name!r}") for key in ("flops", "memory_bytes")))
        for name, entry in zip(names, entries, strict=True)
    )
    n = len(devices)
    delay, bandwidth = np.full((n, n), np.nan), np.full((n, n), np.nan)
    # Links between regions first, so that links between two devices override them.
    for by_device in (False, True):
        for link in links:
            ends_named = link.get("between", [])
            between = [str(end) for end in ends_named] if isinstance(ends_named, list) else []
            if len(between) != 2 or not {"delay_ms", "bandwidth_mbps"} <= set(link):
                raise ClusterError(f"a [[link]] needs between = [a, b], delay_ms and bandwidth_mbps: {link}")
            if all(end in names for end in between) != by_device:
                continue
            ends = []
            for end in between:
                matched = [i for i in range(n) if end == names[i]] or [i for i in range(n) if end == regions[i]]
                if not matched:
                    raise ClusterError(f"a link names {end!r}, which is neither a device nor a region")
                ends.append(matched)
            seconds = _number(link["delay_ms"], f"delay_ms between {' and '.join(between)}") / 1e3
            rate = _number(link["bandwidth_mbps"], f"bandwidth_mbps between {' and '.join(between)}") * 1e6 / 8
            for i in ends[0]:
                for j in ends[1]:
                    delay[i, j] = delay[j, i] = seconds
                    bandwidth[i, j] = bandwidth[j, i] = rate
    missing = np.isnan(delay) & ~np.eye(n, dtype=bool)
    if missing.any():
        i, j = np.argwhere(missing)[0]
        raise ClusterError(
            f"no link between {names[i]!r} and {names[j]!r}; add a [[link]] for them or their regions, or measure them "
            "with `assay group measure`"
        )
    np.fill_diagonal(delay, 0.0)
    np.fill_diagonal(bandwidth, np.inf)
    addresses = tuple(str(entry.get("address", "")) for entry in entries)
    return Cluster(devices, Network(delay, bandwidth)), tuple(regions), addresses
