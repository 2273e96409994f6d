"""When it pays to join a round: the rule by which whistleblowers come and go."""

from __future__ import annotations

from assay.market.records import RoundRecord, TaskRecord
from assay.market.types import MILLION
from assay.roles.context import Context

NO_LIMIT = 1 << 30


def expected_prize(context: Context, task: TaskRecord) -> int:
    """The jackpot a forced round of a task would have now (contracts/Jackpot.sol, reserve)."""
    parameters, posting = context.market.parameters, task.posting
    rounds = posting.verifiers + (0 if posting.exact else 1)
    tax = posting.highest_reward * parameters.tax_rate // MILLION // rounds
    most = parameters.seat * parameters.jackpot_rate // MILLION
    if parameters.forced_rate == 0:
        return 0
    return min(tax * MILLION // parameters.forced_rate, context.purse.pool // 3, most)


def payout_threshold(prize: int, forced_rate: int, cost: int) -> int:
    """The most whistleblowers with whom answering pays: J * rate / 2^(k-1) is at least the cost; no limit at cost 0."""
    if cost == 0:
        return NO_LIMIT
    number = 0
    while prize * forced_rate // MILLION >> number >= cost:
        number += 1
    return number


def joins(context: Context, found: RoundRecord, task: TaskRecord, cost: int, chance: int) -> bool:
    """Whether to join a round: below the own threshold always, beyond it by a fixed chance (parts per million).

    The number of active whistleblowers can be raised by anybody who joins with many accounts; a rule of the number
    alone could so be crowded out of the very round that is to go unseen. The chance cannot: it is decided by a secret,
    once for a round. Where not even a single whistleblower would earn its cost, nobody joins.
    """
    if context.purse.free < context.market.parameters.answer_bond:
        return False
    threshold = payout_threshold(expected_prize(context, task), context.market.parameters.forced_rate, cost)
    if threshold == 0 or context.purse.active < threshold:
        return threshold > 0
    return int.from_bytes(context.secret(f"join:{found.id:x}:{found.draw_seed:x}"), "big") % MILLION < chance
