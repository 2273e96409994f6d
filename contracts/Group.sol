// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {Court} from "./Court.sol";
import {GroupState, IGroup, Limits, Position, Work} from "./interfaces/IGroup.sol";
import {IMarket, State, Terms} from "./interfaces/IMarket.sol";
import {IMarketClaims, Line} from "./interfaces/IMarketClaims.sol";
import {IPresence} from "./interfaces/IPresence.sol";
import {IStageClaims} from "./interfaces/IStageClaims.sol";
import {IVerification} from "./interfaces/IVerification.sol";
import {Agreement, Agreements, Member, Statement} from "./libraries/Agreements.sol";
import {Case} from "./libraries/Cases.sol";
import {Division} from "./libraries/Division.sol";
import {Leaves, ReplayLeaf} from "./libraries/Leaves.sol";
import {Trees} from "./libraries/Trees.sol";
import {MILLION, Modules} from "./Parameters.sol";
import {Class, Stakes} from "./Stakes.sol";

/// @title Group
/// @notice One group's account on the market, and the ledger of what it owes its members.
///
/// Contributions wait here; what a task's stake needs goes to `Stakes` when it is taken. Once the task is over, what the market
/// paid is split by shares, less what of them was to be earned by being there and was not, and what is left of the contributions
/// goes back, less the loss, which is charged first to members that are provably at fault. At any time after that,
///
///     balance + stake on its way out of the market = credits + dues.
contract Group is IGroup {
    using Agreements for Statement;

    Stakes private immutable STAKES;
    IMarket private immutable MARKET;
    IVerification private immutable VERIFICATION;
    IMarketClaims private immutable CLAIMS;
    Court private immutable COURT;
    IStageClaims private immutable STAGE_CLAIMS;
    IPresence private immutable PRESENCE;
    address private immutable FACTORY;

    /// @inheritdoc IGroup
    GroupState public state;
    /// @inheritdoc IGroup
    address public leader;
    /// @dev When the leader last did something.
    uint40 private _seenAt;
    /// @dev When the task was over for the group.
    uint40 private _closedAt;
    /// @dev Contributions not in yet.
    uint8 private _missing;
    /// @inheritdoc IGroup
    uint256 public task;
    /// @dev What was staked for the task, and what of it the market has still to give back.
    uint128 private _staked;
    uint128 private _returning;
    Limits private _limits;
    Position[] private _members;
    uint8[] private _owners;
    /// @notice Segments for which the leader acted in court for a silent owner. What it showed binds every case on the segment.
    mapping(uint32 segment => bool) public isRelieved;

    constructor(Modules memory modules, address stageClaims, address presence) {
        STAKES = Stakes(modules.stakes);
        MARKET = IMarket(modules.market);
        VERIFICATION = IVerification(modules.verification);
        CLAIMS = IMarketClaims(modules.claims);
        COURT = Court(modules.court);
        STAGE_CLAIMS = IStageClaims(stageClaims);
        PRESENCE = IPresence(presence);
        FACTORY = msg.sender;
    }

    /// @notice Coin comes from the market's ledger, in `collect`, and from contributions.
    receive() external payable {
        if (msg.sender != address(STAKES)) revert WrongValue(msg.value, 0);
    }

    /// @notice Called by the factory when it makes the group, in the same transaction.
    function initialize(Agreement calldata agreement) external {
        if (msg.sender != FACTORY) revert NotTheFactory(msg.sender);
        // INVARIANT: what was agreed is never agreed anew.
        _in(GroupState.None);
        state = GroupState.Forming;
        leader = agreement.members[0].account;
        _seenAt = uint40(block.timestamp);
        _limits = Limits(
            agreement.task,
            agreement.leastPrice,
            agreement.mostStake,
            agreement.formBy,
            agreement.takeBy,
            agreement.patience,
            agreement.evidenceSeconds,
            agreement.presenceRate
        );
        _owners = agreement.owners;
        uint8 missing;
        for (uint256 i = 0; i < agreement.members.length; i++) {
            Member calldata member = agreement.members[i];
            bool hasPaid = member.contribution == 0;
            if (!hasPaid) missing++;
            _members.push(Position(member.account, member.share, hasPaid, false, false, 0, member.contribution, 0, 0));
        }
        _missing = missing;
        if (missing == 0) state = GroupState.Ready;
    }

    modifier onlyLeader() {
        if (msg.sender != leader) revert NotTheLeader(msg.sender, leader);
        _seenAt = uint40(block.timestamp);
        _;
    }

    /* FORMING */

    /// @inheritdoc IGroup
    function contribute(uint256 place) external payable {
        _in(GroupState.Forming);
        if (block.timestamp > _limits.formBy) revert TooLate(_limits.formBy, block.timestamp);
        Position storage member = _members[place];
        if (member.hasPaid) revert NothingOwed(place);
        if (msg.value != member.contribution) revert WrongValue(msg.value, member.contribution);
        member.hasPaid = true;
        _missing--;
        bool isComplete = _missing == 0;
        if (isComplete) state = GroupState.Ready;
        emit Contributed(member.account, msg.value, isComplete);
    }

    /// @inheritdoc IGroup
    function dissolve() external {
        bool isForming = state == GroupState.Forming;
        if (!isForming) _in(GroupState.Ready);
        uint256 until = isForming ? _limits.formBy : _limits.takeBy;
        // INVARIANT: a group that does nothing gives the coin back, whoever has disappeared.
        if (msg.sender != leader && block.timestamp <= until) revert TooEarly(until, block.timestamp);
        state = GroupState.Shared;
        emit Dissolved();
        uint256 count = _members.length;
        for (uint256 i = 0; i < count; i++) {
            if (_members[i].hasPaid) _credit(_members[i], _members[i].contribution, 0);
        }
    }

    /* LEADING */

    /// @inheritdoc IGroup
    function take(uint256 taskId, uint256 lowest) external onlyLeader {
        _in(GroupState.Ready);
        if (block.timestamp > _limits.takeBy) revert TooLate(_limits.takeBy, block.timestamp);
        if (_limits.task != 0 && taskId != _limits.task) revert OutsideLimits(taskId, _limits.task);
        uint256 stake = MARKET.stakeOf(taskId);
        // INVARIANT: the leader risks no more than the members agreed to.
        if (stake > _limits.mostStake) revert OutsideLimits(stake, _limits.mostStake);
        state = GroupState.Working;
        task = taskId;
        _staked = uint128(stake);
        emit TaskTaken(taskId, stake);
        STAKES.deposit{value: stake}();
        MARKET.take(taskId, lowest > _limits.leastPrice ? lowest : _limits.leastPrice);
    }

    /// @inheritdoc IGroup
    function register(
        bytes32 checkpointRoot,
        bytes32 finalRoot,
        bytes32[] calldata first,
        bytes32[] calldata last,
        string calldata locations
    ) external onlyLeader {
        _in(GroupState.Working);
        MARKET.register(task, checkpointRoot, finalRoot, first, last, locations);
    }

    /// @inheritdoc IGroup
    function stepDown() external onlyLeader {
        _in(GroupState.Working);
        MARKET.stepDown(task);
    }

    /// @inheritdoc IGroup
    function stay() external onlyLeader {}

    /// @inheritdoc IGroup
    function takeOver() external {
        _placeOf(msg.sender);
        uint256 until = leaderUntil();
        if (block.timestamp <= until) revert TooEarly(until, block.timestamp);
        emit LeaderChanged(msg.sender, leader);
        leader = msg.sender;
        _seenAt = uint40(block.timestamp);
    }

    /// @inheritdoc IGroup
    function expand(uint256 caseId, bytes32 position, bytes32 root, bytes calldata shown) external {
        uint32 segment = _segmentOf(caseId);
        address owner = ownerOf(segment);
        if (owner == address(0)) owner = leader;
        if (msg.sender != owner) {
            // INVARIANT: what is said in court of a segment that somebody answers for is said by that member, while it can.
            if (msg.sender != leader || block.timestamp + COURT.EXTENSION() <= COURT.deadlineOf(caseId)) {
                revert NotTheOwner(msg.sender, owner, segment);
            }
            isRelieved[segment] = true;
            emit Relieved(caseId, owner, msg.sender);
        }
        COURT.expand(caseId, position, root, shown);
    }

    /* FAULT */

    /// @inheritdoc IGroup
    function blameCase(Work calldata work, bytes calldata signature) external {
        uint32 segment = _segmentOf(CLAIMS.causeOf(task));
        // INVARIANT: nobody is charged for a case that another has played, or has made it lose by what it showed in one before.
        if (isRelieved[segment]) revert NotProven();
        _blame(segment, work, signature);
    }

    /// @inheritdoc IGroup
    function blameAccusation(uint32 segment, address accuser, Work calldata work, bytes calldata signature) external {
        if (CLAIMS.causeOf(task) != CLAIMS.accusationOf(task, segment, accuser)) revert NotProven();
        _blame(segment, work, signature);
    }

    /// @inheritdoc IGroup
    function blameRound(
        uint8 share_,
        uint32 place,
        ReplayLeaf calldata leaf,
        bytes32[] calldata proof,
        Work calldata work,
        bytes calldata signature
    ) external {
        Terms memory terms = MARKET.termsOf(task);
        if (share_ >= terms.verifiers || place >= terms.perVerifier) revert NotProven();
        (uint256 roundId,) = VERIFICATION.currentRound(task, share_);
        Line memory line = CLAIMS.lineOf(roundId);
        if (line.passes || !CLAIMS.isStanding(roundId)) revert NotProven();
        // A claim of several segments fails by any of them: this one must fail by itself (Leaves.replay).
        if (leaf.end == work.end || (!terms.exact && Leaves.isAtMostOne(leaf.distance))) revert NotProven();
        uint32 segment = VERIFICATION.segmentsOf(task, share_)[place];
        bytes32 hash = sha256(abi.encodePacked(bytes1(0x05), segment, leaf.end, leaf.distance, leaf.trace));
        Trees.verify(hash, place, Trees.depthOf(terms.perVerifier), proof, line.root);
        _blame(segment, work, signature);
    }

    /// @dev The owner of a segment that failed the task signed for it as it was registered: it is charged first.
    function _blame(uint32 segment, Work calldata work, bytes calldata signature) private {
        _in(GroupState.Closed);
        Terms memory terms = MARKET.termsOf(task);
        // INVARIANT: nobody is charged for how another solver's proof of the same task fails, once the group has given it up.
        if (terms.state != State.Failed || terms.solver != address(this)) revert NotProven();
        address owner = ownerOf(segment);
        if (owner == address(0)) revert NobodysSegment(segment);
        {
            // INVARIANT: nobody is charged for what the leader registered in place of what the member had trained.
            bytes32 root = MARKET.checkpointRootOf(task);
            uint256 depth = Trees.depthOf(uint256(terms.segments) + 1);
            Trees.verify(work.start, segment, depth, work.startProof, root);
            Trees.verify(work.end, uint256(segment) + 1, depth, work.endProof, root);
        }
        _requireSigned(Statement(task, work.run, Agreements.workSubject(segment, work.start), work.end), signature, owner);
        _members[_placeOf(owner)].isLiable = true;
        emit Liable(owner, segment);
    }

    /// @inheritdoc IGroup
    function convict(
        uint256 place,
        Statement calldata first,
        bytes calldata firstSignature,
        Statement calldata second,
        bytes calldata secondSignature
    ) external {
        if (state != GroupState.Working) _in(GroupState.Closed);
        // INVARIANT: only what an honest member never does convicts: two answers to one question.
        if (
            first.task != task || second.task != task || first.run != second.run || first.subject != second.subject
                || first.value == second.value
        ) revert NoConflict();
        Position storage member = _members[place];
        _requireSigned(first, firstSignature, member.account);
        _requireSigned(second, secondSignature, member.account);
        member.isConvicted = true;
        emit Convicted(member.account, first.subject, first.value, second.value);
    }

    /// @inheritdoc IGroup
    function convictStage(address member, uint256 claimId) external {
        // INVARIANT: what a member says about its stage convicts by a decided case, or by an accusation that stands, only.
        if (msg.sender != address(STAGE_CLAIMS)) revert NotStageClaims(msg.sender);
        if (state != GroupState.Working) _in(GroupState.Closed);
        _members[_placeOf(member)].isConvicted = true;
        emit StageConvicted(member, claimId);
    }

    /// @inheritdoc IGroup
    function markAbsent(address member, uint32 segments) external {
        // INVARIANT: whoever was there is paid for it, unless it had its time to show that and did not.
        if (msg.sender != address(PRESENCE)) revert NotPresence(msg.sender);
        if (state != GroupState.Working) _in(GroupState.Closed);
        _members[_placeOf(member)].absent += segments;
        emit MarkedAbsent(member, segments);
    }

    function _requireSigned(Statement memory statement, bytes calldata signature, address member) private view {
        address signer = ECDSA.recover(statement.digest(address(this)), signature);
        if (signer != member) revert NotTheSigner(signer, member);
    }

    /* SHARING OUT */

    /// @inheritdoc IGroup
    function close() external {
        _in(GroupState.Working);
        Terms memory terms = MARKET.termsOf(task);
        // INVARIANT: nothing is shared out while the market may still take from the stake.
        if (terms.state < State.Settled && terms.solver == address(this)) revert TaskRunning(task);
        state = GroupState.Closed;
        _closedAt = uint40(block.timestamp);
        uint256 free = STAKES.balanceOf(Class.Free, uint160(address(this)));
        _returning = uint128(free);
        emit GroupClosed(task, _staked - free, free, evidenceUntil());
        if (free != 0) STAKES.leave(free);
    }

    /// @inheritdoc IGroup
    function share() external {
        _in(GroupState.Closed);
        if (block.timestamp <= evidenceUntil()) revert TooEarly(evidenceUntil(), block.timestamp);
        // INVARIANT: a member whose stage is in court is not paid before that is decided. No case on a statement and no accusation
        // begins any more; the court's clocks end the cases, and anyone concludes an accusation once its window is over.
        uint256 cases = STAGE_CLAIMS.pendingOf(address(this));
        if (cases != 0) revert CasesOpen(cases);
        // INVARIANT: nobody is paid before it is known who was there. No report is made any more; anyone concludes one once its window
        // is over.
        uint256 reports = PRESENCE.pendingOf(address(this));
        if (reports != 0) revert ReportsPending(reports);
        state = GroupState.Shared;
        uint256 count = _members.length;
        uint256[] memory contributions = new uint256[](count);
        bool[] memory atFault = new bool[](count);
        uint256 here;
        for (uint256 i = 0; i < count; i++) {
            contributions[i] = _members[i].contribution;
            here += contributions[i];
            atFault[i] = _members[i].isLiable || _members[i].isConvicted;
        }
        here -= _staked;
        uint256 left = here + _returning;
        uint256[] memory parts = Division.afterLoss(contributions, atFault, _weights(), left);
        for (uint256 i = 0; i < count; i++) {
            // What is here is paid now, in proportion; the rest when the stake is back.
            uint256 now_ = left == 0 ? 0 : (parts[i] * here) / left;
            _credit(_members[i], now_, parts[i] - now_);
        }
        _collect();
    }

    /// @inheritdoc IGroup
    function collect() external {
        _in(GroupState.Shared);
        _collect();
    }

    function _collect() private {
        uint256 account = uint160(address(this));
        uint256 leaving = STAKES.balanceOf(Class.Leaving, account);
        if (leaving != 0 && block.timestamp > STAKES.leavingUntil(address(this))) {
            leaving = 0;
            STAKES.release(address(this));
        }
        // Anyone can release the stake, but only this contract withdraws it.
        uint256 returned = _returning - leaving;
        _returning = uint128(leaving);
        if (STAKES.balanceOf(Class.Credit, account) == 0) return;
        uint256 income = STAKES.withdraw() - returned;
        if (returned != 0) {
            uint256 count = _members.length;
            for (uint256 i = 0; i < count; i++) {
                uint256 due = _members[i].due;
                _members[i].due = 0;
                _credit(_members[i], due, 0);
            }
        }
        if (income == 0) return;
        emit IncomeShared(income);
        uint256[] memory parts = Division.byWeight(income, _incomeWeights());
        for (uint256 i = 0; i < parts.length; i++) {
            _credit(_members[i], parts[i], 0);
        }
    }

    function _credit(Position storage member, uint256 amount, uint256 due) private {
        if (amount == 0 && due == 0) return;
        member.credit += uint128(amount);
        member.due += uint128(due);
        emit CoinCredited(member.account, amount, due);
    }

    /// @inheritdoc IGroup
    function withdraw() external returns (uint256 amount) {
        Position storage member = _members[_placeOf(msg.sender)];
        amount = member.credit;
        member.credit = 0;
        if (amount == 0) revert NothingToWithdraw(msg.sender);
        emit Withdrawn(msg.sender, amount);
        (bool sent,) = msg.sender.call{value: amount}("");
        // INVARIANT: what left the ledger left the contract.
        if (!sent) revert TransferFailed(msg.sender, amount);
    }

    /// @dev Shares of the members that are not convicted. Where all are, none is better than the others.
    function _weights() private view returns (uint256[] memory weights) {
        weights = new uint256[](_members.length);
        bool isAnybodyLeft;
        for (uint256 i = 0; i < weights.length; i++) {
            if (!_members[i].isConvicted) isAnybodyLeft = true;
        }
        for (uint256 i = 0; i < weights.length; i++) {
            if (!isAnybodyLeft || !_members[i].isConvicted) weights[i] = _members[i].share;
        }
    }

    /// @dev The same, less what of each share was to be earned by being there and was not: in millionths of a segment's part. Contributions
    /// know nothing of it.
    function _incomeWeights() private view returns (uint256[] memory weights) {
        weights = _weights();
        uint256 rate = _limits.presenceRate;
        if (rate == 0) return weights;
        uint256 whole = uint256(MARKET.termsOf(task).segments) * MILLION;
        uint256[] memory earned = new uint256[](weights.length);
        bool isAnythingEarned;
        for (uint256 i = 0; i < weights.length; i++) {
            earned[i] = weights[i] * (whole - rate * _members[i].absent);
            if (earned[i] != 0) isAnythingEarned = true;
        }
        // INVARIANT: all coin has a receiver. Where nobody earned any, none is better than the others.
        if (isAnythingEarned) return earned;
    }

    /* HELPERS AND VIEWS */

    function _in(GroupState needed) private view {
        // INVARIANT: states only move forward, by the calls their state allows.
        if (state != needed) revert WrongState(state);
    }

    function _placeOf(address account) private view returns (uint256 place) {
        uint256 count = _members.length;
        while (place < count && _members[place].account != account) place++;
        if (place == count) revert NotAMember(account);
    }

    /// @dev The segment a case on the group's training claim is about: leaf c of the claim ends segment c - 1, and the court takes no
    /// case on leaf 0, which a case that does not exist has.
    function _segmentOf(uint256 caseId) private view returns (uint32) {
        (Case memory case_,) = COURT.caseOf(caseId);
        if (case_.leaf == 0) revert NotProven();
        return case_.leaf - 1;
    }

    /// @inheritdoc IGroup
    function ownerOf(uint32 segment) public view returns (address) {
        uint256 count = _owners.length;
        return count == 0 ? address(0) : _members[_owners[segment % count]].account;
    }

    /// @inheritdoc IGroup
    function leaderUntil() public view returns (uint256) {
        return uint256(_seenAt) + _limits.patience;
    }

    /// @inheritdoc IGroup
    function evidenceUntil() public view returns (uint256) {
        return uint256(_closedAt) + _limits.evidenceSeconds;
    }

    /// @inheritdoc IGroup
    function limits() external view returns (Limits memory) {
        return _limits;
    }

    /// @inheritdoc IGroup
    function positions() external view returns (Position[] memory) {
        return _members;
    }

    /// @inheritdoc IGroup
    function digestOf(Statement calldata statement) external view returns (bytes32) {
        return statement.digest(address(this));
    }
}
