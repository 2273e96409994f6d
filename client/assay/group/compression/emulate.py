"""A compressed pipeline inside one process: what its boundaries do to training, without processes or a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from assay.group.compression.boundary import BoundaryCodec, make_codec
from assay.group.compression.choice import CompressionChoice
from assay.group.pipeline.model import Workload


@dataclass
class BoundaryBytes:
    """Bytes that would have crossed all boundaries, by direction; `repeat_*` counts repeated visits only."""

    forward: int = 0
    backward: int = 0
    uncompressed: int = 0
    repeat_forward: int = 0
    repeat_uncompressed: int = 0


class _Crossing(torch.autograd.Function):
    """Replaces activations by what the next stage would decode, and gradients by what the previous one would."""

    @staticmethod
    def forward(
        ctx: Any,
        activations: torch.Tensor,
        samples: torch.Tensor,
        sender: BoundaryCodec,
        receiver: BoundaryCodec,
        count: BoundaryBytes,
        repeated: bool,
    ) -> torch.Tensor:
        ctx.sender, ctx.receiver, ctx.count = sender, receiver, count
        message = sender.encode_forward(activations, samples)
        count.forward += message.numel()
        count.uncompressed += 4 * activations.numel()
        if repeated:
            count.repeat_forward += message.numel()
            count.repeat_uncompressed += 4 * activations.numel()
        return receiver.decode_forward(message, samples)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        message = ctx.receiver.encode_backward(gradients[0])
        ctx.count.backward += message.numel()
        return ctx.sender.decode_backward(message, gradients[0].shape[0]), None, None, None, None, None


def train_emulated(
    workload: Workload, choice: CompressionChoice, boundaries: int, steps: int, steps_in_epoch: int
) -> tuple[list[float], BoundaryBytes]:
    """Train in one process with `boundaries` compressed crossings, spread evenly between the layers.

    Returns the loss of every step (before its update) and the bytes counted.
    """
    model = workload.build()
    cuts = {round(len(model.layers) * (b + 1) / (boundaries + 1)) for b in range(boundaries)}
    samples = workload.inputs.shape[0]
    ends: dict[int, tuple[BoundaryCodec, BoundaryCodec]] = {
        cut: (
            make_codec(choice, model.boundary_shape, samples, None, f"sender-{cut}"),
            make_codec(choice, model.boundary_shape, samples, None, f"receiver-{cut}"),
        )
        for cut in sorted(cuts)
    }
    whole: nn.Module = model.whole()
    optimizer = workload.optimizer(list(whole.parameters()))
    count = BoundaryBytes()
    losses = []
    for step in range(steps):
        numbers = workload.order(step)
        for pair in ends.values():
            for codec in pair:
                codec.begin_step(numbers)
        x = model.entry(workload.inputs[numbers])
        for index, layer in enumerate(model.layers):
            x = layer(x)
            if index + 1 in ends:
                x = _Crossing.apply(x, numbers, *ends[index + 1], count, step >= steps_in_epoch)  # type: ignore[no-untyped-call]
        loss = workload.loss(model.exit(x), workload.targets[numbers])
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses, count
