// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Binary32} from "./Binary32.sol";
import {Philox} from "./Philox.sol";

/// @title Permutation
/// @notice The order of the data: a keyed bijection on [0, count) for every epoch. Definition and reasons are in
/// `client/assay/arithmetic/permutation.py`, the authority.
library Permutation {
    uint256 private constant WORD = 0xffffffff;

    /// @notice The sample at `position` of `epoch`.
    /// @param seed Unsigned, 64 bits.
    /// @param epoch Reduced to its low 32 bits.
    /// @param position Below `count`.
    /// @param count Number of samples, at least 1 and below 2^32.
    /// @dev The walk ends: the rounds are a bijection of the domain, and the walk started inside. It takes more than w further
    /// passes for one seed in about 2^w, each some 500 gas.
    function permute(uint256 seed, uint256 epoch, uint256 position, uint256 count) internal pure returns (uint256 x) {
        uint256 counter = (WORD << 96) | ((epoch & WORD) << 64) | (WORD << 32);
        uint256 key = Philox.block4(seed, counter) | (Philox.block4(seed, counter | 1) << 128);
        // The least domain [0, 2^bits) around [0, count).
        uint256 bits = Binary32.bitLength(count - 1);
        uint256 mask = (1 << bits) - 1;
        uint256 shift = (bits + 1) / 2;
        assembly ("memory-safe") {
            x := position
            for {} 1 {} {
                let words := key
                for { let round := 0 } lt(round, 6) { round := add(round, 1) } {
                    // Key words 3 round and 3 round + 1, modulo eight, lie lowest; the factor is made odd.
                    x := and(mul(add(x, and(words, WORD)), or(and(shr(32, words), WORD), 1)), mask)
                    x := xor(x, shr(shift, x))
                    words := or(shr(96, words), shl(160, words))
                }
                if lt(x, count) { break }
            }
        }
    }
}
