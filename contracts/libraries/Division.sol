// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// @title Division
/// @notice How a group's coin is divided among its members. Every division gives out exactly what it was given: parts are
/// rounded down, and what does not divide goes to the first member that has a weight.
library Division {
    /// @notice Parts of `amount` in proportion to `weights`, whose sum is not zero.
    function byWeight(uint256 amount, uint256[] memory weights) internal pure returns (uint256[] memory parts) {
        uint256 sum = _sum(weights);
        parts = new uint256[](weights.length);
        uint256 rest = amount;
        for (uint256 i = 0; i < weights.length; i++) {
            parts[i] = (amount * weights[i]) / sum;
            rest -= parts[i];
        }
        for (uint256 i = 0; i < weights.length; i++) {
            if (weights[i] != 0) {
                parts[i] += rest;
                break;
            }
        }
    }

    /// @notice What each member has of the `left` wei that a loss has left of all contributions.
    ///
    /// The loss is charged to members at fault first, in proportion to their contributions, and what exceeds these to the
    /// others, in proportion to theirs. What a member without weight (a convicted one) would keep goes to the others by weight.
    /// @param contributions What each member put in.
    /// @param atFault Who is charged first.
    /// @param weights Shares of members that are not convicted, zero for the others; their sum is not zero.
    /// @param left What is left; at most the sum of the contributions.
    function afterLoss(uint256[] memory contributions, bool[] memory atFault, uint256[] memory weights, uint256 left)
        internal
        pure
        returns (uint256[] memory parts)
    {
        uint256 faulty;
        uint256 sum = _sum(contributions);
        for (uint256 i = 0; i < contributions.length; i++) {
            if (atFault[i]) faulty += contributions[i];
        }
        uint256 others = sum - faulty;
        // The others lose nothing as long as those at fault have something to lose.
        uint256 othersKeep = left < others ? left : others;
        uint256 faultyKeep = left - othersKeep;
        uint256 pot = left;
        parts = new uint256[](contributions.length);
        for (uint256 i = 0; i < contributions.length; i++) {
            if (contributions[i] == 0 || weights[i] == 0) continue;
            parts[i] = atFault[i] ? (contributions[i] * faultyKeep) / faulty : (contributions[i] * othersKeep) / others;
            pot -= parts[i];
        }
        uint256[] memory shared = byWeight(pot, weights);
        for (uint256 i = 0; i < parts.length; i++) {
            parts[i] += shared[i];
        }
    }

    function _sum(uint256[] memory values) private pure returns (uint256 sum) {
        for (uint256 i = 0; i < values.length; i++) {
            sum += values[i];
        }
    }
}
