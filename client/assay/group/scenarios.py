"""Networks to plan for and to simulate, each a small table of regions (`scenarios.json`).

The five of the decentralised foundation-model study have 64 devices; volumes are its example of a GPT-3 XL in 8 stages
and 8 replicas. The small ones are for running on one machine.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from assay.group.cost import TrainingCosts
from assay.group.errors import ClusterError
from assay.group.network import Cluster, Device, network_from_groups


@dataclass(frozen=True)
class Scenario:
    """A named network. `groups[i]` is the region of device i."""

    name: str
    cluster: Cluster
    groups: tuple[str, ...]


def scenario_names() -> list[str]:
    """The names that `load_scenario` knows."""
    return sorted(_tables())


def load_scenario(name: str) -> Scenario:
    """Read one scenario; raises ClusterError for a name that does not exist."""
    tables = _tables()
    if name not in tables:
        raise ClusterError(f"no scenario is called {name!r}; choose one of {', '.join(sorted(tables))}")
    table = tables[name]
    counts = [int(count) for count in table["counts"]]
    group_of = np.repeat(np.arange(len(counts)), counts)
    size = len(counts)
    delay, bandwidth = np.zeros((size, size)), np.zeros((size, size))
    for key, target in (("delay_ms", delay), ("bandwidth_gbps", bandwidth)):
        # Rows hold the entries up to the diagonal; one number stands for a constant, two for inside and between.
        value = table[key]
        if len(value) == 2 and not isinstance(value[0], list):
            target[:] = value[1]
            np.fill_diagonal(target, value[0])
        else:
            for row, entries in enumerate(value):
                for column, entry in enumerate(entries):
                    target[row, column] = target[column, row] = float(entry)
    groups = tuple(table["groups"][g] for g in group_of)
    devices = tuple(Device(f"{group.lower()}-{i}") for i, group in enumerate(groups))
    return Scenario(name, Cluster(devices, network_from_groups(group_of, delay, bandwidth)), groups)


def published_costs() -> TrainingCosts:
    """Volumes of the study's example: 0.4712 GB of activations, 0.65 GB of parameters, 8 stages of 8 replicas."""
    return TrainingCosts(stages=8, replicas=8, activation_bytes=0.4712e9, parameter_bytes=0.65e9)


def _tables() -> dict[str, dict[str, Any]]:
    text = resources.files("assay.group").joinpath("scenarios.json").read_text(encoding="utf-8")
    scenarios: dict[str, dict[str, Any]] = json.loads(text)["scenarios"]
    return scenarios
