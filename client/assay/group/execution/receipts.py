"""Receipts of who took part in a segment: what every member signs after it, and keeps of the others.

A member's share can depend on its having been there (`presenceRate` of the agreement). Nobody can show that somebody
was absent, but whoever was there can show what the others signed for it (contracts/Presence.sol). So when a segment is
accepted, all sign one list, the accounts of the generation's members, and no checkpoint of the segment is kept anywhere
before everybody has everybody's signature on disk. A generation begins with its members giving each other the receipts
that some of them lack, so that whoever is there in the end can answer for those who were there before, and reports
nobody for a segment that was trained twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eth_account import Account

from assay.group.errors import GroupMessageError, MemberFailedError
from assay.market.group_agreement import sign_statement, statement_signer
from assay.market.presence import Receipt, receipt_statement
from assay.training.checkpoint import append_synced

if TYPE_CHECKING:
    # Roles read what is kept without PyTorch.
    from torch._C._distributed_c10d import Store

    from assay.group.execution.stage_statements import Signer

logger = logging.getLogger(__name__)

RECEIPTS = "receipts.jsonl"
SIGNATURE_BYTES = 65


def receipt_line(receipt: Receipt) -> str:
    """A receipt as one line of JSON, without its end."""
    document = {
        "run": receipt.run,
        "segment": receipt.segment,
        "accounts": receipt.accounts,
        "signatures": [receipt.signatures[account].hex() for account in receipt.accounts],
    }
    return json.dumps(document, separators=(",", ":"))


def read_receipt(line: str | bytes) -> Receipt:
    """The receipt of a line. Raises `ValueError` where it is none; signatures are not checked."""
    try:
        document: dict[str, Any] = json.loads(line)
        run, segment = int(document["run"]), int(document["segment"])
        accounts = tuple(str(account) for account in document["accounts"])
        signatures = [bytes.fromhex(text) for text in document["signatures"]]
        if not (0 <= run < 1 << 32 and 0 <= segment < 1 << 32) or len(set(accounts)) != len(accounts):
            raise ValueError("a number or an account is out of range")
        return Receipt(run, segment, accounts, dict(zip(accounts, signatures, strict=True)))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no receipt ({error!r})") from error


class ReceiptBook:
    """The receipts that a member holds, in a file, a line each. Nothing is ever taken out of it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Receipt]:
        """All of them, oldest first. A line that a crash cut off was never relied on: it is left out."""
        found = []
        try:
            lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        except OSError as error:
            raise MemberFailedError(f"cannot read the receipts in {self.path} ({error.strerror})") from error
        for line in lines:
            try:
                found.append(read_receipt(line))
            except ValueError:
                logger.warning("a receipt is left out that cannot be read", extra={"file": str(self.path)})
        return found

    def add(self, receipt: Receipt) -> None:
        """Put one on disk, durably. Raises `CheckpointError` where the disk refuses."""
        append_synced(self.path, receipt_line(receipt))


class Receipts:
    """One member's part in the receipts of one generation. Stages and members have the same numbers."""

    def __init__(
        self, store: Store, signer: Signer, members: Sequence[str], stage: int, generation: int, book: ReceiptBook
    ) -> None:
        self.store, self.signer, self.members = store, signer, tuple(members)
        self.stage, self.generation, self.book = stage, generation, book
        self.accounts = tuple(signer.addresses[name] for name in members)

    def catch_up(self) -> None:
        """Give what other members of the generation lack, and take what this one lacks.

        What is given is checked like what is signed here. A receipt that is not right is taken from the next member
        that says it has it, and left out where none gives it right.
        """
        mine = {_digest(receipt): receipt for receipt in self.book.read()}
        prefix = f"receipts/{self.generation}"
        self.store.set(f"{prefix}/{self._name}", json.dumps(sorted(mine)))
        held = [self._listed(f"{prefix}/{name}", name) for name in self.members]
        everything = set[str]().union(*held)
        lacking = sorted(everything - everything.intersection(*held))
        for number in lacking:
            if number in mine:
                self.store.set(f"{prefix}/{number}/{self._name}", receipt_line(mine[number]))
        for number in lacking:
            if number not in mine:
                givers = [name for name, numbers in zip(self.members, held, strict=True) if number in numbers]
                for giver in givers:
                    if self._take(f"{prefix}/{number}/{giver}", number, giver):
                        break

    def exchange(self, segment: int) -> Receipt:
        """Sign for everybody who took part in a segment, and keep what all signed; returns once all have kept it.

        Raises GroupMessageError naming a member that signed something else.
        """
        statement = receipt_statement(self.signer.task, self.generation, segment, self.accounts)
        account = Account.from_key(self.signer.private_key)
        mine = sign_statement(statement, self.signer.chain_id, self.signer.group, account)
        prefix = f"receipt/{self.generation}/{segment}"
        self.store.set(f"{prefix}/{self._name}", mine.hex())
        signatures = {}
        for name, address in zip(self.members, self.accounts, strict=True):
            given = _signature(self.store.get(f"{prefix}/{name}"))
            if statement_signer(statement, self.signer.chain_id, self.signer.group, given) != address:
                raise GroupMessageError(
                    f"{name!r} signed no receipt of who took part in segment {segment}, or not with the key of "
                    f"{address}; exclude the member"
                )
            signatures[address] = given
        receipt = Receipt(self.generation, segment, self.accounts, signatures)
        self.book.add(receipt)
        # Whoever holds the segment's checkpoint knows that nobody who took part in it depends on another's good will.
        self.store.set(f"{prefix}/{self._name}/kept", "kept")
        self.store.wait([f"{prefix}/{name}/kept" for name in self.members])
        return receipt

    @property
    def _name(self) -> str:
        return self.members[self.stage]

    def _listed(self, key: str, name: str) -> set[str]:
        try:
            return {str(number) for number in json.loads(self.store.get(key))}
        except (ValueError, TypeError) as error:
            raise GroupMessageError(f"{name!r} lists no receipts that can be read ({error}); exclude it") from error

    def _take(self, key: str, number: str, giver: str) -> bool:
        """Keep a receipt that another member gives, if it is right; whether it is."""
        try:
            receipt = read_receipt(self.store.get(key))
            if _digest(receipt) != number or not self._is_signed(receipt):
                raise ValueError("it is not signed by all that it names")
        except ValueError as error:
            logger.warning("a receipt that another member gave is left out", extra={"giver": giver, "why": str(error)})
            return False
        self.book.add(receipt)
        return True

    def _is_signed(self, receipt: Receipt) -> bool:
        statement = receipt.statement(self.signer.task)
        known = set(self.signer.addresses.values())
        return bool(receipt.accounts) and all(
            account in known and statement_signer(statement, self.signer.chain_id, self.signer.group, made) == account
            for account, made in receipt.signatures.items()
        )


def _digest(receipt: Receipt) -> str:
    """What tells a receipt from others."""
    told = json.dumps([receipt.run, receipt.segment, receipt.accounts])
    return sha256(told.encode()).hexdigest()[:32]


def _signature(content: bytes) -> bytes:
    """What a member left; nothing where it is malformed."""
    try:
        made = bytes.fromhex(content.decode())
    except ValueError:
        return b""
    return made if len(made) == SIGNATURE_BYTES else b""
