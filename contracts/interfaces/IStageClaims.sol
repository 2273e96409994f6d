// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {IClaims} from "./IClaims.sol";
import {GroupState} from "./IGroup.sol";

/// @notice What a member says its stage did in a segment (contracts/FORMAT.md, section 3), as it signed it: the statement of
/// `Agreements.stageSubject`, whose value is `endRoot`.
/// @param group The member's group.
/// @param run Which run of the group.
/// @param segment Number of the segment.
/// @param until Last second in which a case can be opened on the statement; the member keeps its records until then.
/// @param programRoot Root of the stage program.
/// @param dataRoot Root of the stage's data: the task's, and all it was sent in the segment.
/// @param startRoot Root of the stage's state before the segment.
/// @param endRoot Root of the stage's state after it: what the member holds, and all it sent.
struct StageWork {
    address group;
    uint32 run;
    uint32 segment;
    uint40 until;
    bytes32 programRoot;
    bytes32 dataRoot;
    bytes32 startRoot;
    bytes32 endRoot;
}

/// @title IStageClaims
/// @notice Keeps what members of groups say about their stages, for a court of its own. Only the members of a group dispute among
/// each other here: what the market pays, or takes from a stake, does not depend on it.
interface IStageClaims is IClaims {
    event StagePublished(uint256 indexed claimId, address indexed group, address indexed member, StageWork work);
    event CaseOpened(uint256 indexed caseId, uint256 indexed claimId, address indexed challenger);
    event CaseClosed(uint256 indexed caseId, uint256 indexed claimId, bool challengerWon);
    event CoinCredited(address indexed account, uint256 indexed caseId, uint256 amount);
    event Withdrawn(address indexed account, uint256 amount);

    error NotTheCourt(address caller);
    error NotAGroup(address account);
    error NoTask(address group);
    error WrongMode(uint256 taskId, bool exact);
    error NoSuchSegment(uint32 segment, uint32 segments);
    error NotAMember(address account);
    error NoSuchClaim(uint256 claimId);
    error NothingToDecide(bytes32 root);
    error WrongValue(uint256 given, uint256 expected);
    error TooLate(uint256 deadline, uint256 time);
    error OwnStatement(address member);
    error WrongState(GroupState state);
    error AlreadyFallen(uint256 claimId);
    error CaseExists(uint256 caseId);
    error NoOpenCase(uint256 caseId);
    error NotJudgedHere();
    error NothingToWithdraw(address account);
    error TransferFailed(address account, uint256 amount);

    /// @notice Opens a signed stage statement to the court. Anyone may call; a second time changes nothing.
    /// @param work What was stated.
    /// @param signature The member's, 65 bytes: it says who the member is.
    /// @return claimId Number of the claim.
    function publish(StageWork calldata work, bytes calldata signature) external returns (uint256 claimId);

    /// @notice Pays out the caller's credit.
    function withdraw() external returns (uint256 amount);

    /// @notice The bond of a case, in wei, exactly.
    // solhint-disable-next-line func-name-mixedcase
    function CASE_BOND() external view returns (uint256);

    /// @notice What an account can withdraw, in wei.
    function creditOf(address account) external view returns (uint256);

    /// @notice Open cases on statements of a group's members: the group shares nothing out while there are any.
    function pendingOf(address group) external view returns (uint256);

    /// @notice A published statement. Reverts if there is none of that number.
    function workOf(uint256 claimId) external view returns (StageWork memory);

    /// @notice Who made a published statement. Reverts if there is none of that number.
    function memberOf(uint256 claimId) external view returns (address);

    /// @notice Whether a case has refuted the statement.
    function hasFallen(uint256 claimId) external view returns (bool);
}
