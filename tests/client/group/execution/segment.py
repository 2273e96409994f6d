"""A segment that two members have trained, one of them perhaps falsely, as a judge gets to see it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from functools import cache

import numpy as np

from assay.commitments import tensor
from assay.group.execution.audit import StageRecord
from assay.group.execution.engines import ExactEngine, NativeEngine, StageEngine
from assay.group.execution.link_tables import LinkRecorder
from assay.group.execution.packing import Words
from assay.group.execution.partition import Partition
from assay.group.execution.schedule import Message, StageSchedule
from assay.group.execution.stage import Stage
from assay.group.execution.stage_program import links_of
from assay.training.task import Mode

from .tasks import QueueChannel, task_and_graph

MEMBERS, STEPS = ("ann", "ben"), (10, 20)


class WatchedChannel(QueueChannel):
    """A queue channel with a recorder and logs; `distort` may change what is sent."""

    def __init__(
        self, queues: dict[Message, queue.Queue[Words]], distort: Callable[[int, Words], None], recorder: LinkRecorder
    ) -> None:
        super().__init__(queues)
        self.distort, self.recorder, self.step = distort, recorder, 0
        self.log, self.sent = [np.empty(0, np.uint32)], [np.empty(0, np.uint32)]

    def begin(self, step: int) -> None:
        self.step = step

    def end(self, step: int) -> None:
        self.recorder.end_step(step)

    def send(self, message: Message, payload: Words) -> None:
        self.distort(self.step, payload)
        self.recorder.observe(message, payload, self.step)
        self.sent.append(payload.copy())
        super().send(message, payload)

    def receive(self, message: Message) -> Words:
        payload = super().receive(message)
        self.recorder.observe(message, payload, self.step)
        self.log.append(payload.copy())
        return payload


def honest(_step: int, _payload: Words) -> None:
    """Change nothing."""


def garbage(step: int, payload: Words) -> None:
    """One wrong bit in one message."""
    if step == 13:
        payload[0] ^= 1


def noise(step: int, payload: Words) -> None:
    """Every value of one message off by a quarter."""
    if step == 13:
        payload.view(np.float32)[:] *= np.float32(1.25)


@cache
def engine_of(mode: Mode) -> StageEngine:
    """The engine of a task of two members."""
    task, graph = task_and_graph("mlp", 40, 10, mode)
    return ExactEngine(task, 1) if mode is Mode.EXACT else NativeEngine(task, graph, 1)


@cache
def records(
    cheat: str = "", mode: Mode = Mode.EXACT
) -> tuple[Partition, tuple[StageSchedule, ...], tuple[StageRecord, ...], list[bytes]]:
    """What a judge gets of both members in segment 1; with a `cheat` the second sends a wrong bit, or noise."""
    task, engine = task_and_graph("mlp", 40, 10, mode)[0], engine_of(mode)
    divided = engine.divide([1.0, 1.0])
    schedules = engine.schedules(divided)
    queues: dict[Message, queue.Queue[Words]] = {m: queue.Queue() for s in schedules for m in s.sends}
    runs = [engine.stage(divided, s) for s in schedules]
    distortions = {"": (honest, honest), "ben": (honest, garbage), "noise": (honest, noise)}
    links_here = links_of(engine.program, divided)
    recorders = [
        LinkRecorder([each for each in links_here if stage in (each.sender, each.receiver)], 10) for stage in (0, 1)
    ]
    channels = [
        WatchedChannel(queues, distort, recorder)
        for distort, recorder in zip(distortions[cheat], recorders, strict=True)
    ]

    def both(first: int, end: int) -> None:
        def work(run: Stage, channel: WatchedChannel) -> None:
            for number in range(first, end):
                run.step(number, channel)
                channel.end(number)

        threads = [threading.Thread(target=work, args=pair) for pair in zip(runs, channels, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)

    for run in runs:
        run.load(dict(enumerate(task.state)))
    both(0, 10)
    starts = [{number: array.copy() for number, array in run.held_state.items()} for run in runs]
    for channel in channels:
        channel.recorder.begin_segment()
        channel.log.clear()
        channel.sent.clear()
    both(*STEPS)
    made = []
    for run, channel, start in zip(runs, channels, starts, strict=True):
        ends = {number: tensor.root(array) for number, array in run.state.items()}
        end = {number: array.copy() for number, array in run.state.items()}
        log, sent_log = np.concatenate(channel.log), np.concatenate(channel.sent)
        made.append(StageRecord(start, log, ends, channel.recorder.roots(), sent_log, end))
    whole = {**starts[0], **starts[1]}
    return divided, schedules, tuple(made), [tensor.root(whole[number]) for number in range(len(task.state))]
