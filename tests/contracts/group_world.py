"""Groups on a deployment of the market: members with keys, agreements they sign, and what they are owed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_abi import encode
from eth_account import Account
from eth_utils import keccak, to_checksum_address

from market_chain import Chain, Outcome, address_of
from market_world import CREDIT, ETHER, FREE, LEAVING, MILLION, MODULES, Tree, World, named

STATES = ("None", "Forming", "Ready", "Working", "Closed", "Shared")
HOUR, DAY = 3600, 86400
SUBMITTER = address_of("submitter")


COMPANIONS = ("Groups", "StageClaims", "StageCourt", "Presence")


class GroupsWorld(World):
    """A deployment of the market with the factory of groups and the court of their stages."""

    contracts = (*MODULES, *COMPANIONS)
    court_code = "HarnessCourt"
    """What both courts are made of."""

    def __init__(self, chain: Chain, **changes: int) -> None:
        artifacts = chain.artifacts  # type: ignore[attr-defined]
        chain.artifacts = {**artifacts, "StageCourt": artifacts[self.court_code]}  # type: ignore[attr-defined]
        super().__init__(chain, **changes)
        chain.interface("Group")  # type: ignore[attr-defined]

    def arguments_of(self, name: str, addresses: dict[str, str]) -> tuple[Any, ...]:
        if name == "Groups":
            return tuple(addresses.values())[: len(MODULES)], addresses["StageClaims"], addresses["Presence"]
        if name == "Presence":
            bond, window = self.parameters["accusationBond"], self.parameters["disputeSeconds"]
            return addresses["Groups"], addresses["Market"], bond, window
        if name == "StageClaims":
            numbers = (self.parameters[each] for each in ("caseBond", "accusationBond", "disputeSeconds"))
            return addresses["Groups"], addresses["Market"], addresses["StageCourt"], *numbers
        if name == "StageCourt":
            return super().arguments_of(self.court_code, {**addresses, "Claims": addresses["StageClaims"]})
        return super().arguments_of(name, addresses)


@dataclass
class Person:
    """A member, with its key."""

    role: str

    @property
    def key(self) -> bytes:
        return bytes(keccak(text=f"key of {self.role}"))

    @property
    def address(self) -> str:
        return str(Account.from_key(self.key).address)

    def sign(self, digest: bytes) -> bytes:
        return bytes(Account.unsafe_sign_hash(digest, self.key).signature)


@dataclass
class Owed:
    """A member's place in the group's ledger, as `positions` gives it."""

    account: str
    share: int
    has_paid: bool
    is_liable: bool
    is_convicted: bool
    absent: int
    contribution: int
    credit: int
    due: int

    def __post_init__(self) -> None:
        self.account = str(self.account).lower()


@dataclass
class GroupActor:
    """One group, and what its members do. `world` must have been deployed with `COMPANIONS`."""

    world: World
    members: Sequence[Person]
    contributions: Sequence[int]
    shares: Sequence[int]
    owners: Sequence[int] = ()
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def now(self) -> int:
        return int(self.world.chain.time)  # type: ignore[attr-defined]

    def agreement(self) -> tuple[Any, ...]:
        """As the contract takes it."""
        if not hasattr(self, "_agreement"):
            fields: dict[str, Any] = {
                "members": [
                    (person.address, contribution, share)
                    for person, contribution, share in zip(self.members, self.contributions, self.shares, strict=True)
                ],
                "owners": list(self.owners),
                "task": 0,
                "leastPrice": 0,
                "mostStake": sum(self.contributions),
                "formBy": self.now + DAY,
                "takeBy": self.now + 7 * DAY,
                "patience": HOUR,
                "evidenceSeconds": DAY,
                "presenceRate": 0,
                "plan": bytes(32),
                "nonce": 0,
            }
            self._agreement = tuple((fields | self.changes).values())
        return self._agreement

    def signatures(self) -> list[bytes]:
        digest = self.world.see("Groups", "digestOf", self.agreement())
        return [person.sign(digest) for person in self.members]

    def form(self) -> str:
        """Forms the group; nobody has contributed yet."""
        sender = address_of("somebody")
        for person in self.members:
            self.world.chain._fund(person.address)  # type: ignore[attr-defined]
        outcome = self.world.do(sender, "Groups", "form", self.agreement(), self.signatures())
        address = str(outcome.event("Formed")["group"])
        self.address = self.world.see("Groups", "groupOf", self.agreement())
        self.world.chain.addresses["Group"] = to_checksum_address(self.address)  # type: ignore[attr-defined]
        assert address.lower() == self.address.lower()
        return self.address

    def ready(self) -> GroupActor:
        """Forms the group and pays all contributions."""
        self.form()
        for place, contribution in enumerate(self.contributions):
            if contribution:
                self.contribute(place)
        return self

    def contribute(self, place: int, payer: str | None = None) -> Outcome:
        sender = payer or self.members[place].address
        return self.world.do(sender, "Group", "contribute", place, value=self.contributions[place])

    @property
    def leader(self) -> Person:
        return self.members[0]

    def lead(self, function: str, *arguments: Any) -> Outcome:
        return self.world.do(self.leader.address, "Group", function, *arguments)

    def anyone(self, function: str, *arguments: Any) -> Outcome:
        return self.world.do(address_of("somebody"), "Group", function, *arguments)

    def see(self, function: str, *arguments: Any) -> Any:
        return self.world.see("Group", function, *arguments)

    @property
    def state(self) -> str:
        return STATES[self.see("state")]

    @property
    def positions(self) -> list[Owed]:
        return [Owed(*row) for row in self.see("positions")]

    @property
    def credits(self) -> list[int]:
        return [each.credit for each in self.positions]

    def working(self, posting: dict[str, Any] | None = None) -> int:
        """Posts a task that the group takes."""
        task = self.world.submit(SUBMITTER, posting)
        self.lead("take", task, 0)
        return task

    def register(self, task: int, cheat: int | None = None) -> Tree:
        """The leader registers; the checkpoints after segment `cheat` are wrong."""
        tree = Tree(self.world.states_of(task, cheat))
        self.world.checkpoints[task] = tree
        last = len(self.world.states_of(task)) - 1
        self.lead("register", tree.root, tree.levels[0][last], tree.proof(0), tree.proof(last), "ipfs://proof")
        return tree

    def settled(self, **changes: Any) -> int:
        """A task that the group takes, trains well and is paid for."""
        world = self.world
        task = self.working(world.posting(**changes))
        self.register(task)
        world.finish(world.draw(task))
        world.after_window()
        world.do(world.deployer, "Settlement", "settle", task)
        assert world.state(task) == "Settled"
        return task

    def shared(self) -> None:
        """Closes the group and shares out, after the time for evidence."""
        self.anyone("close")
        self.world.chain.move(seconds=DAY + HOUR)
        self.anyone("share")

    def unbonded(self) -> None:
        """The stake is back."""
        self.world.chain.move(seconds=self.world.parameters["unbondingSeconds"] + HOUR)
        self.anyone("collect")

    def withdraw_all(self) -> list[int]:
        """Every member withdraws; what each got, in wei."""
        got = []
        for person, owed in zip(self.members, self.positions, strict=True):
            before = self.world.chain.balance(person.address)
            if owed.credit:
                self.world.do(person.address, "Group", "withdraw")
            got.append(self.world.chain.balance(person.address) - before)
        return got

    def assert_balanced(self) -> None:
        """What the group holds, here and on its way out of the market, is what it owes."""
        assert self.state == "Shared"
        here = self.world.chain.balance(self.address)
        leaving = self.world.bucket(LEAVING, self.address) + self.world.bucket(CREDIT, self.address)
        assert self.world.bucket(FREE, self.address) == 0
        assert here + leaving == sum(each.credit + each.due for each in self.positions)

    # ---- statements ----

    def statement(self, task: int, subject: bytes, value: bytes, run: int = 0) -> tuple[int, int, bytes, bytes]:
        return task, run, subject, value

    def signed(self, person: Person, statement: tuple[int, int, bytes, bytes]) -> bytes:
        return person.sign(self.see("digestOf", statement))

    def work(self, person: Person, task: int, segment: int) -> tuple[tuple[Any, ...], bytes]:
        """A member's signed statement that it trained a segment as it was registered, with the openings."""
        tree = self.world.checkpoints[task]
        start, end = tree.levels[0][segment], tree.levels[0][segment + 1]
        subject = keccak(encode(["string", "uint32", "bytes32"], ["work", segment, start]))
        signature = self.signed(person, (task, 0, subject, end))
        return (0, start, tree.proof(segment), end, tree.proof(segment + 1)), signature

    # ---- stages ----

    def stage_work(self, segment: int, **changes: Any) -> tuple[Any, ...]:
        """What a member says its stage did in a segment, as `StageClaims` takes it."""
        fields: dict[str, Any] = {
            "group": self.address,
            "run": 0,
            "segment": segment,
            "until": self.now + 30 * DAY,
            "programRoot": named("stage program"),
            "dataRoot": named("stage data", segment),
            "startRoot": named("stage", segment),
            "endRoot": named("stage", segment + 1),
        }
        return tuple((fields | changes).values())

    def signed_stage(self, person: Person, work: tuple[Any, ...]) -> bytes:
        """A member's signature under it."""
        _, run, segment, until, *roots, end = work
        kinds = ["string", "uint32", "uint40", "bytes32", "bytes32", "bytes32"]
        subject = keccak(encode(kinds, ["stage", segment, until, *roots]))
        return self.signed(person, self.statement(self.see("task"), subject, end, run))

    def publish_stage(self, person: Person, work: tuple[Any, ...]) -> int:
        """Opens a member's statement to the court; the claim's number."""
        signature = self.signed_stage(person, work)
        return int(self.world.do(address_of("somebody"), "StageClaims", "publish", work, signature).value)


def divided(amount: int, weights: Sequence[int]) -> list[int]:
    """Parts rounded down, the remainder to the first with a weight."""
    parts = [amount * weight // sum(weights) for weight in weights]
    first = next(place for place, weight in enumerate(weights) if weight)
    parts[first] += amount - sum(parts)
    return parts


def after_loss(contributions: Sequence[int], at_fault: Sequence[bool], weights: Sequence[int], left: int) -> list[int]:
    """What is left of everybody's contribution: those at fault pay first, convicted ones (no weight) keep nothing."""
    faulty = sum(c for c, fault in zip(contributions, at_fault, strict=True) if fault)
    others = sum(contributions) - faulty
    others_keep = min(left, others)
    kept = []
    for contribution, fault, weight in zip(contributions, at_fault, weights, strict=True):
        whole, rest = (faulty, left - others_keep) if fault else (others, others_keep)
        kept.append(contribution * rest // whole if contribution and weight else 0)
    return [a + b for a, b in zip(kept, divided(left - sum(kept), weights), strict=True)]


PEOPLE = [Person(f"member {number}") for number in range(3)]
CONTRIBUTIONS = [3 * ETHER, 2 * ETHER, 5 * ETHER // 2]
SHARES = [500_001, 333_333, 166_666]
assert sum(SHARES) == MILLION


def groups_world(chain: Chain) -> GroupsWorld:
    """A market with three verifiers, in which groups are formed."""
    world = GroupsWorld(chain)
    for number in range(3):
        world.verifier(f"verifier {number}")
    return world
