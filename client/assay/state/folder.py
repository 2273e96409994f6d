"""A folder that one process at a time owns, with a SQLite database in write-ahead mode.

Everything a role promises on chain (secrets of commitments, transactions it is about to send) is committed here first,
with `synchronous = FULL`, so that a process killed at any instant finds it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from types import TracebackType

from assay.errors import AssayError

DATABASE = "state.sqlite"
LOCK = "lock"
SCHEMA_VERSION = 1


class StateError(AssayError):
    """The state folder is in use, damaged, or of another version."""

    code = "state"


class DiskError(StateError):
    """The disk takes no more, or fails: what was to be written was not, and can be tried again."""

    code = "state-disk"


class StateFolder:
    """Owns `folder` until closed. Safe to use from several threads of the process.

    Raises `StateError` if another process owns it, or the database cannot be opened.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_file = (folder / LOCK).open("a+")
        except OSError as error:
            raise StateError(
                f"{folder} cannot be opened ({error.strerror}): check its owner and the free disk space, or give "
                "another folder with --state"
            ) from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock_file.seek(0)
            owner = self._lock_file.read().strip() or "another process"
            self._lock_file.close()
            raise StateError(
                f"{folder} is in use by process {owner}: stop it, or give another folder with --set state.folder=PATH"
            ) from error
        with contextlib.suppress(OSError):  # only told to others; a full disk is noticed where it matters
            os.truncate(self._lock_file.fileno(), 0)
            os.write(self._lock_file.fileno(), str(os.getpid()).encode())
        self._mutex = RLock()
        try:
            self._database = sqlite3.connect(folder / DATABASE, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("PRAGMA foreign_keys = ON")
            version = int(self._database.execute("PRAGMA user_version").fetchone()[0])
            if version == 0:
                self._database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            elif version != SCHEMA_VERSION:
                raise StateError(
                    f"{folder} was written by state version {version}, this program reads {SCHEMA_VERSION}: "
                    "use the program that wrote it, or give another folder"
                )
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT"
            )
        except sqlite3.DatabaseError as error:
            self._lock_file.close()
            raise StateError(
                f"{folder / DATABASE} cannot be read ({error}): free disk space if the disk is full; otherwise restore "
                "a copy of the folder, since it holds secrets of commitments"
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing, and on disk before the block is left. Transactions nest into the outermost one."""
        with self._mutex:
            if self._database.in_transaction:
                yield self._database
                return
            try:
                self._database.execute("BEGIN IMMEDIATE")
                yield self._database
                self._database.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise DiskError(
                    f"cannot write {self.folder / DATABASE} ({error}): free disk space; nothing was lost"
                ) from error
            finally:
                self._roll_back()

    def _roll_back(self) -> None:
        """Undo what was not committed."""
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def get(self, key: str) -> str | None:
        """A remembered fact, or None."""
        rows = self._read("SELECT value FROM facts WHERE key = ?", key)
        return str(rows[0][0]) if rows else None

    def _read(self, question: str, *values: object) -> list[tuple[object, ...]]:
        try:
            with self._mutex:
                return self._database.execute(question, values).fetchall()
        except sqlite3.OperationalError as error:
            raise DiskError(f"cannot read {self.folder / DATABASE} ({error}): check the disk") from error

    def put(self, key: str, value: str) -> None:
        """Remember a fact, durably."""
        with self.transaction() as database:
            database.execute(
                "INSERT INTO facts VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value)
            )

    def put_once(self, key: str, value: str) -> str:
        """Remember a fact unless there is one already; returns the one that holds. For secrets: never overwritten."""
        with self.transaction() as database:
            database.execute("INSERT INTO facts VALUES (?, ?) ON CONFLICT (key) DO NOTHING", (key, value))
            return str(database.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()[0])

    def keys(self, prefix: str) -> list[str]:
        """Keys of facts that begin with `prefix`, sorted."""
        rows = self._read("SELECT key FROM facts WHERE substr(key, 1, ?) = ? ORDER BY key", len(prefix), prefix)
        return [str(row[0]) for row in rows]

    def close(self) -> None:
        """Let go of the folder."""
        with self._mutex:
            self._database.close()
            self._lock_file.close()

    def __enter__(self) -> StateFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
