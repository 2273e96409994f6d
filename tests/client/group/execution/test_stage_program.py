from __future__ import annotations

import numpy as np
import pytest

from assay.commitments import tensor
from assay.engine.cpu.device import CpuDevice
from assay.group.execution.engines import ExactEngine
from assay.group.execution.link_tables import LinkRecorder, empty_roots, logged_tables
from assay.group.execution.packing import Words
from assay.group.execution.schedule import Message, StageSchedule
from assay.group.execution.stage_program import StageProgram, stage_program
from assay.program.operator import Array
from assay.program.validate import validate
from assay.training.canonical import CanonicalRun
from assay.training.task import Mode, TrainingTask

from .tasks import QueueChannel, Queues, run_stages, task_of
from .test_declared_compression import compressed

INTERVAL = 5


class RecordingChannel(QueueChannel):
    """Records and logs what a stage sends and receives, from a step on."""

    def __init__(self, queues: Queues, program: StageProgram, first: int, interval: int = INTERVAL) -> None:
        super().__init__(queues)
        self.first, self.step = first, 0
        self.recorder = LinkRecorder((*program.received, *program.sent), interval)
        self.logs: dict[str, list[Words]] = {"received": [], "sent": []}

    def begin(self, step: int) -> None:
        self.step = step

    def end(self, step: int) -> None:
        if step >= self.first:
            self.recorder.end_step(step)

    def see(self, way: str, message: Message, payload: Words) -> None:
        if self.step >= self.first:
            self.recorder.observe(message, payload, self.step)
            self.logs[way].append(payload.copy())

    def send(self, message: Message, payload: Words) -> None:
        self.see("sent", message, payload)
        super().send(message, payload)

    def receive(self, message: Message) -> Words:
        payload = super().receive(message)
        self.see("received", message, payload)
        return payload


def tables(program: StageProgram) -> list[Array]:
    """The tables of what a stage sends, empty."""
    return [np.zeros((INTERVAL, link.row), link.kind.dtype) for link in program.sent]


CASES = [("mlp", 2, 1), ("gpt", 3, 4), ("cnn", 2, 1), ("direct-4-8", 2, 1), ("aqsgd-4-8", 3, 4), ("aqsgd-4-8", 2, 1)]


@pytest.mark.parametrize(("name", "stages", "pieces"), CASES)
@pytest.mark.parametrize("segment", [0, 1])
def test_a_stage_s_program_says_what_the_stage_did(name: str, stages: int, pieces: int, segment: int) -> None:
    """In every segment, a short last one included: the same state, and what was sent, from what was received."""
    task = compressed(name, Mode.EXACT)[0] if "-" in name else task_of(name, INTERVAL + 3, INTERVAL)
    first = INTERVAL * segment
    steps = first + (INTERVAL if segment == 0 else 3)
    engine = ExactEngine(task, pieces)
    divided = engine.divide([1.0] * stages)
    programs = [stage_program(engine.program, divided, stage, INTERVAL) for stage in range(stages)]
    channels: dict[int, RecordingChannel] = {}
    schedules: dict[int, StageSchedule] = {}

    def channel_of(schedule: StageSchedule, queues: Queues) -> QueueChannel:
        schedules[schedule.stage] = schedule
        channels[schedule.stage] = RecordingChannel(queues, programs[schedule.stage], first)
        return channels[schedule.stage]

    whole, _, _ = run_stages(task, engine, divided, steps, steps, channel_of)
    start = state_before(task, first)
    for stage, made in enumerate(programs):
        validate(made.program)
        channel = channels[stage]
        roots = channel.recorder.roots()
        received = logged_tables(
            made.received, joined(channel.logs["received"]), schedules[stage].receives, (first, steps), INTERVAL
        )
        sent = logged_tables(made.sent, joined(channel.logs["sent"]), schedules[stage].sends, (first, steps), INTERVAL)
        assert [tensor.root(table) for table in received] == [roots[link] for link in made.received]
        assert [tensor.root(table) for table in sent] == [roots[link] for link in made.sent]
        assert made.received or made.sent
        run = CanonicalRun(made.program, [*task.data, *received], task.seed, CpuDevice(1))
        run.load([*(start[number] for number in made.held), *tables(made)])
        for number in range(first, steps):
            run.step(number)
        ends = dict(zip(made.held, run.state, strict=False))
        for number in divided.parts[stage].state:
            np.testing.assert_array_equal(ends[number].view(np.uint32), whole[0][number].view(np.uint32))
        for link, table in zip(made.sent, run.state[len(made.held) :], strict=True):
            assert tensor.root(table) == roots[link], link.name


def test_before_anything_is_sent_tables_are_zeros() -> None:
    task = task_of("mlp", INTERVAL, INTERVAL)
    engine = ExactEngine(task, 1)
    made = stage_program(engine.program, engine.divide([1.0, 1.0]), 0, INTERVAL)
    assert empty_roots(made.sent, INTERVAL) == [tensor.root(table) for table in tables(made)]


def joined(log: list[Words]) -> Words:
    return np.concatenate([*log, np.empty(0, np.uint32)])


def state_before(task: TrainingTask, step: int) -> list[Array]:
    """The whole state before a step, on one machine."""
    run = CanonicalRun(task.program, task.data, task.seed, CpuDevice(1))
    run.load(task.state)
    for number in range(step):
        run.step(number)
    return run.copy_state()
