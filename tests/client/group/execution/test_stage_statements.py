from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from eth_account import Account
from torch._C._distributed_c10d import HashStore

from assay.commitments import tensor
from assay.group.errors import GroupMessageError
from assay.group.execution.engines import ExactEngine
from assay.group.execution.stage_statements import SignedStage, Signer, StageStatements
from assay.market.group_agreement import statement_signer

from .tasks import task_of

MEMBERS, TASK, SEGMENT, DAY = ("ann", "ben"), 5, 1, 86400
KEYS = {name: Account.from_key(sha256(name.encode()).digest()) for name in MEMBERS}
ADDRESSES = {name: account.address for name, account in KEYS.items()}
GROUP = "0x" + 40 * "7"


class Pair:
    """Two members after a segment of four steps in which each sent the other zeros."""

    def __init__(self, **changes: Any) -> None:
        self.task = task_of("mlp", 8, 4)
        engine = ExactEngine(self.task, 1)
        divided = engine.divide([1.0, 1.0])
        self.store = HashStore()
        self.roots = [tensor.root(array) for array in self.task.state]
        self.ends = [tensor.root(array + np.ones(1, array.dtype)) for array in self.task.state]
        self.both = []
        for stage, name in enumerate(MEMBERS):
            signer = Signer(TASK, 31337, GROUP, KEYS[name].key.to_0x_hex(), ADDRESSES, DAY)
            if name == "ben":
                signer = replace(signer, **changes)
            self.both.append(
                StageStatements(self.store, signer, self.task, engine, divided, MEMBERS, stage, 0)
            )  # fmt: skip
        for each in self.both:
            for step in range(4, 8):
                each.recorder.end_step(step)

    def state(self, keep: Callable[[SignedStage], None] = lambda _signed: None, **ends: list[bytes]) -> None:
        """Both sign, `ends` by name if not the agreed ones."""
        for each, name in zip(self.both, MEMBERS, strict=True):
            # The second waits for both; the first must not wait for the second here.
            each.store = _Unwaited(self.store)
            own = each.programs[each.stage].held
            given = ends.get(name, self.ends)
            each.state(SEGMENT, self.roots, {number: given[number] for number in own}, keep)

    def check(self, stage: int = 0) -> tuple[SignedStage, ...]:
        return self.both[stage].check(SEGMENT, self.roots, self.ends)

    def replace(self, name: str, **fields: Any) -> None:
        """Another document in the place of what a member left."""
        key = f"stage/0/{SEGMENT}/{name}"
        self.store.set(key, json.dumps({**json.loads(self.store.get(key)), **fields}))


class _Unwaited:
    """A store whose `wait` returns at once."""

    def __init__(self, store: HashStore) -> None:
        self.set, self.get = store.set, store.get

    def wait(self, keys: list[str]) -> None:
        pass


def test_everybody_holds_what_everybody_signed() -> None:
    pair, kept = Pair(), []
    pair.state(kept.append)
    for stage in (0, 1):
        found = pair.check(stage)
        assert [each.work for each in found] == [each.work for each in kept]
        for name, each in zip(MEMBERS, found, strict=True):
            statement = each.work.statement(TASK)
            assert statement_signer(statement, 31337, GROUP, each.signature) == ADDRESSES[name]
            assert (each.work.group, each.work.segment) == (GROUP, SEGMENT)
            assert time.time() + DAY - 60 < each.work.until <= time.time() + DAY


def test_what_defends_a_statement_is_kept_before_anybody_has_it() -> None:
    pair, there = Pair(), []

    def keep(_signed: SignedStage) -> None:
        there.append(pair.store.check([f"stage/0/{SEGMENT}/{MEMBERS[len(there)]}"]))

    pair.state(keep)
    assert there == [False, False]


def test_a_member_that_signed_for_another_end_than_it_shows_is_named() -> None:
    pair = Pair()
    pair.state(ben=pair.roots)
    with pytest.raises(
        GroupMessageError, match="what 'ben' signed about its stage in segment 1 is not what was agreed"
    ):
        pair.check()


def test_a_member_whose_tables_are_not_what_arrived_is_told() -> None:
    pair = Pair()
    pair.state()
    link = pair.both[1].programs[1].sent[0]
    sent = {each.name: bytes(32).hex() if each == link else root.hex() for each, root in sent_of(pair, 1).items()}
    pair.replace("ben", sent=sent)
    with pytest.raises(GroupMessageError, match="'ben' states that it sent operator .* what arrived has root"):
        pair.check()


def sent_of(pair: Pair, stage: int) -> dict[Any, bytes]:
    roots = pair.both[stage].recorder.roots()
    return {link: roots[link] for link in pair.both[stage].programs[stage].sent}


@pytest.mark.parametrize("changes", [{"task": 6}, {"chain_id": 1}, {"group": "0x" + 40 * "1"}])
def test_a_statement_for_another_task_chain_or_group_is_refused(changes: dict[str, Any]) -> None:
    pair = Pair(**changes)
    pair.state()
    with pytest.raises(GroupMessageError, match="what 'ben' signed about its stage"):
        pair.check()


def test_a_statement_signed_with_another_key_is_refused() -> None:
    pair = Pair(private_key=KEYS["ann"].key.to_0x_hex())
    pair.state()
    with pytest.raises(GroupMessageError, match=f"not signed by {ADDRESSES['ben']}"):
        pair.check()


def test_a_member_that_answers_for_too_short_a_time_is_named() -> None:
    pair = Pair(record_seconds=60)
    pair.state()
    with pytest.raises(GroupMessageError, match=r"'ben' answers for its stage in segment 1 until \d+ only, 86400"):
        pair.check()


@pytest.mark.parametrize(
    "fields", [{"until": "soon"}, {"until": 1 << 40}, {"sent": {}}, {"signature": "xyz"}, {"sent": [1]}]
)
def test_what_cannot_be_read_is_refused(fields: dict[str, Any]) -> None:
    pair = Pair()
    pair.state()
    pair.replace("ben", **fields)
    with pytest.raises(GroupMessageError, match="'ben' signed nothing that can be read"):
        pair.check()
