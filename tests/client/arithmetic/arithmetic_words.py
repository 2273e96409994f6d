"""Operands for the arithmetic's tests, and exact values of words."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from assay.arithmetic import binary32
from assay.arithmetic.vectors import SPECIALS

any_word = st.one_of(
    st.sampled_from(SPECIALS),
    st.integers(0, binary32.WORD_MASK),
    # Exponents close together, where sums cancel and round in interesting places.
    st.builds(
        lambda sign, exponent, fraction: sign << 31 | exponent << 23 | fraction,
        st.integers(0, 1),
        st.integers(115, 140),
        st.integers(0, (1 << 23) - 1),
    ),
)


def random_words(seed: int, count: int) -> NDArray[np.uint32]:
    """Words of all kinds: uniform bits, exponents close together, subnormals, and the special values."""
    generator = np.random.default_rng(seed)
    uniform = generator.integers(0, 1 << 32, count, dtype=np.uint32)
    close = (generator.integers(110, 145, count, dtype=np.uint32) << np.uint32(23)) | (uniform & np.uint32(0x807FFFFF))
    subnormal = uniform[: count // 8] & np.uint32(0x807FFFFF)
    words = np.concatenate([uniform, close, subnormal, np.array(SPECIALS, dtype=np.uint32)])
    generator.shuffle(words)
    return words


def canonical_words(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Bits of float32 values with every NaN made the one NaN."""
    words = values.view(np.uint32).copy()
    words[np.isnan(values)] = binary32.NAN
    return words


def is_finite(word: int) -> bool:
    return word & 0x7F800000 != 0x7F800000


def exact(word: int) -> Fraction:
    """Exact value of a finite word, read field by field."""
    exponent, fraction = word >> 23 & 0xFF, word & 0x7FFFFF
    significand = fraction if exponent == 0 else fraction + (1 << 23)
    return (-1) ** (word >> 31) * significand * Fraction(2) ** (max(exponent, 1) - 150)


def is_nearest(word: int, value: Fraction) -> bool:
    """Whether a finite or infinite word is the round-to-nearest-even result for an exact value."""
    if not is_finite(word):
        return abs(value) >= Fraction(2) ** 128 - Fraction(2) ** 103 and (word >> 31 == 1) == (value < 0)
    magnitude = word & 0x7FFFFFFF
    error = abs(abs(exact(word)) - abs(value))
    if word >> 31 != (value < 0) and value != 0 and magnitude != 0:
        return False
    above = exact(magnitude + 1) if is_finite(magnitude + 1) else Fraction(2) ** 128
    gap_above = above - exact(magnitude)
    gap_below = exact(magnitude) - exact(magnitude - 1) if magnitude else gap_above
    gap = gap_above if abs(value) > exact(magnitude) else gap_below
    return 2 * error < gap or (2 * error == gap and magnitude % 2 == 0)
