// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {State} from "./IMarket.sol";
import {Checkpoint, ProfileLeaf, ReplayLeaf} from "../libraries/Leaves.sol";

/// @notice Where the work on one share of a task stands.
enum ShareState {
    None,
    Awaiting,
    Working,
    Volunteers,
    Released
}

/// @notice Where a round (one verifier's work on one share) stands. Void: replaced, or ended with its task.
enum RoundState {
    None,
    Drawn,
    Committed,
    Shown,
    Disclosed,
    Void
}

/// @notice Why a round was voided.
enum Fault {
    Silent,
    Leaked,
    ShownTheWrongOne,
    SteppedBack
}

/// @notice One share of a task's segments. One storage slot.
/// @param drawBlock Block whose hash decides the next draw.
/// @param snapshot Block at whose end the verifiers' roll counts.
/// @param deadline End of the wait for volunteers.
/// @param attempt Number of the present attempt, from 0.
/// @param stepBacks Verifiers that stepped back from the profile, or (share 0 only) from any share of the proof.
/// @param isCharged Whether the attempt before paid for the next draw.
/// @param segmentSeed Seed of the task's segments (share 0 only), or zero.
struct Share {
    uint48 drawBlock;
    uint48 snapshot;
    uint40 deadline;
    uint8 attempt;
    uint8 stepBacks;
    ShareState state;
    bool isCharged;
    uint64 segmentSeed;
}

/// @notice One verifier's work on one share.
/// @param drawSeed Seed of the trace positions.
/// @param commitment Hash of the commitments; from `show` on, hash of all that was shown.
/// @param lotteryBlock Block whose hash decides which claim is shown.
/// @param deadline Until when the verifier has to commit (Drawn) or to disclose (Shown).
/// @param answersUntil Until when answers can be committed.
/// @param revealsUntil Until when they can be revealed.
struct Round {
    uint256 taskId;
    address verifier;
    uint64 drawSeed;
    uint8 share;
    uint8 attempt;
    RoundState state;
    bytes32 commitment;
    uint48 lotteryBlock;
    uint40 deadline;
    uint40 answersUntil;
    uint40 revealsUntil;
}

/// @notice What a verifier commits to.
/// @param secret Hash of its secret r, the order of the claims, itself and the round.
/// @param first Hash of one claim's root and its salt.
/// @param second Hash of the other claim's root and its salt.
struct Hidden {
    bytes32 secret;
    bytes32 first;
    bytes32 second;
}

/// @notice What a verifier showed.
/// @param seed The lottery's seed.
/// @param index Which of the two claims (0 or 1).
/// @param root Root of that claim.
/// @param thresholds Root of the threshold vector (profile), else zero.
/// @param passes Whether the proof, or the profile, passes by this claim.
struct Shown {
    Hidden hidden;
    bytes32 seed;
    uint8 index;
    bytes32 root;
    bytes32 thresholds;
    bool passes;
}

/// @notice What turns the derived false claim back into the true one.
/// @param prefix The changed leaf's record up to its trace root, which is its last field.
/// @param trace The true trace root.
/// @param proof Siblings of that leaf in the claim's tree.
struct Derivation {
    bytes prefix;
    bytes32 trace;
    bytes32[] proof;
}

/// @title IVerification
/// @notice Rounds of drawn verifiers: draw, commit, show, disclose, and every way out of them. A profile is a round of its own
/// before the auction.
interface IVerification {
    /* EVENTS */

    event DrawDue(uint256 indexed taskId, uint8 indexed share, uint8 attempt, uint256 drawBlock, uint256 snapshot);
    event Drawn(
        uint256 indexed taskId,
        uint8 indexed share,
        address indexed verifier,
        uint256 roundId,
        uint8 attempt,
        uint64 drawSeed,
        uint32[] segments,
        uint256 deadline
    );
    event NobodyDrawn(uint256 indexed taskId, uint8 indexed share, uint8 attempt);
    event VolunteersWanted(uint256 indexed taskId, uint8 indexed share, uint256 deadline);
    event Committed(uint256 indexed roundId, address indexed verifier, Hidden hidden, uint256 lotteryBlock, uint256 showUntilBlock);
    event ReplayShown(
        uint256 indexed roundId, address indexed verifier, Shown shown, ReplayLeaf[] leaves, uint256 answersUntil, uint256 revealsUntil, uint256 discloseUntil
    );
    event ProfileShown(
        uint256 indexed roundId, address indexed verifier, Shown shown, ProfileLeaf[] leaves, uint256 answersUntil, uint256 revealsUntil, uint256 discloseUntil
    );
    event Disclosed(
        uint256 indexed roundId, address indexed verifier, bool forced, bytes32 root, bool passes, bytes32 secret, bytes32 trueTrace, uint256 disputeUntil
    );
    event Voided(uint256 indexed roundId, address indexed verifier, Fault fault, uint256 lost);

    /* ERRORS */

    error NotAModule(address caller);
    error NotTheVerifier(address caller, address verifier);
    error WrongShareState(uint256 taskId, uint8 share, ShareState state);
    error WrongRoundState(uint256 roundId, RoundState state);
    error TaskEnded(uint256 taskId, State state);
    error SeedNotKnown(uint256 blockNumber, uint256 current);
    error TooLate(uint256 deadline, uint256 time);
    error TooEarly(uint256 until, uint256 time);
    error NotEligible(address account);
    error NotTheCommitment(bytes32 given, bytes32 expected);
    error NotDerived(bytes32 found, bytes32 expected);
    error AnswersClosed(uint256 roundId);
    error AnswersOpen(uint256 roundId);
    error LeakNotCommitted(bytes32 commitment, uint256 blockNumber);
    error WrongIndex(uint8 index);
    error ChargesTooLow(uint256 charge, uint256 bounty);
    error WindowTooLong(uint256 blocks);

    /* DRAWING */

    /// @notice A tolerant task was submitted: its profiler is to be drawn.
    function beginProfile(uint256 taskId) external;

    /// @notice A proof was registered: its segments and verifiers are to be drawn.
    function beginReplay(uint256 taskId, uint8 verifiers) external;

    /// @notice Carries out a draw that is due, for the bounty. If its seed was missed, it is due again some blocks from now, at a
    /// block whose hash nobody knows yet, with the same snapshot.
    function draw(uint256 taskId, uint8 number) external;

    /// @notice Serves a share that waits for volunteers.
    function volunteer(uint256 taskId, uint8 number) external;

    /// @notice Ends a task for which nobody volunteered in time. Anyone may call.
    function giveUp(uint256 taskId, uint8 number) external;

    /* COMMITTING AND SHOWING */

    /// @notice The drawn verifier commits to its secret and to two claims in hidden order. Whistleblowers join until the
    /// lottery's block.
    function commit(uint256 roundId, Hidden calldata hidden) external;

    /// @notice The verifier shows the replay claim that the lottery on its secret demands.
    /// @param index Which of the two it is (0: `hidden.first`).
    /// @param salt The salt of that one.
    /// @param leaves The claim, in the order of the drawn segments.
    /// @param checkpoints The solver's checkpoints after these segments, opened.
    function showReplay(
        uint256 roundId,
        Hidden calldata hidden,
        uint8 index,
        bytes32 salt,
        ReplayLeaf[] calldata leaves,
        Checkpoint[] calldata checkpoints
    ) external;

    /// @notice The profiler shows the profile claim that the lottery on its secret demands.
    function showProfile(
        uint256 roundId,
        Hidden calldata hidden,
        uint8 index,
        bytes32 salt,
        ProfileLeaf[] calldata leaves
    ) external;

    /// @notice Discloses the secret and the order of the claims, once answers are in. If the lottery had forced the derived false
    /// claim, the true one takes its place. Whoever knows the secret may call.
    /// @param secret r.
    /// @param order Which of the two claims was the true one.
    /// @param shown What was shown, as in the event.
    /// @param derivation How the false claim was derived (forced rounds; else ignored).
    function disclose(
        uint256 roundId,
        bytes32 secret,
        uint8 order,
        Shown calldata shown,
        Derivation calldata derivation
    ) external;

    /// @notice What a verifier commits to as its secret.
    function secretHash(bytes32 secret, uint8 order, address verifier, uint256 roundId) external pure returns (bytes32);

    /// @notice Salt of the claim at place `index` (0 or 1) of a round's two: known to whoever knows the secret.
    function saltOf(bytes32 secret, uint256 roundId, uint8 index) external pure returns (bytes32);

    /// @notice Whether the lottery forces the verifier with this secret to show the false claim.
    function isForced(bytes32 secret, bytes32 seed) external view returns (bool);

    /* WAYS OUT */

    /// @notice Voids a round whose verifier was silent. Anyone may call.
    function timeout(uint256 roundId) external;

    /// @notice The drawn verifier cannot fetch the files, or does not want to serve: it pays a small charge, and one more
    /// verifier is drawn. The charge goes to the next one that can work. Too many who step back from a proof end its task.
    function stepBack(uint256 roundId) external;

    /// @notice What stepping back costs: a part of a seat, or of the task's price where that is more, so that ending dear tasks
    /// by stepping back on purpose is dear; at most what silence costs.
    /// @param price The auction price, zero before the auction.
    function stepBackCharge(uint256 price) external view returns (uint256 charge);

    /// @notice First step of bringing a leaked secret: commits to it, so that nobody can take the bounty from the one who brings it.
    /// @param commitment keccak256(abi.encode(secret, caller, round)).
    function commitLeak(bytes32 commitment) external;

    /// @notice Second step, in a later block, until answers close: voids the round for a bounty from the verifier's stake.
    function leak(uint256 roundId, bytes32 secret, uint8 order, Hidden calldata hidden) external;

    /// @notice The same once the claim is shown.
    function leakShown(uint256 roundId, bytes32 secret, uint8 order, Shown calldata shown) external;

    /* CALLED BY THE SETTLEMENT */

    /// @notice Marks a share as released. Reverts if it was.
    /// @return roundId The round at work on it, or zero.
    function markReleased(uint256 taskId, uint8 number) external returns (uint256 roundId);

    /// @notice Voids a round that ends with its task.
    function markVoid(uint256 roundId) external;

    /* VIEWS */

    /// @notice Number of the share that is the profile.
    // solhint-disable-next-line func-name-mixedcase
    function PROFILE() external view returns (uint8);

    /// @notice Number of a round: the hash of its task, share and attempt.
    function roundIdOf(uint256 taskId, uint8 number, uint8 attempt) external pure returns (uint256);

    /// @notice Bucket (class Round) of the charges of verifiers who stepped back from a share.
    function chargesOf(uint256 taskId, uint8 number) external pure returns (uint256);

    /// @notice A share as it stands.
    function shareOf(uint256 taskId, uint8 number) external view returns (Share memory);

    /// @notice A round as it stands.
    function roundOf(uint256 roundId) external view returns (Round memory);

    /// @notice The round at work on a share, and its state; None while there is none.
    function currentRound(uint256 taskId, uint8 number) external view returns (uint256 roundId, RoundState state);

    /// @notice Segments of a share, in the order of its claims' leaves. Empty before they are drawn.
    function segmentsOf(uint256 taskId, uint8 number) external view returns (uint32[] memory);

    /// @notice Whether answers to a shown round are closed: nobody joined, all who committed have revealed, or time is out.
    function answersClosed(uint256 roundId) external view returns (bool);
}
