"""What can go wrong with stores."""

from __future__ import annotations

from assay.errors import AssayError


class StorageError(AssayError):
    """A store cannot be reached, refuses, or serves something else than what was asked for."""

    code = "storage"


class NotFoundError(StorageError):
    """The store answers, and does not have the file."""

    code = "storage-not-found"


class TooLargeError(StorageError):
    """A file is larger than the caller is willing to take."""

    code = "storage-too-large"


class StalledError(StorageError):
    """A store sends so little that the file would not arrive in any useful time."""

    code = "storage-stalled"


class LocalDiskError(StorageError):
    """This machine's disk takes no more."""

    code = "storage-disk"
