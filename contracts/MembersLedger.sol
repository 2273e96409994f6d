// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {GroupState, IGroup, Position} from "./interfaces/IGroup.sol";
import {IMembersLedger} from "./interfaces/IMembersLedger.sol";

/// @title MembersLedger
/// @notice Credits of accounts, and who may hold what against whom until when, for `StageClaims` and `Presence`.
abstract contract MembersLedger is IMembersLedger {
    /// @inheritdoc IMembersLedger
    mapping(address account => uint256 amount) public creditOf;
    /// @inheritdoc IMembersLedger
    mapping(address group => uint256 count) public pendingOf;

    /// @param cause The case, the accusation or the report that gives the coin out.
    function _credit(address account, uint256 cause, uint256 amount) internal {
        if (amount == 0) return;
        creditOf[account] += amount;
        emit CoinCredited(account, cause, amount);
    }

    /// @inheritdoc IMembersLedger
    function withdraw() external returns (uint256 amount) {
        amount = creditOf[msg.sender];
        creditOf[msg.sender] = 0;
        if (amount == 0) revert NothingToWithdraw(msg.sender);
        emit Withdrawn(msg.sender, amount);
        (bool sent,) = msg.sender.call{value: amount}("");
        // INVARIANT: what left the ledger left the contract.
        if (!sent) revert TransferFailed(msg.sender, amount);
    }

    /// @dev INVARIANT: nothing begins once the group may share out, so that it waits for a bounded time only.
    function _requireListening(IGroup group) internal view {
        GroupState state = group.state();
        if (state == GroupState.Working) return;
        if (state != GroupState.Closed) revert WrongState(state);
        uint256 evidenceUntil = group.evidenceUntil();
        if (block.timestamp > evidenceUntil) revert TooLate(evidenceUntil, block.timestamp);
    }

    function _requireMember(Position[] memory members, address account) internal pure {
        for (uint256 i = 0; i < members.length; i++) {
            if (members[i].account == account) return;
        }
        revert NotAMember(account);
    }
}
