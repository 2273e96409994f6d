"""A training task as files, as data only: how a member's processes hand it to each other."""

from __future__ import annotations

import json
from pathlib import Path

from assay.program.file import read_program, write_program
from assay.program.graph import Graph, dump_graph, load_graph
from assay.program.sections import Precision
from assay.training.checkpoint import read_tensors, write_synced, write_tensors
from assay.training.errors import TaskError
from assay.training.task import Mode, TrainingTask

GRAPH_NAME = "graph.json"


def write_task(task: TrainingTask, folder: Path, graph: Graph | None = None) -> None:
    """Write a task's program, initial state, data and schedule, and the graph that it is trained from natively;
    `task.json` last, so that a complete folder has it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_program(task.program, folder / "program.bin")
    write_tensors(folder / "initial.safetensors", task.state)
    write_tensors(folder / "data.safetensors", task.data)
    if graph is not None:
        (folder / GRAPH_NAME).write_bytes(dump_graph(graph))
    schedule = {
        "seed": task.seed, "steps": task.steps, "interval": task.interval, "mode": task.mode.value,
        "precision": task.precision.value, "fingerprint": task.fingerprint.hex(), "native": graph is not None,
    }  # fmt: skip
    write_synced(folder / "task.json", json.dumps(schedule) + "\n")


def read_task(folder: str | Path) -> tuple[TrainingTask, Graph | None]:
    """Read what `write_task` wrote. Raises `TaskError` where it is damaged."""
    folder = Path(folder)
    try:
        schedule = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        program = read_program(folder / "program.bin")
        state = read_tensors(folder / "initial.safetensors", program.state, "initial state")
        data = read_tensors(folder / "data.safetensors", program.data, "data")
        task = TrainingTask(
            program, tuple(state), tuple(data), int(schedule["seed"]), int(schedule["steps"]),
            int(schedule["interval"]), Mode(schedule["mode"]), Precision(schedule["precision"]),
        )  # fmt: skip
        graph = load_graph((folder / GRAPH_NAME).read_bytes()) if schedule["native"] else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TaskError(f"{folder} does not hold a task ({error}): hand it over again") from error
    if task.fingerprint.hex() != schedule["fingerprint"]:
        raise TaskError(f"the task in {folder} is not the one that was written there: hand it over again")
    return task, graph
