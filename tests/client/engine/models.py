"""Small models of every kind the project promises, and a program that trains them and prints the roots of their states.

Run as a program (`python models.py STEPS [NAME ...]`) it prints one JSON object: name to what `digest` gives.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from assay.commitments.execution import state_root
from assay.engine.cpu.device import CpuDevice
from assay.program.lowering import lower_step
from assay.program.operator import Array, Program
from assay.program.optimizer import SGD, AdamW, Optimizer, WarmupCosine
from assay.program.trace import trace
from assay.training.canonical import CanonicalRun

BATCH, SAMPLES = 8, 40


class Residual(nn.Module):
    """A residual CNN with batch norm, a strided shortcut and average pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv1, self.norm1 = nn.Conv2d(6, 10, 3, stride=2, padding=1), nn.BatchNorm2d(10)
        self.conv2, self.norm2 = nn.Conv2d(10, 10, 3, padding=1), nn.BatchNorm2d(10)
        self.shortcut = nn.Conv2d(6, 10, 1, stride=2)
        self.head = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm0(self.stem(x)))
        y = functional.relu(self.norm1(self.conv1(x)))
        x = functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
        return self.head(functional.avg_pool2d(x, 4).flatten(1))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, modern: bool, dropout: float) -> None:
        super().__init__()
        self.heads, self.modern, self.dropout = heads, modern, dropout
        norm = nn.RMSNorm if modern else nn.LayerNorm
        self.norm1, self.norm2 = norm(width), norm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if not self.modern:
            return functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        time = query.shape[-2]
        scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
        mask = torch.tril(torch.ones(time, time, dtype=torch.bool))
        return scores.masked_fill(~mask, float("-inf")).softmax(-1) @ value

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        parts = self.mix(self.norm1(x)).split(width, 2)
        query, key, value = (p.view(batch, time, self.heads, -1).transpose(1, 2) for p in parts)
        mixed = self.attend(query, key, value).transpose(1, 2).reshape(batch, time, width)
        x = x + functional.dropout(self.out(mixed), self.dropout, self.training)
        hidden = self.up(self.norm2(x))
        hidden = functional.silu(hidden) if self.modern else functional.gelu(hidden, approximate="tanh")
        return x + functional.dropout(self.down(hidden), self.dropout, self.training)


class Gpt(nn.Module):
    """A GPT with tied embeddings; `modern` has RMS norm, SiLU and attention written out."""

    def __init__(self, modern: bool) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(13, 20), nn.Embedding(9, 20)
        self.blocks = nn.ModuleList([Block(20, 2, modern, 0.1) for _ in range(2)])
        self.norm = nn.RMSNorm(20) if modern else nn.LayerNorm(20)
        self.head = nn.Linear(20, 13, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Lstm(nn.Module):
    """An LSTM cell unrolled over time."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(5, 9), nn.Linear(9, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.new_zeros(x.shape[0], 9)
        memory = x.new_zeros(x.shape[0], 9)
        for time in range(x.shape[1]):
            hidden, memory = self.cell(x[:, time], (hidden, memory))
        return self.head(hidden)


@dataclass(frozen=True)
class Case:
    module: nn.Module
    loss: str | Callable[[Tensor, Tensor], Tensor]
    optimizer: Optimizer
    data: tuple[Tensor, ...]


def _words(loss: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(loss.reshape(-1, loss.shape[-1]), target.reshape(-1))


def case(name: str) -> Case:
    torch.manual_seed(3)
    labels = torch.randint(0, 5, (SAMPLES,))
    images = torch.randn(SAMPLES, 1, 8, 8)
    text = (torch.randint(0, 13, (SAMPLES, 9)), torch.randint(0, 13, (SAMPLES, 9)))
    sgd = SGD(0.05, momentum=0.9, weight_decay=1e-3)
    adam = AdamW(WarmupCosine(0.01, 10, 150), weight_decay=0.05, clip_norm=1.0)
    if name == "mlp":
        layers = nn.Sequential(nn.Linear(7, 33), nn.ReLU(), nn.Linear(33, 17), nn.GELU(), nn.Linear(17, 5))
        return Case(layers, "cross_entropy", sgd, (torch.randn(SAMPLES, 7), labels))
    if name == "cnn":
        layers = nn.Sequential(
            nn.Conv2d(1, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(5, 7, 3, stride=2, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(28, 5),
        )
        return Case(layers, "cross_entropy", sgd, (images, labels))
    if name == "residual":
        return Case(Residual(), "cross_entropy", adam, (images, labels))
    if name == "gpt":
        return Case(Gpt(False), _words, adam, text)
    if name == "gpt_modern":
        return Case(Gpt(True), _words, adam, text)
    if name == "lstm":
        return Case(Lstm(), "mse", adam, (torch.randn(SAMPLES, 6, 5), torch.randn(SAMPLES, 1)))
    if name == "binary":
        layers = nn.Sequential(nn.Linear(7, 20), nn.Sigmoid(), nn.Linear(20, 3))
        return Case(layers, "bce_with_logits", sgd, (torch.randn(SAMPLES, 7), torch.rand(SAMPLES, 3)))
    raise KeyError(name)


NAMES = ("mlp", "cnn", "residual", "gpt", "gpt_modern", "lstm", "binary")


def as_array(tensor: Tensor) -> Array:
    array = tensor.numpy()
    return array.astype(np.int32) if array.dtype == np.int64 else array


def traced(name: str) -> tuple[Program, tuple[Array, ...], list[Array]]:
    """Program, initial state and data of a case."""
    chosen = case(name)
    task = trace(chosen.module, chosen.loss, chosen.optimizer, [part[:BATCH] for part in chosen.data], SAMPLES)
    return lower_step(task.graph), task.initial_state, [as_array(part) for part in chosen.data]


def digest(
    name: str, steps: int, resume_at: int | None = None, threads: int | None = None
) -> tuple[list[str], float, float]:
    """The state roots after every tenth step, the first loss and the last. With `resume_at`, the run is begun anew
    there from a copy of the state."""
    program, initial, data = traced(name)
    run = CanonicalRun(program, data, 7, CpuDevice(threads))
    run.load(initial)
    roots, losses = [], []
    for step in range(steps):
        if step == resume_at:
            state = run.copy_state()
            run = CanonicalRun(program, data, 7, CpuDevice(threads))
            run.load(state)
        run.step(step)
        losses.append(run.loss() or 0.0)
        if step % 10 == 9:
            roots.append(state_root(run.state).hex())
    return roots, losses[0], losses[-1]


if __name__ == "__main__":
    steps = int(sys.argv[1])
    print(json.dumps({name: digest(name, steps) for name in sys.argv[2:] or NAMES}))
