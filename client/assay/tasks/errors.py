"""What can be wrong with task files, bundles and published proofs."""

from __future__ import annotations

from assay.errors import AssayError


class TaskFileError(AssayError):
    """A task.toml, or a file it names, cannot be used."""

    code = "task-file"


class BundleError(AssayError):
    """A task's files are not what its manifest or the chain says; nothing of them was run."""

    code = "bundle"


class ProofFilesError(AssayError):
    """A published proof of learning is not what its manifest or the chain says."""

    code = "proof-files"
