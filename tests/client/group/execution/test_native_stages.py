"""Stages that train a tolerant task with PyTorch's kernels, beside the native run of one machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from assay.engine.native.attention import FusedAttention, as_tensor
from assay.engine.native.run import NativeRun
from assay.group.errors import PlacementError
from assay.group.execution.engines import NativeEngine
from assay.group.execution.native.expand import expand
from assay.group.execution.native.outline import outline
from assay.group.execution.native.pieces import find_node_pieces
from assay.group.execution.native.stage import NativeStage
from assay.group.execution.partition import Partition
from assay.group.execution.schedule import WHOLE, Phase, StageSchedule
from assay.program.graph import Graph, StateInput, Value
from assay.program.lowering import lower_nodes
from assay.program.operator import Array
from assay.program.optimizer import SGD, AdamW
from assay.program.sections import Precision
from assay.program.trace import trace
from assay.training.task import Mode

from .tasks import BATCH, SAMPLES, one_thread, run_stages, task_and_graph

STEPS = 20


def run_alone(name: str, precision: Precision = Precision.FP32) -> tuple[list[Array], float]:
    """State and loss after STEPS steps of one machine's native run."""
    task, graph = task_and_graph(name, mode=Mode.TOLERANT)
    run = NativeRun(graph, task.data, task.seed, "cpu", precision)
    run.load(task.state)
    with one_thread():
        for number in range(STEPS):
            run.advance(number)
    loss = run.loss()
    assert loss is not None
    return run.copy_state(), loss


def farthest(state: Sequence[Array], other: Sequence[Array]) -> float:
    """The largest difference of a tensor, relative to its size; one that only rounding moves has none to speak of (the
    bias of a convolution before batch norm)."""
    pairs = zip(state, other, strict=True)
    return max(float(np.linalg.norm(a.astype(float) - b) / (np.linalg.norm(b) + 1e-3)) for a, b in pairs)


@pytest.mark.parametrize("name", ["mlp", "cnn", "gpt"])
@pytest.mark.parametrize(("stages", "pieces"), [(1, 1), (2, 4), (3, 2)])
def test_stages_train_as_one_machine_does(name: str, stages: int, pieces: int) -> None:
    task, graph = task_and_graph(name, mode=Mode.TOLERANT)
    expected, expected_loss = run_alone(name)
    engine = NativeEngine(task, graph, pieces)
    divided = engine.divide([1.0] * stages)
    (state,), sent, loss = run_stages(task, engine, divided, STEPS, STEPS)
    assert farthest(state, expected) < 1e-5
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert sent == STEPS * divided.bytes_per_step


def test_a_whole_batch_in_one_piece_gives_the_very_bits() -> None:
    task, graph = task_and_graph("gpt", mode=Mode.TOLERANT)
    engine = NativeEngine(task, graph, 1)
    (state,), _, _ = run_stages(task, engine, engine.divide([1.0, 1.0]), STEPS, STEPS)
    for mine, theirs in zip(state, run_alone("gpt")[0], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_mixed_precision_stages_stay_close_to_one_machine() -> None:
    task, graph = task_and_graph("mlp", mode=Mode.TOLERANT)
    low = type(task)(
        task.program, task.state, task.data, task.seed, task.steps, task.interval, task.mode, Precision.BF16
    )
    engine = NativeEngine(low, graph, 2)
    (state,), _, _ = run_stages(low, engine, engine.divide([1.0, 1.0]), STEPS, STEPS)
    in_bf16, in_fp32 = run_alone("mlp", Precision.BF16)[0], run_alone("mlp")[0]
    assert farthest(state, in_bf16) < 0.05
    assert farthest(state, in_fp32) > 1e-4  # it is not float32 that was trained


OTHER, CPU = torch.device("cpu", 0), torch.device("cpu")
"""A device that stands for one without the recorded attention kernel, and the processor as it is."""


class OnlyTensors(NativeStage):
    """Keeps of a phase what the graph records and nothing else, as where a value comes from another member."""

    def _run(self, phase: Phase, step: int) -> None:
        super()._run(phase, step)
        self._values = {key: as_tensor(value) for key, value in self._values.items()}


class Members(NativeEngine):
    """Stages on devices that differ."""

    devices: tuple[torch.device, ...] = ()
    kind = NativeStage

    def stage(self, divided: Partition, schedule: StageSchedule) -> NativeStage:
        task, device = self.task, self.devices[schedule.stage]
        return self.kind(self.plan, divided, schedule, task.data, task.seed, device, task.precision)


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """`OTHER` has no recorded attention kernel; no inference mode, as on CUDA."""
    monkeypatch.setattr("assay.engine.native.attention.has_recorded_attention", lambda device: device.index is None)
    monkeypatch.setattr("torch.inference_mode", torch.no_grad)


@pytest.mark.usefixtures("fused")
@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize("devices", [(OTHER, OTHER), (CPU, OTHER), (OTHER, CPU)])
@pytest.mark.parametrize(
    ("backend", "kind"),
    [
        (SDPBackend.FLASH_ATTENTION, NativeStage),
        (SDPBackend.FLASH_ATTENTION, OnlyTensors),
        (SDPBackend.MATH, NativeStage),
    ],
)
def test_members_with_other_attention_kernels_train_as_one_machine_does(
    pieces: int, devices: tuple[torch.device, ...], backend: SDPBackend, kind: type[NativeStage]
) -> None:
    task, graph = task_and_graph("gpt", mode=Mode.TOLERANT)
    expected, expected_loss = run_alone("gpt")
    engine = Members(task, graph, pieces)
    engine.devices, engine.kind = devices, kind
    with sdpa_kernel(backend):
        (state,), _, loss = run_stages(task, engine, engine.divide([1.0, 1.0]), STEPS, STEPS)
    # A key's bias has no gradient but rounding, which AdamW amplifies.
    moved = [n for n, entry in enumerate(task.program.state) if "mix.bias" not in entry.name]
    assert farthest([state[n] for n in moved], [expected[n] for n in moved]) < 1e-4
    assert loss == pytest.approx(expected_loss, rel=1e-4)


def test_attention_is_sent_and_cut_as_its_log_sum_exp() -> None:
    task, graph = task_and_graph("gpt", mode=Mode.TOLERANT)
    engine = NativeEngine(task, graph, 4)
    divided = engine.divide([1.0])
    (schedule,) = engine.schedules(divided)
    stage = NativeStage(engine.plan, divided, schedule, task.data, task.seed)
    forward = [n for n, node in enumerate(engine.plan.graph.nodes) if node.call.endswith("_for_cpu.default")]
    log_sum = Value(forward[0], 1)
    assert log_sum in engine.plan.parts.aligned
    done = FusedAttention.of(*torch.randn(3, BATCH, 2, 6, 6), None, True, None)
    stage._values[log_sum, WHOLE] = done
    quarter = BATCH // 4
    torch.testing.assert_close(stage._value(log_sum, 1), done.log_sum_exp()[quarter : 2 * quarter])
    for piece in range(4):
        stage._values[log_sum, piece] = FusedAttention.of(
            *(part[piece * quarter : (piece + 1) * quarter] for part in (done.query, done.key, done.value)),
            None, True, None,
        )  # fmt: skip
    del stage._values[log_sum, WHOLE]
    torch.testing.assert_close(stage._value(log_sum, WHOLE), done.log_sum_exp())


@cache
def pieces_of(name: str) -> tuple[Graph, frozenset[str], frozenset[str]]:
    """The expanded graph of a task, the calls that are split in two, and those that are not."""
    graph = expand(task_and_graph(name, mode=Mode.TOLERANT)[1])
    split = find_node_pieces(graph, lower_nodes(graph), 2).split
    calls = {Value(n, o): node.call for n, node in enumerate(graph.nodes) for o in range(len(node.outputs))}
    return graph, frozenset(calls[v] for v in split), frozenset(c for v, c in calls.items() if v not in split)


def test_layers_are_split_and_what_folds_over_the_batch_is_not() -> None:
    _, split, whole = pieces_of("gpt")
    assert {"aten.addmm.default", "aten._scaled_dot_product_flash_attention_for_cpu.default"} <= split
    assert {"aten.nll_loss_forward.default", "aten.sum.dim_IntList", "aten.embedding_dense_backward.default"} <= whole
    _, split, whole = pieces_of("cnn")
    assert {"aten.convolution.default", "aten.max_pool2d_with_indices.default"} <= split
    assert "aten._native_batch_norm_legit_functional.default" in whole - split


def test_one_output_of_a_call_is_split_and_its_other_ones_are_not() -> None:
    graph = expand(task_and_graph("gpt", mode=Mode.TOLERANT)[1])
    split = find_node_pieces(graph, lower_nodes(graph), 2).split
    backward = [n for n, node in enumerate(graph.nodes) if node.call == "aten.native_layer_norm_backward.default"]
    assert backward
    for number in backward:
        assert [Value(number, output) in split for output in range(3)] == [True, False, False]


class MiddleBatch(nn.Module):
    """Keeps its batch in the second dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        moved = x.view(x.shape[0], 2, 4).transpose(0, 1).contiguous()
        return self.layer(moved).transpose(0, 1).reshape(x.shape[0], 6)


def test_a_batch_in_another_dimension_is_computed_whole_and_right() -> None:
    torch.manual_seed(1)
    data = (torch.randn(SAMPLES, 8), torch.randint(0, 6, (SAMPLES,)))
    traced = trace(MiddleBatch(), "cross_entropy", SGD(0.1), [part[:BATCH] for part in data], SAMPLES)
    plan = outline(traced.graph, 4)
    products = [v for v in plan.values if plan.graph.nodes[v.node].call in ("aten.addmm.default", "aten.mm.default")]
    assert products
    assert not plan.parts.split & set(products)


def test_clipping_and_updates_are_taken_apart_by_parameter() -> None:
    graph, _, _ = pieces_of("gpt")
    updates = [node for node in graph.nodes if node.call == "assay.adamw"]
    assert all(len(node.arguments[0]) == 1 for node in updates)  # type: ignore[arg-type]
    assert not any(node.call == "assay.clip" for node in graph.nodes)
    recorded = task_and_graph("gpt", mode=Mode.TOLERANT)[1]
    assert len(updates) == sum(len(node.arguments[0]) for node in recorded.nodes if node.call == "assay.adamw")  # type: ignore[arg-type]


def test_parameters_stay_with_their_moments() -> None:
    task, graph = task_and_graph("gpt", mode=Mode.TOLERANT)
    divided = NativeEngine(task, graph, 2).divide([1.0, 1.0, 1.0])
    places = {entry.name: number for number, entry in enumerate(task.program.state)}
    for name, number in places.items():
        for prefix in ("first_moment.", "second_moment."):
            if prefix + name in places:
                assert divided.owner[places[prefix + name]] == divided.owner[number]


def test_a_step_that_moves_state_to_another_place_is_refused() -> None:
    _, graph = task_and_graph("cnn", mode=Mode.TOLERANT)
    following = list(graph.next_state)
    following[8] = StateInput(9)
    moved = Graph(graph.state, graph.data, graph.constants, graph.nodes, tuple(following), graph.loss)
    with pytest.raises(PlacementError, match="takes '.*running_mean' over from another tensor"):
        outline(moved, 1)


def test_an_outline_is_as_much_work_as_the_program() -> None:
    for name in ("mlp", "gpt"):
        task, graph = task_and_graph(name, mode=Mode.TOLERANT)
        exact = sum(operator.work for operator in task.program.sections[0].operators)
        native = sum(operator.work for operator in outline(graph, 1).program.sections[0].operators)
        assert exact / 2 < native < 2 * exact


def test_a_gradient_is_not_the_work_of_the_whole_forward_pass() -> None:
    _, graph = task_and_graph("gpt", mode=Mode.TOLERANT)
    plan = outline(graph, 1)
    section = plan.program.sections[0]
    (unit,) = [u for u, v in enumerate(plan.values) if "log_softmax_backward" in plan.graph.nodes[v.node].call]
    products = [
        section.operators[u].work
        for u, v in enumerate(plan.values)
        if plan.graph.nodes[v.node].call == "aten.mm.default"
    ]
    assert 0 < section.operators[unit].work < max(products)


@pytest.mark.parametrize("name", ["gpt", "cnn"])
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_no_call_is_made_twice_for_the_same_samples(name: str, stages: int) -> None:
    task, graph = task_and_graph(name, mode=Mode.TOLERANT)
    engine = NativeEngine(task, graph, 4)
    several = 0
    for schedule in engine.schedules(engine.divide([1.0] * stages)):
        made = [
            (node, phase.slot)
            for phase in schedule.phases
            for node in {engine.plan.values[unit].node for unit in phase.operators}
        ]
        assert len(made) == len(set(made))
        several += sum(len(phase.operators) for phase in schedule.phases) - len(made)
    assert several  # calls have several results


def test_adamw_continues_from_a_checkpoint_as_if_nothing_had_happened() -> None:
    torch.manual_seed(2)
    data = (torch.randn(SAMPLES, 7), torch.randint(0, 5, (SAMPLES,)))
    model = nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 5))
    optimizer = AdamW(0.01, clip_norm=0.5)
    traced = trace(model, "cross_entropy", optimizer, [part[:BATCH] for part in data], SAMPLES)
    task, _ = task_and_graph("mlp", mode=Mode.TOLERANT)
    engine = NativeEngine(task, traced.graph, 1)
    divided = engine.divide([1.0])
    arrays = tuple(part.numpy().astype(np.int32) if part.dtype == torch.int64 else part.numpy() for part in data)
    (schedule,) = engine.schedules(divided)
    from .tasks import QueueChannel

    through, resumed = (NativeStage(engine.plan, divided, schedule, arrays, task.seed) for _ in range(2))
    through.load(dict(enumerate(traced.initial_state)))
    for number in range(10):
        through.step(number, QueueChannel({}))
        if number == 4:
            resumed.load({place: array.copy() for place, array in through.state.items()})
    for number in range(5, 10):
        resumed.step(number, QueueChannel({}))
    for number, array in through.state.items():
        np.testing.assert_array_equal(array, resumed.state[number])
