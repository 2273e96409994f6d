"""Messages between stages over torch.distributed. A thread waits for arrivals while the stage computes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Event, Thread

import torch
import torch.distributed as dist

from assay.group.errors import MemberFailedError
from assay.group.execution.link_tables import LinkRecorder
from assay.group.execution.message_log import MessageLog
from assay.group.execution.packing import Words
from assay.group.execution.schedule import Message, StageSchedule

_FIRST_TAG = 1
"""Tag 0 is torch's own."""


class _Arrival:
    """A message on its way: its buffer, used again every step, and whether it is full."""

    def __init__(self, message: Message) -> None:
        self.message = message
        self._whole = torch.empty(4 * message.most_words, dtype=torch.uint8)
        self.begin(0)
        self.done = Event()
        self.problem: BaseException | None = None

    def begin(self, step: int) -> None:
        """The message of a step is awaited."""
        self.buffer = self._whole[: 4 * self.message.words(step)]
        self.words: Words = self.buffer.numpy().view("<u4")


class GroupChannel:
    """The channel of one stage of a group; rank and stage number are the same. See `stage.Channel`.

    All receives of a step are posted before it begins: over gloo a send starts only when the peer has announced its
    receive. `recorder`, if given, sees the values of every message; `log` keeps what was received, `sent_log` what was
    sent.
    """

    def __init__(
        self, schedule: StageSchedule, members: Sequence[str], log: MessageLog | None = None,
        distort: Callable[[Words], None] | None = None, sent_log: MessageLog | None = None,
        recorder: LinkRecorder | None = None,
    ) -> None:  # fmt: skip
        self.members, self._log, self._distort = members, log, distort
        self._sent_log, self._recorder, self._step = sent_log, recorder, 0
        self.sent_bytes, self.waited_seconds = 0, 0.0
        self._arrivals = {message: _Arrival(message) for message in schedule.receives}
        self._sends: list[dist.Work] = []
        self._queue: SimpleQueue[tuple[_Arrival, dist.Work] | None] = SimpleQueue()
        self._thread = Thread(target=self._wait_for_arrivals, name="arrivals", daemon=True)
        self._thread.start()

    def begin(self, step: int) -> None:
        """Wait until the step before has left, and post this one's receives, in the order they are needed."""
        for sent in self._sends:
            sent.wait()
        self._sends.clear()
        self._step = step
        for arrival in self._arrivals.values():
            arrival.done.clear()
            arrival.begin(step)
            work = dist.irecv(arrival.buffer, src=arrival.message.sender, tag=_FIRST_TAG + arrival.message.order)
            if work is None:
                raise MemberFailedError("this process is not in the group; start it from the plan")
            self._queue.put((arrival, work))

    def send(self, message: Message, payload: Words) -> None:
        """Start sending; the payload must not change before `begin` of the next step."""
        if self._distort is not None:
            self._distort(payload)
        data = torch.from_numpy(payload.view("u1"))
        self._observe(message, payload)
        if self._sent_log is not None:
            self._sent_log.append(payload)
        work = dist.isend(data, dst=message.receiver, tag=_FIRST_TAG + message.order)
        if work is not None:
            self._sends.append(work)
        self.sent_bytes += data.numel()

    def arrived(self, message: Message) -> bool:
        """Whether `receive` would return at once."""
        return self._arrivals[message].done.is_set()

    def receive(self, message: Message) -> Words:
        """Wait for a message. Raises MemberFailedError naming the sender where contact is lost."""
        arrival, started = self._arrivals[message], time.monotonic()
        arrival.done.wait()
        self.waited_seconds += time.monotonic() - started
        if arrival.problem is not None:
            raise MemberFailedError(
                f"lost contact with {self.members[message.sender]!r} while waiting for its values: {arrival.problem}"
            ) from arrival.problem
        self._observe(message, arrival.words)
        if self._log is not None:
            self._log.append(arrival.words)
        return arrival.words

    def close(self) -> None:
        """Wait until everything has left, and end the thread."""
        for sent in self._sends:
            sent.wait()
        self._sends.clear()
        self._queue.put(None)
        self._thread.join()

    def _observe(self, message: Message, words: Words) -> None:
        if self._recorder is not None:
            self._recorder.observe(message, words, self._step)

    def _wait_for_arrivals(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                return
            arrival, work = item
            try:
                work.wait()
            except Exception as error:  # whatever gloo raises is the receiver's to report
                arrival.problem = error
            arrival.done.set()
