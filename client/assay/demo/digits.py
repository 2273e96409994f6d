"""The demonstration's task: handwritten digits (the UCI set that scikit-learn ships) and a small network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from assay.program.operator import Array

TEST_SAMPLES = 297
HIDDEN = 32

MODEL = f'''"""The model of the demonstration: one hidden layer over 8 x 8 pixels."""

import torch


def make_model() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(64, {HIDDEN}), torch.nn.ReLU(), torch.nn.Linear({HIDDEN}, 10))
'''

TASK = """title = "handwritten digits"

[model]
source = "model.py:make_model"

[data]
file = "digits.npz"
tensors = ["images", "labels"]

[training]
loss = "cross_entropy"
steps = {steps}
batch_size = 32
checkpoint_interval = {interval}
mode = "exact"
seed = 7

[optimizer]
name = "adamw"
learning_rate = 0.005

[market]
lowest_reward = 0.5
highest_reward = 2
verifiers = {verifiers}
segments_per_verifier = 2
auction_seconds = 600
"""


def load_digits() -> tuple[Array, Array]:
    """All 1 797 samples in a fixed random order: images (n, 64) in [0, 1], labels (n,)."""
    from sklearn.datasets import load_digits as read

    images, labels = read(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return (images[order] / 16).astype(np.float32), labels[order].astype(np.int32)


def write_task(folder: Path, steps: int, interval: int, verifiers: int) -> Path:
    """Write model, training samples and task.toml; returns the task file."""
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = load_digits()
    np.savez(folder / "digits.npz", images=images[TEST_SAMPLES:], labels=labels[TEST_SAMPLES:])
    (folder / "model.py").write_text(MODEL)
    path = folder / "task.toml"
    path.write_text(TASK.format(steps=steps, interval=interval, verifiers=verifiers))
    return path


def accuracy(state: list[Array]) -> float:
    """Part of the held-out test samples that the trained network names rightly. `state` begins with the parameters
    (weight, bias, weight, bias)."""
    images, labels = load_digits()
    first, first_bias, second, second_bias = state[:4]
    hidden = np.maximum(images[:TEST_SAMPLES] @ first.T + first_bias, 0)
    return float(((hidden @ second.T + second_bias).argmax(1) == labels[:TEST_SAMPLES]).mean())
