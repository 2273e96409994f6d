"""A small task as a submitter writes it: a two-layer network on random samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np

MODEL = """
import torch
from torch import nn


def make_model(hidden=4):
    return nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 3))


def scaled_loss(output, target):
    return 2 * nn.functional.cross_entropy(output, target)


def no_module():
    return 7


def broken():
    raise ValueError("no such layer")
"""

TASK = """
title = "example"

[model]
source = "model.py:make_model"
arguments = { hidden = 5 }

[data]
file = "samples.npz"
tensors = ["inputs", "labels"]

[training]
loss = "cross_entropy"
steps = 12
batch_size = 4
checkpoint_interval = 3
mode = "exact"
seed = 7

[optimizer]
name = "adamw"
learning_rate = 0.01

[market]
lowest_reward = 0.5
highest_reward = 2
verifiers = 1
segments_per_verifier = 2
"""


def write_task(folder: Path, text: str = TASK, samples: int = 20) -> Path:
    """Write task.toml, model.py and samples.npz; returns the task file's path."""
    generator = np.random.default_rng(1)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(MODEL)
    np.savez_compressed(
        folder / "samples.npz",
        inputs=generator.standard_normal((samples, 6)).astype(np.float32),
        labels=generator.integers(0, 3, samples),
    )
    path = folder / "task.toml"
    path.write_text(text)
    return path
