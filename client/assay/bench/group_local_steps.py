"""Local steps measured: an exact task that two members train side by side, beside one machine that trains both runs.

A round is everything between the beginnings of two: the inner runs, the exchange, and what keeps the round before, that
is composing, writing and hashing its checkpoints and signing for its segments. `round_seconds` is the least that the
slowest member took for one; `speedup` is that of one machine over that of two. `message_bytes` is what a member tells
each other one in a round before all can go on, `fewer_bytes` how often that goes into its gradients in full in every
step. The replicas, which travel while the next round is trained, are in `sent_bytes` of a member and round. Both groups
must end in the same state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from assay.bench.group_execution import LIMIT_SECONDS, gpt_module, traced_gpt
from assay.group.errors import GroupMessageError
from assay.group.execution.local import run_local_group
from assay.group.local_steps import message_bytes
from assay.program.local_schedule import LocalSteps
from assay.program.local_steps_graph import with_local_steps
from assay.program.sections import build_program
from assay.training.task import TrainingTask

SETTINGS = LocalSteps(members=2, inner_steps=16)
ROUNDS = 4


def local_steps_task() -> TrainingTask:
    """The character GPT of `group_execution`, in rounds."""
    traced, data = traced_gpt()
    made = with_local_steps(traced, SETTINGS)
    steps = ROUNDS * SETTINGS.round_steps
    return TrainingTask(build_program(made.graph), made.initial_state, data, 7, steps, SETTINGS.inner_steps)


def local_steps_figures(say: Callable[[str], None]) -> dict[str, Any]:
    """Train the task with one member and with two, who sign for their segments."""
    task = local_steps_task()
    seconds: dict[str, float] = {}
    roots: set[str] = set()
    sent = 0
    for key, members in (("one", 1), ("two", 2)):
        reports = run_local_group(task, members, 1, LIMIT_SECONDS, signed=True, local_steps=SETTINGS)
        seconds[key] = max(report["round_seconds"] for report in reports)
        roots.add(reports[0]["roots"][-1])
        sent = reports[0]["sent_bytes"] // ROUNDS
        say(f"{members} member(s) side by side: {seconds[key]:.3f} s a round of {SETTINGS.round_steps} steps")
    if len(roots) != 1:
        raise GroupMessageError(f"one and two members ended in different states: {sorted(roots)}")
    message = message_bytes(task.program, SETTINGS)
    gradients = 4 * sum(parameter.numel() for parameter in gpt_module().parameters())
    return {
        "members": SETTINGS.members,
        "inner_steps": SETTINGS.inner_steps,
        "round_seconds": seconds,
        "speedup": seconds["one"] / seconds["two"],
        "message_bytes": message,
        "fewer_bytes": gradients * SETTINGS.inner_steps / message,
        "sent_bytes": sent,
    }
