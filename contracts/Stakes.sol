// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Checkpoints} from "@openzeppelin/contracts/utils/structs/Checkpoints.sol";
import {Modules, Parameters} from "./Parameters.sol";

/// @notice Kinds of buckets of the ledger.
/// @param Free Stake of an account that nothing holds (id: the account).
/// @param Locked Stake of an account held for a task or a round (id: the account).
/// @param Leaving Stake of an account on its way out; still available to draws (id: the account).
/// @param Credit What an account can withdraw at once (id: the account).
/// @param Escrow What is set aside for a task (id: the task).
/// @param Round Whistleblowers' bonds, and the shares they may collect (id: the round), and charges of verifiers who stepped
/// back (id: the share).
/// @param Case Bonds of challengers and accusers (id: the case or accusation).
/// @param Demand Prices of open demands (id: the demand).
/// @param Reserve Jackpots reserved for rounds (id: the round).
/// @param Pool The unreserved jackpot pool (id: 0).
enum Class {
    Free,
    Locked,
    Leaving,
    Credit,
    Escrow,
    Round,
    Case,
    Demand,
    Reserve,
    Pool
}

/// @title Stakes
/// @notice Holds all coin of the market as a ledger of buckets, the verifiers' roll, and the count of active whistleblowers.
///
/// Coin enters by `deposit` and `enter`, leaves by `withdraw`, and is otherwise only moved from one bucket to another: the sum
/// of all buckets equals what entered less what left, whatever the other contracts do. No function sends coin to an address
/// other than its caller, and nobody can stop a withdrawal.
contract Stakes {
    using Checkpoints for Checkpoints.Trace208;

    /* CONSTANTS */

    /// @notice Exponents of work limits: a verifier with limit e serves shares of at most 2^e units of work.
    uint256 public constant LIMITS = 128;
    /// @notice Parts of the window in which active whistleblowers are counted.
    uint256 public constant ACTIVITY_PARTS = 8;

    /// @notice Stake that one seat stands for.
    uint256 public immutable SEAT;
    /// @notice Seconds between leaving and having the stake back.
    uint256 public immutable UNBONDING;
    /// @notice Blocks of one part of the activity window.
    uint256 public immutable ACTIVITY_BLOCKS;

    address private immutable JACKPOT;
    address private immutable MARKET;
    address private immutable VERIFICATION;
    address private immutable ANSWERS;
    address private immutable CLAIMS;
    address private immutable SETTLEMENT;
    address private immutable DEMANDS;

    /* STORAGE */

    /// @notice What a bucket holds, in wei.
    mapping(Class class => mapping(uint256 id => uint256 amount)) public balanceOf;
    /// @dev Sums of the buckets of two classes a slot.
    mapping(uint256 pair => uint256 sums) private _totals;
    /// @notice When an account's leaving stake is free to go.
    mapping(address account => uint256 time) public leavingUntil;

    /// @dev Owner of each seat, over time. Seats are numbered from 0 without gaps.
    mapping(uint256 seat => Checkpoints.Trace208 owner) private _owners;
    /// @dev Number of seats, over time.
    Checkpoints.Trace208 private _seatCount;
    /// @dev Numbers of the seats of an account, in no order.
    mapping(address account => uint32[] seats) private _seatsOf;
    /// @dev Position of a seat in its owner's list.
    mapping(uint256 seat => uint256 position) private _position;
    /// @notice Exponent of the largest share an account takes now, plus one; zero for an account with no seat.
    mapping(address account => uint256 limit) public limitOf;
    /// @dev The same over time, except that giving up the last seat leaves it: who is drawn by an earlier snapshot answers to it.
    mapping(address account => Checkpoints.Trace208 limit) private _limitHistory;
    /// @dev Number of accounts with seats for each limit, 16 bits each.
    mapping(uint256 group => uint256 counts) private _limits;

    /// @dev Part of the activity window in which an account joined last, plus one.
    mapping(address account => uint256 part) private _lastPart;
    /// @dev Number of accounts whose last join was in that part.
    mapping(uint256 part => uint256 accounts) private _joinedLast;

    /* EVENTS */

    event Entered(Class indexed class, uint256 indexed id, uint256 amount);
    event Moved(Class from, uint256 fromId, Class to, uint256 toId, uint256 amount);
    event Left(address indexed account, uint256 amount);
    event Leaving(address indexed account, uint256 amount, uint256 until);
    event Enlisted(address indexed account, uint256 seats, uint256 limit);
    event Delisted(address indexed account, uint256 seats);
    event Active(address indexed account, uint256 active);

    /* ERRORS */

    error NotAModule(address caller);
    error Insufficient(Class class, uint256 id, uint256 held, uint256 wanted);
    error NothingDeposited();
    error StillLeaving(uint256 until, uint256 time);
    error NotBacked(uint256 seats, uint256 stake, uint256 needed);
    error LimitOutOfRange(uint256 limit);
    error TooFewSeats(uint256 held, uint256 wanted);
    error StillBacked(uint256 seats, uint256 stake);
    error TransferFailed(address account, uint256 amount);

    /* SETTING UP */

    constructor(Parameters memory parameters, Modules memory modules) {
        SEAT = parameters.seat;
        UNBONDING = parameters.unbondingSeconds;
        ACTIVITY_BLOCKS = parameters.activeBlocks / ACTIVITY_PARTS == 0 ? 1 : parameters.activeBlocks / ACTIVITY_PARTS;
        JACKPOT = modules.jackpot;
        MARKET = modules.market;
        VERIFICATION = modules.verification;
        ANSWERS = modules.answers;
        CLAIMS = modules.claims;
        SETTLEMENT = modules.settlement;
        DEMANDS = modules.demands;
    }

    modifier onlyModule() {
        // INVARIANT: only the contracts of this deployment move what is not theirs.
        if (
            msg.sender != VERIFICATION && msg.sender != SETTLEMENT && msg.sender != MARKET && msg.sender != ANSWERS
                && msg.sender != CLAIMS && msg.sender != JACKPOT && msg.sender != DEMANDS
        ) revert NotAModule(msg.sender);
        _;
    }

    /* COIN IN AND OUT */

    /// @notice Adds to the caller's free stake.
    function deposit() external payable {
        // INVARIANT: no entry in the ledger without coin behind it.
        if (msg.value == 0) revert NothingDeposited();
        _enter(Class.Free, uint160(msg.sender));
    }

    /// @notice Coin that came with a call of another contract of the market.
    function enter(Class class, uint256 id) external payable onlyModule {
        _enter(class, id);
    }

    /// @notice Pays out the caller's credit.
    function withdraw() external returns (uint256 amount) {
        amount = balanceOf[Class.Credit][uint160(msg.sender)];
        _take(Class.Credit, uint160(msg.sender), amount);
        emit Left(msg.sender, amount);
        (bool sent,) = msg.sender.call{value: amount}("");
        // INVARIANT: what left the ledger left the contract.
        if (!sent) revert TransferFailed(msg.sender, amount);
    }

    /// @notice Turns the caller's credit into free stake.
    function restake(uint256 amount) external {
        _move(Class.Credit, uint160(msg.sender), Class.Free, uint160(msg.sender), amount);
    }

    /// @notice Begins to take stake out. Seats it stood behind have to be given up first. The wait starts anew for all of the
    /// leaving stake; until it is over, draws from a snapshot that has the account's seats may still lock it.
    function leave(uint256 amount) external {
        uint256 account = uint160(msg.sender);
        _move(Class.Free, account, Class.Leaving, account, amount);
        _requireBacked(msg.sender, _seatsOf[msg.sender].length);
        uint256 until = block.timestamp + UNBONDING;
        leavingUntil[msg.sender] = until;
        emit Leaving(msg.sender, amount, until);
    }

    /// @notice Turns stake whose wait is over into credit of its owner. Anyone may call.
    function release(address account) external {
        // INVARIANT: stake can be drawn on until the longest dispute begun before it left is over.
        if (block.timestamp <= leavingUntil[account]) revert StillLeaving(leavingUntil[account], block.timestamp);
        uint256 id = uint160(account);
        _move(Class.Leaving, id, Class.Credit, id, balanceOf[Class.Leaving][id]);
    }

    /* MOVES BETWEEN BUCKETS */

    /// @notice Moves an amount between two buckets.
    function move(Class from, uint256 fromId, Class to, uint256 toId, uint256 amount) external onlyModule {
        _move(from, fromId, to, toId, amount);
    }

    /// @notice Locks `amount` of an account's stake, taking leaving stake where free stake does not suffice.
    /// @return locked Whether there was enough; nothing is moved otherwise.
    function lock(address account, uint256 amount) external onlyModule returns (bool locked) {
        uint256 id = uint160(account);
        uint256 free = balanceOf[Class.Free][id];
        if (free >= amount) {
            _move(Class.Free, id, Class.Locked, id, amount);
            return true;
        }
        if (free + balanceOf[Class.Leaving][id] < amount) return false;
        _move(Class.Free, id, Class.Locked, id, free);
        _move(Class.Leaving, id, Class.Locked, id, amount - free);
        return true;
    }

    function _enter(Class class, uint256 id) private {
        balanceOf[class][id] += msg.value;
        _addTotal(class, msg.value);
        emit Entered(class, id, msg.value);
    }

    function _move(Class from, uint256 fromId, Class to, uint256 toId, uint256 amount) private {
        if (amount == 0) return;
        _take(from, fromId, amount);
        balanceOf[to][toId] += amount;
        _addTotal(to, amount);
        emit Moved(from, fromId, to, toId, amount);
    }

    function _take(Class class, uint256 id, uint256 amount) private {
        uint256 held = balanceOf[class][id];
        // INVARIANT: no bucket gives what it does not hold.
        if (held < amount) revert Insufficient(class, id, held, amount);
        unchecked {
            balanceOf[class][id] = held - amount;
        }
        // The sum of a class is at least each of its buckets.
        _totals[uint256(class) >> 1] -= amount << (128 * (uint256(class) & 1));
    }

    function _addTotal(Class class, uint256 amount) private {
        // All coin there is fits 128 bits.
        _totals[uint256(class) >> 1] += amount << (128 * (uint256(class) & 1));
    }

    /* THE VERIFIERS' ROLL */

    /// @notice Takes `seats` further seats on the roll, each backed by the stake of one seat. Draws choose seats uniformly, and
    /// therefore accounts by stake.
    /// @param limit The caller serves shares of at most 2^limit units of work; replaces the limit it had.
    function enlist(uint256 seats, uint256 limit) external {
        // INVARIANT: a limit has a place in the table of limits.
        if (limit >= LIMITS) revert LimitOutOfRange(limit);
        uint32[] storage held = _seatsOf[msg.sender];
        _requireBacked(msg.sender, held.length + seats);
        uint256 count = _seatCount.latest();
        for (uint256 i = 0; i < seats; i++) {
            uint256 seat = count + i;
            _owners[seat].push(uint48(block.number), uint160(msg.sender));
            _position[seat] = held.length;
            held.push(uint32(seat));
        }
        if (seats != 0) _seatCount.push(uint48(block.number), uint208(count + seats));
        _setLimit(msg.sender, held.length == 0 ? 0 : limit + 1);
        emit Enlisted(msg.sender, held.length, limit);
    }

    /// @notice Gives `seats` of the caller's seats up. Draws from earlier snapshots may still choose them.
    function delist(uint256 seats) external {
        _delist(msg.sender, seats);
    }

    /// @notice Removes the seats of an account that its stake no longer backs. Anyone may call.
    function prune(address account) external {
        uint256 held = _seatsOf[account].length;
        uint256 stake = _backing(account);
        uint256 backed = SEAT == 0 ? held : stake / SEAT;
        // INVARIANT: nobody loses a seat that stake stands behind.
        if (backed >= held) revert StillBacked(held, stake);
        _delist(account, held - backed);
    }

    function _delist(address account, uint256 seats) private {
        uint32[] storage held = _seatsOf[account];
        // INVARIANT: an account gives up only what it has.
        if (held.length < seats) revert TooFewSeats(held.length, seats);
        uint256 count = _seatCount.latest();
        for (uint256 i = 0; i < seats; i++) {
            uint256 seat = held[held.length - 1];
            held.pop();
            uint256 last = count - 1 - i;
            if (seat != last) {
                // The last seat takes the number that became free, so that numbers have no gaps.
                address owner = address(uint160(_owners[last].latest()));
                uint256 position = _position[last];
                _seatsOf[owner][position] = uint32(seat);
                _position[seat] = position;
                _owners[seat].push(uint48(block.number), uint160(owner));
            }
        }
        if (seats != 0) _seatCount.push(uint48(block.number), uint208(count - seats));
        if (held.length == 0) _setLimit(account, 0);
        emit Delisted(account, held.length);
    }

    function _setLimit(address account, uint256 limit) private {
        uint256 old = limitOf[account];
        if (old == limit) return;
        limitOf[account] = limit;
        if (old != 0) _limits[(old - 1) >> 4] -= 1 << (16 * ((old - 1) & 15));
        if (limit != 0) {
            _limitHistory[account].push(uint48(block.number), uint208(limit));
            uint256 shift = 16 * ((limit - 1) & 15);
            uint256 counts = _limits[(limit - 1) >> 4];
            // INVARIANT: counts do not run into their neighbours.
            if ((counts >> shift) & 0xffff == 0xffff) revert LimitOutOfRange(limit - 1);
            _limits[(limit - 1) >> 4] = counts + (1 << shift);
        }
    }

    function _backing(address account) private view returns (uint256) {
        return balanceOf[Class.Free][uint160(account)] + balanceOf[Class.Locked][uint160(account)];
    }

    function _requireBacked(address account, uint256 seats) private view {
        uint256 stake = _backing(account);
        // INVARIANT: every seat taken is backed by its stake when it is taken, and when stake leaves.
        if (stake < seats * SEAT) revert NotBacked(seats, stake, seats * SEAT);
    }

    /// @notice Number of seats an account has now.
    function seatsOf(address account) external view returns (uint256) {
        return _seatsOf[account].length;
    }

    /// @notice Number of seats at the end of block `blockNumber`.
    function seatCountAt(uint256 blockNumber) external view returns (uint256) {
        return _seatCount.upperLookupRecent(uint48(blockNumber));
    }

    /// @notice Owner of a seat at the end of block `blockNumber`.
    function seatOwnerAt(uint256 seat, uint256 blockNumber) external view returns (address) {
        return address(uint160(_owners[seat].upperLookupRecent(uint48(blockNumber))));
    }

    /// @notice Limit of an account, plus one, as it was at the end of block `blockNumber`.
    function limitAt(address account, uint256 blockNumber) external view returns (uint256) {
        return _limitHistory[account].upperLookupRecent(uint48(blockNumber));
    }

    /// @notice Number of accounts with seats whose limit is at least 2^`exponent`.
    function eligible(uint256 exponent) external view returns (uint256 accounts) {
        for (uint256 group = exponent >> 4; group < LIMITS >> 4; group++) {
            uint256 counts = _limits[group];
            if (group == exponent >> 4) counts >>= 16 * (exponent & 15);
            for (; counts != 0; counts >>= 16) {
                accounts += counts & 0xffff;
            }
        }
    }

    /* ACTIVE WHISTLEBLOWERS */

    /// @notice Notes that a whistleblower joined a round.
    function noteJoin(address account) external onlyModule {
        uint256 part = block.number / ACTIVITY_BLOCKS + 1;
        uint256 last = _lastPart[account];
        if (last != part) {
            if (last != 0) _joinedLast[last]--;
            _joinedLast[part]++;
            _lastPart[account] = part;
        }
        emit Active(account, active());
    }

    /// @notice Number of accounts that joined a round within the activity window (to an eighth of it).
    function active() public view returns (uint256 accounts) {
        uint256 part = block.number / ACTIVITY_BLOCKS + 1;
        for (uint256 i = 0; i < ACTIVITY_PARTS && i < part; i++) {
            accounts += _joinedLast[part - i];
        }
    }

    /* WHAT IS HELD */

    /// @notice Sum of all buckets of a class.
    function totalOf(Class class) public view returns (uint256) {
        return uint128(_totals[uint256(class) >> 1] >> (128 * (uint256(class) & 1)));
    }

    /// @notice Sum of all buckets. The contract's balance is never below it.
    function total() external view returns (uint256 sum) {
        for (uint256 class = 0; class <= uint256(type(Class).max); class++) {
            sum += totalOf(Class(class));
        }
    }
}
