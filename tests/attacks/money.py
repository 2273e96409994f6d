"""What everybody has, to the wei."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from assay.market.connection import Market
from assay.market.types import Class

OWN = (Class.FREE, Class.LOCKED, Class.LEAVING, Class.CREDIT)
"""Buckets that belong to an account."""
HELD = (Class.ESCROW, Class.ROUND, Class.CASE, Class.DEMAND, Class.RESERVE)
"""Buckets that are empty once everything is over."""


def own(market: Market, account: str) -> int:
    """All that an account has, in its wallet and on the ledger, in wei."""
    wallet = market.chain.web3.eth.get_balance(market.chain.web3.to_checksum_address(account))
    return int(wallet) + sum(market.stakes.balance(kind, account) for kind in OWN)


def held(market: Market) -> Mapping[Class, int]:
    """What the ledger holds for nobody yet."""
    return {kind: int(market.stakes.ask("totalOf", kind)) for kind in HELD}


@dataclass
class Books:
    """Who gained and lost what since the books were opened, gas left aside.

    Gas is what an attacker pays on top, so leaving it aside is in its favour; `gas` counts it apart.
    """

    market: Market
    accounts: dict[str, str] = field(default_factory=dict)  # name -> address
    before: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self.pool_before = self.market.stakes.pool()
        self.first_block = int(self.market.chain.web3.eth.block_number)
        self.before = {name: own(self.market, account) for name, account in self.accounts.items()}

    def enter(self, name: str, account: str) -> None:
        """Keep the books of a further account."""
        self.accounts[name] = account
        self.before[name] = own(self.market, account)

    def gas(self) -> Mapping[str, int]:
        """What every account has paid for gas, in wei."""
        eth = self.market.chain.web3.eth
        names = {address: name for name, address in self.accounts.items()}
        paid = dict.fromkeys(self.accounts, 0)
        for number in range(self.first_block + 1, eth.block_number + 1):
            for digest in eth.get_block(number)["transactions"]:
                receipt = eth.get_transaction_receipt(digest)  # type: ignore[arg-type]
                paid[names[receipt["from"]]] += receipt["gasUsed"] * receipt["effectiveGasPrice"]
        return paid

    def gains(self) -> Mapping[str, int]:
        """What every account, and the pool, has more (or less) than before, gas left aside."""
        paid = self.gas()
        found = {
            name: own(self.market, address) + paid[name] - self.before[name] for name, address in self.accounts.items()
        }
        return {**found, "pool": self.market.stakes.pool() - self.pool_before}

    def assert_balanced(self, still_held: int = 0) -> None:
        """Nothing was made, nothing was lost, and nothing is kept back but `still_held` wei."""
        stakes = self.market.stakes
        balance = self.market.chain.web3.eth.get_balance(stakes.address)
        assert stakes.total() == balance, f"the ledger says {stakes.total()}, the contract has {balance}"
        kept = held(self.market)
        assert sum(kept.values()) == still_held, f"still held: {kept}"
        gains = self.gains()
        assert sum(gains.values()) + still_held == 0, f"gains do not add up: {gains}"
        for name in self.market.addresses:
            if name != "Stakes":
                assert self.market.chain.web3.eth.get_balance(self.market.address(name)) == 0, name
