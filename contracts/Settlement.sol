// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

import {IMarket, State, Terms} from "./interfaces/IMarket.sol";
import {IMarketClaims, Line} from "./interfaces/IMarketClaims.sol";
import {IVerification, Round, RoundState} from "./interfaces/IVerification.sol";
import {Answers} from "./Answers.sol";
import {Demands} from "./Demands.sol";
import {Jackpot} from "./Jackpot.sol";
import {Modules, Parameters, partDown} from "./Parameters.sol";
import {Class, Stakes} from "./Stakes.sol";

/// @title Settlement
/// @notice Ends tasks whose claims stand, and releases their rounds: every share is released exactly once, by anyone, and pays
/// what section 5 of the specification says.
contract Settlement {
    Stakes private immutable STAKES;
    Jackpot private immutable JACKPOT;
    IMarket private immutable MARKET;
    IVerification private immutable VERIFICATION;
    Answers private immutable ANSWERS;
    IMarketClaims private immutable CLAIMS;
    Demands private immutable DEMANDS;
    uint256 private immutable SEAT;
    uint256 private immutable FINDER_RATE;
    uint8 private constant PROFILE = 255;

    /// @notice What every round whose standing claim fails the proof has to share out of the solver's stake, in wei.
    mapping(uint256 taskId => uint256 amount) public unitOf;

    event Released(
        uint256 indexed taskId, uint8 indexed share, uint256 indexed roundId, address verifier, bool stands, bool hasFallen, bytes32 root, bool feePaid
    );

    error WrongState(uint256 taskId, State state);
    error NotStanding(uint256 taskId, uint8 share, uint256 roundId);
    error StillPending(uint256 taskId, uint256 cases, uint256 demands);

    constructor(Parameters memory parameters, Modules memory modules) {
        STAKES = Stakes(modules.stakes);
        JACKPOT = Jackpot(modules.jackpot);
        MARKET = IMarket(modules.market);
        VERIFICATION = IVerification(modules.verification);
        ANSWERS = Answers(modules.answers);
        CLAIMS = IMarketClaims(modules.claims);
        DEMANDS = Demands(modules.demands);
        SEAT = parameters.seat;
        FINDER_RATE = parameters.finderRate;
    }

    /* ENDING A TASK */

    /// @notice Settles a task whose claims all stand: it is Settled if every one passes, else Failed. Anyone may call.
    function settle(uint256 taskId) external {
        Terms memory terms = MARKET.termsOf(taskId);
        if (terms.state != State.Verifying) revert WrongState(taskId, terms.state);
        {
            uint256 cases = CLAIMS.pendingOf(taskId);
            uint256 demands = DEMANDS.pendingOf(taskId);
            // INVARIANT: nothing that could fail the task is undecided.
            if (cases != 0 || demands != 0) revert StillPending(taskId, cases, demands);
        }
        uint256 failing;
        for (uint8 number = 0; number < terms.verifiers; number++) {
            (uint256 roundId, RoundState state) = VERIFICATION.currentRound(taskId, number);
            // INVARIANT: a claim stands only when its window is over and every case against it was lost.
            if (state != RoundState.Disclosed || !CLAIMS.isStanding(roundId)) {
                revert NotStanding(taskId, number, roundId);
            }
            if (!CLAIMS.lineOf(roundId).passes) failing++;
        }
        if (failing == 0) {
            MARKET.settled(taskId);
            terms.state = State.Settled;
        } else {
            uint256 finders = MARKET.failed(taskId, address(0));
            terms.state = State.Failed;
            unitOf[taskId] = finders / failing;
            STAKES.move(Class.Escrow, taskId, Class.Pool, 0, finders % failing);
        }
        for (uint8 number = 0; number < terms.verifiers; number++) {
            _release(taskId, number, terms);
        }
    }

    /// @notice Ends the profiling of a task whose profile stands: it is opened if the profile passes, else Refused. Anyone may call.
    function settleProfile(uint256 taskId) external {
        Terms memory terms = MARKET.termsOf(taskId);
        if (terms.state != State.Profiling) revert WrongState(taskId, terms.state);
        (uint256 roundId, RoundState state) = VERIFICATION.currentRound(taskId, PROFILE);
        // INVARIANT: a claim stands only when its window is over and every case against it was lost.
        if (state != RoundState.Disclosed || !CLAIMS.isStanding(roundId)) revert NotStanding(taskId, PROFILE, roundId);
        Line memory line = CLAIMS.lineOf(roundId);
        if (line.passes) {
            MARKET.open(taskId, CLAIMS.publishedOf(roundId, line.root).thresholds);
            terms.state = State.Open;
        } else {
            MARKET.refused(taskId);
            terms.state = State.Refused;
        }
        _release(taskId, PROFILE, terms);
    }

    /* RELEASING SHARES */

    /// @notice Releases a share of a task that has ended: stakes, fees, prizes and bonds of the round at work on it. A claim already
    /// disclosed keeps its window and its cases. Anyone may call.
    /// @param number The share, or 255 for the profile.
    function release(uint256 taskId, uint8 number) external {
        Terms memory terms = MARKET.termsOf(taskId);
        // INVARIANT: money of a running task stays where it is.
        if (terms.state < State.Settled) revert WrongState(taskId, terms.state);
        _release(taskId, number, terms);
    }

    function _release(uint256 taskId, uint8 number, Terms memory terms) private {
        uint256 roundId = VERIFICATION.markReleased(taskId, number);
        // When the solver failed, its stake stands in for the escrow: there is no tax then, and what is left goes to the pool.
        bool failed = terms.state == State.Failed && number != PROFILE;
        uint256 tax = failed ? 0 : MARKET.taxOf(taskId);
        if (roundId == 0) {
            _payFee(taskId, number, terms, address(0), tax);
            emit Released(taskId, number, 0, address(0), false, false, 0, false);
            return;
        }
        Round memory round = VERIFICATION.roundOf(roundId);
        if (terms.state == State.Void || round.state != RoundState.Disclosed) {
            // The task ended under this round: stakes and bonds return, and a claim already made under a program that was refuted
            // is paid as work done.
            bool disclosed = round.state == RoundState.Disclosed;
            _unlock(roundId, round.verifier);
            VERIFICATION.markVoid(roundId);
            ANSWERS.voidRound(roundId);
            if (JACKPOT.prizeOf(roundId) != 0) JACKPOT.fixWinners(roundId, 0);
            if (round.state != RoundState.Drawn) {
                // INVARIANT: a lottery is paid for whatever it says. Else accomplices could end their task, by a fault hidden in its
                // program or by keeping back its files, whenever a round is not forced, and play for jackpots without the tax.
                STAKES.move(Class.Escrow, taskId, Class.Pool, 0, tax);
                tax = 0;
            }
            _payFee(taskId, number, terms, disclosed ? round.verifier : address(0), tax);
            emit Released(taskId, number, roundId, round.verifier, false, false, 0, disclosed);
        } else {
            // INVARIANT: a claim stands only when its window is over and every case against it was lost.
            if (!CLAIMS.isStanding(roundId)) revert NotStanding(taskId, number, roundId);
            Line memory line = CLAIMS.lineOf(roundId);
            uint256 unit = failed && !line.passes ? unitOf[taskId] : 0;
            if (line.hasFallen) {
                _share(taskId, roundId, round.verifier, line, unit);
            } else {
                _unlock(roundId, round.verifier);
                STAKES.move(Class.Escrow, taskId, Class.Credit, uint160(round.verifier), unit);
                _resolve(roundId, line.root, 0);
            }
            STAKES.move(Class.Escrow, taskId, Class.Pool, 0, tax);
            _payFee(taskId, number, terms, line.hasFallen ? address(0) : round.verifier, 0);
            emit Released(taskId, number, roundId, round.verifier, true, line.hasFallen, line.root, !line.hasFallen);
        }
        CLAIMS.returnBond(roundId);
    }

    function _unlock(uint256 roundId, address verifier) private {
        uint256 rest = SEAT - CLAIMS.chargeOf(roundId);
        STAKES.move(Class.Locked, uint160(verifier), Class.Free, uint160(verifier), rest);
    }

    /// @dev Pays the verifier its fee, or hands back what nobody earned.
    /// @param verifier Who earned the fee, or nobody.
    /// @param tax The tax of a round that does not stand, handed back.
    function _payFee(uint256 taskId, uint8 number, Terms memory terms, address verifier, uint256 tax) private {
        uint256 fee = number == PROFILE ? terms.profilerFee : terms.verifierFee;
        uint256 charges = VERIFICATION.chargesOf(taskId, number);
        uint256 charged = STAKES.balanceOf(Class.Round, charges);
        if (verifier != address(0)) {
            STAKES.move(Class.Escrow, taskId, Class.Credit, uint160(verifier), fee);
            // Those who could not fetch pay the one who could.
            STAKES.move(Class.Round, charges, Class.Credit, uint160(verifier), charged);
            fee = 0;
        } else {
            STAKES.move(Class.Round, charges, Class.Pool, 0, charged);
        }
        if (terms.state == State.Failed) STAKES.move(Class.Escrow, taskId, Class.Pool, 0, fee + tax);
        else STAKES.move(Class.Escrow, taskId, Class.Credit, uint160(terms.submitter), fee + tax);
    }

    /// @dev Shares a fallen verifier's stake, and the round's part of the solver's, among all whose answer stands.
    function _share(uint256 taskId, uint256 roundId, address verifier, Line memory line, uint256 unit) private {
        uint256 stake = SEAT - CLAIMS.chargeOf(roundId);
        uint256 found = partDown(stake, FINDER_RATE);
        uint256 finders = ANSWERS.countOf(roundId, line.root);
        bool isAnswer = ANSWERS.hasRevealed(roundId, line.claimant, line.root);
        if (!isAnswer) finders++;
        uint256 each = (found + unit) / finders;
        STAKES.move(Class.Locked, uint160(verifier), Class.Pool, 0, stake - found);
        STAKES.move(Class.Locked, uint160(verifier), Class.Round, roundId, found);
        STAKES.move(Class.Escrow, taskId, Class.Round, roundId, unit);
        if (!isAnswer) STAKES.move(Class.Round, roundId, Class.Credit, uint160(line.claimant), each);
        // What does not divide goes to the pool, so that the round's bucket ends empty.
        STAKES.move(Class.Round, roundId, Class.Pool, 0, found + unit - each * finders);
        _resolve(roundId, line.root, each);
    }

    function _resolve(uint256 roundId, bytes32 root, uint256 each) private {
        if (JACKPOT.prizeOf(roundId) != 0) each += JACKPOT.fixWinners(roundId, ANSWERS.countOf(roundId, root));
        ANSWERS.resolve(roundId, root, each);
    }
}
