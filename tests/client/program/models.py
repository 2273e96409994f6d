"""Small models and the comparison of a program, run by the interpreter, with PyTorch's own training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.arithmetic.permutation import permutation
from assay.program.interpreter import Inputs, run_section
from assay.program.lowering import lower_step
from assay.program.operator import Array, Program, Role
from assay.program.optimizer import SGD, Optimizer, learning_rate, schedule_of
from assay.program.reference import StepContext
from assay.program.trace import LOSSES, Loss, TracedTask, trace

SEED = 0x1234_5678_9ABC_DEF0


class Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ConvNet(nn.Module):
    """Padding, stride, maximum pooling with overlap, batch norm with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.second = nn.Conv2d(4, 6, 3, stride=2)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(functional.relu(self.norm(self.first(x))))
        return self.head(functional.adaptive_avg_pool2d(functional.relu(self.second(x)), 1).flatten(1))


class ResidualNet(nn.Module):
    """A strided block with a projection, a grouped and a dilated convolution, average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False)
        self.norm_down = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.shortcut = nn.Conv2d(4, 8, 1, stride=2)
        self.head = nn.Linear(8 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.stem(x)))
        y = self.grouped(functional.relu(self.norm_down(self.down(x))))
        x = functional.leaky_relu(y + self.shortcut(x))
        return self.head(functional.avg_pool2d(x, 2).flatten(1))


class Transformer(nn.Module):
    """One block with fused attention, layer norm, GELU by tanh, learned positions, tied weights."""

    def __init__(
        self, vocabulary: int = 11, width: int = 8, heads: int = 2, time: int = 6, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads = heads
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(time, width)
        self.norm1, self.norm2, self.norm = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def forward(self, indices: Tensor) -> Tensor:
        x = self.tokens(indices) + self.positions(torch.arange(indices.shape[1]))
        batch, time, width = x.shape
        split = self.attend(self.norm1(x)).split(width, 2)
        q, k, v = (part.view(batch, time, self.heads, width // self.heads).transpose(1, 2) for part in split)
        x = x + self.project(self.attention(q, k, v).transpose(1, 2).reshape(batch, time, width))
        x = x + self.dropout(self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh")))
        return self.head(self.norm(x))


class WrittenOutTransformer(Transformer):
    """The same with attention written out, RMS norm, exact GELU and SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(8), nn.RMSNorm(8)
        self.gate = nn.Linear(8, 8, bias=False)
        self.register_buffer("mask", torch.tril(torch.ones(6, 6, dtype=torch.bool)))

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5
        return functional.gelu(scores.masked_fill(~self.mask, float("-inf")).softmax(-1) @ v)

    def forward(self, indices: Tensor) -> Tensor:
        return super().forward(indices) * functional.silu(self.gate(self.tokens(indices))).mean(-1, keepdim=True)


class Recurrent(nn.Module):
    """An LSTM cell unrolled over time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = cell = torch.zeros(x.shape[0], 6)
        for step in range(x.shape[1]):
            hidden, cell = self.cell(x[:, step], (hidden, cell))
        return self.head(hidden)


def next_token_loss(output: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(output.flatten(0, 1), target.flatten())


def as_arrays(*tensors: Tensor) -> list[Array]:
    return [t.numpy() if t.dtype == torch.float32 else t.numpy().astype(np.int32) for t in tensors]


def torch_optimizer(module: nn.Module, optimizer: Optimizer) -> torch.optim.Optimizer:
    parameters = list(module.parameters())
    if isinstance(optimizer, SGD):
        decay, momentum = optimizer.weight_decay, optimizer.momentum
        return torch.optim.SGD(parameters, 1.0, momentum, weight_decay=decay, nesterov=optimizer.nesterov)
    decayed = [p for p in parameters if optimizer.decay == "all" or p.dim() >= 2]
    rest = [p for p in parameters if not (optimizer.decay == "all" or p.dim() >= 2)]
    groups = [{"params": decayed, "weight_decay": optimizer.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], 1.0, optimizer.betas, optimizer.epsilon)


@dataclass(frozen=True)
class Trained:
    """Losses and final states of the same training by the interpreter and by PyTorch."""

    task: TracedTask
    program: Program
    state: list[Array]
    losses: list[float]
    torch_state: dict[str, Array]
    torch_losses: list[float]

    def worst_update_error(self, ignore: tuple[str, ...] = ()) -> float:
        """Over tensors of the module, the largest |ours - torch's| / |torch's update|."""
        worst = 0.0
        for what, ours, start in zip(self.program.state, self.state, self.task.initial_state, strict=True):
            if what.name in self.torch_state and what.name not in ignore:
                theirs = self.torch_state[what.name].astype(np.float64)
                moved = np.linalg.norm(theirs - start) + 1e-9
                worst = max(worst, float(np.linalg.norm(ours - theirs) / moved))
        return worst


def train_both(
    module: nn.Module,
    loss: str | Loss,
    optimizer: Optimizer,
    data: tuple[Tensor, Tensor],
    batch: int,
    steps: int,
) -> Trained:
    """Train by the interpreter and by a plain PyTorch loop over the same batches."""
    samples = data[0].shape[0]
    task = trace(module, loss, optimizer, tuple(part[:batch] for part in data), samples)
    program = lower_step(task.graph)
    twin = copy.deepcopy(module)
    torch_steps = torch_optimizer(twin, optimizer)
    loss_function: Callable[..., Tensor] = LOSSES[loss] if isinstance(loss, str) else loss
    state, losses, torch_losses = list(task.initial_state), [], []
    for step in range(steps):
        positions = [step * batch + i for i in range(batch)]
        chosen = [permutation(SEED, p // samples, p % samples, samples) for p in positions]
        for group in torch_steps.param_groups:
            group["lr"] = learning_rate(schedule_of(optimizer), step)
        value = loss_function(twin(data[0][chosen]), data[1][chosen])
        torch_steps.zero_grad()
        value.backward()
        if optimizer.clip_norm is not None:
            nn.utils.clip_grad_norm_(twin.parameters(), optimizer.clip_norm)
        torch_steps.step()
        run = run_section(program, Role.STEP, Inputs(state, as_arrays(*data), StepContext(SEED, step)))
        state = run.next_state()
        losses.append(float(run.outputs[program.loss or 0].reshape(())))
        torch_losses.append(float(value.detach()))
    named = {name: tensor.detach().numpy() for name, tensor in twin.state_dict().items()}
    return Trained(task, program, state, losses, named, torch_losses)


def uniform_data(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def token_data(limit: int, *shape: int) -> Tensor:
    return torch.randint(0, limit, shape, generator=torch.Generator().manual_seed(4))
