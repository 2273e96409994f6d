// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Binary32} from "./Binary32.sol";

/// @title Transcendental
/// @notice exp, log, tanh, erf, sin and cos of the arithmetic `binary32-1`, *defined* as fixed sequences of scalar operations.
/// The definitions, with their reasons and error bounds, are the listings in `client/assay/arithmetic/transcendental.py`;
/// this page follows them step by step. Nothing may be reordered, contracted or left out.
/// @dev Arguments and results are bit patterns in the low 32 bits, as in `Binary32`; every NaN result is 0x7fc00000.
///
/// Two idioms of the listings recur: t = y * c + M with M = 1.5 * 2^23 + b leaves round(y * c) + b in the low bits of t,
/// and t - M is that integer as a float; with b = 127, (t << 23) mod 2^32 is a power of two.
library Transcendental {
    uint256 private constant WORD = 0xffffffff;
    uint256 private constant ONE = 0x3f800000;
    uint256 private constant NEGATIVE_LN2 = 0xbf317218;

    /// @notice e^x.
    function exp(uint256 x) internal pure returns (uint256) {
        if (Binary32.isNaN(x)) return Binary32.NAN;
        uint256 y = Binary32.lt(0x42b20000, x) ? 0x42b20000 : x; // 89
        if (Binary32.lt(y, 0xc2d00000)) y = 0xc2d00000; // -104
        uint256 t = Binary32.fma(y, 0x3fb8aa3b, 0x4b4000fe); // 1 / ln 2, b = 254
        uint256 r;
        {
            uint256 n = Binary32.sub(t, 0x4b4000fe);
            r = Binary32.fma(n, NEGATIVE_LN2, y);
            r = Binary32.fma(n, 0x3102e308, r);
        }
        uint256 p = Binary32.fma(r, 0x3ab12833, 0x3c091b41);
        p = Binary32.fma(p, r, 0x3d2ab1e6);
        p = Binary32.fma(p, r, 0x3e2aaa4c);
        p = Binary32.fma(p, r, 0x3efffff7);
        p = Binary32.fma(p, Binary32.mul(r, r), r); // e^r - 1
        unchecked {
            // 2^n in two factors, so that only the second product rounds.
            uint256 half = t >> 1;
            uint256 lower = (half << 23) & WORD;
            uint256 upper = ((t - half) << 23) & WORD;
            return Binary32.mul(Binary32.fma(p, lower, lower), upper);
        }
    }

    /// @notice The natural logarithm of x: -infinity for both zeros, NaN below.
    function log(uint256 x) internal pure returns (uint256) {
        if (Binary32.eq(x, 0)) return Binary32.NEGATIVE_INFINITY;
        if (!Binary32.lt(0, x)) return Binary32.NAN;
        if (x == Binary32.INFINITY) return x;
        uint256 e;
        uint256 f;
        unchecked {
            uint256 y = x;
            uint256 bias = 0x4b400000;
            if (x < 0x00800000) (y, bias) = (Binary32.mul(x, 0x4b000000), 0x4b400017); // below 2^-126
            // The exponent of y / (2/3), as a signed integer: the shift is arithmetic.
            uint256 k = uint256(int256(int32(uint32(y - 0x3f2aaaab))) >> 23);
            e = Binary32.sub((k + 0x4b400000) & WORD, bias);
            f = Binary32.sub((y - (k << 23)) & WORD, ONE);
        }
        uint256 p = Binary32.fma(f, 0xbe03de0b, 0x3e0f376e);
        p = Binary32.fma(p, f, 0xbdf99aec);
        p = Binary32.fma(p, f, 0x3e0f6a82);
        p = Binary32.fma(p, f, 0xbe2ace2a);
        p = Binary32.fma(p, f, 0x3e4ce82a);
        p = Binary32.fma(p, f, 0xbe7fff7d);
        p = Binary32.fma(p, f, 0x3eaaaa83);
        p = Binary32.fma(p, f, 0xbf000000);
        p = Binary32.fma(p, Binary32.mul(f, f), f); // the logarithm of the significand
        return Binary32.fma(e, 0x3f317218, p);
    }

    /// @notice The hyperbolic tangent of x.
    function tanh(uint256 x) internal pure returns (uint256) {
        if (Binary32.isNaN(x)) return Binary32.NAN;
        uint256 y = Binary32.mul(x & Binary32.MAGNITUDE, 0xc0000000); // -2 |x|
        if (Binary32.lt(y, 0xc1a00000)) y = 0xc1a00000; // -20
        (uint256 p, uint256 s) = _exponentialLessOne(y, 0x3fb8aa3b, y);
        uint256 u = Binary32.fma(p, s, Binary32.sub(s, ONE)); // e^(-2|x|) - 1
        uint256 v = Binary32.fma(p, s, Binary32.add(s, ONE)); // e^(-2|x|) + 1
        return _copySign(Binary32.div(u, v), x);
    }

    /// @notice The error function of x.
    function erf(uint256 x) internal pure returns (uint256) {
        if (Binary32.isNaN(x)) return Binary32.NAN;
        uint256 a = x & Binary32.MAGNITUDE;
        if (Binary32.lt(0x40800000, a)) a = 0x40800000; // 4
        uint256 g = Binary32.fma(a, 0xb71d81a0, 0x38f945a5);
        g = Binary32.fma(g, a, 0xba2714db);
        g = Binary32.fma(g, a, 0x3adba26c);
        g = Binary32.fma(g, a, 0xb931bd14);
        g = Binary32.fma(g, a, 0xbc9cdbe5);
        g = Binary32.fma(g, a, 0x3dd27c62);
        g = Binary32.fma(g, a, 0x3f22f980);
        g = Binary32.fma(g, a, 0x3e0375d4);
        g = Binary32.fma(g, a, a); // -log(1 - erf |x|)
        (uint256 p, uint256 s) = _exponentialLessOne(g, 0xbfb8aa3b, g ^ Binary32.SIGN);
        return _copySign(Binary32.fma(p, s, Binary32.sub(s, ONE)), x);
    }

    /// @notice The sine of x; NaN beyond |x| = 2^20.
    function sin(uint256 x) internal pure returns (uint256) {
        uint256 a = x & Binary32.MAGNITUDE;
        if (!Binary32.le(a, 0x49800000)) return Binary32.NAN;
        return Binary32.canonical(_circular(a, 0) ^ (x & Binary32.SIGN));
    }

    /// @notice The cosine of x; NaN beyond |x| = 2^20.
    function cos(uint256 x) internal pure returns (uint256) {
        uint256 a = x & Binary32.MAGNITUDE;
        if (!Binary32.le(a, 0x49800000)) return Binary32.NAN;
        return Binary32.canonical(_circular(a, 1));
    }

    /// @dev For n = round(a * c), c = +-1 / ln 2: s = 2^n and p = e^r - 1 where r = y - n ln 2.
    function _exponentialLessOne(uint256 a, uint256 c, uint256 y) private pure returns (uint256 p, uint256 s) {
        s = Binary32.fma(a, c, 0x4b40007f);
        uint256 r = Binary32.fma(Binary32.sub(s, 0x4b40007f), NEGATIVE_LN2, y);
        s = (s << 23) & WORD;
        p = Binary32.fma(r, 0x3ab6b91f, 0x3c09140d);
        p = Binary32.fma(p, r, 0x3d2aaa64);
        p = Binary32.fma(p, r, 0x3e2aaa58);
        p = Binary32.fma(p, r, 0x3f000000);
        p = Binary32.fma(p, Binary32.mul(r, r), r);
    }

    /// @dev sin(a + quarters * pi / 2) for a >= 0.
    function _circular(uint256 a, uint256 quarters) private pure returns (uint256) {
        uint256 t = Binary32.fma(a, 0x3f22f983, 0x4b400000); // 2 / pi
        uint256 r;
        {
            uint256 n = Binary32.sub(t, 0x4b400000);
            r = Binary32.fma(n, 0xbfc90fdb, a); // -pi / 2 in three parts
            r = Binary32.fma(n, 0x333bbd2e, r);
            r = Binary32.fma(n, 0x26f72ced, r);
        }
        unchecked {
            t += quarters; // the quadrant, in the low two bits
        }
        uint256 square = Binary32.mul(r, r);
        uint256 p;
        uint256 base;
        if (t & 1 == 1) {
            base = ONE;
            p = Binary32.fma(0x37ccc30f, square, 0xbab6056e);
            p = Binary32.fma(p, square, 0x3d2aaaa4);
            p = Binary32.fma(p, square, 0xbf000000);
        } else {
            base = r;
            p = Binary32.fma(0x363c825e, square, 0xb9502767);
            p = Binary32.fma(p, square, 0x3c0888b6);
            p = Binary32.fma(p, square, 0xbe2aaaab);
        }
        p = Binary32.fma(Binary32.mul(base, square), p, base);
        return p ^ (((t >> 1) & 1) << 31);
    }

    /// @dev The magnitude of `a` with the sign of `b`; NaN stays NaN.
    function _copySign(uint256 a, uint256 b) private pure returns (uint256) {
        return Binary32.canonical((a & Binary32.MAGNITUDE) | (b & Binary32.SIGN));
    }
}
