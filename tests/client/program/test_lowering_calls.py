"""Each call, forward and backward, against PyTorch: the gradient with respect to a parameter is the SGD update."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from assay.program.optimizer import SGD

from .models import train_both, uniform_data

Forward = Callable[[Tensor, Tensor], Tensor]
INDEX = torch.tensor([2, 0, 3, 0, 1])


class Applied(nn.Module):
    """A function of a parameter and the batch."""

    def __init__(self, function: Forward, shape: tuple[int, ...]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.parameter = nn.Parameter(torch.randn(shape, generator=generator))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.parameter, x).reshape(x.shape[0], -1).sum(1)


# Functions of a parameter (4, 5) and a batch (3, 4, 5).
POINTWISE: dict[str, Forward] = {
    "add with alpha": lambda p, x: torch.add(x, p, alpha=0.5),
    "sub": lambda p, x: 2 - p - x,
    "mul and neg": lambda p, x: -(p * x),
    "div": lambda p, x: x / (p * p + 1),
    "reciprocal": lambda p, x: x * (p * p + 1).reciprocal(),
    "abs": lambda p, x: (p * x).abs(),
    "sqrt and rsqrt": lambda p, x: (p * p + 1).sqrt() * x + (p * p + 2).rsqrt(),
    "powers": lambda p, x: p**3 * x + p.abs() ** 0.5 + (p * p + 1) ** -2 + (p * p + 1) ** -0.5,
    "exp and log": lambda p, x: p.exp() * x + (p * p + 1).log() + (p * p).log1p(),
    "sin and cos": lambda p, x: p.sin() * x + (p * x).cos(),
    "tanh, sigmoid, erf": lambda p, x: p.tanh() * x + (p * x).sigmoid() + torch.erf(p),
    "relu family": lambda p, x: f.relu(p * x) + f.leaky_relu(p + x, 0.2) + f.relu6(3 * p * x) + f.elu(p * x, 1.5),
    "gelu": lambda p, x: f.gelu(p * x) + f.gelu(p + x, approximate="tanh"),
    "silu, softplus, logsigmoid": lambda p, x: f.silu(p * x) + f.softplus(p * 9 * x) + f.logsigmoid(p + x),
    "maximum, minimum, clamp": lambda p, x: torch.maximum(p, x) + torch.minimum(p * 2, x) + (p * x).clamp(-0.5, 0.7),
    "where and comparisons": lambda p, x: torch.where((p > x) & ~(x >= 0.5) | (p == 1), p * x, p - x),
    "masked fill": lambda p, x: (p * x).masked_fill(x < 0, 3.0),
    "integers": lambda p, x: p * x + (torch.arange(5) * 3 % 4 - torch.arange(5) // 2).float() * p,
    "integers inverted": lambda p, x: p * (~(x * 3).long()).float() + p * (~(x > 0)).float(),
    "truth values added": lambda p, x: p * ((x > 0) + (x < 0.5)).float() + p * torch.add(x > 0, True).float(),
    "truth values filled": lambda p, x: (
        p * torch.full_like(x > 0, 2).float()
        + p * (x > 0).masked_fill(x > 1, 5).float()
        + p * f.pad(x > 0, (1, -1), value=3)
    ),
    "truth values copied": lambda p, x: p * torch.zeros(3, 4, 5, dtype=torch.bool).copy_(x).float(),
    "bool to float": lambda p, x: p * (x > 0).float() + p * (x != 0),
}
SHAPES: dict[str, Forward] = {
    "transpose and view": lambda p, x: p.t().reshape(4, 5) * x,
    "permute": lambda p, x: p.reshape(2, 2, 5).permute(1, 2, 0).reshape(4, 5) * x,
    "expand and unsqueeze": lambda p, x: p.unsqueeze(0).expand(3, 4, 5) * x,
    "slices": lambda p, x: p[1:, ::2] * x[:, :3, 1:4] + p[:3, :3],
    "select": lambda p, x: p[1] * x[:, -1] + p[:, 2].sum(),
    "split, chunk, unbind": lambda p, x: p.split([1, 4], 1)[1] * x[..., :4] + p.chunk(2)[0].sum() + p.unbind()[3][:4],
    "cat and stack": lambda p, x: (
        torch.cat([p * 2, p[:1] * 3, p.new_zeros(2, 5)]).sum(0) * x[:, 0] + torch.stack([p, p * p], 1).sum(1)[0]
    ),
    "pad": lambda p, x: f.pad(p, (1, 2, -1, 1), value=0.5).sum(1) * x[:, :, 0],
    "flip and roll": lambda p, x: p.flip(0, 1) * x + p.roll(2, 1),
    "repeat": lambda p, x: p.repeat(2, 3).reshape(2, 4, 15).sum(0)[:, :5] * x,
    "tril and triu": lambda p, x: p.tril() * x + p.triu(1) + (p * p).tril(-1),
    "index and gather": lambda p, x: p[INDEX][:4] * x + p[:, INDEX[:2]].sum() + p.gather(1, INDEX[None].expand(4, 5)),
    "negative indices": lambda p, x: p[:, INDEX - 5] * x + p[:, torch.arange(-2, 3)] + p[torch.arange(1, -3, -1)],
    "index select": lambda p, x: p.index_select(1, INDEX) * x,
    "embedding": lambda p, x: f.embedding(INDEX[:4], p, padding_idx=0) * x,
    "in-place changes": lambda p, x: _changed_in_place(p) * x,
}
FOLDS: dict[str, Forward] = {
    "matrix products": lambda p, x: (x @ p.t()) @ p,
    "batched product": lambda p, x: torch.bmm(x.transpose(1, 2), x * p) @ p.t()[:, :2],
    "einsum": lambda p, x: torch.einsum("ij,bkj->bik", p, x),
    "linear": lambda p, x: f.linear(x, p, p[:, 0]),
    "sum and mean": lambda p, x: (p * x).sum((1, 2), keepdim=True) * p + (p * x).mean(1, keepdim=True) + p.mean(),
    "amax, max, argmax": lambda p, x: (p * x).amax(1, keepdim=True) * p + p.argmax(1, keepdim=True).float() * p,
    "variance": lambda p, x: (p * x).var(1, keepdim=True) * x + p.std() + p.var(unbiased=False),
    "norm": lambda p, x: f.normalize(p * x, dim=1) * x,
    "softmax": lambda p, x: (p * x).softmax(-1) * x + (p * x).softmax(1) ** 2,
    "log softmax": lambda p, x: (p * x).log_softmax(-1) * x,
    "logsumexp": lambda p, x: (p * x).logsumexp(-1, keepdim=True) * p,
    "long contiguous sum": lambda p, x: (p.repeat(1, 40) * x.repeat(1, 1, 40)).sum(-1),
    "long even sum": lambda p, x: (p.repeat(8, 8)[:, :32] * 0.1).sum() * x + (p.repeat(1, 64) * 0.1).mean() * x,
    "layer norm": lambda p, x: f.layer_norm(p * x, (4, 5), p, p) + f.layer_norm(x * p, (5,), p[0]),
    "rms norm": lambda p, x: f.rms_norm(p * x, (5,), p[0]) * x,
    "group norm written out": lambda p, x: (p * x - (p * x).mean(2, keepdim=True)) * p,
    "attention": lambda p, x: f.scaled_dot_product_attention(
        (p * x)[:, None], (x + p)[:, None], x[:, None] * p, is_causal=True
    ),
    "attention with mask": lambda p, x: f.scaled_dot_product_attention(
        (p * x)[:, None], (x + p)[:, None], x[:, None] * p, attn_mask=torch.ones(4, 4).tril() * 2, scale=0.3
    ),
    "attention that sees nothing": lambda p, x: f.scaled_dot_product_attention(
        (p * x)[:, None], (x + p)[:, None], x[:, None] * p, attn_mask=torch.ones(4, 4, dtype=torch.bool).tril(-1)
    ),
    "logsumexp of infinities": lambda p, x: (
        p + torch.where(x > 0, x, -torch.inf)[:, :, :2].logsumexp(-1, keepdim=True).exp() * p
    ),
    "cosine similarity": lambda p, x: f.cosine_similarity(p.expand(3, 4, 5), x, dim=-1),
}


def _changed_in_place(p: Tensor) -> Tensor:
    y = p * 1
    y += 1
    y.mul_(p)
    return y.relu_()


@pytest.mark.parametrize("name", [*POINTWISE, *SHAPES, *FOLDS])
def test_a_call_and_its_gradient_are_those_of_pytorch(name: str) -> None:
    module = Applied((POINTWISE | SHAPES | FOLDS)[name], (4, 5))
    trained = train_both(module, "mse", SGD(0.1), (uniform_data(3, 4, 5), uniform_data(3)), batch=3, steps=1)
    assert trained.losses == pytest.approx(trained.torch_losses, rel=2e-5, abs=1e-6)
    assert trained.worst_update_error() < 2e-4


IMAGES: dict[str, tuple[Forward, tuple[int, ...]]] = {
    "conv2d": (lambda p, x: f.conv2d(x, p, stride=(2, 1), padding=(1, 2)), (3, 4, 3, 3)),
    "conv2d with groups and dilation": (lambda p, x: f.conv2d(x, p, dilation=2, padding=1, groups=2), (4, 2, 2, 3)),
    "conv2d of a changed input": (lambda p, x: f.conv2d(x * p[0, :, :1, :1], p.relu(), stride=2), (3, 4, 2, 2)),
    "pointwise conv2d": (lambda p, x: f.conv2d(x, p), (3, 4, 1, 1)),
    "conv1d": (lambda p, x: f.conv1d(x[:, :, 0], p, p[:, 0, 0], stride=2, padding=2), (3, 4, 3)),
    "max_pool2d": (lambda p, x: f.max_pool2d(x * p, (3, 2), 2, 1), (4, 1, 1)),
    "max_pool2d, rounded up": (lambda p, x: f.max_pool2d(x + p, 2, ceil_mode=True) ** 2, (4, 7, 6)),
    "max_pool1d": (lambda p, x: f.max_pool1d((x * p).flatten(2), 5, 3), (4, 7, 6)),
    "avg_pool2d": (lambda p, x: f.avg_pool2d(x * p, 3, 2, 1), (4, 7, 6)),
    "adaptive_avg_pool2d": (lambda p, x: f.adaptive_avg_pool2d((x * p)[..., :6, :], (2, 3)), (4, 7, 6)),
    "upsample": (lambda p, x: f.interpolate(x * p, scale_factor=2) ** 2, (4, 7, 6)),
    "batch_norm": (lambda p, x: f.batch_norm(x * p, None, None, p[:, 0, 0], p[:, 1, 1], training=True) * x, (4, 7, 6)),
    "group_norm": (lambda p, x: f.group_norm(x * p, 2, p[:, 0, 0], p[:, 1, 1]) * x, (4, 7, 6)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_image_calls_and_their_gradients_are_those_of_pytorch(name: str) -> None:
    function, shape = IMAGES[name]
    data = (uniform_data(3, 4, 7, 6), uniform_data(3))
    trained = train_both(Applied(function, shape), "mse", SGD(0.1), data, batch=3, steps=1)
    assert trained.losses == pytest.approx(trained.torch_losses, rel=2e-5, abs=1e-6)
    assert trained.worst_update_error() < 2e-4


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross entropy, sum": lambda x, y: f.cross_entropy(x, y, reduction="sum"),
    "cross entropy, ignored targets": lambda x, y: f.cross_entropy(x, torch.where(y == 1, -100, y)),
    "cross entropy, ignored class": lambda x, y: f.cross_entropy(x, y, ignore_index=2),
    "cross entropy, smoothed": lambda x, y: f.cross_entropy(x, y, label_smoothing=0.1),
    "cross entropy of images": lambda x, y: f.cross_entropy(x.reshape(2, 3, 5).permute(0, 2, 1), y.reshape(2, 3)),
    "mean square, sum": lambda x, y: f.mse_loss(x[:, 0], y.float(), reduction="sum"),
    "absolute": lambda x, y: f.l1_loss(x[:, 0], y.float()),
    "logits": lambda x, y: f.binary_cross_entropy_with_logits(x[:, 0], (y > 1).float(), reduction="sum"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_those_of_pytorch(name: str) -> None:
    module = nn.Linear(4, 5)
    targets = torch.tensor([1, 0, 2, 2, 4, 3])
    trained = train_both(module, LOSSES[name], SGD(0.1), (uniform_data(6, 4), targets), batch=6, steps=1)
    assert trained.losses == pytest.approx(trained.torch_losses, rel=2e-5)
    assert trained.worst_update_error() < 2e-4


def test_logits_far_away_do_not_overflow() -> None:
    module = nn.Linear(2, 1, bias=False)
    nn.init.constant_(module.weight, 100.0)
    data = (torch.tensor([[3.0, 2.0], [-4.0, 1.0], [1.0, 1.0]]), torch.tensor([[1.0], [1.0], [0.0]]))
    trained = train_both(module, "bce_with_logits", SGD(0.1), data, batch=3, steps=1)
    assert trained.losses == pytest.approx(trained.torch_losses, rel=2e-5)
