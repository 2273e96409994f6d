"""The networks that the benchmarks train, written as anybody would write them in PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from assay.program.optimizer import SGD, AdamW, Optimizer


class Mlp(nn.Module):
    """784-512-512-10 with ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


class Cnn(nn.Module):
    """Three 3x3 convolutions with batch norm on 32x32 colour images."""

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.BatchNorm2d(2 * channels)
        self.conv3 = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1, stride=2)
        self.norm3 = nn.BatchNorm2d(4 * channels)
        self.head = nn.Linear(4 * channels * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.norm1(self.conv1(x))), 2)
        x = functional.max_pool2d(functional.relu(self.norm2(self.conv2(x))), 2)
        x = functional.relu(self.norm3(self.conv3(x)))
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        query, key, value = (
            part.view(batch, time, self.heads, width // self.heads).transpose(1, 2)
            for part in self.attention(self.norm1(x)).split(width, 2)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))  # type: ignore[no-any-return]


class Gpt(nn.Module):
    """A character GPT: 4 layers of 256 by default."""

    def __init__(
        self, vocabulary: int = 65, width: int = 256, heads: int = 4, layers: int = 4, time: int = 128
    ) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(time, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, 0, 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))  # type: ignore[no-any-return]


def language_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over all positions."""
    return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))


@dataclass(frozen=True)
class Workload:
    """A model with data to train it on."""

    name: str
    module: nn.Module
    loss: object  # a name or a function, as `trace` takes it
    optimizer: Optimizer
    data: tuple[Tensor, ...]  # whole data set; the last is the target
    batch: int

    def torch_loss(self, output: Tensor, target: Tensor) -> Tensor:
        if self.loss == "cross_entropy":
            return functional.cross_entropy(output, target)
        return language_loss(output, target)

    def torch_optimizer(self, module: nn.Module) -> torch.optim.Optimizer:
        """What a user would write for this workload."""
        if isinstance(self.optimizer, SGD):
            return torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
        return torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.01)


def workload(name: str) -> Workload:
    """One of `mlp`, `cnn`, `gpt`, with seeded weights and data."""
    torch.manual_seed(0)
    sgd = SGD(0.05, momentum=0.9, weight_decay=1e-4)
    if name == "mlp":
        data = (torch.randn(4096, 784), torch.randint(0, 10, (4096,)))
        return Workload(name, Mlp(), "cross_entropy", sgd, data, 128)
    if name == "cnn":
        data = (torch.randn(1024, 3, 32, 32), torch.randint(0, 10, (1024,)))
        return Workload(name, Cnn(), "cross_entropy", sgd, data, 64)
    if name == "gpt":
        data = (torch.randint(0, 65, (512, 128)), torch.randint(0, 65, (512, 128)))
        return Workload(name, Gpt(), language_loss, AdamW(1e-3, weight_decay=0.01), data, 16)
    raise KeyError(f"no workload {name!r}: choose mlp, cnn or gpt")
