"""The input gradient of max pooling is the fold of the specification, also where windows overlap."""

from __future__ import annotations

import numpy as np
import pytest

from assay.engine.cpu.launches import Addresses, PoolingGradientLaunch
from assay.engine.pooling_pattern import recognise_pooling_gradient
from assay.program.lowering import pooling as lowering
from assay.program.lowering import view as views
from assay.program.lowering.builder import Builder
from assay.program.operator import ElementType, Operator, Source

from . import sequential

CASES = {
    "disjoint windows": ((2, 3, 8, 6), (2, 2), (2, 2), (0, 0), (1, 1)),
    "overlapping windows": ((1, 2, 9, 11), (3, 3), (2, 1), (1, 1), (1, 1)),
    "gaps between windows": ((2, 2, 10, 12), (2, 2), (3, 4), (0, 0), (1, 1)),
    "dilated": ((1, 1, 12, 12), (3, 2), (1, 2), (1, 1), (2, 2)),
}


def _operator(case: str) -> tuple[Operator, tuple[int, int]]:
    """The gradient's operator over dy (data 0) and the window numbers (data 1), and the size of dy."""
    shape, kernel, stride, padding, dilation = CASES[case]
    out = [
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(shape[2:], kernel, stride, padding, dilation, strict=True)
    ]
    builder = Builder()
    x = views.whole(ElementType.FLOAT, shape, Source.STATE, 0)
    dy = views.whole(ElementType.FLOAT, (*shape[:2], *out), Source.DATA, 0)
    numbers = views.whole(ElementType.INT, (*shape[:2], *out), Source.DATA, 1)
    lowering.max_pool_backward(builder, dy, x, kernel, stride, padding, dilation, False, numbers)
    return builder.operators[-1], (out[0], out[1])


def _by_folding(case: str, dy: np.ndarray, numbers: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    shape, kernel, stride, padding, dilation = CASES[case]
    dx = np.zeros(shape, np.float32)
    for n, c, h, v in np.ndindex(*shape):
        total = np.float32(0)
        for kh, kw in np.ndindex(*kernel):
            i, rest_i = divmod(h + padding[0] - kh * dilation[0], stride[0])
            j, rest_j = divmod(v + padding[1] - kw * dilation[1], stride[1])
            inside = not rest_i and not rest_j and 0 <= i < dy.shape[2] and 0 <= j < dy.shape[3]
            if inside and numbers[n, c, i, j] == kh * kernel[1] + kw:
                total = np.float32(total + dy[n, c, i, j])
        dx[n, c, h, v] = total
    return dx


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("threads", [1, 3])
def test_gradients_are_folded_in_order(case: str, threads: int) -> None:
    operator, out = _operator(case)
    shape, kernel = CASES[case][:2]
    dy = sequential.random_floats((*shape[:2], *out), 1, special=0.05)
    # Numbers as a stranger might give them: some name no position of the kernel, some a padded one.
    numbers = np.random.default_rng(2).integers(-1, kernel[0] * kernel[1] + 1, dy.shape).astype(np.int32)
    pattern = recognise_pooling_gradient(operator)
    assert pattern is not None
    found = np.full(shape, np.nan, np.float32)
    launch = PoolingGradientLaunch(0, operator, pattern)
    arrays = {(Source.DATA, 0): dy, (Source.DATA, 1): numbers, (Source.OPERATOR, 0): found}
    addresses = Addresses(arrays, 0)
    launch.run(launch.prepare(addresses), addresses, 0, threads)
    assert sequential.same_bits(found, _by_folding(case, dy, numbers))
