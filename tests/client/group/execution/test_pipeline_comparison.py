from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch._C._distributed_c10d import TCPStore

import assay.bench.group_execution as bench
from assay.bench.torch_pipeline import layered, workload_of
from assay.engine.native.run import NativeRun
from assay.group.errors import GroupMessageError
from assay.group.execution.engines import NativeEngine
from assay.training.task import Mode


def test_both_pipelines_compute_the_same_step() -> None:
    task, graph = bench.gpt_task(Mode.TOLERANT)
    module = bench.gpt_module()
    cut = [layered(bench.gpt_module()).stage((2, 2), stage) for stage in range(2)]
    sizes = [sum(parameter.numel() for parameter in stage.parameters()) for stage in cut]
    assert sum(sizes) == sum(parameter.numel() for parameter in module.parameters())
    work = workload_of(task)
    model = layered(module).whole()
    optimizer = work.optimizer(list(model.parameters()))
    run = NativeRun(graph, task.data, task.seed)
    run.load(task.state)
    for number in range(3):
        chosen = work.order(number)
        loss = work.loss(model(work.inputs[chosen]), work.targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.advance(number)
        assert run.loss() == pytest.approx(float(loss.detach()), rel=1e-5)
    assert torch.equal(cut[1](cut[0](work.inputs[:2])), layered(bench.gpt_module()).whole()(work.inputs[:2]))


def _reports(seconds: float, loss: float, end: float) -> list[dict[str, Any]]:
    own = {"step_seconds": seconds, "segment_end_seconds": end, "last_step_sent_bytes": 4, "loss": None}
    return [own | {"step_seconds": seconds / 2}, own | {"loss": loss}]


def test_pipelines_are_measured_in_turn_and_the_least_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: list[str] = []
    times = {"two_pieces": [3.0, 2.0], "two_signed": [2.5, 2.75], "torch_pipeline": [4.0, 5.0]}
    losses = {"two_pieces": 2.0, "two_signed": 2.0, "torch_pipeline": 2.0001}

    def run(*_arguments: Any, signed: bool, trainer: str, **_settings: Any) -> list[dict[str, Any]]:
        kind = "torch_pipeline" if trainer == bench.TORCH_PIPELINE else "two_signed" if signed else "two_pieces"
        kinds.append(kind)
        return _reports(times[kind][kinds.count(kind) - 1], losses[kind], 0.5 if signed else 0.25)

    monkeypatch.setattr(bench, "run_local_group", run)
    found = bench.compare_pipelines(lambda _: None, "cpu", 2)
    assert kinds == ["two_pieces", "two_signed", "torch_pipeline", "torch_pipeline", "two_signed", "two_pieces"]
    assert found["step_seconds"] == {"two_pieces": 2.0, "two_signed": 2.5, "torch_pipeline": 4.0}
    assert (found["pipeline_ratio"], found["signed_overhead"]) == (2.0, 0.25)
    assert found["segment_end_seconds"] == {"two_pieces": 0.25, "two_signed": 0.5}
    kinds.clear()
    assert "pipeline_ratio" not in bench.compare_pipelines(lambda _: None, "cuda", 1)
    kinds.clear()
    losses["torch_pipeline"] = 2.1
    with pytest.raises(GroupMessageError, match="do not train the same"):
        bench.compare_pipelines(lambda _: None, "cpu", 1)


@pytest.mark.slow
def test_pipelines_and_signed_members_train_as_processes() -> None:
    found = bench.compare_pipelines(lambda _: None, "cpu", 1)
    assert set(found["step_seconds"]) == {"two_pieces", "two_signed", "torch_pipeline"}
    assert found["pipeline_ratio"] > 0
    assert found["sent"] == [4 * bench.BATCH * bench.TIME * bench.WIDTH] * 2
    assert 0 < found["segment_end_seconds"]["two_pieces"] < 60


def test_a_member_hashes_on_as_many_threads_as_it_is_given() -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    orders = {
        "name": "ann", "generation": 0, "store_host": "127.0.0.1", "store_port": store.port, "interface": "lo",
        "timeout_seconds": 30, "threads": 3,
    }  # fmt: skip
    code = (
        "import json, sys, torch; from assay.engine.cpu import isa\n"
        "from assay.group.generation import join_generation\n"
        "store = join_generation(json.loads(sys.argv[1]), ('ann',)); print(isa.threads(), torch.get_num_threads())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    found = subprocess.run(
        [sys.executable, "-c", code, json.dumps(orders)], capture_output=True, text=True, env=environment, timeout=120
    )
    assert found.stdout.split() == ["3", "3"], found.stderr


def test_each_of_two_stages_has_half_of_the_layers() -> None:
    task, graph = bench.gpt_task(Mode.TOLERANT)
    engine = NativeEngine(task, graph, 4)
    divided = engine.divide([1.0, 1.0])
    for part in divided.parts:
        nodes = {engine.plan.values[unit].node for unit in part.operators}
        calls = [engine.plan.graph.nodes[node].call for node in nodes]
        assert calls.count("aten._scaled_dot_product_flash_attention_for_cpu.default") == bench.LAYERS // 2
