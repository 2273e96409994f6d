"""Replicas that a task declares: gradients compressed with error feedback as part of the step, on one machine and in a
group."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import nn

from assay.arithmetic.permutation import permutation
from assay.commitments.execution import state_root
from assay.engine.cpu.device import CpuDevice
from assay.engine.native.run import NativeRun
from assay.group.compression.choice import declared_gradient_ratio, parse_compression
from assay.group.compression.crossing import compress_boundaries
from assay.group.compression.error_feedback import ErrorFeedback
from assay.group.errors import CompressionError, MemoryLimitError, PlacementError
from assay.group.execution.engines import NativeEngine
from assay.group.execution.local import run_local_group
from assay.group.execution.native.gradients import LEAST_ELEMENTS
from assay.group.execution.native.outline import outline
from assay.group.execution.native.replicas import with_replicas
from assay.group.execution.packing import SHORT
from assay.group.execution.partition import Partition, held_by
from assay.group.execution.schedule import bytes_in_step
from assay.program.errors import GraphError
from assay.program.graph import Graph, Input, Node, Value, dump_graph, load_graph, with_inputs
from assay.program.interpreter import Inputs, run_section
from assay.program.lowering import lower_step
from assay.program.operator import Array, Role, Source
from assay.program.optimizer import GRADIENT_ERROR, SGD, AdamW, Optimizer
from assay.program.reference import StepContext
from assay.program.sections import Precision, build_program
from assay.program.trace import TracedTask, trace
from assay.training.canonical import CanonicalRun
from assay.training.forgeries import Kind
from assay.training.profile import profile
from assay.training.replay import Replayer
from assay.training.task import Mode, TrainingTask

from .tasks import one_thread, run_stages

SAMPLES, BATCH, FEATURES, WIDTH, CLASSES, SEED, STEPS = 24, 8, 16, 128, 10, 5, 10


@cache
def recorded(optimizer: Optimizer) -> tuple[TracedTask, tuple[Array, ...]]:
    """A classifier's step, as one machine trains it alone, and its data."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh())
    model.append(nn.Linear(WIDTH, CLASSES))
    inputs, labels = torch.randn(SAMPLES, FEATURES), torch.randint(0, CLASSES, (SAMPLES,))
    traced = trace(model, "cross_entropy", optimizer, [inputs[:BATCH], labels[:BATCH]], SAMPLES)
    return traced, (inputs.numpy(), labels.numpy().astype(np.int32))


ADAM = AdamW(0.002, clip_norm=1.0)


@cache
def compressed(replicas: int, bits: int, optimizer: Optimizer = ADAM) -> tuple[TrainingTask, Graph]:
    """The same with replicas."""
    traced, data = recorded(optimizer)
    return task_of(with_replicas(traced, replicas, bits), data)


def task_of(traced: TracedTask, data: tuple[Array, ...]) -> tuple[TrainingTask, Graph]:
    """A tolerant task of a step."""
    graph = load_graph(dump_graph(traced.graph))
    program = build_program(graph, Precision.FP32)
    return TrainingTask(program, traced.initial_state, data, SEED, STEPS, 5, Mode.TOLERANT), graph


class Tied(nn.Module):
    """Embedded words, a hidden layer with dropout, and the embedding again as the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(24, 48), nn.LayerNorm(48)
        self.hidden, self.last = nn.Linear(48, 48), nn.Linear(48, 24, bias=False)
        self.last.weight = self.words.weight

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.words(words))
        x = x + functional.dropout(torch.tanh(self.hidden(x)), 0.1, self.training)
        return self.last(x).flatten(0, 1)


def _word_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits, targets.reshape(-1), ignore_index=0)


@cache
def tied(replicas: int, bits: int) -> tuple[TrainingTask, Graph]:
    """A model with tied weights, dropout, targets that do not count, and clipping."""
    torch.manual_seed(3)
    data = (torch.randint(0, 24, (SAMPLES, 6)), torch.randint(0, 24, (SAMPLES, 6)))
    optimizer = AdamW(0.01, weight_decay=0.05, clip_norm=1.0)
    traced = trace(Tied(), _word_loss, optimizer, [part[:BATCH] for part in data], SAMPLES)
    arrays = tuple(part.numpy().astype(np.int32) for part in data)
    return task_of(with_replicas(traced, replicas, bits), arrays)


def trained(task: TrainingTask, graph: Graph, steps: int = STEPS) -> tuple[list[Array], float]:
    """State and loss after some steps of a graph on one machine."""
    run = NativeRun(graph, task.data, task.seed)
    run.load(task.state)
    with one_thread():
        for number in range(steps):
            run.advance(number)
    return run.copy_state(), run.loss() or 0.0


def names(task: TrainingTask) -> list[str]:
    return [entry.name for entry in task.program.state]


TASKS = {"mlp": compressed, "tied": tied}


class ByHand:
    """The loop that a user would write: parts of each batch, and `ErrorFeedback` between them."""

    def __init__(self, task: TrainingTask, replicas: int, bits: int) -> None:
        self.inputs, self.labels = (torch.from_numpy(part) for part in task.data)
        self.weights = {
            name: torch.from_numpy(tensor.copy()).requires_grad_()
            for name, tensor in zip(names(task), task.state, strict=True)
            if name.startswith(("0.", "2.", "4."))
        }
        self.optimizer = torch.optim.AdamW(self.weights.values(), lr=0.002, weight_decay=ADAM.weight_decay)
        large = {name: weight for name, weight in self.weights.items() if weight.numel() >= LEAST_ELEMENTS}
        self.feedback = [
            {name: ErrorFeedback(weight.numel(), bits) for name, weight in large.items()} for _ in range(replicas)
        ]

    def step(self, number: int) -> None:
        places = range(number * BATCH, (number + 1) * BATCH)
        chosen = [permutation(SEED, place // SAMPLES, place % SAMPLES, SAMPLES) for place in places]
        size = BATCH // len(self.feedback)
        totals = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        for replica, feedback in enumerate(self.feedback):
            part = chosen[replica * size : (replica + 1) * size]
            found = torch.autograd.grad(self._loss(part), list(self.weights.values()))
            for name, gradient in zip(self.weights, found, strict=True):
                if name in feedback:
                    message = feedback[name].encode(gradient.reshape(-1))
                    gradient = feedback[name].decode(message).reshape(gradient.shape)
                totals[name] += gradient
        for name, weight in self.weights.items():
            weight.grad = totals[name]
        nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        self.optimizer.step()

    def _loss(self, part: list[int]) -> torch.Tensor:
        x = self.inputs[part]
        for layer in ("0", "2", "4"):
            x = x @ self.weights[f"{layer}.weight"].T + self.weights[f"{layer}.bias"]
            x = torch.tanh(x) if layer != "4" else x
        return functional.cross_entropy(x, self.labels[part].long(), reduction="sum") / BATCH


@pytest.mark.parametrize(("replicas", "bits"), [(2, 4), (2, 8), (4, 3)])
def test_the_step_is_what_a_loop_with_error_feedback_computes(replicas: int, bits: int) -> None:
    task, graph = compressed(replicas, bits)
    state = dict(zip(names(task), trained(task, graph)[0], strict=True))
    loop = ByHand(task, replicas, bits)
    with one_thread():
        for number in range(STEPS):
            loop.step(number)
    for name, weight in loop.weights.items():
        # Sums round otherwise, and a code falls to the other side now and then.
        close = np.isclose(state[name], weight.detach().numpy(), rtol=1e-4, atol=1e-5)
        assert close.mean() > 0.99, name
    for replica, feedback in enumerate(loop.feedback):
        for name, kept in feedback.items():
            mine = state[f"{GRADIENT_ERROR}{replica}.{name}"].reshape(-1)
            assert np.isclose(mine, kept.error.numpy(), rtol=1e-3, atol=1e-5).mean() > 0.99, name


def test_each_large_gradient_has_an_error_a_replica_that_starts_at_nothing() -> None:
    task, _ = compressed(2, 4)
    errors = {name: tensor for name, tensor in zip(names(task), task.state, strict=True) if GRADIENT_ERROR in name}
    weights = ("0.weight", "2.weight", "4.weight")  # biases travel in full
    assert set(errors) == {f"{GRADIENT_ERROR}{replica}.{name}" for replica in range(2) for name in weights}
    assert not any(tensor.any() for tensor in errors.values())
    assert sum(GRADIENT_ERROR in name for name in names(tied(2, 4)[0])) == 2 * 2  # tied weights are sent once


def test_the_canonical_engine_and_the_reference_agree_on_the_step() -> None:
    traced, data = recorded(SGD(0.1, momentum=0.9))
    made = with_replicas(traced, 2, 4)
    program = lower_step(made.graph)
    run = CanonicalRun(program, data, SEED, CpuDevice(1))
    run.load(made.initial_state)
    state = list(made.initial_state)
    for number in range(2):
        run.step(number)
        state = run_section(program, Role.STEP, Inputs(state, data, StepContext(SEED, number))).next_state()
    for entry, mine, theirs in zip(program.state, run.state, state, strict=True):
        np.testing.assert_array_equal(mine, theirs.reshape(mine.shape), err_msg=entry.name)


def test_the_native_run_stays_close_to_the_canonical_one() -> None:
    task, graph = compressed(2, 8)
    run = CanonicalRun(task.program, task.data, SEED, CpuDevice(1))
    run.load(task.state)
    for number in range(3):
        run.step(number)
    for name, mine, theirs in zip(names(task), run.state, trained(task, graph, 3)[0], strict=True):
        assert np.isclose(mine, theirs, rtol=1e-3, atol=1e-4).mean() > 0.99, name


@pytest.mark.parametrize("name", list(TASKS))
@pytest.mark.parametrize(("stages", "members", "replicas"), [(1, 2, 2), (2, 2, 2), (1, 2, 4), (1, 4, 4), (2, 1, 2)])
def test_members_compute_the_declared_step_to_the_bit(name: str, stages: int, members: int, replicas: int) -> None:
    task, graph = TASKS[name](replicas, 4)
    engine = NativeEngine(task, graph, 1, replicas=members)
    assert not engine.not_shared
    divided = engine.divide([1.0] * stages * members)
    (state,), sent, loss = run_stages(task, engine, divided, STEPS, STEPS)
    expected, expected_loss = trained(task, graph)
    assert loss == expected_loss
    for entry, mine, theirs in zip(names(task), state, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs, err_msg=entry)
    assert sent == STEPS * bytes_in_step(engine.schedules(divided), 0)


def test_replicas_and_compressed_boundaries_go_together() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(FEATURES, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh())
    model.append(nn.Linear(WIDTH, CLASSES))
    _, data = recorded(ADAM)
    batch = [torch.from_numpy(data[0][:BATCH]), torch.from_numpy(data[1][:BATCH]).long()]
    compress_boundaries(model, ["1"], parse_compression("direct-4-8"), batch[:1], SAMPLES, STEPS)
    task, graph = task_of(with_replicas(trace(model, "cross_entropy", ADAM, batch, SAMPLES), 2, 4), data)
    engine = NativeEngine(task, graph, 1, replicas=2)
    divided = engine.divide([1.0] * 4)
    stages = {
        (each.sender // 2, each.receiver // 2): each.packing.bits
        for each in divided.crossings
        if each.packing.bits < SHORT
    }
    assert stages == {(0, 0): 4, (1, 1): 4, (0, 1): 4, (1, 0): 8}
    (state,), _, _ = run_stages(task, engine, divided, STEPS, STEPS)
    for entry, mine, theirs in zip(names(task), state, trained(task, graph)[0], strict=True):
        np.testing.assert_array_equal(mine, theirs, err_msg=entry)


@pytest.mark.parametrize("name", list(TASKS))
def test_a_replica_cuts_its_part_of_the_batch_into_pieces(name: str) -> None:
    task, graph = TASKS[name](2, 8)
    engine = NativeEngine(task, graph, 2, replicas=2)
    assert engine.plan.pieces.count == 2
    (state,), _, loss = run_stages(task, engine, engine.divide([1.0] * 4), STEPS, STEPS)
    expected, expected_loss = trained(task, graph)
    assert loss == pytest.approx(expected_loss, rel=1e-3)
    for entry, mine, theirs in zip(names(task), state, expected, strict=True):
        assert np.isclose(mine, theirs, rtol=1e-2, atol=1e-3).mean() > 0.98, entry


def crossing_bytes(divided: Partition, task: TrainingTask) -> tuple[int, int]:
    """Bytes a step of operators' values and of state."""
    sizes = {Source.OPERATOR: 0, Source.STATE: 0}
    for crossing in divided.crossings:
        sizes[crossing.value[0]] += 4 * crossing.packing.words(crossing.elements)
    return sizes[Source.OPERATOR], sizes[Source.STATE]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_gradients_cross_as_codes_and_parameters_not_at_all(bits: int) -> None:
    task, graph = compressed(2, bits)
    engine = NativeEngine(task, graph, 1, replicas=2)
    divided = engine.divide([1.0, 1.0])
    large = [entry.count for entry in task.program.state if GRADIENT_ERROR in entry.name]  # twice: one a replica
    small = 2 * WIDTH + CLASSES
    codes, scales = sum(large) * bits // 8, sum(large) // 128 * 2
    values, state = crossing_bytes(divided, task)
    assert state == 4 * small  # those whose gradients travel in full
    assert 0 <= values - (codes + scales + 4 * small) < 64  # beside them the loss and the norm
    plain, data = recorded(ADAM)
    whole = NativeEngine(task_of(plain, data)[0], plain.graph, 1, replicas=2).divide([1.0, 1.0])
    assert whole.bytes_per_step / (values + state) > 0.8 * 32 / (bits + 0.125)


def test_where_sending_the_parameters_is_cheaper_they_are_sent() -> None:
    task, graph = compressed(8, 8)
    divided = NativeEngine(task, graph, 1, replicas=8).divide([1.0] * 8)
    parameters = sum(entry.count for entry in task.program.state[:6])
    assert crossing_bytes(divided, task)[1] == 4 * 7 * parameters


@pytest.mark.parametrize(
    ("members", "replicas", "bits"), [(2, 2, 8), (2, 2, 3), (4, 4, 8), (2, 4, 8), (8, 8, 8), (8, 8, 4), (1, 4, 8)]
)
def test_what_replicas_exchange_is_what_a_plan_reckons_with(members: int, replicas: int, bits: int) -> None:
    task, graph = compressed(replicas, bits)
    values, state = crossing_bytes(NativeEngine(task, graph, 1, replicas=members).divide([1.0] * members), task)
    # In full: every member sends its part of the gradients to each other, and gets theirs.
    large = sum(entry.count for entry in task.program.state if GRADIENT_ERROR in entry.name) // replicas
    expected = 2 * (members - 1) * 4 * large / declared_gradient_ratio(bits, replicas, members)
    beside = (members - 1) * 4 * (2 * WIDTH + CLASSES) * (replicas // members + 1)  # small gradients, in full
    assert expected <= values + state <= 1.02 * (expected + beside)


@pytest.mark.parametrize(("stages", "members", "replicas"), [(1, 2, 2), (2, 2, 2), (1, 2, 4), (1, 8, 8)])
def test_an_error_stays_with_the_member_that_computes_the_part(stages: int, members: int, replicas: int) -> None:
    task, graph = compressed(replicas, 8)
    divided = NativeEngine(task, graph, 1, replicas=members).divide([1.0] * stages * members)
    for number, name in enumerate(names(task)):
        if not name.startswith(GRADIENT_ERROR):
            continue
        replica = int(name.removeprefix(GRADIENT_ERROR).split(".")[0])
        assert divided.owner[number] % members == replica * members // replicas
        assert all(number not in part.copies for part in divided.parts)
        assert all(crossing.value != (Source.STATE, number) for crossing in divided.crossings)


def test_copies_that_replicas_update_count_for_those_who_keep_them() -> None:
    task, graph = compressed(2, 8)
    engine = NativeEngine(task, graph, 1, replicas=2)
    divided = engine.divide([1.0, 1.0])
    held = held_by(engine.program, divided)
    for member, part in zip(held, divided.parts, strict=True):
        assert member.copies == 8 * sum(task.program.state[number].count for number in part.copies) > 0
    limits = [float(member.total) for member in held]
    assert engine.divide([1.0, 1.0], limits) == divided
    with pytest.raises(MemoryLimitError, match=rf"{held[1].copies} of copies") as refused:
        engine.divide([1.0, 1.0], [limits[0], limits[1] - held[1].copies])
    assert refused.value.place == 1


@pytest.mark.parametrize("member", [0, 1, 2, 3])
def test_a_replica_s_limit_holds_beside_one_without(member: int) -> None:
    task, graph = compressed(2, 8)
    engine = NativeEngine(task, graph, 1, replicas=2)
    limits = [0.0] * 4
    limits[member] = 0.9 * held_by(engine.program, engine.divide([1.0] * 4))[member].total
    assert held_by(engine.program, engine.divide([1.0] * 4, limits))[member].total <= limits[member]


def test_training_with_compressed_gradients_ends_where_uncompressed_does() -> None:
    plain, data = recorded(AdamW(0.01))
    initial = trained(*task_of(plain, data), steps=1)[1]
    expected = trained(*task_of(plain, data), steps=60)[1]
    compressed_loss = trained(*compressed(4, 3, AdamW(0.01)), steps=60)[1]
    assert expected < 0.2 * initial
    assert compressed_loss < 0.2 * initial


def test_honest_runs_of_the_task_pass_their_replay_and_a_skipped_step_does_not() -> None:
    task, graph = compressed(2, 8)
    found = profile(task, draw_seed=5, segments=1)
    assert found.acceptable
    assert found.worst > 100
    run, replayer = NativeRun(graph, task.data, task.seed), Replayer(task)
    run.load(task.state)
    states = [list(task.state)]
    for number in range(task.steps):
        run.advance(number)
        if (number + 1) % task.interval == 0:
            states.append(run.copy_state())
    for segment in range(task.segments):
        replay = replayer.replay(segment, states[segment], 3, states[segment + 1], found.thresholds)
        assert replay.passes(b""), replay.distance
    run.load(task.state)
    for number in range(1, task.interval):
        run.advance(number)
    assert not replayer.replay(0, states[0], 3, run.copy_state(), found.thresholds).passes(b"")


def test_an_error_is_no_weight_that_has_to_be_trained() -> None:
    task, _ = compressed(2, 4, SGD(0.05))
    found = profile(task, draw_seed=5, segments=1)
    held = next(forgery for forgery in found.forgeries if forgery.kind is Kind.HELD_WEIGHT)
    assert not held.tensor.startswith(GRADIENT_ERROR)


def test_a_plan_whose_replicas_are_no_part_of_the_tasks_divides_the_layers() -> None:
    task, graph = compressed(2, 4)
    engine = NativeEngine(task, graph, 1, replicas=3)
    assert engine.not_shared == "3 replicas cannot have as many of the 2 parts that the task's batch is in"
    (state,), _, _ = run_stages(task, engine, engine.divide([1.0] * 3), STEPS, STEPS)
    for mine, theirs in zip(state, trained(task, graph)[0], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def _other_bits(graph: Graph) -> Graph:
    assert graph.shared_from is not None
    return replace(graph, shared_from=replace(graph.shared_from, gradient_bits=5))


def _other_step(graph: Graph) -> Graph:
    assert graph.shared_from is not None
    nodes = list(graph.shared_from.nodes)
    place = next(number for number, node in enumerate(nodes) if node.call == "aten.tanh.default")
    nodes[place] = replace(nodes[place], call="aten.sigmoid.default")
    return replace(graph, shared_from=replace(graph.shared_from, nodes=tuple(nodes)))


def _nonsense(graph: Graph) -> Graph:
    assert graph.shared_from is not None
    nodes = list(graph.shared_from.nodes)
    nodes[-1] = replace(nodes[-1], arguments=nodes[-1].arguments[:2])
    return replace(graph, shared_from=replace(graph.shared_from, nodes=tuple(nodes)))


def _doubled(graph: Graph) -> Graph:
    """A gradient that is doubled again and again: as many ways lead back to it as a number of 60 bits."""
    origin = graph.shared_from
    assert origin is not None
    clip = next(number for number, node in enumerate(origin.nodes) if node.call == "assay.clip")
    gradients = origin.nodes[clip].arguments[1]
    assert isinstance(gradients, tuple)
    last = gradients[0]
    assert isinstance(last, Value)
    meta, nodes = origin.nodes[last.node].outputs[last.output], list(origin.nodes[:clip])
    for _ in range(60):
        nodes.append(Node("aten.add.Tensor", (last, last), (), (meta,)))
        last = Value(len(nodes) - 1)

    def moved(value: Input) -> Input:
        return Value(value.node + 60, value.output) if isinstance(value, Value) and value.node >= clip else value

    for node in origin.nodes[clip:]:
        nodes.append(with_inputs(node, moved))
    changed = (last, *gradients[1:])
    arguments = nodes[clip + 60].arguments
    nodes[clip + 60] = replace(nodes[clip + 60], arguments=(arguments[0], changed, *arguments[2:]))
    following = tuple(moved(value) for value in origin.next_state)
    loss = moved(origin.loss)
    assert isinstance(loss, Value)
    return replace(graph, shared_from=replace(origin, nodes=tuple(nodes), next_state=following, loss=loss))


def _fewer_replicas(graph: Graph) -> Graph:
    assert graph.shared_from is not None
    return replace(graph, shared_from=replace(graph.shared_from, replicas=3))


@pytest.mark.parametrize("change", [_other_bits, _other_step, _nonsense, _fewer_replicas, _doubled])
def test_a_graph_that_was_not_made_from_the_step_it_names_is_refused(change: Callable[[Graph], Graph]) -> None:
    graph = load_graph(dump_graph(change(compressed(2, 4)[1])))
    with pytest.raises(PlacementError, match=r"is not what sharing|is malformed"):
        outline(graph, 1, replicas=2)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("replicas", 1, "shared_from replicas: expected an integer from 2 to 64"),
        ("gradient_bits", 9, "shared_from gradient_bits: expected an integer from 2 to 8"),
        ("nodes", [], "has 0 shared_from nodes"),
        ("next_state", [], "shared_from next_state has 0 entries"),
        ("next_state", [{"state": 6}] * 99, "shared_from next_state has 99 entries"),
        ("loss", {"value": [99999, 0]}, "shared_from loss value"),
        ("loss", None, "shared_from loss"),
        ("more", 1, "shared_from: expected the fields"),
    ],
)
def test_what_a_graph_says_it_was_made_from_is_read_strictly(field: str, value: object, message: str) -> None:
    document = json.loads(dump_graph(compressed(2, 4)[1]))
    document["shared_from"][field] = value
    with pytest.raises(GraphError, match=message):
        load_graph(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())


def test_a_graph_without_replicas_says_nothing_of_them() -> None:
    document = json.loads(dump_graph(recorded(ADAM)[0].graph))
    assert "shared_from" not in document
    document["shared_from"] = None
    with pytest.raises(GraphError, match="expected the fields"):
        load_graph(json.dumps(document, sort_keys=True, separators=(",", ":")).encode())


def test_the_same_step_is_shared_alike_every_time() -> None:
    traced, _ = recorded(ADAM)
    assert dump_graph(with_replicas(traced, 2, 4).graph) == dump_graph(with_replicas(traced, 2, 4).graph)


@pytest.mark.parametrize(
    ("layer", "width", "replicas", "message"),
    [
        (nn.BatchNorm1d(WIDTH), WIDTH, 2, "cannot be shared by 2 replicas: .* needs all samples at once"),
        (nn.Tanh(), WIDTH, 3, "3 replicas cannot have equal parts of a batch of 8"),
        (nn.Tanh(), 4, 2, "no gradient is large enough"),
    ],
)
def test_a_step_that_cannot_be_shared_is_refused(layer: nn.Module, width: int, replicas: int, message: str) -> None:
    model = nn.Sequential(nn.Linear(FEATURES, width), layer, nn.Linear(width, CLASSES))
    batch = [torch.randn(BATCH, FEATURES), torch.randint(0, CLASSES, (BATCH,))]
    traced = trace(model, "cross_entropy", ADAM, batch, SAMPLES)
    with pytest.raises(CompressionError, match=message):
        with_replicas(traced, replicas, 4)


@pytest.mark.slow
def test_processes_train_a_declared_step_to_the_root_of_one_machine() -> None:
    task, graph = compressed(2, 4)
    reports = run_local_group(task, 2, 1, 120.0, graph, replicas=2)
    assert reports[0]["roots"] == reports[1]["roots"]
    assert reports[0]["roots"][-1] == state_root(trained(task, graph)[0]).hex()
    assert reports[0]["not_shared"] == ""
    plain, data = recorded(ADAM)
    whole, step = task_of(plain, data)
    full = run_local_group(whole, 2, 1, 120.0, step, replicas=2)
    assert full[0]["predicted_bytes_per_step"] / reports[0]["predicted_bytes_per_step"] > 6
