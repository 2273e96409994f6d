"""Whose stage was wrong in a segment that nobody audited, found afterwards out of what its members kept.

In a segment that is not audited, garbage is found by the market's verifiers only: they know that the segment is wrong,
not by whom. Its members still have what they received, and signed, and so each stage can be judged as in an audit
(`audit`). A member that hands over nothing, or something else than was signed, hides nothing by that: what it was sent
its senders have, or compute again, and what it sent its receivers have. Only members that all deal with each other, and
are all silent, cannot be told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from assay.commitments import tensor
from assay.group.errors import FalseStageError, GroupMessageError
from assay.group.execution.audit import Playback, Progress, StageJudge, StageRecord, judge_of
from assay.group.execution.engines import StageEngine
from assay.group.execution.message_log import LoggedMessages, log_words
from assay.group.execution.packing import Words
from assay.group.execution.partition import Partition
from assay.group.execution.schedule import Message
from assay.group.execution.stage_program import Link
from assay.group.execution.stage_statements import SignedStage
from assay.program.operator import Array
from assay.training.task import TrainingTask


@dataclass(frozen=True)
class StageLogs:
    """The payloads that a member received in a segment and, of a tolerant task, those that it sent."""

    received: Words
    sent: Words | None = None


@dataclass(frozen=True)
class AgreedSegment:
    """What all members of a segment have agreed on: its number, the whole states before and after it, and what each of
    them signed, in the order of the stages."""

    number: int
    start: Sequence[Array]
    end: Sequence[Array]
    signed: Sequence[SignedStage]


@dataclass(frozen=True)
class FalseStage:
    """A stage whose statement is false: what an audit says, and what shows it."""

    stage: int
    verdict: str
    logs: StageLogs


@dataclass(frozen=True)
class Inquest:
    """How an inquiry ended: the stages found false, those found to be as they were said to be, and those that nobody
    has what they were sent of."""

    false: tuple[FalseStage, ...]
    true: tuple[int, ...]
    unknown: tuple[int, ...]


class Inquiry:
    """Judges the stages of `segment` one after the other."""

    def __init__(
        self, task: TrainingTask, engine: StageEngine, divided: Partition, members: Sequence[str],
        segment: AgreedSegment, progress: Progress = lambda: None,
    ) -> None:  # fmt: skip
        self.task, self.engine, self.divided, self.members = task, engine, divided, members
        self.segment, self.progress = segment, progress
        self.schedules = engine.schedules(divided)
        first = task.first_step(segment.number)
        self.steps = (first, first + task.segment_steps(segment.number))
        self.tables: dict[Link, bytes] = {link: root for each in segment.signed for link, root in each.sent.items()}
        # Logs by stage that are what was signed; of stages found true or false.
        self._known: dict[int, StageLogs] = {}
        self._true: set[int] = set()
        self._sent: dict[int, Words] = {}

    def hold(self, given: Mapping[int, StageLogs]) -> Inquest:
        """Judge every stage, by what its member has given (by stage) or, where that is not what was signed, by what
        those it deals with have."""
        false: list[FalseStage] = []
        unknown = list(range(len(self.members)))
        refused: set[int] = set()  # what they gave is not what was signed
        while True:
            settled = []
            for stage in unknown:
                for logs in self._candidates(stage, given, refused):
                    try:
                        self._judge(stage, logs)
                    except FalseStageError as error:
                        false.append(FalseStage(stage, str(error), logs))
                    except GroupMessageError:
                        refused.add(stage)
                        continue
                    else:
                        self._true.add(stage)
                    self._known[stage] = logs
                    settled.append(stage)
                    break
            if not settled:
                return Inquest(tuple(false), tuple(sorted(self._true)), tuple(unknown))
            unknown = [stage for stage in unknown if stage not in settled]

    def _candidates(self, stage: int, given: Mapping[int, StageLogs], refused: set[int]) -> list[StageLogs]:
        """What a stage may have received and sent, best first."""
        found = []
        if stage in given and stage not in refused and self._fits(stage, given[stage]):
            found.append(given[stage])
        of_others = self._from_others(stage)
        return found if of_others is None else [*found, of_others]

    def _fits(self, stage: int, logs: StageLogs) -> bool:
        """Whether logs have the length that the schedule gives them."""
        schedule = self.schedules[stage]
        if logs.received.shape != (self._words(schedule.receives),):
            return False
        return self.engine.is_exact or (logs.sent is not None and logs.sent.shape == (self._words(schedule.sends),))

    def _words(self, messages: Sequence[Message]) -> int:
        return log_words(messages, self.steps[0], self.steps[1] - self.steps[0])

    def _from_others(self, stage: int) -> StageLogs | None:
        """What others sent the stage, and received from it; None where that is not known of all."""
        schedule = self.schedules[stage]
        received = self._joined(schedule.receives, lambda message: self._sent_by(message.sender))
        if received is None or self.engine.is_exact:
            return None if received is None else StageLogs(received)
        sent = self._joined(schedule.sends, lambda message: self._received_by(message.receiver))
        return None if sent is None else StageLogs(received, sent)

    def _joined(
        self, messages: Sequence[Message], log_of: Callable[[Message], tuple[Words, Sequence[Message]] | None]
    ) -> Words | None:
        """The log of `messages`, each out of another's log."""
        logs: dict[int, LoggedMessages] = {}
        sources: list[LoggedMessages] = []
        for message in messages:
            found = log_of(message)
            if found is None:
                return None
            words, logged = found
            sources.append(logs.setdefault(id(logged), LoggedMessages(words, logged, self.steps[0])))
        parts = [np.empty(0, np.uint32)]
        for step in range(*self.steps):
            parts += [source.payload(step, message) for message, source in zip(messages, sources, strict=True)]
        return np.concatenate(parts)

    def _received_by(self, stage: int) -> tuple[Words, Sequence[Message]] | None:
        logs = self._known.get(stage)
        return None if logs is None else (logs.received, self.schedules[stage].receives)

    def _sent_by(self, stage: int) -> tuple[Words, Sequence[Message]] | None:
        """What a stage sent: as it was logged, or computed again where that gives the same bits."""
        logs = self._known.get(stage)
        if logs is None:
            return None
        if logs.sent is not None:
            return logs.sent, self.schedules[stage].sends
        if stage not in self._true:
            return None  # it sent something else than follows
        if stage not in self._sent:
            self._sent[stage] = self._computed(stage, logs)
        return self._sent[stage], self.schedules[stage].sends

    def _computed(self, stage: int, logs: StageLogs) -> Words:
        schedule, sent = self.schedules[stage], [np.empty(0, np.uint32)]
        run = self.engine.stage(self.divided, schedule)
        run.load(self._held(stage))
        playback = Playback(
            LoggedMessages(logs.received, schedule.receives, self.steps[0]),
            lambda _message, payload: sent.append(payload.copy()),
        )
        for number in range(*self.steps):
            run.step(number, playback)
            self.progress()
        return np.concatenate(sent)

    def _judge(self, stage: int, logs: StageLogs) -> None:
        part = self.divided.parts[stage]
        record = StageRecord(
            self._held(stage), logs.received, {number: self._end_roots[number] for number in part.state}, self.tables,
            logs.sent, {number: self.segment.end[number] for number in part.state},
        )  # fmt: skip
        judge: StageJudge = judge_of(self.task, self.divided, self.schedules[stage], self.members, self.engine)
        judge.judge(self.segment.number, record, self._start_roots, self.progress)

    def _held(self, stage: int) -> dict[int, Array]:
        part = self.divided.parts[stage]
        return {number: self.segment.start[number] for number in sorted({*part.state, *part.copies})}

    @cached_property
    def _start_roots(self) -> list[bytes]:
        return [tensor.root(array) for array in self.segment.start]

    @cached_property
    def _end_roots(self) -> list[bytes]:
        return [tensor.root(array) for array in self.segment.end]
