// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Claim, ClaimKind, IClaims} from "./interfaces/IClaims.sol";
import {IMarket, State, Task, Terms} from "./interfaces/IMarket.sol";
import {Case, IMarketClaims, Line, Published} from "./interfaces/IMarketClaims.sol";
import {IVerification, Round, RoundState} from "./interfaces/IVerification.sol";
import {Checkpoint, Leaves, ProfileLeaf, Registered, ReplayLeaf} from "./libraries/Leaves.sol";
import {Trees} from "./libraries/Trees.sol";
import {Modules, Parameters} from "./Parameters.sol";
import {Class, Stakes} from "./Stakes.sol";

/// @notice A claim that a case can be opened on, or could.
struct Record {
    uint256 line;
    bytes32 root;
    address claimant;
    ClaimKind kind;
}

/// @notice An accused segment that was not drawn.
struct Accusation {
    uint256 taskId;
    uint32 segment;
}

/// @title Claims
/// @notice Keeps the claims the court judges: one line of claims for every round and every accused segment, and the training claim
/// of every task in exact mode. When a claim falls, the answer that felled it becomes the claim, with a window of its own.
contract Claims is IMarketClaims {
    Stakes private immutable STAKES;
    IMarket private immutable MARKET;
    IVerification private immutable VERIFICATION;
    address private immutable COURT;
    address private immutable SETTLEMENT;

    /// @inheritdoc IMarketClaims
    uint256 public immutable CASE_BOND;
    /// @inheritdoc IMarketClaims
    uint256 public immutable ACCUSATION_BOND;
    uint256 private immutable DISPUTE_SECONDS;
    uint256 private immutable WORK_PER_SECOND;

    mapping(uint256 line => Line) private _lines;
    mapping(uint256 claimId => Record) private _records;
    mapping(uint256 line => mapping(bytes32 root => Published)) private _published;
    mapping(uint256 line => Accusation) private _accusations;
    mapping(uint256 caseId => Case) private _cases;
    /// @inheritdoc IMarketClaims
    mapping(uint256 taskId => uint256 count) public pendingOf;
    /// @inheritdoc IMarketClaims
    mapping(uint256 roundId => uint256 amount) public chargeOf;
    /// @inheritdoc IMarketClaims
    mapping(uint256 taskId => uint256 caseOrLine) public causeOf;

    constructor(Parameters memory parameters, Modules memory modules) {
        STAKES = Stakes(modules.stakes);
        MARKET = IMarket(modules.market);
        VERIFICATION = IVerification(modules.verification);
        COURT = modules.court;
        SETTLEMENT = modules.settlement;
        CASE_BOND = parameters.caseBond;
        ACCUSATION_BOND = parameters.accusationBond;
        DISPUTE_SECONDS = parameters.disputeSeconds;
        WORK_PER_SECOND = parameters.workPerSecond;
    }

    modifier onlyCourt() {
        if (msg.sender != COURT) revert NotAModule(msg.sender);
        _;
    }

    /* LINES */

    /// @inheritdoc IMarketClaims
    function enter(
        uint256 roundId,
        address claimant,
        bytes32 root,
        bool passes,
        bytes32 thresholds,
        uint256 until
    ) external {
        if (msg.sender != address(VERIFICATION)) revert NotAModule(msg.sender);
        Line storage line = _lines[roundId];
        line.root = root;
        line.claimant = claimant;
        line.until = uint40(until);
        line.passes = passes;
        // Published as far as it has to be: the threshold vector of a profile is needed when it stands.
        if (thresholds != 0) _published[roundId][root] = Published(true, passes, thresholds);
        emit Entered(roundId, claimant, root, passes, until);
    }

    /// @inheritdoc IMarketClaims
    function publishReplay(uint256 line, ReplayLeaf[] calldata leaves, Checkpoint[] calldata checkpoints)
        external
        returns (uint256 claimId)
    {
        (uint256 taskId, uint8 number, uint32[] memory segments) = _subject(line);
        if (number == VERIFICATION.PROFILE()) revert NoSuchLine(line);
        Terms memory terms = MARKET.termsOf(taskId);
        (bytes32 root, bool passes) = Leaves.replay(
            leaves,
            segments,
            checkpoints,
            _registered(taskId, terms)
        );
        claimId = _publish(line, ClaimKind.Replay, root, passes, 0);
        emit ReplayPublished(line, root, leaves);
    }

    /// @inheritdoc IMarketClaims
    function publishProfile(uint256 line, ProfileLeaf[] calldata leaves) external returns (uint256 claimId) {
        (uint256 taskId, uint8 number,) = _subject(line);
        if (number != VERIFICATION.PROFILE()) revert NoSuchLine(line);
        (bytes32 root, bool passes) = Leaves.profile(leaves, MARKET.termsOf(taskId).profileSegments);
        claimId = _publish(line, ClaimKind.Profile, root, passes, leaves[leaves.length - 1].thresholds);
        emit ProfilePublished(line, root, leaves);
    }

    /// @inheritdoc IMarketClaims
    function publishTraining(uint256 taskId) external returns (uint256 claimId) {
        Task memory task = MARKET.taskOf(taskId);
        if (task.state != State.Verifying) revert WrongState(taskId, task.state);
        if (!task.exact) revert WrongMode(taskId, task.exact);
        uint256 line = trainingLineOf(taskId);
        _accusations[line].taskId = taskId;
        claimId = _record(line, task.checkpointRoot, task.solver, ClaimKind.Training);
    }

    function _publish(uint256 line, ClaimKind kind, bytes32 root, bool passes, bytes32 thresholds)
        private
        returns (uint256 claimId)
    {
        Line storage current = _lines[line];
        if (current.claimant == address(0)) revert NoSuchLine(line);
        _published[line][root] = Published(true, passes, thresholds);
        emit AnswerPublished(line, root, msg.sender, passes);
        claimId = _record(line, current.root, current.claimant, kind);
    }

    function _record(uint256 line, bytes32 root, address claimant, ClaimKind kind) private returns (uint256 claimId) {
        claimId = claimIdOf(line, root, claimant);
        if (_records[claimId].claimant == address(0)) {
            _records[claimId] = Record(line, root, claimant, kind);
            emit Opened(claimId, line, root, claimant, kind);
        }
    }

    /// @dev What a line is about. The share is 0 for an accusation.
    function _subject(uint256 line) private view returns (uint256 taskId, uint8 number, uint32[] memory segments) {
        taskId = _accusations[line].taskId;
        if (taskId != 0) {
            segments = new uint32[](1);
            segments[0] = _accusations[line].segment;
        } else {
            Round memory round = VERIFICATION.roundOf(line);
            taskId = round.taskId;
            number = round.share;
            segments = VERIFICATION.segmentsOf(taskId, number);
        }
    }

    function _taskOf(uint256 line) private view returns (uint256 taskId) {
        taskId = _accusations[line].taskId;
        if (taskId == 0) taskId = VERIFICATION.roundOf(line).taskId;
    }

    /* ACCUSATIONS */

    /// @inheritdoc IMarketClaims
    function accuse(uint256 taskId, uint32 segment, ReplayLeaf[] calldata leaf, Checkpoint[] calldata checkpoint)
        external
        payable
        returns (uint256 line)
    {
        if (msg.value != ACCUSATION_BOND) revert WrongValue(msg.value, ACCUSATION_BOND);
        line = accusationOf(taskId, segment, msg.sender);
        if (_accusations[line].taskId != 0) revert AlreadyAccused(line);
        Registered memory registered = _accusable(taskId, segment);
        _enterAccusation(line, taskId, segment, _accusedRoot(segment, leaf, checkpoint, registered));
        emit Accused(taskId, line, msg.sender, segment, leaf[0], VERIFICATION.shareOf(taskId, 0).segmentSeed);
    }

    /// @dev Reverts unless the segment can be accused now.
    function _accusable(uint256 taskId, uint32 segment) private view returns (Registered memory) {
        Terms memory terms = MARKET.termsOf(taskId);
        if (terms.state != State.Verifying) revert WrongState(taskId, terms.state);
        // INVARIANT: in exact mode the training claim itself is open to everyone.
        if (terms.exact) revert WrongMode(taskId, terms.exact);
        if (segment >= terms.segments) revert NoSuchSegment(segment, terms.segments);
        if (VERIFICATION.shareOf(taskId, 0).segmentSeed == 0 || !isChallengeable(taskId)) {
            revert NotChallengeable(taskId);
        }
        for (uint8 number = 0; number < terms.verifiers; number++) {
            uint32[] memory drawn = VERIFICATION.segmentsOf(taskId, number);
            for (uint256 i = 0; i < drawn.length; i++) {
                // INVARIANT: what was drawn is disputed in its round.
                if (drawn[i] == segment) revert SegmentDrawn(segment);
            }
        }
        return _registered(taskId, terms);
    }

    function _enterAccusation(uint256 line, uint256 taskId, uint32 segment, bytes32 root) private {
        _accusations[line] = Accusation(taskId, segment);
        pendingOf[taskId]++;
        Line storage entry = _lines[line];
        entry.root = root;
        entry.claimant = msg.sender;
        entry.until = uint40(_window(taskId, 0));
        entry.bond = line;
        _published[line][root] = Published(true, false, 0);
        STAKES.enter{value: msg.value}(Class.Case, line);
        emit Entered(line, msg.sender, root, false, entry.until);
        _record(line, root, msg.sender, ClaimKind.Replay);
    }

    function _registered(uint256 taskId, Terms memory terms) private view returns (Registered memory) {
        return Registered(MARKET.checkpointRootOf(taskId), Trees.depthOf(uint256(terms.segments) + 1), terms.exact);
    }

    function _accusedRoot(
        uint32 segment,
        ReplayLeaf[] calldata leaf,
        Checkpoint[] calldata checkpoint,
        Registered memory registered
    ) private view returns (bytes32 root) {
        uint32[] memory segments = new uint32[](1);
        segments[0] = segment;
        bool passes;
        (root, passes) = Leaves.replay(leaf, segments, checkpoint, registered);
        // INVARIANT: an accusation says that something is wrong.
        if (passes) revert NothingWrong(segment);
    }

    /// @inheritdoc IMarketClaims
    function closeAccusation(uint256 line) external {
        uint256 taskId = _accusations[line].taskId;
        Line storage entry = _lines[line];
        // INVARIANT: an accusation is closed once.
        if (taskId == 0 || entry.claimant == address(0) || entry.isClosed) revert NoSuchLine(line);
        bool isLive = MARKET.stateOf(taskId) == State.Verifying;
        // INVARIANT: a claim stands only when its window is over and every case against it was lost.
        if (entry.openCases != 0 || (isLive && block.timestamp <= entry.until)) {
            revert WindowOpen(entry.until, block.timestamp, entry.openCases);
        }
        entry.isClosed = true;
        pendingOf[taskId]--;
        address claimant = entry.claimant;
        _moveAll(entry.bond, Class.Credit, uint160(claimant));
        bool stands = isLive && !entry.passes;
        emit AccusationClosed(taskId, line, claimant, stands);
        if (stands) _fail(taskId, claimant, line);
    }

    /* CASES */

    /// @inheritdoc IClaims
    function caseOpened(uint256 caseId, uint256 claimId, address challenger, bytes32 answerRoot)
        external
        payable
        onlyCourt
    {
        Record storage record = _existing(claimId);
        // INVARIANT: the number of a case is used once.
        if (_cases[caseId].challenger != address(0)) revert CaseExists(caseId);
        if (msg.value != CASE_BOND) revert WrongValue(msg.value, CASE_BOND);
        uint256 taskId = _taskOf(record.line);
        if (record.kind == ClaimKind.Training) {
            State state = MARKET.stateOf(taskId);
            if (state != State.Verifying) revert WrongState(taskId, state);
            if (!isChallengeable(taskId)) revert NotChallengeable(taskId);
            if (answerRoot != 0) revert NothingToDecide(answerRoot);
            pendingOf[taskId]++;
        } else {
            Line storage line = _lines[record.line];
            // INVARIANT: cases are opened on what holds now, while its window is open.
            if (line.root != record.root || line.claimant != record.claimant) {
                revert NotTheCurrentClaim(claimId, record.root, line.root);
            }
            if (block.timestamp > line.until || line.isClosed) revert WindowOver(line.until, block.timestamp);
            if (MARKET.stateOf(taskId) == State.Void) revert WrongState(taskId, State.Void);
            if (answerRoot == record.root) revert NothingToDecide(answerRoot);
            // INVARIANT: what may take the claim's place is known in full beforehand.
            if (!_published[record.line][answerRoot].isKnown) revert NotPublished(record.line, answerRoot);
            line.openCases++;
        }
        _cases[caseId] = Case(claimId, challenger, true, answerRoot);
        STAKES.enter{value: msg.value}(Class.Case, caseId);
        emit CaseOpened(caseId, claimId, challenger, answerRoot);
    }

    /// @inheritdoc IClaims
    function caseClosed(uint256 caseId, uint256 claimId, bool challengerWon, int256 overshoot) external onlyCourt {
        Case storage entry = _cases[caseId];
        // INVARIANT: a case is closed once, and only for the claim it was opened on.
        if (!entry.isOpen || entry.claimId != claimId) revert NoOpenCase(caseId);
        entry.isOpen = false;
        Record storage record = _records[claimId];
        uint256 taskId = _taskOf(record.line);
        emit CaseClosed(caseId, claimId, challengerWon, overshoot);
        if (record.kind == ClaimKind.Training) {
            pendingOf[taskId]--;
            _closeTraining(caseId, taskId, entry.challenger, record.claimant, challengerWon, overshoot);
        } else {
            _lines[record.line].openCases--;
            _closeReplay(caseId, taskId, entry, record, challengerWon, overshoot);
        }
    }

    function _closeTraining(
        uint256 caseId,
        uint256 taskId,
        address challenger,
        address solver,
        bool challengerWon,
        int256 overshoot
    ) private {
        State state = MARKET.stateOf(taskId);
        if (state == State.Void) {
            _moveAll(caseId, Class.Credit, uint160(challenger));
            return;
        }
        if (overshoot > 0) _chargeBond(caseId, uint256(overshoot));
        else if (overshoot < 0 && state == State.Verifying) MARKET.chargeSolver(taskId, uint256(-overshoot));
        if (!challengerWon) {
            _forfeit(caseId, solver);
            return;
        }
        _moveAll(caseId, Class.Credit, uint160(challenger));
        // The first to win fails the task; others have their bonds back.
        if (state == State.Verifying) _fail(taskId, challenger, caseId);
    }

    function _fail(uint256 taskId, address finder, uint256 cause) private {
        causeOf[taskId] = cause;
        MARKET.failed(taskId, finder);
    }

    function _closeReplay(
        uint256 caseId,
        uint256 taskId,
        Case storage entry,
        Record storage record,
        bool challengerWon,
        int256 overshoot
    ) private {
        address challenger = entry.challenger;
        if (MARKET.stateOf(taskId) == State.Void) {
            // A program that is not well-formed decides nothing.
            _moveAll(caseId, Class.Credit, uint160(challenger));
            return;
        }
        Line storage line = _lines[record.line];
        bool isCurrent = line.root == record.root && line.claimant == record.claimant;
        if (overshoot > 0) {
            _chargeBond(caseId, uint256(overshoot));
        } else if (overshoot < 0 && isCurrent) {
            if (line.bond != 0) _chargeBond(line.bond, uint256(-overshoot));
            else _chargeVerifier(record.line, line.claimant, uint256(-overshoot));
        }
        if (!challengerWon) {
            _forfeit(caseId, isCurrent ? record.claimant : address(0));
            return;
        }
        if (!isCurrent) {
            _moveAll(caseId, Class.Credit, uint160(challenger));
            return;
        }
        bytes32 root = entry.answerRoot;
        if (line.bond != 0) _forfeit(line.bond, challenger);
        line.hasFallen = true;
        line.bond = caseId;
        line.root = root;
        line.claimant = challenger;
        line.passes = _published[record.line][root].passes;
        uint8 number = _accusations[record.line].taskId != 0 ? 0 : VERIFICATION.roundOf(record.line).share;
        line.until = uint40(_window(taskId, number));
        emit Fell(record.line, record.root, record.claimant, root, challenger, line.passes, line.until);
        _record(record.line, root, challenger, record.kind);
    }

    /// @dev The loser's bond: half to the opponent, the rest to the pool.
    function _forfeit(uint256 bond, address opponent) private {
        uint256 half = opponent == address(0) ? 0 : STAKES.balanceOf(Class.Case, bond) / 2;
        STAKES.move(Class.Case, bond, Class.Credit, uint160(opponent), half);
        _moveAll(bond, Class.Pool, 0);
    }

    function _chargeBond(uint256 bond, uint256 charge) private {
        uint256 held = STAKES.balanceOf(Class.Case, bond);
        STAKES.move(Class.Case, bond, Class.Pool, 0, charge < held ? charge : held);
    }

    function _chargeVerifier(uint256 roundId, address verifier, uint256 charge) private {
        // A seat can be used up by charges, not more.
        uint256 rest = STAKES.SEAT() - chargeOf[roundId];
        if (charge > rest) charge = rest;
        chargeOf[roundId] += charge;
        STAKES.move(Class.Locked, uint160(verifier), Class.Pool, 0, charge);
    }

    function _moveAll(uint256 bond, Class to, uint256 toId) private {
        STAKES.move(Class.Case, bond, to, toId, STAKES.balanceOf(Class.Case, bond));
    }

    /// @inheritdoc IMarketClaims
    function returnBond(uint256 roundId) external {
        if (msg.sender != SETTLEMENT) revert NotAModule(msg.sender);
        Line storage line = _lines[roundId];
        uint256 bond = line.bond;
        if (bond == 0) return;
        _moveAll(bond, Class.Credit, uint160(line.claimant));
    }

    /* PROGRAMS */

    /// @inheritdoc IClaims
    function programRefuted(uint256 taskId, address refuter) external onlyCourt {
        MARKET.refuted(taskId, refuter);
    }

    /// @inheritdoc IClaims
    function programRootOf(uint256 taskId) external view returns (bytes32) {
        return MARKET.programRootOf(taskId);
    }

    /* VIEWS */

    /// @inheritdoc IClaims
    function claim(uint256 claimId) external view returns (Claim memory result) {
        Record storage record = _existing(claimId);
        uint256 taskId = _taskOf(record.line);
        Task memory task = MARKET.taskOf(taskId);
        result.kind = record.kind;
        result.claimant = record.claimant;
        result.root = record.root;
        result.programRoot = task.programRoot;
        result.dataRoot = task.dataRoot;
        result.initialRoot = task.initialRoot;
        result.segments = task.segments;
        result.interval = task.interval;
        result.steps = task.steps;
        result.taskSeed = task.taskSeed;
        result.exact = task.exact;
        if (record.kind == ClaimKind.Profile) {
            result.leaves = task.profileSegments;
        } else {
            result.checkpointRoot = task.checkpointRoot;
            result.thresholdRoot = task.thresholdRoot;
            result.leaves = task.perVerifier;
        }
        if (record.kind == ClaimKind.Training) {
            result.leaves = task.segments + 1;
        } else if (_accusations[record.line].taskId != 0) {
            result.leaves = 1;
            result.drawSeed = VERIFICATION.shareOf(taskId, 0).segmentSeed;
        } else {
            result.drawSeed = VERIFICATION.roundOf(record.line).drawSeed;
        }
    }

    /// @inheritdoc IClaims
    function segmentOf(uint256 claimId, uint32 leaf) external view returns (uint32) {
        Record storage record = _existing(claimId);
        if (record.kind == ClaimKind.Training) return leaf - 1;
        (,, uint32[] memory segments) = _subject(record.line);
        return segments[leaf];
    }

    /// @inheritdoc IMarketClaims
    function isChallengeable(uint256 taskId) public view returns (bool) {
        uint8 verifiers = MARKET.termsOf(taskId).verifiers;
        for (uint8 number = 0; number < verifiers; number++) {
            (uint256 roundId, RoundState state) = VERIFICATION.currentRound(taskId, number);
            if (state != RoundState.Disclosed || !isStanding(roundId)) return true;
        }
        return false;
    }

    /// @inheritdoc IMarketClaims
    function isStanding(uint256 line) public view returns (bool) {
        Line storage entry = _lines[line];
        return entry.claimant != address(0) && block.timestamp > entry.until && entry.openCases == 0;
    }

    /// @inheritdoc IMarketClaims
    function lineOf(uint256 line) external view returns (Line memory) {
        return _lines[line];
    }

    /// @inheritdoc IMarketClaims
    function publishedOf(uint256 line, bytes32 root) external view returns (Published memory) {
        return _published[line][root];
    }

    /// @inheritdoc IMarketClaims
    function caseOf(uint256 caseId) external view returns (Case memory) {
        return _cases[caseId];
    }

    /// @inheritdoc IMarketClaims
    function claimIdOf(uint256 line, bytes32 root, address claimant) public pure returns (uint256) {
        return uint256(keccak256(abi.encode("claim", line, root, claimant)));
    }

    /// @inheritdoc IMarketClaims
    function trainingLineOf(uint256 taskId) public pure returns (uint256) {
        return uint256(keccak256(abi.encode("training", taskId)));
    }

    /// @inheritdoc IMarketClaims
    function accusationOf(uint256 taskId, uint32 segment, address accuser) public pure returns (uint256) {
        return uint256(keccak256(abi.encode("accusation", taskId, segment, accuser)));
    }

    function _existing(uint256 claimId) private view returns (Record storage record) {
        record = _records[claimId];
        if (record.claimant == address(0)) revert NoSuchClaim(claimId);
    }

    function _window(uint256 taskId, uint8 number) private view returns (uint256) {
        Terms memory terms = MARKET.termsOf(taskId);
        uint256 work = number == VERIFICATION.PROFILE() ? terms.profileWork : terms.replayWork;
        return block.timestamp + DISPUTE_SECONDS + work / WORK_PER_SECOND;
    }
}
