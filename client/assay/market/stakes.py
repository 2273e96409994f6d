"""Stakes: the ledger of all coin, the verifiers' roll, active whistleblowers (contracts/Stakes.sol)."""

from __future__ import annotations

from assay.chain.sender import Call
from assay.market.contract import Contract
from assay.market.types import Class


class StakesContract(Contract):
    """Typed access."""

    def deposit(self, amount: int) -> Call:
        """Add `amount` wei to the caller's free stake."""
        return self.call("deposit", value=amount)

    def withdraw(self) -> Call:
        """Pay out the caller's credit."""
        return self.call("withdraw")

    def restake(self, amount: int) -> Call:
        """Turn credit into free stake."""
        return self.call("restake", amount)

    def enlist(self, seats: int, limit: int) -> Call:
        """Take further seats on the verifiers' roll, serving shares of at most 2^limit units of work."""
        return self.call("enlist", seats, limit)

    def delist(self, seats: int) -> Call:
        """Give seats up."""
        return self.call("delist", seats)

    def leave(self, amount: int) -> Call:
        """Begin to take stake out."""
        return self.call("leave", amount)

    def release(self, account: str) -> Call:
        """Turn stake whose wait is over into credit."""
        return self.call("release", account)

    def prune(self, account: str) -> Call:
        """Remove seats that stake no longer backs."""
        return self.call("prune", account)

    def balance(self, kind: Class, identity: int | str) -> int:
        """What a bucket holds; `identity` is an account, or the number of a task, round, case or demand."""
        number = int(identity, 16) if isinstance(identity, str) else identity
        return int(self.ask("balanceOf", kind, number))

    def credit(self, account: str) -> int:
        """What an account can withdraw."""
        return self.balance(Class.CREDIT, account)

    def free(self, account: str) -> int:
        """Stake that nothing holds."""
        return self.balance(Class.FREE, account)

    def locked(self, account: str) -> int:
        """Stake held for tasks and rounds."""
        return self.balance(Class.LOCKED, account)

    def pool(self) -> int:
        """The unreserved jackpot pool."""
        return self.balance(Class.POOL, 0)

    def total(self) -> int:
        """Sum of all buckets."""
        return int(self.ask("total"))

    def seat(self) -> int:
        """Stake that one seat stands for."""
        return int(self.ask("SEAT"))

    def seats(self, account: str) -> int:
        """Seats of an account now."""
        return int(self.ask("seatsOf", account))

    def limit(self, account: str) -> int:
        """Limit of an account plus one; 0 for an account with no seat."""
        return int(self.ask("limitOf", account))

    def eligible(self, exponent: int) -> int:
        """Accounts with seats that serve shares of 2^exponent units of work."""
        return int(self.ask("eligible", exponent))

    def leaving_until(self, account: str) -> int:
        """When leaving stake can be released."""
        return int(self.ask("leavingUntil", account))

    def active_whistleblowers(self) -> int:
        """Accounts that joined a round within the activity window."""
        return int(self.ask("active"))
