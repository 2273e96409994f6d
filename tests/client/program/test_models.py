"""Whole training steps of every kind of model: the lowered program follows PyTorch's own training."""

from __future__ import annotations

import pytest
import torch

from assay.program.optimizer import SGD, AdamW, WarmupCosine

from .models import (
    ConvNet,
    Perceptron,
    Recurrent,
    ResidualNet,
    Transformer,
    WrittenOutTransformer,
    next_token_loss,
    token_data,
    train_both,
    uniform_data,
)

IMAGES, LABELS = uniform_data(6, 2, 9, 9), token_data(5, 6)
TOKENS = token_data(11, 8, 6), token_data(11, 8, 6)
FEATURES = uniform_data(10, 12)

CASES = {
    "perceptron, SGD": (Perceptron, "cross_entropy", SGD(0.1), (FEATURES, token_data(5, 10)), ()),
    "perceptron, momentum and decay": (
        Perceptron,
        "cross_entropy",
        SGD(0.1, 0.9, 0.01),
        (FEATURES, token_data(5, 10)),
        (),
    ),
    "perceptron, nesterov, warm-up and cosine": (
        Perceptron,
        "mse",
        SGD(WarmupCosine(0.1, 2, 5, 0.01), 0.9, nesterov=True),
        (FEATURES, uniform_data(10, 5)),
        (),
    ),
    "perceptron, AdamW clipped": (
        Perceptron,
        "bce_with_logits",
        AdamW(WarmupCosine(0.01, 1, 6), clip_norm=0.05),
        (FEATURES, (uniform_data(10, 5) > 0).float()),
        (),
    ),
    "convolutional": (ConvNet, "cross_entropy", SGD(0.1, 0.9), (IMAGES, LABELS), ()),
    "residual": (ResidualNet, "cross_entropy", SGD(0.1, 0.9), (uniform_data(6, 3, 8, 8), LABELS), ()),
    # A key's bias does not change attention: its gradient is rounding, which Adam amplifies.
    "transformer": (Transformer, next_token_loss, AdamW(0.01), TOKENS, ("attend.bias",)),
    "transformer, decayed matrices": (
        Transformer,
        next_token_loss,
        AdamW(0.01, decay="matrices", weight_decay=0.1, clip_norm=1.0),
        TOKENS,
        ("attend.bias",),
    ),
    "transformer, written out": (WrittenOutTransformer, next_token_loss, AdamW(0.01), TOKENS, ("attend.bias",)),
    "recurrent": (Recurrent, "mse", AdamW(0.01), (uniform_data(6, 4, 5), uniform_data(6, 3)), ()),
}


@pytest.mark.parametrize("name", CASES)
def test_a_program_trains_as_pytorch_does(name: str) -> None:
    module, loss, optimizer, data, ignore = CASES[name]
    torch.manual_seed(1)
    trained = train_both(module(), loss, optimizer, data, batch=4, steps=3)
    assert trained.losses == pytest.approx(trained.torch_losses, rel=2e-5)
    assert trained.worst_update_error(ignore) < 5e-4
    changed = [e.operator for e in trained.program.sections[0].next_state]
    assert any(operator is not None for operator in changed)


def test_running_statistics_and_counters_are_state() -> None:
    torch.manual_seed(1)
    trained = train_both(ConvNet(), "cross_entropy", SGD(0.1), (IMAGES, LABELS), batch=3, steps=2)
    by_name = {what.name: value for what, value in zip(trained.program.state, trained.state, strict=True)}
    assert by_name["norm.num_batches_tracked"] == 2
    assert by_name["norm.running_var"] == pytest.approx(trained.torch_state["norm.running_var"], rel=1e-5)


class Memories(torch.nn.Module):
    """Buffers that forward() puts others in the place of: a moving mean, a truth value and a table of indices."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(12, 5)
        self.register_buffer("mean", torch.zeros(5))
        self.register_buffer("seen", torch.zeros(5, dtype=torch.bool))
        self.register_buffer("order", torch.arange(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        y = (x + self.mean).masked_fill(~self.seen, 0.1).gather(1, self.order.expand(x.shape))
        self.mean = 0.5 * self.mean + x.detach().mean(0)
        self.seen = self.seen | (x.detach().sum(0) > 0)
        self.order = (self.order + 1) % 5
        return x + y


def test_buffers_that_a_step_replaces_are_state() -> None:
    torch.manual_seed(1)
    data = (uniform_data(6, 12), token_data(5, 6))
    trained = train_both(Memories(), "cross_entropy", SGD(0.1), data, batch=3, steps=4)
    assert trained.losses == pytest.approx(trained.torch_losses, rel=2e-5)
    by_name = {what.name: value for what, value in zip(trained.program.state, trained.state, strict=True)}
    assert by_name["order"].tolist() == trained.torch_state["order"].tolist() == [4, 0, 1, 2, 3]
    assert by_name["seen"].tolist() == trained.torch_state["seen"].tolist()
    assert trained.worst_update_error() < 5e-4


def test_batches_straddle_epochs() -> None:
    torch.manual_seed(1)
    data = (uniform_data(5, 12), token_data(5, 5))
    trained = train_both(Perceptron(), "cross_entropy", SGD(0.1), data, batch=4, steps=4)
    assert trained.losses == pytest.approx(trained.torch_losses, rel=2e-5)


def test_frozen_parameters_stay_and_unused_ones_have_no_moments() -> None:
    torch.manual_seed(1)
    module = Perceptron()
    module.layers[0].weight.requires_grad_(False)
    module.spare = torch.nn.Parameter(torch.ones(3))
    trained = train_both(module, "cross_entropy", AdamW(0.01), (FEATURES, token_data(5, 10)), batch=4, steps=1)
    names = [what.name for what in trained.program.state]
    table = dict(zip(names, trained.program.sections[0].next_state, strict=True))
    assert table["layers.0.weight"].operator is None
    assert table["spare"].operator is None
    assert "first_moment.spare" not in names
    assert trained.worst_update_error(("spare",)) < 5e-4
