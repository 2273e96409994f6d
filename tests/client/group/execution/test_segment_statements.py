"""What members that train segments alone sign about them, and keep to defend it."""

from __future__ import annotations

from hashlib import sha256

from eth_account import Account
from test_local_steps import local_task
from torch._C._distributed_c10d import HashStore

from assay.group.execution.segment_statements import SegmentStatements
from assay.group.execution.stage_statements import SignedStage, Signer

KEY = Account.from_key(sha256(b"ann").digest())
START, END = bytes(32), bytes(31) + b"\1"


def test_what_defends_a_statement_is_kept_before_anybody_has_it() -> None:
    store = HashStore()
    signer = Signer(5, 31337, "0x" + 40 * "7", KEY.key.to_0x_hex(), {"ann": KEY.address}, 86400)
    statements = SegmentStatements(store, signer, local_task(rounds=1), 0)
    kept: list[SignedStage] = []

    def keep(signed: SignedStage) -> None:
        assert not store.check(["segment/0/1"])
        kept.append(signed)

    statements.sign(1, START, END, keep)
    assert kept == [statements.check(1, "ann", START, END)]
