"""Quantisation of rows as a training step computes it, in PyTorch calls that all have lowerings.

These are the definitions that `assay.group.compression.quantise` implements for the wire, bit for bit: what a receiver
decodes is what the program of a compressed task computes. Everything is float32 products, sums, one division and
comparisons, so the canonical engine, the reference and the contracts execute it without a body of its own.

A row is cut into groups of 128 values, the last one filled up with its first value. With b bits, `top` = 2^b - 1:

- scale = short(max|x| * 2 / top): code k in [0, top] stands for (k - top / 2) * scale;
- tiles: minimum = floor-like short(low), scale = short((high - minimum) / top): k stands for minimum + k * scale.

`short` keeps 8 significant bits, a bfloat16, by Veltkamp's splitting (Dekker 1971) after moving the number away by one
part in 256: never below a scale, never above a minimum. Below 2^-100 a scale or minimum is 0. Numbers beyond 2^100,
infinities and not-a-number make their whole group not-a-number: a diverged run stays visibly diverged.
"""

from __future__ import annotations

import torch
from torch import Tensor

GROUP = 128
AWAY = 2.0**-8
SPLITTER = 65537.0  # 2^16 + 1: of 24 significant bits 8 stay
SMALLEST = 2.0**-100


def quantised(rows: Tensor, bits: int) -> Tensor:
    """What the receiver makes of (rows, n) float32 values sent in `bits` bits, symmetric around 0."""
    top = float((1 << bits) - 1)
    groups = _grouped(rows)
    scale = _short_scale(groups.abs().amax(-1, keepdim=True) * 2.0 / top)
    codes = _codes(groups * _inverse(scale) + (top * 0.5 + 0.5), top)
    return _flattened((codes - top * 0.5) * scale, rows.shape[1])


def quantised_tiles(rows: Tensor, bits: int) -> Tensor:
    """The same where every group of 128 has its own range."""
    top = float((1 << bits) - 1)
    groups = _grouped(rows)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    minimum = torch.where(low.abs() < SMALLEST, 0.0, _short(low - low.abs() * AWAY))
    scale = _short_scale((high - minimum) / top)
    codes = _codes((groups - minimum) * _inverse(scale) + 0.5, top)
    return _flattened(minimum + codes * scale, rows.shape[1])


def _grouped(rows: Tensor) -> Tensor:
    """(rows, n) to (rows, groups, 128)."""
    count, length = rows.shape
    missing = -length % GROUP
    if missing:
        first = rows[:, length + missing - GROUP : length + missing - GROUP + 1]
        rows = torch.cat([rows, first.expand(count, missing)], 1)
    return rows.reshape(count, -1, GROUP)


def _flattened(groups: Tensor, length: int) -> Tensor:
    return groups.reshape(groups.shape[0], -1)[:, :length]


def _short(x: Tensor) -> Tensor:
    """x rounded to 8 significant bits."""
    spread = x * SPLITTER
    return spread - (spread - x)


def _short_scale(scale: Tensor) -> Tensor:
    return torch.where(scale < SMALLEST, 0.0, _short(scale * (1.0 + AWAY)))


def _inverse(scale: Tensor) -> Tensor:
    return torch.where(scale == 0.0, 0.0, 1.0 / scale)


def _codes(levels: Tensor, top: float) -> Tensor:
    """Levels cut off to [0, top], not-a-number to 0, and their fractions dropped."""
    bounded = torch.where(levels > 0.0, levels, 0.0)
    return torch.where(bounded < top, bounded, top).to(torch.int32).to(torch.float32)
