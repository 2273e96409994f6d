"""A compressed boundary as part of a model: what a task declares about its group's links, traced with the model.

The activations at a declared place pass through AQ-SGD or direct quantisation, and their gradients through direct
quantisation, exactly as they do between two members of a pipeline (`boundary`): the same bits. What both ends remember
of a sample's last visit (`boundary_memory`, one row a sample) is a buffer of the model and therefore state of the task:
it lies in every checkpoint, any segment replays alone, and profile and court know nothing special.

A sample is visited once an epoch, so the step number says which visit is the first. Every step passes over the whole
memory once (a program's state is written as whole tensors).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from assay.group.compression.choice import CompressionChoice, suit_to_visits
from assay.group.errors import CompressionError
from assay.program.quantised import quantised, quantised_tiles
from assay.program.step_inputs import SAMPLE_NUMBERS, STEP_NUMBER, register_step_inputs

MEMORY = "boundary_memory"


class _QuantisedGradients(torch.autograd.Function):
    """Other values forward, quantised gradients of the original ones back."""

    @staticmethod
    def forward(ctx: Any, activations: Tensor, values: Tensor, bits: int) -> Tensor:
        ctx.bits = bits
        return values.view_as(activations)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows = gradients[0].reshape(gradients[0].shape[0], -1)
        return quantised(rows, ctx.bits).reshape(gradients[0].shape), None, None


def cross_boundary(activations: Tensor, choice: CompressionChoice) -> Tensor:
    """Activations (batch, ...) as the next stage has them under a scheme without memory (`direct` or `tile`)."""
    rows = activations.detach().reshape(activations.shape[0], -1)
    send = quantised_tiles if choice.scheme == "tile" else quantised
    values = send(rows, choice.forward_bits).reshape(activations.shape)
    crossed: Tensor = _QuantisedGradients.apply(activations, values, choice.backward_bits)  # type: ignore[no-untyped-call]
    return crossed


def cross_remembered_boundary(
    activations: Tensor, memory: Tensor, numbers: Tensor, step: Tensor, first_steps: int, choice: CompressionChoice
) -> Tensor:
    """Activations (batch, ...) as the next stage has them under AQ-SGD; `memory`, (samples, values), moves along.

    `numbers`: the batch's samples, (batch,), all different. In the first `first_steps` steps they are sent in full.
    """
    rows = activations.detach().reshape(activations.shape[0], -1)
    kept = memory.index_select(0, numbers)
    values = torch.where(step < first_steps, rows, kept + quantised(rows - kept, choice.forward_bits))
    # The place of each sample in the batch, counted from 1; 0 for those that are elsewhere.
    here = torch.arange(memory.shape[0]).unsqueeze(1) == numbers.unsqueeze(0)
    place = torch.where(here, torch.arange(1, numbers.shape[0] + 1).unsqueeze(0), 0).sum(1)
    arrived = values.index_select(0, (place - 1).clamp(min=0))
    with torch.no_grad():
        memory.copy_(torch.where(place.unsqueeze(1) > 0, arrived, memory))
    crossed: Tensor = _QuantisedGradients.apply(  # type: ignore[no-untyped-call]
        activations, values.reshape(activations.shape), choice.backward_bits
    )
    return crossed


def compress_boundaries(
    model: nn.Module,
    boundaries: Sequence[str],
    choice: CompressionChoice,
    example_inputs: Sequence[Tensor],
    samples: int,
    steps: int,
) -> str:
    """Let the outputs of the named submodules cross compressed boundaries; the model's parameters keep their names.

    `example_inputs`: one batch as the model is called with; `samples` in the data; `steps` of the task, which decide
    whether samples are visited again. Returns a sentence on the scheme in use. Raises CompressionError naming what does
    not fit.
    """
    if choice.scheme == "none":
        raise CompressionError("compression 'none' at a declared boundary changes nothing; leave [group] out")
    if choice.gradient_bits:
        raise CompressionError(
            f"{choice}: gradients between replicas do not cross a boundary of the model; use "
            f"{choice.scheme}-{choice.forward_bits}-{choice.backward_bits}, and in [group] replicas and "
            f"gradient_bits = {choice.gradient_bits}"
        )
    batch = example_inputs[0].shape[0]
    used, reason = suit_to_visits(choice, steps * batch / samples)
    if used.scheme == "aqsgd" and samples % batch:
        raise CompressionError(
            f"{used} with {samples} samples in batches of {batch}: an epoch has to be whole batches, so that no batch "
            "holds a sample twice; change batch_size or use the tile scheme"
        )
    modules = dict(model.named_modules())
    for name in boundaries:
        if name not in modules or not name:
            raise CompressionError(
                f"the model has no submodule {name!r} to put a boundary behind; it has "
                f"{', '.join(sorted(modules)[1:12])}"
            )
    shapes = _output_shapes(model, {name: modules[name] for name in boundaries}, example_inputs)
    for name in boundaries:
        _attach(modules[name], used, shapes[name], batch, samples)
    return reason or f"the outputs of {', '.join(boundaries)} cross boundaries compressed by {used}"


def _attach(module: nn.Module, choice: CompressionChoice, shape: tuple[int, ...], batch: int, samples: int) -> None:
    if choice.scheme != "aqsgd":
        module.register_forward_hook(lambda _module, _inputs, output: cross_boundary(output, choice))
        return
    # Buffers of the module itself: a container that runs through its children stays as it is.
    module.register_buffer(MEMORY, torch.zeros(samples, prod(shape)))
    register_step_inputs(module, batch)

    def cross(owner: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        memory, numbers, step = (getattr(owner, name) for name in (MEMORY, SAMPLE_NUMBERS, STEP_NUMBER))
        return cross_remembered_boundary(output, memory, numbers, step, samples // batch, choice)

    module.register_forward_hook(cross)


def _output_shapes(
    model: nn.Module, modules: dict[str, nn.Module], example_inputs: Sequence[Tensor]
) -> dict[str, tuple[int, ...]]:
    """Shape of one sample's output of each module; one run on copies of the model's buffers."""
    found: dict[str, tuple[int, ...]] = {}
    batch = example_inputs[0].shape[0]

    def watch(name: str) -> Any:
        def see(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if name in found:
                raise CompressionError(f"{name!r} runs more than once in a step; put the boundary behind another one")
            if not isinstance(output, Tensor) or output.dtype != torch.float32 or output.shape[:1] != (batch,):
                kind = f"{output.dtype} of shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output)
                raise CompressionError(
                    f"{name!r} gives {kind}: a boundary carries one float32 tensor with the batch of {batch} first"
                )
            found[name] = tuple(output.shape[1:])

        return see

    handles = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copies = {name: buffer.clone() for name, buffer in model.named_buffers()}
            functional_call(model, copies, tuple(example_inputs))
    finally:
        for handle in handles:
            handle.remove()
    missing = [name for name in modules if name not in found]
    if missing:
        raise CompressionError(f"{missing[0]!r} does not run in the model's forward pass; choose another boundary")
    return found
