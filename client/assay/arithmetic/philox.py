"""Counter-based random numbers: Philox4x32-10.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. A block of four 32-bit
words is a function of a 128-bit counter and a 64-bit key; ten rounds, each two 32 x 32 -> 64 bit products.

The value for (seed, step, stream, element) is one word of one block:

    key     = (seed mod 2**32, seed div 2**32)
    counter = (element div 4, stream, step mod 2**32, step div 2**32)
    word    = element mod 4

so neighbouring elements share a block. This module is the reference; `assay.arithmetic.native` fills arrays at speed.
"""

from __future__ import annotations

from assay.arithmetic import binary32, transcendental

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

TWO_TO_MINUS_24 = 0x33800000
TWO_PI = 0x40C90FDB
MINUS_TWO = 0xC0000000

Block = tuple[int, int, int, int]


def philox_block(key: tuple[int, int], counter: Block) -> Block:
    """Four random words of a counter under a key, all of them 32-bit words."""
    key_low, key_high = key
    c0, c1, c2, c3 = counter
    for _ in range(ROUNDS):
        product_low = MULTIPLIERS[0] * c0
        product_high = MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product_high >> 32) ^ c1 ^ key_low,
            product_high & binary32.WORD_MASK,
            (product_low >> 32) ^ c3 ^ key_high,
            product_low & binary32.WORD_MASK,
        )
        key_low = (key_low + KEY_INCREMENTS[0]) & binary32.WORD_MASK
        key_high = (key_high + KEY_INCREMENTS[1]) & binary32.WORD_MASK
    return c0, c1, c2, c3


def philox(seed: int, step: int, stream: int, element: int) -> int:
    """The random word for (seed, step, stream, element).

    `seed` and `step` are unsigned 64-bit, `stream` and `element` unsigned 32-bit integers; raises `ValueError`
    for others.
    """
    for name, value, bits in (("seed", seed, 64), ("step", step, 64), ("stream", stream, 32), ("element", element, 32)):
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name} is {value}; expected an unsigned {bits}-bit integer")
    key = (seed & binary32.WORD_MASK, seed >> 32)
    return philox_block(key, (element >> 2, stream, step & binary32.WORD_MASK, step >> 32))[element & 3]


def uniform_of(random: int) -> int:
    """Binary32 word in [0, 1) of a random word: its upper 24 bits times 2**-24, exact."""
    return binary32.mul(binary32.int_to_float(random >> 8), TWO_TO_MINUS_24)


def uniform(seed: int, step: int, stream: int, element: int) -> int:
    """Uniform binary32 word in [0, 1) for (seed, step, stream, element)."""
    return uniform_of(philox(seed, step, stream, element))


def normal(seed: int, step: int, stream: int, element: int) -> int:
    """Standard normal binary32 word for (seed, step, stream, element).

    Box and Muller's transform (1958) of the pair of words that the element shares with its neighbour, each step
    rounded once and the functions those of `transcendental`:

        u = uniform of the even word, v = uniform of the odd word
        radius = sqrt(-2 * log(1 - u)),  angle = 2 pi * v
        even elements: radius * cos(angle), odd elements: radius * sin(angle)

    1 - u is exact and in (0, 1], so the magnitude never exceeds sqrt(48 ln 2) = 5.77.
    """
    even = element & ~1
    u = uniform(seed, step, stream, even)
    v = uniform(seed, step, stream, even | 1)
    radius = binary32.sqrt(binary32.mul(MINUS_TWO, transcendental.log(binary32.sub(binary32.ONE, u))))
    angle = binary32.mul(TWO_PI, v)
    turn = transcendental.sin(angle) if element & 1 else transcendental.cos(angle)
    return binary32.mul(radius, turn)
