// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {GroupState} from "./IGroup.sol";

/// @title IMembersLedger
/// @notice What the contracts have in common in which members of a group hold something against each other, with a bond: the market has
/// no part in it, and the group shares nothing out before it is decided.
interface IMembersLedger {
    event CoinCredited(address indexed account, uint256 indexed cause, uint256 amount);
    event Withdrawn(address indexed account, uint256 amount);

    error NotAGroup(address account);
    error NotAMember(address account);
    error NoTask(address group);
    error WrongState(GroupState state);
    error WrongValue(uint256 given, uint256 expected);
    error TooLate(uint256 deadline, uint256 time);
    error TooEarly(uint256 deadline, uint256 time);
    error NothingToWithdraw(address account);
    error TransferFailed(address account, uint256 amount);

    /// @notice Pays out the caller's credit.
    function withdraw() external returns (uint256 amount);

    /// @notice What an account can withdraw, in wei.
    function creditOf(address account) external view returns (uint256);

    /// @notice What is undecided about a group's members: the group shares nothing out while there is anything.
    function pendingOf(address group) external view returns (uint256);
}
