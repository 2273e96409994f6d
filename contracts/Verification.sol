// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {IMarket, State, Terms} from "./interfaces/IMarket.sol";
import {IMarketClaims} from "./interfaces/IMarketClaims.sol";
import {ISeeds} from "./interfaces/ISeeds.sol";
import {
    Derivation,
    Fault,
    Hidden,
    IVerification,
    Round,
    RoundState,
    Share,
    ShareState,
    Shown
} from "./interfaces/IVerification.sol";
import {Draws} from "./libraries/Draws.sol";
import {Checkpoint, Leaves, ProfileLeaf, Registered, ReplayLeaf} from "./libraries/Leaves.sol";
import {Secrets} from "./libraries/Secrets.sol";
import {Trees} from "./libraries/Trees.sol";
import {Answers} from "./Answers.sol";
import {Jackpot} from "./Jackpot.sol";
import {MILLION, Modules, Parameters, partDown} from "./Parameters.sol";
import {Class, Stakes} from "./Stakes.sol";

/// @title Verification
/// @notice Rounds of drawn verifiers: draw, commit, show, disclose, and every way out of them. A profile is a round of its own
/// before the auction.
contract Verification is IVerification {
    /* CONSTANTS */

    /// @inheritdoc IVerification
    uint8 public constant PROFILE = 255;
    /// @notice Seats tried in one draw before the attempt counts as failed.
    uint256 public constant TRIES = 24;

    Stakes private immutable STAKES;
    ISeeds private immutable SEEDS;
    IMarket private immutable MARKET;
    Answers private immutable ANSWERS;
    IMarketClaims private immutable CLAIMS;
    Jackpot private immutable JACKPOT;
    address private immutable SETTLEMENT;

    uint256 private immutable SEAT;
    uint256 private immutable DRAW_BOUNTY;
    uint256 private immutable FORCED_RATE;
    uint256 private immutable SILENCE_RATE;
    uint256 private immutable LEAK_RATE;
    uint256 private immutable STEP_BACK_RATE;
    uint256 private immutable WORK_PER_SECOND;
    uint256 private immutable COMMIT_SECONDS;
    uint256 private immutable ANSWER_SECONDS;
    uint256 private immutable REVEAL_SECONDS;
    uint256 private immutable DISCLOSE_SECONDS;
    uint256 private immutable DISPUTE_SECONDS;
    uint256 private immutable VOLUNTEER_SECONDS;
    uint256 private immutable DRAW_DELAY;
    uint256 private immutable JOIN_BLOCKS;
    uint256 private immutable SHOW_BLOCKS;
    uint256 private immutable REPLACEMENTS;
    uint256 private immutable VOLUNTEERS;
    uint256 private immutable STEP_BACKS;

    /* STORAGE */

    mapping(uint256 taskId => mapping(uint8 number => Share)) private _shares;
    mapping(uint256 roundId => Round) private _rounds;
    /// @notice Whether an account was drawn for a task's proof (or, counted apart, its profile) before.
    mapping(uint256 taskId => mapping(bool isProfile => mapping(address account => bool))) public wasDrawn;
    /// @notice Block in which an account committed to a leaked secret.
    mapping(bytes32 commitment => uint256 blockNumber) public leakCommitted;

    /* SETTING UP */

    constructor(Parameters memory parameters, Modules memory modules) {
        STAKES = Stakes(modules.stakes);
        SEEDS = ISeeds(modules.seeds);
        MARKET = IMarket(modules.market);
        ANSWERS = Answers(modules.answers);
        CLAIMS = IMarketClaims(modules.claims);
        JACKPOT = Jackpot(modules.jackpot);
        SETTLEMENT = modules.settlement;
        SEAT = parameters.seat;
        DRAW_BOUNTY = parameters.drawBounty;
        FORCED_RATE = parameters.forcedRate;
        SILENCE_RATE = parameters.silenceRate;
        LEAK_RATE = parameters.leakRate;
        STEP_BACK_RATE = parameters.stepBackRate;
        WORK_PER_SECOND = parameters.workPerSecond;
        COMMIT_SECONDS = parameters.commitSeconds;
        ANSWER_SECONDS = parameters.answerSeconds;
        REVEAL_SECONDS = parameters.revealSeconds;
        DISCLOSE_SECONDS = parameters.discloseSeconds;
        DISPUTE_SECONDS = parameters.disputeSeconds;
        VOLUNTEER_SECONDS = parameters.volunteerSeconds;
        DRAW_DELAY = parameters.drawDelay;
        JOIN_BLOCKS = parameters.joinBlocks;
        SHOW_BLOCKS = parameters.showBlocks;
        REPLACEMENTS = parameters.maximalReplacements;
        VOLUNTEERS = parameters.maximalVolunteers;
        STEP_BACKS = parameters.maximalStepBacks;
        uint256 least = parameters.stepBackRate < parameters.silenceRate ? parameters.stepBackRate : parameters.silenceRate;
        // INVARIANT: whoever makes a further draw necessary has paid for it.
        if (partDown(parameters.seat, least) < parameters.drawBounty || least > MILLION) {
            revert ChargesTooLow(partDown(parameters.seat, least), parameters.drawBounty);
        }
        // INVARIANT: a lottery's seed is known for as long as it can be used, and never drawn again.
        if (parameters.showBlocks > 250 || parameters.joinBlocks < 2) revert WindowTooLong(parameters.showBlocks);
    }

    modifier onlyMarket() {
        if (msg.sender != address(MARKET)) revert NotAModule(msg.sender);
        _;
    }

    modifier onlySettlement() {
        if (msg.sender != SETTLEMENT) revert NotAModule(msg.sender);
        _;
    }

    /* DRAWING */

    /// @inheritdoc IVerification
    function beginProfile(uint256 taskId) external onlyMarket {
        _await(taskId, PROFILE, _shares[taskId][PROFILE]);
    }

    /// @inheritdoc IVerification
    function beginReplay(uint256 taskId, uint8 verifiers) external onlyMarket {
        for (uint8 number = 0; number < verifiers; number++) {
            _await(taskId, number, _shares[taskId][number]);
        }
    }

    function _await(uint256 taskId, uint8 number, Share storage share) private {
        share.state = ShareState.Awaiting;
        share.drawBlock = uint48(block.number + DRAW_DELAY);
        // The roll as it was before anybody could know that this draw would come.
        share.snapshot = uint48(block.number - 1);
        emit DrawDue(taskId, number, share.attempt, share.drawBlock, share.snapshot);
    }

    /// @inheritdoc IVerification
    function draw(uint256 taskId, uint8 number) external {
        Share storage share = _shares[taskId][number];
        if (share.state != ShareState.Awaiting) revert WrongShareState(taskId, number, share.state);
        Terms memory terms = _live(taskId, number);
        bytes32 seed = SEEDS.seedAt(share.drawBlock, keccak256(abi.encode(taskId, number, share.attempt)));
        if (seed == 0) {
            // INVARIANT: a seed is used only when it is known, and drawn again only when it is out of reach.
            if (!SEEDS.missed(share.drawBlock)) revert SeedNotKnown(share.drawBlock, block.number);
            share.drawBlock = uint48(block.number + DRAW_DELAY);
            emit DrawDue(taskId, number, share.attempt, share.drawBlock, share.snapshot);
            return;
        }
        if (number != PROFILE && _shares[taskId][0].segmentSeed == 0) {
            // INVARIANT: segments are drawn once for a proof, and are the same whichever of its shares is drawn first.
            _shares[taskId][0].segmentSeed = Draws.segmentSeedOf(SEEDS.seedAt(share.drawBlock, bytes32(taskId)));
        }
        address verifier = _choose(taskId, number, share, terms, seed);
        if (verifier == address(0)) {
            emit NobodyDrawn(taskId, number, share.attempt);
            _next(taskId, number, share, false);
            return;
        }
        bool first = share.attempt == 0;
        // INVARIANT: no draw waits for coin, whatever jackpots have taken from the pool meanwhile.
        if (first || (share.isCharged && STAKES.balanceOf(Class.Pool, 0) >= DRAW_BOUNTY)) {
            (Class source, uint256 id) = first ? (Class.Escrow, taskId) : (Class.Pool, 0);
            STAKES.move(source, id, Class.Credit, uint160(msg.sender), DRAW_BOUNTY);
        }
        _begin(taskId, number, share, terms, verifier, seed);
    }

    /// @dev Tries seats in the order the seed gives. A seat whose owner cannot serve is passed over.
    function _choose(uint256 taskId, uint8 number, Share storage share, Terms memory terms, bytes32 seed)
        private
        returns (address)
    {
        uint256 snapshot = share.snapshot;
        uint256 seats = STAKES.seatCountAt(snapshot);
        if (seats == 0) return address(0);
        uint256 exponent = MARKET.exponentOf(number == PROFILE ? terms.profileWork : terms.replayWork);
        for (uint256 i = 0; i < TRIES; i++) {
            address owner = STAKES.seatOwnerAt(Draws.seatOf(seed, i, seats), snapshot);
            if (
                owner != terms.submitter && owner != terms.solver && !wasDrawn[taskId][number == PROFILE][owner]
                    && STAKES.limitAt(owner, snapshot) > exponent && STAKES.lock(owner, SEAT)
            ) return owner;
        }
        return address(0);
    }

    /// @inheritdoc IVerification
    function volunteer(uint256 taskId, uint8 number) external {
        Share storage share = _shares[taskId][number];
        if (share.state != ShareState.Volunteers) revert WrongShareState(taskId, number, share.state);
        if (block.timestamp > share.deadline) revert TooLate(share.deadline, block.timestamp);
        Terms memory terms = _live(taskId, number);
        // INVARIANT: volunteers answer to the same rules as drawn verifiers.
        if (
            msg.sender == terms.submitter || msg.sender == terms.solver || wasDrawn[taskId][number == PROFILE][msg.sender]
                || !STAKES.lock(msg.sender, SEAT)
        ) revert NotEligible(msg.sender);
        _begin(taskId, number, share, terms, msg.sender, keccak256(abi.encode(_shares[taskId][0].segmentSeed)));
    }

    /// @inheritdoc IVerification
    function giveUp(uint256 taskId, uint8 number) external {
        Share storage share = _shares[taskId][number];
        if (share.state != ShareState.Volunteers) revert WrongShareState(taskId, number, share.state);
        if (block.timestamp <= share.deadline) revert TooEarly(share.deadline, block.timestamp);
        _live(taskId, number);
        MARKET.abandoned(taskId, false);
    }

    function _begin(uint256 taskId, uint8 number, Share storage share, Terms memory terms, address verifier, bytes32 seed)
        private
    {
        wasDrawn[taskId][number == PROFILE][verifier] = true;
        share.state = ShareState.Working;
        share.isCharged = false;
        uint256 roundId = roundIdOf(taskId, number, share.attempt);
        Round storage round = _rounds[roundId];
        round.taskId = taskId;
        round.verifier = verifier;
        round.drawSeed = Draws.drawSeedOf(seed, roundId);
        round.share = number;
        round.attempt = share.attempt;
        round.state = RoundState.Drawn;
        round.deadline = uint40(_window(COMMIT_SECONDS, terms, number));
        _announce(roundId, round, terms);
    }

    function _announce(uint256 roundId, Round storage round, Terms memory terms) private {
        emit Drawn(
            round.taskId,
            round.share,
            round.verifier,
            roundId,
            round.attempt,
            round.drawSeed,
            _segmentsOf(_shares[round.taskId][0].segmentSeed, round.share, terms),
            round.deadline
        );
    }

    /// @dev A further attempt, while there is one.
    function _next(uint256 taskId, uint8 number, Share storage share, bool isCharged) private {
        share.attempt++;
        share.isCharged = isCharged;
        if (share.attempt <= REPLACEMENTS) {
            _await(taskId, number, share);
        } else if (number != PROFILE && _shares[taskId][0].stepBacks != 0) {
            // INVARIANT: where somebody could not fetch, only the draw says who works; a volunteer may be served alone.
            share.state = ShareState.Volunteers;
            MARKET.abandoned(taskId, true);
        } else if (share.attempt <= REPLACEMENTS + VOLUNTEERS) {
            share.state = ShareState.Volunteers;
            share.deadline = uint40(block.timestamp + VOLUNTEER_SECONDS);
            emit VolunteersWanted(taskId, number, share.deadline);
        } else {
            share.state = ShareState.Volunteers;
            MARKET.abandoned(taskId, false);
        }
    }

    /* COMMITTING AND SHOWING */

    /// @inheritdoc IVerification
    function commit(uint256 roundId, Hidden calldata hidden) external {
        Round storage round = _in(roundId, RoundState.Drawn);
        if (msg.sender != round.verifier) revert NotTheVerifier(msg.sender, round.verifier);
        if (block.timestamp > round.deadline) revert TooLate(round.deadline, block.timestamp);
        round.state = RoundState.Committed;
        round.commitment = keccak256(abi.encode(hidden));
        uint256 lotteryBlock = block.number + JOIN_BLOCKS;
        round.lotteryBlock = uint48(lotteryBlock);
        emit Committed(roundId, msg.sender, hidden, lotteryBlock, lotteryBlock + SHOW_BLOCKS);
    }

    /// @inheritdoc IVerification
    function showReplay(
        uint256 roundId,
        Hidden calldata hidden,
        uint8 index,
        bytes32 salt,
        ReplayLeaf[] calldata leaves,
        Checkpoint[] calldata checkpoints
    ) external {
        Round storage round = _in(roundId, RoundState.Committed);
        if (round.share == PROFILE) revert WrongRoundState(roundId, round.state);
        Terms memory terms = MARKET.termsOf(round.taskId);
        Shown memory shown;
        (shown.root, shown.passes) = Leaves.replay(
            leaves,
            _segmentsOf(_shares[round.taskId][0].segmentSeed, round.share, terms),
            checkpoints,
            Registered(
                MARKET.checkpointRootOf(round.taskId), Trees.depthOf(uint256(terms.segments) + 1), terms.exact
            )
        );
        _show(roundId, round, terms, hidden, index, salt, shown);
        emit ReplayShown(roundId, msg.sender, shown, leaves, round.answersUntil, round.revealsUntil, round.deadline);
    }

    /// @inheritdoc IVerification
    function showProfile(
        uint256 roundId,
        Hidden calldata hidden,
        uint8 index,
        bytes32 salt,
        ProfileLeaf[] calldata leaves
    ) external {
        Round storage round = _in(roundId, RoundState.Committed);
        if (round.share != PROFILE) revert WrongRoundState(roundId, round.state);
        Terms memory terms = MARKET.termsOf(round.taskId);
        Shown memory shown;
        (shown.root, shown.passes) = Leaves.profile(leaves, terms.profileSegments);
        shown.thresholds = leaves[leaves.length - 1].thresholds;
        _show(roundId, round, terms, hidden, index, salt, shown);
        emit ProfileShown(roundId, msg.sender, shown, leaves, round.answersUntil, round.revealsUntil, round.deadline);
    }

    function _show(
        uint256 roundId,
        Round storage round,
        Terms memory terms,
        Hidden calldata hidden,
        uint8 index,
        bytes32 salt,
        Shown memory shown
    ) private {
        if (msg.sender != round.verifier) revert NotTheVerifier(msg.sender, round.verifier);
        uint256 lotteryBlock = round.lotteryBlock;
        if (block.number > lotteryBlock + SHOW_BLOCKS) revert TooLate(lotteryBlock + SHOW_BLOCKS, block.number);
        shown.seed = SEEDS.seedAt(lotteryBlock, bytes32(roundId));
        // INVARIANT: nothing is shown before the lottery, and the lottery is never drawn again.
        if (shown.seed == 0) revert SeedNotKnown(lotteryBlock, block.number);
        _requireCommitted(keccak256(abi.encode(hidden)), round.commitment);
        if (index > 1) revert WrongIndex(index);
        // INVARIANT: only a claim committed to before the lottery can be shown.
        _requireCommitted(Secrets.claimOf(shown.root, salt), index == 0 ? hidden.first : hidden.second);
        shown.hidden = hidden;
        shown.index = index;
        round.state = RoundState.Shown;
        round.commitment = keccak256(abi.encode(shown));
        uint256 revealsUntil = block.timestamp;
        if (ANSWERS.joinedOf(roundId) != 0) {
            uint256 answersUntil = _window(ANSWER_SECONDS, terms, round.share);
            revealsUntil = answersUntil + REVEAL_SECONDS;
            round.answersUntil = uint40(answersUntil);
        } else {
            // Nobody joined, so nobody can answer.
            round.answersUntil = uint40(block.timestamp);
        }
        round.revealsUntil = uint40(revealsUntil);
        round.deadline = uint40(revealsUntil + DISCLOSE_SECONDS);
    }

    /* DISCLOSING */

    /// @inheritdoc IVerification
    function disclose(
        uint256 roundId,
        bytes32 secret,
        uint8 order,
        Shown calldata shown,
        Derivation calldata derivation
    ) external {
        Round storage round = _in(roundId, RoundState.Shown);
        if (block.timestamp > round.deadline) revert TooLate(round.deadline, block.timestamp);
        // INVARIANT: no whistleblower learns from the disclosure what to answer.
        if (!answersClosed(roundId)) revert AnswersOpen(roundId);
        _requireCommitted(keccak256(abi.encode(shown)), round.commitment);
        _checkSecret(roundId, round.verifier, secret, order, shown.hidden);
        bool forced = isForced(secret, shown.seed);
        if (shown.index != (forced ? 1 - order : order)) {
            _void(roundId, round, Fault.ShownTheWrongOne, SEAT, address(0), 0);
            return;
        }
        bytes32 root = shown.root;
        if (forced) {
            root = _trueRoot(roundId, round, secret, order, shown, derivation);
            if (ANSWERS.revealedOf(roundId) != 0) JACKPOT.reserve(roundId, MARKET.taxOf(round.taskId));
        }
        round.state = RoundState.Disclosed;
        uint256 until = _window(DISPUTE_SECONDS, MARKET.termsOf(round.taskId), round.share);
        CLAIMS.enter(roundId, round.verifier, root, shown.passes, shown.thresholds, until);
        emit Disclosed(roundId, round.verifier, forced, root, shown.passes, secret, forced ? derivation.trace : bytes32(0), until);
    }

    function _trueRoot(
        uint256 roundId,
        Round storage round,
        bytes32 secret,
        uint8 order,
        Shown calldata shown,
        Derivation calldata derivation
    ) private view returns (bytes32 root) {
        bytes32 word = Secrets.wordOf(secret, round.taskId, roundId);
        root = Secrets.trueRoot(word, _leavesOf(round), shown.root, derivation);
        bytes32 claim = Secrets.claimOf(root, Secrets.saltOf(secret, roundId, order));
        bytes32 expected = order == 0 ? shown.hidden.first : shown.hidden.second;
        // INVARIANT: the true claim was committed to before the lottery.
        if (claim != expected) revert NotDerived(claim, expected);
    }

    function _leavesOf(Round storage round) private view returns (uint256) {
        Terms memory terms = MARKET.termsOf(round.taskId);
        return round.share == PROFILE ? terms.profileSegments : terms.perVerifier;
    }

    function _checkSecret(uint256 roundId, address verifier, bytes32 secret, uint8 order, Hidden calldata hidden)
        private
        pure
    {
        bytes32 found = Secrets.hashOf(secret, order, verifier, roundId);
        // INVARIANT: secret and order are those committed to before the lottery.
        if (found != hidden.secret || order > 1) revert NotTheCommitment(found, hidden.secret);
    }

    /// @inheritdoc IVerification
    function secretHash(bytes32 secret, uint8 order, address verifier, uint256 roundId) public pure returns (bytes32) {
        return Secrets.hashOf(secret, order, verifier, roundId);
    }

    /// @inheritdoc IVerification
    function saltOf(bytes32 secret, uint256 roundId, uint8 index) public pure returns (bytes32) {
        return Secrets.saltOf(secret, roundId, index);
    }

    /// @inheritdoc IVerification
    function isForced(bytes32 secret, bytes32 seed) public view returns (bool) {
        return Draws.isForced(secret, seed, FORCED_RATE);
    }

    /* WAYS OUT */

    /// @inheritdoc IVerification
    function timeout(uint256 roundId) external {
        Round storage round = _rounds[roundId];
        RoundState state = round.state;
        if (state == RoundState.Committed) {
            uint256 until = uint256(round.lotteryBlock) + SHOW_BLOCKS;
            if (block.number <= until) revert TooEarly(until, block.number);
        } else {
            if (state != RoundState.Drawn && state != RoundState.Shown) revert WrongRoundState(roundId, state);
            if (block.timestamp <= round.deadline) revert TooEarly(round.deadline, block.timestamp);
        }
        _live(round.taskId, round.share);
        _void(roundId, round, Fault.Silent, partDown(SEAT, SILENCE_RATE), address(0), 0);
    }

    /// @inheritdoc IVerification
    function stepBack(uint256 roundId) external {
        Round storage round = _in(roundId, RoundState.Drawn);
        if (msg.sender != round.verifier) revert NotTheVerifier(msg.sender, round.verifier);
        if (block.timestamp > round.deadline) revert TooLate(round.deadline, block.timestamp);
        uint256 taskId = round.taskId;
        uint8 number = round.share;
        Terms memory terms = _live(taskId, number);
        uint256 charge = stepBackCharge(terms.price);
        round.state = RoundState.Void;
        uint256 id = uint160(msg.sender);
        STAKES.move(Class.Locked, id, Class.Pool, 0, DRAW_BOUNTY);
        STAKES.move(Class.Locked, id, Class.Round, chargesOf(taskId, number), charge - DRAW_BOUNTY);
        STAKES.move(Class.Locked, id, Class.Free, id, SEAT - charge);
        emit Voided(roundId, msg.sender, Fault.SteppedBack, charge);
        Share storage share = _shares[taskId][number];
        // All who are drawn at once do not end a task by one bad hour, and more of them do not end it more easily.
        bool isProfile = number == PROFILE;
        uint256 most = isProfile ? 0 : uint256(terms.verifiers) + 2;
        if (most < STEP_BACKS) most = STEP_BACKS;
        // INVARIANT: only who was drawn by chance says that files cannot be fetched; anyone could volunteer to say so.
        if (share.attempt <= REPLACEMENTS && ++_shares[taskId][isProfile ? PROFILE : 0].stepBacks == most) {
            share.state = ShareState.Volunteers;
            MARKET.abandoned(taskId, true);
        } else {
            _next(taskId, number, share, true);
        }
    }

    /// @inheritdoc IVerification
    function stepBackCharge(uint256 price) public view returns (uint256 charge) {
        charge = partDown(price > SEAT ? price : SEAT, STEP_BACK_RATE);
        uint256 most = partDown(SEAT, SILENCE_RATE);
        if (charge > most) charge = most;
    }

    /// @inheritdoc IVerification
    function commitLeak(bytes32 commitment) external {
        if (leakCommitted[commitment] == 0) leakCommitted[commitment] = block.number;
    }

    /// @inheritdoc IVerification
    function leak(uint256 roundId, bytes32 secret, uint8 order, Hidden calldata hidden) external {
        Round storage round = _in(roundId, RoundState.Committed);
        _requireCommitted(keccak256(abi.encode(hidden)), round.commitment);
        _leak(roundId, round, secret, order, hidden);
    }

    /// @inheritdoc IVerification
    function leakShown(uint256 roundId, bytes32 secret, uint8 order, Shown calldata shown) external {
        Round storage round = _in(roundId, RoundState.Shown);
        _requireCommitted(keccak256(abi.encode(shown)), round.commitment);
        // INVARIANT: what the verifier has to disclose anyway is no leak.
        if (answersClosed(roundId)) revert AnswersClosed(roundId);
        _leak(roundId, round, secret, order, shown.hidden);
    }

    function _leak(uint256 roundId, Round storage round, bytes32 secret, uint8 order, Hidden calldata hidden) private {
        _live(round.taskId, round.share);
        _checkSecret(roundId, round.verifier, secret, order, hidden);
        bytes32 commitment = Secrets.leakOf(secret, msg.sender, roundId);
        uint256 committed = leakCommitted[commitment];
        // INVARIANT: a copy of the second step, seen on its way to the chain, comes too late for the first.
        if (committed == 0 || committed >= block.number) revert LeakNotCommitted(commitment, committed);
        _void(roundId, round, Fault.Leaked, SEAT, msg.sender, partDown(SEAT, LEAK_RATE));
    }

    /// @dev Takes `lost` of the verifier's seat, of which `bounty` goes to `bringer` and the rest to the pool.
    function _void(uint256 roundId, Round storage round, Fault fault, uint256 lost, address bringer, uint256 bounty)
        private
    {
        uint256 taskId = round.taskId;
        uint8 number = round.share;
        address verifier = round.verifier;
        round.state = RoundState.Void;
        uint256 id = uint160(verifier);
        STAKES.move(Class.Locked, id, Class.Credit, uint160(bringer), bounty);
        STAKES.move(Class.Locked, id, Class.Pool, 0, lost - bounty);
        STAKES.move(Class.Locked, id, Class.Free, id, SEAT - lost);
        ANSWERS.voidRound(roundId);
        emit Voided(roundId, verifier, fault, lost);
        // A round may be disclosed wrongly after its task has ended otherwise: then nobody is drawn any more.
        State state = MARKET.stateOf(taskId);
        if (state == (number == PROFILE ? State.Profiling : State.Verifying)) {
            _next(taskId, number, _shares[taskId][number], true);
        }
    }

    /* CALLED BY THE SETTLEMENT */

    /// @inheritdoc IVerification
    function markReleased(uint256 taskId, uint8 number) external onlySettlement returns (uint256 roundId) {
        Share storage share = _shares[taskId][number];
        ShareState state = share.state;
        // INVARIANT: every share is paid once.
        if (state == ShareState.None || state == ShareState.Released) revert WrongShareState(taskId, number, state);
        share.state = ShareState.Released;
        if (state == ShareState.Working) {
            roundId = roundIdOf(taskId, number, share.attempt);
            if (_rounds[roundId].state == RoundState.Void) roundId = 0;
        }
    }

    /// @inheritdoc IVerification
    function markVoid(uint256 roundId) external onlySettlement {
        _rounds[roundId].state = RoundState.Void;
    }

    /* HELPERS AND VIEWS */

    function _in(uint256 roundId, RoundState state) private view returns (Round storage round) {
        round = _rounds[roundId];
        // INVARIANT: rounds only move forward, by the calls their state allows.
        if (round.state != state) revert WrongRoundState(roundId, round.state);
    }

    function _requireCommitted(bytes32 given, bytes32 expected) private pure {
        // INVARIANT: nobody shows or brings anything but what was committed to.
        if (given != expected) revert NotTheCommitment(given, expected);
    }

    /// @dev Reverts unless the task still waits for this share.
    function _live(uint256 taskId, uint8 number) private view returns (Terms memory terms) {
        terms = MARKET.termsOf(taskId);
        if (terms.state != (number == PROFILE ? State.Profiling : State.Verifying)) revert TaskEnded(taskId, terms.state);
    }

    function _window(uint256 floor, Terms memory terms, uint8 number) private view returns (uint256) {
        return block.timestamp + floor + (number == PROFILE ? terms.profileWork : terms.replayWork) / WORK_PER_SECOND;
    }

    function _segmentsOf(uint64 segmentSeed, uint8 number, Terms memory terms)
        private
        pure
        returns (uint32[] memory)
    {
        if (number == PROFILE) return Draws.profiled(terms.profileSegments);
        return Draws.segmentsOf(segmentSeed, number, terms.perVerifier, terms.segments);
    }

    /// @inheritdoc IVerification
    function roundIdOf(uint256 taskId, uint8 number, uint8 attempt) public pure returns (uint256) {
        return uint256(keccak256(abi.encode("round", taskId, number, attempt)));
    }

    /// @inheritdoc IVerification
    function chargesOf(uint256 taskId, uint8 number) public pure returns (uint256) {
        return uint256(keccak256(abi.encode("charges", taskId, number)));
    }

    /// @inheritdoc IVerification
    function shareOf(uint256 taskId, uint8 number) external view returns (Share memory) {
        return _shares[taskId][number];
    }

    /// @inheritdoc IVerification
    function roundOf(uint256 roundId) external view returns (Round memory) {
        return _rounds[roundId];
    }

    /// @inheritdoc IVerification
    function currentRound(uint256 taskId, uint8 number) public view returns (uint256 roundId, RoundState state) {
        Share storage share = _shares[taskId][number];
        if (share.state == ShareState.Working || share.state == ShareState.Released) {
            roundId = roundIdOf(taskId, number, share.attempt);
            state = _rounds[roundId].state;
        }
    }

    /// @inheritdoc IVerification
    function segmentsOf(uint256 taskId, uint8 number) external view returns (uint32[] memory) {
        uint64 segmentSeed = _shares[taskId][0].segmentSeed;
        if (segmentSeed == 0 && number != PROFILE) return new uint32[](0);
        return _segmentsOf(segmentSeed, number, MARKET.termsOf(taskId));
    }

    /// @inheritdoc IVerification
    function answersClosed(uint256 roundId) public view returns (bool) {
        Round storage round = _rounds[roundId];
        return ANSWERS.areClosed(roundId, round.answersUntil, round.revealsUntil);
    }
}
