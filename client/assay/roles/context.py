"""What a player decides from, and what it decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from assay.chain.sender import Call
from assay.dispute.case import CaseView
from assay.market.connection import Market
from assay.market.groups import GroupView
from assay.market.view import MarketView
from assay.roles.bench import Workbench


@dataclass(frozen=True)
class Purse:
    """What the ledger holds of the own account, in wei, and its place on the verifiers' roll."""

    free: int = 0  # stake that nothing holds, and no seat on the roll needs
    locked: int = 0
    credit: int = 0
    seats: int = 0
    pool: int = 0
    active: int = 0  # whistleblowers


@dataclass(frozen=True)
class Send:
    """A transaction to send. `key` names its purpose: it is sent once however often it is decided. `serves` is the key
    of what it is needed for, where that is another transaction: a refusal counts as one of that."""

    key: str
    call: Call
    task: int | None = None
    segment: int | None = None
    serves: str | None = None

    @property
    def name(self) -> str:
        """What kind of action it is: the key's first word."""
        return self.key.partition(":")[0]


@dataclass(frozen=True)
class Work:
    """Something to be worked out before the next decision."""

    key: str
    run: Callable[[], Any]


Action = Send | Work


class Results(Protocol):
    """Where finished work is found."""

    def result(self, key: str) -> Any | None: ...

    def failures(self, key: str) -> int: ...


@dataclass(frozen=True)
class Context:
    """Everything a player sees: `market` is the access to the contracts, `view` the picture of what happened there, up
    to the newest block read. `secret(name)` is 32 random bytes, the same for the same name for ever, on disk before it
    is returned. `seeds` holds lottery seeds by round where they are known. `group` is the group the account is a
    member of, once it is formed; `cases` are also those of the group, `deadlines` those of all open cases. `refusals`
    counts, by key, how often a transaction would have been refused."""

    market: Market
    me: str
    view: MarketView
    purse: Purse
    results: Results
    bench: Workbench
    secret: Callable[[str], bytes]
    cases: Mapping[int, CaseView] = field(default_factory=dict)
    deadlines: Mapping[int, int] = field(default_factory=dict)
    seeds: Mapping[int, bytes] = field(default_factory=dict)
    group: GroupView | None = None
    refusals: Mapping[str, int] = field(default_factory=dict)


class Player(Protocol):
    """A role's decisions."""

    name: str

    def plan(self, context: Context) -> Sequence[Action]:
        """What to do now; nothing is done twice because of it being planned twice."""
