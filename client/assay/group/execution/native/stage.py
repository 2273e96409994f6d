"""A stage of a tolerant task's group in PyTorch's own kernels, on any device: recorded calls, divided by an outline.

Pieces of a batch are computed as smaller batches, everything that folds over the batch in one call for the whole of it,
as on one machine. What differs from one machine's native run is therefore how kernels round products of other sizes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from assay.engine.native.attention import as_tensor
from assay.engine.native.memory import DTYPES, Memory
from assay.engine.native.run import native_settings
from assay.group.execution.native.expand import UPDATES
from assay.group.execution.native.outline import Outline
from assay.group.execution.native.phase import NativePart
from assay.group.execution.native.pieces import leading, piece_meta
from assay.group.execution.native.update import Update
from assay.group.execution.partition import Partition
from assay.group.execution.schedule import WHOLE, Message, Phase, StageSchedule
from assay.group.execution.stage import Channel, Stage
from assay.program.graph import StateInput, TensorMeta, Value, inputs_of
from assay.program.operator import Array, Source
from assay.program.sections import Precision


class NativeStage(Stage):
    """A stage of `plan` that trains with PyTorch's kernels. `data` and `seed` are the task's."""

    def __init__(
        self, plan: Outline, partition: Partition, schedule: StageSchedule, data: Sequence[Array], seed: int,
        device: str | torch.device = "cpu", precision: Precision = Precision.FP32,
    ) -> None:  # fmt: skip
        super().__init__(partition, schedule)
        self.plan = plan
        crossing = {
            index for message in schedule.receives for source, index in message.values if source == Source.STATE
        }
        self._memory = Memory(
            plan.graph, data, seed, torch.device(device), precision, held=frozenset(self.held) | crossing
        )
        updates = sorted(
            {
                plan.values[unit].node
                for phase in schedule.phases
                for unit in phase.operators
                if plan.graph.nodes[plan.values[unit].node].call in UPDATES
            }
        )
        self._update = Update(plan.graph, self._memory, updates) if updates else None
        needed = self._read_at_the_end(updates)
        self._parts = {phase: self._compile(phase, needed) for phase in schedule.phases}
        # Values of the step by output and piece: tensors, but for the learning rate, which is a number, and what fused
        # attention leaves for its backward pass.
        self._values: dict[tuple[Value, int], Any] = {}
        self._loss: Tensor | None = None

    @property
    def held_state(self) -> Mapping[int, Array]:
        """The tensors of `held` by number; valid until the next step."""
        return {number: self._memory.state[number].detach().cpu().numpy() for number in self.held}

    def step(self, number: int, channel: Channel) -> None:
        """Execute this stage's part of global step `number`."""
        with native_settings(self._memory.precision, self._memory.device):
            super().step(number, channel)

    def load(self, tensors: Mapping[int, Array]) -> None:
        """Copy the held tensors in; `tensors` may hold more."""
        self._memory.load_some({number: tensors[number] for number in self.held})
        self._loaded = True

    def loss(self) -> float | None:
        """The loss of the step just executed, on the stage that computes it."""
        return None if self._loss is None else float(self._loss)

    def _read_at_the_end(self, updates: Sequence[int]) -> frozenset[Value]:
        """What is read when all phases are done: by updates, as the next state, as the loss."""
        graph = self.plan.graph
        found = {graph.loss}
        found.update(value for n in self.held if isinstance(value := graph.next_state[n], Value))

        for number in updates:
            found.update(value for value in inputs_of(graph.nodes[number]) if isinstance(value, Value))
        return frozenset(found)

    def _compile(self, phase: Phase, needed: frozenset[Value]) -> NativePart | None:
        """The phase's part of the graph, or None where only updates are in it."""
        inside = [self.plan.values[unit] for unit in phase.operators]
        nodes = {value.node for value in inside if self.plan.graph.nodes[value.node].call not in UPDATES}
        if not nodes:
            return None
        kept = {self.plan.values[unit] for unit in phase.kept}
        wanted = [value for value in inside if value.node in nodes and (value in kept or value in needed)]
        return NativePart(
            self.plan, self._memory, nodes, [value for value in inside if value.node in nodes], wanted, phase.piece
        )

    def _run(self, phase: Phase, step: int) -> None:
        part = self._parts[phase]
        if part is None:
            return
        results = part.run(step, lambda value, is_part: self._value(value, phase.piece if is_part else WHOLE))
        for value, result in zip(part.wanted, results, strict=True):
            self._values[value, phase.piece] = result

    def _value(self, value: Value, piece: int) -> Any:
        """A value that was computed or received, whole or one piece of it."""
        found = self._values.get((value, piece))
        if found is not None:
            return found
        count, place = self.plan.parts.count, leading(self.plan.graph.meta(value).shape)
        if piece == WHOLE:
            found = torch.cat([as_tensor(self._values[value, part]) for part in range(count)], place)
        else:
            whole = as_tensor(self._values[value, WHOLE])
            size = whole.shape[place] // count
            found = whole.narrow(place, piece * size, size)
        self._values[value, piece] = found
        return found

    def _flat(self, message: Message, place: int) -> npt.NDArray[Any]:
        source, index = message.values[place]
        if source == Source.STATE:
            tensor: Tensor = self._memory.state[index]
        else:
            tensor = as_tensor(self._value(self.plan.values[index], message.piece))
        kind = torch.float32 if tensor.is_floating_point() else torch.int32
        flat: npt.NDArray[Any] = tensor.detach().to("cpu", kind).reshape(-1).numpy()
        return flat

    def _store(self, message: Message, place: int, values: npt.NDArray[Any] | None) -> None:
        source, index = message.values[place]
        if values is None:
            values = np.zeros(message.sizes[place], message.types[place].dtype)
        if source == Source.STATE:
            self._memory.state[index].copy_(_tensor(values, self._state_meta(index)))
            return
        value = self.plan.values[index]
        meta = self.plan.graph.meta(value)
        if message.piece != WHOLE:
            meta = piece_meta(meta, self.plan.parts.count)
        self._values[value, message.piece] = _tensor(values, meta).to(self._memory.device)

    def _state_meta(self, number: int) -> TensorMeta:
        return self.plan.graph.meta(StateInput(number))

    def _finish(self, step: int) -> None:
        graph, memory = self.plan.graph, self._memory
        loss = self.plan.graph.loss
        is_mine = (loss, WHOLE) in self._values and self.plan.program.loss in {
            unit for phase in self.schedule.phases for unit in phase.operators
        }
        self._loss = self._values[loss, WHOLE].clone() if is_mine else None
        following = {
            number: self._value(value, WHOLE)
            for number in self.held
            if isinstance(value := graph.next_state[number], Value) and graph.nodes[value.node].call not in UPDATES
        }
        if self._update is not None:
            self._update.run(step, lambda value: self._value(value, WHOLE))
        for number, tensor in following.items():
            memory.state[number].copy_(tensor)
        self._values.clear()


def _tensor(values: npt.NDArray[Any], meta: TensorMeta) -> Tensor:
    """A received value; copied, because its memory is used again."""
    return torch.from_numpy(values.copy()).reshape(meta.shape).to(DTYPES[meta.type])
