"""The link tables of a segment: their hashes while they are sent and received, their contents out of a log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from assay.commitments.sha256 import Hashes, merkle_levels, tensor_leaves
from assay.group.execution.message_log import LoggedMessages
from assay.group.execution.packing import Words
from assay.group.execution.partition import Value
from assay.group.execution.schedule import WHOLE, Message, StageSchedule
from assay.group.execution.stage_program import Link, SegmentTensors, StageProgram
from assay.program.operator import Array, TensorDescriptor
from assay.training.canonical import aligned
from assay.training.task import TrainingTask

_Key = tuple[Value, int, int]


class LinkRows:
    """The rows of one step of a set of links, filled message by message."""

    def __init__(self, links: Iterable[Link]) -> None:
        self.links = tuple(links)
        self.rows: dict[Link, Array] = {link: _zeros(link.table(1)).reshape(-1) for link in self.links}
        self._by_key: dict[_Key, Link] = {(link.value, link.sender, link.receiver): link for link in self.links}

    def fill(self, message: Message, payload: Words, step: int) -> None:
        """Put the values that a message's payload carries into their rows."""
        start = 0
        for place, length in message.layout(step):
            link = self._by_key[message.values[place], message.sender, message.receiver]
            size = message.sizes[place]
            values: npt.NDArray[Any] = message.packings[place].unpack(
                payload[start : start + length], size, link.kind.dtype
            )
            first = 0 if message.piece == WHOLE else message.piece * size
            # Bits are copied: a NaN has to stay the one it is until it is hashed.
            self.rows[link][first : first + size].view(np.uint32)[:] = values.view(np.uint32)
            start += length


class LinkRecorder:
    """Hashes a stage's link tables while a segment of at most `interval` steps runs. Keeps 32 bytes for a chunk."""

    def __init__(self, links: Iterable[Link], interval: int) -> None:
        self._rows, self._interval = LinkRows(links), interval
        self._empty = {link: tensor_leaves(row) for link, row in self._rows.rows.items()}
        self._leaves: dict[Link, list[Hashes]] = {}
        self.begin_segment()

    def begin_segment(self) -> None:
        """Forget the segment before."""
        self._leaves = {link: [] for link in self._rows.links}

    def observe(self, message: Message, payload: Words, step: int) -> None:
        """A message was sent or received."""
        self._rows.fill(message, payload, step)

    def end_step(self, step: int) -> None:
        """All messages of a step have been seen."""
        for link, row in self._rows.rows.items():
            self._leaves[link].append(tensor_leaves(row) if link.packing.is_sent(step) else self._empty[link])

    def roots(self) -> dict[Link, bytes]:
        """The tables' tensor roots."""
        found = {}
        for link, rows in self._leaves.items():
            missing = [self._empty[link]] * (self._interval - len(rows))
            found[link] = bytes(merkle_levels(np.concatenate([*rows, *missing]))[-1][0])
        return found


def empty_tables(links: Iterable[Link], interval: int) -> list[Array]:
    """The links' tables before anything was sent."""
    return [_zeros(link.table(interval)) for link in links]


def empty_roots(links: Iterable[Link], interval: int) -> list[bytes]:
    """Roots of the links' tables before anything was sent."""
    return list(LinkRecorder(links, interval).roots().values())


def logged_tables(
    links: Sequence[Link], log: Words, messages: Sequence[Message], steps: tuple[int, int], interval: int
) -> list[Array]:
    """The links' tables out of a log of `messages` in the global steps [first, end)."""
    first, end = steps
    rows, logged = LinkRows(links), LoggedMessages(log, messages, first)
    tables = dict(zip(links, empty_tables(links, interval), strict=True))
    for step in range(first, end):
        for message in messages:
            rows.fill(message, logged.payload(step, message), step)
        for link in links:
            if link.packing.is_sent(step):
                tables[link][step - first].view(np.uint32)[:] = rows.rows[link].view(np.uint32)
    return [tables[link] for link in links]


def logged_segment(
    made: StageProgram, task: TrainingTask, schedule: StageSchedule, steps: tuple[int, int],
    start: Mapping[int, Array], received: Words, sent: Words | None = None, end: Mapping[int, Array] | None = None,
) -> SegmentTensors:  # fmt: skip
    """A stage's segment, out of the logs of what it received and, where that is judged, says it sent."""
    said = () if sent is None else logged_tables(made.sent, sent, schedule.sends, steps, task.interval)
    return SegmentTensors(
        start, logged_tables(made.received, received, schedule.receives, steps, task.interval), said, end
    )


def _zeros(descriptor: TensorDescriptor) -> Array:
    array = aligned(descriptor)
    array.fill(0)
    return array
