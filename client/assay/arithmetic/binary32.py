"""Scalar operations of the arithmetic `binary32-1`, on bit patterns.

This module is the specification made executable: slow, and meant to be checked by reading. Every value is a
*word*, a Python integer in [0, 2**32), that holds the bit pattern of an IEEE-754-2019 binary32 number. All
computation is on unbounded integers, so every result is the exact one rounded once (round to nearest, ties to
even); no floating-point unit is involved.

Rules that go beyond IEEE-754, or choose where it leaves a choice:

- There is one NaN. Every operation that yields a NaN yields `NAN` (0x7fc00000), neg, abs, select and copies of
  a NaN included.
- Subnormal numbers are kept, as operands and as results.
- Comparisons with NaN are false. `maximum(a, b)` is `a > b ? a : b` and `minimum(a, b)` is `a < b ? a : b`, so
  equal operands and zeros of either sign give b; a NaN on either side gives NaN.
- Conversions are total: NaN converts to 0, and what does not fit into an int32 saturates.

int32 values are words too, in two's complement. No operation here raises for a word; other integers raise
`ValueError`.
"""

from __future__ import annotations

import math
import struct

VERSION = "binary32-1"

NAN = 0x7FC00000
INFINITY = 0x7F800000
NEGATIVE_INFINITY = 0xFF800000
ZERO = 0x00000000
NEGATIVE_ZERO = 0x80000000
ONE = 0x3F800000
SIGN_BIT = 0x80000000
WORD_MASK = 0xFFFFFFFF

_FRACTION_BITS = 23
_FRACTION_MASK = (1 << _FRACTION_BITS) - 1
_LEAST_EXPONENT = -149  # exponent of the least subnormal, 2**-149
_GREATEST_ULP_EXPONENT = 104  # the greatest finite value is (2**24 - 1) * 2**104


def word(value: int) -> int:
    """`value` itself when it is a word; raises `ValueError` otherwise."""
    if not 0 <= value <= WORD_MASK:
        raise ValueError(f"{value} is not a 32-bit word; expected an integer from 0 to {WORD_MASK}")
    return value


def from_float(value: float) -> int:
    """Word of the binary32 number nearest to a Python float (ties to even, overflow to infinity)."""
    if math.isnan(value):
        return NAN
    if math.isinf(value):
        return INFINITY if value > 0 else NEGATIVE_INFINITY
    sign = 1 if math.copysign(1.0, value) < 0 else 0
    numerator, denominator = abs(value).as_integer_ratio()
    return _round(sign, numerator, 1 - denominator.bit_length())


def to_float(bits: int) -> float:
    """The value of a word as a Python float; exact, because every binary32 number is a binary64 number."""
    result: float = struct.unpack("<f", word(bits).to_bytes(4, "little"))[0]
    return result


def is_nan(bits: int) -> bool:
    """Whether the word holds any NaN, whatever its sign and payload."""
    return word(bits) & ~SIGN_BIT > INFINITY


def canonical(bits: int) -> int:
    """The word itself, or the one NaN where it holds any NaN."""
    return NAN if is_nan(bits) else bits


def add(a: int, b: int) -> int:
    """a + b, rounded once."""
    return fma(ONE, a, b)


def sub(a: int, b: int) -> int:
    """a - b, rounded once."""
    return add(a, neg(b))


def mul(a: int, b: int) -> int:
    """a * b, rounded once."""
    if is_nan(a) or is_nan(b):
        return NAN
    sign = _sign(a) ^ _sign(b)
    if _is_infinite(a) or _is_infinite(b):
        return NAN if _is_zero(a) or _is_zero(b) else _infinity(sign)
    significand_a, exponent_a = _decode(a)
    significand_b, exponent_b = _decode(b)
    return _round(sign, significand_a * significand_b, exponent_a + exponent_b)


def fma(a: int, b: int, c: int) -> int:
    """a * b + c, rounded once (fusedMultiplyAdd). An exact zero from opposite signs is +0."""
    if is_nan(a) or is_nan(b) or is_nan(c):
        return NAN
    product_sign = _sign(a) ^ _sign(b)
    if _is_infinite(a) or _is_infinite(b):
        if _is_zero(a) or _is_zero(b):
            return NAN
        if _is_infinite(c) and _sign(c) != product_sign:
            return NAN
        return _infinity(product_sign)
    if _is_infinite(c):
        return c
    significand_a, exponent_a = _decode(a)
    significand_b, exponent_b = _decode(b)
    significand_c, exponent_c = _decode(c)
    product_exponent = exponent_a + exponent_b
    exponent = min(product_exponent, exponent_c)
    product = (significand_a * significand_b) << (product_exponent - exponent)
    addend = significand_c << (exponent_c - exponent)
    total = (-product if product_sign else product) + (-addend if _sign(c) else addend)
    if total == 0:
        # Both terms zero with one sign keep it; anything that cancels is +0 in round-to-nearest.
        return NEGATIVE_ZERO if product_sign and _sign(c) else ZERO
    return _round(int(total < 0), abs(total), exponent)


def div(a: int, b: int) -> int:
    """a / b, rounded once. 0/0 and infinity/infinity are NaN, x/0 is infinite."""
    if is_nan(a) or is_nan(b):
        return NAN
    sign = _sign(a) ^ _sign(b)
    if _is_infinite(a):
        return NAN if _is_infinite(b) else _infinity(sign)
    if _is_infinite(b):
        return _zero(sign)
    if _is_zero(b):
        return NAN if _is_zero(a) else _infinity(sign)
    significand_a, exponent_a = _decode(a)
    significand_b, exponent_b = _decode(b)
    # 50 extra bits leave a quotient of more than 26 bits; one sticky bit below stands for the whole remainder.
    quotient, remainder = divmod(significand_a << 50, significand_b)
    return _round(sign, (quotient << 1) | int(remainder != 0), exponent_a - exponent_b - 51)


def sqrt(a: int) -> int:
    """Square root, rounded once. sqrt(-0) is -0; any other negative operand gives NaN."""
    if is_nan(a):
        return NAN
    if _is_zero(a):
        return a
    if _sign(a):
        return NAN
    if _is_infinite(a):
        return INFINITY
    significand, exponent = _decode(a)
    shift = 60 + (exponent & 1)  # an even exponent remains, and a root of more than 26 bits
    root = math.isqrt(significand << shift)
    inexact = root * root != significand << shift
    return _round(0, (root << 1) | int(inexact), (exponent - shift) // 2 - 1)


def neg(a: int) -> int:
    """-a (the sign bit inverted); NaN stays the one NaN."""
    return NAN if is_nan(a) else a ^ SIGN_BIT


def absolute(a: int) -> int:
    """|a| (the sign bit cleared); NaN stays the one NaN."""
    return NAN if is_nan(a) else a & ~SIGN_BIT


def eq(a: int, b: int) -> bool:
    """a == b; false with NaN, true for zeros of either sign."""
    if is_nan(a) or is_nan(b):
        return False
    return _ordinal(a) == _ordinal(b)


def lt(a: int, b: int) -> bool:
    """a < b; false with NaN."""
    if is_nan(a) or is_nan(b):
        return False
    return _ordinal(a) < _ordinal(b)


def le(a: int, b: int) -> bool:
    """a <= b; false with NaN."""
    if is_nan(a) or is_nan(b):
        return False
    return _ordinal(a) <= _ordinal(b)


def maximum(a: int, b: int) -> int:
    """`a > b ? a : b`, or NaN if either is NaN. Equal operands, signed zeros included, give b."""
    if is_nan(a) or is_nan(b):
        return NAN
    return a if lt(b, a) else b


def minimum(a: int, b: int) -> int:
    """`a < b ? a : b`, or NaN if either is NaN. Equal operands, signed zeros included, give b."""
    if is_nan(a) or is_nan(b):
        return NAN
    return a if lt(a, b) else b


def select(condition: bool, a: int, b: int) -> int:
    """`condition ? a : b`; a NaN becomes the one NaN."""
    return canonical(a if condition else b)


def float_to_int(a: int) -> int:
    """int32 word of a binary32 word, truncated toward zero. Saturates at -2**31 and 2**31 - 1; NaN gives 0."""
    if is_nan(a):
        return 0
    if _is_infinite(a):
        truncated = 1 << 31
    else:
        significand, exponent = _decode(a)
        truncated = significand << exponent if exponent >= 0 else significand >> -exponent
    signed = -truncated if _sign(a) else truncated
    return max(-(1 << 31), min((1 << 31) - 1, signed)) & WORD_MASK


def int_to_float(a: int) -> int:
    """Binary32 word of an int32 word, rounded to nearest, ties to even. 0 gives +0."""
    signed = to_signed(a)
    return _round(int(signed < 0), abs(signed), 0)


def to_signed(a: int) -> int:
    """Value of an int32 word as a Python integer in [-2**31, 2**31)."""
    return word(a) - ((a & SIGN_BIT) << 1)


def _sign(a: int) -> int:
    return a >> 31


def _is_infinite(a: int) -> bool:
    return a & ~SIGN_BIT == INFINITY


def _is_zero(a: int) -> bool:
    return a & ~SIGN_BIT == 0


def _infinity(sign: int) -> int:
    return NEGATIVE_INFINITY if sign else INFINITY


def _zero(sign: int) -> int:
    return NEGATIVE_ZERO if sign else ZERO


def _ordinal(a: int) -> int:
    """An integer that orders non-NaN words as their values; both zeros map to 0."""
    magnitude = a & ~SIGN_BIT
    return -magnitude if _sign(a) else magnitude


def _decode(a: int) -> tuple[int, int]:
    """(significand, exponent) of a finite word: |value| = significand * 2**exponent, significand < 2**24."""
    field = (a >> _FRACTION_BITS) & 0xFF
    fraction = a & _FRACTION_MASK
    if field == 0:
        return fraction, _LEAST_EXPONENT
    return fraction | (1 << _FRACTION_BITS), field - 150


def _round(sign: int, magnitude: int, exponent: int) -> int:
    """Word nearest to (-1)**sign * magnitude * 2**exponent, ties to even; infinite on overflow, gradual underflow."""
    if magnitude == 0:
        return _zero(sign)
    # Exponent of the result's last bit: 24 significant bits, unless that would be finer than the least subnormal.
    last = max(exponent + magnitude.bit_length() - 24, _LEAST_EXPONENT)
    dropped = last - exponent
    if dropped <= 0:
        significand = magnitude << -dropped
    else:
        significand = magnitude >> dropped
        rest = magnitude - (significand << dropped)
        half = 1 << (dropped - 1)
        if rest > half or (rest == half and significand & 1):
            significand += 1
    if significand == 1 << 24:
        significand >>= 1
        last += 1
    if last > _GREATEST_ULP_EXPONENT:
        return _infinity(sign)
    if significand < 1 << _FRACTION_BITS:
        return (sign << 31) | significand  # subnormal: the exponent field is zero
    return (sign << 31) | ((last + 150) << _FRACTION_BITS) | (significand - (1 << _FRACTION_BITS))
