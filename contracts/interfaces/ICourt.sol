// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Case, Cursor, Facts, Part, Phase, Tree} from "../libraries/Cases.sol";
import {OpenEvidence, OperatorEvidence, StateEvidence} from "./IProver.sol";
import {RefutationEvidence} from "./IRefuter.sol";
import {RecordOpening} from "../libraries/Trees.sol";

/// @title ICourt
/// @notice The moves of a case. Every move but a timeout names the position it answers (`positionOf`, also in every event); it
/// reverts once that position has moved on. Assumption: the keeper of claims is trusted and does not re-enter to harm.
interface ICourt {
    /* EVENTS */

    event DelegateSet(address indexed party, address indexed delegate, bool allowed);
    event CaseOpened(
        uint256 indexed caseId,
        uint256 indexed claimId,
        address indexed challenger,
        address claimant,
        uint32 leaf,
        Part part,
        bytes32 answerRoot,
        bytes32 position,
        Facts facts
    );
    event Expanded(uint256 indexed caseId, bytes32 root, bytes shown, bytes32 position);
    event Revealed(uint256 indexed caseId, bytes shown, bytes32 position);
    event Chosen(uint256 indexed caseId, Cursor cursor, bytes32 node, bytes32 position);
    event Proven(uint256 indexed caseId, uint32 claimed, uint32 result);
    event NextStateProven(uint256 indexed caseId, bytes32 claimed, bytes32 result);
    event TimedOut(uint256 indexed caseId, address silent);
    event CaseClosed(uint256 indexed caseId, uint256 indexed claimId, bool challengerWon);
    event ProgramRefuted(uint256 indexed taskId, address indexed refuter);

    /* ERRORS */

    error BondTooSmall(uint256 given, uint256 minimum);
    error InitialState(uint256 claimId);
    error CaseNotOpen(uint256 caseId);
    error PositionMoved(bytes32 answered, bytes32 current);
    error NotTheTurn(Phase current, Phase needed);
    error NotTheParty(address sender, address party);
    error ExpansionBound(bytes32 bound, bytes32 given);
    error OutsideNode(uint256 place, uint256 places);
    error PaddingGranted(uint256 place, uint256 count);
    error RecordNeeded(uint32 operator);
    error NotALeaf(Tree tree, uint8 levels);
    error NotANode(Tree tree);
    error NotAChunk(Tree tree, uint8 levels);
    error NoNextState(Part part, Tree tree);
    error NoSegmentTree(Part part, Tree tree);
    error NextStateInDispute(uint32 tensor);
    error OperatorInDispute(uint32 operator);
    error WrongFacts(bytes32 found, bytes32 expected);
    error WellFormed(uint256 taskId);

    /* MOVES */

    /// @notice Lets `delegate` open nothing but make all moves of the caller's cases and claims; or stops that.
    function setDelegate(address delegate, bool allowed) external;

    /// @notice Opens a case: the caller denies one part of one leaf of a claim and grants the rest of that leaf and all to its left.
    /// The value sent is the bond; it goes to the keeper of claims. A leaf false on its face loses at once.
    function open(uint256 claimId, uint32 leaf, Part part, bytes32 answerRoot, OpenEvidence calldata evidence)
        external
        payable
        returns (uint256 caseId);

    /// @notice Claimant: commits to the tree below the disputed leaf.
    /// @param root Segment tree, operator tree or partial sums, as the cursor's tree says.
    /// @param shown The first 2^min(levels, FIRST_LEVELS) nodes below it (part Trace with the segment tree: below the trace root;
    /// parts Threshold and Separation with the segment tree, and partial sums of a single chunk: nothing).
    function expand(uint256 caseId, bytes32 position, bytes32 root, bytes calldata shown) external;

    /// @notice Anyone: shows the next levels below the disputed node, from left to right, or the bytes of a disputed chunk
    /// (256 bytes of a trace chunk).
    function reveal(uint256 caseId, bytes32 position, bytes calldata shown) external;

    /// @notice Challenger: names the leftmost shown node it disagrees with.
    /// @param child That node, with its siblings under the disputed one.
    function choose(uint256 caseId, bytes32 position, uint32 place, bytes32 child, bytes32[] calldata proof) external;

    /// @notice Challenger: `choose` where the shown nodes are the operators' outputs; opens the operator's record.
    function chooseOperator(
        uint256 caseId,
        bytes32 position,
        uint32 place,
        bytes32 child,
        bytes32[] calldata proof,
        RecordOpening calldata operator
    ) external;

    /// @notice Challenger: grants all operators' outputs and denies the state after the step.
    /// @param stateRoot That state, with its siblings under the segment tree.
    function chooseNextState(uint256 caseId, bytes32 position, bytes32 stateRoot, bytes32[] calldata proof) external;

    /// @notice Challenger: names the first element it disagrees with of the chunk just shown.
    function chooseElement(uint256 caseId, bytes32 position, uint32 place, bytes calldata chunk) external;

    /// @notice Challenger: in place of the trace, the threshold vector or the separation, denies the segment tree
    /// that was committed to for it.
    function chooseSegmentTree(uint256 caseId, bytes32 position, Facts calldata facts, bytes calldata header)
        external;

    /// @notice Anyone: opens the operator and what it reads; the chain executes it, and the case is decided.
    function prove(
        uint256 caseId,
        bytes32 position,
        Facts calldata facts,
        bytes calldata header,
        OperatorEvidence calldata evidence
    ) external;

    /// @notice Anyone: opens where a tensor of the next state comes from; the case is decided.
    function proveNextState(
        uint256 caseId,
        bytes32 position,
        Facts calldata facts,
        bytes calldata header,
        StateEvidence calldata evidence
    ) external;

    /// @notice Anyone: closes a case whose side in turn has let its clock run out.
    function timeout(uint256 caseId) external;

    /// @notice Anyone: shows that a task's program is not well-formed (FORMAT, section 2.3).
    function refuteProgram(uint256 taskId, bytes calldata header, RefutationEvidence calldata evidence) external;

    /* VIEWS */

    function caseOf(uint256 caseId) external view returns (Case memory, Cursor memory);
    function positionOf(uint256 caseId) external view returns (bytes32);
    function deadlineOf(uint256 caseId) external view returns (uint256);
}
