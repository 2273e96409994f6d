"""A group on the arena's market: its agreement, its members as nodes of their own, and what they sign for each other.

Every member holds the whole proof, as a group's members do. Here each of them trains it alone: how they train together
is for the tests of `assay.group` and `tests/market/test_group_task.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arena import COIN, Arena

from assay.chain.sender import Call
from assay.commitments import tree
from assay.market.group_agreement import (
    AgreedMember,
    Agreement,
    Statement,
    sign_agreement,
    sign_statement,
    work_subject,
)
from assay.market.groups import GroupContract, GroupState, GroupView, groups_of
from assay.market.presence import Receipt, receipt_statement
from assay.market.records import TaskRecord
from assay.market.types import MILLION
from assay.roles.bench import Workbench
from assay.roles.context import Player
from assay.roles.group_member import GroupMember
from assay.roles.group_work import Duty, SignedWork, exchange, sign_segments
from assay.roles.node import Node
from assay.roles.solver import SolverOptions
from assay.roles.subjects import hashed

NAMES = ("leader", "second", "third")
SHARES = dict(zip(NAMES, (500_001, 333_333, 166_666), strict=True))
"""Parts of what the group earns, per million."""
CONTRIBUTION = 2 * COIN
"""More than the tiny task's stake: whoever is charged first can pay for all."""
CONTRIBUTIONS = (CONTRIBUTION,) * len(NAMES)
LIMITS = {"form_by": 400, "take_by": 3000, "patience": 400, "evidence_seconds": 300, "presence_rate": 0}
OPTIONS = SolverOptions(stake_limit=100 * COIN, least_withdrawal=1)


class Shelf:
    """Where members leave things for each other."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def set(self, key: str, value: str) -> None:
        self.kept[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.kept[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.kept for key in keys)


class ArenaGroup:
    """A group whose members have signed. `owners`: places of those who answer for the segments, in turn.

    `limits` are fields of the agreement; times in them are seconds from now.
    """

    def __init__(
        self,
        arena: Arena,
        owners: Sequence[int] = (),
        contributions: Sequence[int] = (CONTRIBUTION,) * 3,
        **limits: int,
    ) -> None:
        self.arena = arena
        self.contributions = dict(zip(NAMES, contributions, strict=True))
        members = tuple(AgreedMember(arena.address(name), self.contributions[name], SHARES[name]) for name in NAMES)
        fields = {"task": 0, "least_price": 0, "most_stake": sum(contributions), **LIMITS, **limits}
        for name in ("form_by", "take_by"):
            fields[name] += arena.now
        agreement = Agreement(members=members, owners=tuple(owners), plan=bytes(32), nonce=0, **fields)
        factory = groups_of(arena.market)
        signatures = [
            sign_agreement(agreement, self._chain_id, factory.address, arena.account(name).signer) for name in NAMES
        ]
        self.contract = GroupContract(arena.market, factory.group_of(agreement))
        accounts = tuple(member.account for member in members)
        self.duty = Duty(self._chain_id, self.contract.address, accounts, tuple(owners))
        self.board = Shelf()
        arena.books.enter("group", self.contract.address)
        arena.account("deployer").send(factory.form(agreement, signatures))

    @property
    def _chain_id(self) -> int:
        return self.arena.local.deployment.chain_id

    # ---- Members ----------------------------------------------------------------------------------------------------

    def enter(
        self,
        name: str,
        kind: type[GroupMember] = GroupMember,
        bench: type[Workbench] = Workbench,
        also: Sequence[Player] = (),
    ) -> Node:
        """Let a member in; `also` are other roles of its account."""
        node = self.arena.enter(name, *also, bench=bench)
        node.group = GroupContract(node.market, self.contract.address)
        node.players = (kind(node.group, OPTIONS), *also)
        return node

    def enter_all(self, bench: type[Workbench] = Workbench, **others: Any) -> None:
        """Let all members in, honest but for `others`: a kind of member or a workbench, by name."""
        for name in NAMES:
            other = others.get(name)
            if other is not None and issubclass(other, Workbench):
                self.enter(name, bench=other)
            else:
                self.enter(name, other or GroupMember, bench)

    def call(self, function: str, *arguments: Any) -> Call:
        return self.contract.call(function, *arguments)

    def send(self, name: str, function: str, *arguments: Any) -> None:
        """A member, or anybody, calls the group. Raises `RefusedError`."""
        self.arena.account(name).send(self.call(function, *arguments))
        self.arena.reader.poll()

    # ---- Where it stands --------------------------------------------------------------------------------------------

    @property
    def view(self) -> GroupView:
        found = self.contract.view()
        assert found is not None
        return found

    @property
    def state(self) -> GroupState:
        return GroupState(self.contract.ask("state"))

    @property
    def is_ready(self) -> bool:
        return self.state is GroupState.READY

    @property
    def is_paid_out(self) -> bool:
        """Whether every member has all that is its own."""
        view = self.view
        return view.state is GroupState.SHARED and not (view.balance or view.leaving or view.income)

    def play_until_paid_out(self) -> None:
        """The task is over for the group: play until its last wei is with its members."""
        self.arena.sweep()
        self.arena.play(lambda: self.state >= GroupState.CLOSED)
        for wait in (LIMITS["evidence_seconds"], self.arena.parameters.unbonding_seconds):
            self.arena.settle_down()
            self.arena.tick(wait)
        self.arena.play(lambda: self.is_paid_out)

    # ---- What members sign ------------------------------------------------------------------------------------------

    def signed(self, name: str, task: int, subject: bytes, value: bytes, run: int = 0) -> tuple[Statement, bytes]:
        """A statement of a member, and its signature."""
        statement = Statement(task, run, subject, value)
        signer = self.arena.account(name).signer
        return statement, sign_statement(statement, self._chain_id, self.contract.address, signer)

    def work(self, name: str, task: int, segment: int, holder: str = "leader") -> tuple[tuple[Any, ...], bytes]:
        """What a member has signed about a segment as it was registered, with the openings that `holder` makes of the
        proof it holds."""
        roots = self.arena.nodes[holder].jobs.result(f"train:{task:x}:0").roots
        levels = tree.levels(roots)
        start, end = roots[segment], roots[segment + 1]
        _, signature = self.signed(name, task, work_subject(segment, start), end)
        openings = (0, start, tree.proof_of(levels, segment), end, tree.proof_of(levels, segment + 1))
        return openings, signature

    def blame_round(self, name: str, task: int, segment: int) -> Call:
        """The claim that failed the task says that the segment fails, and `name` signed for it."""
        record, view = self.arena.task(task), self.arena.view
        (number,) = record.rounds
        place = view.rounds[number].segments.index(segment)
        line = view.claims.lines[number]
        leaves = hashed(line.leaves[line.root], view.rounds[number].segments)
        proof = tree.proof_of(tree.levels([leaf.leaf() for leaf in leaves]), place)
        return self.call("blameRound", 0, place, line.leaves[line.root][place], proof, *self.work(name, task, segment))

    def receipt(self, task: int, segment: int, *there: str) -> Receipt:
        """What members sign after a segment in which they took part."""
        accounts = tuple(self.arena.address(name) for name in there)
        statement = receipt_statement(task, 0, segment, accounts)
        signed = {name: self.signed(name, task, statement.subject, statement.value)[1] for name in there}
        return Receipt(0, segment, accounts, {self.arena.address(name): made for name, made in signed.items()})

    def witnessing(self, *there: str) -> type[Workbench]:
        """A workbench that holds receipts of these members for every segment."""
        group = self

        class Bench(Workbench):
            def receipts(self, task: TaskRecord) -> list[Receipt]:
                return [group.receipt(task.id, segment, *there) for segment in range(task.segments)]

        return Bench

    def signing(self, kind: type[Workbench]) -> type[Workbench]:
        """A workbench whose account signs for its segments when it has trained, and keeps what all have signed."""
        board, group = self.board, self

        class Bench(kind):  # type: ignore[misc, valid-type]
            def sign(self, task: TaskRecord, name: str) -> None:
                roots = self.run_training(task).roots
                account = group.arena.address(name)
                mine = group.duty.segments_of(account, len(roots) - 1)
                signer = group.arena.account(name).signer
                signed = sign_segments(group.duty, task.id, mine, roots, signer)
                others = [group.arena.address(other) for other in NAMES]
                exchange(board, group.duty, task.id, signed, roots, account, others, 0).write(self.place(task.id) / "w")

            def signed_work(self, task: TaskRecord) -> SignedWork | None:
                return SignedWork.read(self.place(task.id) / "w")

        return Bench

    # ---- What is promised -------------------------------------------------------------------------------------------

    def share(self, name: str, amount: int) -> int:
        """A member's part of what the group earns, but for what does not divide."""
        return amount * SHARES[name] // MILLION

    def loss(self, name: str, amount: int) -> int:
        """A member's part of a loss that nobody in particular is charged with, rounded up."""
        return -(-amount * self.contributions[name] // sum(self.contributions.values()))
