"""Cluster descriptions, plans as files, and new plans when members change."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from assay.cli.group import group
from assay.group.cluster_file import ClusterFile, parse_cluster, read_cluster_file
from assay.group.compression.choice import parse_compression, wire_ratios
from assay.group.cost import cost_tables
from assay.group.declared import Declared
from assay.group.errors import ClusterError
from assay.group.picture import draw_svg, draw_text
from assay.group.plan import GroupPlan, make_plan, read_plan, replan, write_plan
from assay.program.local_schedule import LocalSteps
from assay.tasks.declared import declared_by
from assay.tasks.task_file import read_task_file
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


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("delay_ms = 1\n", 'delay_ms = "fast"\n', "delay_ms between dai and eri is 'fast'"),
        ("bandwidth_mbps = 1000\n", "bandwidth_mbps = nan\n", "bandwidth_mbps between dai and eri is nan"),
        ('between = ["dai", "eri"]', "between = 7", r"needs between = \[a, b\]"),
        ('name = "eri"', 'name = "dai"', "named dai"),
        ("layers = 8", "layers = inf", r"\[program\] layers is inf"),
        ("stages = 2", 'stages = "two"', r"\[program\] stages is 'two'"),
    ],
)
def test_what_is_no_number_or_no_link_is_named(cluster_path: Path, before: str, after: str, problem: str) -> None:
    cluster_path.write_text(after.join(CLUSTER.rsplit(before, 1)))
    with pytest.raises(ClusterError, match=problem):
        read_cluster_file(cluster_path)


@pytest.mark.parametrize(
    "text", ['program = 3\n[[device]]\nname = "ann"', "device = 3\n[program]\nactivation_bytes = 1", "device = [3]"]
)
def test_what_is_no_table_is_named(cluster_path: Path, text: str) -> None:
    cluster_path.write_text(text)
    with pytest.raises(ClusterError, match="as a table"):
        read_cluster_file(cluster_path)


def test_what_is_no_text_is_refused(cluster_path: Path) -> None:
    cluster_path.write_bytes(b"\xff\xfe")
    with pytest.raises(ClusterError, match="not valid TOML"):
        read_cluster_file(cluster_path)


def test_plan_command_plans_for_one_device(cluster_path: Path) -> None:
    cluster_path.write_text('[program]\nactivation_bytes = 1\nparameter_bytes = 1\n[[device]]\nname = "ann"\n')
    result = CliRunner().invoke(group, ["plan", str(cluster_path)])
    assert result.exit_code == 0, result.exception
    assert "members as listed" in result.output


def test_plan_command_says_where_it_cannot_write(cluster_path: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(group, ["plan", str(cluster_path), "--output", str(tmp_path / "none" / "plan.toml")])
    assert isinstance(result.exception, ClusterError)
    assert "name another place" in str(result.exception)


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


def described(stages: int = 0, replicas: int = 0, compression: str = "none", layer_flops: float = 0.0) -> ClusterFile:
    """Four devices in each of two regions, far apart; each has 1e9 flops."""
    program: dict[str, Any] = {"activation_bytes": 1e6, "model_bytes": 1e7, "layers": 8, "compression": compression}
    program |= {"layer_flops": layer_flops, "microbatches": 4}
    program |= {key: value for key, value in (("stages", stages), ("replicas", replicas)) if value}
    devices = [
        {"name": f"{region}{number}", "region": region, "flops": 1e9} for region in ("a", "b") for number in range(4)
    ]
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
    declared = Declared(replicas=2, gradient_bits=4)
    assert printed["declared"] == {**asdict(declared), "boundaries": []}
    assert printed["round"] is None
    assert (read_plan(out).replicas, read_plan(out).compression) == (2, "none-g4")


def test_plan_command_refuses_a_cluster_with_other_replicas(cluster_path: Path, task_path: Path) -> None:
    cluster_path.write_text(CLUSTER.replace("replicas = 2\n", "replicas = 3\n").replace("stages = 2", "stages = 1"))
    result = CliRunner().invoke(group, ["plan", str(cluster_path), "--task", str(task_path)])
    assert isinstance(result.exception, ClusterError)
    assert "replicas is 3, and the task has each batch in 2 parts" in str(result.exception)


def test_a_plan_without_a_task_is_what_the_cluster_says(cluster_path: Path) -> None:
    result = CliRunner().invoke(group, ["plan", str(cluster_path), "--json"])
    assert json.loads(result.output)["declared"] is None


ALONE = Declared(local_steps=LocalSteps(4, 50, 8))


@pytest.mark.parametrize("asked", [(0, 0), (1, 0), (0, 4), (1, 4)])
def test_a_task_with_local_steps_has_one_stage_and_a_replica_for_each_member(asked: tuple[int, int]) -> None:
    found = described(*asked, compression="aqsgd-4-8").for_task(ALONE)
    assert (found.shapes, found.compression) == (((1, 4),), "none-g8")


@pytest.mark.parametrize(
    ("asked", "problem"),
    [((2, 0), r"stages is 2, .*4 members train alone.*write stages = 1"), ((1, 2), r"replicas is 2, .*replicas = 4")],
)
def test_other_shapes_than_members_that_train_alone_are_refused(asked: tuple[int, int], problem: str) -> None:
    with pytest.raises(ClusterError, match=problem):
        described(*asked).for_task(ALONE)


def test_more_members_that_train_alone_than_devices_are_refused() -> None:
    with pytest.raises(ClusterError, match=r"9 members side by side .* has 8 devices; add devices"):
        described().for_task(Declared(local_steps=LocalSteps(9, 50)))


@pytest.mark.parametrize("asked", [(0, 0), (1, 4)])
def test_members_that_train_alone_take_steps_of_whole_batches(asked: tuple[int, int]) -> None:
    found = described(*asked, layer_flops=1e8).for_task(ALONE)
    assert make_plan(found.cluster, found.costs(1, 4)).time.compute == pytest.approx(8 * 1e8 / 1e9)
    # Where one is lost, the others train its runs.
    assert found.costs(1, 3).layer_flops == pytest.approx(1e8 * 4 / 3)


def test_an_exchange_of_changes_is_spread_over_the_steps_of_a_round() -> None:
    found = described().for_task(ALONE)
    message = 1e7 / wire_ratios(parse_compression("none-g8"))[2]
    # To each of three others: told what comes, then sent it, over 10 ms and 100 Mbit/s.
    assert 50 * make_plan(found.cluster, found.costs(1, 4)).time.total == pytest.approx(3 * (0.02 + message / 12.5e6))


@pytest.mark.parametrize(("steps", "moments"), [(50, 2), (4, 2), (4, 0)])
def test_replicas_that_travel_longer_than_a_round_is_trained_hold_it_up(steps: int, moments: int) -> None:
    found = described(layer_flops=1e8).for_task(Declared(local_steps=LocalSteps(4, steps), moments=moments))
    travel = 3 * (1 + moments) * 1e7 / 12.5e6
    waiting = steps * make_plan(found.cluster, found.costs(1, 4)).time.stalls
    assert waiting == pytest.approx(max(0.0, travel - steps * 0.8))
    assert (waiting > 0) == (steps == 4 and moments == 2)


def test_a_round_s_waiting_counts_in_every_placement_tried() -> None:
    found = described(layer_flops=1e8).for_task(Declared(local_steps=LocalSteps(2, 1)))
    links = found.cluster.network
    links.bandwidth[0, 1] = links.bandwidth[1, 0] = 1e9
    plan = make_plan(found.cluster, found.costs(1, 2))
    assert sorted(plan.members) == ["a0", "a1"]
    assert plan.random_seconds > plan.time.total + plan.time.data_parallel


@pytest.fixture
def local_path(tmp_path: Path) -> Path:
    """A task file with local steps."""
    write_task(tmp_path / "task")
    path = tmp_path / "task" / "task.toml"
    path.write_text(template("task.toml").replace("[market]", "[local_steps]\nmembers = 4\nbits = 4\n\n[market]"))
    return path


def test_what_a_replica_is_follows_from_the_optimizer(local_path: Path) -> None:
    assert declared_by(read_task_file(local_path)) == Declared(local_steps=LocalSteps(4, 50, 4), moments=2)
    text = local_path.read_text().replace('"adamw"', '"sgd"')
    for momentum, moments in (("", 0), ("\nmomentum = 0.9", 1)):
        local_path.write_text(text.replace("learning_rate = 0.001", f"learning_rate = 0.001{momentum}"))
        assert declared_by(read_task_file(local_path)).moments == moments


def test_plan_command_plans_rounds_of_members_that_train_alone(
    cluster_path: Path, local_path: Path, tmp_path: Path
) -> None:
    text = CLUSTER.replace("stages = 2\nreplicas = 2\n", "layer_flops = 1e8\n")
    cluster_path.write_text(text.replace("region =", "flops = 1e9\nregion ="))
    out = tmp_path / "plan.toml"
    asked = ["plan", str(cluster_path), "--task", str(local_path), "--output", str(out)]
    said = CliRunner().invoke(group, asked)
    assert said.exit_code == 0, said.output
    assert "4 members that train alone, 50 steps at a time" in said.output
    assert "how their parameters changed in 4 bits" in said.output
    assert "50 such steps of each of the 4 members, 200 of the task's" in said.output
    printed = json.loads(CliRunner().invoke(group, [*asked, "--json"]).output)
    plan, rounds = read_plan(out), printed["round"]
    assert (plan.stages, plan.replicas, plan.compression) == (1, 4, "none-g4")
    assert (rounds["members"], rounds["inner_steps"]) == (4, 50)
    assert rounds["seconds"] == pytest.approx(50 * plan.time.total) == pytest.approx(50 * printed["step_seconds"])
    parts = (rounds["compute_seconds"], rounds["exchange_seconds"], rounds["waiting_seconds"])
    assert sum(parts) == pytest.approx(rounds["seconds"])
    assert rounds["compute_seconds"] == pytest.approx(50 * 0.8)


def test_plan_command_refuses_stages_for_members_that_train_alone(cluster_path: Path, local_path: Path) -> None:
    result = CliRunner().invoke(group, ["plan", str(cluster_path), "--task", str(local_path)])
    assert isinstance(result.exception, ClusterError)
    assert "stages is 2, and the task has [local_steps]" in str(result.exception)
