// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Bodies} from "../libraries/Bodies.sol";
import {Context, Operator, Operators} from "../libraries/Operators.sol";

/// @title OperatorsHarness
/// @notice For tests and benchmarks only, never deployed with the market: runs the operators library over whole tensors.
/// @dev Tensors are packed big-endian words of four bytes, one tensor for each operand that is opened (others may be empty).
contract OperatorsHarness {
    error PositionOutside(uint256 operand, uint256 position, uint256 length);

    /// @notice All elements of an operator's output.
    function output(bytes calldata record, bytes[] calldata tensors, Context calldata context)
        external
        pure
        returns (bytes memory words)
    {
        Operator memory operator = Operators.decode(record);
        uint256 elements = Operators.elementsOf(operator);
        uint256 terms = Operators.termsOf(operator);
        words = new bytes(4 * elements);
        for (uint256 element = 0; element < elements; ++element) {
            uint32 bits = 0;
            for (uint256 term = 0; term < terms; ++term) {
                bits = _next(operator, tensors, context, element, term, bits);
            }
            _store(words, element, bits);
        }
    }

    /// @notice The accumulator of one element after each of its terms.
    function partialSums(bytes calldata record, bytes[] calldata tensors, Context calldata context, uint256 element)
        external
        pure
        returns (bytes memory words)
    {
        Operator memory operator = Operators.decode(record);
        uint256 terms = Operators.termsOf(operator);
        words = new bytes(4 * terms);
        uint32 bits = 0;
        for (uint256 term = 0; term < terms; ++term) {
            bits = _next(operator, tensors, context, element, term, bits);
            _store(words, term, bits);
        }
    }

    /// @notice Gas of decoding the record, and of one element or term with its operands' positions.
    function measure(
        bytes calldata record,
        bytes[] calldata tensors,
        Context calldata context,
        uint256 element,
        uint256 term,
        uint32 previous
    ) external view returns (uint256 decoding, uint256 evaluating) {
        uint256 before = gasleft();
        Operator memory operator = Operators.decode(record);
        decoding = before - gasleft();
        before = gasleft();
        _next(operator, tensors, context, element, term, previous);
        evaluating = before - gasleft();
    }

    function shapeOf(bytes calldata record) external pure returns (uint8 outputType, uint256 elements, uint256 terms) {
        return Operators.shapeOf(record);
    }

    function workOf(bytes calldata record) external pure returns (uint256) {
        return Operators.workOf(Operators.decode(record));
    }

    /// @notice Whether each record, as operator of that number, is well-formed under one header and reads only what it may. `sourceTypes` and `sourceCounts`
    /// say, four operands a record, what the tensor or operator that an operand names really is.
    function areWellFormed(
        bytes[] calldata records,
        uint8 role,
        uint256[] calldata numbers,
        uint32 states,
        uint32 data,
        uint32 constants,
        uint8[] calldata sourceTypes,
        uint256[] calldata sourceCounts
    ) external pure returns (bool[] memory answers) {
        answers = new bool[](records.length);
        for (uint256 i = 0; i < records.length; ++i) {
            answers[i] = Operators.isWellFormed(records[i], role, numbers[i], states, data, constants);
            if (!answers[i]) continue;
            Operator memory operator = Operators.decode(records[i]);
            for (uint256 j = 0; j < operator.operands.length; ++j) {
                uint256 source = operator.operands[j].source;
                bool isOpened = source != Operators.IMMEDIATE && source != Operators.STEP && source != Operators.INDEX
                    && source != Operators.THRESHOLD;
                if (isOpened && !Operators.accepts(operator, j, sourceTypes[4 * i + j], sourceCounts[4 * i + j])) {
                    answers[i] = false;
                }
            }
        }
    }

    /// @dev The next accumulator, or the element.
    function _next(
        Operator memory operator,
        bytes[] calldata tensors,
        Context calldata context,
        uint256 element,
        uint256 term,
        uint32 previous
    ) private pure returns (uint32) {
        uint32[4] memory values = [uint32(0), 0, 0, 0];
        int256 gathered = 0;
        // Backwards: what operand 1 of a gather says decides where operand 0 is read.
        for (uint256 i = operator.operands.length; i != 0;) {
            --i;
            values[i] = _value(operator, tensors, context, i, element, term, gathered);
            gathered = int32(values[i]);
        }
        if (operator.body == Bodies.FOLD_ARGMAX) {
            values[1] = _value(operator, tensors, context, 0, element, previous, 0);
        }
        return Operators.evaluate(operator, values, previous, element, term, context);
    }

    function _value(
        Operator memory operator,
        bytes[] calldata tensors,
        Context calldata context,
        uint256 number,
        uint256 element,
        uint256 term,
        int256 gathered
    ) private pure returns (uint32) {
        (bool opened, uint32 bits, uint256 position) =
            Operators.operand(operator, number, element, term, context, gathered);
        if (!opened) return bits;
        bytes calldata tensor = tensors[number];
        if (position >= tensor.length / 4) revert PositionOutside(number, position, tensor.length);
        return uint32(bytes4(tensor[4 * position:4 * position + 4]));
    }

    function _store(bytes memory words, uint256 i, uint32 bits) private pure {
        assembly ("memory-safe") {
            let at := add(add(words, 32), mul(4, i))
            // Words are written in order: what follows this one is overwritten later, or lies in the padding.
            mstore(at, or(shl(224, bits), shr(32, shl(32, mload(at)))))
        }
    }
}
