"""The calls that no PyTorch kernel is recorded for: batches, dropout, schedules, clipping and the optimizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log
from typing import Any

import torch
from torch import Tensor

from assay.engine.native import random
from assay.engine.native.memory import DTYPES, Environment
from assay.engine.native.operands import NodeCall, Operands
from assay.program.graph import Argument, Node, StateInput, Value
from assay.program.optimizer import Constant, WarmupCosine, learning_rate

# A bias correction 1 - beta^t is 1 in binary32 long before this many steps once beta^t has underflowed.
_LONG_AGO = 1_000_000


def _integers(operands: Operands, node: Node, count: int) -> list[int]:
    values = [a for a in node.arguments[:count] if isinstance(a, int) and not isinstance(a, bool)]
    if len(values) != count:
        raise ValueError(f"expected {count} integers first")
    return values


def _permute(operands: Operands, node: Node) -> NodeCall:
    memory = operands.memory
    (samples,) = _integers(operands, node, 1)
    meta = node.outputs[0]
    if meta is None or len(meta.shape) != 1:
        raise ValueError("the indices of a batch are a vector")
    batch = meta.shape[0]

    def call(environment: Environment) -> Tensor:
        chosen = random.samples(memory.seed, memory.step, batch, samples)
        return torch.from_numpy(chosen).to(memory.device, non_blocking=True)

    return call


def _gather(operands: Operands, node: Node) -> NodeCall:
    table, _ = operands.operand(node.arguments[0])
    read = operands.reader(node.arguments[1])
    meta = node.outputs[0]
    if meta is None or not isinstance(table, Tensor):
        raise ValueError("gather reads a data tensor")
    # Integers are widened once, not at every step: PyTorch's losses want int64.
    table = table.to(DTYPES[meta.type])
    return lambda environment: table.index_select(0, read(environment))


def _bernoulli(operands: Operands, node: Node) -> NodeCall:
    memory = operands.memory
    (stream,) = _integers(operands, node, 1)
    probability, meta = node.arguments[1], node.outputs[0]
    if meta is None or not isinstance(probability, float):
        raise ValueError("bernoulli takes a stream and a probability")
    shape, limit = meta.shape, probability
    return lambda environment: random.bernoulli(memory.seed, memory.step, stream, shape, limit, memory.device)


def _rate(operands: Operands, node: Node) -> NodeCall:
    memory = operands.memory
    kind, *values = node.arguments
    numbers = [v for v in values if isinstance(v, int | float)]
    schedule: Constant | WarmupCosine
    if kind == "constant":
        schedule = Constant(float(numbers[0]))
    else:
        peak, warmup, total, final = numbers
        schedule = WarmupCosine(float(peak), int(warmup), int(total), float(final))
    return lambda environment: learning_rate(schedule, memory.step)


def _step_number(operands: Operands, node: Node) -> NodeCall:
    memory = operands.memory
    return lambda environment: torch.tensor(memory.step, dtype=torch.int64, device=memory.device)


def _clip(operands: Operands, node: Node) -> NodeCall:
    norm, read = node.arguments[0], operands.reader(node.arguments[1])
    if not isinstance(norm, float):
        raise ValueError("clip takes a norm")
    limit = norm

    def call(environment: Environment) -> list[Tensor]:
        gradients = [gradient.float() for gradient in read(environment)]
        total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        factor = torch.clamp(limit / (total + 1e-6), max=1.0)
        return list(torch._foreach_mul(gradients, factor))

    return call


def _targets(operands: Operands, node: Node, groups: Sequence[Argument]) -> list[list[Tensor]]:
    """The state tensors an update changes in place; each output must be the next state of that very tensor."""
    number = next(i for i, other in enumerate(operands.graph.nodes) if other is node)
    result: list[list[Tensor]] = []
    output = 0
    for group in groups:
        if not isinstance(group, tuple):
            raise ValueError("an update takes lists of state tensors")
        tensors = []
        for target in group:
            if not isinstance(target, StateInput) or operands.graph.next_state[target.index] != Value(number, output):
                raise ValueError(f"output {output} is not the next state of the tensor it updates")
            tensors.append(operands.memory.state[target.index])
            output += 1
        result.append(tensors)
    return result


def _like(gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> list[Tensor]:
    """Gradients as the fused kernels want them: float32, laid out like the parameters."""
    return [
        g if g.dtype == torch.float32 and g.stride() == p.stride() else g.float().contiguous()
        for g, p in zip(gradients, parameters, strict=True)
    ]


def _sgd(operands: Operands, node: Node) -> NodeCall:
    has_momentum = bool(node.arguments[2])
    groups = [node.arguments[0], node.arguments[2]] if has_momentum else [node.arguments[0]]
    targets = _targets(operands, node, groups)
    parameters, momenta = targets[0], targets[1] if has_momentum else []
    read_gradients, read_rate = operands.reader(node.arguments[1]), operands.reader(node.arguments[3])
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


def _beta_powers(operands: Operands, node: Node) -> NodeCall:
    first, second = (operands.reader(argument) for argument in node.arguments[:2])
    beta1, beta2 = _number(node, "beta1"), _number(node, "beta2")
    return lambda environment: (first(environment) * beta1, second(environment) * beta2)


def _adamw(operands: Operands, node: Node) -> NodeCall:
    memory = operands.memory
    parameters, first, second = _targets(operands, node, [node.arguments[0], node.arguments[2], node.arguments[3]])
    read_gradients, read_rate = operands.reader(node.arguments[1]), operands.reader(node.arguments[6])
    read_power = operands.reader(node.arguments[5])
    beta1, beta2 = _number(node, "beta1"), _number(node, "beta2")
    epsilon, decay = _number(node, "epsilon"), _number(node, "weight_decay")
    record: list[Any] = [None]
    memory.optimizer_steps.append(record)
    count = torch.zeros((), device=memory.device)
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


OWN_CALLS: dict[str, Callable[[Operands, Node], NodeCall]] = {
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
