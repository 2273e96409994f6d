// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {ISeeds} from "../interfaces/ISeeds.sol";

/// @title FixedSeeds
/// @notice Deterministic stand-in for tests and simulations: seeds follow from the block's number and a secret alone, and can be
/// declared missed. Never part of a deployment that holds money.
contract FixedSeeds is ISeeds {
    bytes32 public immutable SECRET;
    uint256 public immutable MEMORY;
    mapping(uint256 blockNumber => bytes32 hash) public chosen;

    /// @param secret What the seeds follow from.
    /// @param memoryBlocks How many blocks back seeds are known.
    constructor(bytes32 secret, uint256 memoryBlocks) {
        SECRET = secret;
        MEMORY = memoryBlocks;
    }

    /// @notice Chooses the hash that a block counts as having.
    function choose(uint256 blockNumber, bytes32 hash) external {
        chosen[blockNumber] = hash;
    }

    /// @inheritdoc ISeeds
    function seedAt(uint256 blockNumber, bytes32 salt) external view returns (bytes32) {
        if (blockNumber >= block.number || missed(blockNumber)) return 0;
        bytes32 hash = chosen[blockNumber];
        if (hash == 0) hash = keccak256(abi.encode(SECRET, blockNumber));
        return keccak256(abi.encode(hash, salt));
    }

    /// @inheritdoc ISeeds
    function missed(uint256 blockNumber) public view returns (bool) {
        return block.number > blockNumber && block.number - blockNumber > MEMORY;
    }
}
