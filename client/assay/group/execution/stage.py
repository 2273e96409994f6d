"""One stage of a group's step: the order in which it computes, sends and receives, and its execution with the canonical
engine, which gives the bits of the whole program on one machine (`native.stage` executes it with PyTorch's kernels)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from assay.engine.device import Bindings, Device, contiguous
from assay.group.errors import GroupMessageError
from assay.group.execution.packing import FULL, Words
from assay.group.execution.partition import Partition, Value
from assay.group.execution.schedule import FIRST, WHOLE, Message, Phase, StageSchedule, phase_program
from assay.program.operator import Array, ElementType, Program, Role, Source, TensorDescriptor
from assay.training.canonical import aligned
from assay.training.errors import TaskError

_CANONICAL_NAN = np.uint32(0x7FC00000)


class Channel(Protocol):
    """How a stage's messages travel."""

    def begin(self, step: int) -> None:
        """A step begins: receives may be posted, and payloads of the step before are no longer needed after it."""

    def send(self, message: Message, payload: Words) -> None:
        """Send; the payload is not changed before `begin` of the next step."""

    def arrived(self, message: Message) -> bool:
        """Whether `receive` would not wait."""

    def receive(self, message: Message) -> Words:
        """Wait for a message of this step. Raises MemberFailedError where the sender is lost."""


class Stage(ABC):
    """A stage of a group that trains: its state, and the step that advances it.

    `owned` are the numbers of the state tensors that it answers for, `held` those that it has.
    """

    def __init__(self, partition: Partition, schedule: StageSchedule) -> None:
        part = partition.parts[schedule.stage]
        self.schedule = schedule
        self.owned, self.held = part.state, tuple(sorted({*part.state, *part.copies}))
        self._loaded = False
        self._payloads: dict[Message, Words] = {}

    @property
    @abstractmethod
    def held_state(self) -> Mapping[int, Array]:
        """The tensors of `held` by number; valid until the next step."""

    @property
    def state(self) -> Mapping[int, Array]:
        """The tensors that this stage answers for, by number; valid until the next step."""
        held = self.held_state
        return {number: held[number] for number in self.owned}

    @abstractmethod
    def load(self, tensors: Mapping[int, Array]) -> None:
        """Copy the held tensors in; `tensors` may hold more."""

    @abstractmethod
    def loss(self) -> float | None:
        """The loss of the step just executed, on the stage that computes it."""

    def step(self, number: int, channel: Channel) -> None:
        """Execute this stage's part of global step `number`."""
        if not self._loaded:
            raise TaskError("the stage has no state yet: load the initial state or a checkpoint first")
        channel.begin(number)
        waiting, coming = list(self.schedule.phases), list(self.schedule.receives)
        for slot in sorted({message.slot for message in self.schedule.sends}):
            due = [phase for phase in waiting if phase.due <= slot]
            needed = max((phase.needs for phase in due), default=FIRST)
            while coming and coming[0].slot <= needed:
                self._receive(coming.pop(0), channel, waiting, number)
            for phase in [phase for phase in waiting if phase.due <= slot]:
                waiting.remove(phase)
                self._run(phase, number)
            for message in self.schedule.sends:
                if message.slot == slot:
                    channel.send(message, self._payload(message, number))
        while coming:
            self._receive(coming.pop(0), channel, waiting, number)
        for phase in waiting:
            self._run(phase, number)
        self._finish(number)

    def _receive(self, message: Message, channel: Channel, waiting: list[Phase], step: int) -> None:
        """Wait for a message, and meanwhile run what can already run."""
        while not channel.arrived(message):
            # Phases are in an order in which they can run, and all messages before this one have come.
            ready = next((phase for phase in waiting if phase.needs < message.slot), None)
            if ready is None:
                break
            waiting.remove(ready)
            self._run(ready, step)
        words = channel.receive(message)
        if words.shape != (message.words(step),):
            raise GroupMessageError(
                f"message {message.order} of stage {message.sender} has {words.size} words, the "
                f"program makes {message.words(step)}; exclude the member"
            )
        arrived = dict(self.unpacked(message, words, step))
        for place in range(len(message.values)):
            self._store(message, place, arrived.get(place))

    def unpacked(self, message: Message, words: Words, step: int) -> list[tuple[int, npt.NDArray[Any]]]:
        """The values that a payload of a step carries, flat, by their place in the message. They may share memory."""
        found, start = [], 0
        for place, length in message.layout(step):
            packing, kind = message.packings[place], message.types[place].dtype
            part = words[start : start + length]
            found.append((place, packing.unpack(part, message.sizes[place], kind)))
            start += length
        return found

    def _payload(self, message: Message, step: int) -> Words:
        """The words of a message whose values are computed. Every NaN that is sent in full becomes 0x7fc00000:
        processors differ in its bits, and what is hashed and compared must not."""
        if message not in self._payloads:
            self._payloads[message] = np.zeros(message.most_words, np.uint32)
        payload, start = self._payloads[message][: message.words(step)], 0
        for place, length in message.layout(step):
            part = payload[start : start + length]
            message.packings[place].pack(self._flat(message, place), part)
            if message.packings[place].bits == FULL and message.types[place] is ElementType.FLOAT:
                part[(part & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)] = _CANONICAL_NAN
            start += length
        return payload

    @abstractmethod
    def _run(self, phase: Phase, step: int) -> None:
        """Compute a phase."""

    @abstractmethod
    def _flat(self, message: Message, place: int) -> npt.NDArray[Any]:
        """A value of a message, or the piece of it that is sent, as flat float32 or int32."""

    @abstractmethod
    def _store(self, message: Message, place: int, values: npt.NDArray[Any] | None) -> None:
        """Keep a value that a message brought, flat and valid until the next step; None where the step needs none."""

    @abstractmethod
    def _finish(self, step: int) -> None:
        """Make the next state the current one."""


class StageRun(Stage):
    """A stage in the exact arithmetic. Holds the state twice, as `CanonicalRun` does."""

    def __init__(
        self,
        program: Program,
        partition: Partition,
        schedule: StageSchedule,
        data: Sequence[Array],
        seed: int,
        device: Device,
    ) -> None:
        super().__init__(partition, schedule)
        self.program, self.seed = program, seed
        self._entries = {number: program.section(Role.STEP).next_state[number].operator for number in self.held}
        self._data = [contiguous(part) for part in data]
        self._executables = {
            phase: device.compile(phase_program(program, phase, schedule.pieces), Role.STEP, _local(phase))
            for phase in schedule.phases
        }
        operators = program.section(Role.STEP).operators
        # What is read outside its phase: split operators have one buffer that their pieces fill.
        self._values: dict[int, Array] = {}
        for phase, executable in self._executables.items():
            for number in phase.kept:
                if phase.piece == WHOLE:
                    self._values[number] = executable.value(phase.local(number))
                elif number not in self._values:
                    self._values[number] = _flat(operators[number].type, operators[number].elements)
        self._state = {number: aligned(program.state[number]) for number in self.held}
        self._spare = {
            number: self._state[number] if entry is None else aligned(program.state[number])
            for number, entry in self._entries.items()
        }
        # The first tensor that an operator's value goes to directly; others get copies at the step's end.
        self._target: dict[int, int] = {}
        for number, entry in self._entries.items():
            if entry is not None and entry in self._values and entry not in schedule.pieces.split:
                self._target.setdefault(entry, number)
        self._received: dict[Value, Array] = {}
        for message in schedule.receives:
            for value, kind, size in zip(message.values, message.types, message.sizes, strict=True):
                parts = 1 if message.piece == WHOLE else schedule.pieces.count
                self._received.setdefault(value, _flat(kind, size * parts))

    @property
    def held_state(self) -> Mapping[int, Array]:
        """The tensors of `held` by number; valid until the next step."""
        return self._state

    @property
    def memory_bytes(self) -> int:
        """Memory of intermediate values, without the state."""
        return sum(executable.memory_bytes for executable in self._executables.values())

    def load(self, tensors: Mapping[int, Array]) -> None:
        """Copy the held tensors in; `tensors` may hold more."""
        for number in self.held:
            given, mine = tensors[number], self._state[number]
            if mine.shape != given.shape or mine.dtype != given.dtype:
                raise TaskError(
                    f"state tensor {number} is {given.dtype}{given.shape}, the program's is {mine.dtype}{mine.shape}"
                )
            np.copyto(mine, given)
        self._loaded = True

    def _finish(self, step: int) -> None:
        for place, entry in self._entries.items():
            if entry is not None and self._target.get(entry) != place:
                value = self._value((Source.OPERATOR, entry))
                np.copyto(self._spare[place], value.reshape(self._spare[place].shape))
        self._state, self._spare = self._spare, self._state

    def loss(self) -> float | None:
        """The loss of the step just executed, on the stage that computes it."""
        if self.program.loss is None or self.program.loss not in self._values:
            return None
        place = self._target.get(self.program.loss)
        value = self._values[self.program.loss] if place is None else self._state[place]
        return float(value.reshape(-1)[0])

    def _store(self, message: Message, place: int, values: npt.NDArray[Any] | None) -> None:
        if values is not None:
            target = self._piece(self._received[message.values[place]], message.piece)
            np.copyto(target.view(np.uint32), values.view(np.uint32))

    def _piece(self, whole: Array, piece: int) -> Array:
        """A piece of a flat array, or all of it."""
        if piece == WHOLE:
            return whole
        size = whole.size // self.schedule.pieces.count
        return whole.reshape(-1)[piece * size : (piece + 1) * size]

    def _run(self, phase: Phase, step: int) -> None:
        arrays = [self._piece(self._value((source, index)), piece) for source, index, piece in phase.inputs]
        outputs: dict[int, Array] = {}
        for number in phase.kept:
            if number in self._target:
                outputs[phase.local(number)] = self._spare[self._target[number]]
            elif phase.piece != WHOLE:
                outputs[phase.local(number)] = self._piece(self._values[number], phase.piece)
        self._executables[phase].run(Bindings({}, self.seed).bind(Source.DATA, arrays), step, outputs)

    def _value(self, value: Value) -> Array:
        source, index = value
        if source == Source.DATA:
            return self._data[index]
        if value in self._received:
            return self._received[value]
        if source == Source.STATE:
            return self._state[index]
        if index in self._target:
            return self._spare[self._target[index]]
        return self._values[index]

    def _flat(self, message: Message, place: int) -> npt.NDArray[Any]:
        return self._piece(self._value(message.values[place]), message.piece).reshape(-1)


def _local(phase: Phase) -> list[int]:
    return [phase.local(number) for number in phase.kept]


def _flat(kind: ElementType, elements: int) -> Array:
    return aligned(TensorDescriptor("", kind, (elements,)))
