"""What a stage received, or sent, in a segment, on disk: with its start state, what judging the stage alone needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from assay.group.execution.schedule import Message
from assay.group.execution.stage import Words


class MessageLog:
    """Payloads one after another. A step's messages always come in the order of the schedule, so nothing is indexed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")

    def begin_segment(self) -> None:
        """Forget the segment before."""
        self._file.seek(0)
        self._file.truncate()

    def append(self, payload: Words) -> None:
        """Add a payload."""
        self._file.write(payload.data)

    def flush(self) -> None:
        """Make what was added readable."""
        self._file.flush()


class LoggedMessages:
    """Reads a log of a schedule's `messages` (those received, or those sent) that begins at global step `first`."""

    def __init__(self, words: Words, messages: Sequence[Message], first: int) -> None:
        self._words, self._first = words, first
        self._places: dict[Message, int] = {}
        self.step_words = 0
        for message in messages:
            self._places[message] = self.step_words
            self.step_words += message.bytes // 4

    def payload(self, step: int, message: Message) -> Words:
        """The payload of a message at a global step."""
        start = (step - self._first) * self.step_words + self._places[message]
        return self._words[start : start + message.bytes // 4]


def log_words(messages: Sequence[Message], steps: int) -> int:
    """Length of a log of these messages, in words of 4 bytes."""
    return steps * sum(message.bytes // 4 for message in messages)


def read_log(path: Path) -> Words:
    """All words of a log."""
    return np.fromfile(path, np.uint32)
