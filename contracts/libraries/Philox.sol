// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Binary32} from "./Binary32.sol";

/// @title Philox
/// @notice Counter-based random numbers, Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
/// 1, 2, 3", SC 2011). The authority is `client/assay/arithmetic/philox.py`.
library Philox {
    uint256 private constant WORD = 0xffffffff;

    /// @notice The random word for (seed, step, stream, element).
    /// @param seed Unsigned, 64 bits.
    /// @param step Unsigned, 64 bits.
    /// @param stream Unsigned, 32 bits.
    /// @param element Unsigned, 32 bits: word `element mod 4` of block `element div 4`.
    function word(uint256 seed, uint256 step, uint256 stream, uint256 element) internal pure returns (uint256) {
        uint256 words = block4(seed, (element >> 2) | (stream << 32) | (step << 64));
        return (words >> (32 * (element & 3))) & WORD;
    }

    /// @notice A binary32 in [0, 1): the upper 24 bits of the random word times 2^-24, exact.
    function uniform(uint256 seed, uint256 step, uint256 stream, uint256 element) internal pure returns (uint256) {
        return Binary32.mul(Binary32.fromInt32(word(seed, step, stream, element) >> 8), 0x33800000);
    }

    /// @notice The four words of a block. Key, counter and result hold their words from the lowest bits up.
    /// @param key Two words.
    /// @param counter Four words.
    function block4(uint256 key, uint256 counter) internal pure returns (uint256 words) {
        assembly ("memory-safe") {
            let k0 := and(key, WORD)
            let k1 := and(shr(32, key), WORD)
            let c0 := and(counter, WORD)
            let c1 := and(shr(32, counter), WORD)
            let c2 := and(shr(64, counter), WORD)
            let c3 := and(shr(96, counter), WORD)
            for { let round := 0 } lt(round, 10) { round := add(round, 1) } {
                let low := mul(0xd2511f53, c0)
                let high := mul(0xcd9e8d57, c2)
                c0 := xor(xor(shr(32, high), c1), k0)
                c1 := and(high, WORD)
                c2 := xor(xor(shr(32, low), c3), k1)
                c3 := and(low, WORD)
                k0 := and(add(k0, 0x9e3779b9), WORD)
                k1 := and(add(k1, 0xbb67ae85), WORD)
            }
            words := or(or(c0, shl(32, c1)), or(shl(64, c2), shl(96, c3)))
        }
    }
}
