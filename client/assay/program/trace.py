"""From a PyTorch module to the graph of one training step.

The module's forward pass, the loss and their backward pass are run once on the example batch and recorded as ATen calls
(`torch.fx.experimental.proxy_tensor.make_fx`); sampling of the batch and the optimizer are added as calls of our own:

    assay.permute(samples; batch)               which samples the step takes: int64[batch]
    assay.gather(data, indices)                 those samples
    assay.step_number()                         the global step number, where the model reads it: int64
    assay.bernoulli(stream, probability)        1 with that probability, else 0 (dropout), through Philox
    assay.learning_rate(kind, ...)              a scalar, from the step number
    assay.clip(norm, gradients)                 gradients scaled to a global norm
    assay.sgd, assay.adamw                      the update of one group of parameters
"""

from __future__ import annotations

import itertools
import linecache
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.fx.traceback
from torch import Tensor, nn
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from assay.program.errors import UnsupportedError
from assay.program.graph import (
    Argument,
    Constant,
    ConstantInput,
    DataInput,
    Graph,
    Input,
    Node,
    StateInput,
    TensorMeta,
    TypeName,
    Value,
)
from assay.program.operator import Array, ElementType, TensorDescriptor
from assay.program.optimizer import SGD, AdamW, Optimizer, WarmupCosine, schedule_of
from assay.program.step_inputs import SAMPLE_NUMBERS, STEP_NUMBER, step_input_of

Loss = Callable[[Any, Tensor], Tensor]

LOSSES: dict[str, Loss] = {
    "cross_entropy": nn.functional.cross_entropy,
    "mse": nn.functional.mse_loss,
    "bce_with_logits": nn.functional.binary_cross_entropy_with_logits,
}

_TYPE_NAMES = {torch.float32: "float32", torch.int64: "int64", torch.int32: "int32", torch.bool: "bool"}
# Arguments that say where and how a tensor is stored, not what is in it.
_STORAGE_KEYWORDS = frozenset({"device", "layout", "pin_memory", "memory_format", "non_blocking", "generator"})
_DROPPED_CALLS = frozenset({"aten.detach", "aten.alias", "aten.lift_fresh_copy", "aten.lift_fresh"})
_RANDOM_CALLS = frozenset({"aten.bernoulli.p", "aten.bernoulli.default"})
_TORCH_FOLDER = str(Path(torch.__file__).parent)
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')


@dataclass(frozen=True, eq=False)
class TracedTask:
    """The graph of a training step and the state it starts from."""

    graph: Graph
    initial_state: tuple[Array, ...]
    batch: int  # samples in a step
    samples: int  # samples in the data


def trace(
    module: nn.Module,
    loss: str | Loss,
    optimizer: Optimizer,
    example_batch: Sequence[Tensor],
    samples: int,
    data_names: Sequence[str] | None = None,
) -> TracedTask:
    """Trace one training step of `module` in the mode (`train()` or `eval()`) it is in.

    `example_batch` is one batch of each data tensor, batch dimension first; the module is called with all of them but
    the last, the loss with the module's output and the last. `loss` is one of LOSSES or a function. `samples` is the
    number of samples in the data. Element types: float32, and integers that fit into 32 bits.

    Raises `UnsupportedError`, with the user's source line, for what cannot become a program.
    """
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise UnsupportedError(f"loss {loss!r} is unknown: choose one of {', '.join(LOSSES)}, or give a function")
        loss = LOSSES[loss]
    batch = _check_batch(example_batch, samples)
    parameters = dict(module.named_parameters())
    buffers = dict(module.named_buffers())
    if not any(p.requires_grad for p in parameters.values()):
        raise UnsupportedError("the module has no parameters to train: set requires_grad on those it should learn")
    for name, tensor in itertools.chain(parameters.items(), buffers.items()):
        _element_type(tensor, f"{name} of the module")
    recorded = _record(module, loss, parameters, buffers, list(example_batch))
    builder = _Builder(recorded, parameters, buffers, list(example_batch), samples, data_names)
    graph, initial_state = builder.build(optimizer)
    return TracedTask(graph, initial_state, batch, samples)


def _check_batch(example_batch: Sequence[Tensor], samples: int) -> int:
    if len(example_batch) < 2:
        raise UnsupportedError(f"the example batch has {len(example_batch)} tensors: give inputs and a target")
    sizes = {tensor.shape[0] if tensor.dim() else 0 for tensor in example_batch}
    if len(sizes) != 1 or 0 in sizes:
        shapes = [tuple(tensor.shape) for tensor in example_batch]
        raise UnsupportedError(f"the example batch has shapes {shapes}: all need the same first dimension")
    batch = sizes.pop()
    if not 1 <= samples < 2**31:
        raise UnsupportedError(f"{samples} samples of data: from 1 to 2^31 - 1 can be addressed")
    for number, tensor in enumerate(example_batch):
        _element_type(tensor, f"data tensor {number}")
    return batch


def _element_type(tensor: Tensor, what: str) -> ElementType:
    if tensor.dtype == torch.float32:
        return ElementType.FLOAT
    if tensor.dtype in (torch.int64, torch.int32, torch.bool):
        return ElementType.INT
    raise UnsupportedError(
        f"{what} is {tensor.dtype}: the arithmetic has float32 and int32; convert with .float() "
        "(a native run may still use tf32 or bf16 through its precision setting)"
    )


# --- recording -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Recorded:
    """The recorded pass: placeholders are parameters, buffers, batch; outputs are loss, gradients, buffers after."""

    module: torch.fx.GraphModule
    trained: tuple[str, ...]  # parameters that take part, in order


def _record(
    module: nn.Module,
    loss: Loss,
    parameters: Mapping[str, Tensor],
    buffers: Mapping[str, Tensor],
    example_batch: list[Tensor],
) -> _Recorded:
    trained = [name for name, parameter in parameters.items() if parameter.requires_grad]

    def step(values: dict[str, Tensor], kept: dict[str, Tensor], batch: list[Tensor]) -> list[Any]:
        leaves = {name: v.detach().requires_grad_(name in trained_set) for name, v in values.items()}
        # Buffers are changed in place (batch norm's running statistics): on copies, which are the next state.
        after = {name: tensor.clone() for name, tensor in kept.items()}
        output = functional_call(module, {**leaves, **after}, tuple(batch[:-1]))
        value = loss(output, batch[-1])
        if value.shape != ():
            raise UnsupportedError(f"the loss has shape {tuple(value.shape)}: reduce it to a scalar (mean or sum)")
        gradients = torch.autograd.grad(value, [leaves[name] for name in trained], allow_unused=True)
        return [value, *gradients, *after.values()]

    trained_set = frozenset(trained)
    try:
        with torch.enable_grad(), _known_attention():
            recorder = make_fx(step, _DECOMPOSITIONS, tracing_mode="real", record_stack_traces=True)
            first = recorder(parameters, buffers, example_batch)
        used = _used_gradients(first, len(trained))
        flat = [*parameters.values(), *buffers.values(), *example_batch]
        first.graph.set_codegen(torch.fx.graph.CodeGen())
        first.recompile()
        # A second pass turns in-place changes into values; each node keeps the user's stack trace.
        with torch.fx.traceback.preserve_node_meta(), torch.no_grad():
            pure = functionalize(lambda *inputs: torch.fx.Interpreter(first).run(*inputs), remove="mutations")
            recorded = make_fx(pure, tracing_mode="real")(*flat)
    except UnsupportedError:
        raise
    except RuntimeError as error:
        if "_local_scalar_dense" in str(error) or "data-dependent" in str(error) or "get a value out of" in str(error):
            raise UnsupportedError(
                f"{_user_line_of(error)}: the model reads a tensor's value into Python (item(), bool(), an `if` on a "
                "tensor); a program is a fixed list of operators: use torch.where or a mask instead"
            ) from error
        raise
    recorded.graph.eliminate_dead_code()
    return _Recorded(recorded, tuple(name for name, has in zip(trained, used, strict=True) if has))


def _batch_norm(*arguments: Any) -> Any:
    """Batch norm whose schema admits that it changes its running statistics, so that functionalization sees it."""
    if not arguments[5]:
        return torch.ops.aten._native_batch_norm_legit_no_training.default(*arguments[:5], *arguments[6:])
    if arguments[3] is None:
        return torch.ops.aten._native_batch_norm_legit.no_stats(*arguments[:3], *arguments[5:])
    return torch.ops.aten._native_batch_norm_legit.default(*arguments)


_DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {torch.ops.aten.native_batch_norm.default: _batch_norm}


def _known_attention() -> Any:
    """Attention goes through the kernels whose calls the lowering knows."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH])


def _used_gradients(recorded: torch.fx.GraphModule, count: int) -> list[bool]:
    """Whether each gradient exists; those of parameters that do not take part are None."""
    output = next(iter(reversed(recorded.graph.nodes)))
    return [gradient is not None for gradient in output.args[0][1 : 1 + count]]


def _user_line_of(error: BaseException) -> str:
    """The innermost source line outside PyTorch and this package, from an exception's traceback."""
    found = ""
    trace_back = error.__traceback__
    own = str(Path(__file__).parent)
    while trace_back is not None:
        name = trace_back.tb_frame.f_code.co_filename
        if not name.startswith((_TORCH_FOLDER, own, "<")):
            text = linecache.getline(name, trace_back.tb_lineno).strip()
            found = f"{Path(name).name}:{trace_back.tb_lineno} `{text}`"
        trace_back = trace_back.tb_next
    return found or "in the model"


def _user_line(stack: str | None) -> str:
    """The innermost line outside PyTorch, from a node's recorded stack."""
    found = ""
    lines = (stack or "").splitlines()
    for number, line in enumerate(lines):
        match = _FRAME.search(line)
        if match and not match[1].startswith((_TORCH_FOLDER, "<")):
            text = lines[number + 1].strip() if number + 1 < len(lines) else ""
            found = f"{Path(match[1]).name}:{match[2]} `{text}`"
    return found


# --- from fx to our graph --------------------------------------------------------------------------------------------


class _Builder:
    """Collects state, data, constants and nodes of the graph from the recorded pass."""

    def __init__(
        self,
        recorded: _Recorded,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        example_batch: list[Tensor],
        samples: int,
        data_names: Sequence[str] | None,
    ) -> None:
        self.recorded, self.parameters, self.buffers = recorded, parameters, buffers
        self.example_batch, self.samples = example_batch, samples
        names = list(data_names or [f"data.{number}" for number in range(len(example_batch))])
        if len(names) != len(example_batch):
            raise UnsupportedError(f"{len(names)} data names for {len(example_batch)} data tensors")
        self.data = [
            TensorDescriptor(name, _element_type(t, name), (samples, *t.shape[1:]))
            for name, t in zip(names, example_batch, strict=True)
        ]
        self.state: list[TensorDescriptor] = []
        self.initial: list[Array] = []
        self.next_state: list[Input] = []
        self.constants: list[Constant] = []
        self.nodes: list[Node] = []
        self.known: dict[torch.fx.Node, Argument] = {}
        self.streams = itertools.count()
        self.step_number: Value | None = None
        self.last_line = ""

    def build(self, optimizer: Optimizer) -> tuple[Graph, tuple[Array, ...]]:
        """The graph and the initial state."""
        fx_nodes = list(self.recorded.module.graph.nodes)
        placeholders = [node for node in fx_nodes if node.op == "placeholder"]
        (results,) = fx_nodes[-1].args
        trained_count = sum(p.requires_grad for p in self.parameters.values())
        loss_node, gradient_nodes = results[0], results[1 : 1 + trained_count]
        buffer_nodes = results[1 + trained_count :]
        changed = self._changed_buffers(placeholders, buffer_nodes)
        self._bind_placeholders(placeholders, changed)
        for node in fx_nodes:
            if node.op == "get_attr":
                tensor = _attribute(self.recorded.module, str(node.target))
                self.known[node] = self._constant(tensor, f"tensor {node.target}")
            elif node.op == "call_function":
                self._call(node)
        for index, node in changed.values():
            self.next_state[index] = self._input(node)
        trained_names = [name for name, p in self.parameters.items() if p.requires_grad]
        gradients = {
            name: self._input(node)
            for name, node in zip(trained_names, gradient_nodes, strict=True)
            if name in self.recorded.trained and node is not None
        }
        self._optimize(optimizer, gradients)
        loss = self._input(loss_node)
        if not isinstance(loss, Value):
            raise UnsupportedError("the loss does not depend on the step: return the model's loss")
        graph = Graph(
            tuple(self.state), tuple(self.data), tuple(self.constants), tuple(self.nodes), tuple(self.next_state), loss
        )
        return graph, tuple(self.initial)

    def _add_state(self, name: str, values: Array) -> StateInput:
        index = len(self.state)
        self.state.append(TensorDescriptor(name, ElementType.of(values), tuple(values.shape)))
        self.initial.append(values)
        self.next_state.append(StateInput(index))
        return StateInput(index)

    def _add(
        self,
        call: str,
        arguments: Sequence[Argument],
        outputs: Sequence[TensorMeta | None],
        keywords: dict[str, Argument] | None = None,
        where: str = "",
    ) -> list[Value]:
        number = len(self.nodes)
        self.nodes.append(Node(call, tuple(arguments), tuple(sorted((keywords or {}).items())), tuple(outputs), where))
        return [Value(number, output) for output in range(len(outputs))]

    def _changed_buffers(
        self, placeholders: list[torch.fx.Node], after: Sequence[torch.fx.Node]
    ) -> dict[str, tuple[int, torch.fx.Node]]:
        """Buffers that the step changes: name to (state number, node of the new value)."""
        changed: dict[str, tuple[int, torch.fx.Node]] = {}
        first = len(self.parameters)
        for offset, (name, node) in enumerate(zip(self.buffers, after, strict=True)):
            origin = node
            while origin.op == "call_function" and _call_name(origin) in ("aten.clone.default", "aten.detach.default"):
                origin = origin.args[0]  # type: ignore[assignment]
            if origin is not placeholders[first + offset]:
                if step_input_of(name) is not None:
                    raise UnsupportedError(f"the model writes to {name}, which the step sets; only read it")
                changed[name] = (first + len(changed), node)
        return changed

    def _bind_placeholders(
        self, placeholders: list[torch.fx.Node], changed: dict[str, tuple[int, torch.fx.Node]]
    ) -> None:
        nodes = iter(placeholders)
        batch = self.example_batch[0].shape[0]
        (indices,) = self._add("assay.permute", (self.samples,), [TensorMeta("int64", (batch,))])
        for name, parameter in self.parameters.items():
            self.known[next(nodes)] = self._add_state(name, _to_numpy(parameter, name))
        for name, buffer in self.buffers.items():
            if name in changed:
                self.known[next(nodes)] = self._add_state(name, _to_numpy(buffer, name))
            elif (step_input := step_input_of(name)) is not None:
                self.known[next(nodes)] = self._step_input(step_input, name, buffer, indices)
            else:
                self.known[next(nodes)] = self._constant(buffer, name)
        for number, (node, tensor) in enumerate(zip(nodes, self.example_batch, strict=True)):
            meta = TensorMeta(_TYPE_NAMES[tensor.dtype], tuple(tensor.shape))
            (self.known[node],) = self._add("assay.gather", (DataInput(number), indices), [meta])

    def _step_input(self, kind: str, name: str, buffer: Tensor, indices: Value) -> Value:
        """The value of a buffer that stands for the step's number or its samples."""
        shapes = {STEP_NUMBER: (), SAMPLE_NUMBERS: (self.example_batch[0].shape[0],)}
        if buffer.dtype != torch.int64 or tuple(buffer.shape) != shapes[kind]:
            raise UnsupportedError(
                f"{name} is {buffer.dtype} of shape {tuple(buffer.shape)}: the step gives torch.int64 of shape "
                f"{shapes[kind]}; register it with assay.program.step_inputs.register_step_inputs(module, batch)"
            )
        return indices if kind == SAMPLE_NUMBERS else self._step_number()

    def _step_number(self) -> Value:
        """The global step number; one node, however often it is read."""
        if self.step_number is None:
            (self.step_number,) = self._add("assay.step_number", (), [TensorMeta("int64", ())])
        return self.step_number

    def _constant(self, tensor: Tensor, name: str) -> ConstantInput:
        _element_type(tensor, name)
        self.constants.append(Constant(_TYPE_NAMES[tensor.dtype], _to_numpy(tensor, name)))
        return ConstantInput(len(self.constants) - 1)

    def _call(self, node: torch.fx.Node) -> None:
        name = _call_name(node)
        where = _user_line(node.stack_trace)
        if where:
            self.last_line = where
        else:
            # The loss and parts of the backward pass have no line of their own.
            where = f"after {self.last_line}" if self.last_line else ""
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
            (value,) = self._add("assay.bernoulli", (next(self.streams), float(probability)), outputs, where=where)
            self.known[node] = value
            return
        arguments = tuple(self._argument(a, where) for a in node.args)
        keywords = {k: self._argument(v, where) for k, v in node.kwargs.items() if k not in _STORAGE_KEYWORDS}
        values = self._add(name, arguments, outputs, keywords, where)
        self.known[node] = values[0] if not _returns_many(node) else tuple(values)

    def _element(self, source: Any, index: Any, where: str) -> Argument:
        values = self.known[source]
        if not isinstance(values, tuple):
            raise UnsupportedError(f"{where}: indexes the result of {_call_name(source)}, which is one tensor")
        return values[int(index)]

    def _input(self, node: torch.fx.Node) -> Input:
        value = self.known[node]
        if not isinstance(value, Value | StateInput | DataInput | ConstantInput):
            raise UnsupportedError(f"{_user_line(node.stack_trace)}: a list of tensors where one tensor is needed")
        return value

    def _argument(self, value: Any, where: str) -> Argument:
        if isinstance(value, torch.fx.Node):
            return self.known[value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, list | tuple):
            return tuple(self._argument(part, where) for part in value)
        if isinstance(value, torch.dtype):
            if value not in _TYPE_NAMES:
                raise UnsupportedError(f"{where}: uses {value}; the arithmetic has float32 and int32")
            return TypeName(_TYPE_NAMES[value])
        if isinstance(value, torch.device | torch.layout | torch.memory_format):
            return None
        raise UnsupportedError(f"{where}: an argument of type {type(value).__name__} cannot be carried as data")

    # --- the optimizer ---

    def _optimize(self, optimizer: Optimizer, gradients: dict[str, Input]) -> None:
        names = list(gradients)
        states = {name: number for number, name in enumerate(self.parameters)}
        metas = {name: TensorMeta("float32", tuple(self.parameters[name].shape)) for name in names}
        values: list[Input] = [gradients[name] for name in names]
        if optimizer.clip_norm is not None:
            values = list(
                self._add("assay.clip", (float(optimizer.clip_norm), tuple(values)), [metas[name] for name in names])
            )
        (rate,) = self._learning_rate(optimizer)
        gradient_of = dict(zip(names, values, strict=True))
        if isinstance(optimizer, SGD):
            self._sgd(optimizer, names, states, metas, gradient_of, rate)
        else:
            self._adamw(optimizer, names, states, metas, gradient_of, rate)

    def _learning_rate(self, optimizer: Optimizer) -> list[Value]:
        schedule = schedule_of(optimizer)
        arguments: tuple[Argument, ...] = (
            ("constant", float(schedule.rate))
            if not isinstance(schedule, WarmupCosine)
            else ("warmup_cosine", float(schedule.peak), schedule.warmup, schedule.total, float(schedule.final))
        )
        return self._add("assay.learning_rate", arguments, [TensorMeta("float32", ())])

    def _sgd(
        self,
        optimizer: SGD,
        names: list[str],
        states: dict[str, int],
        metas: dict[str, TensorMeta],
        gradients: dict[str, Input],
        rate: Value,
    ) -> None:
        momenta: list[Argument] = []
        if optimizer.momentum:
            momenta = [self._add_state(f"momentum.{n}", np.zeros(metas[n].shape, np.float32)) for n in names]
        outputs = [metas[n] for n in names] * (2 if momenta else 1)
        results = self._add(
            "assay.sgd",
            (tuple(StateInput(states[n]) for n in names), tuple(gradients[n] for n in names), tuple(momenta), rate),
            outputs,
            {
                "momentum": float(optimizer.momentum),
                "weight_decay": float(optimizer.weight_decay),
                "nesterov": optimizer.nesterov,
            },
        )
        targets = [StateInput(states[n]) for n in names] + [m for m in momenta if isinstance(m, StateInput)]
        self._assign(targets, results)

    def _adamw(
        self,
        optimizer: AdamW,
        names: list[str],
        states: dict[str, int],
        metas: dict[str, TensorMeta],
        gradients: dict[str, Input],
        rate: Value,
    ) -> None:
        first = {n: self._add_state(f"first_moment.{n}", np.zeros(metas[n].shape, np.float32)) for n in names}
        second = {n: self._add_state(f"second_moment.{n}", np.zeros(metas[n].shape, np.float32)) for n in names}
        powers = tuple(self._add_state(f"beta{i}_power", np.ones((), np.float32)) for i in (1, 2))
        beta1, beta2 = (float(beta) for beta in optimizer.betas)
        scalar = TensorMeta("float32", ())
        new_powers = self._add("assay.beta_powers", powers, [scalar, scalar], {"beta1": beta1, "beta2": beta2})
        self._assign(powers, new_powers)
        decayed = [n for n in names if optimizer.decay == "all" or len(metas[n].shape) >= 2]
        rest = [n for n in names if n not in set(decayed)]
        for group, decay in ((decayed, float(optimizer.weight_decay)), (rest, 0.0)):
            if not group:
                continue
            shapes = [metas[n] for n in group]
            results = self._add(
                "assay.adamw",
                (
                    tuple(StateInput(states[n]) for n in group),
                    tuple(gradients[n] for n in group),
                    tuple(first[n] for n in group),
                    tuple(second[n] for n in group),
                    *new_powers,
                    rate,
                ),
                shapes * 3,
                {"beta1": beta1, "beta2": beta2, "epsilon": float(optimizer.epsilon), "weight_decay": decay},
            )
            targets = [*(StateInput(states[n]) for n in group), *(first[n] for n in group), *(second[n] for n in group)]
            self._assign(targets, results)

    def _assign(self, targets: Sequence[StateInput], results: Sequence[Value]) -> None:
        for target, result in zip(targets, results, strict=True):
            self.next_state[target.index] = result


def _call_name(node: torch.fx.Node) -> str:
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
        if part.dtype not in _TYPE_NAMES:
            raise UnsupportedError(
                f"{where}: {_call_name(node)} gives {part.dtype}; the arithmetic has float32 and int32, "
                "so convert with .float() or .long() before"
            )
        metas.append(TensorMeta(_TYPE_NAMES[part.dtype], tuple(part.shape)))
    return metas


def _attribute(module: nn.Module, path: str) -> Tensor:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise UnsupportedError(f"the model reads {path}, which is no tensor")
    return value


def _to_numpy(tensor: Tensor, name: str) -> Array:
    """float32 or int32 values of a tensor, in a copy of its own."""
    values = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.float32:
        return values.numpy().copy()
    wide = values.to(torch.int64).numpy()
    if wide.size and (wide.min() < -(2**31) or wide.max() >= 2**31):
        raise UnsupportedError(f"{name} holds integers beyond 32 bits: {wide.min()}..{wide.max()}")
    return wide.astype(np.int32)
