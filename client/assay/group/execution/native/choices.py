"""Choices that a step makes by its number: what the first steps use and what later ones do."""

from __future__ import annotations

from dataclasses import dataclass

from assay.program.graph import Argument, Graph, Node, Value

_COPIES = frozenset({"aten.clone.default", "aten.detach.default"})


@dataclass(frozen=True)
class Choice:
    """A `where` that takes its first value in steps below `until`, and its second from there on."""

    first: Value
    second: Value
    until: int


def choice_of(graph: Graph, node: Node) -> Choice | None:
    """The choice that a node makes: a `where` whose condition is `step < number`."""
    if node.call != "aten.where.self":
        return None
    condition, first, second = node_of(graph, node.arguments[0]), node.arguments[1], node.arguments[2]
    if condition is None or condition.call != "aten.lt.Scalar":
        return None
    if not isinstance(first, Value) or not isinstance(second, Value) or first == second:
        return None
    limit, counter = number_of(graph, condition.arguments[1]), node_of(graph, condition.arguments[0])
    while counter is not None and counter.call in _COPIES:
        counter = node_of(graph, counter.arguments[0])
    if limit is None or limit != int(limit) or counter is None or counter.call != "assay.step_number":
        return None
    return Choice(first, second, max(0, int(limit)))


def node_of(graph: Graph, value: Argument) -> Node | None:
    """The node behind an argument, if it is one's value."""
    return graph.nodes[value.node] if isinstance(value, Value) else None


def number_of(graph: Graph, value: Argument) -> float | None:
    """The number that an argument always is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    node = node_of(graph, value)
    if node is not None and node.call == "aten.scalar_tensor.default":
        return number_of(graph, node.arguments[0])
    return None
