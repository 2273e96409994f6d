"""The calls a graph may contain, each with its lowering. This table is the allow-list: what is not in it is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from assay.program.lowering.builder import Builder
from assay.program.lowering.view import View

Result = View | tuple[View | None, ...]
Handler = Callable[..., Result]
_H = TypeVar("_H", bound=Callable[..., Any])

LOWERINGS: dict[str, Handler] = {}

INSTEAD: Mapping[str, str] = {
    "aten.multinomial": "sample outside the model; only dropout draws random numbers",
    "aten.rand": "draw random numbers before training; only dropout draws them inside a step",
    "aten.randn": "draw random numbers before training; only dropout draws them inside a step",
    "aten.rand_like": "use nn.Dropout, whose draws are reproducible",
    "aten.randn_like": "use nn.Dropout, whose draws are reproducible",
    "aten.randperm": "the order of the data is the task's own",
    "aten.sort": "use max, amax or argmax",
    "aten.topk": "use max, amax or argmax",
    "aten.nonzero": "use a mask and torch.where; shapes must be fixed",
    "aten.masked_select": "use a mask and torch.where; shapes must be fixed",
    "aten.cumsum": "use a product with a triangular matrix",
    "aten.convolution": "transposed convolutions are not lowered: use nn.Upsample by repetition, then nn.Conv2d",
    "aten.linalg_inv_ex": "linear solvers are not lowered",
    "aten._cdist_forward": "write the distance as (a - b).square().sum(-1)",
    "aten._thnn_fused_lstm_cell": "use nn.LSTMCell on the CPU when tracing",
    "aten.mkldnn_rnn_layer": "unroll nn.LSTMCell over time",
    "aten.as_strided": "assigning to a part of a tensor in place needs it: use torch.cat, torch.where or a mask",
    "aten._fft_r2c": "Fourier transforms are not lowered",
    "aten._fft_c2c": "Fourier transforms are not lowered",
    "aten.fft_fft": "Fourier transforms are not lowered",
    "aten.pow": "powers with whole or half exponents are lowered; write others with exp and log",
}
"""What to use instead of calls that people try, by name without overload."""


def lowers(*calls: str) -> Callable[[_H], _H]:
    """Register a function as the lowering of some calls. It is called with the builder, then the call's arguments,
    tensors as views."""

    def register(function: _H) -> _H:
        for call in calls:
            LOWERINGS[call] = function
        return function

    return register


def advice(call: str) -> str:
    """What to use instead of a call that is not lowered."""
    name = call.rsplit(".", 1)[0] if call.count(".") > 1 else call
    return INSTEAD.get(
        name, "write it with calls that are lowered (python -m assay.program.lowering --calls lists them)"
    )


def dimension(place: int, rank: int) -> int:
    """A dimension counted from the front; `ValueError` outside."""
    size = max(rank, 1)
    if not -size <= place < size:
        raise ValueError(f"dimension {place} of {rank}")
    return place % size


__all__ = ["INSTEAD", "LOWERINGS", "Builder", "Handler", "Result", "View", "advice", "dimension", "lowers"]
