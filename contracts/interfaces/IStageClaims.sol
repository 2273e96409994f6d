// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {IClaims} from "./IClaims.sol";
import {IMembersLedger} from "./IMembersLedger.sol";

/// @notice What a member says its stage did in a segment (contracts/FORMAT.md, section 3), as it signed it: the statement of
/// `Agreements.stageSubject`, whose value is `endRoot`. In an exact task the program is the stage's own, in a tolerant one it checks
/// what the member says, against itself.
/// @param group The member's group.
/// @param run Which run of the group.
/// @param segment Number of the segment.
/// @param until Last second in which a case can be opened on the statement, or an accusation be made of it; the member keeps its
/// records until then.
/// @param programRoot Root of the stage program, or of the checking program.
/// @param dataRoot Root of its data: the task's, and all the member was sent in the segment; in a tolerant task also all it says
/// it sent, and the tensors it says it ended with.
/// @param startRoot Root of its state before the segment.
/// @param endRoot Root of the stage's state after it: what the member holds, and all it sent. Zero in a tolerant task: the member has
/// not executed the checking program, and says nothing of where it ends.
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

/// @notice What makes a claim an accusation: who says that a member's work is garbage, and where it says the checking program ends.
/// @param accuser Who answers for it in court. Zero where the claim is the member's own statement.
/// @param until Last second in which a case can be opened on it.
/// @param openCases Cases on it that are not decided.
/// @param isConcluded Whether it stands, and has convicted the member.
/// @param endRoot Root of the state after the segment, whose first tensor, the fault, is above one.
struct StageAccusation {
    address accuser;
    uint40 until;
    uint32 openCases;
    bool isConcluded;
    bytes32 endRoot;
}

/// @title IStageClaims
/// @notice Keeps what members of groups say about their stages, for a court of its own. Only the members of a group dispute among
/// each other here: what the market pays, or takes from a stake, does not depend on it.
/// @dev WARNING: the program is the word of the member that signed. In a statement's case the member itself loses by an operator that
/// cannot be executed; in an accusation's the accuser would. Accuse only of statements about the program and the data roots that you
/// compute yourself, and count a member's statement about others as not given.
interface IStageClaims is IClaims, IMembersLedger {
    event StagePublished(uint256 indexed claimId, address indexed group, address indexed member, StageWork work);
    event StageAccused(
        uint256 indexed claimId,
        address indexed group,
        address indexed member,
        address accuser,
        StageWork work,
        bytes32 endRoot,
        uint256 until
    );
    event AccusationConcluded(
        uint256 indexed claimId, address indexed group, address indexed member, address accuser
    );
    event CaseOpened(uint256 indexed caseId, uint256 indexed claimId, address indexed challenger);
    event CaseClosed(uint256 indexed caseId, uint256 indexed claimId, bool challengerWon);

    error NotTheCourt(address caller);
    error WrongMode(uint256 taskId, bool exact);
    error NoSuchSegment(uint32 segment, uint32 segments);
    error NoSuchClaim(uint256 claimId);
    error NothingToDecide(bytes32 root);
    error OwnStatement(address member);
    error OwnClaim(address claimant);
    error EndStated(bytes32 endRoot);
    error NoFault(uint32 fault);
    error ProofTooLong(uint256 given, uint256 most);
    error AlreadyAccused(uint256 claimId);
    error AlreadyFallen(uint256 claimId);
    error AlreadyConcluded(uint256 claimId);
    error CasesOpen(uint256 claimId, uint256 cases);
    error CaseExists(uint256 caseId);
    error NoOpenCase(uint256 caseId);
    error NotJudgedHere();

    /// @notice Opens a signed stage statement of an exact task to the court. Anyone may call; a second time changes nothing.
    /// @param work What was stated.
    /// @param signature The member's, 65 bytes: it says who the member is.
    /// @return claimId Number of the claim.
    function publish(StageWork calldata work, bytes calldata signature) external returns (uint256 claimId);

    /// @notice Member of a group with a tolerant task: says that another member's stated work is garbage, with a bond of exactly
    /// `ACCUSATION_BOND`. For `WINDOW` seconds the other members can take it to court, where the caller answers for it.
    /// @param work What was stated.
    /// @param signature The accused member's, 65 bytes: it says who the member is.
    /// @param endRoot Root of the state in which the checking program ends.
    /// @param fault The 32 bits of that state's first tensor, a number: above one, or a NaN.
    /// @param proof Siblings of its only chunk under `endRoot`.
    /// @return claimId Number of the claim: one for each work, member and accuser.
    function accuse(
        StageWork calldata work,
        bytes calldata signature,
        bytes32 endRoot,
        uint32 fault,
        bytes32[] calldata proof
    ) external payable returns (uint256 claimId);

    /// @notice Anyone: an accusation that nobody refuted in time convicts the member, and gives the bond back.
    function conclude(uint256 claimId) external;

    /// @notice The bond of a case, in wei, exactly.
    // solhint-disable-next-line func-name-mixedcase
    function CASE_BOND() external view returns (uint256);

    /// @notice The bond of an accusation, in wei, exactly.
    // solhint-disable-next-line func-name-mixedcase
    function ACCUSATION_BOND() external view returns (uint256);

    /// @notice How long cases can be opened on an accusation, in seconds.
    // solhint-disable-next-line func-name-mixedcase
    function WINDOW() external view returns (uint256);

    /// @notice What was stated that a claim is about. Reverts if there is none of that number.
    function workOf(uint256 claimId) external view returns (StageWork memory);

    /// @notice Who stated it. Reverts if there is no claim of that number.
    function memberOf(uint256 claimId) external view returns (address);

    /// @notice The accusation of that number; all zero where there is none.
    function accusationOf(uint256 claimId) external view returns (StageAccusation memory);

    /// @notice Whether a case has refuted the claim: what a member stated, or what it was accused of.
    function hasFallen(uint256 claimId) external view returns (bool);
}
