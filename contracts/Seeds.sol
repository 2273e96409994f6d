// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {ISeeds} from "./interfaces/ISeeds.sol";

/// @title Seeds
/// @notice Randomness from the hashes of blocks whose numbers were fixed before anyone knew them. Reaches 256 blocks back by the
/// machine's own instruction, and 8 191 where the chain has the history contract of EIP-2935.
contract Seeds is ISeeds {
    /// @notice The history contract of EIP-2935.
    address public constant HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;
    /// @notice How far back the history contract reaches, in blocks.
    uint256 public constant HISTORY_BLOCKS = 8191;

    /// @inheritdoc ISeeds
    function seedAt(uint256 blockNumber, bytes32 salt) external view returns (bytes32) {
        bytes32 hash = _hashOf(blockNumber);
        return hash == 0 ? bytes32(0) : keccak256(abi.encode(hash, salt));
    }

    /// @inheritdoc ISeeds
    function missed(uint256 blockNumber) external view returns (bool) {
        return block.number > blockNumber && _hashOf(blockNumber) == 0;
    }

    function _hashOf(uint256 blockNumber) private view returns (bytes32 hash) {
        // INVARIANT: the present block has no hash yet; a seed from it would be zero and known to everyone beforehand.
        if (blockNumber >= block.number) return 0;
        hash = blockhash(blockNumber);
        if (hash == 0 && block.number - blockNumber <= HISTORY_BLOCKS && HISTORY.code.length != 0) {
            (bool found, bytes memory answer) = HISTORY.staticcall(abi.encode(blockNumber));
            if (found && answer.length == 32) hash = abi.decode(answer, (bytes32));
        }
    }
}
