// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Clones} from "@openzeppelin/contracts/proxy/Clones.sol";
import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Group} from "./Group.sol";
import {IGroups} from "./interfaces/IGroups.sol";
import {Agreement, Agreements} from "./libraries/Agreements.sol";
import {Modules} from "./Parameters.sol";

/// @title Groups
/// @notice Makes an account for every group whose members have signed an agreement: a minimal clone of one `Group`, at an address
/// that follows from the agreement. The market knows nothing of it: a group is a solver like any other.
contract Groups is IGroups {
    using Agreements for Agreement;

    /// @notice The code of every group.
    address public immutable TEMPLATE;

    /// @inheritdoc IGroups
    mapping(address account => bool) public isGroup;

    constructor(Modules memory modules, address stageClaims, address presence) {
        TEMPLATE = address(new Group(modules, stageClaims, presence));
    }

    /// @inheritdoc IGroups
    function form(Agreement calldata agreement, bytes[] calldata signatures) external returns (address group) {
        agreement.check();
        if (signatures.length != agreement.members.length) {
            revert WrongCount(signatures.length, agreement.members.length);
        }
        bytes32 digest = agreement.digest(address(this));
        for (uint256 i = 0; i < signatures.length; i++) {
            address signer = ECDSA.recover(digest, signatures[i]);
            // INVARIANT: nobody is in a group on terms it has not signed.
            if (signer != agreement.members[i].account) revert NotSigned(agreement.members[i].account, signer);
        }
        // INVARIANT: an agreement is used once: the same address cannot be created again.
        group = Clones.cloneDeterministic(TEMPLATE, digest);
        isGroup[group] = true;
        emit Formed(group, agreement.members[0].account, digest, agreement);
        Group(payable(group)).initialize(agreement);
    }

    /// @inheritdoc IGroups
    function digestOf(Agreement calldata agreement) external view returns (bytes32) {
        return agreement.digest(address(this));
    }

    /// @inheritdoc IGroups
    function groupOf(Agreement calldata agreement) external view returns (address) {
        return Clones.predictDeterministicAddress(TEMPLATE, agreement.digest(address(this)));
    }
}
