"""Convolutions and their gradients are the sequential fused folds of the specification, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from assay.engine.cpu import convolution
from assay.engine.cpu.convolution import Convolution

from . import sequential

SHAPES = {
    "rows of two vectors": Convolution(2, 3, 32, 32, 32, (3, 3), padding=(1, 1)),
    "rows of one vector": Convolution(3, 5, 16, 16, 20, (3, 3), padding=(1, 1)),
    "rows of half a vector": Convolution(5, 4, 8, 8, 13, (3, 3), padding=(1, 1)),
    "rows of a quarter vector": Convolution(7, 6, 4, 4, 40, (3, 3), padding=(1, 1)),
    "odd rows": Convolution(3, 3, 7, 9, 5, (3, 3), padding=(1, 1)),
    "stride two": Convolution(3, 4, 8, 8, 33, (3, 3), stride=(2, 2), padding=(1, 1)),
    "stride two, odd image": Convolution(2, 3, 9, 11, 6, (3, 3), stride=(2, 2), padding=(1, 1)),
    "stride larger than the kernel": Convolution(2, 3, 10, 11, 4, (2, 1), stride=(3, 2)),
    "one by one": Convolution(2, 17, 8, 8, 12, (1, 1)),
    "one by one, stride two": Convolution(2, 5, 8, 12, 6, (1, 1), stride=(2, 2)),
    "unequal axes": Convolution(2, 2, 12, 7, 3, (5, 2), stride=(1, 3), padding=(4, 1)),
    "padding beyond the kernel": Convolution(1, 2, 4, 5, 3, (2, 2), padding=(3, 3)),
    "dilated": Convolution(2, 3, 12, 12, 5, (3, 3), stride=(2, 1), padding=(2, 2), dilation=(2, 2)),
    "groups": Convolution(2, 6, 8, 8, 9, (3, 3), padding=(1, 1), groups=3),
    "depthwise": Convolution(2, 4, 8, 8, 8, (3, 3), stride=(2, 2), padding=(1, 1), groups=4),
    "image unused at the edge": Convolution(2, 2, 6, 8, 3, (3, 3), stride=(2, 4)),
}


def _operands(
    shape: Convolution, seed: int, special: float = 0.0
) -> tuple[sequential.Floats, sequential.Floats, sequential.Floats]:
    return (
        sequential.random_floats(shape.x_shape, seed, special),
        sequential.random_floats(shape.w_shape, seed + 1, special),
        sequential.random_floats(shape.y_shape, seed + 2, special),
    )


def _assert_all_three(
    shape: Convolution, x: sequential.Floats, w: sequential.Floats, dy: sequential.Floats, threads: int
) -> None:
    y, dx, dw = (np.full(each, np.nan, np.float32) for each in (shape.y_shape, shape.x_shape, shape.w_shape))
    convolution.forward(shape, x, w, y, threads)
    convolution.input_gradient(shape, dy, w, dx, threads)
    convolution.weight_gradient(shape, x, dy, dw, threads)
    assert sequential.same_bits(y, sequential.convolution(shape, x, w))
    assert sequential.same_bits(dx, sequential.convolution_input_gradient(shape, dy, w))
    assert sequential.same_bits(dw, sequential.convolution_weight_gradient(shape, x, dy))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("threads", [1, 3])
def test_random_values_give_the_sequential_folds(name: str, threads: int) -> None:
    _assert_all_three(SHAPES[name], *_operands(SHAPES[name], 20), threads)


@pytest.mark.parametrize("name", SHAPES)
def test_special_values_reach_padded_and_skipped_terms(name: str) -> None:
    # An infinite or NaN weight meets the +0 of padding and makes NaN; a skipped term would lose it.
    _assert_all_three(SHAPES[name], *_operands(SHAPES[name], 30, special=0.01), 2)


def test_a_negative_zero_that_a_skipped_term_would_clear_is_cleared() -> None:
    shape = Convolution(1, 1, 8, 8, 2, (3, 3), stride=(2, 2), padding=(1, 1))
    tiny = np.float32(1e-30)
    w = np.full(shape.w_shape, tiny, np.float32)
    dy = np.full(shape.y_shape, -tiny, np.float32)  # every product rounds to -0
    x = np.ones(shape.x_shape, np.float32)
    _assert_all_three(shape, x, w, dy, 2)
    exact = sequential.convolution_input_gradient(shape, dy, w)
    short = np.empty_like(exact)
    convolution._plan_short_input_gradient(shape, dy, w, short, 1).run()
    assert not sequential.same_bits(short, exact), "this case no longer shows the difference it is there to show"


def test_many_images_are_accumulated_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = Convolution(11, 2, 8, 8, 3, (3, 3), padding=(1, 1))
    x, w, dy = _operands(shape, 40)
    monkeypatch.setattr(convolution, "PREPARED_BYTES", 40_000)
    _assert_all_three(shape, x, w, dy, 2)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(convolution.ConvolutionError, match="larger than the padded image"):
        Convolution(1, 1, 2, 2, 1, (3, 3))
    with pytest.raises(convolution.ConvolutionError, match="groups"):
        Convolution(1, 3, 4, 4, 4, (1, 1), groups=2)
    shape = Convolution(1, 1, 4, 4, 1, (3, 3))
    x, w, y = (np.zeros(each, np.float32) for each in (shape.x_shape, (1, 1, 2, 2), shape.y_shape))
    with pytest.raises(convolution.ConvolutionError, match="w must be"):
        convolution.forward(shape, x, w, y)
