// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Agreement} from "../libraries/Agreements.sol";

/// @title IGroups
/// @notice Makes the accounts of groups. It has no rights over them, and nobody has any over it.
interface IGroups {
    event Formed(address indexed group, address indexed leader, bytes32 digest, Agreement agreement);

    error WrongCount(uint256 given, uint256 expected);
    error NotSigned(address member, address signer);

    /// @notice Makes the group of an agreement that all its members have signed (`digestOf`). Anyone may call, once.
    /// @param signatures Of the members, in their order: 65 bytes each.
    /// @return group Its account, at `groupOf` the agreement.
    function form(Agreement calldata agreement, bytes[] calldata signatures) external returns (address group);

    /// @notice What the members sign (EIP-712, with this contract as verifier).
    function digestOf(Agreement calldata agreement) external view returns (bytes32);

    /// @notice Where the group of an agreement lies, or will lie.
    function groupOf(Agreement calldata agreement) external view returns (address);

    /// @notice Whether an account is a group made here.
    function isGroup(address account) external view returns (bool);
}
