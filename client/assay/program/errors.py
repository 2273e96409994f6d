"""What can be wrong with a program, a traced graph or a model."""

from __future__ import annotations

from assay.errors import AssayError


class ProgramError(AssayError):
    """A program, or the file it came in, breaks a rule of contracts/FORMAT.md; nothing of it was run."""

    code = "program"


class GraphError(AssayError):
    """A traced graph, or the file it came in, is not what the loader accepts; nothing of it was run."""

    code = "graph"


class UnsupportedError(AssayError):
    """A model, loss or optimizer uses something that cannot be lowered to a program."""

    code = "unsupported"
