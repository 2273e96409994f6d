"""The lowering itself: walk the graph's nodes, ask the table of calls, collect the step section."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from assay.program.errors import GraphError, UnsupportedError
from assay.program.graph import (
    Argument,
    ConstantInput,
    DataInput,
    Graph,
    Input,
    Node,
    StateInput,
    TensorMeta,
    Value,
    each_input,
)
from assay.program.lowering import (  # noqa: F401 - imported for what they register
    attention,
    convolution,
    elementwise,
    indexing,
    losses,
    normalization,
    optimizers,
    pooling,
    products,
    shapes,
)
from assay.program.lowering import view as views
from assay.program.lowering.builder import FLOAT, INT, Builder, finish
from assay.program.lowering.registry import LOWERINGS, advice
from assay.program.lowering.view import NotAffineError, View
from assay.program.operator import Array, Operand, Operator, Program, Role, Section, Source
from assay.program.validate import validate

LOWERING_VERSION = 3

# Calls whose lowering needs the shape of their output, which no argument gives.
_SHAPED_CALLS = frozenset({"assay.bernoulli", "assay.permute"})
# Calls whose lowering needs to know whether their output is bool: int32 stands for both.
_BOOL_CALLS = frozenset({"aten.bitwise_not.default", "aten.copy.default"})
# Calls that can give integers other than 0 and 1 where their output is bool: any but 0 is true.
_TRUE_AS_ANY = frozenset(
    f"aten.{name}"
    for name in (
        "add.Scalar",
        "add.Tensor",
        "constant_pad_nd.default",
        "fill.Scalar",
        "full.default",
        "full_like.default",
        "masked_fill.Scalar",
        "masked_fill.Tensor",
        "new_full.default",
        "scalar_tensor.default",
    )
)
# Calls that take truth values for a choice of elements: then the shape of what they give follows from values.
_INDEX_CALLS = frozenset(
    f"aten.{name}"
    for name in ("index.Tensor", "_unsafe_index.Tensor", "index_put.default", "_unsafe_index_put.default")
)
_REJECTIONS = (TypeError, ValueError, IndexError, KeyError, AttributeError, ZeroDivisionError, OverflowError)


@dataclass(frozen=True)
class _Lowered:
    section: Section
    constants: tuple[Array, ...]
    loss: int


def lower_step(graph: Graph) -> Program:
    """The program with the `step` section alone, validated. `loss` names the operator that holds the loss.

    Raises `UnsupportedError` for a call that is not lowered, with the user's line where the graph was traced here;
    `GraphError` where a call's arguments or results do not fit together.
    """
    lowered = _Walker(graph).walk()
    program = Program(graph.state, graph.data, lowered.constants, (lowered.section,), lowered.loss)
    validate(program)
    return program


@dataclass(frozen=True)
class LoweredNodes:
    """What each node of a graph became: `values[n][o]` is output o of node n as a view, mostly of an operator's result.

    `operators` are all that were emitted, also those that nothing needs: the numbers are not those of the program.
    """

    operators: tuple[Operator, ...]
    values: tuple[tuple[View | None, ...], ...]


def lower_nodes(graph: Graph) -> LoweredNodes:
    """Lower a graph and keep track of its nodes. Raises as `lower_step` does."""
    walker = _Walker(graph)
    walker.walk()
    return LoweredNodes(tuple(walker.builder.operators), tuple(walker.values.values()))


def lower_part(
    graph: Graph,
    nodes: Collection[int],
    builder: Builder,
    given: Mapping[Input, View],
    replaced: Callable[[Value, View], View] = lambda _value, view: view,
) -> Mapping[Value, View]:
    """Lower some nodes of a graph into a section that is being built; returns their outputs.

    `given` says how everything else is read that they read: values that other nodes compute, and state and data where
    their numbers in the section are not the graph's. `replaced` may give another view of an output for later nodes to
    read. Raises as `lower_step` does.
    """
    walker = _Walker(graph, builder, given, replaced)
    walker.lower(sorted(nodes))
    return {
        Value(number, output): view
        for number, outputs in walker.values.items()
        for output, view in enumerate(outputs)
        if view is not None
    }


class _Walker:
    def __init__(
        self,
        graph: Graph,
        builder: Builder | None = None,
        given: Mapping[Input, View] | None = None,
        replaced: Callable[[Value, View], View] = lambda _value, view: view,
    ) -> None:
        self.graph, self.builder, self.replaced = graph, builder or Builder(), replaced
        self.given = dict(given or {})
        self.values: dict[int, tuple[View | None, ...]] = {}

    def lower(self, numbers: Iterable[int]) -> None:
        """Lower nodes, in order."""
        for number in numbers:
            node = self.graph.nodes[number]
            self.builder.origin = f"{number} {node.call}"
            self.values[number] = self._lower_node(number, node)
            for output, view in enumerate(self.values[number]):
                value = Value(number, output)
                if view is not None and (other := self.replaced(value, view)) is not view:
                    self.given[value] = other

    def walk(self) -> _Lowered:
        """Lower all nodes, then the next state and the loss."""
        self.lower(range(len(self.graph.nodes)))
        self.builder.origin = "next state"
        table = [self._next_state(number, value) for number, value in enumerate(self.graph.next_state)]
        self.builder.origin = "loss"
        loss = self.builder.copy(self._input(self.graph.loss))
        if loss.count != 1 or loss.type != FLOAT:
            raise GraphError(f"the loss has shape {loss.shape}, a scalar float is needed")
        section, numbers = finish(self.builder, Role.STEP, table, [loss.operand.index])
        section, constants = used_constants(section, self.builder.constants)
        return _Lowered(section, constants, numbers[loss.operand.index])

    def _lower_node(self, number: int, node: Node) -> tuple[View | None, ...]:
        place = f"{node.where}: " if node.where else ""
        handler = LOWERINGS.get(node.call)
        if handler is None:
            raise UnsupportedError(f"{place}{node.call} (node {number}) cannot be lowered: {advice(node.call)}")
        if node.call in _INDEX_CALLS and self._has_mask(node):
            raise UnsupportedError(
                f"{place}{node.call} (node {number}) indexes by a mask: shapes must be fixed, so use torch.where, "
                "a product or indices"
            )
        arguments = [self._argument(a) for a in node.arguments]
        keywords = {name: self._argument(a) for name, a in node.keywords}
        if _has_empty((arguments, *keywords.values())):
            raise UnsupportedError(f"{place}{node.call} (node {number}) reads a tensor without elements: leave it out")
        if node.call in _SHAPED_CALLS:
            keywords["shape"] = self._meta(node, 0).shape
        boolean = bool(node.outputs) and node.outputs[0] is not None and node.outputs[0].type == "bool"
        if node.call in _BOOL_CALLS:
            keywords["boolean"] = boolean
        try:
            result = handler(self.builder, *arguments, **keywords)
            if boolean and node.call in _TRUE_AS_ANY and isinstance(result, View):
                result = elementwise.truth(self.builder, result)
        except NotAffineError:
            raise UnsupportedError(
                f"{place}{node.call} (node {number}) has an index map with too many guards"
            ) from None
        except _REJECTIONS as error:
            raise UnsupportedError(f"{place}{node.call} (node {number}) cannot be lowered: {error}") from error
        outputs = result if isinstance(result, tuple) else (result,)
        self._check(number, node, outputs)
        return outputs

    def _has_mask(self, node: Node) -> bool:
        """Whether a call indexes by a tensor of truth values."""
        found: list[Input] = []
        each_input(node.arguments[1:2], found.append)
        return any(self.graph.meta(index).type == "bool" for index in found)

    def _meta(self, node: Node, output: int) -> TensorMeta:
        meta = node.outputs[output] if output < len(node.outputs) else None
        if meta is None:
            raise GraphError(f"{node.call} has no output {output}")
        return meta

    def _check(self, number: int, node: Node, outputs: tuple[View | None, ...]) -> None:
        """The graph says of each result what it is; the lowering must agree."""
        if len(outputs) < len(node.outputs):
            raise GraphError(f"node {number} ({node.call}) says it has {len(node.outputs)} outputs, not {len(outputs)}")
        for place, (meta, output) in enumerate(zip(node.outputs, outputs, strict=False)):
            if meta is None or output is None:
                continue
            kind = FLOAT if meta.type == "float32" else INT
            if (output.shape, output.type) != (meta.shape, kind):
                if node.where:  # PyTorch itself recorded this result here
                    raise UnsupportedError(
                        f"{node.where}: {node.call} (node {number}) gives {meta.type} of shape {meta.shape} for these "
                        "arguments, which is not lowered: convert them with .float(), or write it with other calls"
                    )
                raise GraphError(
                    f"node {number} ({node.call}) says output {place} is {meta.type} of shape {meta.shape}, "
                    f"its arguments give {output.type.name.lower()} of shape {output.shape}"
                )

    def _argument(self, argument: Argument) -> object:
        if isinstance(argument, Value) and argument not in self.given:
            return self.values[argument.node][argument.output]  # None: an output the call leaves empty
        if isinstance(argument, Value | StateInput | DataInput | ConstantInput):
            return self._input(argument)
        if isinstance(argument, tuple):
            return tuple(self._argument(part) for part in argument)
        return argument

    def _input(self, value: Input) -> View:
        if value in self.given:
            return self.given[value]
        if isinstance(value, Value):
            view = self.values[value.node][value.output]
            if view is None:
                raise GraphError(f"output {value.output} of node {value.node} is read, but is no tensor")
            return view
        if isinstance(value, ConstantInput):
            return self.builder.constant(self.graph.constants[value.index].values)
        state = isinstance(value, StateInput)
        descriptor = (self.graph.state if state else self.graph.data)[value.index]
        return views.whole(descriptor.type, descriptor.shape, Source.STATE if state else Source.DATA, value.index)

    def _next_state(self, number: int, value: Input) -> int | None:
        view, descriptor = self._input(value), self.graph.state[number]
        if (view.shape, view.type) != (descriptor.shape, descriptor.type):
            raise GraphError(
                f"next_state {number} ({descriptor.name}) has shape {view.shape}, the state {descriptor.shape}"
            )
        operand = view.operand
        if operand.source == Source.STATE and operand.index == number and view.is_whole:
            return None
        return self.builder.copy(view).operand.index


def _has_empty(argument: object) -> bool:
    """Whether an argument is, or holds, a tensor without elements, which no program has."""
    if isinstance(argument, list | tuple):
        return any(_has_empty(part) for part in argument)
    return isinstance(argument, View) and argument.count == 0


def used_constants(section: Section, constants: list[Array]) -> tuple[Section, tuple[Array, ...]]:
    """The section reading only the constants it needs, renumbered in order of first use."""
    numbers: dict[int, int] = {}

    def change(operand: Operand) -> Operand:
        if operand.source != Source.CONSTANT:
            return operand
        number = numbers.setdefault(operand.index, len(numbers))
        return Operand(
            operand.source, number, operand.count, operand.stride, operand.offset, operand.fill, operand.guards
        )

    operators = tuple(
        Operator(o.body, o.type, o.extents, tuple(change(p) for p in o.operands), o.reduced, o.p0, o.p1)
        for o in section.operators
    )
    changed = Section(section.role, operators, section.next_state, section.origins)
    return changed, tuple(constants[old] for old in numbers)


def lower(graph: Graph) -> Program:
    """The whole program of an exact task: the step section alone (see `assay.program.sections` for tolerant tasks)."""
    return lower_step(graph)


__all__ = ["LOWERING_VERSION", "LoweredNodes", "lower", "lower_nodes", "lower_part", "lower_step", "used_constants"]
