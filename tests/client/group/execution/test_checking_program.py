"""The program that checks what a member of a tolerant task says of its stage: garbage is told from rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest

from assay.commitments import tensor, tree
from assay.engine.cpu.device import CpuDevice
from assay.group.execution.engines import NativeEngine
from assay.group.execution.link_tables import empty_roots, logged_tables
from assay.group.execution.native.checking import CheckingProgram, fault_in
from assay.group.execution.packing import Words
from assay.group.execution.schedule import StageSchedule
from assay.group.execution.stage_program import SegmentRoots, SegmentTensors
from assay.program.graph import Graph
from assay.program.operator import Array
from assay.training.canonical import CanonicalRun
from assay.training.task import Mode, TrainingTask

from .tasks import QueueChannel, Queues, run_stages, task_and_graph
from .test_declared_compression import compressed
from .test_stage_program import INTERVAL, RecordingChannel, joined

SHORT = 3  # steps of the last segment


@dataclass(frozen=True)
class Trained:
    """One stage's part in a segment: what it held and received, and what it says it sent and ended with."""

    task: TrainingTask
    graph: Graph
    made: CheckingProgram
    steps: tuple[int, int]
    stated: SegmentTensors
    received_log: Words
    sent_log: Words

    def fault(self, stated: SegmentTensors | None = None) -> float:
        """What its checking program says of it, or of another statement about the same segment."""
        state, data = self.made.tensors(self.task.data, stated or self.stated)
        run = CanonicalRun(self.made.program, data, self.task.seed, CpuDevice(1))
        run.load(state)
        for number in range(*self.steps):
            run.step(number)
        return fault_in(run.state)

    def roots(self) -> tuple[bytes, bytes, bytes]:
        """What it signs, out of what everybody knows."""
        stated, made = self.stated, self.made
        assert stated.end is not None
        start = [tensor.root(stated.start.get(n, array)) for n, array in enumerate(self.task.state)]
        ends = {number: tensor.root(array) for number, array in stated.end.items()}
        links, tables = (*made.received, *made.sent), (*stated.received, *stated.sent)
        roots = {link: tensor.root(table) for link, table in zip(links, tables, strict=True)}
        empty = dict(zip(made.sent, empty_roots(made.sent, INTERVAL), strict=True))
        return made.roots(SegmentRoots([tensor.root(part) for part in self.task.data], start, ends, roots, empty))


def task_with_graph(name: str, interval: int) -> tuple[TrainingTask, Graph]:
    """A task of a whole segment, and a short one."""
    if "-" in name:
        task, graph = compressed(name, Mode.TOLERANT)
        return replace(task, steps=interval + SHORT, interval=interval), graph
    return task_and_graph(name, interval + SHORT, interval, Mode.TOLERANT)


@cache
def trained(
    name: str, stages: int, pieces: int, replicas: int, segment: int, shares: tuple[float, ...] = (),
    interval: int = INTERVAL,
) -> tuple[Trained, ...]:  # fmt: skip
    """What all stages of a group did in a segment, trained with PyTorch's kernels."""
    task, graph = task_with_graph(name, interval)
    first = interval * segment
    end = first + (interval if segment == 0 else SHORT)
    engine = NativeEngine(task, graph, pieces, "cpu", replicas)
    divided = engine.divide(shares or [1.0] * stages * replicas)
    programs = [engine.stage_program(divided, stage) for stage in range(stages * replicas)]
    channels: dict[int, RecordingChannel] = {}
    schedules: dict[int, StageSchedule] = {}

    def channel_of(schedule: StageSchedule, queues: Queues) -> QueueChannel:
        schedules[schedule.stage] = schedule
        channels[schedule.stage] = RecordingChannel(queues, programs[schedule.stage], first, interval)
        return channels[schedule.stage]

    held_before: dict[int, dict[int, Array]] = {}
    after, _, _ = run_stages(task, engine, divided, end, 1, channel_of, held_before, first)
    found = []
    for stage, made in enumerate(programs):
        assert isinstance(made, CheckingProgram)
        logs, schedule = channels[stage].logs, schedules[stage]
        received, sent = (
            logged_tables(links, joined(logs[way]), messages, (first, end), interval)
            for links, way, messages in (
                (made.received, "received", schedule.receives), (made.sent, "sent", schedule.sends),
            )
        )  # fmt: skip
        stated = SegmentTensors(held_before[stage], received, sent, {n: after[-1][n] for n in made.owned})
        roots = channels[stage].recorder.roots()
        assert [tensor.root(table) for table in sent] == [roots[link] for link in made.sent]
        found.append(Trained(task, graph, made, (first, end), stated, joined(logs["received"]), joined(logs["sent"])))
    return tuple(found)


CASES = [
    ("mlp", 2, 1, 1), ("gpt", 3, 4, 1), ("cnn", 2, 1, 1), ("gpt", 1, 1, 2), ("gpt", 2, 2, 2), ("mlp", 1, 1, 2),
    ("direct-4-8", 2, 1, 1), ("aqsgd-4-8", 3, 4, 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "stages", "pieces", "replicas"), CASES)
@pytest.mark.parametrize("segment", [0, 1])
def test_an_honest_stage_s_fault_is_small(name: str, stages: int, pieces: int, replicas: int, segment: int) -> None:
    """In every segment, a short last one included, whatever is sent: pieces, parameters, codes, replicas' sums."""
    for one in trained(name, stages, pieces, replicas, segment):
        assert one.fault() <= 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stages", "replicas", "steps"), [("gpt", 1, 2, 200), ("aqsgd-4-8", 2, 1, 400)])
def test_it_stays_small_over_a_segment_in_which_rounding_carries_far(
    name: str, stages: int, replicas: int, steps: int
) -> None:
    """A bias that rounding alone moves and is sent; differences that shrink as the run converges. By the norms of what
    is sent alone, both would be garbage."""
    for one in trained(name, stages, 1, replicas, 0, interval=steps):
        assert one.fault() <= 0.5


def changed(one: Trained, change: Callable[[Array], None], link: int = 0) -> SegmentTensors:
    """What the stage states, with one table of what it sent changed."""
    sent = [table.copy() for table in one.stated.sent]
    change(sent[link])
    return replace(one.stated, sent=sent)


def scale_a_row(table: Array) -> None:
    """One step's values off by a quarter."""
    table[1] *= np.float32(1.25)


def not_a_number(table: Array) -> None:
    """One value that is none."""
    table[2, 0] = np.nan


def infinite(table: Array) -> None:
    table[0, 3] = np.inf


def nothing(table: Array) -> None:
    """A step in which nothing was sent."""
    table[INTERVAL - 1] = 0


@pytest.mark.parametrize("lie", [scale_a_row, not_a_number, infinite, nothing])
def test_garbage_in_one_step_is_a_fault(lie: Callable[[Array], None]) -> None:
    for one in trained("mlp", 2, 1, 1, 0):
        assert not one.fault(changed(one, lie)) <= 1


def test_a_wrong_code_in_every_group_is_a_fault_though_codes_are_few_bits() -> None:
    def other_codes(table: Array) -> None:
        table[:, :] = 15 - table

    one = trained("direct-4-8", 2, 1, 1, 0)[0]
    (codes,) = (n for n, link in enumerate(one.made.sent) if link.packing.bits == 4)
    assert one.fault(changed(one, other_codes, codes)) > 1


def test_last_bits_are_no_fault() -> None:
    """What kernels on other hardware round differently, in everything that is sent."""

    def elsewhere(table: Array) -> None:
        table *= np.float32(1 + 2.0**-18)

    for one in trained("mlp", 2, 1, 1, 0):
        for link in range(len(one.stated.sent)):
            assert one.fault(changed(one, elsewhere, link)) <= 1


def test_an_end_that_was_not_trained_for_is_a_fault() -> None:
    one = trained("mlp", 2, 1, 1, 0)[0]
    lazy = {number: one.stated.start[number] for number in one.made.owned}
    assert one.fault(replace(one.stated, end=lazy)) > 1


def test_a_short_segment_s_end_is_judged_in_its_last_step() -> None:
    one = trained("mlp", 2, 1, 1, 1)[0]
    lazy = {number: one.stated.start[number] for number in one.made.owned}
    assert one.fault(replace(one.stated, end=lazy)) > 1


def test_one_small_tensor_that_ends_elsewhere_is_a_fault() -> None:
    one = trained("gpt", 2, 2, 2, 0)[0]
    assert one.stated.end is not None
    number = min(one.made.owned, key=lambda n: one.task.state[n].size)
    end = {**one.stated.end, number: one.stated.end[number] + np.ones(1, one.task.state[number].dtype)}
    assert one.fault(replace(one.stated, end=end)) > 1


def test_a_bias_that_rounding_alone_moves_ends_anywhere_near() -> None:
    """Adam moves it as far as any other, in whatever direction rounding points; only noise tells how far that is."""
    keys = slice(12, 24)
    for one in trained("gpt", 2, 1, 1, 0):
        names = [descriptor.name for descriptor in one.task.program.state]
        number = names.index("mix.bias")
        if number not in one.made.owned:
            continue
        assert one.stated.end is not None
        start, end = one.stated.start[number], one.stated.end[number].copy()
        end[keys] = 2 * start[keys] - end[keys]
        assert one.fault(replace(one.stated, end={**one.stated.end, number: end})) <= 1
        end[:12] += 50 * (end[:12] - start[:12])
        assert one.fault(replace(one.stated, end={**one.stated.end, number: end})) > 1


def test_a_sum_of_which_rounding_is_all_that_is_left_may_be_anything() -> None:
    """The gradient of the bias of attention's keys is nothing but rounding: any such value is as true as another."""
    keys, found = slice(12, 24), 0
    for one in trained("gpt", 1, 1, 2, 0):
        for place, (link, table) in enumerate(zip(one.made.sent, one.stated.sent, strict=True)):
            if link.elements != 36 or np.abs(table[:, keys]).max() > 1e-4 * np.abs(table).max():
                continue  # not the gradient of queries', keys' and values' biases
            found += 1
            other = table.copy()
            other[:, keys] *= -1
            other[:, :12] = other[:, 24:36] = 0
            sent = [other if number == place else each for number, each in enumerate(one.stated.sent)]
            assert one.fault(replace(one.stated, sent=sent)) > 1
            other[:] = table
            other[:, keys] *= -1
            assert one.fault(replace(one.stated, sent=sent)) <= 1
    assert found


def test_what_is_signed_follows_from_hashes_and_says_nothing_of_an_end() -> None:
    one = trained("gpt", 2, 2, 2, 0)[1]
    state, data = one.made.tensors(one.task.data, one.stated)
    assert one.roots() == (
        tree.root([tensor.root(each) for each in data]),
        tree.root([tensor.root(each) for each in state]),
        tree.ZERO_HASH,
    )


def test_a_run_that_diverged_says_nothing_about_anybody() -> None:
    one = trained("mlp", 2, 1, 1, 0)[1]
    received = [table.copy() for table in one.stated.received]
    received[0][:, :] = np.inf
    assert one.fault(replace(one.stated, received=received)) <= 1
