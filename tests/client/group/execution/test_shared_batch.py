"""Replicas of a stage that share the batch of a tolerant task: the step rewritten, divided, and trained."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from assay.engine.native.run import NativeRun
from assay.group.errors import PlacementError
from assay.group.execution.engines import NativeEngine
from assay.group.execution.native.expand import expand
from assay.group.execution.native.outline import outline
from assay.group.execution.native.shards import SharedBatch, share_batch
from assay.group.execution.partition import held_by
from assay.program.graph import Graph, Value
from assay.program.lowering import lower_nodes
from assay.program.operator import Array
from assay.program.optimizer import SGD
from assay.program.sections import Precision, build_program
from assay.program.trace import trace
from assay.training.task import Mode, TrainingTask

from .tasks import BATCH, SAMPLES, SEED, one_thread, run_stages, task_and_graph
from .test_declared_compression import compressed

STEPS = 12
NOISE = "mix.bias"  # of attention's keys: its gradient is nothing but rounding, which Adam makes as large as any


def trained(graph: Graph, task: TrainingTask) -> tuple[list[Array], float]:
    """State and loss after STEPS steps of a graph on one machine."""
    run = NativeRun(graph, task.data, task.seed)
    run.load(task.state)
    with one_thread():
        for number in range(STEPS):
            run.advance(number)
    return run.copy_state(), run.loss() or 0.0


def shared_step(graph: Graph, replicas: int) -> SharedBatch:
    """The step, rewritten."""
    expanded = expand(graph)
    return share_batch(expanded, lower_nodes(expanded), replicas)


class Model(nn.Module):
    """A classifier of vectors whose middle part is given."""

    def __init__(self, middle: Callable[[Model, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, 12), nn.Linear(12, 5)
        self.row, self.table = nn.Parameter(torch.randn(12)), nn.Embedding(12, 12)
        self.convolution, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4)
        self.cell = nn.LSTMCell(4, 12)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self, self.first(x)))


def _convolved(model: Model, x: Tensor) -> Tensor:
    made = functional.relu(model.norm(model.convolution(x.view(-1, 1, 3, 4))))
    return functional.max_pool2d(made, 2).flatten(1).repeat(1, 2)[:, :12]


def _unrolled(model: Model, x: Tensor) -> Tensor:
    hidden = memory = x.new_zeros(x.shape[0], 12)
    for part in x.view(-1, 3, 4).unbind(1):
        hidden, memory = model.cell(part, (hidden, memory))
    return hidden


def _attended(model: Model, x: Tensor) -> Tensor:
    parts = x.view(-1, 4, 3)
    weights = torch.softmax((parts @ parts.transpose(1, 2)).masked_fill(torch.ones(4, 4).triu(1) > 0, -9.0), -1)
    return (weights @ parts).flatten(1) + functional.normalize(x, dim=1)


MODELS: dict[str, Callable[[Model, Tensor], Tensor]] = {
    "group norm and pooling": _convolved,
    "an unrolled cell": _unrolled,
    "attention written out": _attended,
    "a parameter beside every sample": lambda model, x: x * model.row.unsqueeze(0).expand(x.shape[0], -1),
    "rows of a table": lambda model, x: x + model.table(x.argmax(1)),
    "a part put into another": lambda model, x: torch.slice_scatter(x, torch.tanh(x[:, :4]), 1, 2, 6),
    "a constant product": lambda model, x: (x.view(-1, 3, 4) @ torch.ones(4, 4).triu()).flatten(1),
    "dropout and statistics": lambda model, x: (
        functional.dropout(x, 0.2, model.training) / (x.std(1, keepdim=True) + 1)
    ),
}


def _written_out(made: Tensor, wanted: Tensor) -> Tensor:
    return (made - wanted).square().mean() + 0.01 * made.abs().sum(1).mean()


def _ignoring(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits, targets, ignore_index=0)


def _summed(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits, targets, reduction="sum") * 0.01


@cache
def small_task(name: str) -> tuple[TrainingTask, Graph]:
    """Tasks that differ in their loss, or in what the model does with its samples."""
    torch.manual_seed(4)
    inputs = torch.randn(SAMPLES, 6)
    labels, values = torch.randint(0, 3, (SAMPLES,)), torch.randn(SAMPLES, 3)
    classifier = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3))
    if name in MODELS:
        inputs, labels = torch.randn(SAMPLES, 12), torch.randint(0, 5, (SAMPLES,))
    losses = {
        **{each: (Model(middle), "cross_entropy", labels) for each, middle in MODELS.items()},
        "mean squared error": (classifier, "mse", values),
        "written out": (classifier, _written_out, values),
        "ignored labels": (classifier, _ignoring, labels),
        "a sum": (classifier, _summed, labels),
    }
    model, loss, targets = losses[name]
    traced = trace(model, loss, SGD(0.1, momentum=0.5), [inputs[:BATCH], targets[:BATCH]], SAMPLES)  # type: ignore[arg-type]
    data = (inputs.numpy(), targets.numpy().astype(np.int32) if targets.dtype == torch.int64 else targets.numpy())
    program = build_program(traced.graph, Precision.FP32)
    return TrainingTask(program, traced.initial_state, data, SEED, 40, 20, Mode.TOLERANT), traced.graph


def tasks(name: str) -> tuple[TrainingTask, Graph]:
    """A task by name, of either kind."""
    return task_and_graph(name, mode=Mode.TOLERANT) if name in ("mlp", "gpt") else small_task(name)


SMALL = ("mean squared error", "written out", "ignored labels", "a sum", *MODELS)


@pytest.mark.parametrize(
    ("name", "replicas"), [*((name, 2) for name in ("mlp", "gpt", *SMALL)), ("mlp", 8), ("gpt", 4), ("written out", 8)]
)
def test_a_shared_step_is_the_same_step(name: str, replicas: int) -> None:
    task, graph = tasks(name)
    state, loss = trained(shared_step(graph, replicas).graph, task)
    expected, expected_loss = trained(graph, task)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for descriptor, mine, theirs in zip(task.program.state, state, expected, strict=True):
        if NOISE not in descriptor.name:
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4, err_msg=descriptor.name)


@pytest.mark.parametrize("name", ["mlp", "gpt", "ignored labels"])
@pytest.mark.parametrize(("stages", "replicas"), [(1, 2), (2, 2), (1, 4)])
def test_members_compute_the_shared_step_to_the_bit(name: str, stages: int, replicas: int) -> None:
    task, graph = tasks(name)
    engine = NativeEngine(task, graph, 1, replicas=replicas)
    divided = engine.divide([1.0] * stages * replicas)
    (state,), sent, loss = run_stages(task, engine, divided, STEPS, STEPS)
    expected, expected_loss = trained(shared_step(graph, replicas).graph, task)
    assert loss == expected_loss
    for mine, theirs in zip(state, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert sent == STEPS * divided.bytes_per_step


@pytest.mark.parametrize("name", ["mlp", "gpt", *SMALL])
def test_a_replica_cuts_its_part_of_the_batch_into_pieces(name: str) -> None:
    task, graph = tasks(name)
    engine = NativeEngine(task, graph, 2, replicas=2)
    assert engine.plan.pieces.count == 2
    (state,), _, loss = run_stages(task, engine, engine.divide([1.0] * 4), STEPS, STEPS)
    expected, expected_loss = trained(shared_step(graph, 2).graph, task)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for descriptor, mine, theirs in zip(task.program.state, state, expected, strict=True):
        if NOISE not in descriptor.name:
            np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4, err_msg=descriptor.name)


@pytest.mark.parametrize("name", SMALL)
def test_pieces_of_a_batch_without_replicas_are_the_same_step(name: str) -> None:
    task, graph = small_task(name)
    engine = NativeEngine(task, graph, 4)
    (state,), _, _ = run_stages(task, engine, engine.divide([1.0, 1.0]), STEPS, STEPS)
    for mine, theirs in zip(state, trained(graph, task)[0], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_gradients_are_added_in_the_order_of_the_replicas() -> None:
    shared = shared_step(task_and_graph("mlp", mode=Mode.TOLERANT)[1], 4)
    added = [node for node in shared.graph.nodes if node.call == "aten.add.Tensor"]
    order = []
    for first, second in (node.arguments for node in added):
        assert isinstance(first, Value)
        assert isinstance(second, Value)
        order.append((shared.replica[first.node], shared.replica[second.node]))
    assert order == [(0, 1), (None, 2), (None, 3)] * (len(order) // 3)
    assert len(order) == 3 * 7  # three layers' weights and biases, and the loss


def test_gradients_and_parameters_cross_once_for_each_replica() -> None:
    task, graph = task_and_graph("mlp", mode=Mode.TOLERANT)
    divided = NativeEngine(task, graph, 1, replicas=4).divide([1.0] * 4)
    parameters = sum(entry.count for entry in task.program.state if not entry.name.startswith("momentum"))
    beside = 4 * 3  # the replicas' losses
    assert divided.bytes_per_step == 2 * 3 * 4 * parameters + beside


def test_every_replica_answers_for_a_part_of_the_parameters() -> None:
    task, graph = task_and_graph("gpt", mode=Mode.TOLERANT)
    divided = NativeEngine(task, graph, 1, replicas=4).divide([1.0] * 4)
    sizes = [sum(task.program.state[number].count for number in part.state) for part in divided.parts]
    assert min(sizes) > 0.5 * max(sizes)
    assert sorted(number for part in divided.parts for number in part.state) == list(range(len(task.program.state)))


def test_a_replica_counts_the_parameters_that_it_receives_and_its_part_of_the_batch_only() -> None:
    task, graph = task_and_graph("mlp", mode=Mode.TOLERANT)
    alone, engine = NativeEngine(task, graph, 1), NativeEngine(task, graph, 1, replicas=4)
    (whole,), shared = (held_by(each.program, each.divide([1.0] * n)) for each, n in ((alone, 1), (engine, 4)))
    parameters = sum(entry.count for entry in task.program.state if not entry.name.startswith("momentum"))
    assert sum(member.state for member in shared) == whole.state
    for member in shared:
        assert member.received >= 4 * parameters - member.state / 4  # its own half of the state are moments
    assert min(member.values for member in shared) < whole.values
    assert engine.divide([1.0] * 4, [float(member.total) for member in shared]) == engine.divide([1.0] * 4)


def test_all_replicas_do_the_same_amount_of_work() -> None:
    task, graph = task_and_graph("gpt", mode=Mode.TOLERANT)
    works = [part.work for part in NativeEngine(task, graph, 1, replicas=4).divide([1.0] * 4).parts]
    assert max(works) < 1.05 * min(works)


def test_a_step_that_has_to_see_all_samples_at_once_is_not_shared() -> None:
    for graph, reader in (
        (task_and_graph("cnn", mode=Mode.TOLERANT)[1], "aten._native_batch_norm_legit_functional.default"),
        (compressed("aqsgd-4-8")[1], "aten.index_select.default"),  # the memory of all samples is one tensor
    ):
        plan = outline(graph, 1, replicas=2)
        assert plan.shared is None
        assert plan.not_shared == f"{reader} needs all samples at once"
    task, graph = task_and_graph("cnn", mode=Mode.TOLERANT)
    engine = NativeEngine(task, graph, 1, replicas=2)
    (state,), _, _ = run_stages(task, engine, engine.divide([1.0] * 4), STEPS, STEPS)  # by layers then
    for mine, theirs in zip(state, trained(graph, task)[0], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_batch_that_the_replicas_do_not_divide_is_not_shared() -> None:
    plan = outline(task_and_graph("mlp", mode=Mode.TOLERANT)[1], 1, replicas=3)
    assert plan.shared is None
    assert plan.not_shared == "3 replicas cannot have equal parts of a batch of 8"


def test_members_that_are_no_whole_number_of_stages_are_refused() -> None:
    task, graph = task_and_graph("mlp", mode=Mode.TOLERANT)
    with pytest.raises(PlacementError, match="3 members cannot be 2 replicas"):
        NativeEngine(task, graph, 1, replicas=2).divide([1.0] * 3)


@pytest.mark.parametrize("name", ["direct-4-8", "tile-8-8"])
def test_compressed_boundaries_stay_compressed_where_the_batch_is_shared(name: str) -> None:
    task, graph = compressed(name)
    engine = NativeEngine(task, graph, 1, replicas=2)
    assert engine.plan.shared is not None
    divided = engine.divide([1.0] * 4)
    (state,), sent, _ = run_stages(task, engine, divided, task.steps, task.steps)
    assert sent < task.steps * divided.bytes_per_step  # that is in full
    run = NativeRun(engine.plan.graph, task.data, task.seed)
    run.load(task.state)
    with one_thread():
        for number in range(task.steps):
            run.advance(number)
    for mine, theirs in zip(state, run.copy_state(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
