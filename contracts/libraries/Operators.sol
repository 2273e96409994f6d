// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Bodies} from "./Bodies.sol";
import {Permutation} from "./Permutation.sol";
import {Philox} from "./Philox.sol";

/// @notice What a step knows besides its tensors.
struct Context {
    uint64 taskSeed;
    uint32 step; // global
}

/// @notice An operand of a decoded operator.
struct Operand {
    uint256 source;
    uint256 index; // tensor number, operator number, or the 32 bits of an immediate
    uint256 count;
    uint256 fill;
    int256 offset;
    uint256 guards;
    uint256 place; // memory address of its strides in the record; its guards follow them
}

/// @notice A decoded operator. It refers to the record it was decoded from, which stays in memory unchanged.
struct Operator {
    uint256 body;
    uint256 outputType;
    uint256 outer; // number of output dimensions
    uint256 dimensions; // output, then reduced
    uint256[] extents;
    uint256 p0;
    uint256 p1;
    Operand[] operands;
}

/// @notice What a program's header says that an operator may depend on.
struct Surroundings {
    uint256 role;
    uint256 number; // of the operator in its section
    uint256 states;
    uint256 data;
    uint256 constants;
}

/// @title Operators
/// @notice Operators of a program (contracts/FORMAT.md, section 2): decodes a record, says where operands are read, evaluates one
/// element or one term of a fold, and judges whether a record is well-formed.
/// @dev Positions are computed in 256-bit integers, which nothing a record can hold overflows.
library Operators {
    uint256 internal constant IMMEDIATE = 0;
    uint256 internal constant STATE = 1;
    uint256 internal constant OPERATOR = 2;
    uint256 internal constant DATA = 3;
    uint256 internal constant CONSTANT = 4;
    uint256 internal constant COMPARED = 5;
    uint256 internal constant START = 6;
    uint256 internal constant STEP = 7;
    uint256 internal constant INDEX = 8;
    uint256 internal constant THRESHOLD = 9;
    uint256 internal constant NOISY = 10;
    uint256 internal constant PENULTIMATE = 11;

    uint256 private constant MAX_DIMENSIONS = 8;
    uint256 private constant MAX_OPERANDS = 4;
    uint256 private constant MAX_GUARDS = 3;
    uint256 private constant MAX_ELEMENTS = 2 ** 31 - 1;

    /// @notice The bytes are not exactly an operator record.
    error MalformedRecord(uint256 length);

    /* READING */

    /// @notice Output type, number of output elements, and number of terms (1 unless the body is a fold), from the head of a record.
    function shapeOf(bytes calldata record)
        internal
        pure
        returns (uint8 outputType, uint256 elements, uint256 terms)
    {
        unchecked {
            if (record.length < 4) revert MalformedRecord(record.length);
            outputType = uint8(record[1]);
            uint256 outer = uint8(record[2]);
            uint256 dimensions = outer + uint8(record[3]);
            if (dimensions > MAX_DIMENSIONS || record.length < 4 + 4 * dimensions) revert MalformedRecord(record.length);
            elements = 1;
            terms = 1;
            for (uint256 i = 0; i < dimensions; ++i) {
                uint256 extent = uint32(bytes4(record[4 + 4 * i:8 + 4 * i]));
                // Eight factors of 32 bits fit into a word.
                if (i < outer) elements *= extent;
                else terms *= extent;
            }
        }
    }

    /// @notice The operator of a record. Reverts on bytes that are not exactly one; what its fields mean together is not judged.
    function decode(bytes memory record) internal pure returns (Operator memory operator) {
        bool exact;
        (exact, operator) = _read(record);
        if (!exact) revert MalformedRecord(record.length);
    }

    /// @notice Whether the body folds.
    function isFold(uint256 body) internal pure returns (bool) {
        return Bodies.isFold(body);
    }

    /// @notice Number of output elements.
    function elementsOf(Operator memory operator) internal pure returns (uint256) {
        return _product(operator.extents, 0, operator.outer);
    }

    /// @notice Number of terms of the fold; 1 for other bodies.
    function termsOf(Operator memory operator) internal pure returns (uint256) {
        return _product(operator.extents, operator.outer, operator.dimensions);
    }

    /// @notice Work units: the product of all extents times the body's weight. Exact for a well-formed operator.
    function workOf(Operator memory operator) internal pure returns (uint256) {
        unchecked {
            return _product(operator.extents, 0, operator.dimensions) * Bodies.weight(operator.body);
        }
    }

    /* OPERANDS */

    /// @notice Where operand `number` is read for an output element and a term of the fold (0 if the body is none).
    /// @param gathered The value of operand 1, sign-extended, where the body is `gather` and `number` is 0; else ignored.
    /// @return opened Whether the value has to be opened at `position` of the operand's source.
    /// @return bits The value, where it has not: immediate, step, index, the fill of a failing guard, or 0 of a gather out of range.
    /// @return position Below the operand's count for every well-formed operator.
    function operand(
        Operator memory operator,
        uint256 number,
        uint256 element,
        uint256 term,
        Context memory context,
        int256 gathered
    ) internal pure returns (bool opened, uint32 bits, uint256 position) {
        return operandAt(operator, number, loopIndices(operator, element, term), context, gathered);
    }

    /// @notice As `operand`, for loop indices that serve several operands.
    function operandAt(
        Operator memory operator,
        uint256 number,
        uint256[] memory indices,
        Context memory context,
        int256 gathered
    ) internal pure returns (bool opened, uint32 bits, uint256 position) {
        unchecked {
            Operand memory read = operator.operands[number];
            int256 place = read.offset;
            bool gathers = operator.body == Bodies.GATHER && number == 0;
            if (read.source != IMMEDIATE) {
                uint256 at = read.place;
                uint256 width = 4 * indices.length;
                place += _combine(at, indices);
                at += width;
                for (uint256 left = read.guards; left != 0; --left) {
                    int256 c = _signed32(at) + _combine(at + 4, indices);
                    at += 4 + width;
                    uint256 divisor = _unsigned32(at);
                    // A divisor of zero is not well-formed; its guard fails.
                    if (c < 0 || divisor == 0 || uint256(c) % divisor != 0) return (false, uint32(read.fill), 0);
                    uint256 quotient = uint256(c) / divisor;
                    if (quotient >= _unsigned32(at + 4)) return (false, uint32(read.fill), 0);
                    place += int256(quotient) * _signed32(at + 8);
                    at += 12;
                }
            }
            if (gathers) {
                if (gathered < 0 || gathered >= int256(operator.p1)) return (false, 0, 0);
                place += int256(operator.p0) * gathered;
            }
            if (read.source == IMMEDIATE) return (false, uint32(read.index), 0);
            if (read.source == STEP) return (false, context.step, 0);
            if (read.source == INDEX) return (false, uint32(uint256(place)), 0);
            return (true, 0, uint256(place));
        }
    }

    /// @notice The loop indices of output element `element` and term `term`, both row-major.
    function loopIndices(Operator memory operator, uint256 element, uint256 term)
        internal
        pure
        returns (uint256[] memory indices)
    {
        unchecked {
            uint256 outer = operator.outer;
            uint256 i = operator.dimensions;
            indices = new uint256[](i);
            for (uint256 rest = term; i != outer;) {
                uint256 extent = operator.extents[--i];
                indices[i] = rest % extent;
                rest /= extent;
            }
            for (uint256 rest = element; i != 0;) {
                uint256 extent = operator.extents[--i];
                indices[i] = rest % extent;
                rest /= extent;
            }
        }
    }

    /* VALUES */

    /// @notice One element of a body that is no fold, or the accumulator of a fold after term `term`.
    /// @param values The operands' values, in their order. For `fold_argmax` the second is operand 0 at term `previous`.
    /// @param previous The accumulator after the term before; ignored at term 0, where the body's own start value is used.
    /// @return bits A NaN is 0x7fc00000.
    function evaluate(
        Operator memory operator,
        uint32[4] memory values,
        uint32 previous,
        uint256 element,
        uint256 term,
        Context memory context
    ) internal pure returns (uint32 bits) {
        uint256 body = operator.body;
        if (Bodies.isFold(body)) {
            uint256 accumulator = term == 0 ? Bodies.startOf(body) : previous;
            return uint32(Bodies.fold(body, accumulator, values[0], values[1], values[2], term, values[1]));
        }
        if (body == Bodies.PERMUTE) {
            // p1 = 0 is not well-formed, and worth 0.
            if (operator.p1 == 0) return 0;
            unchecked {
                uint256 n = context.step * operator.p0 + element;
                return uint32(Permutation.permute(context.taskSeed, n / operator.p1, n % operator.p1, operator.p1));
            }
        }
        if (body == Bodies.UNIFORM) {
            return uint32(Philox.uniform(context.taskSeed, context.step, operator.p0, element));
        }
        return uint32(Bodies.value(body, operator.outputType, values[0], values[1], values[2]));
    }

    /* JUDGING */

    /// @notice Whether the rules of section 2.3 hold as far as one record and the program's header show them. Never reverts.
    /// What an operand's source must be (its type and its element count) is `accepts`, with that source opened.
    function isWellFormed(
        bytes memory record,
        uint8 role,
        uint256 number,
        uint32 states,
        uint32 data,
        uint32 constants
    ) internal pure returns (bool) {
        (bool exact, Operator memory operator) = _read(record);
        if (!exact || role > 3 || !Bodies.gives(operator.body, operator.outputType)) return false;
        if (Bodies.isFold(operator.body) != (operator.dimensions > operator.outer)) return false;
        for (uint256 i = 0; i < operator.dimensions; ++i) {
            if (operator.extents[i] == 0) return false;
        }
        if (elementsOf(operator) > MAX_ELEMENTS || termsOf(operator) > MAX_ELEMENTS) return false;
        if (operator.p1 == 0 && (operator.body == Bodies.PERMUTE || operator.body == Bodies.GATHER)) return false;
        if (operator.p1 > MAX_ELEMENTS && operator.body == Bodies.PERMUTE) return false;
        if (operator.operands.length != Bodies.arity(operator.body)) return false;
        Surroundings memory around = Surroundings(role, number, states, data, constants);
        for (uint256 i = 0; i < operator.operands.length; ++i) {
            if (!_isAllowed(operator, i, around) || !_staysInside(operator, i)) return false;
        }
        return true;
    }

    /// @notice Whether operand `number` may read a source of this element type and count.
    /// @dev For sources that are opened: operators, tensors of state and data. A constant's type is any: only its count matters.
    function accepts(Operator memory operator, uint256 number, uint8 sourceType, uint256 sourceCount)
        internal
        pure
        returns (bool)
    {
        Operand memory read = operator.operands[number];
        if (read.count != sourceCount) return false;
        return read.source == CONSTANT || Bodies.takes(operator.body, operator.outputType, number, sourceType);
    }

    /// @dev Whether an operand's source exists in its section, at this index, with a count and a type where the source fixes them.
    function _isAllowed(Operator memory operator, uint256 number, Surroundings memory around)
        private
        pure
        returns (bool)
    {
        Operand memory read = operator.operands[number];
        uint256 source = read.source;
        if (source == OPERATOR) return read.index < around.number;
        if (source == STATE) return read.index < around.states;
        if (source == DATA) return read.index < around.data;
        if (source == CONSTANT) return read.index < around.constants;
        if (source == IMMEDIATE) return read.count == 0 && read.guards == 0 && _hasNoStrides(operator, read);
        if (source == STEP || source == INDEX) {
            return read.count == 0
                && (source == INDEX || _hasNoStrides(operator, read))
                && Bodies.takes(operator.body, operator.outputType, number, Bodies.INT);
        }
        // The others belong to the distance (1) and deviation (3) sections.
        if (source == COMPARED) return around.role == 1 && read.index < around.states;
        if (source == NOISY || source == PENULTIMATE) return around.role == 3 && read.index < around.states;
        if (around.role & 1 == 0) return false;
        if (source == START) return read.index < around.states;
        return read.count == around.states
            && Bodies.takes(operator.body, operator.outputType, number, Bodies.FLOAT); // THRESHOLD
    }

    function _hasNoStrides(Operator memory operator, Operand memory read) private pure returns (bool) {
        for (uint256 i = 0; i < operator.dimensions; ++i) {
            if (_signed32(read.place + 4 * i) != 0) return false;
        }
        return true;
    }

    /// @dev Whether the guards of an operand are sound and the interval of its positions lies inside its source.
    function _staysInside(Operator memory operator, uint256 number) private pure returns (bool) {
        unchecked {
            Operand memory read = operator.operands[number];
            uint256 width = 4 * operator.dimensions;
            (int256 low, int256 high) = _interval(read.place, operator.extents);
            low += read.offset;
            high += read.offset;
            uint256 at = read.place + width;
            for (uint256 left = read.guards; left != 0; --left) {
                at += 4 + width;
                uint256 bound = _unsigned32(at + 4);
                if (_unsigned32(at) == 0 || bound == 0) return false;
                int256 reach = _signed32(at + 8) * int256(bound - 1);
                if (reach < 0) low += reach;
                else high += reach;
                at += 12;
            }
            if (operator.body == Bodies.GATHER && number == 0) high += int256(operator.p0 * (operator.p1 - 1));
            if (read.source == IMMEDIATE || read.source == STEP) return true;
            if (read.source == INDEX) return low >= type(int32).min && high <= type(int32).max;
            return low >= 0 && high < int256(read.count);
        }
    }

    /* RECORDS */

    /// @dev The operator of a record, and whether the record is exactly one. Never reverts.
    function _read(bytes memory record) private pure returns (bool exact, Operator memory operator) {
        unchecked {
            uint256 at;
            uint256 end;
            assembly ("memory-safe") {
                at := add(record, 32)
                end := add(at, mload(record))
            }
            if (end - at < 4) return (false, operator);
            uint256 head = _unsigned32(at);
            operator.body = head >> 24;
            operator.outputType = (head >> 16) & 0xff;
            operator.outer = (head >> 8) & 0xff;
            operator.dimensions = operator.outer + (head & 0xff);
            if (!Bodies.isKnown(operator.body) || operator.outputType > 1 || operator.dimensions > MAX_DIMENSIONS) {
                return (false, operator);
            }
            at += 4;
            uint256 width = 4 * operator.dimensions;
            if (end - at < width + 9) return (false, operator);
            operator.extents = new uint256[](operator.dimensions);
            for (uint256 i = 0; i < operator.dimensions; ++i) {
                operator.extents[i] = _unsigned32(at);
                at += 4;
            }
            operator.p0 = _unsigned32(at);
            operator.p1 = _unsigned32(at + 4);
            uint256 count = _unsigned32(at + 8) >> 24;
            at += 9;
            if (count > MAX_OPERANDS) return (false, operator);
            operator.operands = new Operand[](count);
            for (uint256 i = 0; i < count; ++i) {
                if (end - at < 22 + width) return (false, operator);
                Operand memory read = operator.operands[i];
                read.source = _unsigned32(at) >> 24;
                read.guards = (_unsigned32(at) >> 16) & 0xff;
                read.index = _unsigned32(at + 2);
                read.count = _unsigned32(at + 6);
                read.fill = _unsigned32(at + 10);
                read.offset = (_signed32(at + 14) << 32) | int256(_unsigned32(at + 18));
                read.place = at + 22;
                at += 22 + width;
                if (read.source > PENULTIMATE || read.guards > MAX_GUARDS) return (false, operator);
                uint256 guards = read.guards * (16 + width);
                if (end - at < guards) return (false, operator);
                at += guards;
            }
            return (at == end, operator);
        }
    }

    /// @dev Sum of the products of packed int32 factors, from memory address `at` on, with the loop indices.
    function _combine(uint256 at, uint256[] memory indices) private pure returns (int256 sum) {
        assembly ("memory-safe") {
            let index := add(indices, 32)
            for { let end := add(index, shl(5, mload(indices))) } lt(index, end) { index := add(index, 32) } {
                sum := add(sum, mul(signextend(3, shr(224, mload(at))), mload(index)))
                at := add(at, 4)
            }
        }
    }

    /// @dev Smallest and largest sum of the products of packed int32 factors with indices in the box of `extents`.
    function _interval(uint256 at, uint256[] memory extents) private pure returns (int256 low, int256 high) {
        unchecked {
            for (uint256 i = 0; i < extents.length; ++i) {
                int256 reach = _signed32(at + 4 * i) * int256(extents[i] - 1);
                if (reach < 0) low += reach;
                else high += reach;
            }
        }
    }

    function _product(uint256[] memory extents, uint256 from, uint256 to) private pure returns (uint256 product) {
        unchecked {
            product = 1;
            // Eight factors of 32 bits fit into a word.
            for (uint256 i = from; i < to; ++i) product *= extents[i];
        }
    }

    function _unsigned32(uint256 at) private pure returns (uint256 word) {
        assembly ("memory-safe") {
            word := shr(224, mload(at))
        }
    }

    function _signed32(uint256 at) private pure returns (int256 word) {
        assembly ("memory-safe") {
            word := signextend(3, shr(224, mload(at)))
        }
    }
}
