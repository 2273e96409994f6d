"""The canonical run's random numbers for native training: the same samples and the same dropout, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from assay.arithmetic.native_random import permutations, uniforms
from assay.arithmetic.philox import KEY_INCREMENTS, MULTIPLIERS, ROUNDS

_MASK = 0xFFFFFFFF


def samples(seed: int, step: int, batch: int, count: int) -> npt.NDArray[np.int64]:
    """The samples of a step: positions step * batch + i of the endless sequence of epochs over `count` samples."""
    parts = []
    position, left = step * batch, batch
    while left:
        epoch, first = divmod(position, count)
        number = min(left, count - first)
        parts.append(permutations(seed, epoch, first, number, count))
        position, left = position + number, left - number
    return np.concatenate(parts)


def bernoulli(
    seed: int, step: int, stream: int, shape: Sequence[int], probability: float, device: torch.device
) -> Tensor:
    """float32 tensor: 1 where an element's uniform number is below `probability` (rounded to binary32), else 0."""
    count = prod(shape)
    if device.type == "cpu":
        drawn = torch.from_numpy(uniforms(seed, step, stream, 0, count))
    else:
        drawn = device_uniforms(seed, step, stream, count, device)
    return (drawn < float(np.float32(probability))).to(torch.float32).reshape(tuple(shape))


def device_uniforms(seed: int, step: int, stream: int, count: int, device: torch.device) -> Tensor:
    """`uniforms` computed on a device, in 64-bit integer tensors: the words of Philox4x32-10, element by element."""
    blocks = torch.arange(-(-count // 4), dtype=torch.int64, device=device)
    zero = torch.zeros_like(blocks)
    c0, c1, c2, c3 = blocks, zero + stream, zero + (step & _MASK), zero + (step >> 32)
    key_low, key_high = seed & _MASK, seed >> 32
    for _ in range(ROUNDS):
        # A product of two 32-bit words wraps in int64, but its bits are those of the unsigned product.
        product_low, product_high = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product_high >> 32) & _MASK) ^ c1 ^ key_low,
            product_high & _MASK,
            ((product_low >> 32) & _MASK) ^ c3 ^ key_high,
            product_low & _MASK,
        )
        key_low = (key_low + KEY_INCREMENTS[0]) & _MASK
        key_high = (key_high + KEY_INCREMENTS[1]) & _MASK
    words = torch.stack((c0, c1, c2, c3), dim=1).reshape(-1)[:count]
    return (words >> 8).to(torch.float32) * 2.0**-24
