"""Who was absent while a group trained: receipts of who took part, and reports on chain (contracts/Presence.sol)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from assay.chain.sender import Call
from assay.market.group_agreement import PRESENCE_VALUE, Statement, presence_subject
from assay.market.members_ledger import MembersLedgerContract
from assay.market.numbering import number_of

MOST_SEGMENTS = 8192
"""Most segments of one report (Presence.MOST_SEGMENTS)."""


@dataclass(frozen=True)
class Receipt:
    """Who took part in a segment of a group's run, in the order of their stages, and what they signed, by account."""

    run: int
    segment: int
    accounts: tuple[str, ...]
    signatures: Mapping[str, bytes]

    def statement(self, task: int) -> Statement:
        """What each of them signed."""
        return receipt_statement(task, self.run, self.segment, self.accounts)


def receipt_statement(task: int, run: int, segment: int, accounts: Sequence[str]) -> Statement:
    """ "These accounts took part in this segment"."""
    return Statement(task, run, presence_subject(segment, accounts), PRESENCE_VALUE)


class PresenceContract(MembersLedgerContract):
    """Typed access."""

    def report(self, group: str, place: int, first: int, last: int, bond: int) -> Call:
        """Say that the member at a place took part in no segment from `first` to `last`. `bond`: `BOND`, in wei."""
        return self.call("report", group, place, first, last, value=bond)

    def answer(self, report_id: int, run: int, segment: int, accounts: Sequence[str], signature: bytes) -> Call:
        """Show a receipt that another member than the one reported signed."""
        return self.call("answer", report_id, run, segment, list(accounts), signature)

    def conclude(self, report_id: int) -> Call:
        """Tell the group what nobody answered in time; the reporter has its bond back."""
        return self.call("conclude", report_id)

    def was_absent(self, group: str, member: str, segment: int) -> bool:
        """Whether it is concluded that a member was not in a segment."""
        return bool(self.ask("wasAbsent", group, member, segment))

    def bond(self) -> int:
        """What a report costs, in wei."""
        return int(self.ask("BOND"))

    def window(self) -> int:
        """Seconds in which a report can be answered."""
        return int(self.ask("WINDOW"))


def absence_report_id(
    chain_id: int, address: str, group: str, member: str, first: int, last: int, reporter: str
) -> int:  # fmt: skip
    """Number of a report at the `Presence` of an address."""
    kinds = ["string", "uint256", "address", "address", "address", "uint32", "uint32", "address"]
    values = ["absence", chain_id, address, group, member, first, last, reporter]
    return number_of(kinds, values)
