"""Simulated networks, measured links, and groups that lose a member."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from planned_group import planned
from torch._C._distributed_c10d import TCPStore

from assay.cli.group import group
from assay.group.checkpoint import MemberParts, group_state_root, tensor_roots
from assay.group.cluster_file import parse_cluster
from assay.group.errors import ClusterError, SimulationError
from assay.group.measure import measure_link, measurement_server
from assay.group.pipeline.pacing import LinkPacer
from assay.group.scenarios import load_scenario, scenario_names
from assay.group.session import SessionOrders
from assay.group.simulate.member import Trial, character_workload
from assay.group.simulate.namespaces import namespace_network, namespaces_permitted
from assay.group.simulate.run import simulated_network

SMALL = {"batch": 16, "samples": 32, "context": 16, "width": 16, "layers": 2}
needs_namespaces = pytest.mark.skipif(not namespaces_permitted(), reason="network namespaces are not permitted here")


def test_every_scenario_loads() -> None:
    sizes = {name: load_scenario(name).cluster.network.size for name in scenario_names()}
    assert sizes["world_wide"] == sizes["spot"] == sizes["data_center"] == 64
    assert (sizes["slow_link"], sizes["slow_links"]) == (2, 4)
    with pytest.raises(ClusterError, match="choose one of"):
        load_scenario("nowhere")


def test_a_measured_link_serves_more_than_one_peer() -> None:
    with measurement_server("127.0.0.1", 0) as port:
        links = [measure_link("127.0.0.1", port, 1 << 20) for _ in range(2)]
    assert all(0 < link.delay_seconds < 0.5 and link.bandwidth > 1e6 for link in links)
    with pytest.raises(ClusterError, match="measure --serve"):
        measure_link("127.0.0.1", port)


def test_measure_prints_what_a_cluster_file_takes() -> None:
    import tomllib

    with measurement_server("127.0.0.1", 0) as port:
        result = CliRunner().invoke(group, ["measure", "--name", "ann", f"ben=127.0.0.1:{port}", "--megabytes", "1"])
    assert result.exit_code == 0, result.output
    entries = tomllib.loads(result.output)
    entries["device"].append({"name": "ben"})
    parsed = parse_cluster({**entries, "program": {"activation_bytes": 1.0, "parameter_bytes": 1.0}})
    assert parsed.cluster.devices[0].flops > 1e8


def test_a_held_message_takes_as_long_as_its_link() -> None:
    pacer = LinkPacer([0.0, 0.05], [1e15, 1e6])
    started = time.monotonic()
    messages = [pacer.stamp(torch.arange(250).byte().repeat(200)) for _ in range(2)]
    for message in messages:
        assert torch.equal(pacer.release(1, message), torch.arange(250).byte().repeat(200))
    # Two messages of 50 kB at 1 MB/s one after the other, and one delay.
    assert time.monotonic() - started >= 0.15


@needs_namespaces
def test_a_namespace_link_has_the_delay_and_bandwidth_it_should() -> None:
    network = load_scenario("slow_link").cluster.network
    program = (
        "import sys, time\n"
        "from assay.group.measure import measure_link, measurement_server\n"
        "if sys.argv[1] == 'serve':\n"
        "    with measurement_server('0.0.0.0', 29555):\n"
        "        time.sleep(60)\n"
        "link = measure_link('10.77.0.1', 29555, 4 << 20)\n"
        "print(link.delay_seconds, link.bandwidth)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with namespace_network(network) as namespaces:
        server = subprocess.Popen(namespaces.command(0, [sys.executable, "-c", program, "serve"]), env=environment)
        try:
            for _ in range(60):
                client = subprocess.run(
                    namespaces.command(1, [sys.executable, "-c", program, "measure"]),
                    env=environment, capture_output=True, text=True, check=False,
                )  # fmt: skip
                if client.returncode == 0:
                    break
        finally:
            server.kill()
            server.wait()
    delay, bandwidth = (float(word) for word in client.stdout.split())
    assert 0.050 <= delay < 0.075
    assert 0.6 * 12.5e6 < bandwidth < 1.2 * 12.5e6


def test_a_trial_counts_real_bytes_and_agrees_in_all_modes() -> None:
    network = load_scenario("fast_link").cluster.network
    trial = Trial((1, 1), microbatches=2, batch=16, samples=16, context=16, width=16, steps=2, compression="aqsgd-4-8")
    modes = ["held", "namespaces"] if namespaces_permitted() else ["held"]
    reports = []
    for mode in modes:
        with simulated_network(network, mode) as simulated:
            reports.append(simulated.run(trial, 120))
    for report in reports:
        assert report.losses == reports[0].losses
        assert len(report.step_seconds) == 2
        assert report.forward_uncompressed == 2 * 16 * 16 * 16 * 4
        assert report.forward_uncompressed / report.forward_bytes > 7.5
        assert report.backward_uncompressed / report.backward_bytes > 3.9


def test_a_trial_needs_enough_devices_and_a_known_mode() -> None:
    network = load_scenario("slow_link").cluster.network
    with simulated_network(network, "held") as simulated, pytest.raises(SimulationError, match="needs 3 members"):
        simulated.run(Trial((1, 1, 1)))
    with pytest.raises(SimulationError, match="no simulation mode"), simulated_network(network, "carrier pigeon"):
        pass


def one_machine_root(steps: int) -> str:
    """State root after the same steps on one machine, whole batches."""
    workload = character_workload(**SMALL)
    model = workload.build().whole()
    optimizer = workload.optimizer(list(model.parameters()))
    torch.set_num_threads(1)
    for step in range(steps):
        numbers = workload.order(step)
        loss = workload.loss(model(workload.inputs[numbers]), workload.targets[numbers])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return group_state_root([tensor_roots(MemberParts(model, optimizer, [], None))]).hex()


def group_orders(folder: Path, port: int, **changes: object) -> SessionOrders:
    planned(folder, ("ann", "ben", "cho"), 2, layers=2)
    orders = SessionOrders(
        name="", cluster=str(folder / "cluster.toml"), plan=str(folder / "plan.toml"), directory=str(folder / "run"),
        store_host="127.0.0.1", store_port=port, steps=40, checkpoint_interval=5,
        factory="assay.group.simulate.member:character_workload", arguments=dict(SMALL), grace_seconds=5,
        timeout_seconds=60, deadline_seconds=200,
    )  # fmt: skip
    return replace(orders, **changes)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_group_that_loses_a_member_ends_with_one_machines_state(tmp_path: Path, how: signal.Signals) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    changes = {"timeout_seconds": 15.0} if how == signal.SIGSTOP else {}
    orders = group_orders(tmp_path, store.port, **changes)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    sessions = {}
    try:
        for name in ("ann", "ben", "cho"):
            path = tmp_path / f"{name}.json"
            path.write_text(json.dumps(asdict(replace(orders, name=name))))
            sessions[name] = subprocess.Popen(
                [sys.executable, "-m", "assay.group.session", str(path)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
            )  # fmt: skip
        ends = time.monotonic() + 100
        while not (store.check(["progress/ann"]) and int(store.get("progress/ann")) >= 7):
            assert time.monotonic() < ends, "training did not begin"
            time.sleep(0.02)
        os.killpg(sessions["ann"].pid, how)
        outcomes = {}
        for name in ("ben", "cho"):
            output, problems = sessions[name].communicate(timeout=200)
            assert sessions[name].returncode == 0, problems
            outcomes[name] = json.loads(output)
    finally:
        for session in sessions.values():
            if session.poll() is None:
                os.killpg(session.pid, signal.SIGKILL)
            session.wait()
    for outcome in outcomes.values():
        assert outcome["generations"] == 2
        assert sorted(outcome["members"]) == ["ben", "cho"]
        assert outcome["report"]["first_step"] >= 5
        assert outcome["report"]["state_root"] == one_machine_root(40)
