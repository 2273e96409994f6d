"""Reading a contract's events: paged, never twice, and taken back when the chain reorganises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hexbytes import HexBytes
from web3.exceptions import BlockNotFound, Web3RPCError
from web3.types import FilterParams, LogReceipt

from assay.chain.errors import ChainError
from assay.chain.rpc import Chain

PAGE_BLOCKS = 2000
REMEMBERED_BLOCKS = 128
RECENT_BLOCKS = 8
"""The newest blocks, whose logs are asked for by the block's hash.

Behind one address there may be several nodes, some of which have not got these blocks yet. Asked for a range of
numbers, such a node answers as if nothing had happened in them; asked for a hash it does not know, it has to refuse
(EIP-234).
"""
_RANGE_WORDS = ("range", "limit", "too many", "more than", "response size", "query returned")
_RATE_WORDS = ("rate limit", "too many requests", "request limit")
_MISSING_WORDS = ("unknown block", "not found")


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


class _Header(NamedTuple):
    """A block's hash, and that of the one before it."""

    digest: str
    parent: str


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
        """What comes after `cursor`: at most one page of old blocks, or the recent ones."""
        eth = self.chain.web3.eth
        if not cursor.hashes:
            self.first = cursor.block if self.first is None else min(self.first, cursor.block)
        newest = self.chain.ask("asking for the newest block", lambda: eth.block_number)
        known = self._header(cursor.hashes[-1][0]) if cursor.hashes else None
        if newest < cursor.block or (cursor.hashes and known is None):
            # An endpoint that lags behind what was read is no reorganisation: a chain that others have left is longer.
            return Batch((), cursor)
        rolled_back = None if known is None or known.digest == cursor.hashes[-1][1] else self._common_block(cursor)
        start = cursor.block if rolled_back is None else rolled_back
        begin = Cursor(start, tuple(each for each in cursor.hashes if each[0] <= start))
        head = min(newest - self.confirmations, start + self.page)
        old = min(head, newest - RECENT_BLOCKS)
        logs, end = self._read_old(begin, old) if old > start else self._read_recent(begin, head)
        return Batch(tuple(logs), end, rolled_back)

    def _read_old(self, begin: Cursor, end: int) -> tuple[list[LogReceipt], Cursor]:
        """The logs after `begin` up to block `end`; nothing if the chain moved while it was read."""
        last = self._header(end)
        logs = self._logs(begin.block + 1, end)
        if last is None:
            return [], begin
        hashes = (*begin.hashes, (end, last.digest))[-REMEMBERED_BLOCKS:]
        for number, digest in hashes[-2:]:
            header = self._header(number)
            if header is None or header.digest != digest:
                return [], begin
        return logs, Cursor(end, hashes)

    def _read_recent(self, begin: Cursor, end: int) -> tuple[list[LogReceipt], Cursor]:
        """The logs after `begin` up to block `end`, block by block, each the child of the one before.

        It ends early where the endpoint has not got a block, or has one of another chain: the next call sees more.
        """
        logs: list[LogReceipt] = []
        cursor = begin
        for number in range(begin.block + 1, end + 1):
            header = self._header(number)
            if header is None or (cursor.hashes and header.parent != cursor.hashes[-1][1]):
                break
            found = self._logs_of_block(number, header.digest)
            if found is None:
                break
            logs += found
            cursor = Cursor(number, (*cursor.hashes, (number, header.digest))[-REMEMBERED_BLOCKS:])
        return logs, cursor

    def _common_block(self, cursor: Cursor) -> int:
        """The newest remembered block, before the last one, that is still part of the chain."""
        for number, digest in reversed(cursor.hashes[:-1]):
            header = self._header(number)
            if header is not None and header.digest == digest:
                return number
        # Nothing says where the chains part: all is read again.
        return self.first or 0

    def _header(self, number: int) -> _Header | None:
        def question() -> _Header | None:
            try:
                block = self.chain.web3.eth.get_block(number)
            except BlockNotFound:
                return None
            return _Header(HexBytes(block["hash"]).to_0x_hex(), HexBytes(block["parentHash"]).to_0x_hex())

        return self.chain.ask(f"reading block {number}", question)

    def _logs_of_block(self, number: int, digest: str) -> list[LogReceipt] | None:
        """Logs of one block, or None where the endpoint does not know it."""
        try:
            return self._ask(f"block {number}", {"blockHash": HexBytes(digest)})
        except ChainError as error:
            if any(word in str(error.__cause__).lower() for word in _MISSING_WORDS):
                return None
            raise

    def _logs(self, first: int, last: int) -> list[LogReceipt]:
        """Logs of the blocks [first, last]; ranges that the node finds too long are halved."""
        try:
            return self._ask(f"blocks {first} to {last}", {"fromBlock": first, "toBlock": last})
        except ChainError as error:
            cause = error.__cause__
            words = str(cause).lower()
            too_often = any(word in words for word in _RATE_WORDS)  # halving would ask twice as often
            too_long = isinstance(cause, Web3RPCError) and not too_often and any(word in words for word in _RANGE_WORDS)
            if not too_long or first == last:
                raise
            middle = (first + last) // 2
            return self._logs(first, middle) + self._logs(middle + 1, last)

    def _ask(self, where: str, blocks: FilterParams) -> list[LogReceipt]:
        wanted: FilterParams = {"address": self.addresses, **blocks}
        logs = self.chain.ask(f"reading logs of {where}", lambda: list(self.chain.web3.eth.get_logs(wanted)))
        return sorted(logs, key=lambda log: (log["blockNumber"], log["logIndex"]))
