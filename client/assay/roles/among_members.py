"""For all that members of a group hold against each other on chain: until when it is heard, whose turn it is, and
taking what comes of it."""

from __future__ import annotations

from collections.abc import Iterator

from assay.market.groups import GroupState, GroupView
from assay.market.members_ledger import MembersLedgerContract
from assay.roles.context import Action, Context, Send

TURN_SECONDS = 60
"""Seconds that each member waits for the one before it, in what anyone may do."""


def turn_after(context: Context, group: GroupView, first: str) -> int:
    """Seconds that this member waits where `first`, whose matter it is, acts before all others."""
    return 0 if context.me == first else TURN_SECONDS * (1 + (group.place_of(context.me) or 0))


def hears_evidence(context: Context, group: GroupView) -> bool:
    """Whether the group still hears of false stages and of absence."""
    if group.state is GroupState.CLOSED:
        return context.view.time <= group.evidence_until
    return group.state is GroupState.WORKING


def has_time(context: Context, group: GroupView) -> bool:
    """Whether so much is left of the time in which a closed group hears evidence that another's case can be waited for:
    it could be one that is meant to be lost."""
    return group.state is GroupState.CLOSED and context.view.time < group.evidence_until - group.evidence_seconds // 2


class LedgerWithdrawal:
    """Takes what a ledger among members owes the account, once for every number of decisions that are known."""

    def __init__(self, name: str, least: int) -> None:
        self.name, self.least = name, least
        self._paid_out = 0  # what was decided when nothing was left to withdraw

    def plan(self, context: Context, contract: MembersLedgerContract, decided: int) -> Iterator[Action]:
        """Withdraw, if anything was decided since the ledger was asked last."""
        if decided == self._paid_out:
            return
        credit = contract.credit_of(context.me)
        if credit >= max(1, self.least):
            yield Send(f"{self.name}-withdraw:{decided}:{credit}", contract.withdraw())
        else:
            self._paid_out = decided
