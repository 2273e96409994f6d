"""Which outputs of a graph's nodes can be computed a few samples at a time, and the node that computes one piece.

What the lowering of a node reads decides (`execution.pieces`): an output is **aligned** when each of its pieces, equal
parts of the row-major elements, holds other samples, and **split** when its node computes a piece of it from the same
pieces of what is aligned. Batch norm gives aligned outputs that are not split: its mean is over the whole batch.

A recorded graph holds shapes as arguments. Those of a piece are a part of them, which is checked before training
(`samples.gives_shapes`); a node that does not pass is computed for the whole batch at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import gcd

from assay.group.execution.native.samples import SampleFlow, gives_shapes, part_arguments, part_meta
from assay.group.execution.pieces import is_order
from assay.program.graph import Graph, Input, Node, TensorMeta, Value
from assay.program.lowering import LoweredNodes

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


WHOLE_BATCH = NodePieces(1, frozenset(), frozenset())
"""Nothing is split."""


def leading(shape: tuple[int, ...]) -> int:
    """The first dimension with more than one entry: along it, pieces are parts of the row-major elements."""
    return next((place for place, extent in enumerate(shape) if extent > 1), 0)


def piece_meta(meta: TensorMeta, count: int) -> TensorMeta:
    """Type and shape of one of `count` pieces."""
    return part_meta(meta, count, leading(meta.shape))


def piece_node(node: Node, count: int) -> Node:
    """The call that computes one of `count` pieces, with shapes to fit. Its operands are still those of the whole."""
    outputs = tuple(None if meta is None or not meta.shape else piece_meta(meta, count) for meta in node.outputs)
    return replace(node, arguments=part_arguments(node, count, leading), outputs=outputs)


def find_node_pieces(graph: Graph, lowered: LoweredNodes, wanted: int, parts: int = 1) -> NodePieces:
    """Split as many outputs as possible into `wanted` pieces of each of `parts` equal parts of the batch, or into the
    largest number below that divides them."""
    orders = [operator for operator in lowered.operators if is_order(operator)]
    count = wanted
    for operator in orders:
        count = gcd(count, operator.p0 // parts)
    if count == 1 or not orders:
        return WHOLE_BATCH
    found = _find(graph, SampleFlow(graph, lowered, parts * count))
    return replace(found, count=count)


def _find(graph: Graph, flow: SampleFlow) -> NodePieces:
    aligned: set[Value] = set()
    split: set[Value] = set()

    def meta_of(value: Input) -> TensorMeta:
        return piece_meta(graph.meta(value), flow.count) if value in aligned else graph.meta(value)

    for number, node in enumerate(graph.nodes):
        mine = [
            Value(number, output)
            for output, meta in enumerate(node.outputs)
            if meta is not None and _is_aligned(flow, Value(number, output), meta)
        ]
        aligned.update(mine)
        able = [value for value in mine if flow.is_computed_by_sample(value)]
        if not able or node.call.startswith("assay."):
            continue
        piece = piece_node(node, flow.count)
        wanted = {value.output: meta for value in able if (meta := piece.outputs[value.output]) is not None}
        if gives_shapes(piece, meta_of, wanted):
            split.update(able)
    return NodePieces(flow.count, frozenset(aligned), frozenset(split))


def _is_aligned(flow: SampleFlow, value: Value, meta: TensorMeta) -> bool:
    """Whether pieces of the row-major elements hold other samples: along the first dimension that has any."""
    view = flow.view(value)
    return view is not None and bool(meta.shape) and flow.lies_along(view, leading(view.shape))
