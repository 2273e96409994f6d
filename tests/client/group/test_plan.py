"""Cluster descriptions, plans as files, and new plans when members change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from assay.cli.group import group
from assay.group.cluster_file import parse_cluster, read_cluster_file
from assay.group.cost import cost_tables
from assay.group.errors import ClusterError
from assay.group.picture import draw_svg, draw_text
from assay.group.plan import GroupPlan, make_plan, read_plan, replan, write_plan

CLUSTER = """
[program]
stages = 2
replicas = 2
activation_bytes = 1e7
parameter_bytes = 1e8
layers = 8

[[device]]
name = "ann"
region = "Ohio"
[[device]]
name = "ben"
region = "Ohio"
[[device]]
name = "cho"
region = "Tokyo"
[[device]]
name = "dai"
region = "Tokyo"
[[device]]
name = "eri"
region = "Tokyo"

[[link]]
between = ["Ohio", "Tokyo"]
delay_ms = 130
bandwidth_mbps = 694
[[link]]
between = ["Ohio", "Ohio"]
delay_ms = 1
bandwidth_mbps = 5000
[[link]]
between = ["Tokyo", "Tokyo"]
delay_ms = 1
bandwidth_mbps = 5000
[[link]]
between = ["dai", "eri"]
delay_ms = 1
bandwidth_mbps = 1000
"""


@pytest.fixture
def cluster_path(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_text(CLUSTER)
    return path


def planned(path: Path) -> GroupPlan:
    description = read_cluster_file(path)
    return make_plan(description.cluster, description.costs(2, 2))


def test_links_of_devices_override_links_of_regions(cluster_path: Path) -> None:
    network = read_cluster_file(cluster_path).cluster.network
    assert network.bandwidth[3, 4] == 1000e6 / 8
    assert network.bandwidth[2, 4] == 5000e6 / 8
    assert network.delay_seconds[0, 3] == 0.130


def test_a_missing_link_is_named() -> None:
    document = {"device": [{"name": "ann"}, {"name": "ben"}], "program": {}}
    with pytest.raises(ClusterError, match="no link between 'ann' and 'ben'"):
        parse_cluster(document)


def test_misspelt_entries_are_refused() -> None:
    document = {"scenario": "regional", "program": {"activation_byte": 1}}
    with pytest.raises(ClusterError, match="activation_byte"):
        parse_cluster(document)


def test_a_plan_survives_its_file(cluster_path: Path, tmp_path: Path) -> None:
    plan = planned(cluster_path)
    write_plan(plan, tmp_path / "plan.toml")
    assert read_plan(tmp_path / "plan.toml") == plan


def test_a_plan_that_uses_a_member_twice_is_refused(cluster_path: Path, tmp_path: Path) -> None:
    plan = planned(cluster_path)
    write_plan(plan, tmp_path / "plan.toml")
    text = (tmp_path / "plan.toml").read_text().replace(plan.members[0], plan.members[1])
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(ClusterError, match="twice"):
        read_plan(tmp_path / "plan.toml")


def test_plans_are_drawn_with_every_member(cluster_path: Path) -> None:
    description = read_cluster_file(cluster_path)
    costs = description.costs(2, 2)
    plan = make_plan(description.cluster, costs)
    tables = cost_tables(description.cluster, costs)
    region = {d.name: r for d, r in zip(description.cluster.devices, description.regions, strict=True)}
    text, svg = (
        draw_text(plan, description.cluster, tables, region),
        draw_svg(plan, description.cluster, tables, region),
    )
    assert text.count("stage") == 2
    assert all(f">{name}<" in svg for name in plan.members)


def test_a_spare_takes_the_place_of_a_member_that_left(cluster_path: Path) -> None:
    description = read_cluster_file(cluster_path)
    costs = description.costs(2, 2)
    plan = make_plan(description.cluster, costs)
    lost = plan.pipelines[0][0]
    new = replan(description.cluster, costs, plan, [lost], remaining_steps=1)
    assert lost not in new.plan.members
    assert set(new.plan.members) == {d.name for d in description.cluster.devices} - {lost}
    assert set(plan.spares) <= set(new.moved)
    assert new.migration_seconds > 0


def test_replicas_are_given_up_before_stages(cluster_path: Path) -> None:
    description = read_cluster_file(cluster_path)
    costs = description.costs(2, 2)
    plan = make_plan(description.cluster, costs)
    new = replan(description.cluster, costs, plan, list(plan.members[:2]), remaining_steps=10)
    assert (new.plan.stages, new.plan.replicas) == (2, 1)
    assert new.costs.activation_bytes == 2 * costs.activation_bytes
    alone = replan(description.cluster, costs, plan, [d.name for d in description.cluster.devices[1:]], 10)
    assert (alone.plan.stages, alone.plan.replicas, alone.plan.layers) == (1, 1, (8,))


def test_plan_command_writes_what_it_prints(cluster_path: Path, tmp_path: Path) -> None:
    out, svg = tmp_path / "plan.toml", tmp_path / "plan.svg"
    result = CliRunner().invoke(
        group, ["plan", str(cluster_path), "--output", str(out), "--picture", str(svg), "--json"]
    )
    assert result.exit_code == 0, result.output
    printed = json.loads(result.output)
    plan = read_plan(out)
    assert [list(row) for row in plan.pipelines] == printed["pipelines"]
    assert printed["step_seconds"] == pytest.approx(plan.time.total)
    assert printed["random_seconds"] >= printed["step_seconds"]
    assert svg.read_text().startswith("<svg")
