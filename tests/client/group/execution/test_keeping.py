"""What members tell each other of checkpoints: garbage names who left it, and nothing that a lost generation left stops
the next one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore

from assay.commitments import tensor, tree
from assay.commitments.execution import state_root
from assay.group.errors import GroupMessageError
from assay.group.execution.journals import bytes_of
from assay.group.execution.keeping import Keeping
from assay.program.operator import Array
from assay.training.checkpoint import CheckpointFolder

from .test_strayed_copies import MEMBERS, PARTITION, PROGRAM, owned

ROOT = 32 * "ab"
STATE: list[Array] = [owned(number) for number in range(3)]
ROOTS = [tensor.root(array) for array in STATE]


@pytest.fixture
def store() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


@pytest.fixture
def keeping(store: TCPStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keeping:
    """Ann's, who alone keeps the proof."""
    monkeypatch.setattr(dist, "get_rank", lambda: 0)
    return Keeping(store, 4, MEMBERS, PROGRAM, PARTITION, CheckpointFolder(tmp_path, PROGRAM.state), 1)


@pytest.mark.parametrize(
    "garbage",
    ["", "[", "[" * 100_000, "7", "{}", '{"2": 7}', '{"2": "abcd"}', f'{{"two": "{ROOT}"}}', f'{{"1": "{ROOT}"}}'],
    ids=range(9),
)
def test_roots_that_cannot_be_read_name_their_member(store: TCPStore, keeping: Keeping, garbage: str) -> None:
    store.set("roots/4/1/ben", garbage)
    with pytest.raises(GroupMessageError, match="'ben'"):
        keeping.agree(1, {0: ROOTS[0], 1: ROOTS[1]})


@pytest.mark.parametrize("garbage", ["", "[" * 100_000, "7", '["abcd"]', "[7]", '{"a": 1}'], ids=range(6))
def test_a_journal_that_cannot_be_read_names_its_member(store: TCPStore, keeping: Keeping, garbage: str) -> None:
    store.set("journal/4/ben", garbage)
    with pytest.raises(GroupMessageError, match="'ben'"):
        keeping.catch_up(STATE)


@pytest.mark.parametrize("garbage", ["", "[" * 100_000, "7", '["a"]', "[[]]", "[0, 0, 0]"], ids=range(6))
def test_a_list_of_strayed_copies_that_is_none_names_its_member(
    store: TCPStore, keeping: Keeping, garbage: str
) -> None:
    keeping.tensor_roots = ROOTS
    store.set("strayed/4/1/ben", garbage)
    with pytest.raises(GroupMessageError, match="'ben'"):
        keeping.strayed_copies(1, dict(enumerate(STATE)))


def receive_from_ben(into: torch.Tensor, **_to: int) -> None:
    into.copy_(bytes_of(STATE[2]))


def test_a_checkpoint_that_a_lost_generation_told_of_is_replaced(
    store: TCPStore, keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = state_root(STATE)
    keeping.folder.write(0, [np.zeros_like(array) for array in STATE])
    # Of garbage that somebody sent, and died before a keeper had it; or of nothing at all.
    store.set("checkpoint/1", ROOT)
    store.set("roots/4/1/ben", json.dumps({"2": ROOTS[2].hex()}))
    monkeypatch.setattr(dist, "irecv", receive_from_ben)
    assert keeping.agree(1, {0: ROOTS[0], 1: ROOTS[1]}) == root == tree.root(ROOTS)
    keeping.collect(1, {0: STATE[0], 1: STATE[1]}, root)
    assert store.get("checkpoint/1").decode() == root.hex()
    assert [entry.root for entry in keeping.folder.entries()][1] == root


def test_members_that_agreed_on_different_states_in_one_generation_go_no_further(
    store: TCPStore, keeping: Keeping
) -> None:
    store.set("roots/4/1/ben", json.dumps({"2": ROOTS[2].hex()}))
    store.set("agreed/4/1", ROOT)
    root = keeping.agree(1, {0: ROOTS[0], 1: ROOTS[1]})
    with pytest.raises(GroupMessageError, match="elsewhere in the group"):
        keeping.collect(1, {0: STATE[0], 1: STATE[1]}, root)


def test_a_checkpoint_that_one_member_alone_tells_of_is_not_believed_once_the_group_trains(
    store: TCPStore, keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.set("journal/4/ben", "[]")
    (start,), _ = keeping.catch_up([np.zeros_like(array) for array in STATE])
    store.set("roots/4/1/ben", json.dumps({"2": ROOTS[2].hex()}))
    monkeypatch.setattr(dist, "irecv", receive_from_ben)
    root = keeping.agree(1, {0: ROOTS[0], 1: ROOTS[1]})
    keeping.collect(1, {0: STATE[0], 1: STATE[1]}, root)
    keeping.generation = 5
    # What members have of a segment, they all have been told of: ben made the second up.
    store.set("journal/5/ben", json.dumps([start.hex(), root.hex(), ROOT]))
    assert keeping.catch_up(STATE) == ([start, root], 0)
    assert not store.check(["checkpoint/2"])


def test_checkpoints_of_an_earlier_session_are_believed_at_a_new_meeting_place(
    store: TCPStore, keeping: Keeping
) -> None:
    roots = [keeping.folder.write(index, [array + index for array in STATE]) for index in range(3)]
    store.set("journal/4/ben", "[]")
    assert keeping.catch_up(STATE) == (roots, 0)
