"""Tensors that hold the same number everywhere, such as the gradient of a mean as autograd writes it.

Of such a tensor one element is enough for a call that works element by element. Read so, it fits any part of a batch.
"""

from __future__ import annotations

import torch

from assay.engine.native.compiler import resolve
from assay.group.execution.native.samples import gives_shapes
from assay.program.errors import GraphError
from assay.program.graph import Graph, Input, Node, TensorMeta, Value, inputs_of

_SOURCES = frozenset(
    f"aten.{name}.default"
    for name in ("ones", "zeros", "full", "ones_like", "zeros_like", "full_like", "new_ones", "new_zeros", "new_full")
) | {"aten.scalar_tensor.default", "aten.fill.Scalar"}
_SHAPERS = frozenset(
    f"aten.{name}"
    for name in (
        "expand.default",
        "view.default",
        "_unsafe_view.default",
        "reshape.default",
        "clone.default",
        "detach.default",
        "unsqueeze.default",
        "squeeze.dim",
        "squeeze.dims",
        "transpose.int",
        "permute.default",
        "t.default",
    )
)


class UniformTensors:
    """The values of a graph that are uniform whatever the data and the state are."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values: set[Value] = set()
        for number, node in enumerate(graph.nodes):
            if node.call in _SOURCES or (
                (node.call in _SHAPERS or _is_pointwise(node.call))
                and inputs_of(node)
                and all(value in self.values for value in inputs_of(node))
            ):
                self.values.update(Value(number, output) for output in range(len(node.outputs)))

    def read_by_element(self, node: Node) -> set[Value]:
        """The uniform operands of which a node needs one element only; its other operands give the result its shape."""
        if not _is_pointwise(node.call):
            return set()
        read = inputs_of(node)
        found = {value for value in read if isinstance(value, Value) and self._is_wide(value)}
        if not found or all(value in self.values for value in read):
            return set()

        def meta_of(value: Input) -> TensorMeta:
            meta = self.graph.meta(value)
            return element_meta(meta) if value in found else meta

        wanted = {output: meta for output, meta in enumerate(node.outputs) if meta is not None}
        return found if gives_shapes(node, meta_of, wanted) else set()

    def _is_wide(self, value: Value) -> bool:
        return value in self.values and self.graph.meta(value).count > 1


def element_meta(meta: TensorMeta) -> TensorMeta:
    """Type and shape of one element of a tensor, with all its dimensions."""
    return TensorMeta(meta.type, (1,) * len(meta.shape))


def _is_pointwise(call: str) -> bool:
    try:
        return torch.Tag.pointwise in resolve(call).tags  # type: ignore[attr-defined]
    except GraphError:
        return False
