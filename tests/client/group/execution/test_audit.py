from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from assay.commitments import tensor
from assay.group.errors import FalseStageError, GroupMessageError
from assay.group.execution.audit import NativeJudge, StageRecord, is_audited, judge_distance, judge_of
from assay.training.task import Mode

from .segment import MEMBERS, engine_of, records
from .tasks import task_and_graph


def judge(stage: int, record: StageRecord, roots: list[bytes], mode: Mode = Mode.EXACT) -> None:
    task = task_and_graph("mlp", 40, 10, mode)[0]
    divided, schedules, _, _ = records("", mode)
    judged = judge_of(task, divided, schedules[stage], MEMBERS, engine_of(mode))
    judged.judge(1, record, roots)


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("mode", list(Mode))
def test_an_honest_stage_stands_alone(stage: int, mode: Mode) -> None:
    _, _, made, roots = records("", mode)
    judge(stage, made[stage], roots, mode)


def rounded_elsewhere(record: StageRecord) -> StageRecord:
    """The record of a member whose kernels round the last bits of all that it keeps to itself differently."""
    assert record.end_state is not None
    end = {
        number: array * np.float32(1 + 2.0**-22) if array.dtype == np.float32 else array
        for number, array in record.end_state.items()
    }
    return replace(record, end_state=end, end={number: tensor.root(array) for number, array in end.items()})


def test_a_native_stage_on_kernels_that_round_differently_stands_too() -> None:
    _, _, made, roots = records("", Mode.TOLERANT)
    judge(0, rounded_elsewhere(made[0]), roots, Mode.TOLERANT)


def test_a_native_stage_that_sends_garbage_is_named_and_its_neighbour_is_not() -> None:
    _, _, made, roots = records("noise", Mode.TOLERANT)
    judge(0, made[0], roots, Mode.TOLERANT)
    with pytest.raises(FalseStageError, match=r"'ben' in segment 1 sent 'ann' values that differ .* its fault is \d"):
        judge(1, made[1], roots, Mode.TOLERANT)


def test_what_only_the_audit_s_own_kernels_doubt_is_no_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, made, roots = records("", Mode.TOLERANT)
    beats: list[None] = []
    monkeypatch.setattr(NativeJudge, "_doubt", lambda *_: "sent values that its operators do not give")
    task = task_and_graph("mlp", 40, 10, Mode.TOLERANT)[0]
    divided, schedules, _, _ = records("", Mode.TOLERANT)
    judged = judge_of(task, divided, schedules[1], MEMBERS, engine_of(Mode.TOLERANT))
    judged.judge(1, made[1], roots, lambda: beats.append(None))
    assert len(beats) == 11  # once before the exact arithmetic's ten steps


def test_a_native_stage_that_did_not_train_is_named() -> None:
    _, _, made, roots = records("", Mode.TOLERANT)
    lazy = {number: array.copy() for number, array in made[0].start.items() if number in made[0].end}
    ends = {number: tensor.root(array) for number, array in lazy.items()}
    with pytest.raises(FalseStageError, match="'ann' in segment 1 ended in another state"):
        judge(0, replace(made[0], end_state=lazy, end=ends), roots, Mode.TOLERANT)
    with pytest.raises(GroupMessageError, match="'ann' in segment 1 does not hold the tensor"):
        judge(0, replace(made[0], end_state=lazy), roots, Mode.TOLERANT)


def test_a_native_stage_that_hands_over_other_messages_than_it_signed_is_named() -> None:
    _, _, made, roots = records("", Mode.TOLERANT)
    assert made[1].sent_log is not None
    forged = made[1].sent_log.copy()
    forged[0] ^= 1
    with pytest.raises(GroupMessageError, match="'ben' in segment 1 does not hold the messages to 'ann'"):
        judge(1, replace(made[1], sent_log=forged), roots, Mode.TOLERANT)


def test_one_wrong_bit_names_its_sender_and_not_who_computed_with_it() -> None:
    _, _, made, roots = records("ben")
    judge(0, made[0], roots)
    with pytest.raises(FalseStageError, match="'ben' in segment 1 sent 'ann' other values"):
        judge(1, made[1], roots)


def test_a_member_that_hides_what_it_received_is_named() -> None:
    _, _, made, roots = records()
    forged = made[0].log.copy()
    forged[3] ^= 1
    with pytest.raises(GroupMessageError, match="'ann' in segment 1 accepted other messages than 'ben' signed") as info:
        judge(0, replace(made[0], log=forged), roots)
    # What it signed may be true all the same: no court can be shown otherwise.
    assert not isinstance(info.value, FalseStageError)


def test_a_member_that_states_another_end_or_start_is_named() -> None:
    _, _, made, roots = records()
    number = min(made[0].end)
    with pytest.raises(FalseStageError, match="'ann' in segment 1 ended in another state"):
        judge(0, replace(made[0], end={**made[0].end, number: bytes(32)}), roots)
    start = {**made[0].start, number: made[0].start[number] + np.float32(1)}
    with pytest.raises(GroupMessageError, match="'ann' in segment 1 did not start from the agreed state"):
        judge(0, replace(made[0], start=start), roots)


def test_the_audited_fraction_is_the_rate() -> None:
    roots = [sha256(bytes([number])).digest() for number in range(250)]
    assert not any(is_audited(root, 0.0) for root in roots)
    assert all(is_audited(root, 1.0) for root in roots)
    assert 30 <= sum(is_audited(root, 0.2) for root in roots) <= 70


def test_everybody_else_judges_a_member_about_as_often() -> None:
    roots = [sha256(bytes([number])).digest() for number in range(250)]
    drawn = [judge_distance(root, 4) for root in roots]
    assert all(60 <= drawn.count(distance) <= 105 for distance in (1, 2, 3))
    assert {judge_distance(root, 2) for root in roots} == {1}
