"""A model as a row of layers that can be cut anywhere, and a small GPT in that form."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from assay.group.errors import PlacementError


@dataclass(frozen=True)
class LayeredModel:
    """`entry` takes the batch's inputs, each layer maps activations to activations, `exit` makes the outputs.

    `boundary_shape` is the shape of one sample's activations between layers; every layer must keep it.
    """

    entry: nn.Module
    layers: tuple[nn.Module, ...]
    exit: nn.Module
    boundary_shape: tuple[int, ...]

    def whole(self) -> nn.Sequential:
        """The model in one piece; shares parameters with its stages, and their names."""
        return self.stage((len(self.layers),), 0)

    def stage(self, split: Sequence[int], index: int) -> nn.Sequential:
        """Stage `index` when `split[s]` layers go to stage s: the entry to the first, the exit to the last.

        Parameters are named after their layer in the whole model, so that parts can be cut differently later.
        """
        if sum(split) != len(self.layers):
            raise PlacementError(
                f"the plan deals out {sum(split)} layers, the model has {len(self.layers)}; plan again for this model"
            )
        first = sum(split[:index])
        parts = OrderedDict((f"layer_{i}", self.layers[i]) for i in range(first, first + split[index]))
        if index == 0:
            parts["entry"] = self.entry
            parts.move_to_end("entry", last=False)
        if index == len(split) - 1:
            parts["exit"] = self.exit
        return nn.Sequential(parts)


@dataclass(frozen=True)
class Workload:
    """What a group trains. `build` makes the same model on every member (same seed, same bits).

    `inputs` and `targets`: (samples, ...); `order(step)` gives the sample numbers of a step over all replicas, so its
    length is the batch. `loss(outputs, targets)` averages over samples. `optimizer(parameters)` builds the optimizer.
    """

    build: Callable[[], LayeredModel]
    inputs: torch.Tensor
    targets: torch.Tensor
    order: Callable[[int], torch.Tensor]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class _Entry(nn.Module):
    def __init__(self, vocabulary: int, context: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(context, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        summed: torch.Tensor = self.token(tokens) + self.position(positions)  # (batch, time, width)
        return summed


class _Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Linear(width, 4 * width)
        self.feed_out = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, time, width = x.shape
        query, key, value = (
            part.view(batch, time, self.heads, -1).transpose(1, 2)  # (batch, heads, time, width / heads)
            for part in self.attention(self.attention_norm(x)).chunk(3, dim=-1)
        )
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.attention_out(mixed.transpose(1, 2).reshape(batch, time, width))
        fed: torch.Tensor = self.feed_out(nn.functional.gelu(self.feed(self.feed_norm(x))))
        return x + fed


class _Exit(nn.Module):
    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.norm(x))
        return logits


def character_gpt(
    vocabulary: int, context: int = 64, width: int = 64, layers: int = 4, heads: int = 2, seed: int = 0
) -> LayeredModel:
    """A small GPT over characters; the same seed gives the same parameters on machines with the same torch."""
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    try:
        model = LayeredModel(
            _Entry(vocabulary, context, width),
            tuple(_Block(width, heads) for _ in range(layers)),
            _Exit(width, vocabulary),
            (context, width),
        )
        for module in model.whole().modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)
    finally:
        torch.random.set_rng_state(generator_state)
    return model


def token_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy over (batch, time): logits (batch, time, vocabulary), targets (batch, time)."""
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
