// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// @notice Randomness from later blocks. An implementation may be replaced by a deterministic stand-in in tests.
interface ISeeds {
    /// @notice The seed fixed by block `blockNumber`'s hash, mixed with `salt`; zero while it is not known, or no longer.
    /// A seed is known from the block after `blockNumber` on, for as long as the chain remembers that block's hash.
    function seedAt(uint256 blockNumber, bytes32 salt) external view returns (bytes32);

    /// @notice Whether block `blockNumber` is past and its hash is out of reach.
    function missed(uint256 blockNumber) external view returns (bool);
}
