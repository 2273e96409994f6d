"""The one interface of all stores, and fetching over it: resumed, retried, limited in size and watched.

A locator is `scheme:name`, for instance `dir:9f86d0...` or `ipfs:bafk...`.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Protocol

from assay.storage.errors import LocalDiskError, NotFoundError, StalledError, StorageError, TooLargeError

BLOCK_BYTES = 1 << 20
MAX_LOCATOR = 512
LEAST_RATE = 1024.0
"""Bytes a second, on average, below which a store counts as stalled however often it sends a byte."""
PATIENCE = 120.0
"""Seconds before the rate is looked at."""

Progress = Callable[[int, int | None], None]
"""(bytes so far, bytes in all if known)"""


class Store(Protocol):
    """A place for files."""

    @property
    def scheme(self) -> str:
        """What its locators begin with."""

    def put(self, path: Path, progress: Progress | None = None) -> str:
        """Store a file and return its locator. The same content gives the same locator."""

    def read(self, locator: str, offset: int) -> Iterator[bytes]:
        """The file's bytes from `offset` on, in pieces. Raises `StorageError`; may end early if the connection does."""

    def check(self) -> str:
        """A sentence about the store's state. Raises `StorageError` if it cannot be used, with what to do."""


def name_of(locator: str, scheme: str) -> str:
    """The part of a locator after its scheme. `StorageError` if it is another store's, or could be a path."""
    found, _, name = locator.partition(":")
    if len(locator) > MAX_LOCATOR or found != scheme or not name.isascii() or not name.isalnum():
        shown = locator[:80] + ("..." if len(locator) > 80 else "")
        raise StorageError(
            f"{shown!r} is no locator of the {scheme} store: it begins with '{scheme}:' and a plain name"
        )
    return name


def partial_of(target: Path) -> Path:
    """Where a file that is being fetched to `target` lies meanwhile."""
    return target.with_name(target.name + ".part")


def fetch(
    store: Store,
    locator: str,
    target: Path,
    limit: int,
    size: int | None = None,
    attempts: int = 4,
    progress: Progress | None = None,
    pause: Callable[[float], None] = time.sleep,
    patience: float = PATIENCE,
) -> Path:
    """Fetch a file to `target`, which appears only when it is complete.

    `limit` is the most bytes ever written. `size` is the exact size, if known: then a short answer is resumed where it
    broke off instead of being taken for the end. A half-fetched file of an earlier call is continued. After `attempts`
    failures without a byte of progress, or when a store trickles (less than `LEAST_RATE` over more than `patience`
    seconds), the last error is raised; what was fetched stays for the next call.
    """
    if size is not None and size > limit:
        raise TooLargeError(f"{locator} has {size} bytes, the limit is {limit}: raise the limit to take it")
    partial = partial_of(target)
    with _writing(partial):
        target.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    begin, had = time.monotonic(), partial.stat().st_size if partial.exists() else 0

    def watch(have: int) -> None:
        seconds = time.monotonic() - begin
        if seconds > patience and have - had < LEAST_RATE * (seconds - patience):
            raise StalledError(f"{locator}: {have - had} bytes in {seconds:.0f} s: the store stalls, try another place")

    while True:
        have = partial.stat().st_size if partial.exists() else 0
        if size is not None and have > size:
            partial.unlink()
            have = 0
        try:
            if size is None or have < size:
                have = _append(store, locator, partial, have, limit, size, progress, watch)
            if size is None or have == size:
                break
            raise StorageError(f"{locator} ended after {have} of {size} bytes")
        except (NotFoundError, TooLargeError, StalledError, LocalDiskError):
            raise
        except StorageError as error:
            grown = partial.stat().st_size if partial.exists() else 0
            failures = 0 if grown > have else failures + 1
            if failures >= attempts:
                raise StorageError(
                    f"{error}; {attempts} attempts without progress: check the store and try again"
                ) from error
            pause(min(8.0, 0.25 * 2**failures))
    with _writing(partial):
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(target)
    return target


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Name the local disk where it refuses, so that the store is not blamed."""
    try:
        yield
    except OSError as error:
        raise LocalDiskError(f"cannot write {path}: {error.strerror}; free disk space and try again") from error


def _append(
    store: Store,
    locator: str,
    partial: Path,
    have: int,
    limit: int,
    size: int | None,
    progress: Progress | None,
    watch: Callable[[int], None],
) -> int:
    with contextlib.closing(_pieces(store, locator, have)) as pieces, contextlib.ExitStack() as stack:
        with _writing(partial):
            # Unbuffered: what a failing disk did not take is not tried again when the file is closed.
            file = stack.enter_context(partial.open("ab", buffering=0))
        for piece in pieces:
            have += len(piece)
            if have > limit or (size is not None and have > size):
                file.close()
                partial.unlink(missing_ok=True)
                allowed = limit if size is None else size
                raise TooLargeError(f"{locator} sends more than the {allowed} bytes expected: it is not the file")
            with _writing(partial):
                _write_all(file, piece)
            watch(have)
            if progress is not None:
                progress(have, size)
    return have


def _write_all(file: io.FileIO, piece: bytes) -> None:
    """Write every byte of a piece: a disk that fills up takes part of it before it refuses."""
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]


def _pieces(store: Store, locator: str, offset: int) -> Generator[bytes, None, None]:
    yield from store.read(locator, offset)  # a generator, so that it can be closed
