"""Tensors that hold the same number everywhere, such as the gradient of a mean as autograd writes it.

Of such a tensor one element is enough for a call that works element by element. Read so, it fits any part of a batch.
"""

from __future__ import annotations

import torch

from assay.engine.native.compiler import resolve
from assay.group.execution.native.samples import gives_shapes
from assay.program.errors import GraphError
from assay.program.graph import Graph, Input, Node, TensorMeta, Value, inputs_of

FILLED: dict[str, float | int] = {
    "aten.zeros_like.default": 0.0,
    "aten.ones_like.default": 1.0,
    "aten.full_like.default": 1,
    "aten.new_zeros.default": 0.0,
    "aten.new_ones.default": 1.0,
    "aten.new_full.default": 2,
}
"""Calls that fill a tensor, with what: a number, or the place of the argument that says it."""

_SOURCES = frozenset({"aten.ones.default", "aten.zeros.default", "aten.full.default", "aten.scalar_tensor.default"})
_SOURCES |= frozenset(FILLED)
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
                (node.call in _SHAPERS or is_pointwise(node.call))
                and inputs_of(node)
                and all(value in self.values for value in inputs_of(node))
            ):
                self.values.update(Value(number, output) for output in range(len(node.outputs)))

    def read_by_element(self, node: Node) -> set[Value]:
        """The uniform operands of which a node needs one element only; its other operands give the result its shape."""
        if not is_pointwise(node.call):
            return set()
        read = inputs_of(node)
        found = {value for value in read if isinstance(value, Value) and self._is_wide(value)}
        if not found or all(value in self.values for value in read):
            return set()

        def meta_of(value: Input) -> TensorMeta:
            meta = self.graph.meta(value)
            return _element_meta(meta) if value in found else meta

        wanted = {output: meta for output, meta in enumerate(node.outputs) if meta is not None}
        return found if gives_shapes(node, meta_of, wanted) else set()

    def _is_wide(self, value: Value) -> bool:
        return value in self.values and self.graph.meta(value).count > 1


def _element_meta(meta: TensorMeta) -> TensorMeta:
    """Type and shape of one element of a tensor, with all its dimensions."""
    return TensorMeta(meta.type, (1,) * len(meta.shape))


def is_pointwise(call: str) -> bool:
    """Whether a call works element by element on tensors of one shape, or broadcast to one."""
    try:
        return torch.Tag.pointwise in resolve(call).tags  # type: ignore[attr-defined]
    except GraphError:
        return False
