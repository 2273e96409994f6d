// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {Class, Stakes} from "./Stakes.sol";
import {MILLION, Modules, Parameters, partDown} from "./Parameters.sol";

/// @title Jackpot
/// @notice Prizes for whistleblowers who answered a forced round rightly: J is reserved when the round is disclosed, and each of
/// k right whistleblowers gets J / 2^(k-1), so that a second identity of the same person gains nothing.
contract Jackpot {
    Stakes private immutable STAKES;
    address private immutable VERIFICATION;
    address private immutable SETTLEMENT;
    /// @notice Highest jackpot in wei, whatever the pool holds: below what a verifier loses by any misconduct that could earn it.
    uint256 public immutable HIGHEST;
    /// @notice Probability of a forced round, in parts per million.
    uint256 public immutable FORCED_RATE;

    /// @notice Jackpot reserved for a round, in wei.
    mapping(uint256 roundId => uint256 amount) public prizeOf;

    event Reserved(uint256 indexed roundId, uint256 amount);
    event Fixed(uint256 indexed roundId, uint256 winners, uint256 each, uint256 returned);

    error OnlyVerification(address caller);
    error OnlySettlement(address caller);
    error AlreadyReserved(uint256 roundId);
    error RatesOutOfOrder(uint256 jackpotRate, uint256 leakRate, uint256 silenceRate);

    constructor(Parameters memory parameters, Modules memory modules) {
        // INVARIANT: a forced error, sold or kept from others by silence, costs a verifier more than the jackpot brings; and
        // whoever learns a secret does at least as well by bringing it.
        if (
            parameters.jackpotRate > parameters.leakRate || parameters.jackpotRate >= parameters.silenceRate
                || parameters.leakRate > MILLION || parameters.silenceRate > MILLION
        ) revert RatesOutOfOrder(parameters.jackpotRate, parameters.leakRate, parameters.silenceRate);
        STAKES = Stakes(modules.stakes);
        VERIFICATION = modules.verification;
        SETTLEMENT = modules.settlement;
        HIGHEST = partDown(parameters.seat, parameters.jackpotRate);
        FORCED_RATE = parameters.forcedRate;
    }

    /// @notice Reserves the jackpot of a round: the least of its tax divided by the probability of a forced round, a third of the
    /// unreserved pool, and the highest jackpot.
    /// @param tax The round's part of the task's tax.
    function reserve(uint256 roundId, uint256 tax) external {
        // INVARIANT: only disclosure of a forced round reserves.
        if (msg.sender != VERIFICATION) revert OnlyVerification(msg.sender);
        // INVARIANT: once for a round.
        if (prizeOf[roundId] != 0) revert AlreadyReserved(roundId);
        uint256 amount = FORCED_RATE == 0 ? 0 : (tax * MILLION) / FORCED_RATE;
        uint256 third = STAKES.balanceOf(Class.Pool, 0) / 3;
        if (amount > third) amount = third;
        if (amount > HIGHEST) amount = HIGHEST;
        prizeOf[roundId] = amount;
        STAKES.move(Class.Pool, 0, Class.Reserve, roundId, amount);
        emit Reserved(roundId, amount);
    }

    /// @notice Fixes the number of winners: keeps what they will collect in the round's bucket and returns the rest to the pool.
    /// @return each What each winner gets.
    function fixWinners(uint256 roundId, uint256 winners) external returns (uint256 each) {
        // INVARIANT: winners are known only when the round's claim finally stands.
        if (msg.sender != SETTLEMENT) revert OnlySettlement(msg.sender);
        uint256 reserved = STAKES.balanceOf(Class.Reserve, roundId);
        if (winners != 0 && winners <= 128) each = reserved >> (winners - 1);
        uint256 due = each * winners;
        STAKES.move(Class.Reserve, roundId, Class.Round, roundId, due);
        STAKES.move(Class.Reserve, roundId, Class.Pool, 0, reserved - due);
        emit Fixed(roundId, winners, each, reserved - due);
    }
}
