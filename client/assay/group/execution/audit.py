"""Judge one stage alone: replayed from its start state with the messages its neighbours signed, it must say what its
member signed, and end where its member said.

In an audited segment every member judges the one before it (a ring), before anybody keeps the segment's checkpoint.
Which segments are audited follows from their end state, so nobody knows while training. What is judged is what was
signed: the inputs must match what the neighbours stated, the outputs what the member did.

In exact arithmetic that is a comparison of hashes, and a statement that is false can be taken to court
(`stage_statements`). Where members train with PyTorch's kernels, an honest replay on another machine differs in its
rounding: the member also hands over what it sent and where it ended, hashes say that this is what it signed, and the
replay says whether it lies close (`tolerance`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
import torch

from assay.commitments import tensor
from assay.group.errors import FalseStageError, GroupMessageError
from assay.group.execution.engines import StageEngine
from assay.group.execution.exchange import link, links
from assay.group.execution.link_tables import LinkRecorder
from assay.group.execution.message_log import LoggedMessages
from assay.group.execution.packing import Words
from assay.group.execution.partition import Partition
from assay.group.execution.schedule import Message, StageSchedule
from assay.group.execution.stage_program import Link, links_of
from assay.group.execution.tolerance import TOLERANCES, Tolerance, difference, norm
from assay.group.transcript import Statement, Transcript, recover
from assay.program.operator import Array
from assay.training.task import TrainingTask

SMALL_PART = 0.1
"""Part of a stage's elements that may end elsewhere in a replay: a bias that rounding alone moves ends anywhere under
an optimizer that divides by the gradient's size. What that hides, the market's own thresholds see."""

AUDIT_DOMAIN = b"assay-group-audit-1"


def is_audited(root: bytes, rate: float) -> bool:
    """Whether the segment that ends in the state `root` is audited; the fraction `rate` of all segments is."""
    return int.from_bytes(sha256(AUDIT_DOMAIN + root).digest(), "big") < rate * 2.0**256


@dataclass(frozen=True)
class StageRecord:
    """What a judge is given of a stage in one segment.

    `start`: the tensors it holds, by number; `log`: the payloads it received; `end`: the roots it stated for the
    tensors it answers for. Of a stage that computes exactly, `tables`: the roots of its link tables, as their senders
    stated them. Of another one, `received` and `sent`: the statements of its neighbours and its own; `sent_log`: the
    payloads it sent; `end_state`: the tensors behind the roots.
    """

    start: Mapping[int, Array]
    log: Words
    end: Mapping[int, bytes]
    tables: Mapping[Link, bytes] = field(default_factory=dict)
    received: Sequence[Statement] = ()
    sent: Sequence[Statement] = ()
    sent_log: Words | None = None
    end_state: Mapping[int, Array] | None = None


@dataclass
class _Worst:
    """The message that differed the most."""

    difference: float = 0.0
    message: Message | None = None

    def see(self, message: Message, difference: float) -> None:
        """Keep the larger difference; one that is not a number stays."""
        if self.message is None or not difference <= self.difference:
            self.difference, self.message = difference, message


Observer = Callable[[Message, str, Words], None]
"""Sees every message of a replay: which, "sent" or "received", and its payload."""


class _Playback:
    """A channel that hands a stage the logged messages, and shows what it sends.

    With `sent`, what the member says it sent is shown, and `compare` sees it beside what the replay would send.
    """

    def __init__(
        self, messages: LoggedMessages, observe: Observer, sent: LoggedMessages | None = None,
        compare: Callable[[Message, Words, Words], None] | None = None,
    ) -> None:  # fmt: skip
        self.messages, self.observe, self.sent, self.compare = messages, observe, sent, compare
        self.step = 0

    def begin(self, step: int) -> None:
        self.step = step

    def send(self, message: Message, payload: Words) -> None:
        if self.sent is not None and self.compare is not None:
            stated = self.sent.payload(self.step, message)
            self.compare(message, stated, payload)
            payload = stated
        self.observe(message, "sent", payload)

    def arrived(self, message: Message) -> bool:
        return True

    def receive(self, message: Message) -> Words:
        logged = self.messages.payload(self.step, message)
        self.observe(message, "received", logged)
        return logged


class StageJudge(ABC):
    """Judges one stage of a group; compiles it once."""

    def __init__(
        self, task: TrainingTask, divided: Partition, schedule: StageSchedule, members: Sequence[str],
        engine: StageEngine,
    ) -> None:  # fmt: skip
        self.task, self.schedule, self.members = task, schedule, members
        self.name = members[schedule.stage]
        self.run = engine.stage(divided, schedule)

    @abstractmethod
    def judge(
        self, segment: int, record: StageRecord, task_id: int, addresses: Mapping[str, str],
        start_roots: Sequence[bytes],
    ) -> None:  # fmt: skip
        """Raise GroupMessageError naming the member unless all it said about `segment` is what an honest one says;
        FalseStageError where what it signed about its stage can be shown to be false.

        `start_roots`: the agreed roots of all state tensors at the segment's start.
        """

    def _begin(self, segment: int, record: StageRecord, start_roots: Sequence[bytes]) -> tuple[str, tuple[int, int]]:
        """Load the start state, which must be the agreed one; returns words for the member and the segment's steps."""
        first = self.task.first_step(segment)
        where = f"{self.name!r} in segment {segment}"
        for number in self.run.held:
            if tensor.root(record.start[number]) != start_roots[number]:
                raise GroupMessageError(f"{where} did not start from the agreed state (tensor {number}); exclude it")
        self.run.load(record.start)
        return where, (first, first + self.task.segment_steps(segment))


class ExactJudge(StageJudge):
    """Judges a stage that computes exactly: by hashes."""

    def __init__(
        self, task: TrainingTask, divided: Partition, schedule: StageSchedule, members: Sequence[str],
        engine: StageEngine,
    ) -> None:  # fmt: skip
        super().__init__(task, divided, schedule, members, engine)
        links = links_of(engine.program, divided)
        self._links = [link for link in links if schedule.stage in (link.sender, link.receiver)]
        self._recorder = LinkRecorder(self._links, task.interval)

    def judge(
        self, segment: int, record: StageRecord, task_id: int, addresses: Mapping[str, str],
        start_roots: Sequence[bytes],
    ) -> None:  # fmt: skip
        where, steps = self._begin(segment, record, start_roots)
        self._recorder.begin_segment()
        playback = _Playback(
            LoggedMessages(record.log, self.schedule.receives, steps[0]),
            lambda message, _way, payload: self._recorder.observe(message, payload, playback.step),
        )
        for number in range(*steps):
            self.run.step(number, playback)
            self._recorder.end_step(number)
        found = self._recorder.roots()
        # What it received first: from other messages everything else follows otherwise.
        for each in sorted(self._links, key=lambda each: each.sender == self.schedule.stage):
            if found[each] == record.tables[each]:
                continue
            if each.receiver == self.schedule.stage:
                sender = self.members[each.sender]
                raise GroupMessageError(f"{where} accepted other messages than {sender!r} signed; exclude it")
            raise FalseStageError(
                f"{where} sent {self.members[each.receiver]!r} other values than its operators give ({each.name}: "
                f"stated {record.tables[each].hex()[:16]}, replayed {found[each].hex()[:16]}): it sent garbage; "
                "exclude it"
            )
        for number, array in self.run.state.items():
            if tensor.root(array) != record.end[number]:
                raise FalseStageError(f"{where} ended in another state (tensor {number}) than it stated; exclude it")


class NativeJudge(StageJudge):
    """Judges a stage that trains with PyTorch's kernels: by what its member says it sent, within rounding."""

    def __init__(
        self, task: TrainingTask, divided: Partition, schedule: StageSchedule, members: Sequence[str],
        engine: StageEngine,
    ) -> None:  # fmt: skip
        super().__init__(task, divided, schedule, members, engine)
        self.tolerance = TOLERANCES[task.precision]

    def judge(
        self, segment: int, record: StageRecord, task_id: int, addresses: Mapping[str, str],
        start_roots: Sequence[bytes],
    ) -> None:  # fmt: skip
        where, steps = self._begin(segment, record, start_roots)
        first = steps[0]
        sent = None if record.sent_log is None else LoggedMessages(record.sent_log, self.schedule.sends, first)
        worst, transcript = _Worst(), Transcript()

        def compare(message: Message, stated: Words, replayed: Words) -> None:
            given, own = (self.run.unpacked(message, words, playback.step) for words in (stated, replayed))
            for (_, one), (_, other) in zip(given, own, strict=True):
                worst.see(message, difference(one, other))

        def observe(message: Message, way: str, payload: Words) -> None:
            direction = link(self.members[message.sender], self.members[message.receiver])
            transcript.step = playback.step
            transcript.observe(direction, message.order, way, torch.from_numpy(payload.view(np.uint8)))

        received = LoggedMessages(record.log, self.schedule.receives, first)
        playback = _Playback(received, observe, sent, compare)
        for number in range(*steps):
            self.run.step(number, playback)
        self._check_statements(where, record, transcript, task_id, addresses, steps)
        if worst.message is not None and not worst.difference <= self.tolerance.message:
            raise GroupMessageError(
                f"{where} sent {self.members[worst.message.receiver]!r} values that differ by a relative "
                f"{worst.difference:.3g} from what its operators give, {self.tolerance.message:.3g} is rounding: it "
                "sent garbage; exclude it"
            )
        self._check_end(where, record, self.tolerance)

    def _check_statements(
        self, where: str, record: StageRecord, transcript: Transcript, task_id: int, addresses: Mapping[str, str],
        steps: tuple[int, int],
    ) -> None:  # fmt: skip
        to, of = links(self.schedule, self.members)
        for way, neighbours, statements in (("received", of, record.received), ("sent", to, record.sent)):
            for (direction, other), statement in zip(neighbours, statements, strict=True):
                sender, receiver = (other, self.name) if way == "received" else (self.name, other)
                _check_signed(statement, task_id, sender, receiver, steps, addresses[sender])
                root, count = transcript.root(way, direction)
                if (root, count) == (statement.root, statement.messages):
                    continue
                if way == "received":
                    raise GroupMessageError(f"{where} accepted other messages than {other!r} signed; exclude it")
                raise GroupMessageError(
                    f"{where} sent {other!r} other values than its operators give (messages with root "
                    f"{statement.root.hex()[:16]}, replayed {root.hex()[:16]}): it sent garbage; exclude it"
                )

    def _check_end(self, where: str, record: StageRecord, tolerance: Tolerance) -> None:
        """Whether the stated end is where the replay ends, but for rounding."""
        off = total = 0
        for number, own in self.run.state.items():
            given = None if record.end_state is None else record.end_state[number]
            if given is None or tensor.root(given) != record.end[number]:
                raise GroupMessageError(f"{where} does not hold the tensor {number} that it stated; exclude it")
            total += own.size
            moved = difference(own, record.start[number], absolute=True)
            if not difference(given, own, absolute=True) <= tolerance.update * moved + tolerance.rounding * norm(own):
                off += own.size
        if off > SMALL_PART * total:
            raise GroupMessageError(
                f"{where} ended in another state than its messages lead to: {off} of its {total} elements are in "
                "tensors that are too far away; exclude it"
            )


def judge_of(
    task: TrainingTask, divided: Partition, schedule: StageSchedule, members: Sequence[str], engine: StageEngine
) -> StageJudge:
    """The judge of a stage, by how it computes."""
    return (ExactJudge if engine.is_exact else NativeJudge)(task, divided, schedule, members, engine)


def _check_signed(
    statement: Statement, task_id: int, sender: str, receiver: str, steps: tuple[int, int], address: str
) -> None:
    about = (statement.task, statement.sender, statement.receiver, statement.first_step, statement.last_step)
    if about != (task_id, sender, receiver, *steps) or recover(statement.digest(), statement.signature) != address:
        raise GroupMessageError(
            f"a statement of {sender!r} to {receiver!r} is about something else or not signed by it"
        )
