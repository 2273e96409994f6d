"""What a task.toml declares for the groups that train its task."""

from __future__ import annotations

from assay.group.declared import Declared
from assay.program.optimizer import SGD
from assay.tasks.task_file import TaskFile


def declared_by(task: TaskFile) -> Declared:
    """What the program of a task will declare, read off its file."""
    if task.local_steps is not None:
        optimizer = task.optimizer
        moments = int(optimizer.momentum > 0) if isinstance(optimizer, SGD) else 2
        return Declared(local_steps=task.local_steps, moments=moments)
    if task.group is None:
        return Declared()
    terms = task.group
    return Declared(terms.boundaries, terms.compression, terms.replicas, terms.gradient_bits)
