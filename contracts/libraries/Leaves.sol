// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Trees} from "./Trees.sol";

/// @notice What a replay claim says about one segment (FORMAT 3); the segment's number follows from the draw.
/// @param end State root after the segment.
/// @param distance Bits of the distance; zero in exact mode.
/// @param trace Root of the trace.
struct ReplayLeaf {
    bytes32 end;
    uint32 distance;
    bytes32 trace;
}

/// @notice What a profile claim says about one segment (FORMAT 3).
struct ProfileLeaf {
    bytes32 clean;
    bytes32 noisy;
    bytes32 thresholds;
    uint32 separation;
    bytes32 trace;
}

/// @notice The solver's checkpoint after a segment, opened under its checkpoint root.
struct Checkpoint {
    bytes32 root;
    bytes32[] proof;
}

/// @notice What the solver registered, as far as it decides whether a replay passes.
/// @param root Root of its checkpoints.
/// @param depth Depth of that tree.
/// @param exact Whether the task is in exact mode.
struct Registered {
    bytes32 root;
    uint256 depth;
    bool exact;
}

/// @title Leaves
/// @notice Roots of claims, and what a claim says about the proof.
library Leaves {
    /// @notice Bits of the binary32 number 1, of infinity, and the mask of magnitudes.
    uint256 internal constant ONE = 0x3f800000;
    uint256 internal constant INFINITY = 0x7f800000;
    uint256 internal constant MAGNITUDE = 0x7fffffff;

    error WrongCount(uint256 given, uint256 expected);
    error DistanceInExactMode(uint256 leaf, uint32 distance);

    /// @notice Root of a replay claim, and whether the replayed segments pass.
    /// @param segments Numbers of the segments.
    /// @param checkpoints The solver's checkpoints after them.
    function replay(
        ReplayLeaf[] calldata leaves,
        uint32[] memory segments,
        Checkpoint[] calldata checkpoints,
        Registered memory registered
    ) internal view returns (bytes32 root, bool passes) {
        // INVARIANT: the number of leaves follows from the task.
        if (leaves.length != segments.length) revert WrongCount(leaves.length, segments.length);
        if (checkpoints.length != segments.length) revert WrongCount(checkpoints.length, segments.length);
        bytes32[] memory hashes = new bytes32[](leaves.length);
        passes = true;
        for (uint256 i = 0; i < leaves.length; i++) {
            ReplayLeaf calldata leaf = leaves[i];
            hashes[i] = sha256(abi.encodePacked(bytes1(0x05), segments[i], leaf.end, leaf.distance, leaf.trace));
            // INVARIANT: there are no distances in exact mode.
            if (registered.exact && leaf.distance != 0) revert DistanceInExactMode(i, leaf.distance);
            Trees.verify(
                checkpoints[i].root,
                uint256(segments[i]) + 1,
                registered.depth,
                checkpoints[i].proof,
                registered.root
            );
            // A bit-equal checkpoint always passes, whatever the task's own distance program says.
            if (checkpoints[i].root != leaf.end && (registered.exact || !isAtMostOne(leaf.distance))) passes = false;
        }
        root = rootOf(hashes);
    }

    /// @notice Root of a profile claim over segments 0, 1, ..., and whether the task is verifiable by it.
    function profile(ProfileLeaf[] calldata leaves, uint256 count)
        internal
        view
        returns (bytes32 root, bool passes)
    {
        // INVARIANT: the number of leaves follows from the task.
        if (leaves.length != count) revert WrongCount(leaves.length, count);
        bytes32[] memory hashes = new bytes32[](count);
        passes = true;
        for (uint256 i = 0; i < count; i++) {
            ProfileLeaf calldata leaf = leaves[i];
            hashes[i] = sha256(
                abi.encodePacked(
                    bytes1(0x06), uint32(i), leaf.clean, leaf.noisy, leaf.thresholds, leaf.separation, leaf.trace
                )
            );
            if (!isAtLeastOne(leaf.separation)) passes = false;
        }
        root = rootOf(hashes);
    }

    /// @notice Root of the plain tree over `hashes`, which are overwritten.
    function rootOf(bytes32[] memory hashes) internal view returns (bytes32) {
        uint256 count = hashes.length;
        bytes32 padding;
        while (count > 1) {
            for (uint256 i = 0; i < count; i += 2) {
                hashes[i >> 1] = Trees.node(hashes[i], i + 1 < count ? hashes[i + 1] : padding);
            }
            count = (count + 1) >> 1;
            padding = Trees.node(padding, padding);
        }
        return hashes[0];
    }

    /// @notice Whether the binary32 number with these bits is <= 1; a NaN is not.
    function isAtMostOne(uint256 bits) internal pure returns (bool) {
        return bits <= ONE || (bits > MAGNITUDE && bits & MAGNITUDE <= INFINITY);
    }

    /// @notice Whether the binary32 number with these bits is >= 1; a NaN is not.
    function isAtLeastOne(uint256 bits) internal pure returns (bool) {
        return bits >= ONE && bits <= INFINITY;
    }
}
