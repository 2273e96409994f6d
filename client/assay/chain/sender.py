"""Transactions of one account: written down before they leave, sent once, replaced when stuck, followed to depth.

Every transaction has a *key* that names its purpose ("commit:task 7:round 1"). Its nonce and its content are on disk
before it is broadcast; asking again with the same key returns the same transaction, so a role killed between any two
lines of code neither loses nor repeats an action.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from threading import RLock
from typing import Any

from eth_account.signers.local import LocalAccount
from web3.exceptions import TransactionNotFound, Web3Exception
from web3.types import BlockIdentifier, TxParams, TxReceipt, Wei

from assay.chain.errors import ChainError, FeeCapError, FundsError
from assay.chain.identity import identify
from assay.chain.logs import RECENT_BLOCKS
from assay.chain.rpc import TRANSIENT, Chain
from assay.state import StateFolder

logger = logging.getLogger(__name__)

REPLACEMENT_PERCENT = 113
"""A replacement must raise both fees by at least an eighth, or nodes refuse it."""
GAS_MARGIN_PERCENT = 125
_ALREADY_THERE = ("already known", "already imported", "known transaction", "nonce too low")


class Outcome(Enum):
    """Where a transaction stands."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # mined and reverted


@dataclass(frozen=True)
class FeePolicy:
    """What an account is willing to pay, in wei a gas."""

    cap: int = 200 * 10**9
    tip: int = 10**9
    stuck_seconds: float = 60.0  # without being mined, before a replacement with higher fees


@dataclass(frozen=True)
class Call:
    """What to send: recipient (None deploys), calldata and value in wei."""

    to: str | None
    data: bytes
    value: int = 0
    gas: int | None = None  # estimated if None


@dataclass(frozen=True)
class Sent:
    """A transaction of the journal."""

    key: str
    nonce: int
    hashes: tuple[str, ...]  # the newest last; all have the same nonce
    outcome: Outcome
    block: int | None
    gas_used: int | None
    contract: str | None
    fee: int | None = None  # wei paid for the gas

    @property
    def hash(self) -> str:
        return self.hashes[-1]


class Sender:
    """One account's queue of nonces. All roles of a process that share an account share its sender.

    `confirmations` is how many blocks must lie on a transaction before it counts; until then it is watched, and
    broadcast again if a reorganisation drops it.
    """

    def __init__(
        self,
        chain: Chain,
        account: LocalAccount,
        state: StateFolder,
        fees: FeePolicy | None = None,
        confirmations: int = 1,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.chain = chain
        self.account = account
        self.state = state
        self.fees = fees or FeePolicy()
        self.confirmations = confirmations
        self.clock = clock
        self._lock = RLock()
        # Another chain with the same number, as every local one has, has nonces of its own.
        self.identity = identify(chain)
        self.chain_id = self.identity.chain_id
        self._scope = f"{self.identity.name}:{account.address}"
        with state.transaction() as database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS outbox (scope TEXT, key TEXT, nonce INTEGER NOT NULL, recipient TEXT, "
                "data BLOB NOT NULL, value TEXT NOT NULL, gas INTEGER NOT NULL, max_fee INTEGER NOT NULL, "
                "tip INTEGER NOT NULL, hashes TEXT NOT NULL, raw TEXT NOT NULL, sent_at REAL NOT NULL, "
                "outcome TEXT NOT NULL, block INTEGER, "
                "gas_used INTEGER, contract TEXT, fee TEXT, PRIMARY KEY (scope, key), UNIQUE (scope, nonce)) STRICT"
            )
            # Asked for several times a second, among all that was ever sent.
            database.execute(
                "CREATE INDEX IF NOT EXISTS outbox_pending ON outbox (scope, nonce) WHERE outcome = 'pending'"
            )
        self._reopen_missing()

    @property
    def address(self) -> str:
        return str(self.account.address)

    # -- sending -------------------------------------------------------------------------------------------------

    def submit(self, key: str, call: Call) -> Sent:
        """Send `call` unless this key has been sent before; does not wait.

        Raises `RevertedError` (nothing is spent) if a contract would refuse it now, `FeeCapError` if fees are above
        the cap, `FundsError` if the account cannot pay for it.
        """
        with self._lock:
            known = self.find(key)
            if known is not None:
                return known
            request: TxParams = {"from": self.account.address, "data": call.data, "value": Wei(call.value)}
            if call.to is not None:
                request["to"] = self.chain.web3.to_checksum_address(call.to)
            eth = self.chain.web3.eth
            funds = self._funds()
            self._check_funds(key, call.value, funds)  # nodes do not estimate what cannot be paid
            gas = call.gas
            if gas is None:
                estimate = self.chain.ask(f"{key}", lambda: eth.estimate_gas(request))
                gas = estimate * GAS_MARGIN_PERCENT // 100
            max_fee, tip = self._fees()
            self._check_funds(key, call.value + gas * max_fee, funds)
            with self.state.transaction() as database:
                nonce = self._next_nonce()
                digest, raw = self._sign(call.to, call.data, call.value, gas, nonce, max_fee, tip)
                database.execute(
                    "INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, NULL)",
                    (
                        self._scope, key, nonce, call.to, call.data, str(call.value), gas, max_fee, tip,
                        json.dumps([digest]), raw, self.clock(), Outcome.PENDING.value,
                    ),
                )  # fmt: skip
            self._broadcast(raw)
            logger.debug("sent", extra={"key": key, "transaction": digest, "nonce": nonce, "gas_limit": gas})
            return self._required(key)

    def _next_nonce(self) -> int:
        """The first nonce that neither the journal nor the chain knows. Inside a transaction of the journal."""
        with self.state.transaction() as database:
            row = database.execute("SELECT max(nonce) FROM outbox WHERE scope = ?", (self._scope,)).fetchone()
        used = -1 if row[0] is None else int(row[0])
        return max(used + 1, self._count("pending"))

    def _count(self, block: BlockIdentifier) -> int:
        """How many transactions of the account the chain has at a block."""
        eth = self.chain.web3.eth
        return self.chain.ask("asking for the nonce", lambda: eth.get_transaction_count(self.account.address, block))

    def _funds(self, without: str = "") -> int:
        """What the account holds, less what may be taken of it by transactions (but one) that are not mined yet."""
        waiting = [row for row in self._rows("outcome = 'pending'") if row["key"] != without]
        if waiting:
            mined = self._count("latest")
            waiting = [row for row in waiting if row["nonce"] >= mined]
        eth = self.chain.web3.eth
        held = self.chain.ask("asking for the balance", lambda: eth.get_balance(self.account.address))
        return held - sum(int(row["value"]) + int(row["gas"]) * int(row["max_fee"]) for row in waiting)

    def _check_funds(self, key: str, amount: int, funds: int) -> None:
        """Raise `FundsError` unless an amount can be paid. No node takes what cannot, and all later transactions would
        wait for its nonce."""
        if amount > funds:
            raise FundsError(
                f"{key} takes up to {amount} wei with its gas, {self.address} has {funds} to spend: send it coins, or "
                "withdraw what it has earned"
            )

    def _fees(self, floor_fee: int = 0, floor_tip: int = 0) -> tuple[int, int]:
        eth = self.chain.web3.eth
        block = self.chain.ask("reading the newest block", lambda: eth.get_block("latest"))
        base = int(block.get("baseFeePerGas", 0))
        tip = max(self.fees.tip, floor_tip)
        wanted = max(2 * base + tip, floor_fee)
        if base + tip > self.fees.cap:
            raise FeeCapError(
                f"the base fee is {base} wei a gas, with a tip of {tip} above the cap of {self.fees.cap}: wait, or "
                "raise chain.fee_cap"
            )
        fee = min(wanted, self.fees.cap)
        if fee < floor_fee:
            raise FeeCapError(
                f"replacing a stuck transaction needs {floor_fee} wei a gas, the cap is {self.fees.cap}: raise "
                "chain.fee_cap"
            )
        return fee, min(tip, fee)

    def _sign(
        self, to: str | None, data: bytes, value: int, gas: int, nonce: int, max_fee: int, tip: int
    ) -> tuple[str, str]:
        transaction: dict[str, Any] = {
            "type": 2,
            "chainId": self.chain_id,
            "nonce": nonce,
            "data": data,
            "value": value,
            "gas": gas,
            "maxFeePerGas": max_fee,
            "maxPriorityFeePerGas": tip,
        }
        if to is not None:
            transaction["to"] = self.chain.web3.to_checksum_address(to)
        signed = self.account.sign_transaction(transaction)
        return "0x" + bytes(signed.hash).hex(), "0x" + bytes(signed.raw_transaction).hex()

    def _broadcast(self, raw: str) -> None:
        """Hand a signed transaction to the node. A node that does not answer is tried again by `advance`."""
        try:
            self.chain.web3.eth.send_raw_transaction(raw)  # type: ignore[arg-type]
        except TRANSIENT as error:
            logger.warning("the node did not take a transaction yet: %s", error)
        except Web3Exception as error:
            if not any(words in str(error).lower() for words in _ALREADY_THERE):
                logger.warning("the node refuses a transaction: %s", error)

    # -- following -----------------------------------------------------------------------------------------------

    def advance(self) -> list[Sent]:
        """Look after every transaction that is not final: broadcast again what the node lost, replace what is stuck.

        Returns those that have become final.
        """
        finished = []
        with self._lock:
            for row in self._rows("outcome = 'pending'"):
                finished += self._advance_one(str(row["key"]))
        return finished

    def _advance_one(self, key: str) -> list[Sent]:
        sent = self._required(key)
        eth = self.chain.web3.eth
        receipt = self._receipt(sent.hashes)
        if receipt is not None:
            head = self.chain.ask("asking for the newest block", lambda: eth.block_number)
            if head + 1 - receipt["blockNumber"] < self.confirmations:
                return []
            outcome = Outcome.SUCCEEDED if receipt["status"] == 1 else Outcome.FAILED
            with self.state.transaction() as database:
                database.execute(
                    "UPDATE outbox SET outcome = ?, block = ?, gas_used = ?, contract = ?, fee = ? WHERE scope = ? AND "
                    "key = ?",
                    (
                        outcome.value, receipt["blockNumber"], receipt["gasUsed"], receipt.get("contractAddress"),
                        str(receipt["gasUsed"] * receipt.get("effectiveGasPrice", 0)), self._scope, key,
                    ),
                )  # fmt: skip
            logger.debug(
                "%s",
                outcome.value,
                extra={
                    "key": key,
                    "transaction": sent.hash,
                    "gas": receipt["gasUsed"],
                    "block": receipt["blockNumber"],
                },
            )
            return [self._required(key)]
        row = self._row(key)
        assert row is not None
        age = self.clock() - float(row["sent_at"])
        if age < 0:  # the clock was put back: count from now on, or it would never count as stuck
            with self.state.transaction() as database:
                database.execute(
                    "UPDATE outbox SET sent_at = ? WHERE scope = ? AND key = ?", (self.clock(), self._scope, key)
                )
        if age >= self.fees.stuck_seconds:
            self._replace(row)
        else:
            self._broadcast(str(row["raw"]))
        return []

    def _replace(self, row: dict[str, Any]) -> None:
        """Sign the same call with the same nonce and higher fees, and send it beside the old one.

        With another nonce where this one was used, so deep that every node knows by what, by a transaction that is not
        in the journal: somebody else signs for the account, and the call would wait for ever.
        """
        eth = self.chain.web3.eth
        head = self.chain.ask("asking for the newest block", lambda: eth.block_number)
        raise_by = REPLACEMENT_PERCENT
        try:
            if (
                self._count(max(0, head - max(self.confirmations, RECENT_BLOCKS))) > row["nonce"]
                and self._receipt(json.loads(row["hashes"])) is None
            ):
                self._send_anew(row)
                return
            max_fee, tip = self._fees(-(-row["max_fee"] * raise_by // 100), -(-row["tip"] * raise_by // 100))
            self._check_funds(row["key"], int(row["value"]) + row["gas"] * max_fee, self._funds(without=row["key"]))
        except (FeeCapError, FundsError) as error:
            logger.warning("a stuck transaction stays as it is: %s", error)
            self._broadcast(str(row["raw"]))
            return
        digest, raw = self._sign(
            row["recipient"], row["data"], int(row["value"]), row["gas"], row["nonce"], max_fee, tip
        )
        hashes = [*json.loads(row["hashes"]), digest]
        with self.state.transaction() as database:
            database.execute(
                "UPDATE outbox SET hashes = ?, raw = ?, max_fee = ?, tip = ?, sent_at = ? WHERE scope = ? AND key = ?",
                (json.dumps(hashes), raw, max_fee, tip, self.clock(), self._scope, row["key"]),
            )
        self._broadcast(raw)
        logger.info("replaced", extra={"key": row["key"], "transaction": digest, "max_fee": max_fee})

    def _send_anew(self, row: dict[str, Any]) -> None:
        """Sign the same call with the next nonce."""
        max_fee, tip = self._fees()
        self._check_funds(row["key"], int(row["value"]) + row["gas"] * max_fee, self._funds(without=row["key"]))
        with self.state.transaction() as database:
            nonce = self._next_nonce()
            digest, raw = self._sign(row["recipient"], row["data"], int(row["value"]), row["gas"], nonce, max_fee, tip)
            database.execute(
                "UPDATE outbox SET nonce = ?, hashes = ?, raw = ?, max_fee = ?, tip = ?, sent_at = ? WHERE scope = ? "
                "AND key = ?",
                (
                    nonce, json.dumps([*json.loads(row["hashes"]), digest]), raw, max_fee, tip, self.clock(),
                    self._scope, row["key"],
                ),
            )  # fmt: skip
        self._broadcast(raw)
        logger.warning(
            "nonce %d of this account was used by another program; the call is sent with nonce %d. Let one program use "
            "an account",
            row["nonce"], nonce, extra={"key": row["key"], "transaction": digest},
        )  # fmt: skip

    def _receipt(self, hashes: Sequence[str]) -> TxReceipt | None:
        def question() -> TxReceipt | None:
            for digest in reversed(hashes):
                try:
                    return self.chain.web3.eth.get_transaction_receipt(digest)  # type: ignore[arg-type]
                except TransactionNotFound:
                    continue
            return None

        return self.chain.ask("asking for a receipt", question)

    def is_mined(self, sent: Sent) -> bool:
        """Whether the chain has a transaction: as it was sent first, or with one of its later fees."""
        return self._receipt(sent.hashes) is not None

    def reopen_after(self, block: int) -> None:
        """Watch again what was final in blocks after `block`: the chain was reorganised deeper than `confirmations`.

        `advance` finds the receipts again, or sends the same transactions once more.
        """
        with self._lock, self.state.transaction() as database:
            database.execute(
                "UPDATE outbox SET outcome = ?, block = NULL, sent_at = ? WHERE scope = ? AND block > ?",
                (Outcome.PENDING.value, self.clock(), self._scope, block),
            )

    def _reopen_missing(self) -> None:
        """Watch again what the journal has as final and the chain no longer has: it was reorganised in the meantime.

        Later transactions would wait for the missing nonces for ever.
        """
        with self._lock, self.state.transaction() as database:
            database.execute(
                "UPDATE outbox SET outcome = ?, block = NULL, sent_at = ? WHERE scope = ? AND nonce >= ? AND "
                "outcome != ?",
                (
                    Outcome.PENDING.value, self.clock(), self._scope, self._count("latest"), Outcome.PENDING.value,
                ),
            )  # fmt: skip

    def wait(self, key: str, timeout: float = 300.0, pause: float = 0.2) -> Sent:
        """Follow a transaction until it is final.

        Raises `ChainError` after `timeout` seconds; the transaction stays in the journal.
        """
        end = time.monotonic() + timeout
        while True:
            with self._lock:
                sent = self._required(key)
                if sent.outcome is not Outcome.PENDING:
                    return sent
                self._advance_one(key)
                sent = self._required(key)
            if sent.outcome is not Outcome.PENDING:
                return sent
            if time.monotonic() > end:
                raise ChainError(
                    f"{key} ({sent.hash}) is not final after {timeout:.0f} s: it stays in the queue and is sent again"
                )
            time.sleep(pause)

    def send(self, key: str, call: Call, timeout: float = 300.0) -> Sent:
        """`submit` and `wait`. What was sent under the key before and failed is sent again."""
        key, _ = self.attempt(key)
        self.submit(key, call)
        return self.wait(key, timeout)

    # -- the journal ---------------------------------------------------------------------------------------------

    def find(self, key: str) -> Sent | None:
        """The transaction of a key, if it was ever submitted."""
        row = self._row(key)
        return None if row is None else _sent(row)

    def attempt(self, key: str) -> tuple[str, int]:
        """The key of the latest attempt at what `key` stands for, and how many before it failed. If that one failed,
        too, it is the next one's, under which nothing has been sent."""
        tried, failed = key, 0
        while (known := self.find(tried)) is not None and known.outcome is Outcome.FAILED:
            failed += 1
            tried = f"{key}#{failed}"
        return tried, failed

    def pending(self) -> list[Sent]:
        """Transactions that are not final yet, by nonce."""
        return [_sent(row) for row in self._rows("outcome = 'pending'")]

    def _required(self, key: str) -> Sent:
        found = self.find(key)
        if found is None:
            raise ChainError(f"nothing was ever sent under the key {key!r}")
        return found

    def _row(self, key: str) -> dict[str, Any] | None:
        return next(iter(self._rows("key = ?", (key,))), None)

    def _rows(self, condition: str, values: tuple[object, ...] = ()) -> list[dict[str, Any]]:
        with self.state.transaction() as database:
            cursor = database.execute(
                f"SELECT * FROM outbox WHERE scope = ? AND {condition} ORDER BY nonce", (self._scope, *values)
            )
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _sent(row: dict[str, Any]) -> Sent:
    return Sent(
        row["key"],
        row["nonce"],
        tuple(json.loads(row["hashes"])),
        Outcome(row["outcome"]),
        row["block"],
        row["gas_used"],
        row["contract"],
        None if row["fee"] is None else int(row["fee"]),
    )
