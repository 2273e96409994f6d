from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from hashlib import sha256

import numpy as np
import pytest
import torch
from eth_account import Account

from assay.commitments import tensor
from assay.engine.cpu.device import CpuDevice
from assay.group.errors import GroupMessageError
from assay.group.execution.audit import StageJudge, StageRecord, is_audited
from assay.group.execution.exchange import link, links
from assay.group.execution.partition import Partition, partition
from assay.group.execution.schedule import Message, StageSchedule, make_schedules
from assay.group.execution.stage import StageRun, Words
from assay.group.transcript import Transcript, account_signer, make_statement

from .tasks import QueueChannel, task_of

MEMBERS, STEPS, TASK = ("ann", "ben"), (10, 20), 5
KEYS = {name: Account.from_key(sha256(name.encode()).digest()) for name in MEMBERS}
ADDRESSES = {name: account.address for name, account in KEYS.items()}


class WatchedChannel(QueueChannel):
    """A queue channel with a transcript and a log; `distort` may change what is sent."""

    def __init__(self, queues: dict[Message, queue.Queue[Words]], distort: Callable[[int, Words], None]) -> None:
        super().__init__(queues)
        self.transcript, self.log, self.distort = Transcript(), [np.empty(0, np.uint32)], distort

    def begin(self, step: int) -> None:
        self.transcript.step = step

    def observe(self, way: str, message: Message, payload: Words) -> None:
        direction = link(MEMBERS[message.sender], MEMBERS[message.receiver])
        self.transcript.observe(direction, message.order, way, torch.from_numpy(payload.view(np.uint8)))

    def send(self, message: Message, payload: Words) -> None:
        self.distort(self.transcript.step, payload)
        self.observe("sent", message, payload)
        super().send(message, payload)

    def receive(self, message: Message) -> Words:
        payload = super().receive(message)
        self.observe("received", message, payload)
        self.log.append(payload.copy())
        return payload


def honest(_step: int, _payload: Words) -> None:
    """Change nothing."""


def garbage(step: int, payload: Words) -> None:
    """One wrong bit in one message."""
    if step == 13:
        payload[0] ^= 1


@cache
def records(cheat: str = "") -> tuple[Partition, tuple[StageSchedule, ...], tuple[StageRecord, ...], list[bytes]]:
    """What a judge gets of both members in segment 1; `cheat` sends garbage in it."""
    task = task_of("mlp", 40, 10)
    divided = partition(task.program, [1.0, 1.0])
    schedules = make_schedules(task.program, divided)
    queues: dict[Message, queue.Queue[Words]] = {m: queue.Queue() for s in schedules for m in s.sends}
    runs = [StageRun(task.program, divided, s, task.data, task.seed, CpuDevice(1)) for s in schedules]
    channels = [WatchedChannel(queues, garbage if name == cheat else honest) for name in MEMBERS]

    def both(first: int, end: int) -> None:
        def work(run: StageRun, channel: WatchedChannel) -> None:
            for number in range(first, end):
                run.step(number, channel)

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
        channel.transcript.begin_segment()
        channel.log.clear()
    both(*STEPS)
    statements = {
        direction: make_statement(channel.transcript, TASK, direction, name, other, STEPS, account_signer(key_of(name)))
        for name, schedule, channel in zip(MEMBERS, schedules, channels, strict=True)
        for direction, other in links(schedule, MEMBERS)[0]
    }
    made = []
    for schedule, run, channel, start in zip(schedules, runs, channels, starts, strict=True):
        to, of = links(schedule, MEMBERS)
        ends = {number: tensor.root(array) for number, array in run.state.items()}
        log = np.concatenate(channel.log)
        made.append(StageRecord(start, log, [statements[d] for d, _ in of], [statements[d] for d, _ in to], ends))
    whole = {**starts[0], **starts[1]}
    return divided, schedules, tuple(made), [tensor.root(whole[number]) for number in range(len(task.state))]


def key_of(name: str) -> str:
    return str(KEYS[name].key.to_0x_hex())


def judge(stage: int, record: StageRecord, roots: list[bytes]) -> None:
    task = task_of("mlp", 40, 10)
    divided, schedules, _, _ = records()
    StageJudge(task, divided, schedules[stage], MEMBERS, CpuDevice(1)).judge(1, record, TASK, ADDRESSES, roots)


@pytest.mark.parametrize("stage", [0, 1])
def test_an_honest_stage_stands_alone(stage: int) -> None:
    _, _, made, roots = records()
    judge(stage, made[stage], roots)


def test_one_wrong_bit_names_its_sender_and_not_who_computed_with_it() -> None:
    _, _, made, roots = records("ben")
    judge(0, made[0], roots)
    with pytest.raises(GroupMessageError, match="'ben' in segment 1 sent 'ann' other values"):
        judge(1, made[1], roots)


def test_a_member_that_hides_what_it_received_is_named() -> None:
    _, _, made, roots = records()
    forged = made[0].log.copy()
    forged[3] ^= 1
    with pytest.raises(GroupMessageError, match="'ann' in segment 1 accepted other messages than 'ben' signed"):
        judge(0, replace(made[0], log=forged), roots)


def test_a_member_that_states_another_end_or_start_is_named() -> None:
    _, _, made, roots = records()
    number = min(made[0].end)
    with pytest.raises(GroupMessageError, match="'ann' in segment 1 ended in another state"):
        judge(0, replace(made[0], end={**made[0].end, number: bytes(32)}), roots)
    start = {**made[0].start, number: made[0].start[number] + np.float32(1)}
    with pytest.raises(GroupMessageError, match="'ann' in segment 1 did not start from the agreed state"):
        judge(0, replace(made[0], start=start), roots)


def test_a_statement_signed_by_another_is_refused() -> None:
    _, _, made, roots = records()
    sent = [replace(statement, signature=made[0].received[0].signature) for statement in made[0].sent]
    with pytest.raises(GroupMessageError, match="is about something else or not signed by it"):
        judge(0, replace(made[0], sent=sent), roots)


def test_the_audited_fraction_is_the_rate() -> None:
    roots = [sha256(bytes([number])).digest() for number in range(250)]
    assert not any(is_audited(root, 0.0) for root in roots)
    assert all(is_audited(root, 1.0) for root in roots)
    assert 30 <= sum(is_audited(root, 0.2) for root in roots) <= 70
