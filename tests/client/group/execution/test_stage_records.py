from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from assay.group.cluster_file import read_cluster_file
from assay.group.errors import GroupMessageError
from assay.group.execution.engines import ExactEngine
from assay.group.execution.partition import member_shares
from assay.group.execution.stage_program import StageProgram, stage_program
from assay.group.execution.stage_records import (
    RECORD,
    dossier_name,
    dossiers_in,
    drop_expired,
    find_dossier,
    read_dossier,
    write_dossier,
)
from assay.group.execution.stage_statements import SignedStage
from assay.group.plan import make_plan, read_plan, write_plan
from assay.market.types import StageWork
from assay.training.checkpoint import write_tensors
from assay.training.errors import CheckpointError

from .tasks import task_of

STAGE, INTERVAL = 1, 4
TASK = task_of("mlp", 2 * INTERVAL, INTERVAL)
GROUP = "0x" + 40 * "7"


def made(folder: Path) -> StageProgram:
    """The second stage of the plan in a folder."""
    plan = read_plan(folder / "plan.toml")
    engine = ExactEngine(TASK, plan.microbatches)
    return stage_program(engine.program, engine.divide(member_shares(plan)), STAGE, INTERVAL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a member has before it keeps a record: its plan, the start of a segment, the messages received."""
    lines = ["[program]", "stages = 2", "replicas = 1", "activation_bytes = 1e6", "parameter_bytes = 1e6", "layers = 4"]
    lines += ["[[link]]", 'between = ["here", "here"]', "delay_ms = 1", "bandwidth_mbps = 1000"]
    for name in ("ann", "ben"):
        lines += ["[[device]]", f'name = "{name}"', 'region = "here"']
    (tmp_path / "cluster.toml").write_text("\n".join(lines))
    description = read_cluster_file(tmp_path / "cluster.toml")
    write_plan(make_plan(description.cluster, description.costs(2, 1)), tmp_path / "plan.toml")
    write_tensors(tmp_path / "start.safetensors", [TASK.state[number] for number in made(tmp_path).held])
    engine = ExactEngine(TASK, read_plan(tmp_path / "plan.toml").microbatches)
    receives = engine.schedules(engine.divide([1.0, 1.0]))[STAGE].receives
    words = sum(message.words(step) for step in range(INTERVAL, 2 * INTERVAL) for message in receives)
    np.arange(words, dtype=np.uint32).tofile(tmp_path / "messages.bin")
    return tmp_path


def kept(folder: Path, until: int = 5000, segment: int = 1, program_root: bytes = b"") -> StageWork:
    """Keep a record in the folder "records"; returns what was signed."""
    work = StageWork(GROUP, 0, segment, until, program_root or made(folder).root, bytes(32), bytes(32), bytes([9]) * 32)
    write_dossier(
        folder / "records", "ben", STAGE, (), SignedStage(work, b"signed", {}), folder / "plan.toml",
        folder / "start.safetensors", folder / "messages.bin",
    )  # fmt: skip
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


def test_a_record_without_its_last_file_is_none(folder: Path) -> None:
    work = kept(folder)
    (folder / "records" / dossier_name(work) / RECORD).unlink()
    assert list(dossiers_in(folder / "records")) == []
    assert find_dossier([folder / "records"], work) is None


def test_records_are_found_by_what_was_signed_and_dropped_when_it_has_expired(folder: Path) -> None:
    early, late = kept(folder, until=5000), kept(folder, until=6000)
    folders = [folder / "nothing", folder / "records"]
    for work in (early, late):
        found = find_dossier(folders, work)
        assert found is not None
        assert found.work == work
    drop_expired(folder / "records", 5000)
    assert find_dossier(folders, early) is not None
    drop_expired(folder / "records", 5001)
    assert find_dossier(folders, early) is None
    assert find_dossier(folders, late) is not None
