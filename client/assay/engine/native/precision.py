"""Mixed precision of a recorded graph: which calls run in bfloat16, as `torch.autocast` would have had them run.

Autocast itself acts before autograd and cannot be applied to a recorded backward pass; so the types are worked out here
once, and each call casts what does not fit. Products run in bfloat16; calls that are safe in it keep it when all their
inputs have it; everything else (norms, softmax, losses, the optimizer) runs in float32.
"""

from __future__ import annotations

import torch

from assay.program.graph import Argument, Graph, Input, Node, Value, each_input


def _names(*names: str) -> frozenset[str]:
    return frozenset(f"aten.{name}" for name in names)


PRODUCTS = _names(
    "mm",
    "bmm",
    "addmm",
    "baddbmm",
    "mv",
    "convolution",
    "convolution_backward",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
)
"""Calls that multiply, without their overloads: what a lower precision is declared for."""
_KEEPERS = _names(
    "view",
    "_unsafe_view",
    "reshape",
    "clone",
    "t",
    "transpose",
    "permute",
    "expand",
    "unsqueeze",
    "squeeze",
    "slice",
    "select",
    "split",
    "unsafe_split",
    "split_with_sizes",
    "unsafe_split_with_sizes",
    "unbind",
    "cat",
    "stack",
    "slice_backward",
    "select_backward",
    "constant_pad_nd",
    "flip",
    "add",
    "sub",
    "mul",
    "neg",
    "relu",
    "threshold_backward",
    "gelu",
    "gelu_backward",
    "silu",
    "silu_backward",
    "sigmoid",
    "sigmoid_backward",
    "tanh",
    "tanh_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "max_pool2d_with_indices",
    "max_pool2d_with_indices_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "ones_like",
    "zeros_like",
)


_LOG_SUM_PLACE = 5  # of attention's backward pass: the log-sum-exp, always float32


class CastPlan:
    """For every node, the type its float tensor arguments have to be cast to, by place; nothing outside mixed
    precision."""

    def __init__(self, graph: Graph, mixed: bool) -> None:
        self._low: set[Value] = set()  # values in bfloat16
        self._casts: list[dict[int, torch.dtype]] = [{} for _ in graph.nodes]
        if not mixed:
            return
        for number, node in enumerate(graph.nodes):
            self._plan(graph, number, node)

    def of(self, number: int) -> dict[int, torch.dtype]:
        """Casts of node `number`: argument place to type."""
        return self._casts[number]

    def _plan(self, graph: Graph, number: int, node: Node) -> None:
        if node.call.startswith("assay."):
            return  # these take any float type
        name = node.call.rsplit(".", 1)[0]
        floats = {place: self._types(graph, argument) for place, argument in enumerate(node.arguments)}
        if name.endswith("_for_cpu_backward"):
            del floats[_LOG_SUM_PLACE]
        floats = {place: types for place, types in floats.items() if types}
        kinds = set().union(*floats.values()) if floats else set()
        low = name in PRODUCTS or (name in _KEEPERS and kinds == {torch.bfloat16})
        wanted = torch.bfloat16 if low else torch.float32
        self._casts[number] = {place: wanted for place, types in floats.items() if types != {wanted}}
        if low:
            count = 1 if name.endswith("_for_cpu") else len(node.outputs)  # the log-sum-exp stays in float32
            for output, meta in enumerate(node.outputs[:count]):
                if meta is not None and meta.type == "float32":
                    self._low.add(Value(number, output))

    def _types(self, graph: Graph, argument: Argument) -> set[torch.dtype]:
        """Float types among an argument's tensors."""
        types: set[torch.dtype] = set()

        def visit(value: Input) -> None:
            if graph.meta(value).type == "float32":
                types.add(torch.bfloat16 if isinstance(value, Value) and value in self._low else torch.float32)

        each_input(argument, visit)
        return types
