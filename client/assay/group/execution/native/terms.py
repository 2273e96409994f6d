"""Terms of a recorded graph, for what it says of its own compression."""

from __future__ import annotations

from assay.group.execution.declared.terms import Part, Reader, Term
from assay.program.graph import Argument, Graph, TypeName, Value

_COPIES = frozenset({"aten.clone.default", "aten.detach.default"})
_CONVERSIONS = {TypeName("int32"): "to_int", TypeName("float32"): "to_float"}


class GraphReader(Reader):
    """A reference is a value of the graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def term(self, part: Part) -> Term | None:
        """What a node computes."""
        if not isinstance(part, Value):
            return None
        node = self.graph.nodes[part.node]
        parts = tuple(self._part(argument) for argument in node.arguments)
        if node.call in _COPIES:
            return self.term(parts[0])
        if node.call == "aten._to_copy.default":
            kind = _CONVERSIONS.get(node.keyword("dtype"))  # type: ignore[arg-type]
            return None if kind is None else Term(kind, parts)
        if node.call == "aten.gt.Scalar":
            return Term("less", (parts[1], parts[0]))
        if node.call == "assay.step_number":
            return Term("step")
        kinds = {"aten.where.self": "choose", "aten.lt.Scalar": "less", "aten.mul.Tensor": "product"}
        if node.call == "aten.sub.Tensor" and not node.keywords:
            return Term("difference", parts)
        return Term(kinds[node.call], parts) if node.call in kinds else None

    def _part(self, argument: Argument) -> Part:
        """An argument, or the number that it always is."""
        if isinstance(argument, int | float) and not isinstance(argument, bool):
            return float(argument)
        if isinstance(argument, Value):
            node = self.graph.nodes[argument.node]
            if node.call == "aten.scalar_tensor.default":
                return self._part(node.arguments[0])
        return argument
