"""A task so small that a market can play it hundreds of times: a linear layer, eight steps, four segments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

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


def make_task(folder: Path, changes: Mapping[str, str] = MappingProxyType({})) -> tuple[TaskFile, Bundle]:
    """The tiny task's bundle; `changes` replace lines of its task.toml."""
    text = TASK
    for line, other in changes.items():
        if line not in text:
            raise KeyError(f"the task has no line {line!r}")
        text = text.replace(line, other)
    folder.mkdir(parents=True)
    random = np.random.default_rng(5)
    inputs = random.normal(size=(24, 4)).astype(np.float32)
    np.savez(folder / "data.npz", inputs=inputs, targets=inputs @ random.normal(size=(4, 3)).astype(np.float32))
    (folder / "model.py").write_text(MODEL)
    (folder / "task.toml").write_text(text)
    file = read_task_file(folder / "task.toml")
    return file, build_bundle(file, folder / "bundle")
