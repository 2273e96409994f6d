"""The order of the data: a keyed bijection on [0, count) for every epoch.

`permutation(seed, epoch, position, count)` is the sample at a position. On the least domain [0, 2**bits) that
holds [0, count), a key of eight words drives six rounds r = 0 .. 5, each a bijection:

    x = (x + key[3 r mod 8]) * (key[(3 r + 1) mod 8] | 1)  mod 2**bits      an odd factor is invertible
    x = x xor (x >> shift)                                                  shift = ceil(bits / 2)

The first step carries low bits upward, the second brings high bits down; a key word that serves twice is a
summand once and a factor once. Where the result falls outside [0, count), the rounds are applied again (cycle
walking, Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002), which keeps a bijection on
[0, count). More than half of the domain is inside, so fewer than two passes are needed on average; a walk of w
passes more has probability below 2**-w.

The key is key[j] = philox(seed, step = epoch mod 2**32 + 0xffffffff * 2**32, stream = 0xffffffff, element = j): two
Philox blocks an epoch.

This orders data well enough for training; it is no cipher, and nobody's secret depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from assay.arithmetic.binary32 import WORD_MASK
from assay.arithmetic.philox import philox

ROUNDS = 6
KEY_WORDS = 8
KEY_STREAM = 0xFFFFFFFF
KEY_STEP_HIGH = 0xFFFFFFFF
COUNT_LIMIT = 1 << 31


def permutation_key(seed: int, epoch: int) -> tuple[int, ...]:
    """The eight words that drive the rounds of an epoch, whose number counts modulo 2**32."""
    if epoch < 0:
        raise ValueError(f"epoch is {epoch}; expected a number from 0")
    step = (KEY_STEP_HIGH << 32) | (epoch & WORD_MASK)
    return tuple(philox(seed, step, KEY_STREAM, element) for element in range(KEY_WORDS))


def permute(key: Sequence[int], position: int, count: int) -> int:
    """Image of a position under the bijection of a key on [0, count), 1 <= count < 2**31."""
    if not 1 <= count < COUNT_LIMIT:
        raise ValueError(f"count is {count}; expected 1 to {COUNT_LIMIT - 1}")
    if not 0 <= position < count:
        raise ValueError(f"position is {position}; expected 0 to {count - 1}")
    bits = (count - 1).bit_length()
    if bits == 0:
        return 0
    mask = (1 << bits) - 1
    shift = (bits + 1) // 2
    x = position
    while True:
        for r in range(ROUNDS):
            x = ((x + key[3 * r % 8]) * (key[(3 * r + 1) % 8] | 1)) & mask
            x ^= x >> shift
        if x < count:
            return x


def permutation(seed: int, epoch: int, position: int, count: int) -> int:
    """The sample at `position` of `epoch`; the data set has `count` samples (1 to 2**31 - 1), `seed` is 64-bit."""
    return permute(permutation_key(seed, epoch), position, count)
