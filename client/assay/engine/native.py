"""Native training: the traced graph executed with PyTorch's own kernels, as fast as the user's own loop.

The graph is compiled once into a flat list of calls on numbered slots: views of the state are made once, every value is
let go after its last use, and the optimizer changes the state in place through PyTorch's fused kernels. Nothing is
generated or evaluated as code: calls are looked up by name, and only those the lowering knows exist.

Batches and dropout are the canonical run's own, bit for bit; everything else is as reproducible as the kernels are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.engine import native_random
from assay.engine.native_precision import CastPlan
from assay.program.errors import GraphError
from assay.program.graph import (
    Argument,
    ConstantInput,
    DataInput,
    Graph,
    Input,
    Node,
    StateInput,
    TypeName,
    Value,
    each_input,
)
from assay.program.lowering.registry import LOWERINGS, advice
from assay.program.operator import Array
from assay.program.optimizer import Constant, WarmupCosine, learning_rate
from assay.program.sections import Precision

_DTYPES = {"float32": torch.float32, "int64": torch.int64, "int32": torch.int32, "bool": torch.bool}
_UPDATES = frozenset({"assay.sgd", "assay.adamw", "assay.beta_powers"})
# Calls that only look at their first argument in another way: of the state, they can be made once.
_VIEWS = frozenset(
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
_CREATIONS = frozenset({"aten.arange.default", "aten.arange.start", "aten.arange.start_step", "aten.full.default"})
_ATTENTION = "aten._scaled_dot_product_flash_attention_for_cpu.default"
_ATTENTION_BACKWARD = "aten._scaled_dot_product_flash_attention_for_cpu_backward.default"
# A bias correction 1 - beta^t is 1 in binary32 long before this many steps once beta^t has underflowed.
_LONG_AGO = 1_000_000

Environment = list[Any]
Call = Callable[[Environment], None]


class NativeRun:
    """A native training run: `load` a state, `advance` through global steps, read `loss` and `copy_state`.

    `data` are the graph's data tensors (float32 or int32); they are moved to the device whole.
    """

    def __init__(
        self,
        graph: Graph,
        data: Sequence[Array],
        seed: int,
        device: str | torch.device = "cpu",
        precision: Precision = Precision.FP32,
    ) -> None:
        self.graph, self.seed, self.device, self.precision = graph, seed, torch.device(device), precision
        if len(data) != len(graph.data):
            raise GraphError(f"the graph reads {len(graph.data)} data tensors, {len(data)} were given")
        for number, (array, descriptor) in enumerate(zip(data, graph.data, strict=True)):
            if tuple(array.shape) != descriptor.shape or array.dtype != descriptor.type.dtype:
                raise GraphError(
                    f"data tensor {number} is {array.dtype} of shape {array.shape}, "
                    f"the graph wants {descriptor.type.dtype} of shape {descriptor.shape}"
                )
        self._data = [self._tensor(array) for array in data]
        self._state = [torch.empty(d.shape, dtype=_dtype_of(d.type.dtype), device=self.device) for d in graph.state]
        self._optimizer_steps: list[list[Any]] = []
        self._loss: Tensor | None = None
        self._step = 0
        self._environment: Environment = [None] * sum(len(node.outputs) + 1 for node in graph.nodes)
        self._calls = _Compiler(self).compile()

    def _tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(np.array(array, order="C")).to(self.device)

    def load(self, state: Sequence[Array]) -> None:
        """Take a state (arrays in the graph's order) as the current one; the arrays are copied."""
        if len(state) != len(self._state):
            raise GraphError(f"the state has {len(self._state)} tensors, {len(state)} were given")
        for target, array in zip(self._state, state, strict=True):
            if tuple(array.shape) != tuple(target.shape):
                raise GraphError(f"a state tensor has shape {array.shape}, the graph wants {tuple(target.shape)}")
            target.copy_(torch.from_numpy(np.array(array, order="C")))
        for record in self._optimizer_steps:
            record[0] = None  # the optimizer's own step number follows from the power of beta just loaded

    def advance(self, number: int) -> None:
        """Execute global step `number` on the current state."""
        self._step = number
        environment = self._environment
        with _settings(self.precision, self.device):
            for call in self._calls:
                call(environment)

    def loss(self) -> float | None:
        """The loss of the step just executed (waits for the device)."""
        return None if self._loss is None else float(self._loss)

    def copy_state(self) -> list[Array]:
        """A copy of the current state as arrays, in the graph's order."""
        return [tensor.detach().cpu().numpy().copy() for tensor in self._state]


def _dtype_of(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.float32 if dtype == np.float32 else torch.int32


@contextlib.contextmanager
def _settings(precision: Precision, device: torch.device) -> Iterator[None]:
    """No autograd, and on CUDA tf32 products exactly where the precision says so."""
    if device.type != "cuda":
        with torch.inference_mode():
            yield
        return
    tf32 = precision is not Precision.FP32
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


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


def has_recorded_attention(device: torch.device) -> bool:
    """Whether the attention kernel that tracing records exists on a device: it is the CPU's own."""
    return device.type == "cpu"


class _Compiler:
    """Turns the graph's nodes into calls on slots: slot numbers for every output, plus casts where precision asks."""

    def __init__(self, run: NativeRun) -> None:
        self.run, self.graph = run, run.graph
        self.calls: list[Call] = []
        self.first_slot: list[int] = []
        self.fixed: set[int] = set()  # slots that are made once
        self.slots = len(run._environment)
        slot = 0
        for node in self.graph.nodes:
            self.first_slot.append(slot)
            slot += len(node.outputs)
        self.casts = CastPlan(self.graph, run.precision is Precision.BF16)
        self.last_use = self._last_uses()

    def compile(self) -> list[Call]:
        """All calls of a step, in order."""
        self._check_updates_last()
        for number, node in enumerate(self.graph.nodes):
            try:
                self._node(number, node)
            except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
                raise GraphError(f"node {number} ({node.call}) cannot be run: {error}") from error
        self._assign_rest()
        return self.calls

    def _slot(self, value: Value) -> int:
        return self.first_slot[value.node] + value.output

    def _last_uses(self) -> dict[int, list[int]]:
        """Slots that no later node reads, by the number of the last node that does."""
        last: dict[int, int] = {}
        for number, node in enumerate(self.graph.nodes):

            def visit(value: Input, number: int = number) -> None:
                if isinstance(value, Value):
                    last[self._slot(value)] = number

            each_input((*node.arguments, *(argument for _, argument in node.keywords)), visit)
        kept = {self._slot(v) for v in (*self.graph.next_state, self.graph.loss) if isinstance(v, Value)}
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

    # --- operands ---

    def _operand(self, argument: Argument) -> tuple[Any, int | None]:
        """(value, None) for what is known now, or (None, slot)."""
        if isinstance(argument, StateInput):
            return self.run._state[argument.index], None
        if isinstance(argument, DataInput):
            return self.run._data[argument.index], None
        if isinstance(argument, ConstantInput):
            return self._constant(argument.index), None
        if isinstance(argument, TypeName):
            return _DTYPES[argument.name], None
        if isinstance(argument, Value):
            slot = self._slot(argument)
            return (self.run._environment[slot], None) if slot in self.fixed else (None, slot)
        return argument, None

    def _constant(self, index: int) -> Tensor:
        constant = self.graph.constants[index]
        tensor = torch.from_numpy(np.array(constant.values, order="C")).to(_DTYPES[constant.type])
        return tensor.to(self.run.device)

    def _reader(self, argument: Argument) -> Callable[[Environment], Any]:
        """A function from the environment to an argument's value."""
        if isinstance(argument, tuple):
            if not _has_input(argument):
                known = [self._operand(part)[0] for part in argument]
                return lambda environment: known
            readers = [self._reader(part) for part in argument]
            return lambda environment: [read(environment) for read in readers]
        value, slot = self._operand(argument)
        if slot is None:
            return lambda environment: value
        return lambda environment: environment[slot]

    def _free(self, number: int) -> None:
        slots = tuple(slot for slot in self.last_use.get(number, ()) if slot not in self.fixed)
        if slots:

            def free(environment: Environment) -> None:
                for slot in slots:
                    environment[slot] = None

            self.calls.append(free)

    # --- nodes ---

    def _node(self, number: int, node: Node) -> None:
        call: Callable[[Environment], Any] | None
        if node.call in _SPECIAL:
            call = _SPECIAL[node.call](self, node)
        elif node.call in (_ATTENTION, _ATTENTION_BACKWARD) and not has_recorded_attention(self.run.device):
            call = self._attention(node)
        else:
            call = self._aten(number, node)
        if call is None:
            return
        self.calls.append(_stored(call, self._store(number, node)))
        self._free(number)

    def _store(self, number: int, node: Node) -> Callable[[Environment, Any], None]:
        first, count = self.first_slot[number], len(node.outputs)
        if count == 1 and node.call not in _LISTS:

            def store_one(environment: Environment, result: Any) -> None:
                environment[first] = result

            return store_one

        def store_all(environment: Environment, result: Any) -> None:
            environment[first : first + count] = result[:count]

        return store_all

    def _aten(self, number: int, node: Node) -> Callable[[Environment], Any] | None:
        function = resolve(node.call)
        keywords: dict[str, Any] = {name: self._operand(argument)[0] for name, argument in node.keywords}
        if any(_has_input(argument) for _, argument in node.keywords):
            return self._with_keyword_tensors(function, node)
        if node.call in _FACTORIES:
            keywords["device"] = self.run.device
        flat = [self._operand(a) if not isinstance(a, tuple) else (None, None) for a in node.arguments]
        readers = {i: self._reader(a) for i, a in enumerate(node.arguments) if isinstance(a, tuple)}
        constant = not any(slot is not None for _, slot in flat) and not any(
            _has_input(a) for a in node.arguments if isinstance(a, tuple)
        )
        base = [value for value, _ in flat]
        for place, read in readers.items():
            if not _has_input(node.arguments[place]):
                base[place] = read([])
        casts = self.casts.of(number)
        if constant and not casts and (node.call in _VIEWS or node.call in _CREATIONS):
            # What only depends on the state's storage, or on nothing, is made once.
            with torch.no_grad():
                self.run._environment[self.first_slot[number]] = function(*base, **keywords)
            self.fixed.add(self.first_slot[number])
            return None
        slots = tuple((place, slot) for place, (_, slot) in enumerate(flat) if slot is not None)
        lists = tuple((place, read) for place, read in readers.items() if _has_input(node.arguments[place]))
        return _caller(function, base, slots, lists, keywords, casts)

    def _with_keyword_tensors(self, function: Callable[..., Any], node: Node) -> Callable[[Environment], Any]:
        readers = [self._reader(argument) for argument in node.arguments]
        named = {name: self._reader(argument) for name, argument in node.keywords}
        return lambda environment: function(
            *(read(environment) for read in readers), **{name: read(environment) for name, read in named.items()}
        )

    def _attention(self, node: Node) -> Callable[[Environment], Any]:
        """Attention off the CPU: whichever fused kernel PyTorch chooses, with its own backward pass. The second
        output's slot carries what the backward pass needs."""
        readers = [self._reader(argument) for argument in node.arguments]
        given = node.keyword("scale")
        scale = float(given) if isinstance(given, int | float) else None
        mask = node.keyword("attn_mask")
        low = self.run.precision is Precision.BF16
        if node.call == _ATTENTION_BACKWARD:

            def backward(environment: Environment) -> Any:
                gradient, context = readers[0](environment), readers[5](environment)
                query, key, value, out = context
                return torch.autograd.grad(out, (query, key, value), gradient.to(out.dtype))

            return backward
        read_mask = self._reader(mask) if mask is not None else (lambda environment: None)
        causal = bool(node.arguments[4]) if len(node.arguments) > 4 else False

        def forward(environment: Environment) -> Any:
            with torch.enable_grad():
                inputs = [read(environment).detach() for read in readers[:3]]
                inputs = [(x.to(torch.bfloat16) if low else x).requires_grad_() for x in inputs]
                query, key, value = inputs
                out = torch.nn.functional.scaled_dot_product_attention(
                    query, key, value, attn_mask=read_mask(environment), is_causal=causal, scale=scale
                )
            return out.detach(), (*inputs, out)

        return forward

    # --- the end of a step ---

    def _assign_rest(self) -> None:
        """Copy into the state whatever the updates did not change in place, and keep the loss."""
        run, moves = self.run, []
        for index, value in enumerate(self.graph.next_state):
            if isinstance(value, StateInput) and value.index == index:
                continue
            if isinstance(value, Value) and self.graph.nodes[value.node].call in ("assay.sgd", "assay.adamw"):
                continue  # checked to be this very tensor where the update was compiled
            moves.append((run._state[index], self._reader(value)))
        loss = self._slot(self.graph.loss)
        last = {self._slot(v) for v in self.graph.next_state if isinstance(v, Value)} - self.fixed

        def finish(environment: Environment) -> None:
            run._loss = environment[loss]
            values = [read(environment) for _, read in moves]
            for (target, _), value in zip(moves, values, strict=True):
                target.copy_(value)
            for slot in last:
                environment[slot] = None

        self.calls.append(finish)


def _stored(call: Callable[[Environment], Any], store: Callable[[Environment, Any], None]) -> Call:
    return lambda environment: store(environment, call(environment))


def _caller(
    function: Callable[..., Any],
    base: list[Any],
    slots: tuple[tuple[int, int], ...],
    lists: tuple[tuple[int, Callable[[Environment], Any]], ...],
    keywords: dict[str, Any],
    casts: dict[int, torch.dtype],
) -> Callable[[Environment], Any]:
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


def _has_input(argument: Argument) -> bool:
    found: list[Input] = []
    each_input(argument, found.append)
    return bool(found)


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


# --- calls of our own ------------------------------------------------------------------------------------------------


def _integers(compiler: _Compiler, node: Node, count: int) -> list[int]:
    values = [a for a in node.arguments[:count] if isinstance(a, int) and not isinstance(a, bool)]
    if len(values) != count:
        raise ValueError(f"expected {count} integers first")
    return values


def _permute(compiler: _Compiler, node: Node) -> Callable[[Environment], Any]:
    run = compiler.run
    (samples,) = _integers(compiler, node, 1)
    meta = node.outputs[0]
    if meta is None or len(meta.shape) != 1:
        raise ValueError("the indices of a batch are a vector")
    batch = meta.shape[0]

    def call(environment: Environment) -> Tensor:
        chosen = native_random.samples(run.seed, run._step, batch, samples)
        return torch.from_numpy(chosen).to(run.device, non_blocking=True)

    return call


def _gather(compiler: _Compiler, node: Node) -> Callable[[Environment], Any]:
    table, _ = compiler._operand(node.arguments[0])
    read = compiler._reader(node.arguments[1])
    meta = node.outputs[0]
    if meta is None or not isinstance(table, Tensor):
        raise ValueError("gather reads a data tensor")
    # Integers are widened once, not at every step: PyTorch's losses want int64.
    table = table.to(_DTYPES[meta.type])
    return lambda environment: table.index_select(0, read(environment))


def _bernoulli(compiler: _Compiler, node: Node) -> Callable[[Environment], Any]:
    run = compiler.run
    (stream,) = _integers(compiler, node, 1)
    probability, meta = node.arguments[1], node.outputs[0]
    if meta is None or not isinstance(probability, float):
        raise ValueError("bernoulli takes a stream and a probability")
    shape, limit = meta.shape, probability
    return lambda environment: native_random.bernoulli(run.seed, run._step, stream, shape, limit, run.device)


def _rate(compiler: _Compiler, node: Node) -> Callable[[Environment], Any]:
    run = compiler.run
    kind, *values = node.arguments
    numbers = [v for v in values if isinstance(v, int | float)]
    schedule: Constant | WarmupCosine
    if kind == "constant":
        schedule = Constant(float(numbers[0]))
    else:
        peak, warmup, total, final = numbers
        schedule = WarmupCosine(float(peak), int(warmup), int(total), float(final))
    return lambda environment: learning_rate(schedule, run._step)


def _step_number(compiler: _Compiler, node: Node) -> Callable[[Environment], Any]:
    run = compiler.run
    return lambda environment: torch.tensor(run._step, dtype=torch.int64, device=run.device)


def _clip(compiler: _Compiler, node: Node) -> Callable[[Environment], Any]:
    norm, read = node.arguments[0], compiler._reader(node.arguments[1])
    if not isinstance(norm, float):
        raise ValueError("clip takes a norm")
    limit = norm

    def call(environment: Environment) -> list[Tensor]:
        gradients = [gradient.float() for gradient in read(environment)]
        total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        factor = torch.clamp(limit / (total + 1e-6), max=1.0)
        return list(torch._foreach_mul(gradients, factor))

    return call


def _targets(compiler: _Compiler, node: Node, groups: Sequence[Argument]) -> list[list[Tensor]]:
    """The state tensors an update changes in place; each output must be the next state of that very tensor."""
    number = next(i for i, other in enumerate(compiler.graph.nodes) if other is node)
    result: list[list[Tensor]] = []
    output = 0
    for group in groups:
        if not isinstance(group, tuple):
            raise ValueError("an update takes lists of state tensors")
        tensors = []
        for target in group:
            if not isinstance(target, StateInput) or compiler.graph.next_state[target.index] != Value(number, output):
                raise ValueError(f"output {output} is not the next state of the tensor it updates")
            tensors.append(compiler.run._state[target.index])
            output += 1
        result.append(tensors)
    return result


def _like(gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradients as the fused kernels want them: float32, laid out like the parameters."""
    return [
        g if g.dtype == torch.float32 and g.stride() == p.stride() else g.float().contiguous()
        for g, p in zip(gradients, parameters, strict=True)
    ]


def _sgd(compiler: _Compiler, node: Node) -> Callable[[Environment], Any]:
    has_momentum = bool(node.arguments[2])
    groups = [node.arguments[0], node.arguments[2]] if has_momentum else [node.arguments[0]]
    targets = _targets(compiler, node, groups)
    parameters, momenta = targets[0], targets[1] if has_momentum else []
    read_gradients, read_rate = compiler._reader(node.arguments[1]), compiler._reader(node.arguments[3])
    momentum, decay = _number(node, "momentum"), _number(node, "weight_decay")
    nesterov = bool(node.keyword("nesterov"))

    def call(environment: Environment) -> list[Any]:
        torch._fused_sgd_(
            parameters,
            _like(read_gradients(environment), parameters),
            momenta,
            weight_decay=decay,
            momentum=momentum,
            lr=read_rate(environment),
            dampening=0.0,
            nesterov=nesterov,
            maximize=False,
            is_first_step=False,
        )
        return [None] * len(node.outputs)

    return call


def _number(node: Node, name: str) -> float:
    value = node.keyword(name)
    if not isinstance(value, int | float):
        raise ValueError(f"{name} is not a number")
    return float(value)


def _beta_powers(compiler: _Compiler, node: Node) -> Callable[[Environment], Any]:
    first, second = (compiler._reader(argument) for argument in node.arguments[:2])
    beta1, beta2 = _number(node, "beta1"), _number(node, "beta2")
    return lambda environment: (first(environment) * beta1, second(environment) * beta2)


def _adamw(compiler: _Compiler, node: Node) -> Callable[[Environment], Any]:
    run = compiler.run
    parameters, first, second = _targets(compiler, node, [node.arguments[0], node.arguments[2], node.arguments[3]])
    read_gradients, read_rate = compiler._reader(node.arguments[1]), compiler._reader(node.arguments[6])
    read_power = compiler._reader(node.arguments[5])
    beta1, beta2 = _number(node, "beta1"), _number(node, "beta2")
    epsilon, decay = _number(node, "epsilon"), _number(node, "weight_decay")
    record: list[Any] = [None]
    run._optimizer_steps.append(record)
    count = torch.zeros((), device=run.device)
    counts = [count] * len(parameters)

    def call(environment: Environment) -> list[Any]:
        if record[0] is None:
            record[0] = steps_done(float(read_power(environment)), beta2)
        else:
            record[0] += 1
        count.fill_(float(record[0]))
        torch._fused_adamw_(
            parameters,
            _like(read_gradients(environment), parameters),
            first,
            second,
            [],
            counts,
            lr=read_rate(environment),
            beta1=beta1,
            beta2=beta2,
            weight_decay=decay,
            eps=epsilon,
            amsgrad=False,
            maximize=False,
        )
        return [None] * len(node.outputs)

    return call


def steps_done(power: float, beta: float) -> int:
    """t where beta^t is `power` (at least 1); a large number where that has underflowed."""
    if beta <= 0.0 or power < 1e-30:
        return _LONG_AGO
    return max(1, round(log(power) / log(beta)))


_SPECIAL: dict[str, Callable[[_Compiler, Node], Callable[[Environment], Any]]] = {
    "assay.permute": _permute,
    "assay.gather": _gather,
    "assay.bernoulli": _bernoulli,
    "assay.step_number": _step_number,
    "assay.learning_rate": _rate,
    "assay.clip": _clip,
    "assay.sgd": _sgd,
    "assay.beta_powers": _beta_powers,
    "assay.adamw": _adamw,
}
