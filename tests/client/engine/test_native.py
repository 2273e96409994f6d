"""Native training: the traced graph on PyTorch's kernels does what the canonical program says, at its own precision."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from assay.arithmetic.native_random import uniforms
from assay.arithmetic.permutation import permutation
from assay.engine.native.attention import FusedAttention
from assay.engine.native.compiler import resolve
from assay.engine.native.own_calls import steps_done
from assay.engine.native.random import bernoulli, device_uniforms, samples
from assay.engine.native.run import NativeRun
from assay.program.errors import GraphError
from assay.program.graph import Graph, Node
from assay.program.interpreter import Inputs, run_section
from assay.program.lowering import lower_step
from assay.program.operator import Array, Role
from assay.program.optimizer import SGD, AdamW, Optimizer, WarmupCosine
from assay.program.reference import StepContext
from assay.program.sections import Precision
from assay.program.trace import TracedTask, trace

SEED = 99


class Mixed(nn.Module):
    """Convolution, batch norm, pooling, attention, layer norm, GELU, dropout and tied shapes in one small model."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(2, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8)
        self.layer_norm, self.attend = nn.LayerNorm(8), nn.Linear(8, 24)
        self.dropout, self.head = nn.Dropout(0.2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.norm(self.convolution(x))), 2)
        x = x.flatten(2).transpose(1, 2)
        q, k, v = (
            part.reshape(*x.shape[:2], 2, 4).transpose(1, 2) for part in self.attend(self.layer_norm(x)).chunk(3, -1)
        )
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return self.head(self.dropout(functional.gelu(x + y)).mean(1))


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(10, 2, 12, 12, generator=generator), torch.randint(0, 5, (10,), generator=generator)


def arrays() -> list[Array]:
    images, labels = data()
    return [images.numpy(), labels.numpy().astype(np.int32)]


def traced(optimizer: Optimizer) -> TracedTask:
    torch.manual_seed(3)
    return trace(Mixed(), "cross_entropy", optimizer, tuple(part[:4] for part in data()), 10)


@pytest.fixture(scope="module")
def task() -> TracedTask:
    return traced(AdamW(WarmupCosine(0.01, 2, 8), clip_norm=0.5, decay="matrices"))


def native(task: TracedTask, precision: Precision = Precision.FP32) -> NativeRun:
    run = NativeRun(task.graph, arrays(), SEED, precision=precision)
    run.load(task.initial_state)
    return run


@pytest.mark.parametrize(
    "optimizer", [AdamW(WarmupCosine(0.01, 2, 8), clip_norm=0.5), SGD(0.05, 0.9, 0.01, nesterov=True), SGD(0.05)]
)
def test_native_and_canonical_training_agree(optimizer: Optimizer) -> None:
    task = traced(optimizer)
    program = lower_step(task.graph)
    run, state = native(task), list(task.initial_state)
    for step in range(4):
        run.advance(step)
        canonical = run_section(program, Role.STEP, Inputs(state, arrays(), StepContext(SEED, step)))
        state = canonical.next_state()
        assert run.loss() == pytest.approx(float(canonical.outputs[program.loss or 0]), rel=1e-5)
    for descriptor, ours, theirs, start in zip(program.state, run.copy_state(), state, task.initial_state, strict=True):
        if descriptor.name.startswith("beta") or "num_batches" in descriptor.name:
            assert ours.tobytes() == theirs.tobytes(), "no noise reaches these, so no threshold would forgive them"
        elif "attend.bias" not in descriptor.name:  # a key's bias has no gradient but rounding, which Adam amplifies
            moved = np.linalg.norm(theirs.astype(np.float64) - start) + 1e-12
            assert np.linalg.norm(ours.astype(np.float64) - theirs) / moved < 1e-3, descriptor.name


class Transposed(nn.Module):
    """Group norm and attention of what lies in memory in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.head = nn.Parameter(torch.randn(12)), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = (x * self.scale).permute(3, 0, 1, 2).contiguous().sigmoid().permute(1, 0, 2, 3)
        x = functional.group_norm(x, 3)
        y = (x.permute(0, 3, 2, 1).contiguous() * 2).tanh()
        y = functional.scaled_dot_product_attention(y, y * 0.5, y + 1)
        return self.head(functional.group_norm(y.transpose(1, 3), 4).mean((2, 3)))


def test_kernels_that_want_an_order_in_memory_get_it() -> None:
    torch.manual_seed(3)
    task = trace(Transposed(), "cross_entropy", SGD(0.1), tuple(part[:4] for part in data()), 10)
    program = lower_step(task.graph)
    run, state = native(task), list(task.initial_state)
    for step in range(2):
        run.advance(step)
        result = run_section(program, Role.STEP, Inputs(state, arrays(), StepContext(SEED, step)))
        state = result.next_state()
        assert run.loss() == pytest.approx(float(result.outputs[program.loss or 0]), rel=1e-5)
    for descriptor, ours, theirs in zip(program.state, run.copy_state(), state, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6, err_msg=descriptor.name)


class Memories(nn.Module):
    """Truth values and indices that are state."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(288, 5)
        self.register_buffer("seen", torch.zeros(5, dtype=torch.bool))
        self.register_buffer("order", torch.arange(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x.flatten(1))
        y = torch.where(~self.seen, x * 0.5, x).gather(1, self.order.clone().expand(x.shape))
        self.seen |= x.detach().sum(0) > 0
        self.order += 1
        self.order %= 5
        return y


def test_truth_values_and_indices_of_the_state_are_what_the_kernels_take() -> None:
    torch.manual_seed(3)
    task = trace(Memories(), "cross_entropy", SGD(0.1), tuple(part[:4] for part in data()), 10)
    program = lower_step(task.graph)
    run, state = native(task), list(task.initial_state)
    for step in range(3):
        run.advance(step)
        state = run_section(program, Role.STEP, Inputs(state, arrays(), StepContext(SEED, step))).next_state()
    for descriptor, ours, theirs in zip(program.state, run.copy_state(), state, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6, err_msg=descriptor.name)


def test_a_run_resumed_from_its_state_goes_on_as_it_would_have(task: TracedTask) -> None:
    whole = native(task)
    for step in range(3):
        whole.advance(step)
    resumed = native(task)
    resumed.load(whole.copy_state())
    for step in range(3, 5):
        whole.advance(step)
        resumed.advance(step)
    for ours, theirs in zip(whole.copy_state(), resumed.copy_state(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-8)


def test_mixed_precision_is_coarser_but_trains_alike(task: TracedTask) -> None:
    single, half = native(task), native(task, Precision.BF16)
    for step in range(3):
        single.advance(step)
        half.advance(step)
    assert half.loss() != single.loss()
    assert half.loss() == pytest.approx(single.loss() or 0.0, rel=0.05)
    assert all(array.dtype in (np.float32, np.int32) for array in half.copy_state())


def test_attention_by_the_device_s_own_kernels_has_the_same_gradients(
    task: TracedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = native(task)
    monkeypatch.setattr("assay.engine.native.attention.has_recorded_attention", lambda device: False)
    monkeypatch.setattr("torch.inference_mode", torch.no_grad)  # as on CUDA
    chosen = native(task)
    for step in range(2):
        chosen.advance(step)
    monkeypatch.undo()
    for step in range(2):
        recorded.advance(step)
    assert chosen.loss() == pytest.approx(recorded.loss() or 0.0, rel=1e-5)
    for ours, theirs in zip(chosen.copy_state(), recorded.copy_state(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("mask", ["none", "boolean", "added"])
def test_fused_attention_leaves_what_the_recorded_kernel_does(mask: str) -> None:
    random = torch.Generator().manual_seed(4)
    query, key, value, gradient = (torch.randn(3, 2, 6, 4, generator=random) for _ in range(4))
    seen = torch.rand(3, 1, 6, 6, generator=random) < 0.7
    seen[..., 0] = True
    added = torch.zeros(seen.shape).masked_fill(~seen, -math.inf) if mask != "none" else None
    given = {"none": None, "boolean": seen, "added": added}[mask]
    causal = mask == "none"
    calls = torch.ops.aten
    out, log_sum = calls._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, 0.0, causal, attn_mask=added, scale=0.3
    )
    fused = FusedAttention.of(query, key, value, given, causal, 0.3)
    assert fused.log_sum_exp().shape == log_sum.shape
    torch.testing.assert_close(fused.log_sum_exp(), log_sum)
    torch.testing.assert_close(fused.out.detach(), out)
    recorded = calls._scaled_dot_product_flash_attention_for_cpu_backward(
        gradient, query, key, value, fused.out.detach(), fused.log_sum_exp(), 0.0, causal, attn_mask=added, scale=0.3
    )
    for ours, again, theirs in zip(fused.gradients(gradient), fused.gradients(gradient), recorded, strict=True):
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(again, theirs)


def test_kernels_that_lay_out_memory_in_another_way_are_no_trouble(
    task: TracedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = native(task)
    recorded.advance(0)
    monkeypatch.setattr("assay.engine.native.attention.has_recorded_attention", lambda device: False)
    monkeypatch.setattr("torch.inference_mode", torch.no_grad)
    with sdpa_kernel(SDPBackend.MATH):
        chosen = native(task)
        chosen.advance(0)
    assert chosen.loss() == pytest.approx(recorded.loss() or 0.0, rel=1e-5)


def test_copies_of_the_state_do_not_change_with_the_run(task: TracedTask) -> None:
    run = native(task)
    before = run.copy_state()
    run.advance(0)
    assert all(np.array_equal(a, b) for a, b in zip(before, task.initial_state, strict=True))
    assert not np.array_equal(run.copy_state()[0], before[0])


def test_samples_are_the_permutation_across_epochs() -> None:
    for step in range(5):
        wanted = [permutation(SEED, (step * 7 + i) // 10, (step * 7 + i) % 10, 10) for i in range(7)]
        assert samples(SEED, step, 7, 10).tolist() == wanted
    assert sorted(samples(SEED, 0, 20, 10).tolist()) == sorted([*range(10)] * 2)


def test_dropout_draws_are_the_same_on_every_device() -> None:
    for step in (0, 7, 2**31 - 1):
        wanted = uniforms(2**63 + 12345, step, 3, 0, 1001)
        found = device_uniforms(2**63 + 12345, step, 3, 1001, torch.device("cpu"))
        assert found.numpy().tobytes() == wanted.tobytes()
    drawn = bernoulli(1, 2, 3, (10, 100), 0.8, torch.device("cpu"))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert 0.75 < float(drawn.mean()) < 0.85


def test_the_optimizer_knows_its_step_from_the_power_of_beta() -> None:
    power = np.float32(1)
    for step in range(1, 3000):
        power *= np.float32(0.999)
        assert steps_done(float(power), 0.999) == step
    assert steps_done(0.0, 0.9) > 10_000


def test_only_calls_that_are_lowered_are_looked_up() -> None:
    assert resolve("aten.mm.default") is torch.ops.aten.mm.default
    for call in ("aten.mm.out", "aten.__init__.default", "os.system", "assay.adamw", "aten.from_file.default"):
        with pytest.raises(GraphError, match="not allowed"):
            resolve(call)


def with_nodes(graph: Graph, nodes: tuple[Node, ...]) -> Graph:
    return replace(graph, nodes=nodes)


def test_graphs_that_would_read_a_changed_state_are_refused(task: TracedTask) -> None:
    late = Node("aten.relu.default", (task.graph.nodes[-1].arguments[0][0],), (), (task.graph.nodes[-1].outputs[0],))  # type: ignore[index]
    with pytest.raises(GraphError, match="must be last"):
        NativeRun(with_nodes(task.graph, (*task.graph.nodes, late)), arrays(), SEED)
    swapped = (task.graph.next_state[1], task.graph.next_state[0], *task.graph.next_state[2:])
    with pytest.raises(GraphError, match="next state"):
        NativeRun(replace(task.graph, next_state=swapped), arrays(), SEED)


def test_data_and_states_that_do_not_fit_are_refused(task: TracedTask) -> None:
    with pytest.raises(GraphError, match="data tensors"):
        NativeRun(task.graph, arrays()[:1], SEED)
    with pytest.raises(GraphError, match="float64"):
        NativeRun(task.graph, [arrays()[0].astype(np.float64), arrays()[1]], SEED)  # type: ignore[list-item]
    run = native(task)
    with pytest.raises(GraphError, match="tensors"):
        run.load(task.initial_state[:-1])
    with pytest.raises(GraphError, match="shape"):
        run.load([task.initial_state[0][:1], *task.initial_state[1:]])
