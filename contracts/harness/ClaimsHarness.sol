// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Claim, IClaims} from "../interfaces/IClaims.sol";

/// @title ClaimsHarness
/// @notice Keeps claims for tests and measurements of the court alone: anyone may post any, and what the court reports is recorded.
contract ClaimsHarness is IClaims {
    struct Report {
        uint256 claimId;
        address challenger;
        bytes32 answerRoot;
        uint128 bond;
        uint32 closed; // how often
        bool challengerWon;
        int80 overshoot;
    }

    mapping(uint256 claimId => Claim) internal _claims;
    mapping(uint256 claimId => uint32[]) internal _segments;
    mapping(uint256 caseId => Report) public reports;
    mapping(uint256 taskId => address) public refuters;
    address public court;

    error NoClaim(uint256 claimId);
    error NotTheCourt(address sender);

    modifier onlyCourt() {
        if (msg.sender != court) revert NotTheCourt(msg.sender);
        _;
    }

    function setCourt(address court_) external {
        court = court_;
    }

    /// @param segments The segment of each leaf, in the order of leaves.
    function post(uint256 claimId, Claim calldata claim_, uint32[] calldata segments) external {
        _claims[claimId] = claim_;
        _segments[claimId] = segments;
    }

    function claim(uint256 claimId) external view returns (Claim memory found) {
        found = _claims[claimId];
        if (found.claimant == address(0)) revert NoClaim(claimId);
    }

    function segmentOf(uint256 claimId, uint32 leaf) external view returns (uint32) {
        return _segments[claimId][leaf];
    }

    function caseOpened(uint256 caseId, uint256 claimId, address challenger, bytes32 answerRoot)
        external
        payable
        onlyCourt
    {
        reports[caseId] = Report(claimId, challenger, answerRoot, uint128(msg.value), 0, false, 0);
    }

    function caseClosed(uint256 caseId, uint256, bool challengerWon, int256 overshoot) external onlyCourt {
        Report storage report = reports[caseId];
        report.closed += 1;
        report.challengerWon = challengerWon;
        report.overshoot = int80(overshoot);
    }

    function programRefuted(uint256 taskId, address refuter) external onlyCourt {
        refuters[taskId] = refuter;
    }

    /// @dev Tests post one claim a task, under the task's id.
    function programRootOf(uint256 taskId) external view returns (bytes32) {
        return _claims[taskId].programRoot;
    }
}
