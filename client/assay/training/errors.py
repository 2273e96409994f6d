"""What can go wrong with tasks, checkpoints and replays."""

from __future__ import annotations

from assay.errors import AssayError


class TaskError(AssayError):
    """A task's files do not fit together, or do not fit what its manifest says."""

    code = "task"


class CheckpointError(AssayError):
    """A checkpoint is missing, incomplete, or not what its root says."""

    code = "checkpoint"
