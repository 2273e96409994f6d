"""Compressed gradients between the replicas of a shared step, with error feedback, as calls of the step itself.

Where a shared step adds up the replicas' parts of a gradient, it adds what everybody makes of the replicas' messages
instead, in the same order. For each parameter and replica (Seide et al. 2014, Karimireddy et al. 2019):

    wanted = part of the gradient + error        error: a state tensor of its own, 0 at first
    sent   = quantised(wanted, bits)             codes and scales, see `assay.program.quantised`
    error' = wanted - sent

Nothing is lost, only late. What is exchanged is found by following an update's gradient back: through clipping and
whatever else is computed once, to the largest values that the replicas' sums make up by views and additions alone (so
tied weights are sent once). Clipping and updates read the totals, as they read the uncompressed ones.

Values of fewer than `LEAST_ELEMENTS` (biases, norms) travel in full: a message of a few KiB is all delay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from assay.group.execution.native.expand import UPDATES
from assay.group.execution.native.shards import SharedBatch
from assay.program.graph import (
    Graph,
    Input,
    Node,
    StateInput,
    TensorMeta,
    Value,
    inputs_of,
    with_inputs,
)
from assay.program.operator import ElementType, TensorDescriptor
from assay.program.optimizer import GRADIENT_ERROR
from assay.program.quantised import quantised
from assay.program.record import Recorder

LEAST_ELEMENTS = 1024

_LINEAR_VIEWS = frozenset(
    f"aten.{name}"
    for name in (
        "view.default",
        "_unsafe_view.default",
        "reshape.default",
        "t.default",
        "transpose.int",
        "permute.default",
        "squeeze.dim",
        "squeeze.dims",
        "squeeze.default",
        "unsqueeze.default",
        "clone.default",
        "detach.default",
    )
)
"""Calls of one tensor of which the replicas' parts can be taken as well as of the total."""


def compress_gradients(shared: SharedBatch, bits: int) -> SharedBatch:
    """The step whose replicas exchange their gradients in `bits` bits. Its error tensors come after all other state.

    A pure function: whoever has the step and the number of replicas makes the same.
    """
    return _Compression(shared, bits).compress()


class _Compression:
    def __init__(self, shared: SharedBatch, bits: int) -> None:
        self.old, self.bits = shared, bits
        self.state = list(shared.graph.state)
        self.next_errors: list[Value] = []
        self.nodes: list[Node] = []
        self.replica: list[int | None] = []
        self.source: list[int] = []
        self.moved: dict[Value, Value] = {}
        self.errors: dict[int, tuple[int, Value]] = {}
        self.sent: set[Value] = set()
        self.exchanged: dict[int, Value] = {}
        self.adding_up = self._find_adding_up()

    def compress(self) -> SharedBatch:
        old, graph = self.old, self.old.graph
        names = self._exchanged_values()
        for number, node in enumerate(graph.nodes):
            made = self._add(with_inputs(node, self._moved), old.replica[number], old.source[number])
            for output in range(len(node.outputs)):
                value = Value(number, output)
                self.moved[value] = Value(made.node, output)
                if value in names:
                    self.moved[value] = self._exchange(value, names[value])
        following = (*(self._moved(value) for value in graph.next_state), *self.next_errors)
        loss = self._moved(graph.loss)
        assert isinstance(loss, Value)
        made_graph = Graph(tuple(self.state), graph.data, graph.constants, tuple(self.nodes), following, loss)
        parts = {self.moved[value]: original for value, original in old.parts.items()}
        cut = frozenset(self.moved[value] for value in old.cut)
        whole = SharedBatch(
            made_graph, old.count, tuple(self.replica), tuple(self.source), parts, cut, {}, self.errors,
            frozenset(self.sent), self.exchanged,
        )  # fmt: skip
        return _without_unread(whole)

    # --- what is exchanged ---

    def _exchanged_values(self) -> dict[Value, str]:
        """The values whose parts travel compressed, with the names of their errors."""
        graph = self.old.graph
        found: dict[Value, str] = {}
        seen: set[Value] = set()
        level = list(self._gradients())
        # Level by level: through the norm of all gradients every parameter leads to those of all others.
        while level:
            following: list[tuple[Value, str]] = []
            for value, name in level:
                if value in seen:
                    continue
                seen.add(value)
                if value in self.adding_up:
                    found[value] = name
                elif self.old.replica[value.node] is None:
                    read = inputs_of(graph.nodes[value.node])
                    following += [(other, name) for other in read if isinstance(other, Value)]
            level = following
        return _distinct({v: name for v, name in found.items() if graph.meta(v).count >= LEAST_ELEMENTS})

    def _gradients(self) -> list[tuple[Value, str]]:
        """The gradient that each update reads, and the name of its parameter."""
        graph, found = self.old.graph, []
        for node in graph.nodes:
            if node.call in UPDATES:
                (parameter,), (gradient,) = _list(node, 0), _list(node, 1)
                if isinstance(parameter, StateInput) and isinstance(gradient, Value):
                    found.append((gradient, graph.state[parameter.index].name))
        return found

    def _find_adding_up(self) -> set[Value]:
        """The values that are the sum of what they would be of each replica's part."""
        graph, found = self.old.graph, set(self.old.sums)
        for number, node in enumerate(graph.nodes):
            meta, read = node.outputs[0] if node.outputs else None, inputs_of(node)
            if meta is None or meta.type != "float32" or self.old.replica[number] is not None:
                continue
            is_linear = (node.call in _LINEAR_VIEWS and len(read) == 1) or (
                node.call == "aten.add.Tensor" and len(read) == 2 and not node.keywords
            )
            if is_linear and all(other in found and graph.meta(other).count == meta.count for other in read):
                found.add(Value(number))
        return found

    # --- the exchange ---

    def _exchange(self, value: Value, name: str) -> Value:
        """What the replicas' messages about a value add up to."""
        meta, origin = self.old.graph.meta(value), self._origin(value)
        totals: list[Value] = []
        for replica in range(self.old.count):
            first = len(self.nodes)
            part = self._part(value, replica, {})
            error = StateInput(len(self.state))
            self.state.append(TensorDescriptor(f"{GRADIENT_ERROR}{replica}.{name}", ElementType.FLOAT, meta.shape))
            wanted = self._add(Node("aten.add.Tensor", (part, error), (), (meta,)), replica, origin.node)
            sent = self._quantise(wanted, meta, replica, origin)
            left = self._add(Node("aten.sub.Tensor", (wanted, sent), (), (meta,)), replica, origin.node)
            self.errors[error.index] = (replica, origin)
            self.next_errors.append(left)
            self.exchanged.update((number, origin) for number in range(first, len(self.nodes)))
            self.sent.add(sent)
            totals.append(sent)
        total = totals[0]
        for sent in totals[1:]:
            total = self._add(Node("aten.add.Tensor", (total, sent), (), (meta,)), None, origin.node)
            self.exchanged[total.node] = origin
        return total

    def _origin(self, value: Value) -> Value:
        """The original of a value that is there once."""
        sums = self.old.sums.get(value)
        return self.old.origin(value if sums is None else sums[0])

    def _part(self, value: Value, replica: int, known: dict[Value, Value]) -> Value:
        """A replica's part of a value that adds up."""
        if value in self.old.sums:
            part = self._moved(self.old.sums[value][replica])
            assert isinstance(part, Value)
            return part
        if value not in known:
            node = self.old.graph.nodes[value.node]

            def read(other: Input) -> Value:
                assert isinstance(other, Value)
                return self._part(other, replica, known)

            known[value] = self._add(with_inputs(node, read), replica, self.old.source[value.node])
        return known[value]

    def _quantise(self, wanted: Value, meta: TensorMeta, replica: int, origin: Value) -> Value:
        """The calls that make of what is wanted what arrives."""
        recorded, result = _quantiser(meta.shape, self.bits)
        first = len(self.nodes)

        def moved(value: Input) -> Value:
            assert isinstance(value, Value)
            return wanted if value.node == 0 else Value(first + value.node - 1, value.output)

        for node in recorded[1:]:
            self._add(with_inputs(node, moved), replica, origin.node)
        return moved(result)

    # --- the new graph ---

    def _moved(self, value: Input) -> Input:
        return self.moved[value] if isinstance(value, Value) else value

    def _add(self, node: Node, replica: int | None, source: int) -> Value:
        self.nodes.append(node)
        self.replica.append(replica)
        self.source.append(source)
        return Value(len(self.nodes) - 1)


@cache
def _quantiser(shape: tuple[int, ...], bits: int) -> tuple[tuple[Node, ...], Value]:
    """The calls of `quantised` for a tensor of this shape, as one row; node 0 stands for the tensor."""

    def send(tensor: Tensor) -> Tensor:
        return quantised(tensor.reshape(1, -1), bits).reshape(shape)

    recorder, meta = Recorder(), TensorMeta("float32", shape)
    (given,) = recorder.add("given", (), (meta,))
    with torch.no_grad():
        (result,) = recorder.inline(send, [given], [meta])
    assert isinstance(result, Value)
    # A number that PyTorch keeps as a tensor of its own is written as one.
    assert not recorder.constants
    return tuple(replace(node, where="") for node in recorder.nodes), result


def _distinct(names: Mapping[Value, str]) -> dict[Value, str]:
    """Where a parameter's gradient is exchanged in several parts, all but the first get numbers."""
    count: dict[str, int] = {}
    found: dict[Value, str] = {}
    for value, name in sorted(names.items(), key=lambda item: (item[0].node, item[0].output)):
        count[name] = count.get(name, 0) + 1
        found[value] = name if count[name] == 1 else f"{name}.{count[name]}"
    return found


def _list(node: Node, place: int) -> Sequence[object]:
    argument = node.arguments[place]
    assert isinstance(argument, tuple)
    return argument


def _without_unread(shared: SharedBatch) -> SharedBatch:
    """The same without nodes that nothing reads: the totals in full, for one."""
    graph = shared.graph
    needed = {value.node for value in (*graph.next_state, graph.loss) if isinstance(value, Value)}
    for number in range(len(graph.nodes) - 1, -1, -1):
        if number in needed:
            needed.update(value.node for value in inputs_of(graph.nodes[number]) if isinstance(value, Value))
    kept = sorted(needed)
    places = {number: place for place, number in enumerate(kept)}

    def moved(value: Input) -> Input:
        return Value(places[value.node], value.output) if isinstance(value, Value) else value

    def moved_value(value: Value) -> Value:
        return Value(places[value.node], value.output)

    nodes = tuple(with_inputs(graph.nodes[number], moved) for number in kept)
    following = tuple(moved(value) for value in graph.next_state)
    return replace(
        shared,
        graph=replace(graph, nodes=nodes, next_state=following, loss=moved_value(graph.loss)),
        replica=tuple(shared.replica[number] for number in kept),
        source=tuple(shared.source[number] for number in kept),
        parts={moved_value(value): original for value, original in shared.parts.items() if value.node in places},
        cut=frozenset(moved_value(value) for value in shared.cut if value.node in places),
        sent=frozenset(moved_value(value) for value in shared.sent),
        exchanged={places[number]: origin for number, origin in shared.exchanged.items() if number in places},
    )
