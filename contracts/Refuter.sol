// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Fault, IRefuter, RefutationEvidence} from "./interfaces/IRefuter.sol";
import {Headers, SectionHeader} from "./libraries/Headers.sol";
import {Operator, Operators} from "./libraries/Operators.sol";
import {SumSibling, Trees} from "./libraries/Trees.sol";

/// @title Refuter
/// @notice Judges programs, one place at a time. No state, no rights.
contract Refuter is IRefuter {
    using Headers for bytes;
    using Operators for Operator;

    /// @dev An entry of a next-state table.
    struct TableEntry {
        uint8 kind;
        uint32 index;
        uint8 elementType;
        uint32 count;
    }

    uint8 internal constant FLOAT = 0;
    uint256 internal constant TABLE_ENTRY_BYTES = 10;
    uint256 internal constant DATA_ENTRY_BYTES = 5;

    /// @inheritdoc IRefuter
    function isFaulty(bytes calldata header, RefutationEvidence calldata evidence) external view returns (bool) {
        if (evidence.fault == Fault.Header) return isHeaderFaulty(header);
        if (evidence.place >= header.sections()) revert WrongPlace(evidence.fault, evidence.place);
        SectionHeader memory section = header.sectionAt(evidence.place);
        uint8 role = header.roleAt(evidence.place);
        bool isEntry = evidence.fault == Fault.Entry || evidence.fault == Fault.EntryOperator
            || evidence.fault == Fault.EntryTensor;
        if (isEntry) return _isEntryFaulty(header, evidence, section, role);
        if (evidence.fault == Fault.Work) return _isWorkFaulty(evidence, section);
        if (evidence.number >= section.operators) revert WrongPlace(evidence.fault, evidence.number);
        Trees.verifyRecord(evidence.operator, evidence.number, section.operators, section.root);
        if (evidence.fault == Fault.Operator) {
            return !Operators.isWellFormed(
                evidence.operator.record, role, evidence.number, header.states(), header.dataTensors(), header.constants()
            );
        }
        if (evidence.fault == Fault.Source) return _isSourceFaulty(header, evidence, section);
        return _isOutputFaulty(header, evidence, section, role);
    }

    /// @notice Whether the header's own fields break a rule: versions, length, numbers, roles ascending from 0, tables.
    function isHeaderFaulty(bytes calldata header) public pure returns (bool) {
        if (header.length < Headers.FIXED_BYTES) return true;
        uint256 sections = header.sections();
        if (header.length != Headers.FIXED_BYTES + Headers.SECTION_BYTES * sections) return true;
        if (bytes4(header[0:4]) != 0x00010001 || header.states() == 0 || sections == 0) return true;
        if (header.dataTensors() == 0 && header.dataTableRoot() != 0) return true;
        if (header.constants() == 0 && header.constantRoot() != 0) return true;
        for (uint256 place; place < sections; ++place) {
            uint8 role = header.roleAt(place);
            if (place == 0 ? role != 0 : role <= header.roleAt(place - 1) || role > 3) return true;
            SectionHeader memory section = header.sectionAt(place);
            if (section.operators == 0) return true;
            if ((role == 1 || role == 3) && section.tableRoot != 0) return true;
            if (role == 3 && section.operators < 2) return true;
        }
        return false;
    }

    /// @dev An operator's work in the tree is not its own, padding has work, or a node's work is not the sum of its children's.
    function _isWorkFaulty(RefutationEvidence calldata evidence, SectionHeader memory section)
        private
        view
        returns (bool faulty)
    {
        uint256 depth = Trees.depthOf(section.operators);
        uint256 number = evidence.number;
        uint128[] calldata works = evidence.works;
        if (number >> depth != 0) revert WrongPlace(Fault.Work, number);
        if (evidence.operator.proof.length != depth) revert Trees.WrongLength(evidence.operator.proof.length, depth);
        if (works.length != depth + 1) revert Trees.WrongLength(works.length, depth + 1);
        bytes32 hash;
        if (number < section.operators) {
            hash = sha256(abi.encodePacked(bytes1(0x03), evidence.operator.record));
            faulty = works[0] != Operators.decode(evidence.operator.record).workOf();
        } else {
            // A padded leaf: its hash takes the record's place.
            if (evidence.operator.record.length != 32) revert Trees.WrongLength(evidence.operator.record.length, 32);
            hash = bytes32(evidence.operator.record);
            faulty = hash != 0 || works[0] != 0;
        }
        for (uint256 level; level < depth; ++level) {
            SumSibling calldata sibling = evidence.operator.proof[level];
            hash = (number >> level) & 1 == 0
                ? Trees.sumNode(hash, works[level], sibling.hash, sibling.work)
                : Trees.sumNode(sibling.hash, sibling.work, hash, works[level]);
            if (uint256(works[level]) + sibling.work != works[level + 1]) faulty = true;
        }
        if (hash != section.root) revert Trees.WrongHash(hash, section.root);
        if (works[depth] != section.work) revert Trees.WrongLength(works[depth], section.work);
    }

    /// @dev The operand's type or count is not that of the tensor it names.
    function _isSourceFaulty(
        bytes calldata header,
        RefutationEvidence calldata evidence,
        SectionHeader memory section
    ) private view returns (bool) {
        Operator memory operator = Operators.decode(evidence.operator.record);
        if (evidence.operand >= operator.operands.length) revert WrongPlace(Fault.Source, evidence.operand);
        uint256 source = operator.operands[evidence.operand].source;
        uint32 index = uint32(operator.operands[evidence.operand].index);
        if (source == Operators.OPERATOR) {
            _verifyOther(evidence, index, section);
            (uint8 outputType, uint256 elements,) = Operators.shapeOf(evidence.other.record);
            return !operator.accepts(evidence.operand, outputType, elements);
        }
        if (source == Operators.DATA) {
            _verifyDataEntry(header, evidence, index);
            bytes calldata other = evidence.otherEntry;
            return !operator.accepts(evidence.operand, uint8(other[0]), uint32(bytes4(other[1:5])));
        }
        if (
            source == Operators.STATE || source == Operators.COMPARED
                || source == Operators.START || source == Operators.NOISY
                || source == Operators.PENULTIMATE
        ) {
            TableEntry memory entry = _stepEntry(header, evidence, index);
            return !operator.accepts(evidence.operand, entry.elementType, entry.count);
        }
        revert WrongPlace(Fault.Source, source);
    }

    function _verifyDataEntry(bytes calldata header, RefutationEvidence calldata evidence, uint256 index) private view {
        if (evidence.otherEntry.length != DATA_ENTRY_BYTES) {
            revert Trees.WrongLength(evidence.otherEntry.length, DATA_ENTRY_BYTES);
        }
        bytes32 entry = sha256(abi.encodePacked(bytes1(0x09), evidence.otherEntry));
        bytes32 tableRoot = header.dataTableRoot();
        Trees.verify(entry, index, Trees.depthOf(header.dataTensors()), evidence.otherEntryProof, tableRoot);
    }

    /// @dev An entry names nothing that exists, or something of another type or count.
    function _isEntryFaulty(
        bytes calldata header,
        RefutationEvidence calldata evidence,
        SectionHeader memory section,
        uint8 role
    ) private view returns (bool) {
        if (role != 0 && role != 2) revert WrongPlace(evidence.fault, role);
        _verifyEntry(header, evidence.entry, evidence.number, evidence.entryProof, section.tableRoot);
        TableEntry memory entry = _entryOf(evidence.entry);
        if (evidence.fault == Fault.Entry) {
            if (entry.elementType > 1 || entry.count == 0 || entry.count >= 1 << 31) return true;
            if (entry.kind == 1) return entry.index >= header.states();
            return entry.kind != 2 || entry.index >= section.operators;
        }
        if (evidence.fault == Fault.EntryOperator) {
            if (entry.kind != 2) revert WrongPlace(Fault.EntryOperator, entry.kind);
            _verifyOther(evidence, entry.index, section);
            (uint8 outputType, uint256 elements,) = Operators.shapeOf(evidence.other.record);
            return outputType != entry.elementType || elements != entry.count;
        }
        if (role == 0 && entry.kind != 1) revert WrongPlace(Fault.EntryTensor, entry.kind);
        TableEntry memory other = _stepEntry(header, evidence, role == 0 ? entry.index : evidence.number);
        return other.elementType != entry.elementType || other.count != entry.count;
    }

    /// @dev The other entry of the evidence, as number `number` of the step section's table: it gives the state's types and counts.
    function _stepEntry(bytes calldata header, RefutationEvidence calldata evidence, uint256 number)
        private
        view
        returns (TableEntry memory)
    {
        bytes32 tableRoot = header.sectionAt(0).tableRoot;
        _verifyEntry(header, evidence.otherEntry, number, evidence.otherEntryProof, tableRoot);
        return _entryOf(evidence.otherEntry);
    }

    function _entryOf(bytes calldata text) private pure returns (TableEntry memory) {
        return TableEntry(uint8(text[0]), uint32(bytes4(text[1:5])), uint8(text[5]), uint32(bytes4(text[6:10])));
    }

    /// @dev The distance is one float32; the deviation's last two are a float32 for each tensor of the state, and one.
    function _isOutputFaulty(
        bytes calldata header,
        RefutationEvidence calldata evidence,
        SectionHeader memory section,
        uint8 role
    ) private pure returns (bool) {
        uint256 fromEnd = section.operators - 1 - evidence.number;
        bool isOutput = (role == 1 && fromEnd == 0) || (role == 3 && fromEnd <= 1);
        if (!isOutput) revert WrongPlace(Fault.Output, evidence.number);
        (uint8 outputType, uint256 elements,) = Operators.shapeOf(evidence.operator.record);
        return outputType != FLOAT || elements != (fromEnd == 0 ? 1 : header.states());
    }

    function _verifyOther(RefutationEvidence calldata evidence, uint32 index, SectionHeader memory section)
        private
        view
    {
        if (index >= section.operators) revert WrongPlace(evidence.fault, index);
        Trees.verifyRecord(evidence.other, index, section.operators, section.root);
    }

    function _verifyEntry(
        bytes calldata header,
        bytes calldata entry,
        uint256 number,
        bytes32[] calldata proof,
        bytes32 tableRoot
    ) private view {
        if (entry.length != TABLE_ENTRY_BYTES) revert Trees.WrongLength(entry.length, TABLE_ENTRY_BYTES);
        if (number >= header.states()) revert WrongPlace(Fault.Entry, number);
        bytes32 hash = sha256(abi.encodePacked(bytes1(0x04), entry));
        Trees.verify(hash, number, Trees.depthOf(header.states()), proof, tableRoot);
    }
}
