"""Fused attention on devices other than the one that a graph was recorded on."""

from __future__ import annotations

from typing import Any

import torch

from assay.engine.native.memory import Environment
from assay.engine.native.operands import NodeCall, Operands
from assay.program.graph import Node
from assay.program.sections import Precision

_FORWARD = "aten._scaled_dot_product_flash_attention_for_cpu.default"
_BACKWARD = "aten._scaled_dot_product_flash_attention_for_cpu_backward.default"
RECORDED = frozenset({_FORWARD, _BACKWARD})
"""The calls that tracing records: those of the CPU's kernel."""


def has_recorded_attention(device: torch.device) -> bool:
    """Whether the attention kernel that tracing records exists on a device: it is the CPU's own."""
    return device.type == "cpu"


def attention(operands: Operands, node: Node) -> NodeCall:
    """Attention off the CPU: whichever fused kernel PyTorch chooses, with its own backward pass.

    The second output's slot carries what the backward pass needs.
    """
    readers = [operands.reader(argument) for argument in node.arguments]
    given = node.keyword("scale")
    scale = float(given) if isinstance(given, int | float) else None
    mask = node.keyword("attn_mask")
    low = operands.memory.precision is Precision.BF16
    if node.call == _BACKWARD:

        def backward(environment: Environment) -> Any:
            gradient, context = readers[0](environment), readers[5](environment)
            query, key, value, out = context
            return torch.autograd.grad(out, (query, key, value), gradient.to(out.dtype))

        return backward
    read_mask = operands.reader(mask) if mask is not None else (lambda environment: None)
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
