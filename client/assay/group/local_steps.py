"""Local-steps training by a group: members train side by side what the task's program does one after the other.

The program (`assay.program.local_steps`) holds a replica for each member; segment q is the inner run of member
q mod M in round q div M. A run reads nothing that another run of its round writes except the sum of the changes, which
is an addition, so each member trains its own segments, sends one quantised message a round, and works out the outer
update from everybody's messages in the order of members. Between rounds nothing else crosses the network.

A member keeps a part of every segment it trained: its replica and the message. From all parts the group composes the
checkpoints of the sequential run, to the same bits (`compose`): the proof it registers. Whoever finds a segment false
has found its member (`member_of_segment`), not the group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist

from assay.engine.cpu.device import CpuDevice
from assay.engine.device import Device
from assay.group.compression.quantise import decode_rows, encode_rows, row_bytes
from assay.group.errors import GroupMessageError, PlacementError
from assay.program.local_schedule import LocalSteps
from assay.program.local_steps import change_to_send, outer_update
from assay.program.local_steps_graph import ERROR, EXCHANGE, MEMBERS, OUTER_MOMENTUM
from assay.program.operator import Array, ElementType, Program, TensorDescriptor
from assay.training.canonical import CanonicalRun
from assay.training.checkpoint import CheckpointFolder, read_tensors, write_tensors
from assay.training.task import TrainingTask
from assay.training.train import Proof

Message = npt.NDArray[np.uint8]
Exchange = Callable[[Message], Sequence[Message]]
"""Gives everybody this member's message of a round; returns all members' messages, in their order."""


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


class LocalMember:
    """One member: trains its own segments, exchanges messages, keeps the parts of its proof under `folder`."""

    def __init__(
        self, task: TrainingTask, settings: LocalSteps, member: int, folder: Path, device: Device | None = None
    ) -> None:
        check_schedule(task, settings)
        if not 0 <= member < settings.members:
            raise PlacementError(f"member {member} of a group of {settings.members}; count from 0")
        self.task, self.settings, self.member, self.folder = task, settings, member, folder
        self.layout = Layout.of(task.program)
        self.run = CanonicalRun(task.program, task.data, task.seed, device or CpuDevice())
        self.run.load(task.state)
        self.rounds = task.steps // settings.round_steps
        self.round = 0
        folder.mkdir(parents=True, exist_ok=True)

    def train(self, exchange: Exchange, progress: Callable[[int, int, float | None], None] | None = None) -> None:
        """All rounds that are left; `progress` gets (rounds done, rounds, loss of the last step)."""
        while self.round < self.rounds:
            message = self.inner_run()
            self.finish_round(exchange(message))
            if progress is not None:
                progress(self.round, self.rounds, self.run.loss())

    def inner_run(self) -> Message:
        """Train this round's segment and keep its part; returns the message to everybody."""
        segment = self.round * self.settings.members + self.member
        before = self.run.copy_state()
        for step in range(segment * self.task.interval, (segment + 1) * self.task.interval):
            self.run.step(step)
        message = self._message(before)
        # The last member's run has applied an outer update without the others' changes: take it back.
        for outer, momentum, *_ in self.layout.parameters:
            for number in (outer, momentum):
                np.copyto(self.run.state[number], before[number])
        replica = [self.run.state[number][self.member] for number in self.layout.stacks]
        write_tensors(part_path(self.folder, segment), [*replica, _as_words(message)])
        return message

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


def compose(task: TrainingTask, settings: LocalSteps, parts: Sequence[Path], folder: Path) -> Proof:
    """The proof of the whole group in `folder`, from every member's folder of parts, in the order of members.

    The checkpoints are those of the program run from beginning to end on one machine, bit for bit, if every member
    was honest; a member that was not has put its own segments wrong and nobody else's.
    """
    check_schedule(task, settings)
    layout = Layout.of(task.program)
    checkpoints = CheckpointFolder(folder, task.program.state)
    checkpoints.claim(task.fingerprint.hex())
    state = [part.copy() for part in task.state]
    roots = [checkpoints.write(0, state)]
    for segment in range(task.segments):
        member = member_of_segment(settings, segment)
        path = part_path(parts[member], segment)
        *replica, words = read_tensors(path, _part_descriptors(task.program, settings), f"the part of member {member}")
        message = words.view(np.uint8)[: message_bytes(task.program, settings)]
        changes = decode_message(task.program, layout, settings, message)
        outers = {outer: state[outer].copy() for outer, *_ in layout.parameters}
        for number, values in zip(layout.stacks, replica, strict=True):
            state[number][member] = values
        for change, (outer, momentum, exchange, errors, replicas) in zip(changes, layout.parameters, strict=True):
            wanted = change_to_send(*(torch.from_numpy(np.asarray(part)) for part in (
                outers[outer], state[replicas][member], state[errors][member],
            ))).numpy()  # fmt: skip
            state[errors][member] = wanted - change
            state[exchange] = (np.zeros_like(change) if member == 0 else state[exchange]) + change
            if member == settings.members - 1:
                state[outer], state[momentum] = _outer_update(settings, state[outer], state[momentum], state[exchange])
        roots.append(checkpoints.write(segment + 1, state))
    return Proof(folder, tuple(roots))


def part_path(folder: Path, segment: int) -> Path:
    """Where a member keeps the part of a segment."""
    return folder / f"part-{segment:06d}.safetensors"


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


def exchange_over(group: dist.ProcessGroup | None = None) -> Exchange:
    """Exchange over torch.distributed: ranks are members, messages travel as they are."""

    def exchange(message: Message) -> Sequence[Message]:
        mine = torch.from_numpy(message)
        gathered = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
        dist.all_gather(gathered, mine, group=group)
        return [each.numpy() for each in gathered]

    return exchange


def _sum(changes: Sequence[Array]) -> Array:
    """In the order of members, from +0, as the program adds them."""
    total = np.zeros_like(changes[0])
    for change in changes:
        total = total + change
    return total


def _outer_update(settings: LocalSteps, outer: Array, momentum: Array, total: Array) -> tuple[Array, Array]:
    new = outer_update(settings, *(torch.from_numpy(np.asarray(part)) for part in (outer, momentum, total)))
    return new[0].numpy(), new[1].numpy()


def _part_descriptors(program: Program, settings: LocalSteps) -> list[TensorDescriptor]:
    stacks = [program.state[number] for number in Layout.of(program).stacks]
    words = TensorDescriptor("message", ElementType.INT, (-(-message_bytes(program, settings) // 4),))
    return [TensorDescriptor(d.name, d.type, d.shape[1:]) for d in stacks] + [words]


def _as_words(message: Message) -> Array:
    padded = np.zeros(-(-len(message) // 4) * 4, np.uint8)
    padded[: len(message)] = message
    return padded.view(np.int32)
