// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Claim, ClaimKind, IClaims} from "./interfaces/IClaims.sol";
import {IMarket, State, Task, Terms} from "./interfaces/IMarket.sol";
import {IVerification, Round, RoundState} from "./interfaces/IVerification.sol";
import {Checkpoint, Leaves, ProfileLeaf, Registered, ReplayLeaf} from "./libraries/Leaves.sol";
import {Trees} from "./libraries/Trees.sol";
import {Modules, Parameters} from "./Parameters.sol";
import {Class, Stakes} from "./Stakes.sol";

/// @notice Who claims what about one subject (a round's share, or an accused segment) at this moment.
/// @param root Root of the claim that holds now.
/// @param claimant Who answers for it.
/// @param until End of the time in which cases can be opened on it.
/// @param openCases Cases not yet closed on any claim of this line.
/// @param passes Whether the proof, or the profile, passes by this claim.
/// @param hasFallen Whether the line's first claim has fallen.
/// @param isClosed Whether the line was an accusation and is over.
/// @param bond Bucket (class Case) of the bond behind the claim; zero while a verifier's seat stands behind it.
struct Line {
    bytes32 root;
    address claimant;
    uint40 until;
    uint16 openCases;
    bool passes;
    bool hasFallen;
    bool isClosed;
    uint256 bond;
}

/// @notice A claim that a case can be opened on, or could.
struct Record {
    uint256 line;
    bytes32 root;
    address claimant;
    ClaimKind kind;
}

/// @notice A root whose leaves are on chain.
struct Published {
    bool isKnown;
    bool passes;
    bytes32 thresholds;
}

/// @notice An accused segment that was not drawn.
struct Accusation {
    uint256 taskId;
    uint32 segment;
}

/// @notice A case of the court.
struct Case {
    uint256 claimId;
    address challenger;
    bool isOpen;
    bytes32 answerRoot;
}

/// @title Claims
/// @notice Keeps the claims the court judges: one line of claims for every round and every accused segment, and the training claim
/// of every task in exact mode. When a claim falls, the answer that felled it becomes the claim, with a window of its own.
contract Claims is IClaims {
    Stakes private immutable STAKES;
    IMarket private immutable MARKET;
    IVerification private immutable VERIFICATION;
    address private immutable COURT;
    address private immutable SETTLEMENT;

    /// @notice Bond of a case, in wei.
    uint256 public immutable CASE_BOND;
    /// @notice Bond of an accusation, in wei.
    uint256 public immutable ACCUSATION_BOND;
    uint256 private immutable DISPUTE_SECONDS;
    uint256 private immutable WORK_PER_SECOND;

    mapping(uint256 line => Line) private _lines;
    mapping(uint256 claimId => Record) private _records;
    mapping(uint256 line => mapping(bytes32 root => Published)) private _published;
    mapping(uint256 line => Accusation) private _accusations;
    mapping(uint256 caseId => Case) private _cases;
    /// @notice Open cases on a task's training claim, and accusations not yet closed: the task does not settle while there are any.
    mapping(uint256 taskId => uint256 count) public pendingOf;
    /// @notice What clock extensions of the verifier have cost it in a round, in wei.
    mapping(uint256 roundId => uint256 amount) public chargeOf;
    /// @notice The case or the accusation that failed a task; zero where none has.
    mapping(uint256 taskId => uint256 caseOrLine) public causeOf;

    event Entered(uint256 indexed line, address indexed claimant, bytes32 root, bool passes, uint256 until);
    event Opened(uint256 indexed claimId, uint256 indexed line, bytes32 root, address indexed claimant, ClaimKind kind);
    event AnswerPublished(uint256 indexed line, bytes32 indexed root, address publisher, bool passes);
    event ReplayPublished(uint256 indexed line, bytes32 indexed root, ReplayLeaf[] leaves);
    event ProfilePublished(uint256 indexed line, bytes32 indexed root, ProfileLeaf[] leaves);
    event Accused(
        uint256 indexed taskId, uint256 indexed line, address indexed accuser, uint32 segment, ReplayLeaf leaf, uint64 drawSeed
    );
    event AccusationClosed(uint256 indexed taskId, uint256 indexed line, address indexed claimant, bool stands);
    event CaseOpened(uint256 indexed caseId, uint256 indexed claimId, address indexed challenger, bytes32 answerRoot);
    event CaseClosed(uint256 indexed caseId, uint256 indexed claimId, bool challengerWon, int256 overshoot);
    event Fell(
        uint256 indexed line, bytes32 root, address claimant, bytes32 newRoot, address indexed newClaimant, bool passes, uint256 until
    );

    error NotAModule(address caller);
    error NoSuchClaim(uint256 claimId);
    error NoSuchLine(uint256 line);
    error WrongState(uint256 taskId, State state);
    error NotTheCurrentClaim(uint256 claimId, bytes32 root, bytes32 current);
    error WindowOver(uint256 until, uint256 time);
    error WindowOpen(uint256 until, uint256 time, uint256 openCases);
    error NotChallengeable(uint256 taskId);
    error WrongValue(uint256 given, uint256 expected);
    error NotPublished(uint256 line, bytes32 root);
    error NothingToDecide(bytes32 root);
    error SegmentDrawn(uint32 segment);
    error NoSuchSegment(uint32 segment, uint32 segments);
    error NothingWrong(uint32 segment);
    error WrongMode(uint256 taskId, bool exact);
    error CaseExists(uint256 caseId);
    error NoOpenCase(uint256 caseId);
    error AlreadyAccused(uint256 line);

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

    /// @notice A verifier has disclosed: its claim holds unless it falls.
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

    /// @notice Puts the leaves of an answer to a round's share or to an accused segment on chain, and opens the line's present
    /// claim to the court. A case needs both. Anyone may call.
    /// @param line The round or the accusation.
    /// @return claimId Number of the present claim.
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

    /// @notice The same for a profile.
    function publishProfile(uint256 line, ProfileLeaf[] calldata leaves) external returns (uint256 claimId) {
        (uint256 taskId, uint8 number,) = _subject(line);
        if (number != VERIFICATION.PROFILE()) revert NoSuchLine(line);
        (bytes32 root, bool passes) = Leaves.profile(leaves, MARKET.termsOf(taskId).profileSegments);
        claimId = _publish(line, ClaimKind.Profile, root, passes, leaves[leaves.length - 1].thresholds);
        emit ProfilePublished(line, root, leaves);
    }

    /// @notice Opens the training claim of a task in exact mode to the court. Anyone may call.
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

    /// @notice Accuses a segment that was not drawn, in tolerant mode, by a replay claim of one leaf with a bond. Trace positions
    /// are those of the task's segment seed.
    /// @param leaf The claim's only leaf.
    /// @param checkpoint The solver's checkpoint after the segment, opened.
    /// @return line Number of the accusation.
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

    /// @notice Closes an accusation that nobody can dispute any more. If what stands says that the segment fails, so does the
    /// task. Anyone may call.
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

    /// @notice Returns the bond behind a round's claim to its claimant, when the round is released.
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

    /// @notice Whether cases on the training claim, and accusations, are still taken: until every round's claim stands.
    function isChallengeable(uint256 taskId) public view returns (bool) {
        uint8 verifiers = MARKET.termsOf(taskId).verifiers;
        for (uint8 number = 0; number < verifiers; number++) {
            (uint256 roundId, RoundState state) = VERIFICATION.currentRound(taskId, number);
            if (state != RoundState.Disclosed || !isStanding(roundId)) return true;
        }
        return false;
    }

    /// @notice Whether the line's claim can be disputed no more: its window is over, and every case was played.
    function isStanding(uint256 line) public view returns (bool) {
        Line storage entry = _lines[line];
        return entry.claimant != address(0) && block.timestamp > entry.until && entry.openCases == 0;
    }

    /// @notice A line as it stands.
    function lineOf(uint256 line) external view returns (Line memory) {
        return _lines[line];
    }

    /// @notice What is known of a root in a line.
    function publishedOf(uint256 line, bytes32 root) external view returns (Published memory) {
        return _published[line][root];
    }

    /// @notice A case as it stands.
    function caseOf(uint256 caseId) external view returns (Case memory) {
        return _cases[caseId];
    }

    /// @notice Number of the claim with that root in a line.
    /// @dev The claimant is part of it: what an account showed in the court for a root, and the cases it let itself lose,
    /// must not bind another that claims the same root after it.
    function claimIdOf(uint256 line, bytes32 root, address claimant) public pure returns (uint256) {
        return uint256(keccak256(abi.encode("claim", line, root, claimant)));
    }

    /// @notice Line of a task's training claim.
    function trainingLineOf(uint256 taskId) public pure returns (uint256) {
        return uint256(keccak256(abi.encode("training", taskId)));
    }

    /// @notice Line of an accusation.
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
