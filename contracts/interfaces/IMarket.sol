// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// @notice Where a task stands. From Settled on, nothing changes any more.
enum State {
    None,
    Profiling,
    Open,
    Taken,
    Verifying,
    Settled,
    Failed,
    Unavailable,
    Unverified,
    Void,
    Refused,
    Cancelled
}

/// @notice What a submitter posts. The task's number commits to all of it.
/// @param header The program's header (FORMAT 2.4); its hash is the program's root.
/// @param graphHash Hash of the traced graph that the program is the lowering of.
/// @param lowering Version of the lowering.
/// @param dataRoot Root of the data.
/// @param initialRoot Root of the state the training starts from.
/// @param baseTask A settled task whose final state this one starts from, or zero.
/// @param taskSeed Seed of the data order and of everything random in the program.
/// @param steps Training steps.
/// @param interval Steps a segment; the last may be shorter.
/// @param exact Exact mode.
/// @param verifiers Number of verifiers, each with a share of its own.
/// @param perVerifier Segments of a share.
/// @param profileSegments Segments of the profile (tolerant mode).
/// @param lowestReward Price the auction begins with, in wei.
/// @param highestReward Price it ends with, in wei.
/// @param verifierFee Fee of every verifier, in wei.
/// @param profilerFee Fee of the profiler, in wei (tolerant mode).
/// @param auctionSeconds Duration of the auction.
/// @param trainSeconds Time from taking the task to registering the proof.
/// @param locations Where the files are.
struct Posting {
    bytes header;
    bytes32 graphHash;
    uint16 lowering;
    bytes32 dataRoot;
    bytes32 initialRoot;
    uint256 baseTask;
    uint64 taskSeed;
    uint32 steps;
    uint32 interval;
    bool exact;
    uint8 verifiers;
    uint8 perVerifier;
    uint8 profileSegments;
    uint96 lowestReward;
    uint96 highestReward;
    uint96 verifierFee;
    uint96 profilerFee;
    uint32 auctionSeconds;
    uint32 trainSeconds;
    string locations;
}

/// @notice A task as the chain keeps it.
/// @param price The auction price once taken.
/// @param since When the task was opened, taken or opened again.
/// @param replayWork Units of work of one verifier's share.
/// @param profileWork Units of work of the profile.
struct Task {
    address submitter;
    uint64 taskSeed;
    uint32 steps;
    address solver;
    uint32 interval;
    uint32 segments;
    State state;
    bool exact;
    uint8 relists;
    uint8 verifiers;
    uint96 lowestReward;
    uint96 highestReward;
    uint32 auctionSeconds;
    uint32 trainSeconds;
    uint96 price;
    uint96 verifierFee;
    uint40 since;
    uint8 perVerifier;
    uint8 profileSegments;
    uint96 profilerFee;
    uint80 replayWork;
    uint80 profileWork;
    bytes32 programRoot;
    bytes32 dataRoot;
    bytes32 initialRoot;
    bytes32 checkpointRoot;
    bytes32 finalRoot;
    bytes32 thresholdRoot;
}

/// @notice What the other contracts need of a task, in one call.
struct Terms {
    address submitter;
    address solver;
    State state;
    bool exact;
    uint32 segments;
    uint32 interval;
    uint8 verifiers;
    uint8 perVerifier;
    uint8 profileSegments;
    uint96 highestReward;
    uint96 price;
    uint96 verifierFee;
    uint96 profilerFee;
    uint80 replayWork;
    uint80 profileWork;
}

/// @title IMarket
/// @notice The life of a task up to the registration of its proof, and how it ends. Escrow and stakes lie in `Stakes`.
interface IMarket {
    /* EVENTS */

    event Submitted(
        uint256 indexed taskId, address indexed submitter, bytes32 programRoot, uint32 segments, uint80 replayWork, uint80 profileWork, Posting posting
    );
    event Opened(uint256 indexed taskId, bytes32 thresholdRoot, uint256 lowestReward, uint256 highestReward, uint256 since);
    event Taken(uint256 indexed taskId, address indexed solver, uint256 price, uint256 stake, uint256 deadline);
    event SteppedDown(uint256 indexed taskId, address indexed solver, uint256 forfeit, bool late);
    event Registered(
        uint256 indexed taskId, address indexed solver, bytes32 checkpointRoot, bytes32 finalRoot, string locations
    );
    event Finished(uint256 indexed taskId, State state, address indexed finder, uint256 finderShare);

    /* ERRORS */

    error NotAModule(address caller);
    error NotTheSubmitter(address caller, address submitter);
    error NotTheSolver(address caller, address solver);
    error WrongState(uint256 taskId, State state);
    error WrongValue(uint256 given, uint256 expected);
    error NotAProvenBase(uint256 baseTask, State state, bytes32 finalRoot);
    error PriceTooLow(uint256 price, uint256 wanted);
    error TooFewVerifiers(uint256 eligible, uint256 needed);
    error StakeTooLow(address solver, uint256 needed);
    error OwnTask(address submitter);
    error AuctionOver(uint256 end, uint256 time);
    error TooLate(uint256 deadline, uint256 time);
    error NotLate(uint256 deadline, uint256 time);

    /* SUBMITTING */

    /// @notice Posts a task and pays its escrow: highest reward, fees, draw bounties and jackpot tax, as `escrowOf` says.
    /// @return taskId Hash of the chain, this contract, the submitter, its count of tasks, and the posting.
    function submit(Posting calldata posting) external payable returns (uint256 taskId);

    /// @notice What a posting's escrow comes to, in wei.
    function escrowOf(Posting calldata posting) external view returns (uint256);

    /// @notice Lowest fee of a round with so much work, in wei.
    function lowestFee(uint256 work) external view returns (uint256);

    /* THE AUCTION */

    /// @notice What a solver who takes the task now gets.
    function priceOf(uint256 taskId) external view returns (uint256);

    /// @notice What a solver has to stake: more than all fees due if it fails.
    function stakeOf(uint256 taskId) external view returns (uint256);

    /// @notice Takes a task for the price of this moment and locks the caller's stake.
    /// @param lowest The caller does not work for less.
    function take(uint256 taskId, uint256 lowest) external;

    /// @notice The solver gives the task up before registering, for a fixed forfeit.
    function stepDown(uint256 taskId) external;

    /// @notice Takes the task from a solver that did not register in time. Anyone may call.
    function late(uint256 taskId) external;

    /// @notice The submitter withdraws an open task.
    function cancel(uint256 taskId) external;

    /// @notice Ends a task that nobody took. Anyone may call.
    function expire(uint256 taskId) external;

    /* REGISTERING */

    /// @notice The solver posts its proof of learning. First and last checkpoint are opened: the first is the task's initial
    /// state. From here on the solver can neither change nor withdraw anything.
    /// @param first Siblings of checkpoint 0.
    /// @param last Siblings of the last checkpoint.
    function register(
        uint256 taskId,
        bytes32 checkpointRoot,
        bytes32 finalRoot,
        bytes32[] calldata first,
        bytes32[] calldata last,
        string calldata locations
    ) external;

    /* CALLED BY THE OTHER CONTRACTS */

    /// @notice A profile stands and passed: the task is open for solvers.
    function open(uint256 taskId, bytes32 thresholdRoot) external;

    /// @notice All checks passed.
    function settled(uint256 taskId) external;

    /// @notice The proof does not hold, or a demanded chunk was not served: the solver loses its stake.
    /// @param finder Who showed it; gets the finders' part at once. Zero: the part stays in escrow for the rounds that found it.
    /// @return finders The finders' part, in wei.
    function failed(uint256 taskId, address finder) external returns (uint256 finders);

    /// @notice Nobody could verify the task (`unavailable`: because the files were not to be had, which costs a solver a forfeit).
    function abandoned(uint256 taskId, bool unavailable) external;

    /// @notice The profile stands and says that the task is not verifiable in tolerant mode.
    function refused(uint256 taskId) external;

    /// @notice The program was refuted.
    /// @return isLive Whether the task was still running; otherwise nothing happened.
    function refuted(uint256 taskId, address refuter) external returns (bool isLive);

    /// @notice Takes a charge for clock extensions from the solver's stake.
    function chargeSolver(uint256 taskId, uint256 charge) external;

    /* VIEWS */

    /// @notice The task as it stands.
    function taskOf(uint256 taskId) external view returns (Task memory);

    /// @notice State of a task.
    function stateOf(uint256 taskId) external view returns (State);

    /// @notice What the other contracts need of a task.
    function termsOf(uint256 taskId) external view returns (Terms memory);

    /// @notice Root of a task's program.
    function programRootOf(uint256 taskId) external view returns (bytes32);

    /// @notice Root of a task's checkpoints.
    function checkpointRootOf(uint256 taskId) external view returns (bytes32);

    /// @notice Jackpot tax of one round of the task, in wei.
    function taxOf(uint256 taskId) external view returns (uint256);

    /// @notice Least exponent e with work <= 2^e.
    function exponentOf(uint256 work) external pure returns (uint256 exponent);
}
