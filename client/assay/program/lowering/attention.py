"""Scaled dot-product attention (Vaswani et al., 2017), forward and backward.

The probabilities are computed once: the backward pass emits the same operators, which the builder shares.
"""

from __future__ import annotations

import math

from assay.program.lowering import view as views
from assay.program.lowering.builder import FLOAT, NEGATIVE_INFINITY, Builder
from assay.program.lowering.products import matrix_product, softmax_parts
from assay.program.lowering.registry import lowers
from assay.program.lowering.view import View
from assay.program.operator import Body


def _transposed(x: View) -> View:
    return views.permute(x, [*range(x.rank - 2), x.rank - 1, x.rank - 2])


def _scale(query: View, scale: float | None) -> float:
    return 1.0 / math.sqrt(query.shape[-1]) if scale is None else float(scale)


def _probabilities(
    b: Builder, query: View, key: View, causal: bool, mask: View | None, scale: float
) -> tuple[View, View, View]:
    """softmax(query key^T scale + mask) over keys; and the shifted scores' maximum and sum for the log-sum-exp.

    A query whose mask hides all keys has probabilities of 0, as in PyTorch's kernels.
    """
    product = matrix_product(b, query, _transposed(key))  # (batch, heads, queries, keys)
    if causal:
        # Query i sees key j where i - j >= 0; the others read minus infinity.
        stride = (*(0,) * (product.rank - 2), 1, -1)
        product = b.condition(product, 0, stride, product.shape[-2], NEGATIVE_INFINITY)
    scores = b.apply(Body.MUL, product, scale)
    if mask is not None:
        if mask.type == FLOAT:
            scores = b.apply(Body.ADD, scores, mask)
        else:
            scores = b.apply(Body.SELECT, mask, scores, float("-inf"), kind=FLOAT)
    top = b.reduce(Body.FOLD_MAX, [scores], [scores.rank - 1], True)
    _, grown, total = softmax_parts(b, scores, scores.rank - 1, mask is not None)
    # A sum over any key has the largest one's exp(0).
    divisor = total if mask is None else b.apply(Body.MAX, total, 1.0)
    return b.apply(Body.DIV, grown, divisor), top, total


@lowers("aten._scaled_dot_product_flash_attention_for_cpu.default")
def attention(
    b: Builder,
    query: View,
    key: View,
    value: View,
    dropout: float = 0.0,
    causal: bool = False,
    attn_mask: View | None = None,
    scale: float | None = None,
) -> tuple[View, View]:
    _no_dropout(dropout)
    probabilities, top, total = _probabilities(b, query, key, causal, attn_mask, _scale(query, scale))
    log_sum = b.apply(Body.ADD, b.apply(Body.LOG, total), top)
    return matrix_product(b, probabilities, value), views.squeeze(log_sum, log_sum.rank - 1)


@lowers("aten._scaled_dot_product_flash_attention_for_cpu_backward.default")
def attention_backward(
    b: Builder,
    gradient: View,
    query: View,
    key: View,
    value: View,
    out: View,
    log_sum: View,
    dropout: float,
    causal: bool,
    attn_mask: View | None = None,
    scale: float | None = None,
) -> tuple[View, View, View]:
    _no_dropout(dropout)
    factor = _scale(query, scale)
    probabilities, _, _ = _probabilities(b, query, key, causal, attn_mask, factor)
    value_gradient = matrix_product(b, _transposed(probabilities), gradient)
    change = matrix_product(b, gradient, _transposed(value))
    inner = b.reduce(Body.FOLD_FMA, [probabilities, change], [change.rank - 1], True)
    scores = b.apply(Body.MUL, b.apply(Body.MUL, probabilities, b.apply(Body.SUB, change, inner)), factor)
    return matrix_product(b, scores, key), matrix_product(b, _transposed(scores), query), value_gradient


def _no_dropout(dropout: float) -> None:
    if dropout != 0.0:
        raise ValueError("dropout inside fused attention; trace on the CPU, where it is written out")
