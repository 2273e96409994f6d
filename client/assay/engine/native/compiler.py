"""A graph's nodes as a flat list of calls on numbered slots, made once before the first step."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor

from assay.engine.native import attention
from assay.engine.native.memory import Environment, Memory
from assay.engine.native.operands import NodeCall, Operands, has_input
from assay.engine.native.own_calls import OWN_CALLS
from assay.engine.native.precision import CastPlan
from assay.program.errors import GraphError
from assay.program.graph import Graph, Node, StateInput, Value, inputs_of
from assay.program.lowering.registry import LOWERINGS, advice
from assay.program.sections import Precision

_UPDATES = frozenset({"assay.sgd", "assay.adamw", "assay.beta_powers"})
VIEWS = frozenset(
    f"aten.{name}"
    for name in (
        "t.default",
        "view.default",
        "transpose.int",
        "permute.default",
        "expand.default",
        "unsqueeze.default",
        "squeeze.dim",
        "squeeze.dims",
        "slice.Tensor",
        "select.int",
    )
)
"""Calls that only look at their first argument in another way: of the state, they can be made once."""
_CREATIONS = frozenset({"aten.arange.default", "aten.arange.start", "aten.arange.start_step", "aten.full.default"})

_RESHAPES = frozenset({"aten.view.default", "aten._unsafe_view.default"})
"""Calls that need their argument in memory as it was where the graph was recorded. Memory formats are not recorded,
kernels of another device may choose others, and parts of a step get values that were made elsewhere: a reshape looks
where it can, and copies where it must."""

_CONTIGUOUS = frozenset({"aten.native_group_norm.default", "aten.native_group_norm_backward.default"})
"""Calls whose kernels want their arguments in memory in order."""

EXTERNAL = "assay.external"
"""A node that computes nothing: its value is in the environment before the calls are made (a part of a step)."""

Call = Callable[[Environment], None]


def resolve(call: str) -> Callable[..., Any]:
    """PyTorch's function for an `aten` call that the lowering knows; `GraphError` for any other name."""
    if call not in LOWERINGS or not call.startswith("aten."):
        raise GraphError(f"the graph calls {call!r}, which is not allowed: {advice(call)}")
    _, name, overload = call.split(".")
    packet = getattr(torch.ops.aten, name, None)
    function = getattr(packet, overload, None)
    if function is None:
        raise GraphError(f"this version of PyTorch has no {call}: install the version the task was traced with")
    result: Callable[..., Any] = function
    return result


class Compiler:
    """Turns the graph's nodes into calls on slots: slot numbers for every output, plus casts where precision asks.

    `kept` are values that stay in the environment when all calls are made, besides the next state and the loss.
    """

    def __init__(self, graph: Graph, memory: Memory, kept: Collection[Value] = ()) -> None:
        self.graph, self.memory = graph, memory
        self.operands = Operands(graph, memory)
        self.calls: list[Call] = []
        self.casts = CastPlan(graph, memory.precision is Precision.BF16)
        self.last_use = self._last_uses(kept)

    def compile(self) -> list[Call]:
        """All calls of a step, in order."""
        self._check_updates_last()
        self.compile_nodes()
        self._assign_rest()
        return self.calls

    def compile_nodes(self) -> list[Call]:
        """The calls of the nodes alone."""
        for number, node in enumerate(self.graph.nodes):
            try:
                self._node(number, node)
            except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
                raise GraphError(f"node {number} ({node.call}) cannot be run: {error}") from error
        return self.calls

    def _last_uses(self, wanted: Collection[Value]) -> dict[int, list[int]]:
        """Slots that no later node reads, by the number of the last node that does."""
        last: dict[int, int] = {}
        for number, node in enumerate(self.graph.nodes):
            last.update((self.operands.slot(v), number) for v in inputs_of(node) if isinstance(v, Value))
        ends = (*self.graph.next_state, self.graph.loss, *wanted)
        kept = {self.operands.slot(value) for value in ends if isinstance(value, Value)}
        by_node: dict[int, list[int]] = {}
        for slot, number in last.items():
            if slot not in kept:
                by_node.setdefault(number, []).append(slot)
        return by_node

    def _check_updates_last(self) -> None:
        """Updates change the state in place: whatever reads the state must come before."""
        begun = False
        for number, node in enumerate(self.graph.nodes):
            begun = begun or node.call in _UPDATES
            if begun and node.call not in _UPDATES:
                raise GraphError(f"node {number} ({node.call}) comes after the optimizer's update, which must be last")

    def _free(self, number: int) -> None:
        slots = tuple(slot for slot in self.last_use.get(number, ()) if slot not in self.operands.fixed)
        if slots:

            def free(environment: Environment) -> None:
                for slot in slots:
                    environment[slot] = None

            self.calls.append(free)

    # --- nodes ---

    def _node(self, number: int, node: Node) -> None:
        call: NodeCall | None
        if node.call == EXTERNAL:
            return
        if node.call in OWN_CALLS:
            call = OWN_CALLS[node.call](self.operands, node)
        elif node.call in attention.RECORDED and not attention.has_recorded_attention(self.memory.device):
            call = attention.attention(self.operands, node)
        else:
            call = self._aten(number, node)
        if call is None:
            return
        self.calls.append(_stored(call, self._store(number, node)))
        self._free(number)

    def _store(self, number: int, node: Node) -> Callable[[Environment, Any], None]:
        first, count = self.operands.first_slot[number], len(node.outputs)
        if count == 1 and node.call not in _LISTS:

            def store_one(environment: Environment, result: Any) -> None:
                environment[first] = result

            return store_one

        def store_all(environment: Environment, result: Any) -> None:
            environment[first : first + count] = result[:count]

        return store_all

    def _aten(self, number: int, node: Node) -> NodeCall | None:
        function = resolve("aten.reshape.default" if node.call in _RESHAPES else node.call)
        if node.call in _CONTIGUOUS:
            function = _with_arguments(function, Tensor.contiguous)
        elif node.call in attention.RECORDED:
            function = _with_arguments(function, _rows_in_order)  # else the CPU's kernel computes something else
        keywords: dict[str, Any] = {name: self.operands.operand(argument)[0] for name, argument in node.keywords}
        if node.call == "aten.clone.default":
            # Mostly contiguous(), for the sake of a kernel that follows.
            keywords["memory_format"] = torch.contiguous_format
        if any(has_input(argument) for _, argument in node.keywords):
            return self._with_keyword_tensors(function, node)
        if node.call in _FACTORIES:
            keywords["device"] = self.memory.device
        flat = [self.operands.operand(a) if not isinstance(a, tuple) else (None, None) for a in node.arguments]
        readers = {i: self.operands.reader(a) for i, a in enumerate(node.arguments) if isinstance(a, tuple)}
        constant = not any(slot is not None for _, slot in flat) and not any(
            has_input(a) for a in node.arguments if isinstance(a, tuple)
        )
        base = [value for value, _ in flat]
        for place, read in readers.items():
            if not has_input(node.arguments[place]):
                base[place] = read([])
        casts = self.casts.of(number)
        if constant and not casts and (node.call in VIEWS or node.call in _CREATIONS):
            # What only depends on the state's storage, or on nothing, is made once.
            with torch.no_grad():
                self.memory.environment[self.operands.first_slot[number]] = function(*base, **keywords)
            self.operands.fixed.add(self.operands.first_slot[number])
            return None
        slots = tuple((place, slot) for place, (_, slot) in enumerate(flat) if slot is not None)
        lists = tuple((place, read) for place, read in readers.items() if has_input(node.arguments[place]))
        return _caller(function, base, slots, lists, keywords, casts)

    def _with_keyword_tensors(self, function: Callable[..., Any], node: Node) -> NodeCall:
        readers = [self.operands.reader(argument) for argument in node.arguments]
        named = {name: self.operands.reader(argument) for name, argument in node.keywords}
        return lambda environment: function(
            *(read(environment) for read in readers), **{name: read(environment) for name, read in named.items()}
        )

    # --- the end of a step ---

    def _assign_rest(self) -> None:
        """Copy into the state whatever the updates did not change in place, and keep the loss."""
        memory, moves = self.memory, []
        for index, value in enumerate(self.graph.next_state):
            if isinstance(value, StateInput) and value.index == index:
                continue
            if isinstance(value, Value) and self.graph.nodes[value.node].call in ("assay.sgd", "assay.adamw"):
                continue  # checked to be this very tensor where the update was compiled
            moves.append((memory.state[index], self.operands.reader(value)))
        loss = self.operands.slot(self.graph.loss)
        last = {self.operands.slot(v) for v in self.graph.next_state if isinstance(v, Value)} - self.operands.fixed

        def finish(environment: Environment) -> None:
            memory.loss = environment[loss]
            values = [read(environment) for _, read in moves]
            for (target, _), value in zip(moves, values, strict=True):
                target.copy_(value)
            for slot in last:
                environment[slot] = None

        self.calls.append(finish)


def _stored(call: NodeCall, store: Callable[[Environment, Any], None]) -> Call:
    return lambda environment: store(environment, call(environment))


def _caller(
    function: Callable[..., Any],
    base: list[Any],
    slots: tuple[tuple[int, int], ...],
    lists: tuple[tuple[int, NodeCall], ...],
    keywords: dict[str, Any],
    casts: dict[int, torch.dtype],
) -> NodeCall:
    """The call of a function on slots. The common shapes have no loop: overhead decides small models."""
    if not lists and not keywords and not casts:
        if len(base) == 1 and len(slots) == 1:
            ((_, only),) = slots
            return lambda environment: function(environment[only])
        if len(base) == 2 and len(slots) == 2:
            (_, first), (_, second) = slots
            return lambda environment: function(environment[first], environment[second])

    def call(environment: Environment) -> Any:
        arguments = base.copy()
        for place, slot in slots:
            arguments[place] = environment[slot]
        for place, read in lists:
            arguments[place] = read(environment)
        for place, dtype in casts.items():
            arguments[place] = _cast(arguments[place], dtype)
        return function(*arguments, **keywords)

    return call


def _cast(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, list):
        return [_cast(part, dtype) for part in value]
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value


def _with_arguments(function: Callable[..., Any], change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """The function with each of its tensors changed first."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        return function(*(change(a) if isinstance(a, Tensor) else a for a in arguments), **keywords)

    return call


def _rows_in_order(tensor: Tensor) -> Tensor:
    """The tensor with neighbours along its last dimension side by side in memory."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


_LISTS = frozenset(
    f"aten.{name}"
    for name in (
        "split.Tensor",
        "unsafe_split.Tensor",
        "split_with_sizes.default",
        "unsafe_split_with_sizes.default",
        "unbind.int",
    )
) | {"assay.clip", "assay.sgd", "assay.adamw"}
_FACTORIES = _CREATIONS | {
    f"aten.{name}" for name in ("zeros.default", "ones.default", "empty.memory_format", "scalar_tensor.default")
}
