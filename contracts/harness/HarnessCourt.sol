// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {IClaims} from "../interfaces/IClaims.sol";

/// @title HarnessCourt
/// @notice Stands in for the court in tests of the market: opens and closes cases, and refutes programs, on command.
contract HarnessCourt {
    IClaims public immutable CLAIMS;
    uint256 public cases;

    constructor(IClaims claims) {
        CLAIMS = claims;
    }

    /// @notice Opens a case in the caller's name.
    function open(uint256 claimId, bytes32 answerRoot) external payable returns (uint256 caseId) {
        caseId = uint256(keccak256(abi.encode(address(this), cases++)));
        CLAIMS.caseOpened{value: msg.value}(caseId, claimId, msg.sender, answerRoot);
    }

    /// @notice Closes a case.
    function close(uint256 caseId, uint256 claimId, bool challengerWon, int256 overshoot) external {
        CLAIMS.caseClosed(caseId, claimId, challengerWon, overshoot);
    }

    /// @notice Refutes a program.
    function refute(uint256 taskId, address refuter) external {
        CLAIMS.programRefuted(taskId, refuter);
    }
}
