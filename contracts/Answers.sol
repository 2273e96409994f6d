// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {IVerification, Round, RoundState} from "./interfaces/IVerification.sol";
import {Modules, Parameters} from "./Parameters.sol";
import {Class, Stakes} from "./Stakes.sol";

/// @notice Where a whistleblower's part in a round stands.
enum AnswerState {
    None,
    Joined,
    Committed,
    Revealed,
    Collected
}

/// @notice A whistleblower's answer in a round.
/// @param value Its commitment, then the root it revealed.
struct Answer {
    bytes32 value;
    AnswerState state;
}

/// @notice What is known of a round's answers.
/// @param isResolved Whether bonds and prizes can be collected.
/// @param isVoid Whether all bonds go back, whatever was answered.
/// @param each What every right answer earns.
/// @param root The root that finally stands.
struct Tally {
    uint32 joined;
    uint32 committed;
    uint32 revealed;
    bool isResolved;
    bool isVoid;
    uint128 each;
    bytes32 root;
}

/// @title Answers
/// @notice Whistleblowers join a round with a bond before the lottery's block, commit to their own result, and reveal it. Bonds
/// and prizes are collected once the round's claim finally stands.
contract Answers {
    Stakes private immutable STAKES;
    IVerification private immutable VERIFICATION;
    address private immutable SETTLEMENT;
    /// @notice What joining puts at stake, in wei of free stake.
    uint256 public immutable BOND;

    mapping(uint256 roundId => Tally) private _tallies;
    mapping(uint256 roundId => mapping(address account => Answer)) private _answers;
    /// @notice Number of revealed answers with that root.
    mapping(uint256 roundId => mapping(bytes32 root => uint256 count)) public countOf;

    event Joined(uint256 indexed roundId, address indexed whistleblower, uint256 bond, uint256 joined);
    event AnswerCommitted(uint256 indexed roundId, address indexed whistleblower, bytes32 commitment);
    event AnswerRevealed(uint256 indexed roundId, address indexed whistleblower, bytes32 root);
    event Resolved(uint256 indexed roundId, bytes32 root, uint256 right, uint256 each, bool isVoid);
    event Collected(uint256 indexed roundId, address indexed whistleblower, uint256 bond, uint256 prize, bool right);

    error NotAModule(address caller);
    error WrongRoundState(uint256 roundId, RoundState state);
    error WrongAnswerState(uint256 roundId, address account, AnswerState state);
    error TooLate(uint256 deadline, uint256 time);
    error TooEarly(uint256 roundId, uint256 until, uint256 time);
    error VerifierMayNotJoin(address verifier);
    error AnotherRoundShown(bytes32 given, bytes32 shown);
    error NotTheCommitment(bytes32 given, bytes32 expected);
    error NotResolved(uint256 roundId);

    constructor(Parameters memory parameters, Modules memory modules) {
        STAKES = Stakes(modules.stakes);
        VERIFICATION = IVerification(modules.verification);
        SETTLEMENT = modules.settlement;
        BOND = parameters.answerBond;
    }

    /// @notice Joins a round whose verifier has committed, before the lottery's block. The bond comes from the caller's free stake.
    function join(uint256 roundId) external {
        Round memory round = VERIFICATION.roundOf(roundId);
        if (round.state != RoundState.Committed) revert WrongRoundState(roundId, round.state);
        // INVARIANT: nobody who joins can know the lottery's outcome.
        if (block.number >= round.lotteryBlock) revert TooLate(round.lotteryBlock, block.number);
        if (msg.sender == round.verifier) revert VerifierMayNotJoin(msg.sender);
        Answer storage answer = _in(roundId, msg.sender, AnswerState.None);
        answer.state = AnswerState.Joined;
        uint256 joined = ++_tallies[roundId].joined;
        STAKES.move(Class.Free, uint160(msg.sender), Class.Round, roundId, BOND);
        STAKES.noteJoin(msg.sender);
        emit Joined(roundId, msg.sender, BOND, joined);
    }

    /// @notice Commits to an answer.
    /// @param shown The round's commitment after the claim was shown (`Verification.roundOf`): the answer is to that claim only.
    /// @param commitment keccak256(abi.encode(round, caller, root, salt)).
    function commitAnswer(uint256 roundId, bytes32 shown, bytes32 commitment) external {
        Round memory round = VERIFICATION.roundOf(roundId);
        if (round.state != RoundState.Shown) revert WrongRoundState(roundId, round.state);
        // INVARIANT: an answer does not end up under another claim in a reorganised chain.
        if (shown != round.commitment) revert AnotherRoundShown(shown, round.commitment);
        if (block.timestamp > round.answersUntil) revert TooLate(round.answersUntil, block.timestamp);
        Answer storage answer = _in(roundId, msg.sender, AnswerState.Joined);
        answer.state = AnswerState.Committed;
        answer.value = commitment;
        _tallies[roundId].committed++;
        emit AnswerCommitted(roundId, msg.sender, commitment);
    }

    /// @notice Reveals an answer, once nobody can commit any more.
    function revealAnswer(uint256 roundId, bytes32 root, bytes32 salt) external {
        Round memory round = VERIFICATION.roundOf(roundId);
        if (round.state != RoundState.Shown) revert WrongRoundState(roundId, round.state);
        Tally storage tally = _tallies[roundId];
        // INVARIANT: nobody who can still commit sees another's answer.
        if (block.timestamp <= round.answersUntil && tally.committed != tally.joined) {
            revert TooEarly(roundId, round.answersUntil, block.timestamp);
        }
        if (block.timestamp > round.revealsUntil) revert TooLate(round.revealsUntil, block.timestamp);
        Answer storage answer = _in(roundId, msg.sender, AnswerState.Committed);
        bytes32 commitment = commitmentOf(roundId, msg.sender, root, salt);
        if (commitment != answer.value) revert NotTheCommitment(commitment, answer.value);
        answer.state = AnswerState.Revealed;
        answer.value = root;
        tally.revealed++;
        countOf[roundId][root]++;
        emit AnswerRevealed(roundId, msg.sender, root);
    }

    /// @notice Pays out a whistleblower's bond and prize once the round is resolved. Anyone may call.
    function collect(uint256 roundId, address account) external {
        Tally storage tally = _tallies[roundId];
        if (!tally.isResolved) revert NotResolved(roundId);
        Answer storage answer = _answers[roundId][account];
        AnswerState state = answer.state;
        // INVARIANT: nothing is paid twice, and nothing to whoever did not join.
        if (state == AnswerState.None || state == AnswerState.Collected) revert WrongAnswerState(roundId, account, state);
        answer.state = AnswerState.Collected;
        bool right = state == AnswerState.Revealed && !tally.isVoid && answer.value == tally.root;
        uint256 prize = right ? tally.each : 0;
        if (right || tally.isVoid) {
            STAKES.move(Class.Round, roundId, Class.Free, uint160(account), BOND);
            STAKES.move(Class.Round, roundId, Class.Credit, uint160(account), prize);
        } else {
            STAKES.move(Class.Round, roundId, Class.Pool, 0, BOND);
        }
        emit Collected(roundId, account, BOND, prize, right);
    }

    /* CALLED BY THE OTHER CONTRACTS */

    /// @notice The round was voided: bonds go back.
    function voidRound(uint256 roundId) external {
        if (msg.sender != address(VERIFICATION) && msg.sender != SETTLEMENT) revert NotAModule(msg.sender);
        Tally storage tally = _tallies[roundId];
        if (tally.joined == 0) return;
        tally.isResolved = true;
        tally.isVoid = true;
        emit Resolved(roundId, 0, 0, 0, true);
    }

    /// @notice The round's claim finally stands.
    function resolve(uint256 roundId, bytes32 root, uint256 each) external {
        if (msg.sender != SETTLEMENT) revert NotAModule(msg.sender);
        Tally storage tally = _tallies[roundId];
        if (tally.joined == 0) return;
        tally.isResolved = true;
        tally.each = uint128(each);
        tally.root = root;
        emit Resolved(roundId, root, countOf[roundId][root], each, false);
    }

    /* VIEWS */

    function _in(uint256 roundId, address account, AnswerState state) private view returns (Answer storage answer) {
        answer = _answers[roundId][account];
        // INVARIANT: an answer only moves forward.
        if (answer.state != state) revert WrongAnswerState(roundId, account, answer.state);
    }

    /// @notice What a whistleblower commits to.
    function commitmentOf(uint256 roundId, address account, bytes32 root, bytes32 salt) public pure returns (bytes32) {
        return keccak256(abi.encode(roundId, account, root, salt));
    }

    /// @notice An account's answer in a round.
    function answerOf(uint256 roundId, address account) external view returns (Answer memory) {
        return _answers[roundId][account];
    }

    /// @notice Whether an account revealed this root in the round.
    function hasRevealed(uint256 roundId, address account, bytes32 root) external view returns (bool) {
        Answer storage answer = _answers[roundId][account];
        return answer.state == AnswerState.Revealed && answer.value == root;
    }

    /// @notice What is known of a round's answers.
    function tallyOf(uint256 roundId) external view returns (Tally memory) {
        return _tallies[roundId];
    }

    /// @notice Number of whistleblowers who joined a round.
    function joinedOf(uint256 roundId) external view returns (uint256) {
        return _tallies[roundId].joined;
    }

    /// @notice Number of answers revealed in a round.
    function revealedOf(uint256 roundId) external view returns (uint256) {
        return _tallies[roundId].revealed;
    }

    /// @notice Whether no answer can be revealed any more.
    function areClosed(uint256 roundId, uint256 answersUntil, uint256 revealsUntil) external view returns (bool) {
        Tally storage tally = _tallies[roundId];
        if (tally.joined == 0 || block.timestamp > revealsUntil) return true;
        return (block.timestamp > answersUntil || tally.committed == tally.joined) && tally.revealed == tally.committed;
    }
}
