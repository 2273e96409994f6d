"""A step's graph with nothing left that reads all parameters or counts all samples at once.

Members own parameters, so an update of a list of them becomes one update each, and clipping to a global norm becomes a
norm of every gradient, one factor, and a product each. The gradient of a mean becomes that of a sum over the mean's
count: a kernel that counts what it is given would be wrong about a part of the batch. What a choice by the step takes
in the first steps becomes a value of its own, which can be sent in those steps only. And of a tensor that holds the
same number everywhere (`uniform`) one element is read, which fits any part of a batch. The values are those of the
graph as it was recorded.
"""

from __future__ import annotations

from collections.abc import Sequence

from assay.group.execution.native.terms import GraphReader
from assay.group.execution.native.uniform import FILLED, UniformTensors
from assay.program.errors import GraphError
from assay.program.graph import Argument, Graph, Input, Node, TensorMeta, TypeName, Value, with_inputs

UPDATES = {"assay.sgd": (0, 1, 2), "assay.adamw": (0, 1, 2, 3)}
"""Calls that update parameters in place, and which of their arguments are lists with an entry a parameter."""

_SCALAR = TensorMeta("float32", ())
_MEAN_GRADIENT = "aten.mse_loss_backward.default"
_AVERAGED, _SUMMED = 1, 2  # PyTorch's numbers of reductions
_CLIP_EPSILON = 1e-6  # torch.nn.utils.clip_grad_norm_'s


def expand(graph: Graph) -> Graph:
    """The same step with one update node a parameter and clipping in ATen calls. Raises `GraphError` for malformed
    updates."""
    maker, reader = _Expansion(graph), GraphReader(graph)
    for number, node in enumerate(graph.nodes):
        if node.call == "assay.clip":
            maker.clip(number, node)
        elif node.call in UPDATES:
            maker.update(number, node)
        elif node.call == _MEAN_GRADIENT and node.arguments[3] == _AVERAGED:
            maker.mean_gradient(number, node)
        elif node.call in FILLED and (filled := maker.filled(node)) is not None:
            maker.moved[Value(number)] = filled
        elif reader.choice(Value(number)) is not None:
            maker.choose(number, node)
        else:
            maker.copy(number, node)
    return maker.graph()


class _Expansion:
    def __init__(self, graph: Graph) -> None:
        self.old = graph
        self.nodes: list[Node] = []
        self.moved: dict[Value, Value] = {}
        self.uniform = UniformTensors(graph)
        self._elements: dict[Value, Value] = {}

    def graph(self) -> Graph:
        """The finished graph."""
        old = self.old
        following = tuple(self._input(value) for value in old.next_state)
        loss = self.moved[old.loss]
        return Graph(old.state, old.data, old.constants, tuple(self.nodes), following, loss)

    def copy(self, number: int, node: Node) -> None:
        """A node as it is, reading what has moved."""
        elements: dict[Input, Input] = {v: self._element(v) for v in self.uniform.read_by_element(node)}
        moved = with_inputs(node, lambda value: elements.get(value) or self._input(value))
        place = len(self.nodes)
        self.nodes.append(moved)
        for output in range(len(node.outputs)):
            self.moved[Value(number, output)] = Value(place, output)

    def _element(self, value: Value) -> Value:
        """One element of a uniform tensor."""
        if value not in self._elements:
            part, shape = self.moved[value], list(self.old.meta(value).shape)
            for place, extent in enumerate(shape):
                if extent > 1:
                    shape[place] = 1
                    meta = TensorMeta(self.old.meta(value).type, tuple(shape))
                    part = self._add("aten.slice.Tensor", (part, place, 0, 1), meta)
            self._elements[value] = part
        return self._elements[value]

    def filled(self, node: Node) -> Value | None:
        """A tensor of one number that takes nothing but its shape or type from another; None for other types."""
        meta = node.outputs[0]
        if meta is None or meta.type != "float32":
            return None
        value = FILLED[node.call]
        number = value if isinstance(value, float) else node.arguments[value]
        if isinstance(number, bool) or not isinstance(number, int | float):
            return None
        return self._add("aten.full.default", (meta.shape, float(number)), meta, (("dtype", TypeName("float32")),))

    def choose(self, number: int, node: Node) -> None:
        """A choice whose first value is there once more, for the choice alone."""
        first = node.arguments[1]
        assert isinstance(first, Value)
        before = self.moved[first]
        self.moved[first] = self._add("aten.detach.default", (before,), self.old.meta(first))
        self.copy(number, node)
        self.moved[first] = before

    def mean_gradient(self, number: int, node: Node) -> None:
        """The gradient of a mean squared error: 2 (x - y) g / N, as the recorded call computes it."""
        gradient, value, target = (self._argument(argument) for argument in node.arguments[:3])
        given, meta = node.arguments[0], node.outputs[0]
        if not isinstance(given, Value) or meta is None:
            raise GraphError(f"node {number} ({node.call}) takes the gradient of a mean, a value and a target")
        share = self._add("aten.div.Scalar", (gradient, float(meta.count)), self.old.meta(given))
        self.moved[Value(number)] = self._add(node.call, (share, value, target, _SUMMED), meta)

    def clip(self, number: int, node: Node) -> None:
        """Gradients times min(1, limit / (norm + 1e-6))."""
        limit, gradients = node.arguments[0], node.arguments[1]
        if not isinstance(limit, float) or not isinstance(gradients, tuple):
            raise GraphError(f"node {number} (assay.clip) takes a norm and a list of gradients")
        parts = [self._argument(gradient) for gradient in gradients]
        norms = [self._add("aten.linalg_vector_norm.default", (part,), _SCALAR) for part in parts]
        stacked = self._add("aten.stack.default", (tuple(norms),), TensorMeta("float32", (len(norms),)))
        total = self._add("aten.linalg_vector_norm.default", (stacked,), _SCALAR)
        raised = self._add("aten.add.Scalar", (total, _CLIP_EPSILON), _SCALAR)
        inverse = self._add("aten.reciprocal.default", (raised,), _SCALAR)
        scaled = self._add("aten.mul.Scalar", (inverse, limit), _SCALAR)
        factor = self._add("aten.clamp_max.default", (scaled, 1.0), _SCALAR)
        for output, (part, meta) in enumerate(zip(parts, node.outputs, strict=True)):
            if meta is None:
                raise GraphError(f"node {number} (assay.clip) leaves output {output} empty")
            self.moved[Value(number, output)] = self._add("aten.mul.Tensor", (part, factor), meta)

    def update(self, number: int, node: Node) -> None:
        """One node for every parameter of the lists."""
        lists = UPDATES[node.call]
        columns = [self._list(number, node, place) for place in lists]
        count = len(columns[0])
        kept = [place for place, column in zip(lists, columns, strict=True) if column]
        written = [place for place in kept if place != 1]  # all but the gradients are changed
        if any(len(column) not in (0, count) for column in columns) or len(node.outputs) != count * len(written):
            raise GraphError(f"node {number} ({node.call}) has lists of different lengths")
        for member in range(count):
            arguments: list[Argument] = []
            for place, argument in enumerate(node.arguments):
                if place in lists:
                    column = columns[lists.index(place)]
                    arguments.append((self._argument(column[member]),) if column else ())
                else:
                    arguments.append(self._argument(argument))
            outputs = tuple(node.outputs[group * count + member] for group in range(len(written)))
            place = len(self.nodes)
            self.nodes.append(Node(node.call, tuple(arguments), node.keywords, outputs, node.where))
            for group in range(len(written)):
                self.moved[Value(number, group * count + member)] = Value(place, group)

    def _list(self, number: int, node: Node, place: int) -> Sequence[Argument]:
        argument = node.arguments[place] if place < len(node.arguments) else None
        if not isinstance(argument, tuple):
            raise GraphError(f"node {number} ({node.call}) takes a list as argument {place}")
        return argument

    def _add(
        self, call: str, arguments: tuple[Argument, ...], meta: TensorMeta,
        keywords: tuple[tuple[str, Argument], ...] = (),
    ) -> Value:  # fmt: skip
        self.nodes.append(Node(call, arguments, keywords, (meta,)))
        return Value(len(self.nodes) - 1)

    def _argument(self, argument: Argument) -> Argument:
        if isinstance(argument, Value):
            return self.moved[argument]
        if isinstance(argument, tuple):
            return tuple(self._argument(part) for part in argument)
        return argument

    def _input(self, value: Input) -> Input:
        return self.moved[value] if isinstance(value, Value) else value
