from __future__ import annotations

import json
import threading
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from eth_account import Account
from torch._C._distributed_c10d import HashStore

from assay.group.errors import GroupMessageError
from assay.group.execution.receipts import RECEIPTS, ReceiptBook, Receipts, read_receipt, receipt_line
from assay.group.execution.stage_statements import NOBODY, Signer
from assay.market.group_agreement import presence_subject, statement_signer
from assay.market.presence import Receipt
from assay.training.errors import CheckpointError

from .tasks import task_of
from .test_group_run import group

MEMBERS, TASK = ("ann", "ben", "cat"), 5
KEYS = {name: Account.from_key(sha256(name.encode()).digest()) for name in MEMBERS}
ADDRESSES = {name: account.address for name, account in KEYS.items()}
GROUP = "0x" + 40 * "7"


class Crew:
    """Members of one generation in this process, each with a book of its own."""

    def __init__(
        self, folder: Path, members: tuple[str, ...] = MEMBERS, generation: int = 0, **changes: dict[str, Any]
    ) -> None:
        self.store = HashStore()
        self.members = members
        self.books = {name: ReceiptBook(folder / f"{name}.jsonl") for name in members}
        self.parts = {}
        for stage, name in enumerate(members):
            signer = Signer(TASK, 31337, GROUP, KEYS[name].key.to_0x_hex(), ADDRESSES, 86400)
            signer = replace(signer, **changes.get(name, {}))
            self.parts[name] = Receipts(self.store, signer, members, stage, generation, self.books[name])

    def together(self, function: str, *arguments: Any) -> dict[str, Exception]:
        """All members call it, each in its thread; the errors of those that failed."""
        failed: dict[str, Exception] = {}

        def call(name: str) -> None:
            try:
                getattr(self.parts[name], function)(*arguments)
            except Exception as error:
                failed[name] = error

        threads = [threading.Thread(target=call, args=(name,)) for name in self.members]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        return failed

    def alone(self, name: str, segment: int, **left: str) -> None:
        """One member exchanges, the others have left what is given, and have kept it."""
        prefix = f"receipt/0/{segment}"
        for other in self.members:
            if other != name:
                self.store.set(f"{prefix}/{other}", left[other])
                self.store.set(f"{prefix}/{other}/kept", "kept")
        self.parts[name].exchange(segment)


def test_everybody_holds_everybodys_receipt_for_a_segment(tmp_path: Path) -> None:
    crew = Crew(tmp_path)
    for segment in (0, 1):
        assert crew.together("exchange", segment) == {}
    accounts = tuple(ADDRESSES[name] for name in MEMBERS)
    for book in crew.books.values():
        assert [receipt.segment for receipt in book.read()] == [0, 1]
        for receipt in book.read():
            assert (receipt.run, receipt.accounts) == (0, accounts)
            assert receipt.statement(TASK).subject == presence_subject(receipt.segment, accounts)
            for account, signature in receipt.signatures.items():
                assert statement_signer(receipt.statement(TASK), 31337, GROUP, signature) == account


def test_receipts_are_on_disk_before_anybody_goes_on(tmp_path: Path) -> None:
    crew = Crew(tmp_path)

    class Broken(ReceiptBook):
        def add(self, receipt: Receipt) -> None:
            raise CheckpointError("the disk is full")

    crew.parts["ben"].book = Broken(tmp_path / "nowhere")
    crew.store.set_timeout(timedelta(seconds=1))
    failed = crew.together("exchange", 0)
    assert sorted(failed) == sorted(MEMBERS)
    assert isinstance(failed["ben"], CheckpointError)
    assert [len(book.read()) for book in crew.books.values()] == [1, 0, 1]


def test_a_member_alone_signs_for_itself(tmp_path: Path) -> None:
    crew = Crew(tmp_path, ("ann",))
    assert crew.together("exchange", 3) == {}
    assert [receipt.accounts for receipt in crew.books["ann"].read()] == [(ADDRESSES["ann"],)]


@pytest.mark.parametrize(
    "changes",
    [
        {"task": 6},
        {"chain_id": 1},
        {"group": "0x" + 40 * "1"},
        {"private_key": KEYS["ann"].key.to_0x_hex()},
        {"addresses": {**ADDRESSES, "cat": "0x" + 40 * "2"}},
    ],
)
def test_a_receipt_for_something_else_or_of_another_is_refused_and_not_kept(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    crew = Crew(tmp_path, ben=changes)
    made = crew.parts["ben"]
    made.store = _Unwaited(crew.store)
    # What the third signs is what the first expects.
    crew.parts["cat"].store = _Unwaited(crew.store)
    with pytest.raises((GroupMessageError, KeyError)):
        made.exchange(0)
    with pytest.raises((GroupMessageError, KeyError)):
        crew.parts["cat"].exchange(0)
    with pytest.raises(GroupMessageError, match="'ben' signed no receipt of who took part in segment 0"):
        crew.parts["ann"].exchange(0)
    assert crew.books["ann"].read() == []


class _Unwaited:
    """A store that knows nothing of what is not there yet, instead of waiting for it."""

    def __init__(self, store: HashStore) -> None:
        self._store, self.set = store, store.set

    def get(self, key: str) -> bytes:
        if not self._store.check([key]):
            raise KeyError(key)
        return bytes(self._store.get(key))


@pytest.mark.parametrize("left", ["", "xyz", "00", 65 * "00", 66 * "11", "\u00fc"])
def test_what_is_no_signature_is_refused(tmp_path: Path, left: str) -> None:
    crew = Crew(tmp_path)
    with pytest.raises(GroupMessageError, match="'ben' signed no receipt"):
        crew.alone("ann", 0, ben=left, cat=left)
    assert crew.books["ann"].read() == []


# ---- Catching up ----------------------------------------------------------------------------------------------------


def test_a_new_generation_begins_with_everybody_knowing_who_was_there(tmp_path: Path) -> None:
    first = Crew(tmp_path, ("ann", "ben"))
    for segment in range(3):
        assert first.together("exchange", segment) == {}
    second = Crew(tmp_path, ("cat", "ann"), 1)
    assert second.together("catch_up") == {}
    assert second.together("exchange", 2) == {}
    both, alone = (ADDRESSES["ann"], ADDRESSES["ben"]), (ADDRESSES["cat"], ADDRESSES["ann"])
    for name in ("ann", "cat"):
        found = {(receipt.run, receipt.segment, receipt.accounts) for receipt in second.books[name].read()}
        assert found == {(0, 0, both), (0, 1, both), (0, 2, both), (1, 2, alone)}
    # Nothing is given twice.
    third = Crew(tmp_path, ("ann", "cat"), 2)
    assert third.together("catch_up") == {}
    assert len(third.books["cat"].read()) == 4


def test_a_receipt_that_not_all_signed_is_not_taken(tmp_path: Path) -> None:
    first = Crew(tmp_path, ("ann", "ben"))
    assert first.together("exchange", 0) == {}
    (receipt,) = first.books["ann"].read()
    stranger = Account.create()
    forged = [
        replace(receipt, segment=1),
        replace(receipt, run=1),
        replace(receipt, accounts=receipt.accounts[::-1]),
        Receipt(0, 2, (stranger.address,), {stranger.address: bytes(65)}),
        Receipt(0, 3, (), {}),
    ]
    for each in forged:
        first.books["ann"].add(each)
    second = Crew(tmp_path, ("ann", "cat"), 1)
    assert second.together("catch_up") == {}
    assert second.books["cat"].read() == [receipt]


def test_what_one_member_gives_wrong_another_gives_right(tmp_path: Path) -> None:
    first = Crew(tmp_path, ("ann", "ben"))
    assert first.together("exchange", 0) == {}
    (receipt,) = first.books["ann"].read()
    first.books["ann"].path.unlink()
    first.books["ann"].add(replace(receipt, signatures=dict.fromkeys(receipt.accounts, bytes(65))))
    second = Crew(tmp_path, ("ann", "ben", "cat"), 1)
    assert second.together("catch_up") == {}
    assert second.books["cat"].read() == [receipt]


def test_a_list_of_receipts_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    crew = Crew(tmp_path, ("ann", "ben"))
    crew.store.set("receipts/0/ben", "5")
    with pytest.raises(GroupMessageError, match="'ben' lists no receipts that can be read"):
        crew.parts["ann"].catch_up()


# ---- The book -------------------------------------------------------------------------------------------------------


def receipt_of(segment: int) -> Receipt:
    accounts = (ADDRESSES["ann"], ADDRESSES["ben"])
    return Receipt(1, segment, accounts, {account: bytes([segment]) * 65 for account in accounts})


def test_a_line_that_a_crash_cut_off_is_left_out_and_harms_no_other(tmp_path: Path) -> None:
    book = ReceiptBook(tmp_path / "receipts.jsonl")
    assert book.read() == []
    book.add(receipt_of(0))
    with book.path.open("a") as file:
        file.write(receipt_line(receipt_of(1))[:50])
    book.add(receipt_of(2))
    assert book.read() == [receipt_of(0), receipt_of(2)]


@pytest.mark.parametrize(
    "changes",
    [
        {"run": -1}, {"segment": 1 << 32}, {"segment": "x"}, {"accounts": 5}, {"signatures": ["00"]},
        {"accounts": [ADDRESSES["ann"]] * 2}, {"signatures": ["zz", "00"]}, {"run": None},
    ],
)  # fmt: skip
def test_what_is_no_receipt_is_refused(changes: dict[str, Any]) -> None:
    document = json.loads(receipt_line(receipt_of(1)))
    assert read_receipt(json.dumps(document)) == receipt_of(1)
    with pytest.raises(ValueError, match="."):
        read_receipt(json.dumps(document | changes))
    for line in (b"", b"[]", b"\xff"):
        with pytest.raises(ValueError, match="."):
            read_receipt(line)


# ---- In training ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_members_keep_receipts_of_every_segment_also_where_nothing_is_audited(tmp_path: Path) -> None:
    task = task_of("mlp", 40, 10)
    with group(tmp_path, task, 2, MEMBERS) as formed:
        spare = next(name for name in MEMBERS if name not in formed.plan.members)
        for name in formed.plan.members:
            key = KEYS[name].key.to_0x_hex()
            formed.start(name, private_key=key, addresses=ADDRESSES, task_id=TASK, audit_rate=0.0)
        for name in formed.plan.members:
            formed.outcome(name)
    accounts = tuple(ADDRESSES[name] for name in formed.plan.members)
    assert ADDRESSES[spare] not in accounts
    for name in formed.plan.members:
        found = ReceiptBook(tmp_path / name / "members" / name / RECEIPTS).read()
        assert [(each.run, each.segment, each.accounts) for each in found] == [(0, n, accounts) for n in range(4)]
        for each in found:
            for account, signature in each.signatures.items():
                assert statement_signer(each.statement(TASK), 0, NOBODY, signature) == account
