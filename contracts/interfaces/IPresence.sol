// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {IMembersLedger} from "./IMembersLedger.sol";

/// @notice What a member of a group says of another: that it took part in no segment from `first` to `last`.
/// @param until Last second in which it can be answered.
/// @param hasFallen Whether a receipt has answered it.
/// @param isConcluded Whether nobody answered it in time, and the group has been told.
struct Report {
    address group;
    uint32 first;
    uint32 last;
    address member;
    uint40 until;
    bool hasFallen;
    bool isConcluded;
    address reporter;
}

/// @title IPresence
/// @notice Finds out which members of a group were absent while it trained, by what the others signed: after every segment each member
/// signs a receipt of who took part in it, a `Statement` with the subject `Agreements.presenceSubject` and the value zero.
/// @dev WARNING: a receipt is the word of one member. Report only who was not in segments that you took part in yourself, and keep the
/// receipts that others signed for you until your group has shared out.
interface IPresence is IMembersLedger {
    event AbsenceReported(
        uint256 indexed reportId,
        address indexed group,
        address indexed member,
        address reporter,
        uint32 first,
        uint32 last,
        uint256 until
    );
    event ReportAnswered(
        uint256 indexed reportId, address indexed group, address indexed member, address signer, uint32 segment
    );
    event AbsenceConcluded(
        uint256 indexed reportId, address indexed group, address indexed member, address reporter, uint32 segments
    );

    error NoSuchPlace(uint256 place);
    error NothingForPresence(address group);
    error TrainingNotOver(uint256 taskId);
    error WrongRange(uint32 first, uint32 last, uint256 segments);
    error RangeTooLong(uint256 given, uint256 most);
    error OwnAbsence(address member);
    error AlreadyReported(uint256 reportId);
    error NoSuchReport(uint256 reportId);
    error AlreadyFallen(uint256 reportId);
    error AlreadyConcluded(uint256 reportId);
    error OutsideReport(uint32 segment, uint32 first, uint32 last);
    error NotNamed(address member);
    error OwnReceipt(address member);

    /// @notice Member of a group whose training is over: says that the member at `place` took part in no segment from `first` to `last`,
    /// with a bond of exactly `BOND`. For `WINDOW` seconds a receipt can answer it.
    /// @return reportId Number of the report: one for each group, member, range and reporter.
    function report(address group, uint256 place, uint32 first, uint32 last) external payable returns (uint256 reportId);

    /// @notice Anyone: shows that the member took part in one of the segments, by a receipt. The report falls, and its bond is the
    /// member's.
    /// @param run The run of the group in which the segment was trained.
    /// @param accounts Who took part in it, as the receipt has it.
    /// @param signature Of any member but the one reported, 65 bytes: it says who the signer is.
    function answer(
        uint256 reportId,
        uint32 run,
        uint32 segment,
        address[] calldata accounts,
        bytes calldata signature
    ) external;

    /// @notice Anyone: what nobody answered in time is so. The group is told, and the reporter has its bond back.
    function conclude(uint256 reportId) external;

    /// @notice The bond of a report, in wei, exactly.
    // solhint-disable-next-line func-name-mixedcase
    function BOND() external view returns (uint256);

    /// @notice How long a report can be answered, in seconds.
    // solhint-disable-next-line func-name-mixedcase
    function WINDOW() external view returns (uint256);

    /// @notice Most segments of one report.
    // solhint-disable-next-line func-name-mixedcase
    function MOST_SEGMENTS() external view returns (uint256);

    /// @notice The report of that number; all zero where there is none.
    function reportOf(uint256 reportId) external view returns (Report memory);

    /// @notice Whether it is concluded that a member of a group was not in a segment.
    function wasAbsent(address group, address member, uint32 segment) external view returns (bool);
}
