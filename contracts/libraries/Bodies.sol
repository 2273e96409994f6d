// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Binary32} from "./Binary32.sol";
import {Transcendental} from "./Transcendental.sol";

/// @title Bodies
/// @notice The scalar bodies of operators (contracts/FORMAT.md, section 2.2): what each demands, and its value.
/// @dev Values are 32-bit patterns in a word. Every body is total: any patterns give a value, and nothing reverts.
library Bodies {
    uint256 internal constant COPY = 0x01;
    uint256 internal constant SAME = 0x0f;
    uint256 internal constant SELECT = 0x10;
    uint256 internal constant FOLD_FMA = 0x40;
    uint256 internal constant FOLD_ADD = 0x41;
    uint256 internal constant FOLD_MAX = 0x42;
    uint256 internal constant FOLD_ARGMAX = 0x43;
    uint256 internal constant FOLD_ADD_IF = 0x44;
    uint256 internal constant FOLD_IADD = 0x45;
    uint256 internal constant GATHER = 0x60;
    uint256 internal constant PERMUTE = 0x61;
    uint256 internal constant UNIFORM = 0x62;

    /// @notice Element types.
    uint256 internal constant FLOAT = 0;
    uint256 internal constant INT = 1;

    // Sets of bodies, a bit for each code.
    uint256 private constant KNOWN = 0x70000003f000003ff01fffffe;
    uint256 private constant FOLDS = 0x3f0000000000000000;
    uint256 private constant READS_FIRST = 0x10000003f000003ff01fffffe;
    uint256 private constant READS_SECOND = 0x100000011000003ff0001fcbc;
    uint256 private constant READS_THIRD = 0x100000000000010080;
    uint256 private constant GIVES_FLOAT = 0x4000000170000000001fc0ffc;
    uint256 private constant GIVES_INT = 0x200000028000003ff0002f000;
    // Operands that are floats, and those of the output's type; the others are integers, but either for `same`.
    uint256 private constant FLOAT_FIRST = 0xf0000000001fa7ffc;
    uint256 private constant FLOAT_SECOND = 0x10000000000007cbc;
    uint256 private constant FLOAT_THIRD = 0x100000000000000080;
    uint256 private constant OUTPUT_FIRST = 0x1000000000000000000000002;
    uint256 private constant OUTPUT_SECOND = 0x10000;
    uint256 private constant OUTPUT_THIRD = 0x10000;
    // Bodies with a weight other than 1.
    uint256 private constant WEIGHT_2 = 0x1000000080000000000000000;
    uint256 private constant WEIGHT_4 = 0x1800000060;
    uint256 private constant WEIGHT_8 = 0x4000000000000000000000000;
    uint256 private constant WEIGHT_16 = 0x2000000000000000000180000;
    uint256 private constant WEIGHT_24 = 0x1e00000;

    /* WHAT A BODY DEMANDS */

    /// @notice Whether the format has a body of this code.
    function isKnown(uint256 body) internal pure returns (bool) {
        return _isIn(body, KNOWN);
    }

    /// @notice Whether the body folds over reduced dimensions.
    function isFold(uint256 body) internal pure returns (bool) {
        return _isIn(body, FOLDS);
    }

    /// @notice Number of operands.
    function arity(uint256 body) internal pure returns (uint256) {
        unchecked {
            return ((READS_FIRST >> body) & 1) + ((READS_SECOND >> body) & 1) + ((READS_THIRD >> body) & 1);
        }
    }

    /// @notice Work units of one evaluation.
    function weight(uint256 body) internal pure returns (uint256) {
        if (_isIn(body, WEIGHT_2)) return 2;
        if (_isIn(body, WEIGHT_4)) return 4;
        if (_isIn(body, WEIGHT_8)) return 8;
        if (_isIn(body, WEIGHT_16)) return 16;
        if (_isIn(body, WEIGHT_24)) return 24;
        return 1;
    }

    /// @notice Whether the body can have an output of this type.
    function gives(uint256 body, uint256 outputType) internal pure returns (bool) {
        return !_isIn(body, outputType == FLOAT ? GIVES_INT : GIVES_FLOAT);
    }

    /// @notice Whether operand `number` of the body may be of type `operandType`, for this output type.
    function takes(uint256 body, uint256 outputType, uint256 number, uint256 operandType) internal pure returns (bool) {
        if (body == SAME) return true;
        (uint256 floats, uint256 outputs) = number == 0
            ? (FLOAT_FIRST, OUTPUT_FIRST)
            : number == 1 ? (FLOAT_SECOND, OUTPUT_SECOND) : (FLOAT_THIRD, OUTPUT_THIRD);
        if (_isIn(body, outputs)) return operandType == outputType;
        return operandType == (_isIn(body, floats) ? FLOAT : INT);
    }

    function _isIn(uint256 body, uint256 set) private pure returns (bool) {
        return (set >> body) & 1 == 1;
    }

    /* VALUES */

    /// @notice The accumulator of a fold before its first term.
    function startOf(uint256 body) internal pure returns (uint256) {
        return body == FOLD_MAX ? Binary32.NEGATIVE_INFINITY : 0;
    }

    /// @notice The accumulator after one more term with operands a, b, c.
    /// @param accumulator The accumulator before it; for `fold_argmax` the number of the leading term, 0 before the first.
    /// @param term The term's number.
    /// @param leader For `fold_argmax`, operand 0 at the leading term.
    function fold(uint256 body, uint256 accumulator, uint256 a, uint256 b, uint256 c, uint256 term, uint256 leader)
        internal
        pure
        returns (uint256)
    {
        if (body == FOLD_FMA) return Binary32.fma(a, b, accumulator);
        if (body == FOLD_ADD) return Binary32.add(accumulator, a);
        if (body == FOLD_MAX) return Binary32.maximum(accumulator, a);
        if (body == FOLD_ARGMAX) {
            if (term == 0) return 0;
            bool overtakes = Binary32.lt(leader, a) || (Binary32.isNaN(a) && !Binary32.isNaN(leader));
            return overtakes ? term : accumulator;
        }
        if (body == FOLD_ADD_IF) return a == b ? Binary32.add(accumulator, c) : accumulator;
        unchecked {
            return uint32(accumulator + a); // FOLD_IADD
        }
    }

    /// @notice The value of a body that neither folds nor draws, from its operands; `gather` has its value in `a`.
    function value(uint256 body, uint256 outputType, uint256 a, uint256 b, uint256 c) internal pure returns (uint256) {
        if (body == COPY || body == GATHER) return outputType == FLOAT ? Binary32.canonical(a) : a;
        if (body < 0x10) return _arithmetic(body, a, b, c);
        if (body == SELECT) {
            if (a == 0) b = c;
            return outputType == FLOAT ? Binary32.canonical(b) : b;
        }
        return body < 0x20 ? _function(body, a) : _integer(body, a, b);
    }

    function _arithmetic(uint256 body, uint256 a, uint256 b, uint256 c) private pure returns (uint256) {
        if (body == 0x02) return Binary32.add(a, b);
        if (body == 0x03) return Binary32.sub(a, b);
        if (body == 0x04) return Binary32.mul(a, b);
        if (body == 0x05) return Binary32.div(a, b);
        if (body == 0x06) return Binary32.sqrt(a);
        if (body == 0x07) return Binary32.fma(a, b, c);
        if (body == 0x08) return Binary32.neg(a);
        if (body == 0x09) return Binary32.abs(a);
        if (body == 0x0a) return Binary32.maximum(a, b);
        if (body == 0x0b) return Binary32.minimum(a, b);
        if (body == 0x0c) return _word(Binary32.eq(a, b));
        if (body == 0x0d) return _word(Binary32.lt(a, b));
        if (body == 0x0e) return _word(Binary32.le(a, b));
        return _word(a == b); // SAME
    }

    function _function(uint256 body, uint256 a) private pure returns (uint256) {
        if (body == 0x11) return Binary32.toInt32(a);
        if (body == 0x12) return Binary32.fromInt32(a);
        if (body == 0x13) return Transcendental.exp(a);
        if (body == 0x14) return Transcendental.log(a);
        if (body == 0x15) return Transcendental.tanh(a);
        if (body == 0x16) return Transcendental.erf(a);
        if (body == 0x17) return Transcendental.sin(a);
        return Transcendental.cos(a);
    }

    function _integer(uint256 body, uint256 a, uint256 b) private pure returns (uint256) {
        unchecked {
            if (body == 0x20) return uint32(a + b);
            if (body == 0x21) return uint32(a - b);
            if (body == 0x22) return uint32(a * b);
            if (body == 0x25) return a & b;
            if (body == 0x26) return a | b;
            if (body == 0x27) return a ^ b;
            int256 x = int32(uint32(a));
            int256 y = int32(uint32(b));
            if (body == 0x28) return _word(x < y);
            if (body == 0x29) return _word(x <= y);
            if (y == 0) return 0;
            // Towards minus infinity: the remainder takes the divisor's sign.
            int256 remainder = x % y;
            if (remainder != 0 && (remainder < 0) != (y < 0)) remainder += y;
            if (body == 0x24) return uint32(uint256(remainder));
            return uint32(uint256((x - remainder) / y)); // 0x23
        }
    }

    function _word(bool truth) private pure returns (uint256) {
        return truth ? 1 : 0;
    }
}
