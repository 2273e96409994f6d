"""What a stage received, or sent, in a segment, on disk: with its start state, what judging the stage alone needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from assay.group.execution.packing import Words
from assay.group.execution.schedule import Message


class MessageLog:
    """Payloads one after another. A step's messages always come in the order of the schedule, so nothing is indexed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._new_file()

    def begin_segment(self) -> None:
        """Begin anew."""
        self._file.close()
        self._file = self._new_file()

    def _new_file(self) -> BinaryIO:
        """Another file under the same name: the one before may be kept under another."""
        self.path.unlink(missing_ok=True)
        return self.path.open("wb")

    def append(self, payload: Words) -> None:
        """Add a payload."""
        self._file.write(payload.data)

    def flush(self) -> None:
        """Make what was added readable."""
        self._file.flush()


class LoggedMessages:
    """Reads a log of a schedule's `messages` (those received, or those sent) that begins at global step `first`."""

    def __init__(self, words: Words, messages: Sequence[Message], first: int) -> None:
        self._words, self._messages = words, messages
        self._step, self._start = first, 0  # where the log of a step begins

    def payload(self, step: int, message: Message) -> Words:
        """The payload of a message at a global step; steps are read in order."""
        while self._step < step:
            self._start += log_words(self._messages, self._step, 1)
            self._step += 1
        start = self._start
        for other in self._messages:
            if other is message:
                break
            start += other.words(step)
        return self._words[start : start + message.words(step)]


def log_words(messages: Sequence[Message], first: int, steps: int) -> int:
    """Length of a log of these messages in `steps` steps from `first` on, in words of 4 bytes."""
    return sum(message.words(step) for step in range(first, first + steps) for message in messages)


def read_log(path: Path) -> Words:
    """All words of a log."""
    return np.fromfile(path, np.uint32)
