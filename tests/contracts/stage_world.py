"""Members of a group before the stages' court: what they state, what they accuse each other of, and the books of it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Any

from group_world import CONTRIBUTIONS, DAY, HOUR, PEOPLE, SHARES, GroupActor, Person, after_loss, divided
from market_chain import Outcome
from market_world import Tree, World, named, sha

LEADER, ACCUSED, FINDER = PEOPLE
OUTSIDER = Person("outsider")
SEGMENT = 3
FAULT = 0x40000000  # bits of 2.0


def bits(value: float) -> int:
    """The 32 bits of a number."""
    return int.from_bytes(struct.pack(">f", value), "big")


def scalar_leaf(fault: int) -> bytes:
    """Root of a tensor of one number with these bits."""
    return sha(b"\x00", fault.to_bytes(4, "little"), bytes(1020))


def ended(fault: int = FAULT, tensors: int = 5, name: str = "held") -> Tree:
    """A state in which a checking program ends: the fault, then what the member holds."""
    return Tree([scalar_leaf(fault), *(named(name, number) for number in range(1, tensors))])


@dataclass
class Stages:
    """A group at work, and its members before the stages' court. The books are looked at after every step."""

    group: GroupActor
    bond: int = 0
    accusation_bond: int = 0
    open_cases: dict[int, int] = field(default_factory=dict)  # case -> claim
    pending: set[int] = field(default_factory=set)  # accusations
    accounts: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.world = self.group.world
        self.bond = self.see("CASE_BOND")
        self.accusation_bond = self.see("ACCUSATION_BOND")
        self.accounts |= {person.address for person in self.group.members}

    def see(self, function: str, *arguments: Any) -> Any:
        return self.world.see("StageClaims", function, *arguments)

    # ---- Statements and accusations ----

    def publish(self, person: Person = ACCUSED, segment: int = SEGMENT, **changes: Any) -> int:
        return self.group.publish_stage(person, self.group.stage_work(segment, **changes))

    def work(self, segment: int = SEGMENT, **changes: Any) -> tuple[Any, ...]:
        """What a member of a tolerant task states: it says nothing of the end."""
        return self.group.stage_work(segment, **({"endRoot": bytes(32)} | changes))

    def accused(
        self,
        accuser: Person = FINDER,
        member: Person = ACCUSED,
        work: tuple[Any, ...] | None = None,
        end: Tree | None = None,
        fault: int = FAULT,
        value: int | None = None,
        **changes: Any,
    ) -> Outcome:
        """An accusation. The end is one with that fault, unless another is given."""
        work = self.work() if work is None else work
        tree = ended(fault) if end is None else end
        arguments: dict[str, Any] = {
            "work": work,
            "signature": self.group.signed_stage(member, work),
            "endRoot": tree.root,
            "fault": fault,
            "proof": tree.proof(0),
        }
        bond = self.accusation_bond if value is None else value
        outcome = self.world.do(accuser.address, "StageClaims", "accuse", *(arguments | changes).values(), value=bond)
        self.pending.add(int(outcome.value))
        self.assert_balanced()
        return outcome

    def accuse(self, accuser: Person = FINDER, member: Person = ACCUSED, **changes: Any) -> int:
        return int(self.accused(accuser, member, **changes).value)

    def conclude(self, claim: int, caller: Person = OUTSIDER) -> Outcome:
        outcome = self.world.do(caller.address, "StageClaims", "conclude", claim)
        self.pending.remove(claim)
        self.assert_balanced()
        return outcome

    def window_of(self, claim: int) -> int:
        """Last second in which a case can be opened on an accusation."""
        return int(self.see("accusationOf", claim)[1])

    def at(self, time: int) -> None:
        """The next call is in a block of that time."""
        self.world.chain.move(seconds=time - self.group.now - 12)

    def after_window(self, claim: int) -> None:
        self.at(self.window_of(claim) + 1)

    # ---- Cases ----

    def open(self, person: Person, claim: int, answer: bytes = bytes(32), value: int | None = None) -> int:
        bond = self.bond if value is None else value
        case = int(self.world.do(person.address, "StageCourt", "open", claim, answer, value=bond).value)
        self.open_cases[case] = claim
        self.assert_balanced()
        return case

    def close(self, case: int, won: bool, overshoot: int = 0) -> list[Any]:
        claim = self.open_cases[case]
        outcome = self.world.do(OUTSIDER.address, "StageCourt", "close", case, claim, won, overshoot)
        self.open_cases.pop(case)
        if won:
            self.pending.discard(claim)
        self.assert_balanced()
        return outcome.events

    # ---- The books ----

    def withdraw(self, person: Person) -> int:
        before = self.world.chain.balance(person.address)
        assert self.world.do(person.address, "StageClaims", "withdraw").value > 0
        self.assert_balanced()
        return self.world.chain.balance(person.address) - before

    def credit(self, person: Person) -> int:
        return int(self.see("creditOf", person.address))

    @property
    def credits(self) -> list[int]:
        return [self.credit(person) for person in self.group.members]

    @property
    def convicted(self) -> list[bool]:
        return [each.is_convicted for each in self.group.positions]

    def assert_balanced(self) -> None:
        here = self.world.chain.balance(self.world.chain.addresses["StageClaims"])  # type: ignore[attr-defined]
        credits = sum(self.see("creditOf", account) for account in self.accounts)
        assert here == self.bond * len(self.open_cases) + self.accusation_bond * len(self.pending) + credits
        assert self.see("pendingOf", self.group.address) == len(self.open_cases) + len(self.pending)
        if self.group.state == "Shared":
            self.group.assert_balanced()


def working(world: World, exact: bool = True, **changes: Any) -> GroupActor:
    """Three members at work on a task."""
    group = GroupActor(world, PEOPLE, CONTRIBUTIONS, SHARES, (), changes).ready()
    if exact:
        group.working()
    else:
        task = world.submit(group.world.deployer, world.posting(False))
        world.profiled(task)
        group.lead("take", task, 0)
    return group


def stages_of(world: World, exact: bool = True, **changes: Any) -> Stages:
    """A group at work, and its members before the court."""
    return Stages(working(world, exact, **changes))


def settled_stages(world: World, exact: bool = True, **changes: Any) -> Stages:
    """The same, whose task is done and paid for, and whose group is closed."""
    group = working(world, exact, **changes)
    task = group.see("task")
    group.register(task)
    world.finish(world.draw(task))
    world.after_window()
    world.do(world.deployer, "Settlement", "settle", task)
    group.anyone("close")
    return Stages(group)


def paid_out(stages: Stages) -> list[int]:
    """What everybody has of the group in the end."""
    stages.world.chain.move(seconds=DAY + HOUR)
    stages.group.anyone("share")
    stages.assert_balanced()
    stages.group.unbonded()
    stages.assert_balanced()
    return stages.group.withdraw_all()


def expected_parts(stages: Stages, at_fault: list[bool]) -> list[int]:
    """The same, as the rules have it: nothing was lost, and members at fault are convicted."""
    weights = [0 if fault else share for fault, share in zip(at_fault, SHARES, strict=True)]
    price = stages.world.see("Market", "termsOf", stages.group.see("task"))[10]
    kept = after_loss(CONTRIBUTIONS, at_fault, weights, sum(CONTRIBUTIONS))
    return [a + b for a, b in zip(kept, divided(price, weights), strict=True)]
