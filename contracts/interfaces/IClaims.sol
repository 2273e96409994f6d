// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// @notice What a claim is about. Formats: contracts/FORMAT.md, section 3.
enum ClaimKind {
    Replay,
    Profile,
    Training,
    Stage
}

/// @notice Everything about a claim that does not depend on the disputed leaf. Fixed from the moment a case can be opened.
/// @param kind What is claimed.
/// @param claimant Who answers for it; the court lets only this account, or its delegate, expand.
/// @param root Root of the claim's tree.
/// @param leaves Number of leaves of that tree.
/// @param programRoot Root of the task's program (FORMAT 2.4), in a stage claim of the stage's.
/// @param dataRoot Root of the task's data, in a stage claim of the stage's.
/// @param initialRoot State root the task starts from (a stage claim: the stage, its segment).
/// @param checkpointRoot Root of the solver's checkpoint tree (zero for a profile and a stage claim).
/// @param thresholdRoot Root of the task's threshold vector (zero in exact mode and for a profile claim).
/// @param segments Number of segments of the task.
/// @param interval Steps a segment; the last one may be shorter.
/// @param steps Steps of the task.
/// @param taskSeed Seed of the data order and of everything random in the program.
/// @param drawSeed Seed of the trace positions.
/// @param exact Whether the claim is to be true bit for bit: the task is in exact mode, or the claim is about a stage.
struct Claim {
    ClaimKind kind;
    address claimant;
    bytes32 root;
    uint32 leaves;
    bytes32 programRoot;
    bytes32 dataRoot;
    bytes32 initialRoot;
    bytes32 checkpointRoot;
    bytes32 thresholdRoot;
    uint32 segments;
    uint32 interval;
    uint32 steps;
    uint64 taskSeed;
    uint64 drawSeed;
    bool exact;
}

/// @notice The court's view of whoever keeps claims: `Claims` for the market's, `StageClaims` for those among a group's members.
interface IClaims {
    /// @notice The claim as it is to be judged. Reverts if it does not exist.
    function claim(uint256 claimId) external view returns (Claim memory);

    /// @notice The number of the segment that leaf `leaf` of the claim is about.
    function segmentOf(uint256 claimId, uint32 leaf) external view returns (uint32);

    /// @notice Called by the court when a case is opened. Reverts unless the claim is open to cases now.
    /// Claims are opened to the court, and answers made known with their leaves, by publishing them at the claims contract first.
    /// The claims contract takes the bond (`msg.value` goes with the call) and keeps it until `caseClosed`.
    /// @param answerRoot The claim the challenger says is the true one (zero for a training or a stage claim); it takes the claim's place
    /// if the challenger wins.
    function caseOpened(uint256 caseId, uint256 claimId, address challenger, bytes32 answerRoot) external payable;

    /// @notice Called by the court exactly once for every case opened.
    /// @param challengerWon Whether the claim was refuted in this case.
    /// @param overshoot Charge, in wei, on the challenger's (if positive) or the claimant's (if negative) bond for clock extensions used.
    function caseClosed(uint256 caseId, uint256 claimId, bool challengerWon, int256 overshoot) external;

    /// @notice Called by the court when a task's program was shown not to be well-formed.
    function programRefuted(uint256 taskId, address refuter) external;

    /// @notice The program root of a task, for refutation.
    function programRootOf(uint256 taskId) external view returns (bytes32);
}
