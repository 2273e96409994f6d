"""Judge one stage alone: replayed from its start state with the messages its neighbours signed, it must say what its
member signed, and end where its member said.

In an audited segment every member judges another one (a ring), before anybody keeps the segment's checkpoint. Which
segments are audited, and who judges whom, follows from their end state, so nobody knows while training, and nobody
chooses its judge. What is judged is what was signed: the inputs must match what the neighbours stated, the outputs what
the member did.

In exact arithmetic that is a comparison of hashes. Where members train with PyTorch's kernels, an honest replay on
another machine differs in its rounding: the member also hands over what it sent and where it ended, hashes say that
this is what it signed, and the replay says whether it lies close (`tolerance`). What does not is executed once more as
the court would, in the exact arithmetic (`native.checking`), and only that makes it garbage. A statement that is false
either way can be taken to court (`stage_statements`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from assay.commitments import tensor
from assay.engine.cpu.device import CpuDevice
from assay.group.errors import FalseStageError, GroupMessageError
from assay.group.execution.engines import StageEngine
from assay.group.execution.link_tables import LinkRecorder, logged_segment
from assay.group.execution.message_log import LoggedMessages
from assay.group.execution.native.checking import fault_in
from assay.group.execution.packing import Words
from assay.group.execution.partition import Partition
from assay.group.execution.schedule import Message, StageSchedule
from assay.group.execution.stage_program import Link, links_of
from assay.group.execution.tolerance import SMALL_PART, TOLERANCES, difference, norm
from assay.program.operator import Array
from assay.training.canonical import CanonicalRun
from assay.training.task import TrainingTask

AUDIT_DOMAIN = b"assay-group-audit-2"


def is_audited(root: bytes, rate: float) -> bool:
    """Whether the segment that ends in the state `root` is audited; the fraction `rate` of all segments is."""
    return _drawn(root, b"whether") < rate * 2.0**256


def judge_distance(root: bytes, members: int) -> int:
    """How many places behind its judge in the ring of `members` the judged one is, where a segment ends in `root`."""
    return 1 + _drawn(root, b"who") % (members - 1)


def _drawn(root: bytes, what: bytes) -> int:
    return int.from_bytes(sha256(AUDIT_DOMAIN + what + root).digest(), "big")


@dataclass(frozen=True)
class StageRecord:
    """What a judge is given of a stage in one segment.

    `start`: the tensors it holds, by number; `log`: the payloads it received; `end`: the roots it stated for the
    tensors it answers for; `tables`: the roots of its link tables, as their senders stated them. Of one that does not
    compute exactly, `sent_log`: the payloads it sent, and `end_state`: the tensors behind the roots.
    """

    start: Mapping[int, Array]
    log: Words
    end: Mapping[int, bytes]
    tables: Mapping[Link, bytes]
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


Observer = Callable[[Message, Words], None]
"""Sees every message of a replay, received or sent, and its payload."""

Progress = Callable[[], None]
"""Called as long as a judgement goes on."""


class Playback:
    """A channel that hands a stage the logged messages, and shows what it receives and sends."""

    def __init__(self, messages: LoggedMessages, sent: Observer, received: Observer = lambda _m, _w: None) -> None:
        self.messages, self._sent, self._received = messages, sent, received
        self.step = 0

    def begin(self, step: int) -> None:
        self.step = step

    def send(self, message: Message, payload: Words) -> None:
        self._sent(message, payload)

    def arrived(self, message: Message) -> bool:
        return True

    def receive(self, message: Message) -> Words:
        logged = self.messages.payload(self.step, message)
        self._received(message, logged)
        return logged


class StageJudge(ABC):
    """Judges one stage of a group; compiles it once."""

    def __init__(
        self, task: TrainingTask, divided: Partition, schedule: StageSchedule, members: Sequence[str],
        engine: StageEngine,
    ) -> None:  # fmt: skip
        self.task, self.divided, self.schedule, self.members = task, divided, schedule, members
        self.engine = engine
        self.name = members[schedule.stage]
        self.run = engine.stage(divided, schedule)
        links = links_of(engine.program, divided)
        self._links = [link for link in links if schedule.stage in (link.sender, link.receiver)]
        self._recorder = LinkRecorder(self._links, task.interval)

    @abstractmethod
    def judge(
        self, segment: int, record: StageRecord, start_roots: Sequence[bytes], progress: Progress = lambda: None
    ) -> None:
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
        self._recorder.begin_segment()
        return where, (first, first + self.task.segment_steps(segment))

    def _check_received(self, where: str, record: StageRecord, found: Mapping[Link, bytes]) -> None:
        """From other messages everything follows otherwise."""
        for link in self._links:
            if link.receiver == self.schedule.stage and found[link] != record.tables[link]:
                sender = self.members[link.sender]
                raise GroupMessageError(f"{where} accepted other messages than {sender!r} signed; exclude it")

    def _sent(self) -> list[Link]:
        return [link for link in self._links if link.sender == self.schedule.stage]


class ExactJudge(StageJudge):
    """Judges a stage that computes exactly: by hashes."""

    def judge(
        self, segment: int, record: StageRecord, start_roots: Sequence[bytes], progress: Progress = lambda: None
    ) -> None:
        where, steps = self._begin(segment, record, start_roots)

        def record_message(message: Message, payload: Words) -> None:
            self._recorder.observe(message, payload, playback.step)

        messages = LoggedMessages(record.log, self.schedule.receives, steps[0])
        playback = Playback(messages, record_message, record_message)
        for number in range(*steps):
            self.run.step(number, playback)
            self._recorder.end_step(number)
            progress()
        found = self._recorder.roots()
        self._check_received(where, record, found)
        for link in self._sent():
            if found[link] != record.tables[link]:
                raise FalseStageError(
                    f"{where} sent {self.members[link.receiver]!r} other values than its operators give ({link.name}: "
                    f"stated {record.tables[link].hex()[:16]}, replayed {found[link].hex()[:16]}): it sent garbage; "
                    "exclude it"
                )
        for number, array in self.run.state.items():
            if tensor.root(array) != record.end[number]:
                raise FalseStageError(f"{where} ended in another state (tensor {number}) than it stated; exclude it")


class NativeJudge(StageJudge):
    """Judges a stage that trains with PyTorch's kernels: within rounding, by what its member hands over."""

    def __init__(
        self, task: TrainingTask, divided: Partition, schedule: StageSchedule, members: Sequence[str],
        engine: StageEngine,
    ) -> None:  # fmt: skip
        super().__init__(task, divided, schedule, members, engine)
        self.tolerance = TOLERANCES[task.precision]

    def judge(
        self, segment: int, record: StageRecord, start_roots: Sequence[bytes], progress: Progress = lambda: None
    ) -> None:
        where, steps = self._begin(segment, record, start_roots)
        sent_log, end_state = self._check_given(where, record, steps)
        doubt = self._doubt(record, sent_log, end_state, steps, progress)
        if not doubt:
            return
        fault = self._fault(record, sent_log, end_state, steps, progress)
        if not fault <= 1:
            raise FalseStageError(f"{where} {doubt}; its fault is {fault:.3g}: it sent garbage; exclude it")

    def _check_given(
        self, where: str, record: StageRecord, steps: tuple[int, int]
    ) -> tuple[Words, Mapping[int, Array]]:
        """What the member says it sent and ended with, if it is what it signed."""
        if record.sent_log is None or record.end_state is None:
            raise GroupMessageError(f"{where} does not hand over what it sent and how it ended; exclude it")
        received = LoggedMessages(record.log, self.schedule.receives, steps[0])
        sent = LoggedMessages(record.sent_log, self.schedule.sends, steps[0])
        for number in range(*steps):
            for messages, log in ((self.schedule.receives, received), (self.schedule.sends, sent)):
                for message in messages:
                    self._recorder.observe(message, log.payload(number, message), number)
            self._recorder.end_step(number)
        found = self._recorder.roots()
        self._check_received(where, record, found)
        for link in self._sent():
            if found[link] != record.tables[link]:
                raise GroupMessageError(
                    f"{where} does not hold the messages to {self.members[link.receiver]!r} that it stated "
                    f"({link.name}); exclude it"
                )
        for number in self.divided.parts[self.schedule.stage].state:
            if tensor.root(record.end_state[number]) != record.end[number]:
                raise GroupMessageError(f"{where} does not hold the tensor {number} that it stated; exclude it")
        return record.sent_log, record.end_state

    def _doubt(
        self, record: StageRecord, sent_log: Words, end_state: Mapping[int, Array], steps: tuple[int, int],
        progress: Progress,
    ) -> str:  # fmt: skip
        """Replay with PyTorch's kernels; what lies too far from it, in words, "" where all is close."""
        worst = _Worst()
        sent = LoggedMessages(sent_log, self.schedule.sends, steps[0])

        def compare(message: Message, payload: Words) -> None:
            stated = sent.payload(playback.step, message)
            given, own = (self.run.unpacked(message, words, playback.step) for words in (stated, payload))
            for (_, one), (_, other) in zip(given, own, strict=True):
                worst.see(message, difference(one, other))

        playback = Playback(LoggedMessages(record.log, self.schedule.receives, steps[0]), compare)
        for number in range(*steps):
            self.run.step(number, playback)
            progress()
        if worst.message is not None and not worst.difference <= self.tolerance.message:
            return (
                f"sent {self.members[worst.message.receiver]!r} values that differ by a relative "
                f"{worst.difference:.3g} from what its operators give ({self.tolerance.message:.3g} is rounding)"
            )
        off = total = 0
        for number, own in self.run.state.items():
            total += own.size
            moved = difference(own, record.start[number], absolute=True)
            allowed = self.tolerance.update * moved + self.tolerance.rounding * norm(own)
            if not difference(end_state[number], own, absolute=True) <= allowed:
                off += own.size
        if off > SMALL_PART * total:
            return f"ended in another state than its messages lead to ({off} of its {total} elements lie too far away)"
        return ""

    def _fault(
        self, record: StageRecord, sent_log: Words, end_state: Mapping[int, Array], steps: tuple[int, int],
        progress: Progress,
    ) -> float:  # fmt: skip
        """What the court would find."""
        progress()
        made = self.engine.stage_program(self.divided, self.schedule.stage)
        stated = logged_segment(made, self.task, self.schedule, steps, record.start, record.log, sent_log, end_state)
        state, data = made.tensors(self.task.data, stated)
        run = CanonicalRun(made.program, data, self.task.seed, CpuDevice())
        run.load(state)
        for number in range(*steps):
            run.step(number)
            progress()
        return fault_in(run.state)


def judge_of(
    task: TrainingTask, divided: Partition, schedule: StageSchedule, members: Sequence[str], engine: StageEngine
) -> StageJudge:
    """The judge of a stage, by how it computes."""
    return (ExactJudge if engine.is_exact else NativeJudge)(task, divided, schedule, members, engine)
