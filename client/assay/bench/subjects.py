"""Small networks with learnable data, of which the separation study makes tasks: an MLP, a CNN, a GPT,
and two that suit lower precisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from assay.attacks.material import State
from assay.bench.models import Gpt, language_loss
from assay.program.graph import Graph
from assay.program.optimizer import SGD, AdamW, Optimizer
from assay.program.sections import Precision, build_program
from assay.program.trace import trace
from assay.training.task import Mode, TrainingTask

MODELS = ("mlp", "cnn", "gpt")
FURTHER = ("wide-cnn", "tanh")
"""Models that tolerant mode suits at lower precisions: more channels, or no kinks."""
SAMPLES, BATCH = 64, 16


@dataclass(frozen=True, eq=False)
class Subject:
    """A traced model with data, of which tasks are made; `half` is the same graph for half the batch."""

    name: str
    graph: Graph
    half: Graph
    initial: State
    data: State
    optimizer: Optimizer

    def task(self, precision: Precision, segments: int, interval: int, seed: int = 11) -> TrainingTask:
        """A tolerant task that trains this model."""
        program = build_program(self.graph, precision)
        return TrainingTask(
            program, self.initial, self.data, seed, segments * interval, interval, Mode.TOLERANT, precision
        )


def subject(name: str, rate: float | None = None) -> Subject:
    """One of `MODELS` or `FURTHER`, small enough to train in milliseconds, with seeded weights.

    `rate` replaces the usual learning rate.
    """
    torch.manual_seed(1)
    optimizer: Optimizer = AdamW(rate or 0.01)
    loss: Any = "cross_entropy"
    if name == "mlp":
        module: nn.Module = nn.Sequential(
            nn.Linear(8, 24), nn.GELU(approximate="tanh"), nn.LayerNorm(24), nn.Linear(24, 4)
        )
        inputs = torch.randn(SAMPLES, 8)
        labels = (inputs @ torch.randn(8, 4)).argmax(1)
    elif name == "cnn":
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 4)
        )
        inputs = torch.randn(SAMPLES, 1, 8, 8)
        labels = (inputs.flatten(1) @ torch.randn(64, 4)).argmax(1)
        optimizer = SGD(rate or 0.05, momentum=0.9, weight_decay=1e-4)
    elif name == "wide-cnn":
        module = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 4),
        )
        inputs = torch.randn(SAMPLES, 1, 8, 8)
        labels = (inputs.flatten(1) @ torch.randn(64, 4)).argmax(1)
        optimizer = SGD(rate or 0.05, momentum=0.9, weight_decay=1e-4)
    elif name == "tanh":
        module = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))
        inputs = torch.randn(SAMPLES, 8)
        labels = (inputs @ torch.randn(8, 4)).argmax(1)
        optimizer = SGD(rate or 0.01, momentum=0.9)
    elif name == "gpt":
        module = Gpt(vocabulary=16, width=16, heads=2, layers=1, time=8)
        text = torch.tensor([(i * i + 3 * (i // 7)) % 16 for i in range(SAMPLES + 9)])
        inputs = torch.stack([text[i : i + 8] for i in range(SAMPLES)])
        labels = torch.stack([text[i + 1 : i + 9] for i in range(SAMPLES)])
        optimizer, loss = AdamW(rate or 0.003), language_loss
    else:
        raise KeyError(f"no model {name!r}: choose {', '.join(MODELS + FURTHER)}")
    traced, half = (
        trace(module, loss, optimizer, [inputs[:batch], labels[:batch]], SAMPLES) for batch in (BATCH, BATCH // 2)
    )
    arrays = [p.numpy() if p.is_floating_point() else p.numpy().astype(np.int32) for p in (inputs, labels)]
    return Subject(name, traced.graph, half.graph, traced.initial_state, tuple(arrays), optimizer)
