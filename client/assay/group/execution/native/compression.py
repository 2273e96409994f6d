"""What a recorded graph says of its own compression: values of few bits, and memories that both ends of a link keep.

A compressed boundary is part of the model (`group.compression.crossing`), so its calls are in the graph like all
others. Recognised are the forms that `program.quantised` has, by what they compute and not by any name: if they are not
found, everything is sent in full, and the result is the same.

- Codes: a whole number in [0, top], made by cutting off at both ends and dropping the fraction.
- Scales and minima: `spread - (spread - x)` with `spread = 65537 x`, which leaves 8 significant bits.
- A memory: state of which a step reads rows and replaces those rows, by a choice between the rows themselves (in the
  first steps) and what was kept plus a change. Both ends compute it from the codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from assay.group.compression.crossing import MEMORY
from assay.group.execution.native.choices import Choice, choice_of, node_of, number_of
from assay.group.execution.packing import FULL, SHORT
from assay.program.graph import Graph, Input, Node, TypeName, Value, each_input
from assay.program.quantised import SPLITTER

MOST_CODE_BITS = 8


@dataclass(frozen=True)
class Compression:
    """`bits` of values that need fewer than all. `choices` by the step, by node. `memories`: for each state tensor that
    both ends keep, the codes that change it. `mirrored`: what both ends compute from what crosses."""

    bits: Mapping[Value, int]
    choices: Mapping[int, Choice]
    memories: Mapping[int, Value]
    mirrored: frozenset[Value]


def find_compression(graph: Graph) -> Compression:
    """Read an (expanded) graph."""
    reader = _Reader(graph)
    bits: dict[Value, int] = {}
    choices: dict[int, Choice] = {}
    for number, node in enumerate(graph.nodes):
        value = Value(number)
        found = reader.code_bits(value) or (SHORT if reader.is_short(value) else FULL)
        if found < FULL:
            bits[value] = found
        if (choice := choice_of(graph, node)) is not None:
            choices[number] = choice
    memories: dict[int, Value] = {}
    mirrored: set[Value] = set()
    for state, descriptor in enumerate(graph.state):
        following = graph.next_state[state]
        if not descriptor.name.endswith(MEMORY) or not isinstance(following, Value):
            continue
        # Not beyond the rows themselves: behind them lies the model, with boundaries of its own.
        crossing = reader.ancestors([following], stop={*bits, *(choice.first for choice in choices.values())})
        codes = sorted((value for value in crossing if bits.get(value, FULL) <= MOST_CODE_BITS), key=_order)
        made = [choices[value.node] for value in crossing if value.node in choices]
        if not codes or len(made) != 1:
            continue
        memories[state] = codes[0]
        # Everything on the way from what crosses to the next memory; what lies before that is the sender's.
        sent = {value for value in crossing if value in bits} | {made[0].first}
        before = reader.ancestors(sorted(sent, key=_order))
        mirrored |= crossing - before
    return Compression(bits, choices, memories, frozenset(mirrored))


def _order(value: Value) -> tuple[int, int]:
    return value.node, value.output


class _Reader:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def ancestors(self, values: Iterable[Value], stop: Iterable[Value] = ()) -> set[Value]:
        """The values themselves and all that they are computed from, not beyond `stop`."""
        ends = frozenset(stop)
        found: set[Value] = set()
        waiting = list(values)

        def visit(value: Input) -> None:
            if isinstance(value, Value):
                waiting.append(value)

        while waiting:
            value = waiting.pop()
            if value in found:
                continue
            found.add(value)
            if value not in ends:
                node = self.graph.nodes[value.node]
                each_input((*node.arguments, *(argument for _, argument in node.keywords)), visit)
        return found

    def code_bits(self, value: Value) -> int | None:
        """Bits of a whole number that is cut off to [0, 2^bits - 1], held as a float."""
        node = node_of(self.graph, value)
        for kind in ("float32", "int32"):
            if node is None or node.call != "aten._to_copy.default" or node.keyword("dtype") != TypeName(kind):
                return None
            node = node_of(self.graph, node.arguments[0])
        top = self._upper_end(node)
        if top is None or top != int(top) or not 1 <= top < 2**MOST_CODE_BITS:
            return None
        return int(top).bit_length()

    def _upper_end(self, node: Node | None) -> float | None:
        """t of `where(b < t, b, t)` with `b = where(x > 0, x, 0)`."""
        if node is None or node.call != "aten.where.self":
            return None
        condition, bounded, end = (
            node_of(self.graph, node.arguments[0]),
            node.arguments[1],
            number_of(self.graph, node.arguments[2]),
        )
        if condition is None or condition.call != "aten.lt.Scalar" or condition.arguments[0] != bounded:
            return None
        lower = node_of(self.graph, bounded)
        if (
            end is None
            or number_of(self.graph, condition.arguments[1]) != end
            or lower is None
            or lower.call != "aten.where.self"
        ):
            return None
        positive = node_of(self.graph, lower.arguments[0])
        if positive is None or positive.call != "aten.gt.Scalar" or positive.arguments[0] != lower.arguments[1]:
            return None
        is_cut = (
            number_of(self.graph, positive.arguments[1]) == 0.0 and number_of(self.graph, lower.arguments[2]) == 0.0
        )
        return end if is_cut else None

    def is_short(self, value: Value) -> bool:
        """Whether a value is 0 or has 8 significant bits: `where(_, 0, spread - (spread - x))`, spread = 65537 x."""
        node = node_of(self.graph, value)
        if node is None or node.call != "aten.where.self" or number_of(self.graph, node.arguments[1]) != 0.0:
            return False
        outer = node_of(self.graph, node.arguments[2])
        if outer is None or outer.call != "aten.sub.Tensor" or outer.keywords:
            return False
        spread, inner = node_of(self.graph, outer.arguments[0]), node_of(self.graph, outer.arguments[1])
        if inner is None or inner.call != "aten.sub.Tensor" or inner.keywords or spread is None:
            return False
        x = inner.arguments[1]
        return (
            inner.arguments[0] == outer.arguments[0]
            and spread.call == "aten.mul.Tensor"
            and spread.arguments[0] == x
            and number_of(self.graph, spread.arguments[1]) == SPLITTER
        )
