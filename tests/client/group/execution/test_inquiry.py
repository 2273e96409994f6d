"""Who was wrong in a segment is found out of what its members kept, whoever of them hands over nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from assay.group.errors import GroupMessageError
from assay.group.execution.inquiry import AgreedSegment, Inquest, Inquiry, StageLogs
from assay.group.execution.kept_statements import STATEMENTS, keep_statements, read_statements
from assay.group.execution.stage_program import links_of
from assay.group.execution.stage_statements import SignedStage
from assay.market.types import StageWork
from assay.training.task import Mode

from .segment import MEMBERS, engine_of, records
from .tasks import task_and_graph

ANN, BEN = 0, 1
WORK = StageWork("0x" + 40 * "7", 2, 1, 5000, bytes(32), bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32)
CHEATS = {Mode.EXACT: "ben", Mode.TOLERANT: "noise"}


def signed(cheat: str, mode: Mode) -> list[SignedStage]:
    """What both members have signed."""
    found = []
    for stage, record in enumerate(records(cheat, mode)[2]):
        sent = {link: root for link, root in record.tables.items() if link.sender == stage}
        found.append(SignedStage(WORK, b"signed", sent))
    return found


def logs(cheat: str, mode: Mode) -> dict[int, StageLogs]:
    """What both have kept."""
    return {
        stage: StageLogs(record.log, None if mode is Mode.EXACT else record.sent_log)
        for stage, record in enumerate(records(cheat, mode)[2])
    }


def hold(cheat: str, mode: Mode, given: Mapping[int, StageLogs]) -> Inquest:
    task = task_and_graph("mlp", 40, 10, mode)[0]
    divided, _, made, _ = records(cheat, mode)
    start = {number: array for record in made for number, array in record.start.items()}
    end = {number: array for record in made for number, array in (record.end_state or {}).items()}
    numbers = range(len(task.state))
    segment = AgreedSegment(1, [start[n] for n in numbers], [end[n] for n in numbers], signed(cheat, mode))
    return Inquiry(task, engine_of(mode), divided, MEMBERS, segment).hold(given)


@pytest.mark.parametrize("mode", list(Mode))
def test_where_all_were_honest_all_stages_are_true(mode: Mode) -> None:
    found = hold("", mode, logs("", mode))
    assert (found.false, found.true, found.unknown) == ((), (ANN, BEN), ())


@pytest.mark.parametrize("mode", list(Mode))
def test_whoever_sent_garbage_is_found(mode: Mode) -> None:
    found = hold(CHEATS[mode], mode, logs(CHEATS[mode], mode))
    (false,) = found.false
    assert (false.stage, found.true, found.unknown) == (BEN, (ANN,), ())
    assert "'ben' in segment 1 sent 'ann'" in false.verdict


@pytest.mark.parametrize("mode", list(Mode))
def test_a_cheat_that_hands_over_nothing_is_found_out_of_what_the_other_has(mode: Mode) -> None:
    cheat = CHEATS[mode]
    found = hold(cheat, mode, {ANN: logs(cheat, mode)[ANN]})
    (false,) = found.false
    assert (false.stage, found.true, found.unknown) == (BEN, (ANN,), ())
    # To the bit what it had itself, so that it can be shown in court.
    theirs = logs(cheat, mode)[BEN]
    assert np.array_equal(false.logs.received, theirs.received)
    if mode is Mode.TOLERANT:
        assert theirs.sent is not None
        assert false.logs.sent is not None
        assert np.array_equal(false.logs.sent, theirs.sent)


@pytest.mark.parametrize("mode", list(Mode))
def test_a_cheat_that_hands_over_something_else_than_it_signed_is_found_all_the_same(mode: Mode) -> None:
    cheat = CHEATS[mode]
    given = logs(cheat, mode)
    wrong = given[BEN].received.copy()
    wrong[0] ^= 1
    given[BEN] = StageLogs(wrong, given[BEN].sent)
    assert [false.stage for false in hold(cheat, mode, given).false] == [BEN]


@pytest.mark.parametrize("mode", list(Mode))
def test_logs_of_another_length_count_as_none(mode: Mode) -> None:
    cheat = CHEATS[mode]
    given = logs(cheat, mode)
    given[BEN] = StageLogs(given[BEN].received[:-1], given[BEN].sent)
    assert [false.stage for false in hold(cheat, mode, given).false] == [BEN]


@pytest.mark.parametrize("mode", list(Mode))
def test_an_honest_member_that_lost_its_records_is_no_suspect(mode: Mode) -> None:
    found = hold("", mode, {BEN: logs("", mode)[BEN]})
    assert (found.false, found.true, found.unknown) == ((), (ANN, BEN), ())


def test_of_whom_nobody_has_anything_nothing_is_known() -> None:
    found = hold("ben", Mode.EXACT, {BEN: logs("ben", Mode.EXACT)[BEN]})
    # What a cheat sent does not follow from what it was sent, and the other has no record.
    assert ([false.stage for false in found.false], found.true, found.unknown) == ([BEN], (), (ANN,))
    assert hold("", Mode.TOLERANT, {}).unknown == (ANN, BEN)


def test_kept_statements_are_read_as_they_were_written(tmp_path: Path) -> None:
    engine, divided = engine_of(Mode.EXACT), records()[0]
    made = signed("", Mode.EXACT)
    keep_statements(tmp_path, made)
    assert read_statements(tmp_path, links_of(engine.program, divided)) == made
    (tmp_path / STATEMENTS).write_text('[{"work": {}}]')
    with pytest.raises(GroupMessageError, match="does not say what the members signed"):
        read_statements(tmp_path, links_of(engine.program, divided))
