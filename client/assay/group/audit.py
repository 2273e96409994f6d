"""Replay one stage alone and compare what it says with what its member signed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from assay.group.checkpoint import MemberParts
from assay.group.compression.boundary import BoundaryCodec
from assay.group.errors import GroupMessageError
from assay.group.pipeline.stage import BACKWARD, FORWARD

Messages = dict[tuple[int, int], torch.Tensor]


@dataclass(frozen=True)
class StageInputs:
    """What the replay is given: the messages its neighbours signed, and the averaged gradients where it has replicas.

    Keys are (step, micro-batch). `averaged[step]` is the flat gradient that its stage's members agreed on.
    """

    forward: Messages
    backward: Messages
    averaged: dict[int, torch.Tensor]


@dataclass(frozen=True)
class Deviation:
    """The first message in which the replay differs from what the member stated."""

    step: int
    direction: str
    chunk: int
    stated: bytes
    replayed: bytes


def replay_stage(
    parts: MemberParts,
    before: BoundaryCodec | None,
    after: BoundaryCodec | None,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    loss: object,
    samples: dict[int, Sequence[torch.Tensor]],
    given: StageInputs,
) -> dict[tuple[str, int, int], bytes]:
    """Run the steps of `samples` (step to the micro-batches' sample numbers) on a restored stage, without a network.

    Returns SHA-256 of every message that an honest member would have sent, by (direction, step, micro-batch). The
    stage's parts are moved on, so compare its state with the next checkpoint as well.
    """
    if not callable(loss):
        raise GroupMessageError(f"the loss must be a function of outputs and targets, got {type(loss).__name__}")
    hashes: dict[tuple[str, int, int], bytes] = {}
    parameters = [p for p in parts.module.parameters() if p.requires_grad]
    for step in sorted(samples):
        chunks = samples[step]
        for codec in (before, after):
            if codec is not None:
                codec.begin_step(torch.cat(list(chunks)))
        entered: list[torch.Tensor] = []
        left: list[torch.Tensor] = []
        for chunk, numbers in enumerate(chunks):
            if before is None:
                value = inputs[numbers]
            else:
                value = before.decode_forward(_given(given.forward, step, chunk, FORWARD), numbers).requires_grad_()
            output = parts.module(value)
            entered.append(value)
            if after is None:
                left.append(loss(output, targets[numbers]))
            else:
                left.append(output)
                hashes[FORWARD, step, chunk] = _hash(after.encode_forward(output, numbers))
        for chunk, numbers in enumerate(chunks):
            if after is None:
                torch.autograd.backward(left[chunk])
            else:
                message = _given(given.backward, step, chunk, BACKWARD)
                torch.autograd.backward(left[chunk], after.decode_backward(message, numbers.numel()))
            gradient = entered[chunk].grad
            if before is not None and gradient is not None:
                hashes[BACKWARD, step, chunk] = _hash(before.encode_backward(gradient))
        # As torch's schedules do: gradients of micro-batches are summed, then divided by their number.
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.div_(len(chunks))
        if step in given.averaged:
            at = 0
            for parameter in parameters:
                part = given.averaged[step][at : at + parameter.numel()]
                parameter.grad = part.view_as(parameter).clone()
                at += parameter.numel()
        parts.optimizer.step()
        parts.optimizer.zero_grad(set_to_none=False)
    return hashes


def first_deviation(
    replayed: dict[tuple[str, int, int], bytes], stated: dict[tuple[str, int, int], bytes]
) -> Deviation | None:
    """The earliest message, in the order of computing, whose hash differs; None for an honest member."""
    for direction, step, chunk in sorted(replayed, key=lambda key: (key[1], key[0] == BACKWARD, key[2])):
        claimed = stated.get((direction, step, chunk), b"")
        if claimed != replayed[direction, step, chunk]:
            return Deviation(step, direction, chunk, claimed, replayed[direction, step, chunk])
    return None


def _given(messages: Messages, step: int, chunk: int, direction: str) -> torch.Tensor:
    if (step, chunk) not in messages:
        raise GroupMessageError(
            f"the {direction} message of step {step}, micro-batch {chunk} is not at hand; ask the neighbour for it"
        )
    return messages[step, chunk]


def _hash(message: torch.Tensor) -> bytes:
    return hashlib.sha256(message.detach().cpu().numpy().tobytes()).digest()
