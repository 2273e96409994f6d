"""The embedded store: files in a directory, named by the SHA-256 of their content. Several processes may share it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from assay.storage.errors import NotFoundError, StorageError
from assay.storage.store import BLOCK_BYTES, Progress, name_of


def file_digest(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = sha256()
    with path.open("rb") as file:
        while piece := file.read(BLOCK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


class DirectoryStore:
    """Files under `folder`/ab/cdef..., written atomically."""

    scheme = "dir"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _place(self, name: str) -> Path:
        if len(name) != 64:
            raise StorageError(f"'{name}' is no name in a directory store: it has 64 hexadecimal digits")
        return self.folder / name[:2] / name[2:]

    def put(self, path: Path, progress: Progress | None = None) -> str:
        """Copy a file in and return its locator."""
        size = path.stat().st_size
        digest, done = sha256(), 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, temporary_name = tempfile.mkstemp(dir=self.folder, prefix="incoming-")
            temporary = Path(temporary_name)
            try:
                with path.open("rb") as source, os.fdopen(handle, "wb") as copy:
                    while piece := source.read(BLOCK_BYTES):
                        digest.update(piece)
                        copy.write(piece)
                        done += len(piece)
                        if progress is not None:
                            progress(done, size)
                    copy.flush()
                    os.fsync(copy.fileno())
                place = self._place(digest.hexdigest())
                place.parent.mkdir(exist_ok=True)
                temporary.chmod(0o644)
                temporary.replace(place)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                f"cannot store {path} in {self.folder}: {error.strerror}; check space and rights"
            ) from error
        return f"{self.scheme}:{digest.hexdigest()}"

    def read(self, locator: str, offset: int) -> Iterator[bytes]:
        """The file's bytes from `offset` on."""
        place = self._place(name_of(locator, self.scheme))
        try:
            with place.open("rb") as file:
                file.seek(offset)
                while piece := file.read(BLOCK_BYTES):
                    yield piece
        except FileNotFoundError as error:
            raise NotFoundError(f"{locator} is not in {self.folder}: ask its owner to store it there") from error
        except OSError as error:
            raise StorageError(f"cannot read {place}: {error.strerror}") from error

    def check(self) -> str:
        """Whether the folder can be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise StorageError(f"{self.folder} cannot be written ({error.strerror}): choose another folder") from error
        return f"directory {self.folder}"
