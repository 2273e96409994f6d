"""The plan of a group whose members are all on one machine, for the tests that make such a group."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from assay.group.cluster_file import read_cluster_file
from assay.group.plan import GroupPlan, make_plan, write_plan


def planned(folder: Path, names: Sequence[str], stages: int, replicas: int = 1, layers: int = 4) -> GroupPlan:
    """Write the cluster.toml of a group and its plan.toml: `stages` of `replicas` members each, placed among `names`,
    all as near and as fast."""
    program = {
        "stages": stages, "replicas": replicas, "activation_bytes": 1e6, "parameter_bytes": 1e6, "layers": layers,
    }  # fmt: skip
    lines = ["[program]", *(f"{key} = {value}" for key, value in program.items())]
    lines += ["[[link]]", 'between = ["here", "here"]', "delay_ms = 1", "bandwidth_mbps = 1000"]
    for name in names:
        lines += ["[[device]]", f'name = "{name}"', 'region = "here"']
    path = folder / "cluster.toml"
    path.write_text("\n".join(lines))
    description = read_cluster_file(path)
    plan = make_plan(description.cluster, description.costs(stages, replicas))
    write_plan(plan, folder / "plan.toml")
    return plan
