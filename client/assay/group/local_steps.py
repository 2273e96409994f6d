"""Local-steps training by a group: members train side by side what the task's program does one after the other.

The program (`assay.program.local_steps`) holds a replica for each member; segment q is the inner run of member
q mod M in round q div M. A run reads nothing that another run of its round writes except the sum of the changes, which
is an addition, so each member trains its own segments, sends one quantised message a round, and works out the outer
update from everybody's messages in the order of members. Between rounds nothing else crosses the network.

A member's part of a segment is its replica and the message. From all parts the group composes the checkpoints of the
sequential run, to the same bits (`Composer`): the proof it registers (`execution.side_by_side`). Whoever finds a
segment false has found its member (`member_of_segment`), not the group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from assay.engine.cpu.device import CpuDevice
from assay.engine.device import Device
from assay.group.compression.quantise import decode_rows, encode_rows, row_bytes
from assay.group.errors import GroupMessageError, PlacementError
from assay.program.local_schedule import LocalSteps
from assay.program.local_steps import change_to_send, outer_update
from assay.program.local_steps_graph import ERROR, EXCHANGE, MEMBERS, OUTER_MOMENTUM
from assay.program.operator import Array, Program, TensorDescriptor
from assay.training.canonical import CanonicalRun, aligned
from assay.training.task import TrainingTask

Message = npt.NDArray[np.uint8]
"""Bytes."""


@dataclass(frozen=True)
class Layout:
    """Where a local-steps program's state has what, as numbers of tensors."""

    stacks: tuple[int, ...]  # (members, ...): replicas and their optimizer tensors
    parameters: tuple[tuple[int, int, int, int, int], ...]  # outer, momentum, exchange, errors, replicas

    @staticmethod
    def of(program: Program) -> Layout:
        """Read the layout off the names of the state."""
        numbers = {descriptor.name: number for number, descriptor in enumerate(program.state)}
        names = [name.removeprefix(EXCHANGE) for name in numbers if name.startswith(EXCHANGE)]
        if not names or not all(f"{prefix}{name}" in numbers for name in names for prefix in _PREFIXES):
            raise PlacementError(
                "the task's program has no replicas of members: [local_steps] was not set at submission"
            )
        return Layout(
            tuple(number for name, number in numbers.items() if name.startswith(MEMBERS)),
            tuple(tuple(numbers[prefix + name] for prefix in _PREFIXES) for name in names),  # type: ignore[misc]
        )


_PREFIXES = ("", OUTER_MOMENTUM, EXCHANGE, ERROR, MEMBERS)


def check_schedule(task: TrainingTask, settings: LocalSteps) -> None:
    """Raise PlacementError unless every inner run is one segment and the rounds are whole."""
    layout = Layout.of(task.program)
    members = task.program.state[layout.stacks[0]].shape[0]
    if members != settings.members:
        raise PlacementError(f"the task's program trains {members} members, the settings say {settings.members}")
    if task.interval != settings.inner_steps or task.steps % settings.round_steps:
        raise PlacementError(
            f"{task.steps} steps in segments of {task.interval}: local steps need segments of {settings.inner_steps} "
            f"steps, an inner run each, and whole rounds of {settings.round_steps} steps"
        )


def member_of_segment(settings: LocalSteps, segment: int) -> int:
    """Who answers for a segment."""
    return segment % settings.members


@dataclass(frozen=True)
class LocalPart:
    """What a member's inner run leaves: its replica and optimizer state (a slice of each of `Layout.stacks`), and the
    quantised change of the outer parameters that it tells everybody."""

    replica: Sequence[Array]
    message: Message


class LocalMember:
    """One member: trains its own segments, a round after the other, on what everybody's messages give."""

    def __init__(self, task: TrainingTask, settings: LocalSteps, member: int, device: Device | None = None) -> None:
        check_schedule(task, settings)
        if not 0 <= member < settings.members:
            raise PlacementError(f"member {member} of a group of {settings.members}; count from 0")
        self.task, self.settings, self.member = task, settings, member
        self.layout = Layout.of(task.program)
        self.run = CanonicalRun(task.program, task.data, task.seed, device or CpuDevice())
        self.rounds = task.steps // settings.round_steps
        self.resume(0, task.state)

    def resume(self, number: int, state: Sequence[Array]) -> None:
        """Go on with round `number` from the whole state before it, which is copied."""
        self.round = number
        self.run.load(state)

    @property
    def segment(self) -> int:
        """The segment of this member's next inner run."""
        return self.round * self.settings.members + self.member

    def inner_run(self, begin_step: Callable[[int], None] = lambda _step: None) -> LocalPart:
        """Train this round's segment; `begin_step` hears of every global step before it is taken."""
        before = self.run.copy_state()
        for step in range(self.segment * self.task.interval, (self.segment + 1) * self.task.interval):
            begin_step(step)
            self.run.step(step)
        message = self._message(before)
        # The last member's run has applied an outer update without the others' changes: take it back.
        for outer, momentum, *_ in self.layout.parameters:
            for number in (outer, momentum):
                np.copyto(self.run.state[number], before[number])
        return LocalPart([self.run.state[number][self.member].copy() for number in self.layout.stacks], message)

    def finish_round(self, messages: Sequence[Message]) -> None:
        """Apply the outer update that everybody's messages give, and go on to the next round."""
        sizes = {len(message) for message in messages}
        if len(messages) != self.settings.members or sizes != {message_bytes(self.task.program, self.settings)}:
            raise GroupMessageError(
                f"round {self.round}: {len(messages)} messages of {sorted(sizes)} bytes; there are "
                f"{self.settings.members} members and each sends {message_bytes(self.task.program, self.settings)}"
            )
        state = self.run.copy_state()
        changes = [self._decoded(message) for message in messages]
        for place, (outer, momentum, _, _, _) in enumerate(self.layout.parameters):
            total = _sum([change[place] for change in changes])
            state[outer], state[momentum] = _outer_update(self.settings, state[outer], state[momentum], total)
        self.run.load(state)
        self.round += 1

    def _message(self, before: Sequence[Array]) -> Message:
        """This round's change of all parameters, as the codec sends what the program quantised."""
        parts = []
        for outer, _, _, errors, replicas in self.layout.parameters:
            start, trained = torch.from_numpy(before[outer]), torch.from_numpy(self.run.state[replicas][self.member])
            change = change_to_send(start, trained, torch.from_numpy(before[errors][self.member]))
            parts.append(encode_rows(change.reshape(1, -1), self.settings.bits).numpy().reshape(-1))
        return np.concatenate(parts)

    def _decoded(self, message: Message) -> list[Array]:
        return decode_message(self.task.program, self.layout, self.settings, message)


class Composer:
    """Puts members' parts together: the states that the program goes through from beginning to end on one machine, bit
    for bit, if every member was honest. A member that was not puts its own segments wrong, and nobody else's."""

    def __init__(self, task: TrainingTask, settings: LocalSteps, state: Sequence[Array], segment: int = 0) -> None:
        check_schedule(task, settings)
        self.task, self.settings, self.layout = task, settings, Layout.of(task.program)
        self.state: list[Array] = [part.copy() for part in state]
        self.segment = segment

    def add(self, part: LocalPart) -> None:
        """Go on by the segment of the member whose turn it is; `state` is what it ends in."""
        member = member_of_segment(self.settings, self.segment)
        changes = decode_message(self.task.program, self.layout, self.settings, part.message)
        state = self.state
        for number, values in zip(self.layout.stacks, part.replica, strict=True):
            state[number][member] = values
        for change, (outer, momentum, exchange, errors, replicas) in zip(changes, self.layout.parameters, strict=True):
            wanted = change_to_send(*(torch.from_numpy(np.asarray(each)) for each in (
                state[outer], state[replicas][member], state[errors][member],
            ))).numpy()  # fmt: skip
            state[errors][member] = wanted - change
            state[exchange] = (np.zeros_like(change) if member == 0 else state[exchange]) + change
            if member == self.settings.members - 1:
                state[outer], state[momentum] = _outer_update(
                    self.settings, state[outer], state[momentum], state[exchange]
                )
        self.segment += 1


def empty_replica(program: Program) -> list[Array]:
    """Room for the replica of a part that is to be received."""
    stacks = [program.state[number] for number in Layout.of(program).stacks]
    return [aligned(TensorDescriptor(stack.name, stack.type, stack.shape[1:])) for stack in stacks]


def message_bytes(program: Program, settings: LocalSteps) -> int:
    """Size of a member's message of a round."""
    return sum(row_bytes(program.state[o].count, settings.bits) for o, *_ in Layout.of(program).parameters)


def decode_message(program: Program, layout: Layout, settings: LocalSteps, message: Message) -> list[Array]:
    """The quantised change of each parameter in a message."""
    changes: list[Array] = []
    at = 0
    for outer, *_ in layout.parameters:
        descriptor = program.state[outer]
        size = row_bytes(descriptor.count, settings.bits)
        row = torch.from_numpy(message[at : at + size].copy()).reshape(1, -1)
        changes.append(decode_rows(row, descriptor.count, settings.bits).numpy().reshape(descriptor.shape))
        at += size
    return changes


def _sum(changes: Sequence[Array]) -> Array:
    """In the order of members, from +0, as the program adds them."""
    total = np.zeros_like(changes[0])
    for change in changes:
        total = total + change
    return total


def _outer_update(settings: LocalSteps, outer: Array, momentum: Array, total: Array) -> tuple[Array, Array]:
    new = outer_update(settings, *(torch.from_numpy(np.asarray(part)) for part in (outer, momentum, total)))
    return new[0].numpy(), new[1].numpy()
