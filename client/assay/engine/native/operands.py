"""How calls find their arguments: constants, tensors of the state and data, or slots that earlier nodes fill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.engine.native.memory import DTYPES, Environment, Memory
from assay.program.graph import (
    Argument,
    ConstantInput,
    DataInput,
    Graph,
    Input,
    StateInput,
    TypeName,
    Value,
    each_input,
)

NodeCall = Callable[[Environment], Any]
"""Computes a node's outputs from the environment."""


class Operands:
    """The operands of a graph's nodes in one run's memory. `fixed` are the slots that are made once."""

    def __init__(self, graph: Graph, memory: Memory) -> None:
        self.graph, self.memory = graph, memory
        self.fixed: set[int] = set()
        self.first_slot: list[int] = []
        slot = 0
        for node in graph.nodes:
            self.first_slot.append(slot)
            slot += len(node.outputs)

    def slot(self, value: Value) -> int:
        """Where a node's output lies in the environment."""
        return self.first_slot[value.node] + value.output

    def operand(self, argument: Argument) -> tuple[Any, int | None]:
        """(value, None) for what is known now, or (None, slot)."""
        if isinstance(argument, StateInput):
            return self.memory.state[argument.index], None
        if isinstance(argument, DataInput):
            return self.memory.data[argument.index], None
        if isinstance(argument, ConstantInput):
            return self._constant(argument.index), None
        if isinstance(argument, TypeName):
            return DTYPES[argument.name], None
        if isinstance(argument, Value):
            slot = self.slot(argument)
            return (self.memory.environment[slot], None) if slot in self.fixed else (None, slot)
        return argument, None

    def _constant(self, index: int) -> Tensor:
        constant = self.graph.constants[index]
        tensor = torch.from_numpy(np.array(constant.values, order="C")).to(DTYPES[constant.type])
        return tensor.to(self.memory.device)

    def reader(self, argument: Argument) -> Callable[[Environment], Any]:
        """A function from the environment to an argument's value."""
        if isinstance(argument, tuple):
            if not has_input(argument):
                known = [self.operand(part)[0] for part in argument]
                return lambda environment: known
            readers = [self.reader(part) for part in argument]
            return lambda environment: [read(environment) for read in readers]
        value, slot = self.operand(argument)
        if slot is None:
            return lambda environment: value
        return lambda environment: environment[slot]


def has_input(argument: Argument) -> bool:
    """Whether an argument is, or holds, a tensor of the graph."""
    found: list[Input] = []
    each_input(argument, found.append)
    return bool(found)
