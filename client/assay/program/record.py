"""From calls that PyTorch recorded (torch.fx) to nodes of a graph."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

from assay.program.errors import UnsupportedError
from assay.program.graph import (
    Argument,
    Constant,
    ConstantInput,
    DataInput,
    Input,
    Node,
    StateInput,
    TensorMeta,
    TypeName,
    Value,
)
from assay.program.operator import Array, ElementType

TYPE_NAMES = {torch.float32: "float32", torch.int64: "int64", torch.int32: "int32", torch.bool: "bool"}
# Arguments that say where and how a tensor is stored, not what is in it.
_STORAGE_KEYWORDS = frozenset({"device", "layout", "pin_memory", "memory_format", "non_blocking", "generator"})
_DROPPED_CALLS = frozenset({"aten.detach", "aten.alias", "aten.lift_fresh_copy", "aten.lift_fresh"})
_RANDOM_CALLS = frozenset({"aten.bernoulli.p", "aten.bernoulli.default"})
TORCH_FOLDER = str(Path(torch.__file__).parent)
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
_DTYPES = {name: dtype for dtype, name in TYPE_NAMES.items()}


class Recorder:
    """The nodes and constants of a graph that is being written.

    `known` says what stands for a recorded node: bind placeholders there, then `record` the rest.
    """

    def __init__(self) -> None:
        self.constants: list[Constant] = []
        self.nodes: list[Node] = []
        self.known: dict[torch.fx.Node, Argument] = {}
        self._streams = itertools.count()
        self._step_number: Value | None = None
        self._last_line = ""

    def add(
        self,
        call: str,
        arguments: Sequence[Argument],
        outputs: Sequence[TensorMeta | None],
        keywords: dict[str, Argument] | None = None,
        where: str = "",
    ) -> list[Value]:
        """A new node; its outputs."""
        number = len(self.nodes)
        self.nodes.append(Node(call, tuple(arguments), tuple(sorted((keywords or {}).items())), tuple(outputs), where))
        return [Value(number, output) for output in range(len(outputs))]

    def record(self, module: torch.fx.GraphModule) -> None:
        """Write all of a recorded module's calls; its placeholders must be known."""
        for node in module.graph.nodes:
            if node.op == "get_attr":
                self.known[node] = self.constant(_attribute(module, str(node.target)), f"tensor {node.target}")
            elif node.op == "call_function":
                self._call(node)

    def inline(self, function: Callable[..., Any], inputs: Sequence[Input], metas: Sequence[TensorMeta]) -> list[Input]:
        """Write what a function of tensors computes on these inputs, which have these types and shapes.

        The function returns a tensor or a tuple of tensors, and may depend on nothing else.
        """
        examples = [torch.zeros(meta.shape, dtype=_DTYPES[meta.type]) for meta in metas]
        recorded = make_fx(lambda *tensors: function(*tensors), tracing_mode="real")(*examples)
        recorded.graph.eliminate_dead_code()
        nodes = list(recorded.graph.nodes)
        placeholders = [node for node in nodes if node.op == "placeholder"]
        self.known.update(zip(placeholders, inputs, strict=True))
        self.record(recorded)
        (results,) = nodes[-1].args
        return [self.input(node) for node in (results if isinstance(results, list | tuple) else (results,))]

    def step_number(self) -> Value:
        """The global step number; one node, however often it is read."""
        if self._step_number is None:
            (self._step_number,) = self.add("assay.step_number", (), [TensorMeta("int64", ())])
        return self._step_number

    def constant(self, tensor: Tensor, name: str) -> ConstantInput:
        """A tensor that never changes."""
        element_type(tensor, name)
        self.constants.append(Constant(TYPE_NAMES[tensor.dtype], to_numpy(tensor, name)))
        return ConstantInput(len(self.constants) - 1)

    def _call(self, node: torch.fx.Node) -> None:
        name = call_name(node)
        where = user_line(node.stack_trace)
        if where:
            self._last_line = where
        else:
            # The loss and parts of the backward pass have no line of their own.
            where = f"after {self._last_line}" if self._last_line else ""
        if name == "getitem":
            source, index = node.args
            self.known[node] = self._element(source, index, where)
            return
        if name.rsplit(".", 1)[0] in _DROPPED_CALLS:
            self.known[node] = self._argument(node.args[0], where)
            return
        outputs = _metas(node, where)
        if name in _RANDOM_CALLS:
            probability = node.args[1] if len(node.args) > 1 else node.kwargs.get("p")
            if not isinstance(probability, float | int):
                raise UnsupportedError(f"{where}: bernoulli with a tensor of probabilities; use nn.Dropout")
            (value,) = self.add("assay.bernoulli", (next(self._streams), float(probability)), outputs, where=where)
            self.known[node] = value
            return
        arguments = tuple(self._argument(a, where) for a in node.args)
        keywords = {k: self._argument(v, where) for k, v in node.kwargs.items() if k not in _STORAGE_KEYWORDS}
        values = self.add(name, arguments, outputs, keywords, where)
        self.known[node] = values[0] if not _returns_many(node) else tuple(values)

    def _element(self, source: Any, index: Any, where: str) -> Argument:
        values = self.known[source]
        if not isinstance(values, tuple):
            raise UnsupportedError(f"{where}: indexes the result of {call_name(source)}, which is one tensor")
        return values[int(index)]

    def input(self, node: torch.fx.Node) -> Input:
        """What a recorded node stands for, which must be one tensor."""
        value = self.known[node]
        if not isinstance(value, Value | StateInput | DataInput | ConstantInput):
            raise UnsupportedError(f"{user_line(node.stack_trace)}: a list of tensors where one tensor is needed")
        return value

    def _argument(self, value: Any, where: str) -> Argument:
        if isinstance(value, torch.fx.Node):
            return self.known[value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list | tuple):
            return tuple(self._argument(part, where) for part in value)
        if isinstance(value, torch.dtype):
            if value not in TYPE_NAMES:
                raise UnsupportedError(f"{where}: uses {value}; the arithmetic has float32 and int32")
            return TypeName(TYPE_NAMES[value])
        if isinstance(value, torch.device | torch.layout | torch.memory_format):
            return None
        raise UnsupportedError(f"{where}: an argument of type {type(value).__name__} cannot be carried as data")


def element_type(tensor: Tensor, what: str) -> ElementType:
    if tensor.dtype == torch.float32:
        return ElementType.FLOAT
    if tensor.dtype in (torch.int64, torch.int32, torch.bool):
        return ElementType.INT
    raise UnsupportedError(
        f"{what} is {tensor.dtype}: the arithmetic has float32 and int32; convert with .float() "
        "(a native run may still use tf32 or bf16 through its precision setting)"
    )


def user_line(stack: str | None) -> str:
    """The innermost line outside PyTorch, from a node's recorded stack."""
    found = ""
    lines = (stack or "").splitlines()
    for number, line in enumerate(lines):
        match = _FRAME.search(line)
        if match and not match[1].startswith((TORCH_FOLDER, "<")):
            text = lines[number + 1].strip() if number + 1 < len(lines) else ""
            found = f"{Path(match[1]).name}:{match[2]} `{text}`"
    return found


def call_name(node: torch.fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return getattr(target, "__name__", str(target))


def _returns_many(node: torch.fx.Node) -> bool:
    return isinstance(node.meta.get("val"), list | tuple)


def _metas(node: torch.fx.Node, where: str) -> list[TensorMeta | None]:
    """Types and shapes of a call's outputs."""
    value = node.meta.get("val")
    parts: Iterator[Any] = iter(value if isinstance(value, list | tuple) else [value])
    metas: list[TensorMeta | None] = []
    for part in parts:
        if not isinstance(part, Tensor):
            metas.append(None)
            continue
        if part.numel() == 0:
            metas.append(None)  # an output that the call leaves empty, such as an unused mask
            continue
        if part.dtype not in TYPE_NAMES:
            raise UnsupportedError(
                f"{where}: {call_name(node)} gives {part.dtype}; the arithmetic has float32 and int32, "
                "so convert with .float() or .long() before"
            )
        metas.append(TensorMeta(TYPE_NAMES[part.dtype], tuple(part.shape)))
    return metas


def _attribute(module: nn.Module, path: str) -> Tensor:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise UnsupportedError(f"the model reads {path}, which is no tensor")
    return value


def to_numpy(tensor: Tensor, name: str) -> Array:
    """float32 or int32 values of a tensor, in a copy of its own."""
    values = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.float32:
        return values.numpy().copy()
    wide = values.to(torch.int64).numpy()
    if wide.size and (wide.min() < -(2**31) or wide.max() >= 2**31):
        raise UnsupportedError(f"{name} holds integers beyond 32 bits: {wide.min()}..{wide.max()}")
    return wide.astype(np.int32)
