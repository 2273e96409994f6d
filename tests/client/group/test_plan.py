"""Cluster descriptions, plans as files, and new plans when members change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from assay.cli.group import group
from assay.group.cluster_file import ClusterFile, Declared, parse_cluster, read_cluster_file
from assay.group.compression.choice import parse_compression, wire_ratios
from assay.group.cost import cost_tables
from assay.group.errors import ClusterError
from assay.group.picture import draw_svg, draw_text
from assay.group.plan import GroupPlan, make_plan, read_plan, replan, write_plan
from assay.templates import template, write_task

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


def described(stages: int = 0, replicas: int = 0, compression: str = "none") -> ClusterFile:
    """Four devices in each of two regions, far apart."""
    program: dict[str, Any] = {"activation_bytes": 1e6, "model_bytes": 1e7, "layers": 8, "compression": compression}
    program |= {key: value for key, value in (("stages", stages), ("replicas", replicas)) if value}
    devices = [{"name": f"{region}{number}", "region": region} for region in ("a", "b") for number in range(4)]
    links = [{"between": list(ends), "delay_ms": 10.0, "bandwidth_mbps": 100.0} for ends in ("ab", "aa", "bb")]
    return parse_cluster({"program": program, "device": devices, "link": links})


def test_a_plan_has_the_replicas_that_the_task_declares() -> None:
    assert described().for_task(Declared(replicas=4, gradient_bits=8)).shapes == ((2, 4),)
    assert described(stages=1).for_task(Declared(replicas=4, gradient_bits=8)).shapes == ((1, 4),)


def test_a_task_that_declares_no_replicas_leaves_them_to_the_cluster() -> None:
    for cluster in (described(), described(2, 3)):
        assert cluster.for_task(Declared(("1",), "tile-4-8")).shapes == cluster.shapes


def test_replicas_that_have_equally_many_of_the_task_s_parts_are_planned_as_asked() -> None:
    assert described(2, 2).for_task(Declared(replicas=4, gradient_bits=8)).shapes == ((2, 2),)


def test_replicas_that_the_task_s_parts_cannot_be_dealt_out_to_are_refused() -> None:
    with pytest.raises(ClusterError, match=r"replicas is 3, and the task has each batch in 4 parts.*write 1 or 2 or 4"):
        described(2, 3).for_task(Declared(replicas=4, gradient_bits=8))


def test_more_replicas_than_devices_are_refused_with_the_numbers_that_fit() -> None:
    with pytest.raises(ClusterError, match=r"16 devices, the cluster has 8; write replicas = 1 or 2 in \[program\]"):
        described(stages=4).for_task(Declared(replicas=4, gradient_bits=8))


def test_a_replica_s_part_of_the_batch_follows_from_the_task_s_replicas() -> None:
    # The file gives a replica's share where it names replicas, and the whole batch where it does not.
    declared = Declared(replicas=4, gradient_bits=8)
    assert described().for_task(declared).costs(2, 4).activation_bytes == 1e6 / 4
    assert described(2, 2).for_task(declared).costs(2, 2).activation_bytes == 1e6


def test_what_the_task_compresses_counts_instead_of_the_cluster_s_compression() -> None:
    found = described(compression="aqsgd-2-2-g2").for_task(Declared(("1",), "tile-4-8"))
    costs = found.costs(2, 2)
    assert found.compression == "tile-4-8"
    assert (costs.forward_ratio, costs.backward_ratio) == wire_ratios(parse_compression("tile-4-8"))[:2]
    assert costs.gradient_ratio == 1.0


def test_cuts_beyond_the_task_s_boundaries_are_reckoned_in_full() -> None:
    found = described().for_task(Declared(("1",), "tile-4-8"))
    one, three = found.costs(2, 2), found.costs(4, 2)
    assert 3 / three.forward_ratio == pytest.approx(1 / one.forward_ratio + 2)
    assert 3 / three.backward_ratio == pytest.approx(1 / one.backward_ratio + 2)


@pytest.mark.parametrize("bits", [4, 8])
def test_two_declared_replicas_cost_what_the_cluster_s_compressed_gradients_cost(bits: int) -> None:
    found, said = described().for_task(Declared(replicas=2, gradient_bits=bits)), described(compression=f"none-g{bits}")
    assert found.compression == said.compression
    assert found.costs(2, 2).gradient_ratio == pytest.approx(said.costs(2, 2).gradient_ratio)


@pytest.fixture
def task_path(tmp_path: Path) -> Path:
    """A task file whose batches are in two parts."""
    write_task(tmp_path / "task")
    text = template("task.toml").replace('mode = "exact"', 'mode = "tolerant"')
    path = tmp_path / "task" / "task.toml"
    path.write_text(text.replace("[market]", "[group]\nreplicas = 2\ngradient_bits = 4\n\n[market]"))
    return path


def test_plan_command_prints_what_it_took_from_the_task(cluster_path: Path, task_path: Path) -> None:
    result = CliRunner().invoke(group, ["plan", str(cluster_path), "--task", str(task_path)])
    assert result.exit_code == 0, result.output
    assert f"taken from {task_path}: 2 replicas, their gradients in 4 bits" in result.output
    assert f"so compression is none-g4, whatever {cluster_path} says of it (none)" in result.output


def test_plan_command_plans_for_the_task(cluster_path: Path, task_path: Path, tmp_path: Path) -> None:
    cluster_path.write_text(CLUSTER.replace("replicas = 2\n", ""))
    out = tmp_path / "plan.toml"
    asked = ["plan", str(cluster_path), "--task", str(task_path), "--output", str(out), "--json"]
    result = CliRunner().invoke(group, asked)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.output)
    assert printed["declared"] == {"boundaries": [], "compression": "none", "replicas": 2, "gradient_bits": 4}
    assert (read_plan(out).replicas, read_plan(out).compression) == (2, "none-g4")


def test_plan_command_refuses_a_cluster_with_other_replicas(cluster_path: Path, task_path: Path) -> None:
    cluster_path.write_text(CLUSTER.replace("replicas = 2\n", "replicas = 3\n").replace("stages = 2", "stages = 1"))
    result = CliRunner().invoke(group, ["plan", str(cluster_path), "--task", str(task_path)])
    assert isinstance(result.exception, ClusterError)
    assert "replicas is 3, and the task has each batch in 2 parts" in str(result.exception)


def test_a_plan_without_a_task_is_what_the_cluster_says(cluster_path: Path) -> None:
    result = CliRunner().invoke(group, ["plan", str(cluster_path), "--json"])
    assert json.loads(result.output)["declared"] is None
