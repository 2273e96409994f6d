// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {MILLION} from "../Parameters.sol";
import {Permutation} from "./Permutation.sol";
import {Philox} from "./Philox.sol";

/// @title Draws
/// @notice What a seed decides: seats, segments, trace positions and the lottery (contracts/SPECIFICATION.md, section 4).
library Draws {
    /// @dev Stream of the random words that say which values make up the trace.
    uint256 private constant TRACE_STREAM = 0xffffffff;

    /// @notice The seat tried at place `place` of the order that the seed gives.
    function seatOf(bytes32 seed, uint256 place, uint256 seats) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, place))) % seats;
    }

    /// @notice Seed of a proof's segments. Never zero, which stands for not drawn.
    function segmentSeedOf(bytes32 seed) internal pure returns (uint64 segmentSeed) {
        segmentSeed = uint64(uint256(keccak256(abi.encode(seed))));
        if (segmentSeed == 0) segmentSeed = 1;
    }

    /// @notice Seed of a round's trace positions: every attempt has its own, so that no trace shown before is of use.
    function drawSeedOf(bytes32 seed, uint256 roundId) internal pure returns (uint64) {
        return uint64(uint256(keccak256(abi.encode(seed, roundId))));
    }

    /// @notice Which operator's output the trace of step `step` (of the task) shows at place `place`.
    function tracedOperator(uint64 drawSeed, uint256 step, uint256 place, uint256 operators)
        internal
        pure
        returns (uint256)
    {
        return Philox.word(drawSeed, step, TRACE_STREAM, 2 * place) % operators;
    }

    /// @notice Which element of that output it shows.
    function tracedElement(uint64 drawSeed, uint256 step, uint256 place, uint256 elements)
        internal
        pure
        returns (uint256)
    {
        return Philox.word(drawSeed, step, TRACE_STREAM, 2 * place + 1) % elements;
    }

    /// @notice Segments of share `number` of a proof, in the order of its claims' leaves. Shares are disjoint.
    /// @param count Segments of a share.
    /// @param total Segments of the proof.
    function segmentsOf(uint64 segmentSeed, uint8 number, uint256 count, uint256 total)
        internal
        pure
        returns (uint32[] memory segments)
    {
        segments = new uint32[](count);
        for (uint256 i = 0; i < count; i++) {
            segments[i] = uint32(Permutation.permute(segmentSeed, 0, uint256(number) * count + i, total));
        }
    }

    /// @notice Segments of a profile: the first ones, whatever the seed.
    function profiled(uint256 count) internal pure returns (uint32[] memory segments) {
        segments = new uint32[](count);
        for (uint32 i = 0; i < count; i++) {
            segments[i] = i;
        }
    }

    /// @notice Whether the lottery forces the verifier with this secret to show the false claim.
    /// @param rate How often it does, in parts per million.
    function isForced(bytes32 secret, bytes32 seed, uint256 rate) internal pure returns (bool) {
        return uint256(keccak256(abi.encode(secret, seed))) % MILLION < rate;
    }
}
