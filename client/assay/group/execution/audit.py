"""Judge one stage alone: replayed from its start state with the messages its neighbours signed, it must say what its
member signed, and end where its member said.

In an audited segment every member judges the one before it (a ring), before anybody keeps the segment's checkpoint.
Which segments are audited follows from their end state, so nobody knows while training. What is judged is what was
signed: the inputs must match the neighbours' statements, the outputs the member's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import torch

from assay.commitments import tensor
from assay.engine.device import Device
from assay.group.errors import GroupMessageError
from assay.group.execution.exchange import link, links
from assay.group.execution.message_log import LoggedMessages
from assay.group.execution.partition import Partition
from assay.group.execution.schedule import Message, StageSchedule
from assay.group.execution.stage import StageRun, Words
from assay.group.transcript import Statement, Transcript, recover
from assay.program.operator import Array
from assay.training.task import TrainingTask

AUDIT_DOMAIN = b"assay-group-audit-1"


def is_audited(root: bytes, rate: float) -> bool:
    """Whether the segment that ends in the state `root` is audited; the fraction `rate` of all segments is."""
    return int.from_bytes(sha256(AUDIT_DOMAIN + root).digest(), "big") < rate * 2.0**256


@dataclass(frozen=True)
class StageRecord:
    """What a judge is given of a stage in one segment.

    `start`: the tensors it holds, by number; `log`: the payloads it received; `received` and `sent`: the statements of
    its neighbours and its own; `end`: the roots it stated for the tensors it answers for.
    """

    start: Mapping[int, Array]
    log: Words
    received: Sequence[Statement]
    sent: Sequence[Statement]
    end: Mapping[int, bytes]


class _Playback:
    """A channel that hands a stage the logged messages, and hashes what it sends."""

    def __init__(self, messages: LoggedMessages, members: Sequence[str]) -> None:
        self.messages, self.members = messages, members
        self.transcript = Transcript()
        self._buffers: dict[Message, Words] = {}

    def begin(self, step: int) -> None:
        self.transcript.step = step

    def send(self, message: Message, payload: Words) -> None:
        self._observe(message, "sent", payload)

    def arrived(self, message: Message) -> bool:
        return True

    def receive(self, message: Message) -> Words:
        logged = self.messages.payload(self.transcript.step, message)
        # One place for each message: compiled kernels remember addresses.
        buffer = self._buffers.setdefault(message, logged.copy())
        np.copyto(buffer, logged)
        self._observe(message, "received", buffer)
        return buffer

    def _observe(self, message: Message, way: str, payload: Words) -> None:
        direction = link(self.members[message.sender], self.members[message.receiver])
        self.transcript.observe(direction, message.order, way, torch.from_numpy(payload.view(np.uint8)))


class StageJudge:
    """Judges one stage of a group; compiles it once."""

    def __init__(
        self, task: TrainingTask, divided: Partition, schedule: StageSchedule, members: Sequence[str], device: Device
    ) -> None:
        self.task, self.schedule, self.members = task, schedule, members
        self.name = members[schedule.stage]
        self.run = StageRun(task.program, divided, schedule, task.data, task.seed, device)

    def judge(
        self, segment: int, record: StageRecord, task_id: int, addresses: Mapping[str, str],
        start_roots: Sequence[bytes],
    ) -> None:  # fmt: skip
        """Raise GroupMessageError naming the member unless all it said about `segment` is what an honest one says.

        `start_roots`: the agreed roots of all state tensors at the segment's start.
        """
        first = self.task.first_step(segment)
        steps = (first, first + self.task.segment_steps(segment))
        where = f"{self.name!r} in segment {segment}"
        for number in self.run.held:
            if tensor.root(record.start[number]) != start_roots[number]:
                raise GroupMessageError(f"{where} did not start from the agreed state (tensor {number}); exclude it")
        self.run.load(record.start)
        playback = _Playback(LoggedMessages(record.log, self.schedule, first), self.members)
        for number in range(*steps):
            self.run.step(number, playback)
        to, of = links(self.schedule, self.members)
        for way, neighbours, statements in (("received", of, record.received), ("sent", to, record.sent)):
            for (direction, other), statement in zip(neighbours, statements, strict=True):
                sender, receiver = (other, self.name) if way == "received" else (self.name, other)
                _check_signed(statement, task_id, sender, receiver, steps, addresses[sender])
                root, count = playback.transcript.root(way, direction)
                if (root, count) == (statement.root, statement.messages):
                    continue
                if way == "received":
                    raise GroupMessageError(f"{where} accepted other messages than {other!r} signed; exclude it")
                raise GroupMessageError(
                    f"{where} sent {other!r} other values than its operators give (messages with root "
                    f"{statement.root.hex()[:16]}, replayed {root.hex()[:16]}): it sent garbage; exclude it"
                )
        for number, array in self.run.state.items():
            if tensor.root(array) != record.end[number]:
                raise GroupMessageError(f"{where} ended in another state (tensor {number}) than it stated; exclude it")


def _check_signed(
    statement: Statement, task_id: int, sender: str, receiver: str, steps: tuple[int, int], address: str
) -> None:
    about = (statement.task, statement.sender, statement.receiver, statement.first_step, statement.last_step)
    if about != (task_id, sender, receiver, *steps) or recover(statement.digest(), statement.signature) != address:
        raise GroupMessageError(
            f"a statement of {sender!r} to {receiver!r} is about something else or not signed by it"
        )
