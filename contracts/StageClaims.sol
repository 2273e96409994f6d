// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Claim, ClaimKind, IClaims} from "./interfaces/IClaims.sol";
import {IGroup} from "./interfaces/IGroup.sol";
import {IGroups} from "./interfaces/IGroups.sol";
import {IMarket, Task, Terms} from "./interfaces/IMarket.sol";
import {IStageClaims, StageAccusation, StageWork} from "./interfaces/IStageClaims.sol";
import {Agreements, Statement} from "./libraries/Agreements.sol";
import {Leaves} from "./libraries/Leaves.sol";
import {Trees} from "./libraries/Trees.sol";
import {MembersLedger} from "./MembersLedger.sol";

/// @notice A claim about what a member stated: that it is true, or, where there is an accusation of the same number, that it is not.
/// @param member Who signed it, and is convicted by it.
/// @param hasFallen Whether a case has refuted the claim.
struct StageRecord {
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
/// @notice Keeps claims about the stages of groups' members for a second instance of `Court`, and tells a group which member they
/// convict. It has no right in the market and none over a group but that one.
///
/// In an exact task a member states where its stage ended. Who finds that false opens a case, which convicts the member if it is won.
/// In a tolerant task two honest members do not compute the same bits. There a member states what it was sent, what it sent and what it
/// ended with, and a program that checks it: executed bit for bit, it ends with a number, the fault, that is at most one for
/// honest work. Who finds more accuses, by saying where the program ends; that is the claim, and the accuser answers for it. An
/// accusation that nobody refutes in time convicts the member. At any time,
///
///     balance = bonds of open cases + bonds of pending accusations + credits.
contract StageClaims is IStageClaims, MembersLedger {
    using Agreements for Statement;

    /// @dev A header counts a state's tensors in 32 bits.
    uint256 private constant MOST_LEVELS = 32;

    IGroups private immutable GROUPS;
    IMarket private immutable MARKET;
    address private immutable COURT;

    /// @inheritdoc IStageClaims
    uint256 public immutable CASE_BOND;
    /// @inheritdoc IStageClaims
    uint256 public immutable ACCUSATION_BOND;
    /// @inheritdoc IStageClaims
    uint256 public immutable WINDOW;

    mapping(uint256 claimId => StageRecord) private _records;
    mapping(uint256 claimId => StageAccusation) private _accusations;
    mapping(uint256 caseId => StageCase) private _cases;

    constructor(
        address groups,
        address market,
        address court,
        uint256 caseBond,
        uint256 accusationBond,
        uint256 window
    ) {
        GROUPS = IGroups(groups);
        MARKET = IMarket(market);
        COURT = court;
        CASE_BOND = caseBond;
        ACCUSATION_BOND = accusationBond;
        WINDOW = window;
    }

    modifier onlyCourt() {
        if (msg.sender != COURT) revert NotTheCourt(msg.sender);
        _;
    }

    /* STATEMENTS */

    /// @inheritdoc IStageClaims
    function publish(StageWork calldata work, bytes calldata signature) external returns (uint256 claimId) {
        // A statement is proven bit for bit, which a tolerant task's arithmetic does not promise.
        address member = _signerOf(work, signature, true);
        claimId = uint256(keccak256(abi.encode("stage claim", block.chainid, address(this), work, member)));
        StageRecord storage record = _records[claimId];
        if (record.member == address(0)) {
            record.work = work;
            record.member = member;
            emit StagePublished(claimId, work.group, member, work);
        }
    }

    /// @dev The member that signed the statement. INVARIANT: a claim is about what a member of a group made by the factory signed.
    /// @param exact The mode that the group's task must have.
    function _signerOf(StageWork calldata work, bytes calldata signature, bool exact)
        private
        view
        returns (address member)
    {
        if (!GROUPS.isGroup(work.group)) revert NotAGroup(work.group);
        uint256 taskId = IGroup(work.group).task();
        if (taskId == 0) revert NoTask(work.group);
        Terms memory terms = MARKET.termsOf(taskId);
        if (terms.exact != exact) revert WrongMode(taskId, terms.exact);
        if (work.segment >= terms.segments) revert NoSuchSegment(work.segment, terms.segments);
        bytes32 subject =
            Agreements.stageSubject(work.segment, work.until, work.programRoot, work.dataRoot, work.startRoot);
        member = ECDSA.recover(Statement(taskId, work.run, subject, work.endRoot).digest(work.group), signature);
        _requireMember(IGroup(work.group).positions(), member);
    }

    /* ACCUSATIONS */

    /// @inheritdoc IStageClaims
    function accuse(
        StageWork calldata work,
        bytes calldata signature,
        bytes32 endRoot,
        uint32 fault,
        bytes32[] calldata proof
    ) external payable returns (uint256 claimId) {
        if (msg.value != ACCUSATION_BOND) revert WrongValue(msg.value, ACCUSATION_BOND);
        address member = _signerOf(work, signature, false);
        // What the signer says of the end is no part of the claim, so that there is one number for what it says of the work.
        if (work.endRoot != 0) revert EndStated(work.endRoot);
        if (msg.sender == member) revert OwnStatement(member);
        _requireMember(IGroup(work.group).positions(), msg.sender);
        _requireInTime(IGroup(work.group), work.until);
        // INVARIANT: an accusation is of something, if it is true.
        _requireFault(endRoot, fault, proof);
        claimId = uint256(keccak256(abi.encode("stage accusation", block.chainid, address(this), work, member, msg.sender)));
        // INVARIANT: an accuser speaks once: an accusation that fell is not made again.
        if (_accusations[claimId].accuser != address(0)) revert AlreadyAccused(claimId);
        uint40 until = uint40(block.timestamp + WINDOW);
        _records[claimId] = StageRecord(work, member, false);
        _accusations[claimId] = StageAccusation(msg.sender, until, 0, false, endRoot);
        pendingOf[work.group]++;
        emit StageAccused(claimId, work.group, member, msg.sender, work, endRoot, until);
    }

    /// @dev Reverts unless the first tensor of the state is one number, with these bits, that is not at most one.
    function _requireFault(bytes32 endRoot, uint32 fault, bytes32[] calldata proof) private view {
        if (Leaves.isAtMostOne(fault)) revert NoFault(fault);
        if (proof.length > MOST_LEVELS) revert ProofTooLong(proof.length, MOST_LEVELS);
        Trees.verify(Trees.scalarRoot(fault), 0, proof.length, proof, endRoot);
    }

    /// @inheritdoc IStageClaims
    function conclude(uint256 claimId) external {
        if (!_isAccusation(claimId)) revert NoSuchClaim(claimId);
        StageRecord storage record = _records[claimId];
        StageAccusation storage accusation = _accusations[claimId];
        if (record.hasFallen) revert AlreadyFallen(claimId);
        // INVARIANT: an accusation gives its bond out once.
        if (accusation.isConcluded) revert AlreadyConcluded(claimId);
        // INVARIANT: nobody is convicted before everybody had the time to object, and every objection was heard.
        if (block.timestamp <= accusation.until) revert TooEarly(accusation.until, block.timestamp);
        if (accusation.openCases != 0) revert CasesOpen(claimId, accusation.openCases);
        accusation.isConcluded = true;
        address group = record.work.group;
        pendingOf[group]--;
        emit AccusationConcluded(claimId, group, record.member, accusation.accuser);
        _credit(accusation.accuser, claimId, ACCUSATION_BOND);
        // The group waited for the accusation before it shares out, so it still takes evidence.
        IGroup(group).convictStage(record.member, claimId);
    }

    /* CASES */

    /// @inheritdoc IClaims
    function caseOpened(uint256 caseId, uint256 claimId, address challenger, bytes32 answerRoot)
        external
        payable
        onlyCourt
    {
        StageRecord storage record = _existing(claimId);
        // INVARIANT: the number of a case is used once.
        if (_cases[caseId].challenger != address(0)) revert CaseExists(caseId);
        if (answerRoot != 0) revert NothingToDecide(answerRoot);
        if (msg.value != CASE_BOND) revert WrongValue(msg.value, CASE_BOND);
        if (record.hasFallen) revert AlreadyFallen(claimId);
        address group = record.work.group;
        _requireMember(IGroup(group).positions(), challenger);
        // INVARIANT: a case costs whoever loses it something: nobody takes its own bond, and the group's time, for nothing.
        if (challenger == _claimantOf(claimId)) revert OwnClaim(challenger);
        if (_isAccusation(claimId)) {
            // It was made in time itself, and the group waits for it.
            StageAccusation storage accusation = _accusations[claimId];
            if (block.timestamp > accusation.until) revert TooLate(accusation.until, block.timestamp);
            accusation.openCases++;
        } else {
            _requireInTime(IGroup(group), record.work.until);
        }
        pendingOf[group]++;
        _cases[caseId] = StageCase(claimId, challenger, true);
        emit CaseOpened(caseId, claimId, challenger);
    }

    function _requireInTime(IGroup group, uint256 until) private view {
        if (block.timestamp > until) revert TooLate(until, block.timestamp);
        _requireListening(group);
    }

    /// @inheritdoc IClaims
    /// @dev A claimant's clock extensions are not charged: a member has nothing here that could be, and an accuser's bond goes to the
    /// accused with the accusation, whole.
    function caseClosed(uint256 caseId, uint256 claimId, bool challengerWon, int256 overshoot) external onlyCourt {
        StageCase storage entry = _cases[caseId];
        // INVARIANT: a case is closed once, and only for the claim it was opened on.
        if (!entry.isOpen || entry.claimId != claimId) revert NoOpenCase(caseId);
        entry.isOpen = false;
        pendingOf[_records[claimId].work.group]--;
        if (_isAccusation(claimId)) _accusations[claimId].openCases--;
        emit CaseClosed(caseId, claimId, challengerWon);
        uint256 lost = CASE_BOND;
        if (challengerWon) {
            uint256 charge = overshoot > 0 ? uint256(overshoot) : 0;
            if (charge < lost) lost = charge;
        }
        // INVARIANT: a case gives out exactly its bond.
        _credit(_claimantOf(claimId), caseId, lost);
        _credit(entry.challenger, caseId, CASE_BOND - lost);
        if (challengerWon && !_records[claimId].hasFallen) _fall(claimId, caseId);
    }

    /// @dev A statement that falls convicts its member; an accusation that falls costs the accuser its bond. That goes to whom it
    /// accused, whoever refuted it: from an accomplice the accuser would have it back.
    function _fall(uint256 claimId, uint256 caseId) private {
        StageRecord storage record = _records[claimId];
        record.hasFallen = true;
        address group = record.work.group;
        if (_isAccusation(claimId)) {
            pendingOf[group]--;
            _credit(record.member, caseId, ACCUSATION_BOND);
        } else {
            // The group waits for its cases before it shares out, so it still takes evidence.
            IGroup(group).convictStage(record.member, claimId);
        }
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
        StageRecord storage record = _existing(claimId);
        StageWork storage work = record.work;
        Task memory task = MARKET.taskOf(IGroup(work.group).task());
        result.kind = ClaimKind.Stage;
        result.claimant = _claimantOf(claimId);
        result.root = _isAccusation(claimId) ? _accusations[claimId].endRoot : work.endRoot;
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
    function accusationOf(uint256 claimId) external view returns (StageAccusation memory) {
        return _accusations[claimId];
    }

    /// @inheritdoc IStageClaims
    function hasFallen(uint256 claimId) external view returns (bool) {
        return _records[claimId].hasFallen;
    }

    function _isAccusation(uint256 claimId) private view returns (bool) {
        return _accusations[claimId].accuser != address(0);
    }

    /// @dev Who answers for the claim in court: the member for its statement, the accuser for its accusation.
    function _claimantOf(uint256 claimId) private view returns (address) {
        return _isAccusation(claimId) ? _accusations[claimId].accuser : _records[claimId].member;
    }

    function _existing(uint256 claimId) private view returns (StageRecord storage record) {
        record = _records[claimId];
        if (record.member == address(0)) revert NoSuchClaim(claimId);
    }
}
