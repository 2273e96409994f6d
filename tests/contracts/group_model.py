"""Groups on the random market: they form, contribute, take tasks, register, close and share out, at random.

After every call a group's balance is what its events say; every few calls, so is what it says of itself; at the end
anyone can end it, and what everybody withdraws leaves nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from eth_keys.constants import SECPK1_N
from eth_keys.datatypes import PrivateKey

from group_world import DAY, HOUR, GroupActor, GroupsWorld, Owed, Person
from group_world import STATES as GROUP_STATES
from market_chain import Chain, Event, Outcome
from market_model import Model
from market_world import CREDIT, ETHER, FREE, LEAVING, MILLION, Tree, named
from model_books import OUTSIDER, Task

NONCE = 0x5EED
POINT = PrivateKey(NONCE.to_bytes(32, "big")).public_key
MOST_GROUPS = 5
"""That are not shared out, at a time."""


class Member(Person):
    """A member whose key is worth nothing: it signs with a nonce that everybody knows, which is much faster."""

    @cached_property
    def address(self) -> str:  # type: ignore[override]
        return super().address

    @cached_property
    def name(self) -> str:
        """The address, as events have it."""
        return self.address.lower()

    @cached_property
    def secret(self) -> int:
        return int.from_bytes(self.key, "big")

    def sign(self, digest: bytes) -> bytes:
        r, odd = int.from_bytes(POINT.to_bytes()[:32], "big") % SECPK1_N, POINT.to_bytes()[63] & 1
        s = pow(NONCE, -1, SECPK1_N) * (int.from_bytes(digest, "big") + r * self.secret) % SECPK1_N
        if 2 * s > SECPK1_N:
            s, odd = SECPK1_N - s, 1 - odd
        return r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([27 + odd])


MEMBERS = [Member(f"member {number}") for number in range(6)]
HONEST_MEMBERS = MEMBERS[:2]
BY_NAME = {member.name: member for member in MEMBERS}
STRANGER = Member("stranger to all groups")


@dataclass(eq=False)
class Group:
    """What the model knows of a group, from events alone."""

    actor: GroupActor
    state: str
    leader: str
    task: Task | None = None
    staked: int = 0
    returning: int = 0
    closed_at: int = 0
    paid: set[int] = field(default_factory=set)
    credit: Counter[str] = field(default_factory=Counter)
    due: Counter[str] = field(default_factory=Counter)
    convicted: set[str] = field(default_factory=set)
    absent: dict[str, set[int]] = field(default_factory=dict)
    is_over: bool = False

    @property
    def address(self) -> str:
        return self.actor.address

    @cached_property
    def account(self) -> int:
        return int(self.address, 16)

    @property
    def members(self) -> list[Member]:
        return list(self.actor.members)  # type: ignore[arg-type]

    def place_of(self, name: str) -> int:
        return [member.name for member in self.members].index(name)

    @property
    def evidence_until(self) -> int:
        return self.closed_at + int(self.actor.changes["evidenceSeconds"])

    @property
    def held(self) -> int:
        """What must lie in the group now, by its events."""
        if self.state == "Shared":
            return sum(self.credit.values()) + sum(self.due.values()) - self.returning
        return sum(self.actor.contributions[place] for place in self.paid) - self.staked


class GroupModel(Model):
    """The random driver with groups among the solvers."""

    world_type: type[GroupsWorld] = GroupsWorld

    def __init__(self, chain: Chain, seed: int, gentle: bool) -> None:
        self.groups: dict[str, Group] = {}
        self.at: Group | None = None
        self.reached: Counter[str] = Counter()
        super().__init__(chain, seed, gentle)

    # ---- calls and what is checked after each ----

    def turn_to(self, group: Group) -> None:
        """Events of this group are read from now on."""
        self.at = group
        self.world.chain.addresses["Group"] = group.address  # type: ignore[attr-defined]

    def in_group(self, group: Group, actor: str, function: str, *arguments: Any, value: int = 0) -> Outcome | None:
        self.turn_to(group)
        return self.call(actor, "Group", function, *arguments, value=value)

    def call(self, actor: str, name: str, function: str, *arguments: Any, value: int = 0) -> Outcome | None:
        outcome = super().call(actor, name, function, *arguments, value=value)
        self.check_step()
        return outcome

    def check_step(self) -> None:
        for group in self.groups.values():
            assert group.is_over or self.world.chain.balance(group.address) == group.held, group

    def check_sums(self) -> None:
        super().check_sums()
        assert self.balance("Groups") == 0
        for group in self.groups.values():
            if not group.is_over:
                self.check_group(group)
                group.is_over = group.state == "Shared" and not group.held and not group.returning

    def check_group(self, group: Group) -> None:
        self.turn_to(group)
        assert group.actor.state == group.state
        for place, row in enumerate(self.world.see("Group", "positions")):
            owed = Owed(*row)
            name = group.members[place].name
            assert owed.account == name
            assert owed.has_paid == (place in group.paid or not group.actor.contributions[place])
            assert owed.is_convicted == (name in group.convicted)
            assert owed.absent == len(group.absent.get(name, ()))
            assert (owed.credit, owed.due) == (group.credit[name], group.due[name])
        if group.state == "Shared":
            assert self.buckets[FREE, group.account] == 0
            # Of what the market still has for the group, all that was stake is owed to somebody already.
            assert self.buckets[LEAVING, group.account] + self.buckets[CREDIT, group.account] >= group.returning

    def note(self, event: Event) -> None:
        if event.contract == "Group":
            assert self.at
            self.note_group(self.at, event.name, event.values)
        elif event.contract != "Groups":
            super().note(event)
            if event.name == "Left" and event.values["account"] in self.groups:
                self.note_collected(self.groups[event.values["account"]])

    def note_collected(self, group: Group) -> None:
        """What came back of the stake is no longer due: it is credited next."""
        leaving = self.buckets[LEAVING, group.account]
        if leaving != group.returning:
            group.due.clear()
        group.returning = leaving

    def note_group(self, group: Group, name: str, values: dict[str, Any]) -> None:
        member = values.get("member", "")
        if name == "Dissolved" or (name == "CoinCredited" and group.state == "Closed"):
            self.group_step(group, "Shared")
        if name == "CoinCredited":
            assert group.state == "Shared"
            # Where all are convicted, none is.
            assert member not in group.convicted or len(group.convicted) == len(group.members)
            group.credit[member] += values["amount"]
            group.due[member] += values["due"]
        elif name == "Withdrawn":
            group.credit[member] -= values["amount"]
            assert group.credit[member] == 0
        elif name == "Contributed":
            group.paid.add(group.place_of(member))
            if values["isComplete"]:
                self.group_step(group, "Ready")
        elif name == "TaskTaken":
            self.group_step(group, "Working")
            group.staked = values["stake"]
        elif name == "LeaderChanged":
            group.leader = values["leader"]
        elif name == "GroupClosed":
            self.group_step(group, "Closed")
            group.returning, group.closed_at = values["returning"], self.now
            assert values["loss"] + values["returning"] == group.staked
        elif name == "Convicted":
            group.convicted.add(member)

    def group_step(self, group: Group, state: str) -> None:
        assert GROUP_STATES.index(state) > GROUP_STATES.index(group.state), (group.state, state)
        group.state = state

    # ---- choosing ----

    def group(self, *states: str) -> Group | None:
        found = [group for group in self.groups.values() if group.state in states]
        if self.random.random() < 0.03:
            found = list(self.groups.values())
        return self.pick(found[-8:])

    def member_of(self, group: Group, *but: Member) -> Member:
        """One of the group's members, rarely somebody else."""
        if self.random.random() < 0.03:
            return self.pick([*MEMBERS, STRANGER])
        member: Member = self.pick([member for member in group.members if member not in but])
        return member

    def leading(self, group: Group) -> str:
        """Who leads the group, sometimes somebody else."""
        if self.random.random() < 0.9:
            return BY_NAME[group.leader].address
        return self.pick([*MEMBERS, STRANGER]).address

    def group_of(self, task: Task) -> Group | None:
        return self.groups.get(task.solver.lower())

    # ---- forming ----

    def form(self) -> None:
        if sum(group.state != "Shared" for group in self.groups.values()) >= MOST_GROUPS:
            return
        actor = self.agreed()
        outcome = self.call(OUTSIDER, "Groups", "form", actor.agreement(), actor.signatures())
        if outcome:
            actor.address = outcome.event("Formed")["group"]
            state = "Forming" if any(actor.contributions) else "Ready"
            self.groups[actor.address] = Group(actor, state, actor.members[0].address.lower())

    def agreed(self) -> GroupActor:
        """A group that some members agree on."""
        members = self.random.sample(MEMBERS, self.random.choice([2, 3, 3, 4]))
        contributions = [self.random.choice([0, ETHER, 2 * ETHER, 3 * ETHER]) for _ in members]
        contributions[self.random.randrange(len(members))] = 4 * ETHER
        cuts = sorted(self.random.sample(range(1, MILLION), len(members) - 1))
        shares = [high - low for low, high in zip([0, *cuts], [*cuts, MILLION], strict=True)]
        changes = {
            "mostStake": self.random.choice([4 * ETHER, sum(contributions)]),
            "formBy": self.now + self.random.choice([HOUR, 3 * DAY, 7 * DAY]),
            "takeBy": self.now + self.random.choice([7 * DAY, 14 * DAY]),
            "evidenceSeconds": self.random.choice([0, 3 * HOUR, DAY, 3 * DAY]),
            "presenceRate": self.random.choice([0, 800_000, MILLION]),
            "nonce": self.calls,
        }
        return GroupActor(self.world, members, contributions, shares, (), changes)

    def contribute(self) -> None:
        group = self.group("Forming")
        if group:
            missing = [place for place in range(len(group.members)) if place not in group.paid]
            place = self.pick(missing) if missing else 0
            value = group.actor.contributions[place] + (self.random.random() < 0.03)
            payer = self.pick([group.members[place].address, OUTSIDER])
            self.in_group(group, payer, "contribute", place, value=value)

    def dissolve(self) -> None:
        group = self.group("Forming", "Ready")
        if group:
            actor = self.leading(group) if self.random.random() < 0.1 else OUTSIDER
            self.in_group(group, actor, "dissolve")

    # ---- working ----

    def take_for_group(self) -> None:
        group, task = self.group("Ready"), self.task("Open")
        tolerant = [each for each in self.tasks.values() if each.state == "Open" and not each.exact]
        task = self.pick(tolerant) or task
        if group and task and self.in_group(group, self.leading(group), "take", task.id, 0):
            group.task, task.solver = task, group.address
            task.cheat = self.random.choice([None, None, 0, 4])

    def register_for(self, task: Task, actor: str) -> None:
        group = self.group_of(task)
        if group is None:
            return super().register_for(task, actor)
        tree = Tree(self.world.states_of(task.id, task.cheat))
        _, function, _, *arguments = self.registration(task, tree)
        if self.in_group(group, self.leading(group), function, *arguments):
            self.world.checkpoints[task.id] = tree
        return None

    def step_down(self, task: Task, actor: str) -> None:
        group = self.group_of(task)
        if group is None:
            super().step_down(task, actor)
        else:
            self.in_group(group, self.leading(group), "stepDown")

    def lead(self) -> None:
        group = self.group("Forming", "Ready", "Working", "Closed")
        if group:
            choice = self.random.random()
            if choice < 0.3:
                self.in_group(group, self.leading(group), "stay")
            elif choice < 0.4:
                self.in_group(group, self.leading(group), "stepDown")
            else:
                self.in_group(group, self.member_of(group).address, "takeOver")

    def convict(self) -> None:
        """Shows two statements of a member about one subject; honest members sign no second one."""
        group = self.group("Working", "Closed")
        if group and group.task and self.random.random() < 0.3:
            place = self.random.randrange(len(group.members))
            member = group.members[place]
            if member in HONEST_MEMBERS and self.gentle:
                return
            values = [named("value", number) for number in self.random.choices(range(4), k=2)]
            statements = [(group.task.id, 0, named("subject"), value) for value in values]
            self.turn_to(group)
            signed = [part for each in statements for part in (each, group.actor.signed(member, each))]
            self.in_group(group, OUTSIDER, "convict", place, *signed)

    # ---- sharing out ----

    def close_group(self) -> None:
        group = self.group("Working")
        if group:
            self.in_group(group, OUTSIDER, "close")

    def share(self) -> None:
        group = self.group("Closed")
        if group:
            self.share_out(group)

    def share_out(self, group: Group) -> bool:
        paid = self.buckets[CREDIT, group.account]
        if self.in_group(group, OUTSIDER, "share") is None:
            return False
        # Where all is lost, no event says so.
        group.state = "Shared"
        self.reached["shared out"] += 1
        self.reached["shared out with income"] += paid > 0
        self.reached["shared out with a loss"] += group.returning < group.staked
        self.reached["shared out without a convicted member"] += bool(group.convicted)
        self.reached["shared out less for absence"] += any(group.absent.values()) and paid > 0
        return True

    def collect_for_group(self) -> None:
        group = self.group("Shared")
        if group:
            if self.random.random() < 0.3:
                self.call(OUTSIDER, "Stakes", "release", group.address)
            else:
                self.in_group(group, OUTSIDER, "collect")

    def withdraw_from_group(self) -> None:
        group = self.group("Shared")
        if group:
            self.in_group(group, self.member_of(group).address, "withdraw")

    def trespasses(self, actor: str) -> list[tuple[Any, ...]]:
        group: Group | None = self.pick(list(self.groups.values()))
        if group is None:
            return super().trespasses(actor)
        self.turn_to(group)
        return [
            *super().trespasses(actor),
            ("Group", "initialize", group.actor.agreement()),
            ("Group", "convictStage", group.members[0].address, 1),
            ("Group", "markAbsent", group.members[0].address, 1),
        ]

    # ---- time ----

    def quiet(self) -> None:
        """A while in which verifiers act in time also where they need not, so that tasks get as far as to a group."""
        if self.gentle:
            return
        for _ in range(12):
            self.draw()
            Model.duties(self)
            self.settle()
            self.world.chain.move(blocks=12, seconds=900)

    # ---- the run ----

    def actions(self) -> Iterator[tuple[int, Callable[[], None]]]:
        yield from super().actions()
        # What is rare on the market alone happens here too.
        yield from [(3, self.market), (4, self.ways_out), (4, self.take)]
        yield from [
            (1, self.quiet),
            (5, self.form),
            (10, self.contribute),
            (1, self.dissolve),
            (7, self.take_for_group),
            (3, self.lead),
            (1, self.convict),
            (2, self.close_group),
            (3, self.share),
            (2, self.collect_for_group),
            (2, self.withdraw_from_group),
        ]

    def drain(self) -> None:
        """Ends every task, then every group, and pays out everything."""
        super().drain()
        groups = self.groups.values()
        self.world.chain.move(seconds=14 * DAY)
        for group in groups:
            if group.state in ("Forming", "Ready"):
                assert self.in_group(group, OUTSIDER, "dissolve")
            elif group.state == "Working":
                assert self.in_group(group, OUTSIDER, "close")
        self.world.chain.move(seconds=3 * DAY)
        for group in groups:
            assert group.state != "Closed" or self.share_out(group)
        self.world.chain.move(seconds=self.world.parameters["unbondingSeconds"])
        for group in groups:
            self.in_group(group, OUTSIDER, "collect")
            for member in group.members:
                assert not group.credit[member.name] or self.in_group(group, member.address, "withdraw")
        self.check_sums()
        for group in groups:
            assert (group.state, group.returning, group.due.total()) == ("Shared", 0, 0)
            assert self.world.chain.balance(group.address) == 0
            assert not any(self.buckets[kind, group.account] for kind in (FREE, LEAVING, CREDIT))
