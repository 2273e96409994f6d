// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {ClaimKind, IClaims} from "./IClaims.sol";
import {State} from "./IMarket.sol";
import {Checkpoint, ProfileLeaf, ReplayLeaf} from "../libraries/Leaves.sol";

/// @notice Who claims what about one subject (a round's share, or an accused segment) at this moment.
/// @param root Root of the claim that holds now.
/// @param claimant Who answers for it.
/// @param until End of the time in which cases can be opened on it.
/// @param openCases Cases not yet closed on any claim of this line.
/// @param passes Whether the proof, or the profile, passes by this claim.
/// @param hasFallen Whether the line's first claim has fallen.
/// @param isClosed Whether the line was an accusation and is over.
/// @param bond Bucket (class Case) of the bond behind the claim; zero while a verifier's seat stands behind it.
struct Line {
    bytes32 root;
    address claimant;
    uint40 until;
    uint16 openCases;
    bool passes;
    bool hasFallen;
    bool isClosed;
    uint256 bond;
}

/// @notice A root whose leaves are on chain.
struct Published {
    bool isKnown;
    bool passes;
    bytes32 thresholds;
}

/// @notice A case of the court.
struct Case {
    uint256 claimId;
    address challenger;
    bool isOpen;
    bytes32 answerRoot;
}

/// @title IMarketClaims
/// @notice The market's keeper of claims: one line of claims for every round and every accused segment, and the training claim of every
/// task in exact mode. What the court needs of it is `IClaims`.
interface IMarketClaims is IClaims {
    /* EVENTS */

    event Entered(uint256 indexed line, address indexed claimant, bytes32 root, bool passes, uint256 until);
    event Opened(uint256 indexed claimId, uint256 indexed line, bytes32 root, address indexed claimant, ClaimKind kind);
    event AnswerPublished(uint256 indexed line, bytes32 indexed root, address publisher, bool passes);
    event ReplayPublished(uint256 indexed line, bytes32 indexed root, ReplayLeaf[] leaves);
    event ProfilePublished(uint256 indexed line, bytes32 indexed root, ProfileLeaf[] leaves);
    event Accused(
        uint256 indexed taskId, uint256 indexed line, address indexed accuser, uint32 segment, ReplayLeaf leaf, uint64 drawSeed
    );
    event AccusationClosed(uint256 indexed taskId, uint256 indexed line, address indexed claimant, bool stands);
    event CaseOpened(uint256 indexed caseId, uint256 indexed claimId, address indexed challenger, bytes32 answerRoot);
    event CaseClosed(uint256 indexed caseId, uint256 indexed claimId, bool challengerWon, int256 overshoot);
    event Fell(
        uint256 indexed line, bytes32 root, address claimant, bytes32 newRoot, address indexed newClaimant, bool passes, uint256 until
    );

    /* ERRORS */

    error NotAModule(address caller);
    error NoSuchClaim(uint256 claimId);
    error NoSuchLine(uint256 line);
    error WrongState(uint256 taskId, State state);
    error NotTheCurrentClaim(uint256 claimId, bytes32 root, bytes32 current);
    error WindowOver(uint256 until, uint256 time);
    error WindowOpen(uint256 until, uint256 time, uint256 openCases);
    error NotChallengeable(uint256 taskId);
    error WrongValue(uint256 given, uint256 expected);
    error NotPublished(uint256 line, bytes32 root);
    error NothingToDecide(bytes32 root);
    error SegmentDrawn(uint32 segment);
    error NoSuchSegment(uint32 segment, uint32 segments);
    error NothingWrong(uint32 segment);
    error WrongMode(uint256 taskId, bool exact);
    error CaseExists(uint256 caseId);
    error NoOpenCase(uint256 caseId);
    error AlreadyAccused(uint256 line);

    /* LINES */

    /// @notice A verifier has disclosed: its claim holds unless it falls.
    function enter(
        uint256 roundId,
        address claimant,
        bytes32 root,
        bool passes,
        bytes32 thresholds,
        uint256 until
    ) external;

    /// @notice Puts the leaves of an answer to a round's share or to an accused segment on chain, and opens the line's present
    /// claim to the court. A case needs both. Anyone may call.
    /// @param line The round or the accusation.
    /// @return claimId Number of the present claim.
    function publishReplay(uint256 line, ReplayLeaf[] calldata leaves, Checkpoint[] calldata checkpoints)
        external
        returns (uint256 claimId);

    /// @notice The same for a profile.
    function publishProfile(uint256 line, ProfileLeaf[] calldata leaves) external returns (uint256 claimId);

    /// @notice Opens the training claim of a task in exact mode to the court. Anyone may call.
    function publishTraining(uint256 taskId) external returns (uint256 claimId);

    /* ACCUSATIONS */

    /// @notice Accuses a segment that was not drawn, in tolerant mode, by a replay claim of one leaf with a bond. Trace positions
    /// are those of the task's segment seed.
    /// @param leaf The claim's only leaf.
    /// @param checkpoint The solver's checkpoint after the segment, opened.
    /// @return line Number of the accusation.
    function accuse(uint256 taskId, uint32 segment, ReplayLeaf[] calldata leaf, Checkpoint[] calldata checkpoint)
        external
        payable
        returns (uint256 line);

    /// @notice Closes an accusation that nobody can dispute any more. If what stands says that the segment fails, so does the
    /// task. Anyone may call.
    function closeAccusation(uint256 line) external;

    /* CALLED BY THE SETTLEMENT */

    /// @notice Returns the bond behind a round's claim to its claimant, when the round is released.
    function returnBond(uint256 roundId) external;

    /* VIEWS */

    /// @notice Bond of a case, in wei.
    // solhint-disable-next-line func-name-mixedcase
    function CASE_BOND() external view returns (uint256);

    /// @notice Bond of an accusation, in wei.
    // solhint-disable-next-line func-name-mixedcase
    function ACCUSATION_BOND() external view returns (uint256);

    /// @notice Open cases on a task's training claim, and accusations not yet closed: the task does not settle while there are any.
    function pendingOf(uint256 taskId) external view returns (uint256 count);

    /// @notice What clock extensions of the verifier have cost it in a round, in wei.
    function chargeOf(uint256 roundId) external view returns (uint256 amount);

    /// @notice The case or the accusation that failed a task; zero where none has.
    function causeOf(uint256 taskId) external view returns (uint256 caseOrLine);

    /// @notice Whether cases on the training claim, and accusations, are still taken: until every round's claim stands.
    function isChallengeable(uint256 taskId) external view returns (bool);

    /// @notice Whether the line's claim can be disputed no more: its window is over, and every case was played.
    function isStanding(uint256 line) external view returns (bool);

    /// @notice A line as it stands.
    function lineOf(uint256 line) external view returns (Line memory);

    /// @notice What is known of a root in a line.
    function publishedOf(uint256 line, bytes32 root) external view returns (Published memory);

    /// @notice A case as it stands.
    function caseOf(uint256 caseId) external view returns (Case memory);

    /// @notice Number of the claim with that root in a line.
    /// @dev The claimant is part of it: what an account showed in the court for a root, and the cases it let itself lose,
    /// must not bind another that claims the same root after it.
    function claimIdOf(uint256 line, bytes32 root, address claimant) external pure returns (uint256);

    /// @notice Line of a task's training claim.
    function trainingLineOf(uint256 taskId) external pure returns (uint256);

    /// @notice Line of an accusation.
    function accusationOf(uint256 taskId, uint32 segment, address accuser) external pure returns (uint256);
}
