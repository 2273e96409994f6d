"""Where the samples of a batch lie in the results of a graph's nodes, as what the lowering of the nodes reads shows.

Of an operator **by sample**, equal parts of its row-major elements come from equal parts of the batch. A node's output
is a view of an operator's result, so it is seen along which of its dimensions the samples lie; or the output is a sum
over the batch, whose parts of the batch can be added up on their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

import torch

from assay.engine.native.compiler import resolve
from assay.engine.native.memory import DTYPES
from assay.group.execution.pieces import is_order, piece_of, reads_same_piece, splits
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
    inputs_of,
)
from assay.program.lowering import LoweredNodes
from assay.program.lowering.view import View, permute
from assay.program.operator import Body, Operator, Source

SHAPES: Mapping[str, int] = {
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

COUNTS: Mapping[str, int] = {"aten.native_group_norm.default": 3, "aten.native_group_norm_backward.default": 5}
"""Calls with the batch's length as an argument, and its place."""

_UNCHECKED = frozenset(
    f"aten.{name}.default"
    for name in ("slice_scatter", "select_scatter", "index_put", "_unsafe_index_put", "index_add", "scatter_add")
)
"""Calls that say nothing on the meta device where their operands' shapes do not fit each other."""

_SUMS = frozenset({Body.FOLD_ADD, Body.FOLD_FMA, Body.FOLD_ADD_IF})


class NodeReach:
    """Which emitted operators the outputs of nodes are made of."""

    def __init__(self, graph: Graph, lowered: LoweredNodes) -> None:
        self.graph, self.operators, self.values = graph, lowered.operators, lowered.values
        self._first: dict[int, int] = {}  # the first node of which each operator is a result
        for number, outputs in enumerate(lowered.values):
            for output in range(len(outputs)):
                for operator in self.root(Value(number, output)):
                    self._first.setdefault(operator, number)

    def made_of(self, value: Value) -> set[int]:
        """The operators that a node computes for one of its outputs: down to those of its arguments."""
        return self._within(self.root(value), self._given(value.node))

    def work(self, value: Value) -> int:
        """Work units of what a node's call computes for an output: as `made_of`, but down to the results of any earlier
        node. Some are lowered to less than their arguments take: they read what others left on the way."""
        given, root = self._given(value.node), self.root(value)
        earlier = {operator for operator, first in self._first.items() if first < value.node}
        made = self._within(root, given | (earlier - set(root)))
        return sum(self.operators[number].work for number in made)

    def root(self, value: Value) -> list[int]:
        """The operator whose result an output is or looks at; empty for parts of the state, data and constants."""
        view = self.values[value.node][value.output]
        return [] if view is None or view.operand.source != Source.OPERATOR else [view.operand.index]

    def _given(self, number: int) -> set[int]:
        read = (value for value in inputs_of(self.graph.nodes[number]) if isinstance(value, Value))
        return {operator for value in read for operator in self.root(value)}

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


class SampleFlow:
    """Samples in the outputs of a graph's nodes, where its batch is cut into `count` equal parts."""

    def __init__(self, graph: Graph, lowered: LoweredNodes, count: int) -> None:
        self.graph, self.lowered, self.count = graph, lowered, count
        self.reach = NodeReach(graph, lowered)
        self.operators = lowered.operators
        self._places: dict[Value, int | None] = {}
        masks = self._masks(min(operator.p0 for operator in self.operators if is_order(operator)))
        self.by_sample: set[int] = set()
        for number, operator in enumerate(self.operators):
            if is_order(operator) or number in masks or splits(operator, self.by_sample, count):
                self.by_sample.add(number)

    def view(self, value: Value) -> View | None:
        """How an output looks at the operators."""
        return self.lowered.values[value.node][value.output]

    def place(self, value: Value) -> int | None:
        """The dimension of an output along which equal parts hold other samples."""
        if value not in self._places:
            view = self.view(value)
            places = range(view.rank) if view is not None else ()
            self._places[value] = next((p for p in places if view is not None and self.lies_along(view, p)), None)
        return self._places[value]

    def repeats(self, value: Value) -> list[int]:
        """The dimensions of an output along which nothing changes."""
        view = self.view(value)
        if view is None:
            return []
        vectors = [view.operand.stride, *(guard.stride for guard in view.operand.guards)]
        return [place for place in range(view.rank) if view.shape[place] > 1 and not any(v[place] for v in vectors)]

    def lies_along(self, view: View, place: int) -> bool:
        """Whether equal parts of a view's dimension `place` hold other samples."""
        if view.shape[place] % self.count:
            return False
        order = [place, *(other for other in range(view.rank) if other != place)]
        moved = permute(view, order)
        return splits(Operator(Body.COPY, view.type, moved.shape, (moved.operand,)), self.by_sample, self.count)

    def is_computed_by_sample(self, value: Value) -> bool:
        """Whether all that the node computes on the way to this output is by sample too."""
        return self._are_by_sample(self.reach.made_of(value))

    def is_sum(self, value: Value) -> bool:
        """Whether an output is a sum over the samples of what is computed by sample, or linear in such sums."""
        made_of = self.reach.made_of(value)
        sums: set[int] = set()
        for number in sorted(made_of):
            operator = self.operators[number]
            read = [operand.index for operand in operator.operands if operand.source == Source.OPERATOR]
            if self._adds_up(operator) or self._is_linear(operator, sums):
                sums.add(number)
            elif not sums.isdisjoint(read) or not self._are_by_sample({number}):
                return False
        roots = self.reach.root(value)
        return bool(roots) and roots[0] in sums

    def _is_linear(self, operator: Operator, sums: Set[int]) -> bool:
        """Whether an operator of sums is the sum of what it would be of their parts."""
        inside = [o.source == Source.OPERATOR and o.index in sums for o in operator.operands]
        if operator.body in (Body.ADD, Body.SUB):
            return all(inside)
        if any(o.source == Source.OPERATOR and o.index in self.by_sample for o in operator.operands):
            return False
        if operator.body in (Body.COPY, Body.NEG, Body.FOLD_ADD):
            return inside[0]
        return operator.body in (Body.MUL, Body.FOLD_FMA) and sum(inside) == 1

    def _adds_up(self, operator: Operator) -> bool:
        """Whether an operator adds up what is by sample."""
        first = len(operator.extents)
        return operator.body in _SUMS and any(
            self._adds_up_along(operator, first + place) for place in range(len(operator.reduced))
        )

    def _adds_up_along(self, operator: Operator, place: int) -> bool:
        """Whether parts of a fold's dimension read the same parts of what is by sample, and of nothing else."""
        if operator.dimensions[place] % self.count:
            return False
        parts = [piece_of(operator, piece, self.count, place) for piece in range(self.count)]
        found = False
        for number, operand in enumerate(operator.operands):
            if operand.source == Source.OPERATOR and operand.index in self.by_sample:
                if not reads_same_piece(parts, number):
                    return False
                found = True
            elif operand.stride[place] or any(guard.stride[place] for guard in operand.guards):
                return False
        return found

    def _are_by_sample(self, operators: Set[int]) -> bool:
        """Whether each is by sample, or reads nothing that is: then it is the same for every part."""
        return all(
            number in self.by_sample
            or not any(
                o.source == Source.OPERATOR and o.index in self.by_sample for o in self.operators[number].operands
            )
            for number in operators
        )

    def _masks(self, batch: int) -> set[int]:
        """Operators that draw random numbers for each sample of the batch."""
        found: set[int] = set()
        for number, node in enumerate(self.graph.nodes):
            meta = node.outputs[0] if node.outputs else None
            if node.call != "assay.bernoulli" or meta is None or not meta.shape or meta.shape[0] % batch:
                continue
            made_of = self.reach.made_of(Value(number, 0))
            found.update(place for place in made_of if self.operators[place].body == Body.UNIFORM)
        return found


def part_meta(meta: TensorMeta, count: int, place: int) -> TensorMeta:
    """Type and shape of one of `count` parts along dimension `place`."""
    return TensorMeta(meta.type, (*meta.shape[:place], meta.shape[place] // count, *meta.shape[place + 1 :]))


def part_arguments(node: Node, count: int, place_of: Callable[[tuple[int, ...]], int]) -> tuple[Argument, ...]:
    """A node's arguments where it computes one of `count` parts: shapes and counts among them are those of the part.
    `place_of` gives the dimension of a shape along which parts lie."""
    arguments = list(node.arguments)
    found = SHAPES.get(node.call)
    if found is not None and found < len(arguments):
        arguments[found] = _part_of(arguments[found], count, place_of)
    found = COUNTS.get(node.call)
    if found is not None and isinstance(arguments[found], int):
        arguments[found] = int(arguments[found]) // count  # type: ignore[arg-type]
    return tuple(arguments)


def _part_of(shape: Argument, count: int, place_of: Callable[[tuple[int, ...]], int]) -> Argument:
    if not isinstance(shape, tuple):
        return shape
    extents = [extent if isinstance(extent, int) else 0 for extent in shape]
    place = place_of(tuple(extents))
    if extents[place] > 0 and extents[place] % count == 0:
        extents[place] //= count
    return tuple(extents)


def gives_shapes(node: Node, meta_of: Callable[[Input], TensorMeta], wanted: Mapping[int, TensorMeta]) -> bool:
    """Whether PyTorch gives outputs of these shapes for a node's call, on its meta device: nothing is computed, but for
    calls whose shapes the meta device does not check."""
    device = "cpu" if node.call in _UNCHECKED else "meta"

    def made(argument: Argument) -> object:
        if isinstance(argument, tuple):
            return [made(part) for part in argument]
        if isinstance(argument, TypeName):
            return DTYPES[argument.name]
        if isinstance(argument, Value | StateInput | DataInput | ConstantInput):
            meta = meta_of(argument)
            return torch.zeros(meta.shape, dtype=DTYPES[meta.type], device=device)
        return argument

    try:
        result = resolve(node.call)(
            *(made(argument) for argument in node.arguments), **{name: made(value) for name, value in node.keywords}
        )
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError, AssertionError):
        return False
    results = list(result) if isinstance(result, tuple | list) else [result]
    return all(
        isinstance(results[output], torch.Tensor) and tuple(results[output].shape) == meta.shape
        for output, meta in wanted.items()
    )
