from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planned_group import planned

from assay.commitments.execution import state_root
from assay.engine.cpu.device import CpuDevice
from assay.group.errors import GroupMessageError
from assay.group.execution.engines import ExactEngine
from assay.group.execution.native.checking import fault_in
from assay.group.execution.partition import member_shares
from assay.group.execution.stage_program import StageProgram
from assay.group.execution.stage_records import (
    NOTICE_SECONDS,
    RECORD,
    RecordFiles,
    dossier_name,
    dossiers_in,
    drop_expired,
    find_dossier,
    read_dossier,
    write_dossier,
)
from assay.group.execution.stage_statements import SignedStage
from assay.group.plan import read_plan
from assay.market.types import StageWork
from assay.training.canonical import CanonicalRun
from assay.training.checkpoint import write_tensors
from assay.training.errors import CheckpointError

from .tasks import task_of
from .test_checking_program import trained

STAGE, INTERVAL = 1, 4
TASK = task_of("mlp", 2 * INTERVAL, INTERVAL)
GROUP = "0x" + 40 * "7"


def made(folder: Path) -> StageProgram:
    """The second stage of the plan in a folder."""
    plan = read_plan(folder / "plan.toml")
    engine = ExactEngine(TASK, plan.microbatches)
    return engine.stage_program(engine.divide_plan(plan), STAGE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a member has before it keeps a record: its plan, the start of a segment, the messages received."""
    two_members(tmp_path)
    write_tensors(tmp_path / "start.safetensors", [TASK.state[number] for number in made(tmp_path).held])
    engine = ExactEngine(TASK, read_plan(tmp_path / "plan.toml").microbatches)
    receives = engine.schedules(engine.divide([1.0, 1.0]))[STAGE].receives
    words = sum(message.words(step) for step in range(INTERVAL, 2 * INTERVAL) for message in receives)
    np.arange(words, dtype=np.uint32).tofile(tmp_path / "messages.bin")
    return tmp_path


def two_members(tmp_path: Path) -> Path:
    """The file of a plan for two stages of one member each."""
    planned(tmp_path, ("ann", "ben"), 2)
    return tmp_path / "plan.toml"


def kept(folder: Path, until: int = 5000, segment: int = 1, program_root: bytes = b"") -> StageWork:
    """Keep a record in the folder "records"; returns what was signed."""
    work = StageWork(GROUP, 0, segment, until, program_root or made(folder).root, bytes(32), bytes(32), bytes([9]) * 32)
    files = RecordFiles(folder / "plan.toml", folder / "start.safetensors", folder / "messages.bin")
    write_dossier(folder / "records", "ben", STAGE, (), SignedStage(work, b"signed", {}), files)
    return work


def test_a_record_is_read_as_it_was_written_though_the_next_segment_replaced_its_files(folder: Path) -> None:
    work = kept(folder)
    write_tensors(folder / "start.safetensors", [np.zeros(1, np.float32)])
    (folder / "messages.bin").unlink()
    (folder / "messages.bin").write_bytes(b"")
    (folder / "plan.toml").write_text("another")
    found = read_dossier(folder / "records" / dossier_name(work))
    assert (found.member, found.stage, found.work, found.signature) == ("ben", STAGE, work, b"signed")
    segment = found.load(TASK)
    assert (segment.first, segment.steps) == (INTERVAL, INTERVAL)
    assert len(segment.data) > len(TASK.data)
    assert any(table.any() for table in segment.data[len(TASK.data) :])


def test_a_record_of_a_tolerant_stage_gives_what_checks_it(tmp_path: Path) -> None:
    """Trained, recorded and checked: what a member kept of an honest segment gives a small fault."""
    plan = two_members(tmp_path)
    made = read_plan(plan)
    one = trained("mlp", 2, made.microbatches, 1, 0, member_shares(made))[STAGE]
    data_root, start_root, end_root = one.roots()
    work = StageWork(GROUP, 0, 0, 5000, one.made.root, data_root, start_root, end_root)
    write_tensors(tmp_path / "start.safetensors", [one.stated.start[number] for number in one.made.held])
    assert one.stated.end is not None
    write_tensors(tmp_path / "end.safetensors", [one.stated.end[number] for number in one.made.owned])
    one.received_log.tofile(tmp_path / "messages.bin")
    one.sent_log.tofile(tmp_path / "sent.bin")
    names = ("start.safetensors", "messages.bin", "sent.bin", "end.safetensors")
    files = RecordFiles(plan, *(tmp_path / name for name in names))
    write_dossier(tmp_path / "records", "ben", STAGE, (), SignedStage(work, b"signed", {}), files)
    segment = read_dossier(tmp_path / "records" / dossier_name(work)).load(one.task, one.graph)
    assert (data_root, start_root) == (state_root(segment.data), state_root(segment.start))
    run = CanonicalRun(segment.program, segment.data, one.task.seed, CpuDevice(1))
    run.load(segment.start)
    for number in range(segment.first, segment.first + segment.steps):
        run.step(number)
    assert fault_in(run.state) <= 0.5


def test_a_record_of_another_program_is_refused(folder: Path) -> None:
    work = kept(folder, program_root=bytes([1]) * 32)
    with pytest.raises(GroupMessageError, match=r"use the version of assay that trained"):
        read_dossier(folder / "records" / dossier_name(work)).load(TASK)


def test_a_damaged_record_is_named(folder: Path) -> None:
    place = folder / "records" / dossier_name(kept(folder))
    (place / "start.safetensors").unlink()
    (place / "start.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError):
        read_dossier(place).load(TASK)
    (place / RECORD).write_text("{}")
    with pytest.raises(GroupMessageError, match="holds no record of a stage"):
        read_dossier(place)


def raised(error: GroupMessageError) -> None:
    raise error


def test_a_damaged_record_holds_up_no_other(folder: Path) -> None:
    good, bad = kept(folder, until=6000), kept(folder, until=5000)
    (folder / "records" / dossier_name(bad) / RECORD).write_text("{}")
    told: list[GroupMessageError] = []
    assert [found.work for found in dossiers_in(folder / "records", told.append)] == [good]
    assert len(told) == 1
    assert find_dossier([folder / "records"], bad) is None


def test_a_record_without_its_last_file_is_none(folder: Path) -> None:
    work = kept(folder)
    (folder / "records" / dossier_name(work) / RECORD).unlink()
    assert list(dossiers_in(folder / "records", raised)) == []
    assert find_dossier([folder / "records"], work) is None


def test_records_are_found_by_what_was_signed_and_dropped_when_it_has_expired(folder: Path) -> None:
    early, late = kept(folder, until=5000), kept(folder, until=6000)
    folders = [folder / "nothing", folder / "records"]
    for work in (early, late):
        found = find_dossier(folders, work)
        assert found is not None
        assert found.work == work
    drop_expired(folder / "records", 5000 + NOTICE_SECONDS)
    assert find_dossier(folders, early) is not None
    drop_expired(folder / "records", 5001 + NOTICE_SECONDS)
    assert find_dossier(folders, early) is None
    assert find_dossier(folders, late) is not None


def test_a_record_is_kept_while_its_statement_is_in_court(folder: Path) -> None:
    work = kept(folder)
    found = find_dossier([folder / "records"], work)
    assert found is not None
    found.pin()
    drop_expired(folder / "records", 10**9)
    assert find_dossier([folder / "records"], work) is not None
