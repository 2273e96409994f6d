// SPDX-License-Identifier: MIT
pragma solidity 0.8.30;

/// @notice Every number of the protocol, fixed at deployment. There is no way to change one afterwards: a new version is a new
/// deployment.
/// @dev `Rate` means parts per million. Amounts are in wei, durations in seconds unless the name says blocks.
/// @param seat Stake that one seat on the verifiers' roll stands for, locked for each round its owner is drawn for.
/// @param answerBond What a whistleblower puts at stake by joining a round.
/// @param caseBond What a challenger puts at stake by opening a case.
/// @param accusationBond What an accuser puts at stake by accusing an undrawn segment, or another member of its group, and who reports a
/// member absent.
/// @param demandPrice What a demand for one chunk costs; the solver earns it by answering.
/// @param drawBounty What the caller who carries out a draw earns.
/// @param solverStakeFloor Fixed part of a solver's stake.
/// @param feeFloor Lowest fee of a round.
/// @param feePerTerawork Lowest additional fee of a round for 10^12 units of work.
/// @param solverStakeRate Part of the highest reward a solver stakes on top of the floor and of all fees due.
/// @param taxRate Part of the highest reward that is the jackpot tax.
/// @param forcedRate Probability that a round is forced to show the derived false claim.
/// @param finderRate Part of a forfeited stake that goes to whoever found the fault; the rest goes to the pool.
/// @param silenceRate Part of a seat lost by silence.
/// @param leakRate Part of a seat that goes to whoever brings a leaked secret; the verifier loses the whole seat.
/// @param jackpotRate Highest jackpot as a part of a seat. Must be at most `leakRate` and below `silenceRate`.
/// @param stepBackRate Part of a seat, or of the task's price where that is more, paid for stepping back from a draw ("cannot fetch");
/// at most what silence costs.
/// @param stepDownRate Part of a solver's stake forfeited by stepping down or being late.
/// @param lateRate Further part of a late solver's stake forfeited for every training time held.
/// @param unavailableRate Part of the auction price a solver forfeits when so many verifiers could not fetch its files that the task
/// ends. Must be at most `solverStakeRate`.
/// @param compensationRate Part of the auction price a solver gets if the program is refuted after it took the task.
/// @param refuterRate Part of the highest reward that goes to whoever refutes a program.
/// @param workPerSecond Units of work per second that every window of a round allows for.
/// @param trainingPerSecond Units of work per second that the shortest time for training allows for.
/// @param unbondingSeconds Wait between leaving and having the stake back.
/// @param commitSeconds Floor of a verifier's time to commit.
/// @param answerSeconds Floor of the whistleblowers' time to commit to answers.
/// @param revealSeconds Whistleblowers' time to reveal them.
/// @param discloseSeconds Verifier's time to disclose.
/// @param disputeSeconds Floor of the time in which cases can be opened on a claim; the time for those on an accusation among
/// members, and to answer a report of absence.
/// @param volunteerSeconds Time in which a share waits for volunteers.
/// @param demandSeconds Solver's time to answer a demand.
/// @param holdSeconds How long a task stays open at its highest price.
/// @param trainSeconds Floor of the time a solver gets.
/// @param drawDelay Blocks between the event that makes a draw due and the block whose hash decides it.
/// @param joinBlocks Blocks between a verifier's commitment and the lottery's block, in which whistleblowers join.
/// @param showBlocks Blocks after the lottery's block in which the verifier must show. Below 256.
/// @param activeBlocks Window of the count of active whistleblowers.
/// @param maximalRelists How often a task may open again after its solver stepped down or was late.
/// @param maximalReplacements How many further verifiers are drawn for a share.
/// @param maximalVolunteers How many volunteers may try after that.
/// @param maximalStepBacks How many verifiers step back from a proof, or a profile, before the task is unavailable; at least two
/// more than the proof has verifiers.
struct Parameters {
    uint96 seat;
    uint96 answerBond;
    uint96 caseBond;
    uint96 accusationBond;
    uint96 demandPrice;
    uint96 drawBounty;
    uint96 solverStakeFloor;
    uint96 feeFloor;
    uint96 feePerTerawork;
    uint32 solverStakeRate;
    uint32 taxRate;
    uint32 forcedRate;
    uint32 finderRate;
    uint32 silenceRate;
    uint32 leakRate;
    uint32 jackpotRate;
    uint32 stepBackRate;
    uint32 stepDownRate;
    uint32 lateRate;
    uint32 unavailableRate;
    uint32 compensationRate;
    uint32 refuterRate;
    uint64 workPerSecond;
    uint64 trainingPerSecond;
    uint32 unbondingSeconds;
    uint32 commitSeconds;
    uint32 answerSeconds;
    uint32 revealSeconds;
    uint32 discloseSeconds;
    uint32 disputeSeconds;
    uint32 volunteerSeconds;
    uint32 demandSeconds;
    uint32 holdSeconds;
    uint32 trainSeconds;
    uint16 drawDelay;
    uint16 joinBlocks;
    uint16 showBlocks;
    uint32 activeBlocks;
    uint8 maximalRelists;
    uint8 maximalReplacements;
    uint8 maximalVolunteers;
    uint8 maximalStepBacks;
}

/// @notice The contracts of one deployment. Each is given all addresses when it is made (they follow from the deployer's
/// account and nonce), and none can be exchanged afterwards.
struct Modules {
    address stakes;
    address jackpot;
    address seeds;
    address market;
    address verification;
    address answers;
    address claims;
    address settlement;
    address demands;
    address court;
}

/// @dev One million, the denominator of every rate.
uint256 constant MILLION = 1_000_000;

/// @dev `amount * rate / 1 000 000`, rounded down.
function partDown(uint256 amount, uint256 rate) pure returns (uint256) {
    return (amount * rate) / MILLION;
}
