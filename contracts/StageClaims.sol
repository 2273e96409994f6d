// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Claim, ClaimKind, IClaims} from "./interfaces/IClaims.sol";
import {GroupState, IGroup, Position} from "./interfaces/IGroup.sol";
import {IGroups} from "./interfaces/IGroups.sol";
import {IStageClaims, StageWork} from "./interfaces/IStageClaims.sol";
import {Agreements, Statement} from "./libraries/Agreements.sol";
import {Market, Task, Terms} from "./Market.sol";

/// @notice A published statement.
/// @param member Who signed it, and answers for it.
/// @param hasFallen Whether a case has refuted it.
struct Record {
    StageWork work;
    address member;
    bool hasFallen;
}

/// @notice A case of the court.
struct StageCase {
    uint256 claimId;
    address challenger;
    bool isOpen;
}

/// @title StageClaims
/// @notice Keeps the stage statements of groups' members for a second instance of `Court`, and tells a group whose statement fell.
/// It has no right in the market and none over a group but that one. At any time,
///
///     balance = bonds of open cases + credits.
///
/// A statement's program is the member's own word: nobody refutes it here. An operator that cannot be executed makes the last
/// move of a case (`Court.prove`) revert in the member's own time, so that the clock decides against it. A header or a record
/// whose sizes cannot be read, or data that nobody sent, would keep a statement from being refuted: members accept only
/// statements about the stage program and the data they can compute themselves.
contract StageClaims is IStageClaims {
    using Agreements for Statement;

    IGroups private immutable GROUPS;
    Market private immutable MARKET;
    address private immutable COURT;

    /// @inheritdoc IStageClaims
    uint256 public immutable CASE_BOND;

    mapping(uint256 claimId => Record) private _records;
    mapping(uint256 caseId => StageCase) private _cases;

    /// @inheritdoc IStageClaims
    mapping(address account => uint256 amount) public creditOf;
    /// @inheritdoc IStageClaims
    mapping(address group => uint256 count) public pendingOf;

    constructor(address groups, address market, address court, uint256 caseBond) {
        GROUPS = IGroups(groups);
        MARKET = Market(market);
        COURT = court;
        CASE_BOND = caseBond;
    }

    modifier onlyCourt() {
        if (msg.sender != COURT) revert NotTheCourt(msg.sender);
        _;
    }

    /* STATEMENTS */

    /// @inheritdoc IStageClaims
    function publish(StageWork calldata work, bytes calldata signature) external returns (uint256 claimId) {
        // INVARIANT: only what a member of a group made by the factory signed is a claim.
        if (!GROUPS.isGroup(work.group)) revert NotAGroup(work.group);
        uint256 taskId = IGroup(work.group).task();
        if (taskId == 0) revert NoTask(work.group);
        Terms memory terms = MARKET.termsOf(taskId);
        // A statement is proven bit for bit, which a tolerant task's arithmetic does not promise.
        if (!terms.exact) revert WrongMode(taskId, terms.exact);
        if (work.segment >= terms.segments) revert NoSuchSegment(work.segment, terms.segments);
        bytes32 subject =
            Agreements.stageSubject(work.segment, work.until, work.programRoot, work.dataRoot, work.startRoot);
        bytes32 digest = Statement(taskId, work.run, subject, work.endRoot).digest(work.group);
        address member = ECDSA.recover(digest, signature);
        _requireMember(work.group, member);
        claimId = uint256(keccak256(abi.encode("stage claim", block.chainid, address(this), work, member)));
        Record storage record = _records[claimId];
        if (record.member == address(0)) {
            record.work = work;
            record.member = member;
            emit StagePublished(claimId, work.group, member, work);
        }
    }

    /* CASES */

    /// @inheritdoc IClaims
    function caseOpened(uint256 caseId, uint256 claimId, address challenger, bytes32 answerRoot)
        external
        payable
        onlyCourt
    {
        Record storage record = _existing(claimId);
        // INVARIANT: the number of a case is used once.
        if (_cases[caseId].challenger != address(0)) revert CaseExists(caseId);
        if (answerRoot != 0) revert NothingToDecide(answerRoot);
        if (msg.value != CASE_BOND) revert WrongValue(msg.value, CASE_BOND);
        if (record.hasFallen) revert AlreadyFallen(claimId);
        address group = record.work.group;
        _requireMember(group, challenger);
        // INVARIANT: a case costs whoever loses it something: nobody takes its own bond, and the group's time, for nothing.
        if (challenger == record.member) revert OwnStatement(challenger);
        _requireInTime(IGroup(group), record.work.until);
        pendingOf[group]++;
        _cases[caseId] = StageCase(claimId, challenger, true);
        emit CaseOpened(caseId, claimId, challenger);
    }

    /// @dev INVARIANT: no case begins once the group may share out, so that it waits for a bounded time only.
    function _requireInTime(IGroup group, uint256 until) private view {
        if (block.timestamp > until) revert TooLate(until, block.timestamp);
        GroupState state = group.state();
        if (state == GroupState.Working) return;
        if (state != GroupState.Closed) revert WrongState(state);
        uint256 evidenceUntil = group.evidenceUntil();
        if (block.timestamp > evidenceUntil) revert TooLate(evidenceUntil, block.timestamp);
    }

    /// @inheritdoc IClaims
    /// @dev A member's clock extensions are not charged: it has nothing here that could be.
    function caseClosed(uint256 caseId, uint256 claimId, bool challengerWon, int256 overshoot) external onlyCourt {
        StageCase storage entry = _cases[caseId];
        // INVARIANT: a case is closed once, and only for the claim it was opened on.
        if (!entry.isOpen || entry.claimId != claimId) revert NoOpenCase(caseId);
        entry.isOpen = false;
        Record storage record = _records[claimId];
        address group = record.work.group;
        address member = record.member;
        pendingOf[group]--;
        emit CaseClosed(caseId, claimId, challengerWon);
        uint256 lost = CASE_BOND;
        if (challengerWon) {
            uint256 charge = overshoot > 0 ? uint256(overshoot) : 0;
            if (charge < lost) lost = charge;
        }
        // INVARIANT: a case gives out exactly its bond.
        _credit(member, caseId, lost);
        _credit(entry.challenger, caseId, CASE_BOND - lost);
        if (challengerWon && !record.hasFallen) {
            record.hasFallen = true;
            // The group waits for its cases before it shares out, so it still takes evidence.
            IGroup(group).stageFell(member, claimId);
        }
    }

    function _credit(address account, uint256 caseId, uint256 amount) private {
        if (amount == 0) return;
        creditOf[account] += amount;
        emit CoinCredited(account, caseId, amount);
    }

    /// @inheritdoc IStageClaims
    function withdraw() external returns (uint256 amount) {
        amount = creditOf[msg.sender];
        creditOf[msg.sender] = 0;
        if (amount == 0) revert NothingToWithdraw(msg.sender);
        emit Withdrawn(msg.sender, amount);
        (bool sent,) = msg.sender.call{value: amount}("");
        // INVARIANT: what left the ledger left the contract.
        if (!sent) revert TransferFailed(msg.sender, amount);
    }

    /* PROGRAMS */

    /// @inheritdoc IClaims
    function programRefuted(uint256, address) external pure {
        revert NotJudgedHere();
    }

    /// @inheritdoc IClaims
    function programRootOf(uint256) external pure returns (bytes32) {
        revert NotJudgedHere();
    }

    /* VIEWS */

    /// @inheritdoc IClaims
    function claim(uint256 claimId) external view returns (Claim memory result) {
        Record storage record = _existing(claimId);
        StageWork storage work = record.work;
        Task memory task = MARKET.taskOf(IGroup(work.group).task());
        result.kind = ClaimKind.Stage;
        result.claimant = record.member;
        result.root = work.endRoot;
        result.leaves = 1;
        result.programRoot = work.programRoot;
        result.dataRoot = work.dataRoot;
        result.initialRoot = work.startRoot;
        result.segments = task.segments;
        result.interval = task.interval;
        result.steps = task.steps;
        result.taskSeed = task.taskSeed;
        result.exact = true;
    }

    /// @inheritdoc IClaims
    function segmentOf(uint256 claimId, uint32) external view returns (uint32) {
        return _existing(claimId).work.segment;
    }

    /// @inheritdoc IStageClaims
    function workOf(uint256 claimId) external view returns (StageWork memory) {
        return _existing(claimId).work;
    }

    /// @inheritdoc IStageClaims
    function memberOf(uint256 claimId) external view returns (address) {
        return _existing(claimId).member;
    }

    /// @inheritdoc IStageClaims
    function hasFallen(uint256 claimId) external view returns (bool) {
        return _records[claimId].hasFallen;
    }

    function _existing(uint256 claimId) private view returns (Record storage record) {
        record = _records[claimId];
        if (record.member == address(0)) revert NoSuchClaim(claimId);
    }

    function _requireMember(address group, address account) private view {
        Position[] memory members = IGroup(group).positions();
        for (uint256 i = 0; i < members.length; i++) {
            if (members[i].account == account) return;
        }
        revert NotAMember(account);
    }
}
