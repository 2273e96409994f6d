"""The end of a step: the updates of a stage's parameters in place, those with the same settings in one fused call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from assay.engine.native.compiler import EXTERNAL, Compiler
from assay.engine.native.memory import Memory
from assay.group.execution.native.expand import UPDATES
from assay.program.graph import Argument, Graph, Input, Node, StateInput, TensorMeta, Value, inputs_of, with_inputs

_Settings = tuple[str, tuple[tuple[str, Argument], ...], tuple[Argument, ...], tuple[bool, ...]]


class Update:
    """The update nodes `numbers` of an expanded graph, run together on a stage's memory."""

    def __init__(self, graph: Graph, memory: Memory, numbers: Sequence[int]) -> None:
        groups: dict[_Settings, list[int]] = {}
        for number in numbers:
            groups.setdefault(_settings_of(graph.nodes[number]), []).append(number)
        self.reads: list[Value] = []
        nodes: list[Node] = []
        for number in numbers:
            for value in inputs_of(graph.nodes[number]):
                self._read(value, graph, nodes)
        places = {value: Value(place) for place, value in enumerate(self.reads)}
        following: list[Input] = [StateInput(number) for number in range(len(graph.state))]
        for members in groups.values():
            nodes.append(_merged([graph.nodes[number] for number in members], places))
            for output, target in enumerate(_targets(nodes[-1])):
                following[target] = Value(len(nodes) - 1, output)
        part = Graph(graph.state, graph.data, graph.constants, tuple(nodes), tuple(following), Value(0))
        self._memory = memory.of_part(part)
        compiler = Compiler(part, self._memory)
        self._calls = compiler.compile_nodes()
        self._slots = [compiler.operands.slot(places[value]) for value in self.reads]

    def run(self, step: int, lookup: Callable[[Value], Tensor]) -> None:
        """Change the state; `lookup` gives gradients, rates and powers of beta."""
        self._memory.step = step
        environment = self._memory.environment
        for value, slot in zip(self.reads, self._slots, strict=True):
            environment[slot] = lookup(value)
        for call in self._calls:
            call(environment)
        for slot in self._slots:
            environment[slot] = None

    def _read(self, value: Input, graph: Graph, nodes: list[Node]) -> None:
        if isinstance(value, Value) and value not in self.reads:
            meta: TensorMeta = graph.meta(value)
            self.reads.append(value)
            nodes.append(Node(EXTERNAL, (), (), (meta,)))


def merged_updates(graph: Graph) -> Graph:
    """A graph with one update a parameter, in which those with the same settings are one call: the last of all."""
    updates: dict[_Settings, list[int]] = {}
    nodes: list[Node] = []
    moved: dict[Value, Value] = {}
    for number, node in enumerate(graph.nodes):
        if node.call in UPDATES:
            updates.setdefault(_settings_of(node), []).append(number)
            continue
        for output in range(len(node.outputs)):
            moved[Value(number, output)] = Value(len(nodes), output)
        nodes.append(with_inputs(node, lambda value: moved[value] if isinstance(value, Value) else value))
    for members in updates.values():
        merged = _merged([graph.nodes[number] for number in members], moved)
        for place, number in enumerate(members):
            for group in range(len(graph.nodes[number].outputs)):
                moved[Value(number, group)] = Value(len(nodes), group * len(members) + place)
        nodes.append(merged)
    following = tuple(moved[value] if isinstance(value, Value) else value for value in graph.next_state)
    return replace(graph, nodes=tuple(nodes), next_state=following, loss=moved[graph.loss])


def _settings_of(node: Node) -> _Settings:
    """What two updates must have in common to be one call."""
    lists = UPDATES[node.call]
    shared = tuple(argument for place, argument in enumerate(node.arguments) if place not in lists)
    return node.call, node.keywords, shared, tuple(bool(node.arguments[place]) for place in lists)


def _merged(nodes: Sequence[Node], places: dict[Value, Value]) -> Node:
    """One update of all their parameters."""
    first, lists = nodes[0], UPDATES[nodes[0].call]

    def moved(argument: Argument) -> Argument:
        return places[argument] if isinstance(argument, Value) else argument

    arguments: list[Argument] = []
    for place, argument in enumerate(first.arguments):
        if place in lists:
            column = [part for node in nodes for part in _list(node.arguments[place])]
            arguments.append(tuple(moved(part) for part in column))
        else:
            arguments.append(moved(argument))
    outputs = tuple(node.outputs[group] for group in range(len(first.outputs)) for node in nodes)
    return Node(first.call, tuple(arguments), first.keywords, outputs)


def _targets(node: Node) -> list[int]:
    """Numbers of the state tensors that an update changes, in the order of its outputs."""
    lists = [_list(node.arguments[place]) for place in UPDATES[node.call] if place != 1]
    return [part.index for column in lists for part in column if isinstance(part, StateInput)]


def _list(argument: Argument) -> tuple[Argument, ...]:
    return argument if isinstance(argument, tuple) else ()
