"""Random models as users write them: interpreter, engine, native run and PyTorch's own loop train them alike."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from assay.arithmetic.permutation import permutation
from assay.engine.cpu.device import CpuDevice
from assay.engine.device import Bindings
from assay.engine.native.run import NativeRun
from assay.program.encoding import decode_operator, encode_operator
from assay.program.interpreter import Inputs, run_section
from assay.program.lowering import lower_step
from assay.program.operator import Role, Source
from assay.program.optimizer import SGD
from assay.program.reference import StepContext
from assay.program.trace import trace

from .test_loops import canonical

SEED, RATE, STEPS = 0x1234_5678_9ABC_DEF0, 0.1, 2
LARGEST = 20_000  # elements of a value
Step = Callable[[Tensor], Tensor]


def _anywhere(r: random.Random, shape: list[int]) -> list[Step]:
    return [
        lambda a: a * 0.5 + 1,
        torch.tanh,
        f.gelu,
        f.silu,
        lambda a: f.softplus(a) - f.elu(a),
        lambda a: f.relu(a) + 0.1 * a,
        lambda a: a.clamp(-1.5, 2),
        lambda a: (a * a + 1).log() + (1 + a * a) ** -0.5,
        lambda a: torch.where(a > 0.1, a, a * a),
        lambda a: a / (a.abs() + 1) + (a > 0.3).long() * ~(a > 1),
    ]


def _along(r: random.Random, shape: list[int]) -> list[Step]:
    rank = len(shape)
    place = r.randrange(-rank, rank)
    extent, before = shape[place], (slice(None),) * (place % rank)
    start, stride = r.randrange(extent), r.choice([1, 2, 3])
    indices = torch.tensor([r.randrange(-extent, extent) for _ in range(r.choice([1, extent, extent + 2]))])
    chosen = torch.randint(0, extent, shape)
    order = r.sample(range(rank), rank)
    some = r.sample(range(rank), r.randrange(1, rank + 1))
    keep, value = r.random() < 0.5, r.choice([0.0, 1.5])
    padding = [r.randrange(3) for _ in range(2 * r.randrange(1, rank + 1))]
    weight = torch.randn(shape[-1], r.choice([1, 2, 17, 33])) * 0.3
    return [
        lambda a: a.softmax(place),
        lambda a: a.log_softmax(place),
        lambda a: a.logsumexp(place, keepdim=keep),
        lambda a: a.amax(place, keepdim=keep),
        lambda a: a.mean(place, keepdim=keep),
        lambda a: a.mean(some, keepdim=True) + a.var(some, unbiased=False, keepdim=True),
        lambda a: a.sum(some) * 0.1,
        lambda a: a.flip(place)[(*before, slice(start, None, stride))],
        lambda a: a.roll(start, place).select(place, start - extent),
        lambda a: torch.cat(a.chunk(2, place)[::-1], place),
        lambda a: torch.stack([a, a * 2], place),
        lambda a: a[(*before, indices)],
        lambda a: a.gather(place, chosen),
        lambda a: torch.zeros_like(a).scatter_add(place, chosen, a),
        lambda a: f.pad(a, padding, value=value),
        lambda a: a.permute(order),
        lambda a: a.permute(order).contiguous(),
        lambda a: a.transpose(place, 0).flatten(),
        lambda a: a.unsqueeze(place).expand(*(-1,) * (place % (rank + 1)), 2, *shape[place % (rank + 1) :]),
        lambda a: f.layer_norm(a, shape[-1:]),
        lambda a: f.rms_norm(a, shape),
        lambda a: a @ weight,
        lambda a: f.linear(a, weight.t(), weight[0]),
    ]


def _planes(r: random.Random, shape: list[int]) -> list[Step]:
    rank, diagonal, causal = len(shape), r.randrange(-2, 3), r.random() < 0.5
    steps: list[Step] = [
        lambda a: a.tril(diagonal),
        lambda a: a @ a.transpose(-1, -2) * 0.2,
        lambda a: torch.einsum("...ij,...kj->...ik", a, a) * 0.2,
        lambda a: f.group_norm(a, shape[1]) if rank > 2 else a,
    ]
    if rank == 4:
        kernel = torch.randn(4, shape[1], min(2, shape[2]), min(3, shape[3])) * 0.5
        padding, stride = r.choice([0, 1]), r.choice([1, 2])
        steps += [
            lambda a: f.scaled_dot_product_attention(a, a * 0.5, a + 1, is_causal=causal),
            lambda a: f.conv2d(a, kernel, padding=padding, stride=stride),
            lambda a: f.max_pool2d(a, 2, stride, ceil_mode=causal) if min(shape[2:]) > 1 else a,
            lambda a: f.avg_pool2d(a, (min(2, shape[2]), 1)),
            lambda a: f.interpolate(a, scale_factor=2),
        ]
    return steps


class RandomModel(nn.Module):
    """A parameter times the samples, then random steps, each of an earlier value."""

    def __init__(self, r: random.Random) -> None:
        super().__init__()
        self.shape = [r.choice([1, 2, 3, 5, 8, 17]) for _ in range(r.randrange(1, 4))]
        self.batch = r.choice([1, 2, 3, 5])
        parameter = torch.randn([extent if r.random() < 0.8 else 1 for extent in self.shape])
        self.parameter = nn.Parameter(parameter)
        self.steps: list[tuple[int, Step | int]] = []
        values = [torch.zeros(self.batch, *self.shape) + parameter]
        for _ in range(r.randrange(2, 9)):
            place = r.randrange(len(values)) if r.random() < 0.3 else len(values) - 1
            shape = list(values[place].shape)
            families = [_anywhere, *([_along] * 2 if shape else []), *([_planes] if len(shape) > 1 else [])]
            step = r.choice(r.choice(families)(r, shape))
            self.steps.append((place, step))
            values.append(step(values[place]))
            if not 0 < values[-1].numel() < LARGEST or values[-1].dim() > 5:
                self.steps.pop()
                values.pop()

    def forward(self, x: Tensor) -> Tensor:
        values = [x * self.parameter]
        for place, step in self.steps:
            values.append(step(values[place]))
        last = values[-1]
        return (last * torch.arange(1, last.numel() + 1).float().sin().reshape(last.shape)).mean()


def _assert_close(ours: np.ndarray, theirs: np.ndarray, what: str) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5 + 2e-4 * float(np.abs(theirs).max()), err_msg=what)


@pytest.mark.parametrize("seed", range(30))
def test_a_random_model_trains_alike_everywhere(seed: int) -> None:
    torch.manual_seed(seed)
    model = RandomModel(random.Random(seed))
    batch, samples = model.batch, 2 * model.batch
    x, y = torch.randn(samples, *model.shape), torch.randn(samples)
    task = trace(model, lambda a, b: a + 0 * b.sum(), SGD(RATE, 0.9), (x[:batch], y[:batch]), samples)
    program = lower_step(task.graph)
    operators = program.sections[0].operators
    assert all(decode_operator(encode_operator(operator)) == operator for operator in operators)
    twin, data = copy.deepcopy(model), [x.numpy(), y.numpy()]
    optimizer = torch.optim.SGD(twin.parameters(), RATE, 0.9)
    run, state = NativeRun(task.graph, data, SEED), list(task.initial_state)
    run.load(state)
    keep = sorted({entry.operator for entry in program.sections[0].next_state if entry.operator is not None})
    for step in range(STEPS):
        expected = run_section(program, Role.STEP, Inputs(state, data, StepContext(SEED, step)))
        bindings = Bindings({}, SEED).bind(Source.STATE, [np.ascontiguousarray(s) for s in state])
        for threads in (1, 2):
            engine = CpuDevice(threads).compile(program, Role.STEP, keep)
            engine.run(bindings.bind(Source.DATA, data), step, {})
            for number in keep:
                got, want = canonical(engine.value(number)), canonical(expected.outputs[number])
                np.testing.assert_array_equal(got.ravel(), want.ravel(), f"operator {number}, {threads} threads")
        state = expected.next_state()
        run.advance(step)
        chosen = [
            permutation(SEED, p // samples, p % samples, samples) for p in range(step * batch, (step + 1) * batch)
        ]
        optimizer.zero_grad()
        twin(x[chosen]).backward()
        optimizer.step()
    _assert_close(np.asarray(state[0]), twin.parameter.detach().numpy(), "PyTorch's own loop")
    _assert_close(run.copy_state()[0], np.asarray(state[0]), "the native run")
