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
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.fx.traceback
from torch import Tensor, nn
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot, make_fx
from torch.overrides import TorchFunctionMode

from assay.program.errors import UnsupportedError
from assay.program.graph import (
    Argument,
    DataInput,
    Graph,
    Input,
    StateInput,
    TensorMeta,
    TypeName,
    Value,
)
from assay.program.lowering.registry import INSTEAD, LOWERINGS, advice
from assay.program.operator import Array, ElementType, TensorDescriptor
from assay.program.optimizer import (
    BETA_POWERS,
    FIRST_MOMENT,
    MOMENTUM,
    SECOND_MOMENT,
    SGD,
    AdamW,
    Optimizer,
    WarmupCosine,
    schedule_of,
)
from assay.program.record import TORCH_FOLDER, TYPE_NAMES, Recorder, call_name, element_type, to_numpy, user_line
from assay.program.step_inputs import SAMPLE_NUMBERS, STEP_NUMBER, step_input_of

Loss = Callable[[Any, Tensor], Tensor]

LOSSES: dict[str, Loss] = {
    "cross_entropy": nn.functional.cross_entropy,
    "mse": nn.functional.mse_loss,
    "bce_with_logits": nn.functional.binary_cross_entropy_with_logits,
}


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
        element_type(tensor, f"{name} of the module")
        if name in parameters and tensor.numel() == 0:
            raise UnsupportedError(f"{name} of the module has shape {tuple(tensor.shape)}: leave empty tensors out")
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
        element_type(tensor, f"data tensor {number}")
    return batch


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

        def look(called: nn.Module, inputs: Any, output: Any) -> None:
            # forward() may also have put other tensors in their place.
            now = dict(called.named_buffers(remove_duplicate=False))
            after.update((name, now[name]) for name in kept if name in now)

        hook = module.register_forward_hook(look)
        try:
            with _ValuesStayTensors():
                output = functional_call(module, {**leaves, **after}, tuple(batch[:-1]))
                value = loss(output, batch[-1])
        finally:
            hook.remove()
        for name, tensor in kept.items():
            if (after[name].shape, after[name].dtype) != (tensor.shape, tensor.dtype):
                raise UnsupportedError(
                    f"the step turns {name} from {tensor.dtype} of shape {tuple(tensor.shape)} into "
                    f"{after[name].dtype} of shape {tuple(after[name].shape)}: a buffer's type and shape are fixed"
                )
        if value.shape != ():
            raise UnsupportedError(f"the loss has shape {tuple(value.shape)}: reduce it to a scalar (mean or sum)")
        if not value.requires_grad:
            raise UnsupportedError("the loss does not depend on any parameter: return the model's loss, not detached")
        recorded_before = len(_nodes_so_far())
        gradients = torch.autograd.grad(value, [leaves[name] for name in trained], allow_unused=True)
        if any(_is_random(node) for node in _nodes_so_far()[recorded_before:]):
            raise UnsupportedError(
                "the backward pass draws random numbers anew, where it computes a forward pass with dropout again: "
                "leave torch.utils.checkpoint out, which changes no result"
            )
        return [value, *gradients, *after.values()]

    trained_set = frozenset(trained)
    first: torch.fx.GraphModule | None = None
    plain = _plain_tensors(module)
    try:
        with torch.enable_grad(), _known_attention():
            recorder = make_fx(step, _DECOMPOSITIONS, tracing_mode="real", record_stack_traces=True)
            first = recorder(parameters, buffers, example_batch)
        _check_plain_tensors(first, plain, _plain_tensors(module))
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
            raise UnsupportedError(f"{_user_line_of(error)}: {_READS_VALUE}") from error
        if "mutating a non-functional tensor" in str(error):
            where = user_line(str(error)) or "in the model"
            raise UnsupportedError(f"{where}: changes a tensor in place that is no buffer: {_REGISTER}") from error
        if first is not None and (refused := _call_without_lowering(first)):
            raise UnsupportedError(refused) from error
        raise
    recorded.graph.eliminate_dead_code()
    return _Recorded(recorded, tuple(name for name, has in zip(trained, used, strict=True) if has))


_READS_VALUE = (
    "the model reads a tensor's value into Python (item(), bool(), an `if` on a tensor); a program is a fixed list of "
    "operators: use torch.where or a mask instead"
)


def _nodes_so_far() -> list[torch.fx.Node]:
    """The calls that the recording under way has."""
    mode = get_proxy_mode()
    return [] if mode is None else list(mode.tracer.graph.nodes)


def _is_random(node: torch.fx.Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


class _ValuesStayTensors(TorchFunctionMode):
    """Refuses what would make values of the example batch a part of the program; PyTorch itself refuses only item()."""

    _READS = frozenset({Tensor.numpy, Tensor.tolist, Tensor.__array__})

    def __torch_function__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function in self._READS and _depends_on_inputs(args[0]):
            line = user_line("".join(traceback.format_stack()[:-1]))
            raise UnsupportedError(f"{line or 'in the model'}: {_READS_VALUE}")
        return function(*args, **(kwargs or {}))


def _depends_on_inputs(tensor: Tensor) -> bool:
    """Whether a tensor follows, in the recording under way, from parameters, buffers or the batch."""
    mode = get_proxy_mode()
    slot = None if mode is None else get_proxy_slot(tensor, mode.tracer, None)
    waiting = [] if slot is None else [slot.proxy.node]
    seen: set[torch.fx.Node] = set()
    while waiting:
        node = waiting.pop()
        if node.op == "placeholder":
            return True
        if node not in seen:
            seen.add(node)
            waiting.extend(node.all_input_nodes)
    return False


_REGISTER = "what lasts from one step to the next has to be a buffer (register_buffer)"


def _plain_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Tensors that modules hold as plain attributes."""
    return {
        f"{prefix}.{name}".lstrip("."): value
        for prefix, part in module.named_modules()
        for name, value in vars(part).items()
        if isinstance(value, Tensor)
    }


def _check_plain_tensors(
    recorded: torch.fx.GraphModule, before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> None:
    """A plain attribute that a step reads and then replaces would be another one at the next step."""
    read = [getattr(recorded, str(node.target), None) for node in recorded.graph.nodes if node.op == "get_attr"]
    for name, tensor in before.items():
        if after.get(name) is not tensor and any(other is tensor for other in read):
            raise UnsupportedError(f"the model reads {name} and then replaces it: {_REGISTER}")


def _call_without_lowering(recorded: torch.fx.GraphModule) -> str:
    """The first call that something is known to use instead of, with its line and that."""
    for node in recorded.graph.nodes:
        name = call_name(node) if node.op == "call_function" else ""
        if name not in LOWERINGS and name.rsplit(".", 1)[0] in INSTEAD:
            where = user_line(node.stack_trace) or "in the model"
            return f"{where}: {name} cannot be lowered: {advice(name)}"
    return ""


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
        if not name.startswith((TORCH_FOLDER, own, "<")):
            text = linecache.getline(name, trace_back.tb_lineno).strip()
            found = f"{Path(name).name}:{trace_back.tb_lineno} `{text}`"
        trace_back = trace_back.tb_next
    return found or "in the model"


# --- from fx to our graph --------------------------------------------------------------------------------------------


class _Builder(Recorder):
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
        super().__init__()
        self.recorded, self.parameters, self.buffers = recorded, parameters, buffers
        self.example_batch, self.samples = example_batch, samples
        names = list(data_names or [f"data.{number}" for number in range(len(example_batch))])
        if len(names) != len(example_batch):
            raise UnsupportedError(f"{len(names)} data names for {len(example_batch)} data tensors")
        self.data = [
            TensorDescriptor(name, element_type(t, name), (samples, *t.shape[1:]))
            for name, t in zip(names, example_batch, strict=True)
        ]
        self.state: list[TensorDescriptor] = []
        self.initial: list[Array] = []
        self.next_state: list[Input] = []

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
        self.record(self.recorded.module)
        for index, node in changed.values():
            self.next_state[index] = self.input(node)
        trained_names = [name for name, p in self.parameters.items() if p.requires_grad]
        gradients = {
            name: self.input(node)
            for name, node in zip(trained_names, gradient_nodes, strict=True)
            if name in self.recorded.trained and node is not None
        }
        self._optimize(optimizer, gradients)
        loss = self.input(loss_node)
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

    def _changed_buffers(
        self, placeholders: list[torch.fx.Node], after: Sequence[torch.fx.Node]
    ) -> dict[str, tuple[int, torch.fx.Node]]:
        """Buffers that the step changes: name to (state number, node of the new value)."""
        changed: dict[str, tuple[int, torch.fx.Node]] = {}
        first = len(self.parameters)
        for offset, (name, node) in enumerate(zip(self.buffers, after, strict=True)):
            origin = node
            while origin.op == "call_function" and call_name(origin) in ("aten.clone.default", "aten.detach.default"):
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
        (indices,) = self.add("assay.permute", (self.samples,), [TensorMeta("int64", (batch,))])
        for name, parameter in self.parameters.items():
            self.known[next(nodes)] = self._add_state(name, to_numpy(parameter, name))
        for name, buffer in self.buffers.items():
            if name in changed:
                self.known[next(nodes)] = self._typed(self._add_state(name, to_numpy(buffer, name)), buffer)
            elif (step_input := step_input_of(name)) is not None:
                self.known[next(nodes)] = self._step_input(step_input, name, buffer, indices)
            else:
                self.known[next(nodes)] = self.constant(buffer, name)
        for number, (node, tensor) in enumerate(zip(nodes, self.example_batch, strict=True)):
            meta = TensorMeta(TYPE_NAMES[tensor.dtype], tuple(tensor.shape))
            (self.known[node],) = self.add("assay.gather", (DataInput(number), indices), [meta])

    def _typed(self, state: StateInput, buffer: Tensor) -> Input:
        """A state tensor as the model's calls take it: states are float32 or int32, and PyTorch's kernels tell truth
        values, and indices, from those."""
        if buffer.dtype != torch.bool and (buffer.dtype != torch.int64 or buffer.dim() == 0):
            return state
        name = TYPE_NAMES[buffer.dtype]
        meta = TensorMeta(name, tuple(buffer.shape))
        (value,) = self.add("aten._to_copy.default", (state,), [meta], {"dtype": TypeName(name)})
        return value

    def _step_input(self, kind: str, name: str, buffer: Tensor, indices: Value) -> Value:
        """The value of a buffer that stands for the step's number or its samples."""
        shapes = {STEP_NUMBER: (), SAMPLE_NUMBERS: (self.example_batch[0].shape[0],)}
        if buffer.dtype != torch.int64 or tuple(buffer.shape) != shapes[kind]:
            raise UnsupportedError(
                f"{name} is {buffer.dtype} of shape {tuple(buffer.shape)}: the step gives torch.int64 of shape "
                f"{shapes[kind]}; register it with assay.program.step_inputs.register_step_inputs(module, batch)"
            )
        return indices if kind == SAMPLE_NUMBERS else self.step_number()

    # --- the optimizer ---

    def _optimize(self, optimizer: Optimizer, gradients: dict[str, Input]) -> None:
        names = list(gradients)
        states = {name: number for number, name in enumerate(self.parameters)}
        metas = {name: TensorMeta("float32", tuple(self.parameters[name].shape)) for name in names}
        values: list[Input] = [gradients[name] for name in names]
        if optimizer.clip_norm is not None:
            values = list(
                self.add("assay.clip", (float(optimizer.clip_norm), tuple(values)), [metas[name] for name in names])
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
        return self.add("assay.learning_rate", arguments, [TensorMeta("float32", ())])

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
            momenta = [self._add_state(MOMENTUM + n, np.zeros(metas[n].shape, np.float32)) for n in names]
        outputs = [metas[n] for n in names] * (2 if momenta else 1)
        results = self.add(
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
        first = {n: self._add_state(FIRST_MOMENT + n, np.zeros(metas[n].shape, np.float32)) for n in names}
        second = {n: self._add_state(SECOND_MOMENT + n, np.zeros(metas[n].shape, np.float32)) for n in names}
        powers = tuple(self._add_state(name, np.ones((), np.float32)) for name in BETA_POWERS)
        beta1, beta2 = (float(beta) for beta in optimizer.betas)
        scalar = TensorMeta("float32", ())
        new_powers = self.add("assay.beta_powers", powers, [scalar, scalar], {"beta1": beta1, "beta2": beta2})
        self._assign(powers, new_powers)
        decayed = [n for n in names if optimizer.decay == "all" or len(metas[n].shape) >= 2]
        rest = [n for n in names if n not in set(decayed)]
        for group, decay in ((decayed, float(optimizer.weight_decay)), (rest, 0.0)):
            if not group:
                continue
            shapes = [metas[n] for n in group]
            results = self.add(
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
