// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Cursor, Facts, Part} from "../libraries/Cases.sol";
import {Claim} from "./IClaims.sol";
import {Opening, RecordOpening} from "../libraries/Trees.sol";

/// @notice What a challenger shows to open a case. Which fields are read depends on the kind of claim and the part denied.
/// @param leaf The disputed leaf: its record without the domain byte, or the 32-byte state root of a training claim.
/// @param leafProof The leaf's siblings under the claim's root.
/// @param previous What the segment started from: replay: the 32-byte checkpoint root; training: the left neighbour leaf;
/// profile: the left neighbour's record, empty for leaf 0.
/// @param previousProof Its siblings, under the checkpoint root or the claim's root.
/// @param compared Part Distance: the checkpoint at the segment's end.
/// @param comparedProof Its siblings under the checkpoint root.
/// @param header The program's header.
struct OpenEvidence {
    bytes leaf;
    bytes32[] leafProof;
    bytes previous;
    bytes32[] previousProof;
    bytes32 compared;
    bytes32[] comparedProof;
    bytes header;
}

/// @notice The disputed leaf, read.
/// @param segment The segment that the leaf must be about.
/// @param facts Roots that the case will open things under.
/// @param claimed The root claimed for the part denied.
/// @param refuted Whether the leaf is false on its face: it names another segment, or a distance in exact mode.
struct Reading {
    uint32 segment;
    uint32 leaf;
    Part part;
    Facts facts;
    bytes32 claimed;
    bool refuted;
}

/// @notice What a case asks in its last move.
/// @param role Role of the section.
/// @param cursor Where the case stands.
/// @param steps Steps of the segment.
/// @param firstStep Global number of its first step.
/// @param operators Operators of the section.
/// @param operatorsRoot Root of their sum tree.
/// @param segmentRoot Root over the state roots after each step (the end state's if there is one step).
/// @param outputsRoot Root over the operators' outputs, as the claimant expanded it.
/// @param sumsRoot Root of the partial sums, if the body is a fold of more than one term.
struct Question {
    uint8 role;
    Cursor cursor;
    uint32 steps;
    uint32 firstStep;
    uint32 operators;
    bytes32 operatorsRoot;
    bytes32 segmentRoot;
    bytes32 outputsRoot;
    bytes32 sumsRoot;
}

/// @notice The operator in dispute and what it reads.
/// @param operator The operator's record.
/// @param operands One opening an operand, empty where nothing is read from a tensor. For the first maximum of a fold
/// (fold_argmax) after term 0 a second one: the operand at the term that led before.
/// @param previous The partial sum before the disputed one; empty at term 0.
struct OperatorEvidence {
    RecordOpening operator;
    Opening[] operands;
    Opening previous;
}

/// @notice The next-state table's entry in dispute, and the tensor it names.
/// @param source Root of that tensor, with its siblings under the state before the step (kind 1) or the outputs (kind 2).
struct StateEvidence {
    uint8 kind;
    uint32 index;
    uint8 elementType;
    uint32 count;
    bytes32[] tableProof;
    bytes32 source;
    bytes32[] sourceProof;
}

/// @title IProver
/// @notice What a case needs that depends on no case's state: reading the disputed leaf, opening operands at positions the chain
/// computes, and executing one scalar operation.
/// @dev A contract of its own for its size: it holds the whole arithmetic, and no state.
interface IProver {
    /// @notice The evidence has another number of openings than the body needs.
    error WrongOperands(uint256 given, uint256 expected);

    /// @notice An operand's source, or a state table's kind, that no well-formed program has here: refute the program.
    error MalformedProgram(uint256 found);

    /// @notice What the evidence proves about the disputed leaf of a claim. Reverts where it proves nothing.
    /// @param segment The segment that the leaf must be about.
    function read(Claim calldata claim, uint32 segment, uint32 leaf, Part part, OpenEvidence calldata evidence)
        external
        view
        returns (Reading memory reading);

    /// @notice The bits of the disputed element or partial sum, computed here. Reverts on any opening that does not fit.
    /// @param header The program's header, which the caller has checked.
    function execute(
        Question calldata question,
        Facts calldata facts,
        bytes calldata header,
        OperatorEvidence calldata evidence
    ) external view returns (uint32 bits);

    /// @notice The root that the disputed tensor of the next state must have.
    function nextState(
        Question calldata question,
        Facts calldata facts,
        bytes calldata header,
        StateEvidence calldata evidence
    ) external view returns (bytes32 root);
}
