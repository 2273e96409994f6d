// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {RecordOpening} from "../libraries/Trees.sol";

/// @notice In what a program is not well-formed.
enum Fault {
    Header, // the header itself
    Operator, // one record, on its face
    Source, // an operand's type or count is not that of what it reads
    Work, // a work that is not the operator's, or sums that do not add up
    Entry, // an entry of a next-state table, on its face
    EntryOperator, // an entry's type or count is not that of the operator it names
    EntryTensor, // an entry's type or count is not that of the tensor it keeps, or that the step section's table gives
    Output // what the distance or deviation section ends in
}

/// @notice The places of a program that show the fault. Fields that a fault does not need stay empty.
/// @param place Place of the section in the header.
/// @param number Number of the operator, or of the table entry.
/// @param operator The operator's record. For Work behind the last operator: the padded leaf's hash in place of a record.
/// @param works Works as the tree has them (Work): the operator's, then each node's on the way up.
/// @param operand Number of the operand (Source).
/// @param other The operator that is read (Source, EntryOperator).
/// @param entry The table entry without its domain byte, with its siblings.
/// @param otherEntry The table entry it is compared with, or that the operand reads (Source, EntryTensor).
struct RefutationEvidence {
    Fault fault;
    uint8 place;
    uint32 number;
    RecordOpening operator;
    uint128[] works;
    uint8 operand;
    RecordOpening other;
    bytes entry;
    bytes32[] entryProof;
    bytes otherEntry;
    bytes32[] otherEntryProof;
}

/// @title IRefuter
/// @notice Whether a place of a program breaks the rules of contracts/FORMAT.md, section 2.3.
interface IRefuter {
    /// @notice The fault shown cannot exist at the place shown.
    error WrongPlace(Fault fault, uint256 place);

    /// @notice True if the evidence shows a fault. Reverts on openings that do not fit the header, which the caller has checked.
    function isFaulty(bytes calldata header, RefutationEvidence calldata evidence) external view returns (bool);
}
