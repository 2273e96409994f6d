"""The traced graph of a training step: ATen calls as data.

A task carries this graph as canonical JSON. It is loaded strictly (known fields, known kinds of values, sizes checked
first), and calls are names that `lowering` and `engine.native` look up in their own tables: nothing in a graph is code.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, TypeAlias

import numpy as np

from assay.program.errors import GraphError
from assay.program.operator import Array, ElementType, TensorDescriptor

GRAPH_FORMAT = 1
VALUE_TYPES = ("float32", "int64", "int32", "bool")
MAX_GRAPH_BYTES = 1 << 28
MAX_NODES = 1 << 17
MAX_ELEMENTS = 2**31 - 1
MAX_DEPTH = 4  # of lists within arguments
MAX_REPLICAS = 64


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor inside the graph: output `output` of node `node`."""

    node: int
    output: int = 0


@dataclass(frozen=True, slots=True)
class StateInput:
    """State tensor `index`, as the step finds it."""

    index: int


@dataclass(frozen=True, slots=True)
class DataInput:
    """Data tensor `index`, whole."""

    index: int


@dataclass(frozen=True, slots=True)
class ConstantInput:
    """Constant `index` of the graph."""

    index: int


@dataclass(frozen=True, slots=True)
class TypeName:
    """An element type given as an argument, one of VALUE_TYPES."""

    name: str


Input: TypeAlias = Value | StateInput | DataInput | ConstantInput
Argument: TypeAlias = "Input | TypeName | bool | int | float | str | tuple[Argument, ...] | None"


@dataclass(frozen=True, slots=True)
class TensorMeta:
    """Type (one of VALUE_TYPES) and shape of a value of the graph."""

    type: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Node:
    """One call: `aten.*` with PyTorch's own arguments, or `assay.*`.

    `where` is the user's source line, known on the machine that traced; it is neither written nor compared.
    """

    call: str
    arguments: tuple[Argument, ...]
    keywords: tuple[tuple[str, Argument], ...]
    outputs: tuple[TensorMeta | None, ...]
    where: str = field(default="", compare=False)

    def keyword(self, name: str, default: Argument = None) -> Argument:
        """A keyword argument, or the default."""
        return dict(self.keywords).get(name, default)


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that the model holds but never changes, with its type in the graph (`bool` and `int64` are kept as
    int32)."""

    type: str
    values: Array


@dataclass(frozen=True)
class SharedFrom:
    """The step that a graph was made from, before its batch was shared by `replicas` whose gradients are exchanged in
    `gradient_bits`. `nodes`, `next_state` and `loss` as in a graph; they read the first of its state tensors, its data
    and its constants.

    A remark beside the step: what is computed is the graph's own nodes, and whoever uses the remark makes the graph
    from it once more, and compares (`assay.group.execution.native.replicas`).
    """

    replicas: int
    gradient_bits: int
    nodes: tuple[Node, ...]
    next_state: tuple[Input, ...]
    loss: Value


@dataclass(frozen=True, eq=False)
class Graph:
    """A whole training step: what it reads, its calls in order, the next state, and the loss. `shared_from` is there
    where the task declares replicas."""

    state: tuple[TensorDescriptor, ...]
    data: tuple[TensorDescriptor, ...]
    constants: tuple[Constant, ...]
    nodes: tuple[Node, ...]
    next_state: tuple[Input, ...]
    loss: Value
    shared_from: SharedFrom | None = None

    def meta(self, value: Input) -> TensorMeta:
        """Type and shape of an input or value."""
        if isinstance(value, Value):
            meta = self.nodes[value.node].outputs[value.output]
            if meta is None:
                raise GraphError(f"output {value.output} of node {value.node} is no tensor")
            return meta
        if isinstance(value, ConstantInput):
            constant = self.constants[value.index]
            return TensorMeta(constant.type, tuple(constant.values.shape))
        table = self.state if isinstance(value, StateInput) else self.data
        descriptor = table[value.index]
        return TensorMeta("float32" if descriptor.type == ElementType.FLOAT else "int32", descriptor.shape)


def each_input(argument: Argument, visit: Callable[[Input], None]) -> None:
    """Call `visit` on every tensor within an argument, in order."""
    if isinstance(argument, tuple):
        for part in argument:
            each_input(part, visit)
    elif isinstance(argument, Value | StateInput | DataInput | ConstantInput):
        visit(argument)


def inputs_of(node: Node) -> list[Input]:
    """The tensors among a node's arguments, in order, as often as they are there."""
    found: list[Input] = []
    each_input((*node.arguments, *(argument for _, argument in node.keywords)), found.append)
    return found


def with_inputs(node: Node, moved: Callable[[Input], Argument]) -> Node:
    """The node with every tensor among its arguments replaced; its `where` stays."""

    def changed(argument: Argument) -> Argument:
        if isinstance(argument, tuple):
            return tuple(changed(part) for part in argument)
        if isinstance(argument, Value | StateInput | DataInput | ConstantInput):
            return moved(argument)
        return argument

    return replace(
        node,
        arguments=tuple(changed(argument) for argument in node.arguments),
        keywords=tuple((name, changed(argument)) for name, argument in node.keywords),
    )


# --- writing ---------------------------------------------------------------------------------------------------------


def _argument_json(argument: Argument) -> Any:
    if isinstance(argument, Value):
        return {"value": [argument.node, argument.output]}
    if isinstance(argument, StateInput):
        return {"state": argument.index}
    if isinstance(argument, DataInput):
        return {"data": argument.index}
    if isinstance(argument, ConstantInput):
        return {"constant": argument.index}
    if isinstance(argument, TypeName):
        return {"type": argument.name}
    if isinstance(argument, tuple):
        return [_argument_json(part) for part in argument]
    if isinstance(argument, float):
        # hex keeps every bit and has a spelling for infinities, which JSON numbers have not.
        return {"float": argument.hex()}
    return argument


def _descriptor_json(descriptor: TensorDescriptor) -> Any:
    kind = "float32" if descriptor.type == ElementType.FLOAT else "int32"
    return {"name": descriptor.name, "type": kind, "shape": list(descriptor.shape)}


def _step_json(step: Graph | SharedFrom) -> dict[str, Any]:
    return {
        "nodes": [
            {
                "call": node.call,
                "arguments": [_argument_json(a) for a in node.arguments],
                "keywords": {name: _argument_json(a) for name, a in node.keywords},
                "outputs": [m and {"type": m.type, "shape": list(m.shape)} for m in node.outputs],
            }
            for node in step.nodes
        ],
        "next_state": [_argument_json(value) for value in step.next_state],
        "loss": _argument_json(step.loss),
    }


def dump_graph(graph: Graph) -> bytes:
    """Canonical JSON of a graph (sorted keys, no spaces): the same bytes for the same graph."""
    document: dict[str, Any] = {
        "format": GRAPH_FORMAT,
        "state": [_descriptor_json(d) for d in graph.state],
        "data": [_descriptor_json(d) for d in graph.data],
        "constants": [
            {
                "type": constant.type,
                "shape": list(constant.values.shape),
                "base64": base64.b64encode(
                    constant.values.astype(constant.values.dtype.newbyteorder("<")).tobytes()
                ).decode(),
            }
            for constant in graph.constants
        ],
        **_step_json(graph),
    }
    if graph.shared_from is not None:
        origin = graph.shared_from
        document["shared_from"] = {
            "replicas": origin.replicas, "gradient_bits": origin.gradient_bits, **_step_json(origin),
        }  # fmt: skip
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def graph_hash(graph: Graph) -> bytes:
    """SHA-256 of the graph's canonical JSON: what the chain holds of it."""
    return sha256(dump_graph(graph)).digest()


# --- reading ---------------------------------------------------------------------------------------------------------


def load_graph(content: bytes) -> Graph:
    """The graph in canonical JSON; `GraphError` names the first thing that is not as `dump_graph` writes it."""
    if len(content) > MAX_GRAPH_BYTES:
        raise GraphError(f"the graph has {len(content)} bytes, {MAX_GRAPH_BYTES} are accepted")
    try:
        document = json.loads(content, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise GraphError(f"the graph is not JSON: {error}") from None
    names = ("format", "state", "data", "constants", "nodes", "next_state", "loss")
    declared = document.get("shared_from") if isinstance(document, dict) else None
    fields = _object(document, "graph", names if declared is None else (*names, "shared_from"))
    if fields["format"] != GRAPH_FORMAT:
        raise GraphError(f"graph format {fields['format']!r}, this client reads format {GRAPH_FORMAT}")
    state = tuple(_descriptor(d, f"state {i}") for i, d in enumerate(_list(fields["state"], "state")))
    data = tuple(_descriptor(d, f"data {i}") for i, d in enumerate(_list(fields["data"], "data")))
    constants = tuple(_constant(c, f"constant {i}") for i, c in enumerate(_list(fields["constants"], "constants")))
    sizes = {"state": len(state), "data": len(data), "constant": len(constants)}
    nodes, next_state, loss = _step(fields, "", sizes, MAX_NODES)
    if len(next_state) != len(state):
        raise GraphError(f"next_state has {len(next_state)} entries for {len(state)} state tensors")
    shared_from = None if declared is None else _shared_from(declared, sizes, len(nodes))
    graph = Graph(state, data, constants, nodes, next_state, loss, shared_from)
    if dump_graph(graph) != content:
        raise GraphError("the graph is not in canonical form: write it with dump_graph")
    return graph


def _step(
    fields: dict[str, Any], inside: str, sizes: dict[str, int], most: int
) -> tuple[tuple[Node, ...], tuple[Input, ...], Value]:
    """Nodes, next state and loss."""
    raw_nodes = _list(fields["nodes"], f"{inside}nodes")
    if not 1 <= len(raw_nodes) <= most:
        raise GraphError(f"the graph has {len(raw_nodes)} {inside}nodes, 1 to {most} are accepted")
    nodes: list[Node] = []
    for number, raw in enumerate(raw_nodes):
        nodes.append(_node(raw, f"{inside}node {number}", nodes, sizes))
    entries = enumerate(_list(fields["next_state"], f"{inside}next_state"))
    next_state = tuple(_input(v, f"{inside}next_state {i}", nodes, sizes) for i, v in entries)
    loss = _input(fields["loss"], f"{inside}loss", nodes, sizes)
    if not isinstance(loss, Value):
        raise GraphError(f"{inside}loss is not a value of the graph")
    return tuple(nodes), next_state, loss


def _shared_from(value: Any, sizes: dict[str, int], most: int) -> SharedFrom:
    """What a graph says it was made from: never more nodes than it has itself."""
    where = "shared_from "
    fields = _object(value, where.strip(), ("replicas", "gradient_bits", "nodes", "next_state", "loss"))
    replicas = _integer(fields["replicas"], f"{where}replicas", 2, MAX_REPLICAS)
    bits = _integer(fields["gradient_bits"], f"{where}gradient_bits", 2, 8)
    count = len(_list(fields["next_state"], f"{where}next_state"))
    if not 1 <= count <= sizes["state"]:
        raise GraphError(f"{where}next_state has {count} entries, the graph {sizes['state']} state tensors")
    return SharedFrom(replicas, bits, *_step(fields, where, {**sizes, "state": count}, most))


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _object(value: Any, where: str, names: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) != set(names):
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise GraphError(f"{where}: expected the fields {sorted(names)}, found {found}")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise GraphError(f"{where}: expected a list, found {type(value).__name__}")
    return value


def _integer(value: Any, where: str, low: int = -(2**63), high: int = 2**63 - 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise GraphError(f"{where}: expected an integer from {low} to {high}, found {value!r:.80}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or len(value) > 4096:
        raise GraphError(f"{where}: expected a text of at most 4096 characters, found {value!r:.80}")
    return value


def _meta(value: Any, where: str) -> TensorMeta:
    fields = _object(value, where, ("type", "shape"))
    kind = _text(fields["type"], f"{where} type")
    if kind not in VALUE_TYPES:
        raise GraphError(f"{where}: type {kind!r} is none of {', '.join(VALUE_TYPES)}")
    shape = tuple(_integer(e, f"{where} shape", 0, MAX_ELEMENTS) for e in _list(fields["shape"], f"{where} shape"))
    if len(shape) > 16 or not 1 <= math.prod(shape) <= MAX_ELEMENTS:
        raise GraphError(f"{where}: shape {shape} does not have 1 to {MAX_ELEMENTS} elements")
    return TensorMeta(kind, shape)


def _descriptor(value: Any, where: str) -> TensorDescriptor:
    fields = _object(value, where, ("name", "type", "shape"))
    meta = _meta({"type": fields["type"], "shape": fields["shape"]}, where)
    if meta.type not in ("float32", "int32"):
        raise GraphError(f"{where}: type {meta.type}, tensors of state and data are float32 or int32")
    kind = ElementType.FLOAT if meta.type == "float32" else ElementType.INT
    return TensorDescriptor(_text(fields["name"], f"{where} name"), kind, meta.shape)


def _constant(value: Any, where: str) -> Constant:
    fields = _object(value, where, ("type", "shape", "base64"))
    meta = _meta({"type": fields["type"], "shape": fields["shape"]}, where)
    encoded = fields["base64"]
    if not isinstance(encoded, str):
        raise GraphError(f"{where}: base64 is not a text")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise GraphError(f"{where}: base64 does not decode: {error}") from None
    if len(raw) != 4 * meta.count:
        raise GraphError(f"{where}: {len(raw)} bytes for {meta.count} elements of 4 bytes")
    if meta.type == "float32":
        return Constant(meta.type, np.frombuffer(raw, "<f4").astype(np.float32).reshape(meta.shape))
    return Constant(meta.type, np.frombuffer(raw, "<i4").astype(np.int32).reshape(meta.shape))


def _node(raw: Any, where: str, earlier: list[Node], sizes: dict[str, int]) -> Node:
    fields = _object(raw, where, ("call", "arguments", "keywords", "outputs"))
    call = _text(fields["call"], f"{where} call")
    arguments = tuple(_argument(a, where, earlier, sizes) for a in _list(fields["arguments"], where))
    keywords = fields["keywords"]
    if not isinstance(keywords, dict):
        raise GraphError(f"{where}: keywords are not an object")
    parsed = tuple((name, _argument(keywords[name], f"{where} {name}", earlier, sizes)) for name in sorted(keywords))
    outputs = tuple(m if m is None else _meta(m, f"{where} output") for m in _list(fields["outputs"], where))
    return Node(call, arguments, parsed, outputs)


def _argument(value: Any, where: str, earlier: list[Node], sizes: dict[str, int], depth: int = 0) -> Argument:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return _integer(value, where)
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, list):
        if depth >= MAX_DEPTH:
            raise GraphError(f"{where}: lists nest deeper than {MAX_DEPTH}")
        return tuple(_argument(part, where, earlier, sizes, depth + 1) for part in value)
    if isinstance(value, dict) and set(value) == {"float"}:
        try:
            return float.fromhex(_text(value["float"], where))
        except (ValueError, OverflowError):
            raise GraphError(f"{where}: {value['float']!r:.80} is no hexadecimal float") from None
    if isinstance(value, dict) and set(value) == {"type"}:
        if value["type"] not in VALUE_TYPES:
            raise GraphError(f"{where}: type {value['type']!r:.80} is none of {', '.join(VALUE_TYPES)}")
        return TypeName(value["type"])
    return _input(value, where, earlier, sizes)


def _input(value: Any, where: str, earlier: list[Node], sizes: dict[str, int]) -> Input:
    if not isinstance(value, dict) or len(value) != 1:
        raise GraphError(f"{where}: {value!r:.80} is no argument")
    ((kind, body),) = value.items()
    if kind == "value":
        pair = _list(body, where)
        if len(pair) != 2:
            raise GraphError(f"{where}: a value is [node, output], found {body!r:.80}")
        node = _integer(pair[0], f"{where} value", 0, len(earlier) - 1)
        return Value(node, _integer(pair[1], f"{where} value output", 0, len(earlier[node].outputs) - 1))
    if kind in sizes:
        index = _integer(body, f"{where} {kind}", 0, sizes[kind] - 1)
        if kind == "state":
            return StateInput(index)
        return DataInput(index) if kind == "data" else ConstantInput(index)
    raise GraphError(f"{where}: {kind!r:.80} is no kind of argument")
