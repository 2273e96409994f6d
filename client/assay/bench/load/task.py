"""A task so small that a market can play it hundreds of times: a linear layer, eight steps, four segments."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from assay.tasks.build import build_bundle
from assay.tasks.bundle import Bundle
from assay.tasks.task_file import TaskFile, read_task_file

MODEL = """import torch


def make_model():
    return torch.nn.Linear(4, 3)
"""
TASK = """title = "tiny"
[model]
source = "model.py:make_model"
[data]
file = "data.npz"
tensors = ["inputs", "targets"]
[training]
loss = "mse"
steps = 8
batch_size = 4
checkpoint_interval = 2
seed = 3
[optimizer]
name = "sgd"
learning_rate = 0.1
[market]
lowest_reward = 1
highest_reward = 1
verifiers = 1
segments_per_verifier = 2
auction_seconds = 60
"""


def make_task(folder: Path) -> tuple[TaskFile, Bundle]:
    """The tiny task's bundle (exact mode)."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(5)
    inputs = random.normal(size=(24, 4)).astype(np.float32)
    np.savez(folder / "data.npz", inputs=inputs, targets=inputs @ random.normal(size=(4, 3)).astype(np.float32))
    (folder / "model.py").write_text(MODEL)
    (folder / "task.toml").write_text(TASK)
    file = read_task_file(folder / "task.toml")
    return file, build_bundle(file, folder / "bundle")
