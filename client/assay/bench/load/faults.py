"""What goes wrong: a state folder whose process dies at a write, a store that fails or lies, an endpoint that drops."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import requests
from web3 import HTTPProvider
from web3.types import RPCEndpoint, RPCResponse

from assay.state import StateError, StateFolder
from assay.storage.errors import StorageError
from assay.storage.store import Progress, Store


class Killed(BaseException):
    """The process ends here, as by SIGKILL: nothing may catch this but whoever starts it again."""


class MortalState(StateFolder):
    """A state folder whose process is killed right after some write: that one is on disk, and nothing after it is."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._left: int | None = None
        self.is_dead = False

    def arm(self, writes: int) -> None:
        """The process dies with this many further writes."""
        self._left = writes

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Any]:
        if self.is_dead:
            self._stop()
            raise StateError(f"the process that owned {self.folder} has been killed")
        nested, before = self._database.in_transaction, self._database.total_changes
        with super().transaction() as database:
            yield database
        if self._left is None or nested or self._database.total_changes == before:
            return
        self._left -= 1
        if self._left <= 0:
            self.is_dead = True
            self._stop()

    def _stop(self) -> None:
        """A thread that works for the role is stopped by its next write; the role itself at once."""
        if threading.current_thread() is threading.main_thread():
            raise Killed


class FaultyStore:
    """A store that refuses, breaks off, or answers with other bytes, each with some chance."""

    def __init__(self, store: Store, rate: float, chance: random.Random) -> None:
        self.store, self.rate, self.chance = store, rate, chance
        self.faults = 0

    @property
    def scheme(self) -> str:
        return self.store.scheme

    def put(self, path: Path, progress: Progress | None = None) -> str:
        if self.chance.random() < self.rate:
            self.faults += 1
            raise StorageError(f"{path.name} was not stored: the store is out of order (made so on purpose)")
        return self.store.put(path, progress)

    def read(self, locator: str, offset: int) -> Iterator[bytes]:
        fault = self.chance.random()
        if fault >= self.rate:
            yield from self.store.read(locator, offset)
            return
        self.faults += 1
        if fault < self.rate / 3:
            raise StorageError(f"{locator[:40]} was not read: the store is out of order (made so on purpose)")
        for piece in self.store.read(locator, offset):
            if fault < 2 * self.rate / 3:
                yield piece[: len(piece) // 2]
                return
            yield bytes([piece[0] ^ 1]) + piece[1:]

    def check(self) -> str:
        return self.store.check()


class FaultyProvider(HTTPProvider):
    """An endpoint that drops calls before they arrive, or their answers, each with half the chance."""

    def __init__(self, url: str, rate: float, chance: random.Random) -> None:
        super().__init__(url, request_kwargs={"timeout": 20.0}, exception_retry_configuration=None)
        self.rate, self.chance = rate, chance
        self.faults = 0

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        fault = self.chance.random()
        if fault < self.rate / 2:
            self.faults += 1
            raise requests.ConnectionError(f"{method} was dropped (made so on purpose)")
        answer = super().make_request(method, params)
        if fault < self.rate:
            self.faults += 1
            raise requests.ConnectionError(f"the answer to {method} was lost (made so on purpose)")
        return answer
