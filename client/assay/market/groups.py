"""Groups: several accounts as one solver (contracts/Groups.sol, contracts/Group.sol)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any

from assay.chain.rpc import Chain
from assay.chain.sender import Call
from assay.dispute.moves import Move
from assay.market.connection import Market
from assay.market.contract import Contract
from assay.market.court import CourtContract
from assay.market.group_agreement import Agreement, Statement
from assay.market.stakes import StakesContract
from assay.market.tasks import TasksContract
from assay.market.types import Class, ProfileLeaf, ReplayLeaf


class GroupState(IntEnum):
    """Where a group stands (contracts/interfaces/IGroup.sol)."""

    NONE = 0
    FORMING = 1
    READY = 2
    WORKING = 3
    CLOSED = 4
    SHARED = 5


@dataclass(frozen=True)
class GroupMember:
    """A member's place in a group's ledger, in wei; `share` in parts per million, `absent` in segments."""

    account: str
    share: int
    has_paid: bool
    is_liable: bool
    is_convicted: bool
    absent: int
    contribution: int
    credit: int
    due: int


@dataclass(frozen=True)
class GroupView:
    """A group as it stands. `leaving`: stake on its way out of the market until `leaving_until`; `income`: what the
    market owes it; `presence_rate`: the part of a share that is earned by taking part, in parts per million."""

    address: str
    state: GroupState
    leader: str
    task: int
    members: tuple[GroupMember, ...]
    patience: int
    evidence_seconds: int
    presence_rate: int
    form_by: int
    take_by: int
    leader_until: int
    evidence_until: int
    balance: int
    leaving: int
    leaving_until: int
    income: int

    def place_of(self, account: str) -> int | None:
        """A member's place, or None."""
        return next((place for place, member in enumerate(self.members) if member.account == account), None)


class GroupsContract(Contract):
    """The factory."""

    def form(self, agreement: Agreement, signatures: Sequence[bytes]) -> Call:
        """Make the group of an agreement."""
        return self.call("form", agreement, list(signatures))

    def group_of(self, agreement: Agreement) -> str:
        """Where the group of an agreement lies, or will lie."""
        return str(self.ask("groupOf", agreement))

    def is_group(self, account: str) -> bool:
        """Whether an account is a group made here."""
        return bool(self.ask("isGroup", account))


class GroupContract(Contract):
    """One group."""

    def __init__(self, market: Market, address: str) -> None:
        super().__init__(market.chain, "Group", address)
        self._market = market
        self._exists = False

    def contribute(self, place: int, amount: int) -> Call:
        """Pay the contribution of the member at a place."""
        return self.call("contribute", place, value=amount)

    def dissolve(self) -> Call:
        """End a group without a task; contributions go back."""
        return self.call("dissolve")

    def stay(self) -> Call:
        """The leader says that it is there."""
        return self.call("stay")

    def take_over(self) -> Call:
        """Become the leader in the place of one that is silent."""
        return self.call("takeOver")

    def close(self) -> Call:
        """The task is over for the group."""
        return self.call("close")

    def share(self) -> Call:
        """Credit what there is to the members."""
        return self.call("share")

    def collect(self) -> Call:
        """Credit what has come since."""
        return self.call("collect")

    def withdraw(self) -> Call:
        """Pay out the caller's credit."""
        return self.call("withdraw")

    def blame_case(self, work: tuple[Any, ...], signature: bytes) -> Call:
        """Show that the case that failed the task was about a segment its owner signed for."""
        return self.call("blameCase", work, signature)

    def blame_accusation(self, segment: int, accuser: str, work: tuple[Any, ...], signature: bytes) -> Call:
        """Show that the accusation that failed the task was about a segment its owner signed for."""
        return self.call("blameAccusation", segment, accuser, work, signature)

    def blame_round(
        self,
        share: int,
        place: int,
        leaf: ReplayLeaf | ProfileLeaf,
        proof: Sequence[bytes],
        work: tuple[Any, ...],
        signature: bytes,
    ) -> Call:
        """Show that a verifier's standing claim fails a segment its owner signed for: leaf `place` of a share's."""
        return self.call("blameRound", share, place, leaf, list(proof), work, signature)

    def convict(
        self, place: int, first: Statement, first_signature: bytes, second: Statement, second_signature: bytes
    ) -> Call:
        """Show that a member signed two values for one subject."""
        return self.call("convict", place, first, first_signature, second, second_signature)

    def owner_of(self, segment: int) -> str | None:
        """The member that answers for a segment."""
        owner = str(self.ask("ownerOf", segment))
        return None if int(owner, 16) == 0 else owner

    def view(self) -> GroupView | None:
        """The group as it stands, or None before it is formed."""
        eth = self.chain.web3.eth
        if not self._exists:
            self._exists = bool(self.chain.ask("asking for the group's code", lambda: eth.get_code(self.address)))
            if not self._exists:
                return None
        limits = self.ask("limits")
        members = tuple(
            GroupMember(
                row["account"], row["share"], row["hasPaid"], row["isLiable"], row["isConvicted"], row["absent"],
                row["contribution"], row["credit"], row["due"],
            )
            for row in self.ask("positions")
        )  # fmt: skip
        stakes = self._market.stakes
        return GroupView(
            self.address,
            GroupState(self.ask("state")),
            str(self.ask("leader")),
            int(self.ask("task")),
            members,
            limits["patience"],
            limits["evidenceSeconds"],
            limits["presenceRate"],
            limits["formBy"],
            limits["takeBy"],
            int(self.ask("leaderUntil")),
            int(self.ask("evidenceUntil")),
            int(self.chain.ask("asking for the group's balance", lambda: eth.get_balance(self.address))),
            stakes.balance(Class.LEAVING, int(self.address, 16)),
            stakes.leaving_until(self.address),
            stakes.balance(Class.CREDIT, int(self.address, 16)),
        )


def groups_of(market: Market) -> GroupsContract:
    """The factory of a deployment."""
    return GroupsContract(market.chain, "Groups", market.address("Groups"))


# ---- The market as a group acts on it -------------------------------------------------------------------------------


class _GroupTasks(TasksContract):
    """Calls of the solver go through the group."""

    def __init__(self, chain: Chain, address: str, group: GroupContract) -> None:
        super().__init__(chain, "Market", address)
        self._group = group

    def take(self, task: int, lowest: int = 0) -> Call:
        return self._group.call("take", task, lowest)

    def step_down(self, task: int) -> Call:
        return self._group.call("stepDown")

    def register(
        self,
        task: int,
        checkpoint_root: bytes,
        final_root: bytes,
        first: Sequence[bytes],
        last: Sequence[bytes],
        locations: str,
    ) -> Call:
        return self._group.call("register", checkpoint_root, final_root, list(first), list(last), locations)


class _GroupCourt(CourtContract):
    """The claimant's expansions go through the group; all other moves are anyone's."""

    def __init__(self, chain: Chain, address: str, group: GroupContract) -> None:
        super().__init__(chain, "Court", address)
        self._group = group

    def move(self, case_id: int, position: bytes, move: Move) -> Call:
        if move.function == "expand":
            return self._group.call("expand", case_id, position, *move.arguments)
        return super().move(case_id, position, move)


class GroupMarket(Market):
    """The market as it is acted on in a group's name. `own` is the same market in the member's own name."""

    def __init__(self, market: Market, group: GroupContract) -> None:
        super().__init__(market.chain, market.deployment)
        self.own, self.group = market, group

    @cached_property
    def stakes(self) -> StakesContract:
        return self.own.stakes

    @cached_property
    def tasks(self) -> TasksContract:
        return _GroupTasks(self.chain, self.address("Market"), self.group)

    @cached_property
    def court(self) -> CourtContract:
        return _GroupCourt(self.chain, self.address("Court"), self.group)
