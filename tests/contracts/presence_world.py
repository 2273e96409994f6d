"""Members of a group that report who was absent, and show who was there; and the books of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from eth_abi import encode
from eth_utils import keccak

from group_world import CONTRIBUTIONS, DAY, HOUR, PEOPLE, SHARES, GroupActor, Person, divided
from market_chain import Outcome
from market_world import MILLION, World

LEADER, ABSENT, WITNESS = PEOPLE
OUTSIDER = Person("outsider")
RATE = 800_000
SEGMENTS = 8


def subject_of(segment: int, accounts: Sequence[str]) -> bytes:
    """What a receipt is about, as the specification has it."""
    hashed = keccak(encode(["address[]"], [list(accounts)]))
    return bytes(keccak(encode(["string", "uint32", "bytes32"], ["presence", segment, hashed])))


def weights_of(shares: Sequence[int], absent: Sequence[int], rate: int, segments: int = SEGMENTS) -> list[int]:
    """What income is divided by: shares (zero of convicted members), less what was to be earned by being there."""
    earned = [share * (segments * MILLION - rate * away) for share, away in zip(shares, absent, strict=True)]
    return earned if any(earned) else list(shares)


@dataclass
class Roll:
    """A group whose training is over, and its members' reports. The books are looked at after every step."""

    group: GroupActor
    rate: int = RATE
    segments: int = SEGMENTS
    pending: dict[int, Person] = field(default_factory=dict)  # report -> who made it

    def __post_init__(self) -> None:
        self.world = self.group.world
        self.bond = self.see("BOND")

    def see(self, function: str, *arguments: object) -> object:
        return self.world.see("Presence", function, *arguments)

    # ---- Reports and answers ----

    def reported(
        self, first: int, last: int, member: Person = ABSENT, reporter: Person = LEADER, value: int | None = None
    ) -> Outcome:
        """A report of a member."""
        place = PEOPLE.index(member)
        bond = self.bond if value is None else value
        outcome = self.world.do(
            reporter.address, "Presence", "report", self.group.address, place, first, last, value=bond
        )
        self.pending[int(outcome.value)] = reporter
        self.assert_balanced()
        return outcome

    def report(self, first: int, last: int, member: Person = ABSENT, reporter: Person = LEADER) -> int:
        return int(self.reported(first, last, member, reporter).value)

    def receipt(
        self, signer: Person, segment: int, there: Sequence[Person] = PEOPLE, run: int = 0
    ) -> tuple[int, int, list[str], bytes]:
        """A signed receipt, as `answer` takes it."""
        accounts = [person.address for person in there]
        statement = self.group.statement(self.group.see("task"), subject_of(segment, accounts), bytes(32), run)
        return run, segment, accounts, self.group.signed(signer, statement)

    def answer(
        self,
        number: int,
        segment: int,
        signer: Person = WITNESS,
        there: Sequence[Person] = PEOPLE,
        run: int = 0,
        caller: Person = OUTSIDER,
    ) -> Outcome:
        outcome = self.world.do(
            caller.address, "Presence", "answer", number, *self.receipt(signer, segment, there, run)
        )
        self.pending.pop(number)
        self.assert_balanced()
        return outcome

    def conclude(self, number: int, caller: Person = OUTSIDER) -> Outcome:
        outcome = self.world.do(caller.address, "Presence", "conclude", number)
        self.pending.pop(number)
        self.assert_balanced()
        return outcome

    def until(self, number: int) -> int:
        """Last second in which a report can be answered."""
        return int(self.see("reportOf", number)[4])  # type: ignore[index]

    def at(self, time: int) -> None:
        """The next call is in a block of that time."""
        self.world.chain.move(seconds=time - self.group.now - 12)

    def found_absent(self, first: int, last: int, member: Person = ABSENT, reporter: Person = LEADER) -> int:
        """A report that nobody answers; its number."""
        number = self.report(first, last, member, reporter)
        self.at(self.until(number) + 1)
        self.conclude(number)
        return number

    # ---- The books ----

    @property
    def absent(self) -> list[int]:
        return [each.absent for each in self.group.positions]

    @property
    def credits(self) -> list[int]:
        return [int(self.see("creditOf", person.address)) for person in PEOPLE]  # type: ignore[call-overload]

    def withdraw(self, person: Person) -> int:
        before = self.world.chain.balance(person.address)
        assert self.world.do(person.address, "Presence", "withdraw").value > 0
        self.assert_balanced()
        return self.world.chain.balance(person.address) - before

    def assert_balanced(self) -> None:
        here = self.world.chain.balance(self.world.chain.addresses["Presence"])  # type: ignore[attr-defined]
        assert here == self.bond * len(self.pending) + sum(self.credits)
        assert self.see("pendingOf", self.group.address) == len(self.pending)
        if self.group.state == "Shared":
            self.group.assert_balanced()

    @property
    def price(self) -> int:
        return int(self.world.see("Market", "termsOf", self.group.see("task"))[10])

    def paid_out(self) -> list[int]:
        """What everybody has of the group in the end."""
        self.world.chain.move(seconds=DAY + HOUR)
        self.group.anyone("share")
        self.assert_balanced()
        self.group.unbonded()
        self.assert_balanced()
        got = self.group.withdraw_all()
        assert self.world.chain.balance(self.group.address) == 0
        return got

    def expected(self, absent: Sequence[int]) -> list[int]:
        """The same, as the rules have it: nothing was lost, nobody is convicted."""
        income = divided(self.price, weights_of(SHARES, absent, self.rate, self.segments))
        return [a + b for a, b in zip(CONTRIBUTIONS, income, strict=True)]


def roll_of(world: World, rate: int = RATE, closed: bool = True, segments: int = SEGMENTS, **changes: int) -> Roll:
    """A group whose task is done and paid for, and which is closed unless `closed` is False."""
    agreed = {"presenceRate": rate, **changes}
    group = GroupActor(world, PEOPLE, CONTRIBUTIONS, SHARES, (), agreed).ready()
    group.settled(**({} if segments == SEGMENTS else {"steps": segments, "interval": 1, "trainSeconds": 20_000}))
    if closed:
        group.anyone("close")
    return Roll(group, rate, segments)
