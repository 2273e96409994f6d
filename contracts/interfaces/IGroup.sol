// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Statement} from "../libraries/Agreements.sol";
import {ReplayLeaf} from "../libraries/Leaves.sol";

/// @notice Where a group stands.
/// @param Forming Contributions are missing.
/// @param Ready All have contributed; a task can be taken.
/// @param Working A task is taken.
/// @param Closed The task is over for the group; evidence is taken.
/// @param Shared What there is has been credited to the members, and what still comes will be.
enum GroupState {
    None,
    Forming,
    Ready,
    Working,
    Closed,
    Shared
}

/// @notice One member, and what the group owes it.
/// @param hasPaid Whether its contribution is in.
/// @param isLiable Whether the task failed by a segment that the member answers for and signed: it is charged first.
/// @param isConvicted Whether it signed two values for one subject, or was wrong about its stage (a statement that fell in court, an
/// accusation that stands): it loses contribution and share.
/// @param absent In how many of the task's segments it was not, as `Presence` found.
/// @param credit What it can withdraw now.
/// @param due What it gets once the stake is back.
struct Position {
    address account;
    uint32 share;
    bool hasPaid;
    bool isLiable;
    bool isConvicted;
    uint32 absent;
    uint96 contribution;
    uint128 credit;
    uint128 due;
}

/// @notice Limits the members set their leader; the words of `Agreement`.
struct Limits {
    uint256 task;
    uint96 leastPrice;
    uint96 mostStake;
    uint40 formBy;
    uint40 takeBy;
    uint32 patience;
    uint32 evidenceSeconds;
    uint32 presenceRate;
}

/// @notice A trained segment as the solver registered it, which its member signed for.
/// @param run The run that the member's statement is about.
/// @param start The checkpoint before it, `startProof` its siblings under the registered root.
/// @param end The checkpoint after it.
struct Work {
    uint32 run;
    bytes32 start;
    bytes32[] startProof;
    bytes32 end;
    bytes32[] endProof;
}

/// @title IGroup
/// @notice One group: a solver's account on the market that belongs to several. It takes one task, with one stake, and shares
/// out what comes of it as its members agreed. It cannot be changed, and nobody owns it.
interface IGroup {
    event Contributed(address indexed member, uint256 amount, bool isComplete);
    event LeaderChanged(address indexed leader, address indexed before);
    event TaskTaken(uint256 indexed taskId, uint256 stake);
    event Relieved(uint256 indexed caseId, address indexed owner, address indexed leader);
    event Liable(address indexed member, uint32 segment);
    event Convicted(address indexed member, bytes32 subject, bytes32 first, bytes32 second);
    event StageConvicted(address indexed member, uint256 indexed claimId);
    event MarkedAbsent(address indexed member, uint32 segments);
    event GroupClosed(uint256 indexed taskId, uint256 loss, uint256 returning, uint256 evidenceUntil);
    event CoinCredited(address indexed member, uint256 amount, uint256 due);
    event IncomeShared(uint256 amount);
    event Dissolved();
    event Withdrawn(address indexed member, uint256 amount);

    error NotTheFactory(address caller);
    error NotAMember(address caller);
    error NotTheLeader(address caller, address leader);
    error WrongState(GroupState state);
    error WrongValue(uint256 given, uint256 expected);
    error NothingOwed(uint256 place);
    error TooLate(uint256 deadline, uint256 time);
    error TooEarly(uint256 deadline, uint256 time);
    error OutsideLimits(uint256 given, uint256 limit);
    error NotTheOwner(address caller, address owner, uint32 segment);
    error TaskRunning(uint256 taskId);
    error NotProven();
    error NobodysSegment(uint32 segment);
    error NotTheSigner(address signer, address member);
    error NoConflict();
    error NotStageClaims(address caller);
    error NotPresence(address caller);
    error CasesOpen(uint256 cases);
    error ReportsPending(uint256 reports);
    error NothingToWithdraw(address account);
    error TransferFailed(address account, uint256 amount);

    /* FORMING */

    /// @notice Pays the contribution of member `place`, exactly. Anyone may pay for it; it stays the member's.
    function contribute(uint256 place) external payable;

    /// @notice Ends a group without a task and gives contributions back: its leader at once, anyone once it is too late to
    /// form it, or to take a task.
    function dissolve() external;

    /* LEADING */

    /// @notice Leader: takes a task, for no less than `lowest` wei nor the agreed least price, with the group's stake.
    function take(uint256 taskId, uint256 lowest) external;

    /// @notice Leader: registers the proof (`Market.register`).
    function register(
        bytes32 checkpointRoot,
        bytes32 finalRoot,
        bytes32[] calldata first,
        bytes32[] calldata last,
        string calldata locations
    ) external;

    /// @notice Leader: gives the task up, for the market's forfeit, which all bear in proportion to their contributions.
    function stepDown() external;

    /// @notice Leader: says that it is there.
    function stay() external;

    /// @notice Member: becomes the leader, when the leader has done nothing for longer than agreed.
    function takeOver() external;

    /// @notice Who answers for the segment: `Court.expand` in a case on the group's training claim. A segment that is nobody's is the
    /// leader's. When no more than the court's extension is left, the leader may act for a silent owner, who then is not
    /// charged for how the case ends.
    function expand(uint256 caseId, bytes32 position, bytes32 root, bytes calldata shown) external;

    /* FAULT */

    /// @notice Shows that the case that failed the task was about a segment whose owner signed for it as it was registered.
    function blameCase(Work calldata work, bytes calldata signature) external;

    /// @notice The same for an accusation that failed the task.
    function blameAccusation(uint32 segment, address accuser, Work calldata work, bytes calldata signature) external;

    /// @notice The same for a drawn verifier's claim that stands.
    /// @param share_ Number of the verifier's share of the proof.
    /// @param place Place of the failing segment in it.
    /// @param leaf The claim's leaf, and its siblings.
    function blameRound(
        uint8 share_,
        uint32 place,
        ReplayLeaf calldata leaf,
        bytes32[] calldata proof,
        Work calldata work,
        bytes calldata signature
    ) external;

    /// @notice Shows that member `place` signed two values for one subject in one run of the task.
    function convict(
        uint256 place,
        Statement calldata first,
        bytes calldata firstSignature,
        Statement calldata second,
        bytes calldata secondSignature
    ) external;

    /// @notice Called by `StageClaims` when a case has refuted what a member signed about its stage, or an accusation of it stands: the
    /// member is convicted.
    /// @param claimId Number of the statement, or of the accusation, there.
    function convictStage(address member, uint256 claimId) external;

    /// @notice Called by `Presence` when nobody showed in time that a member took part: its share is paid for fewer segments.
    /// @param segments How many segments it was not in, beyond those of earlier calls.
    function markAbsent(address member, uint32 segments) external;

    /* SHARING OUT */

    /// @notice Anyone: the task is over for the group. Begins to take the stake that is left out of the market, and the time for
    /// evidence.
    function close() external;

    /// @notice Anyone, when the time for evidence is over and every case and every accusation about a member's stage, and every report
    /// of absence, is decided: credits what there is to the members.
    function share() external;

    /// @notice Anyone, after that: credits what has come since, above all the stake, when the market's unbonding is over.
    function collect() external;

    /// @notice Pays out the caller's credit.
    function withdraw() external returns (uint256 amount);

    /* VIEWS */

    function state() external view returns (GroupState);
    function leader() external view returns (address);
    function task() external view returns (uint256);
    function limits() external view returns (Limits memory);
    function positions() external view returns (Position[] memory);
    function ownerOf(uint32 segment) external view returns (address);
    function leaderUntil() external view returns (uint256);
    function evidenceUntil() external view returns (uint256);
    function digestOf(Statement calldata statement) external view returns (bytes32);
}
