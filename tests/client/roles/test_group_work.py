"""What owners of a group's segments sign, and how it gets around."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest
from eth_account import Account

from assay.commitments import tree
from assay.market.errors import GroupAgreementError
from assay.market.group_agreement import statement_signer
from assay.roles.group_work import Duty, SignedWork, exchange, sign_segments, statement_of

TASK, SEGMENTS = 7, 5
ANN, BEN, CAT = (Account.from_key(sha256(name).digest()) for name in (b"ann", b"ben", b"cat"))
ROOTS = tuple(sha256(bytes([number])).digest() for number in range(SEGMENTS + 1))
GROUP = Account.from_key(sha256(b"group").digest()).address
DUTY = Duty(31337, GROUP, (ANN.address, BEN.address, CAT.address), (1, 0))


class Shelf:
    """A board in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def set(self, key: str, value: str) -> None:
        self.kept[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.kept[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.kept for key in keys)


def mine(account: Account, roots: tuple[bytes, ...] = ROOTS) -> Mapping[int, bytes]:
    return sign_segments(DUTY, TASK, DUTY.segments_of(account.address, SEGMENTS), roots, account)


def given(shelf: Shelf, account: Account, signed: Mapping[int, bytes], expected: tuple[Account, ...]) -> SignedWork:
    names = [each.address for each in expected]
    return exchange(shelf, DUTY, TASK, signed, ROOTS, account.address, names, 0.2)


def test_owners_answer_for_the_segments_in_turn() -> None:
    assert DUTY.segments_of(BEN.address, SEGMENTS) == [0, 2, 4]
    assert DUTY.segments_of(ANN.address, SEGMENTS) == [1, 3]
    assert DUTY.segments_of(CAT.address, SEGMENTS) == []
    assert Duty(1, GROUP, DUTY.accounts, ()).owner_of(0) is None


def test_every_member_keeps_what_all_owners_signed() -> None:
    shelf = Shelf()
    given(shelf, BEN, mine(BEN), (BEN,))
    work = given(shelf, CAT, mine(CAT), (ANN, BEN, CAT))
    assert sorted(work.signatures) == [0, 2, 4]  # the other owner has not come
    given(shelf, ANN, mine(ANN), (ANN,))
    work = given(shelf, CAT, {}, (ANN, BEN, CAT))
    assert sorted(work.signatures) == list(range(SEGMENTS))
    for segment, signature in work.signatures.items():
        signer = statement_signer(statement_of(TASK, segment, ROOTS), DUTY.chain_id, GROUP, signature)
        assert signer == DUTY.owner_of(segment)


def test_signatures_for_another_proof_or_by_another_account_are_not_kept() -> None:
    shelf = Shelf()
    given(shelf, BEN, mine(BEN, ROOTS[::-1]), (BEN,))
    assert not given(shelf, CAT, {}, (BEN, CAT)).signatures
    forged = sign_segments(DUTY, TASK, [0, 2, 4], ROOTS, ANN)
    given(shelf, BEN, forged, (BEN,))
    assert not given(shelf, CAT, {}, (BEN, CAT)).signatures


@pytest.mark.parametrize("content", ["", "[]", "{", '{"0": 5}', '{"x": "00"}', '{"0": "zz"}', '{"0": ""}'])
def test_a_malformed_note_is_as_good_as_none(content: str) -> None:
    shelf = Shelf()
    shelf.set(f"work/{TASK:x}/{BEN.address}", content)
    assert not given(shelf, CAT, {}, (BEN, CAT)).signatures


def test_what_was_signed_is_read_back_and_opens_to_the_registered_root(tmp_path: Path) -> None:
    written = SignedWork(ROOTS, mine(BEN))
    written.write(tmp_path / "work.json")
    work = SignedWork.read(tmp_path / "work.json")
    assert work == written
    run, start, start_proof, end, end_proof = written.opened(2)
    assert (run, start, end) == (0, ROOTS[2], ROOTS[3])
    tree.verify(start, 2, SEGMENTS + 1, start_proof, tree.root(ROOTS))
    tree.verify(end, 3, SEGMENTS + 1, end_proof, tree.root(ROOTS))
    assert SignedWork.read(tmp_path / "nothing.json") is None
    (tmp_path / "work.json").write_text("{}")
    with pytest.raises(GroupAgreementError, match="does not hold what members signed"):
        SignedWork.read(tmp_path / "work.json")
