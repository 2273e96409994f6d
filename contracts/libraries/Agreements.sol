// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {MILLION} from "../Parameters.sol";
import {Ranges} from "./Ranges.sol";

/// @notice One member of a group, as agreed.
/// @param account Its account, which signs and withdraws.
/// @param contribution What it puts into the group's stake, in wei; may be zero.
/// @param share Its part of what the group earns, in parts per million; not zero.
struct Member {
    address account;
    uint96 contribution;
    uint32 share;
}

/// @notice What every member of a group signs. Durations in seconds, times in seconds since 1970, amounts in wei.
/// @param members The first is the leader. Shares sum to one million.
/// @param owners Who answers for which segment: segment s is that of `members[owners[s mod length]]`. Empty: nobody's.
/// @param task The only task the leader may take, or zero for any within the limits.
/// @param leastPrice The leader takes no task for less.
/// @param mostStake The leader stakes no more; at most the sum of the contributions.
/// @param formBy Contributions are taken until then.
/// @param takeBy A task can be taken until then.
/// @param patience When a leader has done nothing for so long, any member may take its place.
/// @param evidenceSeconds How long after a task's end members can show who was at fault, before the coin is shared out.
/// @param presenceRate The part of every share, in parts per million, that is earned by taking part, segment by segment. Zero: shares
/// are paid whatever happens.
/// @param plan Hash of what else was agreed, such as the plan of who trains what.
/// @param nonce Tells otherwise equal agreements apart.
struct Agreement {
    Member[] members;
    uint8[] owners;
    uint256 task;
    uint96 leastPrice;
    uint96 mostStake;
    uint40 formBy;
    uint40 takeBy;
    uint32 patience;
    uint32 evidenceSeconds;
    uint32 presenceRate;
    bytes32 plan;
    uint256 nonce;
}

/// @notice Something a member says about its work and signs. Nobody honest signs two values for one subject of one run.
/// @param task The task.
/// @param run Which run of the group: a run that resumes after a member failed is another one.
/// @param subject What it is about: for a trained segment `Agreements.workSubject`, for a stage's part in one
/// `Agreements.stageSubject`, for a receipt `Agreements.presenceSubject`, else as the members' programs agree.
/// @param value What is said, such as the root of the state after the segment, or of the messages sent.
struct Statement {
    uint256 task;
    uint32 run;
    bytes32 subject;
    bytes32 value;
}

/// @title Agreements
/// @notice Hashes of what members sign (EIP-712), and what makes an agreement one that can be kept.
library Agreements {
    /// @notice Most members of a group: everything that loops over them stays far below a block's gas.
    uint256 internal constant MOST_MEMBERS = 32;
    /// @notice Most entries of `owners`.
    uint256 internal constant MOST_OWNERS = 256;
    /// @notice Longest patience and longest time for evidence.
    uint256 internal constant LONGEST = 30 days;

    bytes32 internal constant DOMAIN_TYPE =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 internal constant NAME = keccak256("Assay group");
    bytes32 internal constant VERSION = keccak256("1");
    bytes32 internal constant MEMBER_TYPE = keccak256("Member(address account,uint96 contribution,uint32 share)");
    bytes32 internal constant AGREEMENT_TYPE = keccak256(
        "Agreement(Member[] members,uint8[] owners,uint256 task,uint96 leastPrice,uint96 mostStake,uint40 formBy,"
        "uint40 takeBy,uint32 patience,uint32 evidenceSeconds,uint32 presenceRate,bytes32 plan,uint256 nonce)"
        "Member(address account,uint96 contribution,uint32 share)"
    );
    bytes32 internal constant STATEMENT_TYPE =
        keccak256("Statement(uint256 task,uint32 run,bytes32 subject,bytes32 value)");

    error NotOneMillion(uint256 sum);
    error MemberTwice(address account);

    /// @notice What members sign to form a group at the factory `verifier`.
    function digest(Agreement calldata agreement, address verifier) internal view returns (bytes32) {
        bytes32[] memory members = new bytes32[](agreement.members.length);
        for (uint256 i = 0; i < members.length; i++) {
            Member calldata member = agreement.members[i];
            members[i] = keccak256(abi.encode(MEMBER_TYPE, member.account, member.contribution, member.share));
        }
        bytes memory head = abi.encode(
            AGREEMENT_TYPE,
            keccak256(abi.encodePacked(members)),
            keccak256(abi.encodePacked(agreement.owners)),
            agreement.task,
            agreement.leastPrice,
            agreement.mostStake
        );
        bytes memory rest = abi.encode(
            agreement.formBy,
            agreement.takeBy,
            agreement.patience,
            agreement.evidenceSeconds,
            agreement.presenceRate,
            agreement.plan,
            agreement.nonce
        );
        return _typed(keccak256(bytes.concat(head, rest)), verifier);
    }

    /// @notice What a member signs to state something in the group `verifier`.
    function digest(Statement memory statement, address verifier) internal view returns (bytes32) {
        return _typed(
            keccak256(
                abi.encode(STATEMENT_TYPE, statement.task, statement.run, statement.subject, statement.value)
            ),
            verifier
        );
    }

    /// @notice Subject of the statement "I trained this segment from this state"; its value is the state it ended in.
    function workSubject(uint32 segment, bytes32 start) internal pure returns (bytes32) {
        return keccak256(abi.encode("work", segment, start));
    }

    /// @notice Subject of the statement "in this segment my stage, this program over these data, began in this state"; its value
    /// is the state it ended in (contracts/FORMAT.md, section 3).
    /// @param until Last second in which a case can be opened on the statement.
    function stageSubject(uint32 segment, uint40 until, bytes32 programRoot, bytes32 dataRoot, bytes32 startRoot)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode("stage", segment, until, programRoot, dataRoot, startRoot));
    }

    /// @notice Subject of a receipt, "these accounts took part in this segment"; its value is zero.
    /// @dev The accounts are in the subject, so that two receipts never contradict each other: a segment that is trained again by
    /// others has another, also where the members' programs count their runs from the beginning again.
    function presenceSubject(uint32 segment, address[] memory accounts) internal pure returns (bytes32) {
        return keccak256(abi.encode("presence", segment, keccak256(abi.encode(accounts))));
    }

    /// @notice Reverts unless the agreement can be kept: by everyone, at any time, with the coin that was put in.
    function check(Agreement calldata agreement) internal view {
        Member[] calldata members = agreement.members;
        Ranges.check("members", members.length, 1, MOST_MEMBERS);
        uint256 shares;
        uint256 contributions;
        for (uint256 i = 0; i < members.length; i++) {
            // INVARIANT: whoever a conviction leaves in the group has a share, so that all coin has a receiver.
            Ranges.check("share", members[i].share, 1, MILLION);
            shares += members[i].share;
            contributions += members[i].contribution;
            for (uint256 j = 0; j < i; j++) {
                if (members[j].account == members[i].account) revert MemberTwice(members[i].account);
            }
        }
        if (shares != MILLION) revert NotOneMillion(shares);
        // INVARIANT: what the leader may stake has been put in.
        Ranges.check("mostStake", agreement.mostStake, 0, contributions);
        Ranges.check("owners", agreement.owners.length, 0, MOST_OWNERS);
        for (uint256 i = 0; i < agreement.owners.length; i++) {
            Ranges.check("owner", agreement.owners[i], 0, members.length - 1);
        }
        Ranges.check("formBy", agreement.formBy, block.timestamp, agreement.takeBy);
        // INVARIANT: nobody's coin waits for ever for a leader or for evidence.
        Ranges.check("patience", agreement.patience, 1, LONGEST);
        Ranges.check("evidenceSeconds", agreement.evidenceSeconds, 0, LONGEST);
        // INVARIANT: nobody earns less than nothing.
        Ranges.check("presenceRate", agreement.presenceRate, 0, MILLION);
    }

    function _typed(bytes32 structure, address verifier) private view returns (bytes32) {
        bytes32 domain = keccak256(abi.encode(DOMAIN_TYPE, NAME, VERSION, block.chainid, verifier));
        return keccak256(abi.encodePacked(hex"1901", domain, structure));
    }
}
