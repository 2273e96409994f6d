// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {IGroup, Position} from "./interfaces/IGroup.sol";
import {IGroups} from "./interfaces/IGroups.sol";
import {IMarket, State, Terms} from "./interfaces/IMarket.sol";
import {IPresence, Report} from "./interfaces/IPresence.sol";
import {Agreements, Statement} from "./libraries/Agreements.sol";
import {MembersLedger} from "./MembersLedger.sol";

/// @title Presence
/// @notice Tells a group for which segments a member is not paid, because it was not there. It has no right in the market and none over a
/// group but that one.
///
/// Nobody can show that somebody was absent. So a member says so, with a bond, and whoever was there shows a receipt that another
/// member signed. Reports are independent of each other and may overlap, so that nobody is in the way of another's; a segment counts once,
/// whoever concludes it. At any time,
///
///     balance = bonds of pending reports + credits.
contract Presence is IPresence, MembersLedger {
    using Agreements for Statement;

    /// @inheritdoc IPresence
    /// @dev A segment is one bit of a word: what has to be written for a report stays far below a block's gas.
    uint256 public constant MOST_SEGMENTS = 8192;

    IGroups private immutable GROUPS;
    IMarket private immutable MARKET;

    /// @inheritdoc IPresence
    uint256 public immutable BOND;
    /// @inheritdoc IPresence
    uint256 public immutable WINDOW;

    mapping(uint256 reportId => Report) private _reports;
    /// @dev Bit s mod 256 of word s / 256: segment s.
    mapping(address group => mapping(address member => mapping(uint256 word => uint256 bits))) private _absent;

    constructor(address groups, address market, uint256 bond, uint256 window) {
        GROUPS = IGroups(groups);
        MARKET = IMarket(market);
        BOND = bond;
        WINDOW = window;
    }

    /* REPORTS */

    /// @inheritdoc IPresence
    function report(address group, uint256 place, uint32 first, uint32 last)
        external
        payable
        returns (uint256 reportId)
    {
        if (msg.value != BOND) revert WrongValue(msg.value, BOND);
        if (!GROUPS.isGroup(group)) revert NotAGroup(group);
        _requireListening(IGroup(group));
        _requireRange(IGroup(group), first, last);
        // INVARIANT: nobody's coin waits for an answer that changes nothing.
        if (IGroup(group).limits().presenceRate == 0) revert NothingForPresence(group);
        Position[] memory members = IGroup(group).positions();
        _requireMember(members, msg.sender);
        if (place >= members.length) revert NoSuchPlace(place);
        address member = members[place].account;
        if (member == msg.sender) revert OwnAbsence(member);
        reportId = uint256(
            keccak256(abi.encode("absence", block.chainid, address(this), group, member, first, last, msg.sender))
        );
        // INVARIANT: a reporter speaks once: a report that fell is not made again.
        if (_reports[reportId].reporter != address(0)) revert AlreadyReported(reportId);
        uint40 until = uint40(block.timestamp + WINDOW);
        _reports[reportId] = Report(group, first, last, member, until, false, false, msg.sender);
        pendingOf[group]++;
        emit AbsenceReported(reportId, group, member, msg.sender, first, last, until);
    }

    function _requireRange(IGroup group, uint32 first, uint32 last) private view {
        uint256 taskId = group.task();
        if (taskId == 0) revert NoTask(address(group));
        Terms memory terms = MARKET.termsOf(taskId);
        // INVARIANT: nobody has to show that it took part in what is still to be trained.
        if (terms.state == State.Taken && terms.solver == address(group)) revert TrainingNotOver(taskId);
        if (first > last || last >= terms.segments) revert WrongRange(first, last, terms.segments);
        uint256 given = uint256(last) - first + 1;
        if (given > MOST_SEGMENTS) revert RangeTooLong(given, MOST_SEGMENTS);
    }

    /// @inheritdoc IPresence
    function answer(
        uint256 reportId,
        uint32 run,
        uint32 segment,
        address[] calldata accounts,
        bytes calldata signature
    ) external {
        Report storage found = _pending(reportId);
        if (block.timestamp > found.until) revert TooLate(found.until, block.timestamp);
        if (segment < found.first || segment > found.last) revert OutsideReport(segment, found.first, found.last);
        (address group, address member) = (found.group, found.member);
        _requireNamed(accounts, member);
        bytes32 subject = Agreements.presenceSubject(segment, accounts);
        address signer = ECDSA.recover(Statement(IGroup(group).task(), run, subject, 0).digest(group), signature);
        // INVARIANT: nobody was there by its own word.
        if (signer == member) revert OwnReceipt(member);
        _requireMember(IGroup(group).positions(), signer);
        found.hasFallen = true;
        pendingOf[group]--;
        emit ReportAnswered(reportId, group, member, signer, segment);
        _credit(member, reportId, BOND);
    }

    function _requireNamed(address[] calldata accounts, address member) private pure {
        for (uint256 i = 0; i < accounts.length; i++) {
            if (accounts[i] == member) return;
        }
        revert NotNamed(member);
    }

    /// @inheritdoc IPresence
    function conclude(uint256 reportId) external {
        Report storage found = _pending(reportId);
        // INVARIANT: nobody is absent before it had the time to answer.
        if (block.timestamp <= found.until) revert TooEarly(found.until, block.timestamp);
        found.isConcluded = true;
        (address group, address member) = (found.group, found.member);
        pendingOf[group]--;
        uint32 segments = _mark(group, member, found.first, found.last);
        emit AbsenceConcluded(reportId, group, member, found.reporter, segments);
        _credit(found.reporter, reportId, BOND);
        // The group waited for the report before it shares out, so it still listens.
        if (segments != 0) IGroup(group).markAbsent(member, segments);
    }

    /// @dev Marks the segments of a range; how many of them were not marked before. INVARIANT: a segment counts once.
    function _mark(address group, address member, uint256 first, uint256 last) private returns (uint32 segments) {
        mapping(uint256 word => uint256 bits) storage marks = _absent[group][member];
        for (uint256 word = first >> 8; word <= last >> 8; word++) {
            uint256 bits = type(uint256).max;
            if (word == first >> 8) bits &= type(uint256).max << (first & 255);
            if (word == last >> 8) bits &= type(uint256).max >> (255 - (last & 255));
            uint256 before = marks[word];
            bits &= ~before;
            if (bits == 0) continue;
            marks[word] = before | bits;
            segments += _ones(bits);
        }
    }

    /// @dev How many bits of a word are one.
    function _ones(uint256 bits) private pure returns (uint32 count) {
        for (; bits != 0; bits &= bits - 1) {
            count++;
        }
    }

    /* HELPERS AND VIEWS */

    /// @dev INVARIANT: a report gives its bond out once.
    function _pending(uint256 reportId) private view returns (Report storage found) {
        found = _reports[reportId];
        if (found.reporter == address(0)) revert NoSuchReport(reportId);
        if (found.hasFallen) revert AlreadyFallen(reportId);
        if (found.isConcluded) revert AlreadyConcluded(reportId);
    }

    /// @inheritdoc IPresence
    function reportOf(uint256 reportId) external view returns (Report memory) {
        return _reports[reportId];
    }

    /// @inheritdoc IPresence
    function wasAbsent(address group, address member, uint32 segment) external view returns (bool) {
        return (_absent[group][member][segment >> 8] >> (segment & 255)) & 1 != 0;
    }
}
