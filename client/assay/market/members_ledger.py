"""What the ledgers of bonds among a group's members have in common (contracts/MembersLedger.sol)."""

from __future__ import annotations

from assay.chain.sender import Call
from assay.market.contract import Contract


class MembersLedgerContract(Contract):
    """Typed access. Amounts in wei."""

    def withdraw(self) -> Call:
        """Pay out the caller's credit."""
        return self.call("withdraw")

    def credit_of(self, account: str) -> int:
        """What an account can withdraw, in wei."""
        return int(self.ask("creditOf", account))

    def pending_of(self, group: str) -> int:
        """How much is undecided about a group's members: cases, accusations, reports."""
        return int(self.ask("pendingOf", group))
