"""Reading a contract's events: paged, never twice, and taken back when the chain reorganises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hexbytes import HexBytes
from web3.exceptions import BlockNotFound, Web3RPCError
from web3.types import FilterParams, LogReceipt

from assay.chain.errors import ChainError
from assay.chain.rpc import Chain

PAGE_BLOCKS = 2000
REMEMBERED_BLOCKS = 128
_RANGE_WORDS = ("range", "limit", "too many", "more than", "response size", "query returned")
_RATE_WORDS = ("rate limit", "too many requests", "request limit")


@dataclass(frozen=True)
class Cursor:
    """How far a reader has come: the last block read, and hashes of recent ones to notice a reorganisation."""

    block: int
    hashes: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Batch:
    """What one reading brought.

    `rolled_back_to` is set if blocks after it are no longer part of the chain: forget what they brought. `logs` are in
    chain order. `cursor` is to be kept only after the logs have been taken in.
    """

    logs: tuple[LogReceipt, ...]
    cursor: Cursor
    rolled_back_to: int | None = None


class LogReader:
    """Reads the logs of some addresses, `confirmations` blocks behind the newest."""

    def __init__(
        self,
        chain: Chain,
        addresses: Sequence[str],
        confirmations: int = 0,
        page: int = PAGE_BLOCKS,
        first: int | None = None,
    ) -> None:
        """`first` is the block before the earliest one of interest, where reading begins anew if no remembered block is
        part of the chain; the block of the first cursor without memory if None."""
        self.first = first
        self.chain = chain
        self.addresses = [chain.web3.to_checksum_address(address) for address in addresses]
        self.confirmations = confirmations
        self.page = page

    def read(self, cursor: Cursor) -> Batch:
        """Everything after `cursor`, at most one page of blocks at a time."""
        eth = self.chain.web3.eth
        if not cursor.hashes:
            self.first = cursor.block if self.first is None else min(self.first, cursor.block)
        newest = self.chain.ask("asking for the newest block", lambda: eth.block_number)
        known = self._hash(cursor.hashes[-1][0]) if cursor.hashes else None
        if newest < cursor.block or (cursor.hashes and known is None):
            # An endpoint that lags behind what was read is no reorganisation: a chain that others have left is longer.
            return Batch((), cursor)
        rolled_back = None if not cursor.hashes or known == cursor.hashes[-1][1] else self._common_block(cursor)
        start = cursor.block if rolled_back is None else rolled_back
        hashes = tuple(each for each in cursor.hashes if each[0] <= start)
        head = newest - self.confirmations
        if head <= start:
            return Batch((), Cursor(start, hashes), rolled_back)
        end = min(head, start + self.page)
        digest = self._hash(end)
        logs = self._logs(start + 1, end)
        moved = digest is None or self._hash(end) != digest or (hashes and self._hash(hashes[-1][0]) != hashes[-1][1])
        if digest is None or moved:
            # The chain moved while it was read: nothing is taken, the next call sees it whole.
            return Batch((), Cursor(start, hashes), rolled_back)
        kept = (*hashes, (end, digest))[-REMEMBERED_BLOCKS:]
        return Batch(tuple(logs), Cursor(end, kept), rolled_back)

    def _common_block(self, cursor: Cursor) -> int:
        """The newest remembered block, before the last one, that is still part of the chain."""
        for number, digest in reversed(cursor.hashes[:-1]):
            if self._hash(number) == digest:
                return number
        # Nothing says where the chains part: all is read again.
        return self.first or 0

    def _hash(self, number: int) -> str | None:
        def question() -> str | None:
            try:
                return str(HexBytes(self.chain.web3.eth.get_block(number)["hash"]).to_0x_hex())
            except BlockNotFound:
                return None

        return self.chain.ask(f"reading block {number}", question)

    def _logs(self, first: int, last: int) -> list[LogReceipt]:
        """Logs of the blocks [first, last]; ranges that the node finds too long are halved."""
        wanted: FilterParams = {"address": self.addresses, "fromBlock": first, "toBlock": last}
        question: Callable[[], list[Any]] = lambda: list(self.chain.web3.eth.get_logs(wanted))  # noqa: E731
        try:
            logs = self.chain.ask(f"reading logs of blocks {first} to {last}", question)
        except ChainError as error:
            cause = error.__cause__
            words = str(cause).lower()
            too_often = any(word in words for word in _RATE_WORDS)  # halving would ask twice as often
            too_long = isinstance(cause, Web3RPCError) and not too_often and any(word in words for word in _RANGE_WORDS)
            if not too_long or first == last:
                raise
            middle = (first + last) // 2
            return self._logs(first, middle) + self._logs(middle + 1, last)
        return sorted(logs, key=lambda log: (log["blockNumber"], log["logIndex"]))
