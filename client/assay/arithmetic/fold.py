"""Strictly sequential folds over words, first term first.

A reduction is never a tree and never split: the accumulator after term k is a function of the accumulator after
term k - 1 and of term k alone, so any single step of a long reduction can be checked by itself. Terms come in
row-major order of the reduced dimensions. Every fold but the first-maximum index is defined for no terms and
then gives its start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from assay.arithmetic import binary32

SUM_START = binary32.ZERO
MAXIMUM_START = binary32.NEGATIVE_INFINITY


def fold_fma(pairs: Iterable[tuple[int, int]], start: int = SUM_START) -> int:
    """Sum of products: `accumulator = fma(a, b, accumulator)` from +0."""
    accumulator = start
    for a, b in pairs:
        accumulator = binary32.fma(a, b, accumulator)
    return accumulator


def fold_add(terms: Iterable[int], start: int = SUM_START) -> int:
    """Sum: `accumulator = accumulator + a` from +0."""
    accumulator = start
    for a in terms:
        accumulator = binary32.add(accumulator, a)
    return accumulator


def fold_maximum(terms: Iterable[int], start: int = MAXIMUM_START) -> int:
    """Maximum: `accumulator = maximum(accumulator, a)` from -infinity; NaN as soon as a term is NaN."""
    accumulator = start
    for a in terms:
        accumulator = binary32.maximum(accumulator, a)
    return accumulator


def fold_argmax(terms: Sequence[int]) -> int:
    """Index of the first maximum: term k takes over when it is greater than the leader, or NaN and the leader is not.

    So the first NaN leads for good, and of equal terms (zeros of either sign included) the first leads. Raises
    `ValueError` without terms.
    """
    if not terms:
        raise ValueError("the first maximum of no terms has no index; pass at least one term")
    leader = 0
    for k, a in enumerate(terms):
        if binary32.lt(terms[leader], a) or (binary32.is_nan(a) and not binary32.is_nan(terms[leader])):
            leader = k
    return leader


def fold_add_if_equal(terms: Iterable[tuple[int, int, int]], start: int = SUM_START) -> int:
    """Scatter-add seen from its target: of terms (a, b, c), c is added where the int32 words a and b are the same."""
    accumulator = start
    for a, b, c in terms:
        if a == b:
            accumulator = binary32.add(accumulator, c)
    return accumulator


def fold_integer_add(terms: Iterable[int], start: int = 0) -> int:
    """Sum of int32 words, modulo 2**32, from 0."""
    accumulator = start
    for a in terms:
        accumulator = (accumulator + a) & binary32.WORD_MASK
    return accumulator
