"""Fused attention on devices other than the one that a graph was recorded on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from assay.engine.native.memory import Environment
from assay.engine.native.operands import NodeCall, Operands
from assay.program.graph import Node
from assay.program.sections import Precision

_FORWARD = "aten._scaled_dot_product_flash_attention_for_cpu.default"
_BACKWARD = "aten._scaled_dot_product_flash_attention_for_cpu_backward.default"
RECORDED = frozenset({_FORWARD, _BACKWARD})
"""The calls that tracing records: those of the CPU's kernel."""

_CAUSAL = {_FORWARD: 4, _BACKWARD: 7}  # places of the arguments
_LOG_SUM = 5


def has_recorded_attention(device: torch.device) -> bool:
    """Whether the attention kernel that tracing records exists on a device: it is the CPU's own."""
    return device.type == "cpu"


@dataclass(frozen=True, eq=False)
class FusedAttention:
    """A forward pass by whichever fused kernel PyTorch chose, with what that kernel's own backward pass needs.

    It stands in the place of the recorded kernel's second output. `mask` is added to the scores, or is boolean: what
    may be seen.
    """

    query: Tensor  # (batch, heads, queries, width), detached from what computed it, as are key and value
    key: Tensor
    value: Tensor
    mask: Tensor | None
    causal: bool
    scale: float | None
    out: Tensor

    @classmethod
    def of(
        cls, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, causal: bool, scale: float | None
    ) -> FusedAttention:
        """Attend."""
        if mask is not None and mask.dtype != torch.bool:
            mask = mask.to(query.dtype)
        with torch.enable_grad():
            query, key, value = (part.detach().requires_grad_() for part in (query, key, value))
            out = torch.nn.functional.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, is_causal=causal, scale=scale
            )
        return cls(query, key, value, mask, causal, scale, out)

    def gradients(self, gradient: Tensor) -> tuple[Tensor, ...]:
        """Of query, key and value. May be asked for more than once: members and pieces ask for some of them each."""
        inputs = (self.query, self.key, self.value)
        return torch.autograd.grad(self.out, inputs, gradient.to(self.out.dtype), retain_graph=True)

    def log_sum_exp(self) -> Tensor:
        """What the recorded kernel's second output holds: the log of the sum of exponentials of each query's scores,
        float32 (batch, heads, queries)."""
        with torch.no_grad():
            query, key = self.query.float(), self.key.float()
            scale = 1 / math.sqrt(query.shape[-1]) if self.scale is None else self.scale
            scores = query @ key.transpose(-2, -1) * scale
            if self.causal:
                hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
                scores = scores.masked_fill(hidden, -math.inf)
            if self.mask is not None and self.mask.dtype == torch.bool:
                scores = scores.masked_fill(~self.mask, -math.inf)
            elif self.mask is not None:
                scores = scores + self.mask
            return torch.logsumexp(scores, -1)


def as_tensor(value: Any) -> Any:
    """A value of a step as the graph was recorded: with the log-sum-exp in the place of a `FusedAttention`."""
    return value.log_sum_exp() if isinstance(value, FusedAttention) else value


def attention(operands: Operands, node: Node) -> NodeCall:
    """Attention off the CPU: whichever fused kernel PyTorch chooses, with its own backward pass.

    A backward pass whose forward pass was computed elsewhere (by another member of a group, or in other pieces) finds
    the log-sum-exp, and computes the forward pass again.
    """
    readers = [operands.reader(argument) for argument in node.arguments]
    given, mask = node.keyword("scale"), node.keyword("attn_mask")
    scale = float(given) if isinstance(given, int | float) else None
    read_mask = operands.reader(mask) if mask is not None else (lambda environment: None)
    place = _CAUSAL[node.call]
    causal = bool(node.arguments[place]) if len(node.arguments) > place else False
    low = operands.memory.precision is Precision.BF16

    def attend(environment: Environment, first: int) -> FusedAttention:
        inputs = [read(environment) for read in readers[first : first + 3]]
        query, key, value = ((part.to(torch.bfloat16) if low else part) for part in inputs)
        return FusedAttention.of(query, key, value, read_mask(environment), causal, scale)

    def forward(environment: Environment) -> Any:
        done = attend(environment, 0)
        return done.out.detach(), done

    def backward(environment: Environment) -> Any:
        done = readers[_LOG_SUM](environment)
        if not isinstance(done, FusedAttention):
            done = attend(environment, 1)
        return done.gradients(readers[0](environment))

    return forward if node.call == _FORWARD else backward
