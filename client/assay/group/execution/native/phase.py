"""A phase of a stage in PyTorch's kernels: a part of the graph, compiled with what it reads from outside as slots."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import torch
from torch import Tensor

from assay.engine.native.attention import FusedAttention
from assay.engine.native.compiler import EXTERNAL, Compiler
from assay.engine.native.memory import Memory
from assay.group.execution.native.outline import Outline
from assay.group.execution.native.pieces import MASKS, piece_meta, piece_node
from assay.group.execution.schedule import WHOLE
from assay.program.graph import Graph, Input, Node, StateInput, TensorMeta, Value, inputs_of, with_inputs

Found = Tensor | FusedAttention | float
"""What a call results in: learning rates are numbers."""

Lookup = Callable[[Value, bool], Found]
"""Gives the value of an output, or, where the flag is set, the piece that belongs to the phase."""


class NativePart:
    """Nodes of a graph on a stage's memory: `run` computes them and gives the values of `wanted`, in order.

    With a `piece`, outputs are pieces: so are all operands that can be cut into them.
    """

    def __init__(
        self, plan: Outline, memory: Memory, nodes: Collection[int], inside: Collection[Value],
        wanted: Collection[Value], piece: int = WHOLE,
    ) -> None:  # fmt: skip
        self.plan, self.piece = plan, piece
        self._inside = frozenset(inside)
        self._nodes: list[Node] = []
        self._local: dict[Value, Value] = {}  # values of the whole graph to those of this part
        self._outside: dict[Value, Value] = {}
        for number in sorted(nodes):
            self._add(number)
        part = self.part_graph()
        self._memory = memory.of_part(part)
        self.wanted = tuple(wanted)
        local = [self._local[value] for value in wanted]
        compiler = Compiler(part, self._memory, local)
        self._calls = compiler.compile_nodes()
        self._fixed = compiler.operands.fixed
        self._slots = [compiler.operands.slot(value) for value in local]
        self._reads = [
            (value, self._is_part(value), compiler.operands.slot(local)) for value, local in self._outside.items()
        ]

    def part_graph(self) -> Graph:
        """This part as a graph of its own, with the state and the data of the whole one."""
        whole = self.plan.graph
        following = tuple(StateInput(number) for number in range(len(whole.state)))
        return Graph(whole.state, whole.data, whole.constants, tuple(self._nodes), following, Value(0))

    def run(self, step: int, lookup: Lookup) -> list[Found]:
        """Compute the part in global step `step`."""
        memory = self._memory
        memory.step = step
        environment = memory.environment
        for value, is_part, slot in self._reads:
            environment[slot] = lookup(value, is_part)
        for call in self._calls:
            call(environment)
        # Between parts, floats are float32: what is bfloat16 inside one is not known to the next.
        results = [_widened(environment[slot]) for slot in self._slots]
        for slot in (*self._slots, *(slot for _, _, slot in self._reads)):
            if slot not in self._fixed:
                environment[slot] = None
        return results

    def _is_part(self, value: Value) -> bool:
        return self.piece != WHOLE and value in self.plan.parts.aligned

    def _add(self, number: int) -> None:
        """A node of the whole graph, after what it reads from outside."""
        node = self.plan.graph.nodes[number]
        if self.piece != WHOLE:
            node = piece_node(node, self.plan.parts.count)
        place = MASKS.get(node.call)
        if place is not None and isinstance(node.arguments[place], tuple):
            mask = tuple(
                bool(asked) and Value(number, output) in self._inside
                for output, asked in enumerate(node.arguments[place])  # type: ignore[arg-type]
            )
            node = replace(node, arguments=(*node.arguments[:place], mask, *node.arguments[place + 1 :]))
        self._append(node)
        for output in range(len(node.outputs)):
            value = Value(number, output)
            if value in self._inside:
                self._local[value] = Value(len(self._nodes) - 1, output)

    def _append(self, node: Node) -> None:
        """A node, after what it reads from outside."""
        for value in inputs_of(node):
            self._read(value)
        self._nodes.append(with_inputs(node, self._moved))

    def _read(self, value: Input) -> None:
        if not isinstance(value, Value) or value in self._local or value in self._outside:
            return
        if value in self.plan.state_views:
            self._look(value)
            return
        meta: TensorMeta = self.plan.graph.meta(value)
        if self._is_part(value):
            meta = piece_meta(meta, self.plan.parts.count)
        self._nodes.append(Node(EXTERNAL, (), (), (meta,)))
        self._outside[value] = Value(len(self._nodes) - 1)

    def _look(self, value: Value) -> None:
        """A view of the state, made here once."""
        self._append(self.plan.graph.nodes[value.node])
        self._local[value] = Value(len(self._nodes) - 1)

    def _moved(self, value: Input) -> Input:
        if not isinstance(value, Value):
            return value
        return self._local[value] if value in self._local else self._outside[value]


def _widened(value: Found) -> Found:
    return value.float() if isinstance(value, Tensor) and value.dtype == torch.bfloat16 else value
