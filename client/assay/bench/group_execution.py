"""Group execution measured: a market task trained exactly by two members beside one, on this machine, a thread each.

`bytes_per_step`: what the partition predicts and what was sent. `speedup`: one member's step time over that of two,
each the mean over its fastest segment, with the batch in one piece and in four. The state roots must be equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from assay.bench.models import Gpt, language_loss
from assay.group.errors import GroupMessageError
from assay.group.execution.local import run_local_group
from assay.program.lowering import lower_step
from assay.program.optimizer import AdamW
from assay.program.trace import trace
from assay.training.task import TrainingTask

BATCH, SAMPLES, TIME, WIDTH, LAYERS = 16, 128, 64, 128, 4
STEPS, INTERVAL = 24, 6
LIMIT_SECONDS = 900.0


def gpt_task(steps: int = STEPS, interval: int = INTERVAL) -> TrainingTask:
    """A character GPT of 4 layers, 128 wide, on made text, with AdamW."""
    torch.manual_seed(0)
    module = Gpt(width=WIDTH, layers=LAYERS, time=TIME)
    data = (torch.randint(0, 65, (SAMPLES, TIME)), torch.randint(0, 65, (SAMPLES, TIME)))
    batch = [part[:BATCH] for part in data]
    traced = trace(module, language_loss, AdamW(1e-3, weight_decay=0.01), batch, SAMPLES)
    arrays = tuple(part.numpy().astype(np.int32) for part in data)
    return TrainingTask(lower_step(traced.graph), traced.initial_state, arrays, 7, steps, interval)


def execution_figures(say: Callable[[str], None]) -> dict[str, Any]:
    """Train the same task with one member, two, and two with pieces."""
    task = gpt_task()
    seconds: dict[str, float] = {}
    roots: set[str] = set()
    sent = predicted = 0
    for key, members, microbatches in (("one", 1, 1), ("two", 2, 1), ("two_pieces", 2, 4)):
        reports = run_local_group(task, members, microbatches, LIMIT_SECONDS)
        seconds[key] = max(report["step_seconds"] for report in reports)
        roots.add(reports[0]["roots"][-1])
        if members > 1:
            sent = sum(report["sent_bytes"] for report in reports) // task.steps
            predicted = reports[0]["predicted_bytes_per_step"]
        say(f"{members} member(s), batch in {microbatches}: {seconds[key]:.3f} s a step")
    if len(roots) != 1:
        raise GroupMessageError(f"one and two members ended in different states: {sorted(roots)}")
    return {
        "step_seconds": seconds,
        "speedup": seconds["one"] / seconds["two_pieces"],
        "speedup_whole_batch": seconds["one"] / seconds["two"],
        "bytes_per_step": {"predicted": predicted, "sent": sent},
    }
