// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {IMarket, Posting, State, Task, Terms} from "./interfaces/IMarket.sol";
import {IVerification} from "./interfaces/IVerification.sol";
import {Headers} from "./libraries/Headers.sol";
import {Floors, Postings} from "./libraries/Postings.sol";
import {Ranges} from "./libraries/Ranges.sol";
import {Trees} from "./libraries/Trees.sol";
import {MILLION, Modules, Parameters, partDown} from "./Parameters.sol";
import {Class, Stakes} from "./Stakes.sol";

/// @title Market
/// @notice The life of a task up to the registration of its proof, and the escrow's way at its end.
contract Market is IMarket {
    /* CONSTANTS */

    /// @notice Format and arithmetic version of the programs this deployment can judge.
    uint16 public constant FORMAT = Postings.FORMAT;
    uint16 public constant ARITHMETIC = Postings.ARITHMETIC;
    /// @notice Most verifiers of a task, and most segments of one share.
    uint256 public constant MOST_VERIFIERS = Postings.MOST_VERIFIERS;
    uint256 public constant MOST_SEGMENTS = Postings.MOST_SEGMENTS;

    Stakes private immutable STAKES;
    IVerification private immutable VERIFICATION;
    address private immutable CLAIMS;
    address private immutable SETTLEMENT;
    address private immutable DEMANDS;

    uint256 private immutable STAKE_FLOOR;
    uint256 private immutable STAKE_RATE;
    uint256 private immutable TAX_RATE;
    uint256 private immutable FINDER_RATE;
    uint256 private immutable STEP_DOWN_RATE;
    uint256 private immutable LATE_RATE;
    uint256 private immutable UNAVAILABLE_RATE;
    uint256 private immutable COMPENSATION_RATE;
    uint256 private immutable REFUTER_RATE;
    uint256 private immutable FEE_FLOOR;
    uint256 private immutable FEE_PER_TERAWORK;
    uint256 private immutable DRAW_BOUNTY;
    uint256 private immutable TRAINING_PER_SECOND;
    uint256 private immutable TRAIN_SECONDS;
    uint256 private immutable HOLD_SECONDS;
    uint256 private immutable MAXIMAL_RELISTS;

    /* STORAGE */

    mapping(uint256 taskId => Task) private _tasks;
    /// @notice What clock extensions in cases on its training claim have cost the solver, in wei; at most the floor of its stake.
    mapping(uint256 taskId => uint256 amount) public chargeOf;
    /// @notice Number of tasks an account has submitted.
    mapping(address account => uint256 count) public submitted;

    /* SETTING UP */

    constructor(Parameters memory parameters, Modules memory modules) {
        STAKES = Stakes(modules.stakes);
        VERIFICATION = IVerification(modules.verification);
        CLAIMS = modules.claims;
        SETTLEMENT = modules.settlement;
        DEMANDS = modules.demands;
        STAKE_FLOOR = parameters.solverStakeFloor;
        STAKE_RATE = parameters.solverStakeRate;
        TAX_RATE = parameters.taxRate;
        FINDER_RATE = parameters.finderRate;
        STEP_DOWN_RATE = parameters.stepDownRate;
        LATE_RATE = parameters.lateRate;
        UNAVAILABLE_RATE = parameters.unavailableRate;
        COMPENSATION_RATE = parameters.compensationRate;
        REFUTER_RATE = parameters.refuterRate;
        FEE_FLOOR = parameters.feeFloor;
        FEE_PER_TERAWORK = parameters.feePerTerawork;
        DRAW_BOUNTY = parameters.drawBounty;
        TRAINING_PER_SECOND = parameters.trainingPerSecond;
        TRAIN_SECONDS = parameters.trainSeconds;
        HOLD_SECONDS = parameters.holdSeconds;
        MAXIMAL_RELISTS = parameters.maximalRelists;
        // INVARIANT: shares of one amount never exceed it.
        Ranges.check("finderRate", parameters.finderRate, 0, MILLION - 1);
        Ranges.check("stepDownRate", parameters.stepDownRate, 0, MILLION);
        // INVARIANT: the stake covers the forfeit, since no price is above the highest reward.
        Ranges.check("unavailableRate", parameters.unavailableRate, 0, parameters.solverStakeRate);
        Ranges.check("compensationRate + refuterRate", uint256(parameters.compensationRate) + parameters.refuterRate, 0, MILLION);
        Ranges.check("workPerSecond", parameters.workPerSecond, 1, type(uint64).max);
        Ranges.check("trainingPerSecond", parameters.trainingPerSecond, 1, type(uint64).max);
    }

    /* SUBMITTING */

    /// @inheritdoc IMarket
    function submit(Posting calldata posting) external payable returns (uint256 taskId) {
        (uint256 replayWork, uint256 profileWork) = Postings.check(posting, _floors());
        _requireProvenBase(posting.baseTask, posting.initialRoot);
        taskId = uint256(
            keccak256(abi.encode(block.chainid, address(this), msg.sender, submitted[msg.sender]++, keccak256(abi.encode(posting))))
        );
        uint32 segments = Postings.segmentsOf(posting);
        Task storage task = _tasks[taskId];
        task.submitter = msg.sender;
        task.taskSeed = posting.taskSeed;
        task.steps = posting.steps;
        task.interval = posting.interval;
        task.segments = segments;
        task.state = posting.exact ? State.Open : State.Profiling;
        task.exact = posting.exact;
        task.verifiers = posting.verifiers;
        task.lowestReward = posting.lowestReward;
        task.highestReward = posting.highestReward;
        task.auctionSeconds = posting.auctionSeconds;
        task.trainSeconds = posting.trainSeconds;
        task.verifierFee = posting.verifierFee;
        task.since = uint40(block.timestamp);
        task.perVerifier = posting.perVerifier;
        task.profileSegments = posting.profileSegments;
        task.profilerFee = posting.profilerFee;
        task.replayWork = uint80(replayWork);
        task.profileWork = uint80(profileWork);
        bytes32 programRoot = Headers.rootOf(posting.header);
        task.programRoot = programRoot;
        task.dataRoot = posting.dataRoot;
        task.initialRoot = posting.initialRoot;
        {
            uint256 escrow = escrowOf(posting);
            // INVARIANT: everything the task may have to pay from escrow is in escrow from the start.
            if (msg.value != escrow) revert WrongValue(msg.value, escrow);
        }
        STAKES.enter{value: msg.value}(Class.Escrow, taskId);
        emit Submitted(taskId, msg.sender, programRoot, segments, uint80(replayWork), uint80(profileWork), posting);
        if (posting.exact) emit Opened(taskId, 0, posting.lowestReward, posting.highestReward, block.timestamp);
        else VERIFICATION.beginProfile(taskId);
    }

    /// @inheritdoc IMarket
    function escrowOf(Posting calldata posting) public view returns (uint256) {
        uint256 rounds = uint256(posting.verifiers) + (posting.exact ? 0 : 1);
        return uint256(posting.highestReward) + uint256(posting.verifiers) * posting.verifierFee + posting.profilerFee
            + rounds * (DRAW_BOUNTY + partDown(posting.highestReward, TAX_RATE) / rounds);
    }

    function _requireProvenBase(uint256 baseTask, bytes32 initialRoot) private view {
        if (baseTask == 0) return;
        Task storage base = _tasks[baseTask];
        // INVARIANT: only a proven model is a base.
        if (base.state != State.Settled || base.finalRoot != initialRoot) {
            revert NotAProvenBase(baseTask, base.state, base.finalRoot);
        }
    }

    function _floors() private view returns (Floors memory) {
        return Floors(FEE_FLOOR, FEE_PER_TERAWORK, TRAIN_SECONDS, TRAINING_PER_SECOND);
    }

    /// @inheritdoc IMarket
    function lowestFee(uint256 work) public view returns (uint256) {
        return Postings.lowestFee(_floors(), work);
    }

    /* THE AUCTION */

    /// @inheritdoc IMarket
    function priceOf(uint256 taskId) public view returns (uint256) {
        Task storage task = _tasks[taskId];
        // A task that opens again does so at the price it was taken for.
        if (task.relists != 0) return task.price;
        uint256 elapsed = block.timestamp - task.since;
        if (elapsed >= task.auctionSeconds) return task.highestReward;
        return task.lowestReward + (uint256(task.highestReward - task.lowestReward) * elapsed) / task.auctionSeconds;
    }

    /// @inheritdoc IMarket
    function stakeOf(uint256 taskId) public view returns (uint256) {
        Task storage task = _tasks[taskId];
        return STAKE_FLOOR + partDown(task.highestReward, STAKE_RATE) + uint256(task.verifiers) * task.verifierFee;
    }

    /// @inheritdoc IMarket
    function take(uint256 taskId, uint256 lowest) external {
        Task storage task = _in(taskId, State.Open);
        // INVARIANT: a submitter does not pay itself.
        if (msg.sender == task.submitter) revert OwnTask(msg.sender);
        uint256 end = uint256(task.since) + task.auctionSeconds + HOLD_SECONDS;
        if (block.timestamp > end) revert AuctionOver(end, block.timestamp);
        uint256 price = priceOf(taskId);
        if (price < lowest) revert PriceTooLow(price, lowest);
        {
            uint256 exponent = exponentOf(task.replayWork);
            uint256 eligible = STAKES.eligible(exponent);
            if (STAKES.limitOf(msg.sender) > exponent) eligible--;
            if (STAKES.limitOf(task.submitter) > exponent) eligible--;
            // INVARIANT: nobody trains for a task that could not be verified on the day it was taken.
            if (eligible < task.verifiers) revert TooFewVerifiers(eligible, task.verifiers);
        }
        uint256 stake = stakeOf(taskId);
        if (!STAKES.lock(msg.sender, stake)) revert StakeTooLow(msg.sender, stake);
        task.state = State.Taken;
        task.solver = msg.sender;
        task.price = uint96(price);
        task.since = uint40(block.timestamp);
        emit Taken(taskId, msg.sender, price, stake, block.timestamp + task.trainSeconds);
    }

    /// @inheritdoc IMarket
    function stepDown(uint256 taskId) external {
        Task storage task = _in(taskId, State.Taken);
        if (msg.sender != task.solver) revert NotTheSolver(msg.sender, task.solver);
        uint256 deadline = uint256(task.since) + task.trainSeconds;
        // INVARIANT: the forfeit of the late is not avoided by stepping down late.
        if (block.timestamp > deadline) revert TooLate(deadline, block.timestamp);
        _relist(taskId, task, partDown(stakeOf(taskId), STEP_DOWN_RATE), false);
    }

    /// @inheritdoc IMarket
    function late(uint256 taskId) external {
        Task storage task = _in(taskId, State.Taken);
        uint256 held = block.timestamp - task.since;
        if (held <= task.trainSeconds) revert NotLate(uint256(task.since) + task.trainSeconds, block.timestamp);
        uint256 stake = stakeOf(taskId);
        uint256 rate = STEP_DOWN_RATE + (LATE_RATE * held) / task.trainSeconds;
        _relist(taskId, task, rate > MILLION ? stake : partDown(stake, rate), true);
    }

    function _relist(uint256 taskId, Task storage task, uint256 forfeit, bool isLate) private {
        address solver = task.solver;
        uint256 stake = stakeOf(taskId);
        STAKES.move(Class.Locked, uint160(solver), Class.Pool, 0, forfeit);
        STAKES.move(Class.Locked, uint160(solver), Class.Free, uint160(solver), stake - forfeit);
        emit SteppedDown(taskId, solver, forfeit, isLate);
        task.solver = address(0);
        if (task.relists == MAXIMAL_RELISTS) {
            _end(taskId, task, State.Cancelled, address(0), 0, 0);
            return;
        }
        task.relists++;
        task.state = State.Open;
        task.since = uint40(block.timestamp);
        emit Opened(taskId, task.thresholdRoot, task.price, task.price, block.timestamp);
    }

    /// @inheritdoc IMarket
    function cancel(uint256 taskId) external {
        Task storage task = _in(taskId, State.Open);
        if (msg.sender != task.submitter) revert NotTheSubmitter(msg.sender, task.submitter);
        _end(taskId, task, State.Cancelled, address(0), 0, 0);
    }

    /// @inheritdoc IMarket
    function expire(uint256 taskId) external {
        Task storage task = _in(taskId, State.Open);
        uint256 end = uint256(task.since) + task.auctionSeconds + HOLD_SECONDS;
        if (block.timestamp <= end) revert NotLate(end, block.timestamp);
        _end(taskId, task, State.Cancelled, address(0), 0, 0);
    }

    /* REGISTERING */

    /// @inheritdoc IMarket
    function register(
        uint256 taskId,
        bytes32 checkpointRoot,
        bytes32 finalRoot,
        bytes32[] calldata first,
        bytes32[] calldata last,
        string calldata locations
    ) external {
        Task storage task = _in(taskId, State.Taken);
        if (msg.sender != task.solver) revert NotTheSolver(msg.sender, task.solver);
        _requireInTime(task);
        _openEnd(task, task.initialRoot, 0, first, checkpointRoot);
        _openEnd(task, finalRoot, task.segments, last, checkpointRoot);
        task.checkpointRoot = checkpointRoot;
        task.finalRoot = finalRoot;
        task.state = State.Verifying;
        emit Registered(taskId, msg.sender, checkpointRoot, finalRoot, locations);
        VERIFICATION.beginReplay(taskId, task.verifiers);
    }

    function _requireInTime(Task storage task) private view {
        uint256 deadline = uint256(task.since) + task.trainSeconds;
        if (block.timestamp > deadline) revert TooLate(deadline, block.timestamp);
    }

    function _openEnd(Task storage task, bytes32 state, uint256 index, bytes32[] calldata proof, bytes32 checkpointRoot)
        private
        view
    {
        // INVARIANT: the training started where the task says, and its final state is the one registered.
        Trees.verify(state, index, Trees.depthOf(uint256(task.segments) + 1), proof, checkpointRoot);
    }

    /* CALLED BY THE OTHER CONTRACTS */

    modifier onlyModule() {
        // INVARIANT: only the contracts of this deployment end a task.
        if (
            msg.sender != SETTLEMENT && msg.sender != address(VERIFICATION) && msg.sender != CLAIMS
                && msg.sender != DEMANDS
        ) revert NotAModule(msg.sender);
        _;
    }

    /// @inheritdoc IMarket
    function open(uint256 taskId, bytes32 thresholdRoot) external onlyModule {
        Task storage task = _in(taskId, State.Profiling);
        task.thresholdRoot = thresholdRoot;
        task.state = State.Open;
        task.since = uint40(block.timestamp);
        emit Opened(taskId, thresholdRoot, task.lowestReward, task.highestReward, block.timestamp);
    }

    /// @inheritdoc IMarket
    function settled(uint256 taskId) external onlyModule {
        Task storage task = _in(taskId, State.Verifying);
        _end(taskId, task, State.Settled, address(0), 0, 0);
    }

    /// @inheritdoc IMarket
    function failed(uint256 taskId, address finder) external onlyModule returns (uint256 finders) {
        Task storage task = _in(taskId, State.Verifying);
        uint256 fees = uint256(task.verifiers) * task.verifierFee;
        uint256 stake = stakeOf(taskId) - chargeOf[taskId];
        finders = partDown(stake - fees, FINDER_RATE);
        _end(taskId, task, State.Failed, finder, finders, fees);
    }

    /// @inheritdoc IMarket
    function abandoned(uint256 taskId, bool unavailable) external onlyModule {
        Task storage task = _tasks[taskId];
        if (task.state != State.Profiling && task.state != State.Verifying) revert WrongState(taskId, task.state);
        _end(taskId, task, unavailable ? State.Unavailable : State.Unverified, address(0), 0, 0);
    }

    /// @inheritdoc IMarket
    function refused(uint256 taskId) external onlyModule {
        _end(taskId, _in(taskId, State.Profiling), State.Refused, address(0), 0, 0);
    }

    /// @inheritdoc IMarket
    function refuted(uint256 taskId, address refuter) external onlyModule returns (bool isLive) {
        Task storage task = _tasks[taskId];
        isLive = task.state != State.None && task.state < State.Settled;
        if (isLive) _end(taskId, task, State.Void, refuter, partDown(task.highestReward, REFUTER_RATE), 0);
    }

    /// @inheritdoc IMarket
    function chargeSolver(uint256 taskId, uint256 charge) external onlyModule {
        Task storage task = _in(taskId, State.Verifying);
        // INVARIANT: charges leave enough for all fees due and for whoever finds a fault.
        uint256 rest = STAKE_FLOOR - chargeOf[taskId];
        if (charge > rest) charge = rest;
        chargeOf[taskId] += charge;
        STAKES.move(Class.Locked, uint160(task.solver), Class.Pool, 0, charge);
    }

    /* THE END OF A TASK */

    /// @dev Moves the escrow and the solver's stake to where section 5 of the specification says, except for what the rounds
    /// still running may be due: that stays in escrow until each of them is released (`Settlement.release`).
    /// @param share What the finder or refuter gets.
    /// @param fees Fees due from the solver's stake (Failed).
    function _end(uint256 taskId, Task storage task, State state, address finder, uint256 share, uint256 fees) private {
        State before = task.state;
        task.state = state;
        if (state == State.Failed) _endFailed(taskId, task, finder, share, fees);
        else _endOtherwise(taskId, task, before, finder, share);
        emit Finished(taskId, state, finder, share);
    }

    function _endFailed(uint256 taskId, Task storage task, address finder, uint256 share, uint256 fees) private {
        uint256 stake = stakeOf(taskId) - chargeOf[taskId];
        uint256 solver = uint160(task.solver);
        STAKES.move(Class.Escrow, taskId, Class.Credit, uint160(task.submitter), STAKES.balanceOf(Class.Escrow, taskId));
        // Shares of the rounds that found the failure wait in escrow, like the fees.
        STAKES.move(Class.Locked, solver, Class.Escrow, taskId, finder == address(0) ? fees + share : fees);
        if (finder != address(0)) STAKES.move(Class.Locked, solver, Class.Credit, uint160(finder), share);
        STAKES.move(Class.Locked, solver, Class.Pool, 0, stake - fees - share);
    }

    function _endOtherwise(uint256 taskId, Task storage task, State before, address finder, uint256 share) private {
        uint256 rest = STAKES.balanceOf(Class.Escrow, taskId) - share;
        // Rounds not yet released: the shares of a proof, or the profile.
        if (before == State.Verifying) rest -= uint256(task.verifiers) * (uint256(task.verifierFee) + taxOf(taskId));
        else if (before == State.Profiling) rest -= uint256(task.profilerFee) + taxOf(taskId);
        uint256 solver = uint160(task.solver);
        if (solver != 0) {
            uint256 earned;
            if (task.state == State.Settled) earned = task.price;
            else if (task.state == State.Void) earned = partDown(task.price, COMPENSATION_RATE);
            _returnStake(taskId, task);
            STAKES.move(Class.Escrow, taskId, Class.Credit, solver, earned);
            rest -= earned;
        }
        STAKES.move(Class.Escrow, taskId, Class.Credit, uint160(finder), share);
        STAKES.move(Class.Escrow, taskId, Class.Credit, uint160(task.submitter), rest);
    }

    function _returnStake(uint256 taskId, Task storage task) private {
        uint256 solver = uint160(task.solver);
        uint256 forfeit = task.state == State.Unavailable ? partDown(task.price, UNAVAILABLE_RATE) : 0;
        STAKES.move(Class.Locked, solver, Class.Pool, 0, forfeit);
        STAKES.move(Class.Locked, solver, Class.Free, solver, stakeOf(taskId) - chargeOf[taskId] - forfeit);
    }

    function _in(uint256 taskId, State state) private view returns (Task storage task) {
        task = _tasks[taskId];
        // INVARIANT: states only move forward, by the calls their state allows.
        if (task.state != state) revert WrongState(taskId, task.state);
    }

    /* VIEWS */

    /// @inheritdoc IMarket
    function taskOf(uint256 taskId) external view returns (Task memory) {
        return _tasks[taskId];
    }

    /// @inheritdoc IMarket
    function stateOf(uint256 taskId) external view returns (State) {
        return _tasks[taskId].state;
    }

    /// @inheritdoc IMarket
    function termsOf(uint256 taskId) external view returns (Terms memory) {
        Task storage task = _tasks[taskId];
        return Terms({
            submitter: task.submitter,
            solver: task.solver,
            state: task.state,
            exact: task.exact,
            segments: task.segments,
            interval: task.interval,
            verifiers: task.verifiers,
            perVerifier: task.perVerifier,
            profileSegments: task.profileSegments,
            highestReward: task.highestReward,
            price: task.price,
            verifierFee: task.verifierFee,
            profilerFee: task.profilerFee,
            replayWork: task.replayWork,
            profileWork: task.profileWork
        });
    }

    /// @inheritdoc IMarket
    function programRootOf(uint256 taskId) external view returns (bytes32) {
        return _tasks[taskId].programRoot;
    }

    /// @inheritdoc IMarket
    function checkpointRootOf(uint256 taskId) external view returns (bytes32) {
        return _tasks[taskId].checkpointRoot;
    }

    /// @inheritdoc IMarket
    function taxOf(uint256 taskId) public view returns (uint256) {
        Task storage task = _tasks[taskId];
        return partDown(task.highestReward, TAX_RATE) / (uint256(task.verifiers) + (task.exact ? 0 : 1));
    }

    /// @inheritdoc IMarket
    function exponentOf(uint256 work) public pure returns (uint256 exponent) {
        while (uint256(1) << exponent < work) exponent++;
    }
}
