// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// @title Binary32
/// @notice IEEE-754 binary32 arithmetic on bit patterns: the scalar operations of Assay's arithmetic `binary32-1`.
///
/// Every operation rounds once, to nearest with ties to even, keeps subnormals, and returns 0x7fc00000 for every NaN.
/// The authority, bit for bit, is `client/assay/arithmetic/binary32.py`.
///
/// @dev Values are `uint256` words that hold a 32-bit pattern, upper bits zero. Callers guarantee that; nothing here masks it again.
///
/// Every arithmetic operation has two parts. The fast part, in assembly, serves normal operands with a normal result and
/// leaves the result word at zero where it does not apply (it can never produce the pattern of +0 itself). The general
/// part, in Solidity, serves everything and alone defines the operation: deleting the fast part changes gas and no result.
///
/// Notation: a finite value with biased exponent field `e` (taken as 1 for subnormals) and significand `m` (with its implicit
/// bit, if it has one) is m * 2^(e - 150). "At exponent q" means scaled by 2^(q - 150). A rounded significand m in
/// [2^23, 2^24] at exponent e is encoded by ((e - 1) << 23) + m, where a carry out of m moves into the exponent by itself.
library Binary32 {
    /* CONSTANTS */

    uint256 internal constant NAN = 0x7fc00000;
    uint256 internal constant INFINITY = 0x7f800000;
    uint256 internal constant NEGATIVE_INFINITY = 0xff800000;
    uint256 internal constant ONE = 0x3f800000;
    uint256 internal constant SIGN = 0x80000000;
    uint256 internal constant MAGNITUDE = 0x7fffffff;

    /// @dev Byte i (from the left) is the bit length of i, for i in 0..31: `byte(i, BIT_LENGTHS)`.
    uint256 private constant BIT_LENGTHS = 0x0001020203030303040404040404040405050505050505050505050505050505;

    /* CLASSES AND SIGNS */

    /// @notice Whether `a` is a NaN, of any pattern.
    function isNaN(uint256 a) internal pure returns (bool) {
        return a & MAGNITUDE > INFINITY;
    }

    /// @notice `a` itself, or 0x7fc00000 if it is any NaN.
    function canonical(uint256 a) internal pure returns (uint256) {
        return a & MAGNITUDE > INFINITY ? NAN : a;
    }

    /// @notice -a.
    function neg(uint256 a) internal pure returns (uint256) {
        return a & MAGNITUDE > INFINITY ? NAN : a ^ SIGN;
    }

    /// @notice |a|.
    function abs(uint256 a) internal pure returns (uint256) {
        a &= MAGNITUDE;
        return a > INFINITY ? NAN : a;
    }

    /* COMPARISONS */

    /// @notice a == b; false if either is a NaN, true for +0 and -0.
    function eq(uint256 a, uint256 b) internal pure returns (bool) {
        return !isNaN(a) && !isNaN(b) && _order(a) == _order(b);
    }

    /// @notice a < b; false if either is a NaN.
    function lt(uint256 a, uint256 b) internal pure returns (bool) {
        return !isNaN(a) && !isNaN(b) && _order(a) < _order(b);
    }

    /// @notice a <= b; false if either is a NaN.
    function le(uint256 a, uint256 b) internal pure returns (bool) {
        return !isNaN(a) && !isNaN(b) && _order(a) <= _order(b);
    }

    /// @notice a > b ? a : b, or NaN if either is a NaN. Of two zeros the second is returned.
    function maximum(uint256 a, uint256 b) internal pure returns (uint256) {
        if (isNaN(a) || isNaN(b)) return NAN;
        return _order(a) > _order(b) ? a : b;
    }

    /// @notice a < b ? a : b, or NaN if either is a NaN. Of two zeros the second is returned.
    function minimum(uint256 a, uint256 b) internal pure returns (uint256) {
        if (isNaN(a) || isNaN(b)) return NAN;
        return _order(a) < _order(b) ? a : b;
    }

    /* CONVERSIONS */

    /// @notice The int32 nearest to `a` towards zero, as a two's complement pattern; saturates; a NaN gives 0.
    function toInt32(uint256 a) internal pure returns (uint256 result) {
        unchecked {
            uint256 exponent = (a >> 23) & 0xff;
            if (exponent < 127 || isNaN(a)) return 0;
            if (exponent > 157) return a >= SIGN ? 0x80000000 : 0x7fffffff;
            result = ((((a & 0x7fffff) | 0x800000) << 8) >> (158 - exponent));
            if (a >= SIGN) result = (0x100000000 - result) & 0xffffffff;
        }
    }

    /// @notice The float nearest to the int32 with the two's complement pattern `a`.
    function fromInt32(uint256 a) internal pure returns (uint256) {
        unchecked {
            if (a == 0) return 0;
            if (a >= SIGN) return _round(SIGN, 0x100000000 - a, 150 + _BIAS);
            return _round(0, a, 150 + _BIAS);
        }
    }

    /* ARITHMETIC */

    /// @notice a + b.
    function add(uint256 a, uint256 b) internal pure returns (uint256 result) {
        assembly ("memory-safe") {
            for {} 1 {} {
                // Both normal: an exponent field of 0 or 255 becomes 0 modulo 2^7 when one is added to it.
                if iszero(mul(and(add(a, 0x800000), 0x7f000000), and(add(b, 0x800000), 0x7f000000))) { break }
                // Let `a` be the larger in magnitude.
                if lt(and(a, MAGNITUDE), and(b, MAGNITUDE)) {
                    let larger := b
                    b := a
                    a := larger
                }
                let q := and(shr(23, a), 0xff)
                let distance := sub(q, and(shr(23, b), 0xff))
                // Beyond 25 places b is below a quarter of a's last place, also under a power of two.
                if gt(distance, 25) {
                    result := a
                    break
                }
                let sum := shl(26, or(and(a, 0x7fffff), 0x800000))
                let term := shl(sub(26, distance), or(and(b, 0x7fffff), 0x800000))
                switch lt(xor(a, b), SIGN)
                case 1 { sum := add(sum, term) }
                default { sum := sub(sum, term) }
                // The sum has at most 51 bits. Its five leading places say how far it is to be shifted; none: cancellation.
                let length := byte(shr(46, sum), BIT_LENGTHS)
                q := add(q, length)
                // Exponent of the result, q - 4, in [1, 253], so that rounding up does not overflow.
                if iszero(mul(length, lt(sub(q, 5), 253))) { break }
                sum := shl(sub(5, length), sum)
                result := or(
                    and(a, SIGN),
                    add(
                        shr(27, add(add(sum, 0x3ffffff), and(shr(27, sum), 1))),
                        shl(23, sub(q, 5))
                    )
                )
                break
            }
        }
        if (result == 0) result = _addGeneral(a, b);
    }

    /// @notice a - b.
    function sub(uint256 a, uint256 b) internal pure returns (uint256) {
        // The sign of a NaN does not matter: every NaN result is the canonical one.
        return add(a, b ^ SIGN);
    }

    /// @notice a * b.
    function mul(uint256 a, uint256 b) internal pure returns (uint256 result) {
        assembly ("memory-safe") {
            if mul(and(add(a, 0x800000), 0x7f000000), and(add(b, 0x800000), 0x7f000000)) {
                let product := mul(or(and(a, 0x7fffff), 0x800000), or(and(b, 0x7fffff), 0x800000))
                let carry := shr(47, product)
                // Exponent of the result minus one.
                let q := sub(add(add(and(shr(23, a), 0xff), and(shr(23, b), 0xff)), carry), 128)
                if lt(q, 253) {
                    product := shl(sub(1, carry), product)
                    result := or(
                        and(xor(a, b), SIGN),
                        add(shr(24, add(add(product, 0x7fffff), and(shr(24, product), 1))), shl(23, q))
                    )
                }
            }
        }
        if (result == 0) result = _mulGeneral(a, b);
    }

    /// @notice a * b + c, rounded once.
    function fma(uint256 a, uint256 b, uint256 c) internal pure returns (uint256 result) {
        assembly ("memory-safe") {
            for {} 1 {} {
                // All three normal.
                if iszero(
                    mul(
                        mul(and(add(a, 0x800000), 0x7f000000), and(add(b, 0x800000), 0x7f000000)),
                        and(add(c, 0x800000), 0x7f000000)
                    )
                ) { break }
                // A fixed window: the 48-bit product, 25 places up, at exponent q; the addend, `shift` places up, too.
                let q := sub(add(and(shr(23, a), 0xff), and(shr(23, b), 0xff)), 175)
                let shift := sub(and(shr(23, c), 0xff), q)
                let term := 1
                let place := 69 // the lowest of the five leading places of the sum
                switch gt(shift, 75)
                case 0 {
                    term := shl(shift, or(and(c, 0x7fffff), 0x800000))
                    if gt(shift, 49) { place := add(shift, 20) }
                }
                default {
                    // Above the window, the product is below a quarter of the addend's last place, also under a power of two.
                    // Below it (negative), the addend is less than half a unit of the product and only breaks ties: 1 stands for it.
                    if sgt(shift, 0) {
                        result := c
                        break
                    }
                }
                let sum := shl(25, mul(or(and(a, 0x7fffff), 0x800000), or(and(b, 0x7fffff), 0x800000)))
                let sign := and(xor(a, b), SIGN)
                switch and(xor(sign, c), SIGN)
                case 0 { sum := add(sum, term) }
                default {
                    sum := sub(sum, term)
                    if slt(sum, 0) {
                        sum := sub(0, sum)
                        sign := xor(sign, SIGN)
                    }
                }
                let length := byte(shr(place, sum), BIT_LENGTHS)
                // The places to drop: those below the 24 leading ones.
                place := sub(add(place, length), 24)
                // Exponent of the result minus one.
                q := sub(add(q, place), 1)
                if iszero(mul(length, lt(q, 253))) { break }
                sum := shl(sub(128, place), sum)
                result := or(
                    sign,
                    add(shr(128, add(add(sum, 0x7fffffffffffffffffffffffffffffff), and(shr(128, sum), 1))), shl(23, q))
                )
                break
            }
        }
        if (result == 0) result = _fmaGeneral(a, b, c);
    }

    /// @notice a / b.
    function div(uint256 a, uint256 b) internal pure returns (uint256 result) {
        assembly ("memory-safe") {
            if mul(and(add(a, 0x800000), 0x7f000000), and(add(b, 0x800000), 0x7f000000)) {
                let dividend := or(and(a, 0x7fffff), 0x800000)
                let divisor := or(and(b, 0x7fffff), 0x800000)
                let borrow := lt(dividend, divisor)
                // Exponent of the result minus one.
                let q := sub(add(and(shr(23, a), 0xff), 126), add(and(shr(23, b), 0xff), borrow))
                if lt(q, 253) {
                    // A quotient of two 24-bit significands never lies halfway between two of them: half a divisor rounds it.
                    result := or(
                        and(xor(a, b), SIGN),
                        add(div(add(shl(add(23, borrow), dividend), shr(1, divisor)), divisor), shl(23, q))
                    )
                }
            }
        }
        if (result == 0) result = _divGeneral(a, b);
    }

    /// @notice The square root of `a`; NaN below -0, and -0 of -0.
    function sqrt(uint256 a) internal pure returns (uint256) {
        unchecked {
            if (a & MAGNITUDE > INFINITY) return NAN;
            if (a & MAGNITUDE == 0 || a == INFINITY) return a;
            if (a >= SIGN) return NAN;
            (uint256 exponent, uint256 significand) = _decode(a);
            // A subnormal has a shorter significand: lengthen it, at an exponent that may then be below one.
            uint256 missing = 24 - bitLength(significand);
            exponent = exponent + 125 - missing;
            // The radicand lies in [2^48, 2^50) at an even power of two, so that its root, in [2^24, 2^25), has one place to round away.
            uint256 radicand = significand << (missing + 25 + (exponent & 1));
            uint256 root;
            assembly ("memory-safe") {
                // A line within 3 % of the root over [2^48, 2^50), then three Newton steps: relative error below 2^-46.
                root := add(shr(29, mul(radicand, 11)), 0xaf5c28)
                root := shr(1, add(root, div(radicand, root)))
                root := shr(1, add(root, div(radicand, root)))
                root := shr(1, add(root, div(radicand, root)))
                root := sub(root, lt(div(radicand, root), root))
                // No root of a 24-bit significand lies halfway between two of them.
                root := shr(1, add(root, 1))
            }
            return ((exponent >> 1) << 23) + root;
        }
    }

    /* GENERAL PARTS */

    function _addGeneral(uint256 a, uint256 b) private pure returns (uint256) {
        unchecked {
            if (isNaN(a) || isNaN(b)) return NAN;
            if (a & MAGNITUDE == INFINITY) return b == a ^ SIGN ? NAN : a;
            if (b & MAGNITUDE == INFINITY) return b;
            if (a & MAGNITUDE < b & MAGNITUDE) (a, b) = (b, a);
            (uint256 exponent, uint256 larger) = _decode(a);
            (uint256 exponentB, uint256 smaller) = _decode(b);
            uint256 distance = exponent - exponentB;
            if (distance > 30) {
                // Only the side of the larger value on which the sum lies matters: one unit stands for all of b.
                distance = 30;
                smaller = smaller == 0 ? 0 : 1;
            }
            larger <<= distance;
            uint256 sum = (a ^ b) < SIGN ? larger + smaller : larger - smaller;
            if (sum == 0) return a & b & SIGN; // -0 only as the sum of two
            return _round(a & SIGN, sum, exponent + _BIAS - distance);
        }
    }

    function _mulGeneral(uint256 a, uint256 b) private pure returns (uint256) {
        unchecked {
            uint256 sign = (a ^ b) & SIGN;
            a &= MAGNITUDE;
            b &= MAGNITUDE;
            if (a > INFINITY || b > INFINITY) return NAN;
            if (a == INFINITY || b == INFINITY) return a == 0 || b == 0 ? NAN : sign | INFINITY;
            if (a == 0 || b == 0) return sign;
            (uint256 exponentA, uint256 significandA) = _decode(a);
            (uint256 exponentB, uint256 significandB) = _decode(b);
            return _round(sign, significandA * significandB, exponentA + exponentB + _BIAS - 150);
        }
    }

    function _fmaGeneral(uint256 a, uint256 b, uint256 c) private pure returns (uint256) {
        unchecked {
            if (isNaN(a) || isNaN(b) || isNaN(c)) return NAN;
            if (a & MAGNITUDE == INFINITY || b & MAGNITUDE == INFINITY) {
                uint256 infinity = _mulGeneral(a, b);
                // A NaN differs from c, too, by more than the sign.
                return c == infinity ^ SIGN ? NAN : infinity;
            }
            if (c & MAGNITUDE == INFINITY) return c;
            uint256 sign = (a ^ b) & SIGN;
            if (a & MAGNITUDE == 0 || b & MAGNITUDE == 0) {
                return c & MAGNITUDE == 0 ? sign & c : c; // -0 only as the sum of two
            }
            if (c & MAGNITUDE == 0) return mul(a, b);

            (uint256 exponent, uint256 product) = _decode(a);
            uint256 term;
            uint256 exponentC;
            (exponentC, term) = _decode(b);
            exponent = exponent + exponentC + _BIAS - 150;
            product *= term;
            (exponentC, term) = _decode(c);
            exponentC += _BIAS;
            if (exponentC > exponent) {
                // Beyond 60 places the product is below a quarter of the addend's last place (and a subnormal addend has no finer one).
                if (exponentC - exponent > 60) return c;
                term <<= exponentC - exponent;
            } else {
                uint256 distance = exponent - exponentC;
                if (distance > 60) {
                    // Only the side of the product on which the sum lies matters: one unit stands for all of the addend.
                    distance = 60;
                    term = 1;
                }
                product <<= distance;
                exponent -= distance;
            }
            if (sign == c & SIGN) return _round(sign, product + term, exponent);
            if (product == term) return 0;
            return product > term ? _round(sign, product - term, exponent) : _round(c & SIGN, term - product, exponent);
        }
    }

    function _divGeneral(uint256 a, uint256 b) private pure returns (uint256) {
        unchecked {
            uint256 sign = (a ^ b) & SIGN;
            a &= MAGNITUDE;
            b &= MAGNITUDE;
            if (a > INFINITY || b > INFINITY) return NAN;
            if (a == INFINITY) return b == INFINITY ? NAN : sign | INFINITY;
            if (b == INFINITY) return sign;
            if (b == 0) return a == 0 ? NAN : sign | INFINITY;
            if (a == 0) return sign;
            (uint256 exponentA, uint256 dividend) = _decode(a);
            (uint256 exponentB, uint256 divisor) = _decode(b);
            // 64 places more than the quotient of any two significands needs; the last one also stands for the remainder.
            dividend <<= 64;
            uint256 quotient = dividend / divisor;
            if (dividend % divisor != 0) quotient |= 1;
            return _round(sign, quotient, exponentA + _BIAS + 86 - exponentB);
        }
    }

    /// @dev Added to exponents in the general parts, which keeps them positive.
    uint256 private constant _BIAS = 1024;

    /// @dev The float nearest to `significand` at exponent `exponent` - _BIAS. `significand` is not zero and is below 2^200; where it
    /// stands for a longer one, its last place is odd exactly if it is inexact, and lies at least two places below the rounding.
    function _round(uint256 sign, uint256 significand, uint256 exponent) private pure returns (uint256 result) {
        unchecked {
            // Lengthened by 24 places, so that there is always something to drop.
            significand <<= 24;
            uint256 drop = bitLength(significand) - 24;
            exponent = exponent + drop - 24;
            if (exponent <= _BIAS) {
                // Below the normal range the last place stays at exponent one.
                drop += _BIAS + 1 - exponent;
                exponent = _BIAS + 1;
                if (drop > 255) return sign;
            }
            if (drop != 0) {
                significand += (1 << (drop - 1)) - 1 + ((significand >> drop) & 1);
                significand >>= drop;
            }
            result = ((exponent - _BIAS - 1) << 23) + significand;
            return sign | (result > INFINITY ? INFINITY : result);
        }
    }

    /// @dev Exponent field (1 for subnormals) and significand of a finite value.
    function _decode(uint256 a) private pure returns (uint256 exponent, uint256 significand) {
        assembly ("memory-safe") {
            exponent := and(shr(23, a), 0xff)
            significand := or(and(a, 0x7fffff), shl(23, gt(exponent, 0)))
            exponent := or(exponent, iszero(exponent))
        }
    }

    /// @notice Number of binary places of `a`: 0 for 0, 8 for 255.
    function bitLength(uint256 a) internal pure returns (uint256 length) {
        assembly ("memory-safe") {
            length := shl(7, lt(0xffffffffffffffffffffffffffffffff, a))
            length := or(length, shl(6, lt(0xffffffffffffffff, shr(length, a))))
            length := or(length, shl(5, lt(0xffffffff, shr(length, a))))
            length := or(length, shl(4, lt(0xffff, shr(length, a))))
            length := or(length, shl(3, lt(0xff, shr(length, a))))
            // At most eight places are left: three, or five and three of them.
            a := shr(length, a)
            let high := mul(3, lt(31, a))
            length := add(add(length, high), byte(shr(high, a), BIT_LENGTHS))
        }
    }

    /// @dev A key that orders all values but NaN as a signed integer, both zeros alike.
    function _order(uint256 a) private pure returns (int256 key) {
        assembly ("memory-safe") {
            key := mul(and(a, MAGNITUDE), sub(1, shl(1, shr(31, a))))
        }
    }
}
