"""A step whose batch is shared among replicas: the same graph with a copy of every layer for each part of the batch.

Data parallelism as a rewriting of the graph. What is computed by sample becomes `count` nodes, one a replica; what sums
over the batch (the gradients of weights) becomes a sum a replica, and the sums are added in the order of the replicas,
so that every run adds alike. Whatever else a step does (clipping, updates) is there once. The rewritten graph is an
ordinary graph: who computes which node, and what crosses, is for the partition to say.

A step in which something has to see all samples at once (batch norm, say) is not shared: activations would have to be
gathered for it, which costs more than a replica saves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice, product

from assay.group.execution.native.samples import SampleFlow, gives_shapes, part_arguments, part_meta
from assay.group.execution.native.uniform import is_pointwise
from assay.program.graph import (
    Argument,
    Graph,
    Input,
    Node,
    StateInput,
    TensorMeta,
    TypeName,
    Value,
    inputs_of,
    with_inputs,
)
from assay.program.lowering import LoweredNodes

_SUM = -1
"""In place of a dimension: the output is a sum over the samples."""

_MEANS: Mapping[str, int | None] = {
    "aten.mse_loss.default": 2,
    "aten.binary_cross_entropy_with_logits.default": 4,
    "aten.mean.default": None,
    "aten.mean.dim": None,
}
"""Calls that average over the samples, and the place of an argument that may ask for a sum instead."""

_LIKELIHOODS = frozenset({"aten.nll_loss_forward.default", "aten.nll_loss2d_forward.default"})
_REDUCTION, _IGNORED = 3, 4  # their arguments
_AVERAGED, _SUMMED = 1, 2  # values of the former
_MOST_TRIALS = 64
_SCALAR = TensorMeta("float32", ())


@dataclass(frozen=True)
class SharedBatch:
    """`graph` computes the step with its batch in `count` parts. For each of its nodes, `replica` tells whose part it
    computes (None: nobody's alone) and `source` the node of the original graph that it was made from. `parts` are the
    outputs that hold a part of an original one; those in `cut` were cut from it, all others computed. `sums` are the
    replicas' sums that make up a total, in their order.

    Where the replicas exchange compressed gradients (`gradients`), `errors` tells whose part each error tensor belongs
    to and what it is the error of, `sent` what everybody makes of a message, and `exchanged` the original value that a
    node of an exchange is about."""

    graph: Graph
    count: int
    replica: tuple[int | None, ...]
    source: tuple[int, ...]
    parts: Mapping[Value, Value]
    cut: frozenset[Value]
    sums: Mapping[Value, tuple[Value, ...]]
    errors: Mapping[int, tuple[int, Value]] = field(default_factory=dict)
    sent: frozenset[Value] = frozenset()
    exchanged: Mapping[int, Value] = field(default_factory=dict)

    def origin(self, value: Value) -> Value:
        """The value of the original graph that one of this graph stands for, or was made for."""
        return self.exchanged.get(value.node) or Value(self.source[value.node], value.output)


class NotSharedError(Exception):
    """The batch of a step cannot be shared; the message says why."""


def share_batch(graph: Graph, lowered: LoweredNodes, count: int) -> SharedBatch:
    """The step with its batch shared by `count` replicas. Updates must be one a parameter (`expand`). Raises
    NotSharedError."""
    drawn = [node.outputs[0] for node in graph.nodes if node.call == "assay.permute"]
    for meta in drawn:
        if meta is None or meta.count % count:
            raise NotSharedError(f"{count} replicas cannot have equal parts of a batch of {meta.count if meta else 0}")
    if not drawn:
        raise NotSharedError("no batch is drawn from the data")
    return _Sharing(graph, lowered, count).share()


class _Sharing:
    def __init__(self, graph: Graph, lowered: LoweredNodes, count: int) -> None:
        self.old, self.count = graph, count
        self.flow = SampleFlow(graph, lowered, count)
        self.live, self.used = _live(graph)
        self.from_data = _from_data(graph)
        self.nodes: list[Node] = []
        self.replica: list[int | None] = []
        self.source: list[int] = []
        self.whole: dict[Value, Value] = {}
        self.parts: dict[tuple[Value, int], Value] = {}
        self.cut: set[Value] = set()
        self.sums: dict[Value, tuple[Value, ...]] = {}
        self._reader = 0

    def share(self) -> SharedBatch:
        """Rewrite the graph. Raises NotSharedError where that would gather activations."""
        for number in self.live:
            self._reader = number
            if not (self._likelihood(number) or self._mean(number) or self._divide(number)):
                self._keep(number)
        old = self.old
        following = tuple(self._whole(value) if isinstance(value, Value) else value for value in old.next_state)
        graph = Graph(old.state, old.data, old.constants, tuple(self.nodes), following, self._whole(old.loss))
        parts = {made: value for (value, _), made in self.parts.items()}
        return SharedBatch(
            graph, self.count, tuple(self.replica), tuple(self.source), parts, frozenset(self.cut), self.sums
        )

    # --- kinds of nodes ---

    def _keep(self, number: int) -> None:
        """A node that is there once, and reads everything whole."""
        node = with_inputs(
            self.old.nodes[number], lambda value: self._whole(value) if isinstance(value, Value) else value
        )
        place = self._add(node, number)
        for output in range(len(node.outputs)):
            self.whole[Value(number, output)] = Value(place.node, output)

    def _divide(self, number: int) -> bool:
        """A node that is computed by sample, or whose outputs add up: one for each replica."""
        node = self.old.nodes[number]
        places = self._places(number)
        if places is None or not self._reads_parts(node):
            return False
        first = min(places)
        outputs = tuple(
            None if meta is None else self._part_meta(meta, places.get(output, _SUM))
            for output, meta in enumerate(node.outputs)
        )
        arguments = node.arguments
        if places[first] != _SUM:
            arguments = part_arguments(node, self.count, lambda shape: places[first])
        part = replace(node, arguments=arguments, outputs=outputs)
        cuts: dict[Value, int] | None = {}
        if node.call != "assay.gather":
            cuts = None if node.call.startswith("assay.") else self._cuts(part, places)
        if cuts is None:
            return False
        self._copy(number, part, places, cuts)
        return True

    def _cuts(self, part: Node, places: Mapping[int, int]) -> dict[Value, int] | None:
        """Which operands that depend on no sample have to be cut for a part's shapes to fit, and along which dimension:
        none of them, usually. None where the shapes do not fit at all."""
        wanted = {output: meta for output in places if (meta := part.outputs[output]) is not None}
        whole = [v for v in dict.fromkeys(inputs_of(part)) if isinstance(v, Value) and self.flow.place(v) is None]
        options = [[None, *self._ways_to_cut(part, value, places)] for value in whole]
        for chosen in islice(product(*options), _MOST_TRIALS):
            cuts = {value: place for value, place in zip(whole, chosen, strict=True) if place is not None}
            if gives_shapes(part, lambda value, cuts=cuts: self._meta_of_part(value, cuts), wanted):  # type: ignore[misc]
                return cuts
        return None

    def _ways_to_cut(self, part: Node, value: Value, places: Mapping[int, int]) -> list[int]:
        """Dimensions along which any part of a value will do (it repeats), or the replica's own will, because the call
        works element by element."""
        meta = self.old.meta(value)
        found = [place for place in self.flow.repeats(value) if meta.shape[place] % self.count == 0]
        output = part.outputs[0]
        if is_pointwise(part.call) and output is not None and places.get(0, _SUM) != _SUM:
            place = places[0] - (len(output.shape) - len(meta.shape))
            if place >= 0 and place not in found and meta.shape[place] == output.shape[places[0]] * self.count:
                found.append(place)
        return found

    def _mean(self, number: int) -> bool:
        """A mean over the samples: that of the replicas' means, which count alike."""
        node = self.old.nodes[number]
        if node.call not in _MEANS or not self._reads_parts(node) or len(node.outputs) != 1:
            return False
        place = _MEANS[node.call]
        if place is not None and len(node.arguments) > place and node.arguments[place] != _AVERAGED:
            return False
        if node.call == "aten.mean.dim" and not self._averages_samples(node):
            return False
        read = [value for value in inputs_of(node) if self.old.meta(value).count > 1]
        if any(not isinstance(value, Value) or self.flow.place(value) is None for value in read):
            return False
        value, meta = Value(number), self.old.meta(Value(number))
        self._copy(number, node, {0: _SUM})
        self.whole[value] = self._add(
            Node("aten.div.Scalar", (self.whole[value], float(self.count)), (), (meta,)), number
        )
        return True

    def _likelihood(self, number: int) -> bool:
        """A negative log-likelihood: the replicas' sums, over the number of targets, which the data alone tell."""
        node = self.old.nodes[number]
        if node.call not in _LIKELIHOODS or node.arguments[_REDUCTION] not in (_AVERAGED, _SUMMED):
            return False
        target = node.arguments[1]
        if not self._reads_parts(node) or not isinstance(target, Value):
            return False
        reduction = node.arguments[_REDUCTION]
        arguments = (*node.arguments[:_REDUCTION], _SUMMED, *node.arguments[_REDUCTION + 1 :])
        self._copy(number, replace(node, arguments=arguments), {0: _SUM})
        meta = TensorMeta("bool", self.old.meta(target).shape)
        kept = self._add(Node("aten.ne.Scalar", (self._whole(target), node.arguments[_IGNORED]), (), (meta,)), number)
        found = self._add(Node("aten.sum.default", (kept,), (), (TensorMeta("int64", ()),)), number)
        dtype = (("dtype", TypeName("float32")),)
        counted = self._add(Node("aten._to_copy.default", (found,), dtype, (_SCALAR,)), number)
        self.whole[Value(number, 1)] = counted
        if reduction == _AVERAGED:
            total = self.whole[Value(number)]
            self.whole[Value(number)] = self._add(Node("aten.div.Tensor", (total, counted), (), (_SCALAR,)), number)
        return True

    # --- what they read ---

    def _places(self, number: int) -> dict[int, int] | None:
        """For each output that is used, the dimension along which its parts lie or _SUM; None where one has neither."""
        found: dict[int, int] = {}
        for output in range(len(self.old.nodes[number].outputs)):
            value = Value(number, output)
            if value not in self.used:
                continue
            place = self.flow.place(value)
            if place is not None and self.flow.is_computed_by_sample(value):
                found[output] = place
            elif self.flow.is_sum(value):
                found[output] = _SUM
            else:
                return None
        return found

    def _reads_parts(self, node: Node) -> bool:
        return any(isinstance(value, Value) and self.flow.place(value) is not None for value in inputs_of(node))

    def _averages_samples(self, node: Node) -> bool:
        """Whether the dimensions of a mean are those along which the samples lie, among others."""
        value, dimensions = node.arguments[0], node.arguments[1]
        if not isinstance(value, Value) or not isinstance(dimensions, tuple):
            return False
        rank = len(self.old.meta(value).shape)
        return self.flow.place(value) in [each % rank for each in dimensions if isinstance(each, int)]

    def _part_meta(self, meta: TensorMeta, place: int) -> TensorMeta:
        return meta if place == _SUM else part_meta(meta, self.count, place)

    def _meta_of_part(self, value: Input, cuts: Mapping[Value, int]) -> TensorMeta:
        place = cuts.get(value, self.flow.place(value)) if isinstance(value, Value) else None
        return self._part_meta(self.old.meta(value), _SUM if place is None else place)

    # --- the new graph ---

    def _copy(
        self, number: int, part: Node, places: Mapping[int, int], cuts: Mapping[Value, int] | None = None
    ) -> None:
        """A node for each replica; outputs that are sums are added up."""
        sums: dict[int, list[Value]] = {output: [] for output, place in places.items() if place == _SUM}
        for replica in range(self.count):
            read = partial(self._part, replica=replica, cuts=cuts or {})
            made = self._add(with_inputs(part, read), number, replica)
            for output in places:
                if output in sums:
                    sums[output].append(Value(made.node, output))
                else:
                    self.parts[Value(number, output), replica] = Value(made.node, output)
        for output, (total, *others) in sums.items():
            for other in others:
                meta = self.old.meta(Value(number, output))
                total = self._add(Node("aten.add.Tensor", (total, other), (), (meta,)), number)
            self.whole[Value(number, output)] = total
            self.sums[total] = tuple(sums[output])

    def _part(self, value: Input, replica: int, cuts: Mapping[Value, int]) -> Argument:
        """What a replica reads for a value: its part where that has parts."""
        if not isinstance(value, Value):
            return value
        if value in cuts:
            return self._cut(value, cuts[value], replica)
        if (value, replica) not in self.parts:
            place = self.flow.place(value)
            if place is None:
                return self._whole(value)
            self.parts[value, replica] = self._cut(value, place, replica)
            self.cut.add(self.parts[value, replica])
        return self.parts[value, replica]

    def _cut(self, value: Value, place: int, replica: int) -> Value:
        meta = part_meta(self.old.meta(value), self.count, place)
        first, size = replica * meta.shape[place], meta.shape[place]
        node = Node("aten.slice.Tensor", (self._whole(value), place, first, first + size), (), (meta,))
        return self._add(node, value.node, replica)

    def _whole(self, value: Value) -> Value:
        """A value in one. What follows from the data alone is computed again; anything else would be gathered."""
        if value not in self.whole:
            if value.node not in self.from_data:
                raise NotSharedError(f"{self.old.nodes[self._reader].call} needs all samples at once")
            self._keep(value.node)
        return self.whole[value]

    def _add(self, node: Node, source: int, replica: int | None = None) -> Value:
        self.nodes.append(node)
        self.source.append(source)
        self.replica.append(replica)
        return Value(len(self.nodes) - 1)


def _live(graph: Graph) -> tuple[list[int], set[Value]]:
    """The nodes that the next state or the loss needs, in order, and their outputs that are read."""
    used = {value for value in (*graph.next_state, graph.loss) if isinstance(value, Value)}
    needed = {value.node for value in used}
    for number in range(len(graph.nodes) - 1, -1, -1):
        if number in needed:
            read = [value for value in inputs_of(graph.nodes[number]) if isinstance(value, Value)]
            used.update(read)
            needed.update(value.node for value in read)
    return sorted(needed), used


def _from_data(graph: Graph) -> set[int]:
    """The nodes that nothing of the state reaches."""
    found: set[int] = set()
    for number, node in enumerate(graph.nodes):
        read = inputs_of(node)
        if not any(
            isinstance(value, StateInput) or (isinstance(value, Value) and value.node not in found) for value in read
        ):
            found.add(number)
    return found
