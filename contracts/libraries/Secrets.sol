// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Derivation} from "../interfaces/IVerification.sol";
import {Trees} from "./Trees.sol";

/// @title Secrets
/// @notice What is committed to with a verifier's secret, and how its false claim follows from the true one
/// (contracts/SPECIFICATION.md, section 4).
library Secrets {
    /// @notice What a verifier commits to as its secret.
    /// @param order Which of its two claims is the true one.
    function hashOf(bytes32 secret, uint8 order, address verifier, uint256 roundId) internal pure returns (bytes32) {
        return keccak256(abi.encode(secret, order, verifier, roundId));
    }

    /// @notice Salt of the claim at place `index` (0 or 1) of a round's two.
    function saltOf(bytes32 secret, uint256 roundId, uint8 index) internal pure returns (bytes32) {
        return keccak256(abi.encode(secret, roundId, index));
    }

    /// @notice What a verifier commits to as a claim.
    function claimOf(bytes32 root, bytes32 salt) internal pure returns (bytes32) {
        return keccak256(abi.encode(root, salt));
    }

    /// @notice What whoever brings a leaked secret commits to first.
    function leakOf(bytes32 secret, address bringer, uint256 roundId) internal pure returns (bytes32) {
        return keccak256(abi.encode(secret, bringer, roundId));
    }

    /// @notice The word that stands for one leaf's trace in the derived false claim; it also says which leaf's.
    function wordOf(bytes32 secret, uint256 taskId, uint256 roundId) internal pure returns (bytes32) {
        return sha256(abi.encodePacked(secret, taskId, roundId));
    }

    /// @notice Root of the claim that the false one with root `shown` was derived from. Reverts unless it was derived by `word`.
    /// @param leaves Leaves of the claim.
    function trueRoot(bytes32 word, uint256 leaves, bytes32 shown, Derivation calldata derivation)
        internal
        view
        returns (bytes32)
    {
        uint256 place = uint256(word) % leaves;
        bytes32 changed = sha256(abi.encodePacked(derivation.prefix, word));
        // INVARIANT: the false claim is the true one with exactly the leaf's trace replaced that the secret names.
        Trees.verify(changed, place, Trees.depthOf(leaves), derivation.proof, shown);
        return Trees.rootFrom(sha256(abi.encodePacked(derivation.prefix, derivation.trace)), place, derivation.proof);
    }
}
