"""Which outputs of a graph's nodes can be computed a few samples at a time, and the node that computes one piece.

What the lowering of a node reads decides (`execution.pieces`): an output is **aligned** when each of its pieces, equal
parts of the row-major elements, holds other samples, and **split** when its node computes a piece of it from the same
pieces of what is aligned. Batch norm gives aligned outputs that are not split: its mean is over the whole batch.

A recorded graph holds shapes as arguments. Those of a piece are a part of them, which is checked without computing
anything, on PyTorch's meta device; a node that does not pass is computed for the whole batch at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from math import gcd

import torch

from assay.engine.native.compiler import resolve
from assay.engine.native.memory import DTYPES
from assay.group.execution.pieces import is_order, splits
from assay.program.graph import (
    Argument,
    ConstantInput,
    DataInput,
    Graph,
    Input,
    Node,
    StateInput,
    TensorMeta,
    TypeName,
    Value,
    each_input,
)
from assay.program.lowering import LoweredNodes
from assay.program.lowering.view import View
from assay.program.operator import Body, Operator, Source

_SHAPES: Mapping[str, int] = {
    "aten.view.default": 1,
    "aten._unsafe_view.default": 1,
    "aten.reshape.default": 1,
    "aten._reshape_copy.default": 1,
    "aten.expand.default": 1,
    "aten.new_zeros.default": 1,
    "aten.new_ones.default": 1,
    "aten.new_full.default": 1,
    "aten.new_empty.default": 1,
    "aten.slice_backward.default": 1,
    "aten.select_backward.default": 1,
    "aten.upsample_nearest2d_backward.default": 2,
}
"""Calls with a shape that begins as their output does, and its place among the arguments."""

_COUNTS: Mapping[str, int] = {"aten.native_group_norm.default": 4, "aten.native_group_norm_backward.default": 5}
"""Calls with the batch's length as an argument, and its place."""

MASKS: Mapping[str, int] = {
    "aten.native_layer_norm_backward.default": 7,
    "aten.native_group_norm_backward.default": 9,
    "aten.convolution_backward.default": 10,
}
"""Calls that can leave outputs out, and the place of the list that says which are wanted."""


@dataclass(frozen=True)
class NodePieces:
    """`count` pieces of every output in `split`; outputs in `aligned` can be cut into them."""

    count: int
    aligned: frozenset[Value]
    split: frozenset[Value]


def leading(shape: tuple[int, ...]) -> int:
    """The first dimension with more than one entry: along it, pieces are parts of the row-major elements."""
    return next((place for place, extent in enumerate(shape) if extent > 1), 0)


def piece_meta(meta: TensorMeta, count: int) -> TensorMeta:
    """Type and shape of one of `count` pieces."""
    place = leading(meta.shape)
    return TensorMeta(meta.type, (*meta.shape[:place], meta.shape[place] // count, *meta.shape[place + 1 :]))


def piece_node(node: Node, count: int) -> Node:
    """The call that computes one of `count` pieces, with shapes to fit. Its operands are still those of the whole."""
    arguments = list(node.arguments)
    place = _SHAPES.get(node.call)
    if place is not None and place < len(arguments):
        arguments[place] = _part_of(arguments[place], count)
    place = _COUNTS.get(node.call)
    if place is not None and isinstance(arguments[place], int):
        arguments[place] = int(arguments[place]) // count  # type: ignore[arg-type]
    outputs = tuple(None if meta is None or not meta.shape else piece_meta(meta, count) for meta in node.outputs)
    return replace(node, arguments=tuple(arguments), outputs=outputs)


def _part_of(shape: Argument, count: int) -> Argument:
    if not isinstance(shape, tuple):
        return shape
    extents = [extent if isinstance(extent, int) else 0 for extent in shape]
    place = leading(tuple(extents))
    if extents[place] > 0 and extents[place] % count == 0:
        extents[place] //= count
    return tuple(extents)


def find_node_pieces(graph: Graph, lowered: LoweredNodes, wanted: int) -> NodePieces:
    """Split as many outputs as possible into `wanted` pieces, or the largest number below that divides the batch."""
    orders = [operator for operator in lowered.operators if is_order(operator)]
    count = wanted
    for operator in orders:
        count = gcd(count, operator.p0)
    if count == 1 or not orders:
        return NodePieces(1, frozenset(), frozenset())
    return _Finder(graph, lowered, count, min(operator.p0 for operator in orders)).find()


class NodeReach:
    """Which emitted operators the outputs of nodes are made of."""

    def __init__(self, graph: Graph, lowered: LoweredNodes) -> None:
        self.graph, self.operators, self.values = graph, lowered.operators, lowered.values

    def made_of(self, value: Value) -> set[int]:
        """The operators that a node computes for one of its outputs: down to those of its arguments."""
        return self._within(self.root(value), self._given(value.node))

    def work(self, value: Value) -> int:
        """Work units of `made_of`."""
        return sum(self.operators[number].work for number in self.made_of(value))

    def root(self, value: Value) -> list[int]:
        """The operator whose result an output is or looks at; empty for parts of the state, data and constants."""
        view = self.values[value.node][value.output]
        return [] if view is None or view.operand.source != Source.OPERATOR else [view.operand.index]

    def _given(self, number: int) -> set[int]:
        given: set[int] = set()

        def visit(value: Input) -> None:
            if isinstance(value, Value):
                given.update(self.root(value))

        node = self.graph.nodes[number]
        each_input((*node.arguments, *(argument for _, argument in node.keywords)), visit)
        return given

    def _within(self, roots: list[int], given: Set[int]) -> set[int]:
        found: set[int] = set()
        waiting = list(roots)
        while waiting:
            number = waiting.pop()
            if number in found or number in given:
                continue
            found.add(number)
            waiting += [o.index for o in self.operators[number].operands if o.source == Source.OPERATOR]
        return found


class _Finder:
    def __init__(self, graph: Graph, lowered: LoweredNodes, count: int, batch: int) -> None:
        self.graph, self.lowered, self.count = graph, lowered, count
        self.reach = NodeReach(graph, lowered)
        masks = self._masks(batch)
        self.by_sample: set[int] = set()
        self.from_batch: set[int] = set()  # operators whose result depends on what was drawn
        for number, operator in enumerate(lowered.operators):
            if is_order(operator) or number in masks or splits(operator, self.by_sample, count):
                self.by_sample.add(number)
            if number in self.by_sample or any(
                operand.source == Source.OPERATOR and operand.index in self.from_batch for operand in operator.operands
            ):
                self.from_batch.add(number)

    def find(self) -> NodePieces:
        aligned: set[Value] = set()
        split: set[Value] = set()
        for number, node in enumerate(self.graph.nodes):
            views = self.lowered.values[number]
            mine = [
                Value(number, output)
                for output, meta in enumerate(node.outputs)
                if meta is not None and self._is_aligned(views[output], meta)
            ]
            aligned.update(mine)
            able = [value for value in mine if self._is_computed_by_sample(value)]
            if able and not node.call.startswith("assay.") and self._has_right_shapes(node, able, aligned):
                split.update(able)
        return NodePieces(self.count, frozenset(aligned), frozenset(split))

    def _masks(self, batch: int) -> set[int]:
        """Operators that draw random numbers for each sample of the batch."""
        found: set[int] = set()
        for number, node in enumerate(self.graph.nodes):
            meta = node.outputs[0] if node.outputs else None
            if node.call != "assay.bernoulli" or meta is None or not meta.shape or meta.shape[0] % batch:
                continue
            made_of = self.reach.made_of(Value(number, 0))
            found.update(place for place in made_of if self.lowered.operators[place].body == Body.UNIFORM)
        return found

    def _is_aligned(self, view: View | None, meta: TensorMeta) -> bool:
        if view is None or not meta.shape or meta.shape[leading(meta.shape)] % self.count:
            return False
        copy = Operator(Body.COPY, view.type, view.shape, (view.operand,))
        place = leading(view.shape)
        if place:  # dimensions of one entry in front: pieces are along the next
            operand = replace(view.operand, stride=view.operand.stride[place:], guards=tuple(
                replace(guard, stride=guard.stride[place:]) for guard in view.operand.guards
            ))  # fmt: skip
            copy = Operator(Body.COPY, view.type, view.shape[place:], (operand,))
        return splits(copy, self.by_sample, self.count)

    def _is_computed_by_sample(self, value: Value) -> bool:
        """Whether all that the node computes on the way to this output is by sample too."""
        return all(place in self.by_sample or place not in self.from_batch for place in self.reach.made_of(value))

    def _has_right_shapes(self, node: Node, outputs: list[Value], aligned: Set[Value]) -> bool:
        """Whether PyTorch gives a piece's shapes for a piece's operands."""
        piece = piece_node(node, self.count)

        def made(argument: Argument) -> object:
            if isinstance(argument, tuple):
                return [made(part) for part in argument]
            if isinstance(argument, TypeName):
                return DTYPES[argument.name]
            if isinstance(argument, Value | StateInput | DataInput | ConstantInput):
                meta = self.graph.meta(argument)
                if argument in aligned:
                    meta = piece_meta(meta, self.count)
                return torch.empty(meta.shape, dtype=DTYPES[meta.type], device="meta")
            return argument

        try:
            result = resolve(node.call)(
                *(made(argument) for argument in piece.arguments),
                **{name: made(argument) for name, argument in piece.keywords},
            )
        except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
            return False
        results = list(result) if isinstance(result, tuple | list) else [result]
        for value in outputs:
            meta, found = piece.outputs[value.output], results[value.output]
            if meta is None or not isinstance(found, torch.Tensor) or tuple(found.shape) != meta.shape:
                return False
        return True
