// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Binary32} from "../libraries/Binary32.sol";
import {Permutation} from "../libraries/Permutation.sol";
import {Philox} from "../libraries/Philox.sol";
import {Transcendental} from "../libraries/Transcendental.sol";

/// @title Binary32Harness
/// @notice For tests and benchmarks only, never deployed with the market: applies the scalar operations to packed arrays of
/// operands, so that one call checks thousands of cases, and measures their gas.
/// @dev Operations go by the body codes of contracts/FORMAT.md, and 0x80 for a Philox word. Operands and results are big-endian
/// words of four bytes. Of six and seven words, the first two are a seed and the next two a step (of 64 bits, the high word first);
/// then follow stream and element, or zero, position and count, of a permutation whose epoch is the step.
contract Binary32Harness {
    error UnknownOperation(uint256 operation);
    error OperandsIncomplete(uint256 length, uint256 cellSize);

    /// @notice Result by result, `operation` applied to the consecutive groups of operands.
    function evaluate(uint256 operation, bytes calldata operands) external pure returns (bytes memory results) {
        (function(uint256, uint256, uint256) pure returns (uint256) apply_, uint256 arity) = _select(operation);
        uint256 count = _count(operands, arity);
        results = new bytes(4 * count);
        for (uint256 i = 0; i < count; i++) {
            (uint256 a, uint256 b, uint256 c) = _load(operands, i, arity);
            uint256 result = apply_(a, b, c);
            assembly ("memory-safe") {
                // The bytes after the word are overwritten by the next word, or lie in the array's padding.
                let at := add(add(results, 32), mul(4, i))
                mstore(at, or(shl(224, result), shr(32, shl(32, mload(at)))))
            }
        }
    }

    /// @notice Smallest, summed and largest gas of `operation` over the groups of operands, each with its call and return,
    /// without loading the operands and without the measuring itself.
    function measure(uint256 operation, bytes calldata operands)
        external
        view
        returns (uint256 smallest, uint256 sum, uint256 largest, uint256 count)
    {
        (function(uint256, uint256, uint256) pure returns (uint256) apply_, uint256 arity) = _select(operation);
        count = _count(operands, arity);
        smallest = type(uint256).max;
        for (uint256 i = 0; i < count; i++) {
            (uint256 a, uint256 b, uint256 c) = _load(operands, i, arity);
            uint256 before = gasleft();
            uint256 empty = before - gasleft();
            before = gasleft();
            uint256 result = apply_(a, b, c);
            uint256 used = before - gasleft();
            // `result` is kept alive, so that the call is not optimised away.
            used = result > type(uint32).max ? 0 : used - empty;
            sum += used;
            if (used < smallest) smallest = used;
            if (used > largest) largest = used;
        }
    }

    /// @notice The sequential fold S = fma(a, b, S) from +0 over pairs of operands, its gas without loading them.
    function measureFold(bytes calldata operands) external view returns (uint256 result, uint256 sum, uint256 count) {
        count = _count(operands, 2);
        for (uint256 i = 0; i < count; i++) {
            (uint256 a, uint256 b,) = _load(operands, i, 2);
            uint256 before = gasleft();
            result = Binary32.fma(a, b, result);
            sum += before - gasleft();
        }
    }

    function _select(uint256 operation)
        private
        pure
        returns (function(uint256, uint256, uint256) pure returns (uint256), uint256 arity)
    {
        if (operation == 0x02) return (_add, 2);
        if (operation == 0x03) return (_sub, 2);
        if (operation == 0x04) return (_mul, 2);
        if (operation == 0x05) return (_div, 2);
        if (operation == 0x06) return (_sqrt, 1);
        if (operation == 0x07) return (Binary32.fma, 3);
        if (operation == 0x08) return (_neg, 1);
        if (operation == 0x09) return (_abs, 1);
        if (operation == 0x0a) return (_maximum, 2);
        if (operation == 0x0b) return (_minimum, 2);
        if (operation == 0x0c) return (_eq, 2);
        if (operation == 0x0d) return (_lt, 2);
        if (operation == 0x0e) return (_le, 2);
        if (operation == 0x11) return (_toInt32, 1);
        if (operation == 0x12) return (_fromInt32, 1);
        if (operation == 0x13) return (_exp, 1);
        if (operation == 0x14) return (_log, 1);
        if (operation == 0x15) return (_tanh, 1);
        if (operation == 0x16) return (_erf, 1);
        if (operation == 0x17) return (_sin, 1);
        if (operation == 0x18) return (_cos, 1);
        if (operation == 0x61) return (_permute, 7);
        if (operation == 0x62) return (_uniform, 6);
        if (operation == 0x80) return (_philox, 6);
        revert UnknownOperation(operation);
    }

    function _count(bytes calldata operands, uint256 arity) private pure returns (uint256) {
        if (operands.length % (4 * arity) != 0) revert OperandsIncomplete(operands.length, 4 * arity);
        return operands.length / (4 * arity);
    }

    function _load(bytes calldata operands, uint256 i, uint256 arity)
        private
        pure
        returns (uint256 a, uint256 b, uint256 c)
    {
        assembly ("memory-safe") {
            let word := calldataload(add(operands.offset, mul(i, mul(4, arity))))
            switch gt(arity, 3)
            case 0 {
                a := shr(224, word)
                b := and(shr(192, word), 0xffffffff)
                c := and(shr(160, word), 0xffffffff)
            }
            default {
                a := shr(192, word)
                b := and(shr(128, word), 0xffffffffffffffff)
                c := and(shr(32, word), 0xffffffffffffffffffffffff)
            }
        }
    }

    function _add(uint256 a, uint256 b, uint256) private pure returns (uint256) {
        return Binary32.add(a, b);
    }

    function _sub(uint256 a, uint256 b, uint256) private pure returns (uint256) {
        return Binary32.sub(a, b);
    }

    function _mul(uint256 a, uint256 b, uint256) private pure returns (uint256) {
        return Binary32.mul(a, b);
    }

    function _div(uint256 a, uint256 b, uint256) private pure returns (uint256) {
        return Binary32.div(a, b);
    }

    function _sqrt(uint256 a, uint256, uint256) private pure returns (uint256) {
        return Binary32.sqrt(a);
    }

    function _neg(uint256 a, uint256, uint256) private pure returns (uint256) {
        return Binary32.neg(a);
    }

    function _abs(uint256 a, uint256, uint256) private pure returns (uint256) {
        return Binary32.abs(a);
    }

    function _maximum(uint256 a, uint256 b, uint256) private pure returns (uint256) {
        return Binary32.maximum(a, b);
    }

    function _minimum(uint256 a, uint256 b, uint256) private pure returns (uint256) {
        return Binary32.minimum(a, b);
    }

    function _eq(uint256 a, uint256 b, uint256) private pure returns (uint256) {
        return Binary32.eq(a, b) ? 1 : 0;
    }

    function _lt(uint256 a, uint256 b, uint256) private pure returns (uint256) {
        return Binary32.lt(a, b) ? 1 : 0;
    }

    function _le(uint256 a, uint256 b, uint256) private pure returns (uint256) {
        return Binary32.le(a, b) ? 1 : 0;
    }

    function _toInt32(uint256 a, uint256, uint256) private pure returns (uint256) {
        return Binary32.toInt32(a);
    }

    function _fromInt32(uint256 a, uint256, uint256) private pure returns (uint256) {
        return Binary32.fromInt32(a);
    }

    function _exp(uint256 a, uint256, uint256) private pure returns (uint256) {
        return Transcendental.exp(a);
    }

    function _log(uint256 a, uint256, uint256) private pure returns (uint256) {
        return Transcendental.log(a);
    }

    function _tanh(uint256 a, uint256, uint256) private pure returns (uint256) {
        return Transcendental.tanh(a);
    }

    function _erf(uint256 a, uint256, uint256) private pure returns (uint256) {
        return Transcendental.erf(a);
    }

    function _sin(uint256 a, uint256, uint256) private pure returns (uint256) {
        return Transcendental.sin(a);
    }

    function _cos(uint256 a, uint256, uint256) private pure returns (uint256) {
        return Transcendental.cos(a);
    }

    function _permute(uint256 seed, uint256 epoch, uint256 positionAndCount) private pure returns (uint256) {
        return Permutation.permute(
            seed, epoch, (positionAndCount >> 32) & type(uint32).max, positionAndCount & type(uint32).max
        );
    }

    function _uniform(uint256 seed, uint256 step, uint256 streamAndElement) private pure returns (uint256) {
        return Philox.uniform(seed, step, streamAndElement >> 64, (streamAndElement >> 32) & type(uint32).max);
    }

    function _philox(uint256 seed, uint256 step, uint256 streamAndElement) private pure returns (uint256) {
        return Philox.word(seed, step, streamAndElement >> 64, (streamAndElement >> 32) & type(uint32).max);
    }
}
