"""Work beside the loop of a role: each piece once, its result kept, its failures counted and tried again later.

Every kind of work (the word before the first colon of its key) has a thread of its own, so that a training of hours
or a store that stalls holds up neither a replay that is due nor a move in court.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from assay.errors import AssayError

logger = logging.getLogger(__name__)

MISTAKES = 4
"""How often work is begun that ends with an error nobody foresaw: another attempt would hardly end otherwise."""
FETCH_ATTEMPTS = 8
"""After how many failures files count as not to be had: with the pauses between them, two minutes in which a store may
be started again or a disk be cleared."""
GIVEN_UP = 1 << 30
KEPT_SECONDS = 3600.0
"""How long a result is kept that nobody asks for: what is decided from it is asked for at every decision."""

Piece = Callable[[], Any]


@dataclass
class Failure:
    """How often a piece of work has failed, and when it may be begun again."""

    times: int = 0
    mistakes: int = 0
    not_before: float = 0.0

    @property
    def is_final(self) -> bool:
        return self.mistakes >= MISTAKES


@dataclass
class Result:
    """What a piece of work gave, and when it was last asked for."""

    value: Any
    asked: float


def is_short_memory(error: Exception) -> bool:
    """Whether there was no memory for something, in the machine or on its GPU: what needs it may have ended soon."""
    # PyTorch's error is known by its name: roles that train nothing do not import it.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


class Jobs:
    """Threads for work. They end with the process: whatever they do can be broken off at any moment and done again.

    What fails is begun again after a pause that doubles from `first_pause` to `longest_pause` seconds.
    """

    def __init__(
        self, first_pause: float = 1.0, longest_pause: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.first_pause, self.longest_pause, self.clock = first_pause, longest_pause, clock
        self._lock = threading.Lock()
        self._lanes: dict[str, SimpleQueue[tuple[str, Piece] | None]] = {}
        self._running: set[str] = set()
        self._results: dict[str, Result] = {}
        self._failures: dict[str, Failure] = {}

    def start(self, key: str, piece: Piece) -> bool:
        """Begin a piece of work; False if it is at work, done, waits for its next attempt, or has failed for good."""
        lane = key.partition(":")[0]
        with self._lock:
            failure = self._failures.get(key)
            if key in self._running or key in self._results:
                return False
            if failure is not None and (failure.is_final or self.clock() < failure.not_before):
                return False
            self._running.add(key)
            if lane not in self._lanes:
                queue = self._lanes[lane] = SimpleQueue()
                threading.Thread(target=self._work, args=(queue,), name=f"work {lane}", daemon=True).start()
            self._lanes[lane].put((key, piece))
        return True

    def _work(self, queue: SimpleQueue[tuple[str, Piece] | None]) -> None:
        while (item := queue.get()) is not None:
            key, piece = item
            try:
                value = piece()
            except Exception as error:  # whatever it is, the other work goes on
                self._fail(key, error)
            else:
                with self._lock:
                    self._running.discard(key)
                    self._results[key] = Result(value, self.clock())

    def _fail(self, key: str, error: Exception) -> None:
        expected = isinstance(error, (AssayError, OSError)) or is_short_memory(error)
        with self._lock:
            self._running.discard(key)
            failure = self._failures.setdefault(key, Failure())
            failure.times += 1
            failure.mistakes += 0 if expected else 1
            pause = min(self.longest_pause, self.first_pause * 2.0 ** min(failure.times - 1, 30))
            failure.not_before = self.clock() + pause
        code = error.code if isinstance(error, AssayError) else type(error).__name__
        again = "it is given up" if failure.is_final else f"tried again in {pause:.0f} s"
        details = {"key": key, "code": code, "failures": failure.times}
        if expected:
            logger.warning("work failed: %s; %s", error, again, extra=details)
        else:
            logger.error(
                "work failed in a way nobody foresaw: %r; %s. Everything else goes on. Run `assay doctor`, and report "
                "the trace below with the key",
                error, again, extra=details, exc_info=error,
            )  # fmt: skip

    def result(self, key: str) -> Any | None:
        """The result, or None while there is none."""
        with self._lock:
            found = self._results.get(key)
            if found is None:
                return None
            found.asked = self.clock()
            return found.value

    def failures(self, key: str) -> int:
        """How often a piece of work has failed; `GIVEN_UP` if it is not begun any more."""
        failure = self._failures.get(key)
        if failure is None:
            return 0
        return GIVEN_UP if failure.is_final else failure.times

    @property
    def running(self) -> int:
        """Pieces at work or queued."""
        return len(self._running)

    def is_waiting(self, key: str) -> bool:
        """Whether a piece of work has failed and waits for its next attempt."""
        with self._lock:
            failure = self._failures.get(key)
            return failure is not None and self._waits(key, failure)

    def _waits(self, key: str, failure: Failure) -> bool:
        return not failure.is_final and key not in self._running and key not in self._results

    def sweep(self) -> None:
        """Forget results that nobody has asked for in `KEPT_SECONDS`, and failures as old."""
        end = self.clock() - KEPT_SECONDS
        with self._lock:
            for key in [key for key, each in self._results.items() if each.asked < end]:
                del self._results[key]
                self._failures.pop(key, None)
            for key in [
                key for key, each in self._failures.items() if self._waits(key, each) and each.not_before < end
            ]:
                del self._failures[key]

    def close(self) -> None:
        """Begin nothing more."""
        for queue in self._lanes.values():
            queue.put(None)
