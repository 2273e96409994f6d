"""Small tasks of three kinds, and stages that talk through queues instead of a network."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from assay.group.execution.engines import StageEngine
from assay.group.execution.packing import Words
from assay.group.execution.partition import Partition
from assay.group.execution.schedule import Message, StageSchedule
from assay.program.graph import Graph
from assay.program.lowering import lower_step
from assay.program.operator import Array
from assay.program.optimizer import SGD, AdamW, WarmupCosine
from assay.program.sections import Precision, build_program
from assay.program.trace import trace
from assay.training.task import Mode, TrainingTask

BATCH, SAMPLES, SEED = 8, 40, 7


class Gpt(nn.Module):
    """One transformer block with tied embeddings and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(13, 12), nn.Embedding(6, 12)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(12), nn.LayerNorm(12), nn.LayerNorm(12)
        self.mix, self.out = nn.Linear(12, 36), nn.Linear(12, 12)
        self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 12)
        self.head = nn.Linear(12, 13, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places(torch.arange(tokens.shape[1]))
        batch, time, width = x.shape
        parts = self.mix(self.norm1(x)).split(width, 2)
        query, key, value = (part.view(batch, time, 2, -1).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + functional.dropout(self.out(mixed.transpose(1, 2).reshape(batch, time, width)), 0.1, self.training)
        x = x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))
        return self.head(self.norm3(x))


def _token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


def task_of(name: str, steps: int = 100, interval: int = 25, mode: Mode = Mode.EXACT) -> TrainingTask:
    """A task of `task_and_graph`."""
    return task_and_graph(name, steps, interval, mode)[0]


@cache
def task_and_graph(
    name: str, steps: int = 100, interval: int = 25, mode: Mode = Mode.EXACT
) -> tuple[TrainingTask, Graph]:
    """`mlp` (SGD with momentum), `cnn` (batch norm, pooling) or `gpt` (AdamW, clipping, tied weights, dropout)."""
    torch.manual_seed(3)
    labels = torch.randint(0, 5, (SAMPLES,))
    sgd = SGD(0.05, momentum=0.9, weight_decay=1e-3)
    if name == "mlp":
        layers = nn.Sequential(nn.Linear(7, 33), nn.ReLU(), nn.Linear(33, 17), nn.GELU(), nn.Linear(17, 5))
        traced = trace(layers, "cross_entropy", sgd, [torch.randn(BATCH, 7), labels[:BATCH]], SAMPLES)
        data = (torch.randn(SAMPLES, 7), labels)
    elif name == "cnn":
        convolutions = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
        layers = nn.Sequential(*convolutions, nn.Conv2d(4, 6, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(6, 5))
        data = (torch.randn(SAMPLES, 1, 6, 6), labels)
        traced = trace(layers, "cross_entropy", sgd, [part[:BATCH] for part in data], SAMPLES)
    else:
        data = (torch.randint(0, 13, (SAMPLES, 6)), torch.randint(0, 13, (SAMPLES, 6)))
        adam = AdamW(WarmupCosine(0.01, 10, 150), weight_decay=0.05, clip_norm=1.0)
        traced = trace(Gpt(), _token_loss, adam, [part[:BATCH] for part in data], SAMPLES)
    arrays = tuple(
        part.numpy().astype(np.int32) if part.dtype == torch.int64 else part.numpy() for part in data
    )  # fmt: skip
    program = lower_step(traced.graph) if mode is Mode.EXACT else build_program(traced.graph, Precision.FP32)
    return TrainingTask(program, traced.initial_state, arrays, SEED, steps, interval, mode), traced.graph


class QueueChannel:
    """A channel between threads of one process."""

    def __init__(self, queues: dict[Message, queue.Queue[Words]]) -> None:
        self.queues = queues
        self.sent_bytes = 0

    def begin(self, step: int) -> None:
        pass

    def end(self, step: int) -> None:
        """A step is over."""

    def send(self, message: Message, payload: Words) -> None:
        self.sent_bytes += payload.nbytes
        self.queues[message].put(payload.copy())

    def arrived(self, message: Message) -> bool:
        return not self.queues[message].empty()

    def receive(self, message: Message) -> Words:
        return self.queues[message].get(timeout=120)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch's kernels on one thread, as in `run_stages`."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


Queues = dict[Message, "queue.Queue[Words]"]


def run_stages(
    task: TrainingTask, engine: StageEngine, divided: Partition, steps: int, every: int,
    channel_of: Callable[[StageSchedule, Queues], QueueChannel] = lambda _schedule, queues: QueueChannel(queues),
    held: dict[int, dict[int, Array]] | None = None, before: int = 0,
) -> tuple[list[list[Array]], int, float]:  # fmt: skip
    """All stages side by side in threads: the whole state after every `every` steps, bytes sent, and the last loss.

    `held` is filled with what each stage holds before step `before`.
    """
    schedules = engine.schedules(divided)
    queues: Queues = {m: queue.Queue() for s in schedules for m in s.sends}
    states: list[dict[int, Array]] = [{} for _ in range(steps // every)]
    losses: list[float] = []
    channels: list[QueueChannel] = []
    problems: list[BaseException] = []

    def work(schedule: StageSchedule) -> None:
        try:
            torch.set_num_threads(1)  # a thread's own setting; how many there are changes how kernels round
            run = engine.stage(divided, schedule)
            run.load(dict(enumerate(task.state)))
            channel = channel_of(schedule, queues)
            channels.append(channel)
            for number in range(steps):
                if held is not None and number == before:
                    held[schedule.stage] = {key: array.copy() for key, array in run.held_state.items()}
                run.step(number, channel)
                channel.end(number)
                if (number + 1) % every == 0:
                    states[number // every].update({key: array.copy() for key, array in run.state.items()})
            loss = run.loss()
            if loss is not None:
                losses.append(loss)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(schedule,), daemon=True) for schedule in schedules]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    if problems:
        raise problems[0]
    (loss,) = losses
    whole = [[state[number] for number in range(len(task.state))] for state in states]
    return whole, sum(channel.sent_bytes for channel in channels), loss
