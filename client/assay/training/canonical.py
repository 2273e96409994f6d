"""Canonical training: a program's step section run again and again on one state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from assay.engine.device import Bindings, Device, Element, contiguous, typed
from assay.program.operator import Array, Program, Role, Source, TensorDescriptor
from assay.training.errors import TaskError

ALIGNMENT = 64


def aligned(descriptor: TensorDescriptor) -> Array:
    """An uninitialised array for a tensor, whose memory starts at a multiple of 64 bytes."""
    size = 4 * descriptor.count
    raw = np.empty(size + ALIGNMENT, np.uint8)
    shift = -raw.ctypes.data % ALIGNMENT
    return typed(raw[shift : shift + size], descriptor.type).reshape(descriptor.shape)


class CanonicalRun:
    """The state of a canonical run, and the step that advances it.

    Holds the state twice: a step reads one copy and writes the other.
    """

    def __init__(
        self,
        program: Program,
        data: Sequence[Array],
        seed: int,
        device: Device,
        role: Role = Role.STEP,
    ) -> None:
        section = program.section(role)
        self._entries = [entry.operator for entry in section.next_state]
        self._loss = program.loss if role is Role.STEP else None
        keep = {operator for operator in self._entries if operator is not None}
        if self._loss is not None:
            keep.add(self._loss)
        self._executable = device.compile(program, role, keep)
        self._bindings = Bindings({}, seed).bind(Source.DATA, [contiguous(part) for part in data])
        self._state: list[Array] = [aligned(entry) for entry in program.state]
        self._spare: list[Array] = [
            self._state[number] if operator is None else aligned(program.state[number])
            for number, operator in enumerate(self._entries)
        ]
        self._loaded = False

    @property
    def state(self) -> Sequence[Array]:
        """The current state, in the program's order. Valid until the next step."""
        return self._state

    @property
    def memory_bytes(self) -> int:
        """Memory of intermediate values, without the state."""
        return self._executable.memory_bytes

    def load(self, state: Sequence[Array]) -> None:
        """Copy `state` in."""
        for mine, given in zip(self._state, state, strict=True):
            if mine.shape != given.shape or mine.dtype != given.dtype:
                raise TaskError(
                    f"a state tensor is {given.dtype}{given.shape}, the program's is {mine.dtype}{mine.shape}"
                )
            np.copyto(mine, given)
        self._loaded = True

    def copy_state(self) -> list[Array]:
        return [part.copy() for part in self._state]

    def step(self, number: int, watch: Sequence[Element] = ()) -> npt.NDArray[np.uint32]:
        """Execute global step `number`; returns the bits of the watched elements."""
        if not self._loaded:
            raise TaskError("the run has no state yet: load the initial state or a checkpoint first")
        self._bindings.bind(Source.STATE, self._state)
        outputs: dict[int, Array] = {}
        copies: list[tuple[int, int]] = []
        first: dict[int, int] = {}
        for place, operator in enumerate(self._entries):
            if operator is None:
                continue
            if operator in first:
                copies.append((place, first[operator]))
            else:
                first[operator] = place
                outputs[operator] = self._spare[place]
        bits = self._executable.run(self._bindings, number, outputs, watch)
        for place, source in copies:
            np.copyto(self._spare[place], self._spare[source].reshape(self._spare[place].shape))
        self._state, self._spare = self._spare, self._state
        return bits

    def loss(self) -> float | None:
        """The loss of the step just executed, if the program names one."""
        if self._loss is None:
            return None
        if self._loss in self._entries:
            return float(self._state[self._entries.index(self._loss)].reshape(-1)[0])
        return float(self._executable.value(self._loss).reshape(-1)[0])
