"""What a native run holds: data, state and the values of a step, as tensors on its device."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.program.errors import GraphError
from assay.program.graph import Graph
from assay.program.operator import Array
from assay.program.sections import Precision

DTYPES = {"float32": torch.float32, "int64": torch.int64, "int32": torch.int32, "bool": torch.bool}

Environment = list[Any]
"""The values of a step by slot: one slot for every output of every node."""


class Memory:
    """Tensors of one run. `data` are the graph's data tensors (float32 or int32); they are moved to the device whole.

    Of the state, those in `held` (all unless given) take memory. `optimizer_steps`: a cell for every AdamW update, its
    count of steps, or None where it follows from the state.
    """

    def __init__(
        self,
        graph: Graph,
        data: Sequence[Array],
        seed: int,
        device: torch.device,
        precision: Precision,
        held: Collection[int] | None = None,
    ) -> None:
        if len(data) != len(graph.data):
            raise GraphError(f"the graph reads {len(graph.data)} data tensors, {len(data)} were given")
        for number, (array, descriptor) in enumerate(zip(data, graph.data, strict=True)):
            if tuple(array.shape) != descriptor.shape or array.dtype != descriptor.type.dtype:
                raise GraphError(
                    f"data tensor {number} is {array.dtype} of shape {array.shape}, "
                    f"the graph wants {descriptor.type.dtype} of shape {descriptor.shape}"
                )
        self.seed, self.device, self.precision = seed, device, precision
        self.data = [torch.from_numpy(np.array(array, order="C")).to(device) for array in data]
        meta = torch.device("meta")
        self.state = [
            torch.empty(d.shape, dtype=_dtype_of(d.type.dtype), device=device if held is None or n in held else meta)
            for n, d in enumerate(graph.state)
        ]
        self.environment = _environment(graph)
        self.optimizer_steps: list[list[Any]] = []
        self.loss: Tensor | None = None
        self.step = 0

    def of_part(self, graph: Graph) -> Memory:
        """The memory of a part of the step: the same tensors of data and state, other values."""
        part = copy(self)
        part.environment = _environment(graph)
        return part

    def load(self, state: Sequence[Array]) -> None:
        """Copy a state (arrays in the graph's order) into the tensors."""
        if len(state) != len(self.state):
            raise GraphError(f"the state has {len(self.state)} tensors, {len(state)} were given")
        self.load_some(dict(enumerate(state)))

    def load_some(self, state: Mapping[int, Array]) -> None:
        """Copy tensors of the state, by number."""
        for number, array in state.items():
            target = self.state[number]
            if tuple(array.shape) != tuple(target.shape):
                raise GraphError(f"a state tensor has shape {array.shape}, the graph wants {tuple(target.shape)}")
            target.copy_(torch.from_numpy(np.array(array, order="C")))
        for cell in self.optimizer_steps:
            cell[0] = None  # the optimizer's own step number follows from the power of beta just loaded


def _environment(graph: Graph) -> Environment:
    return [None] * sum(len(node.outputs) + 1 for node in graph.nodes)


def _dtype_of(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.float32 if dtype == np.float32 else torch.int32
