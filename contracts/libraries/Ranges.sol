// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// @title Ranges
/// @notice Refuses a number out of bounds in what is fixed once and for all: parameters, postings, agreements.
library Ranges {
    error OutOfRange(string what, uint256 given, uint256 lowest, uint256 highest);

    /// @notice Reverts unless `lowest <= given <= highest`.
    /// @param what Name of the number, for the error.
    function check(string memory what, uint256 given, uint256 lowest, uint256 highest) internal pure {
        if (given < lowest || given > highest) revert OutOfRange(what, given, lowest, highest);
    }
}
