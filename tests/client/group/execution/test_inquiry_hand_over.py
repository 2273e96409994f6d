"""Members hand each other what they kept of a segment that failed their task, and believe nothing of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from torch.distributed import HashStore

from assay.group.execution.kept_statements import keep_statements
from assay.group.execution.stage_records import (
    END,
    FINDINGS,
    MESSAGES,
    RECORDS,
    SENT,
    START,
    RecordFiles,
    StageDossier,
    dossier_name,
    dossiers_in,
    write_dossier,
)
from assay.group.execution.stage_statements import SignedStage
from assay.group.plan import read_plan, write_plan
from assay.market.types import StageWork
from assay.roles.group_inquiry import Ground, inquire, latest_record
from assay.storage.directory import DirectoryStore
from assay.tasks.references import FileReference
from assay.training.checkpoint import CheckpointFolder, write_tensors
from assay.training.task import Mode
from assay.training.train import Proof

from .segment import MEMBERS, engine_of, records
from .tasks import task_and_graph
from .test_stage_records import two_members

ANN, BEN, TASK, SEGMENT, UNTIL = 0, 1, 7, 1, 5000
CHEATS = {Mode.EXACT: "ben", Mode.TOLERANT: "noise"}
KEY = f"inquiry/{TASK:x}/{SEGMENT}/"


def unskipped(error: Exception) -> None:
    raise AssertionError(f"damaged: {error}")


@dataclass
class Member:
    """A member's files after a segment in which the second one cheated."""

    folder: Path
    mode: Mode
    stage: int
    board: HashStore
    store: DirectoryStore

    def __post_init__(self) -> None:
        self.task, graph = task_and_graph("mlp", 40, 10, self.mode)
        self.divided, _, made, _ = records(CHEATS[self.mode], self.mode)
        start = {number: array for record in made for number, array in record.start.items()}
        end = {number: array for record in made for number, array in (record.end_state or {}).items()}
        numbers = range(len(self.task.state))
        states = [self.task.state, [start[n] for n in numbers], [end[n] for n in numbers]]
        proof = CheckpointFolder(self.folder / "proof", self.task.program.state)
        roots = tuple(proof.write(index, state) for index, state in enumerate(states))
        self.signed = []
        for stage, record in enumerate(made):
            root = engine_of(self.mode).stage_program(self.divided, stage).root
            work = StageWork("0x" + 40 * "7", 0, SEGMENT, UNTIL, root, bytes(32), bytes(32), bytes(32))
            sent = {link: table for link, table in record.tables.items() if link.sender == stage}
            self.signed.append(SignedStage(work, b"signed", sent))
        own, part = made[self.stage], self.divided.parts[self.stage]
        write_tensors(self.folder / START, [own.start[n] for n in sorted({*part.state, *part.copies})])
        own.log.tofile(self.folder / MESSAGES)
        plan = two_members(self.folder)
        write_plan(replace(read_plan(plan), layers=(2, 2)), plan)  # as in `records`
        files = RecordFiles(plan, self.folder / START, self.folder / MESSAGES)
        if self.mode is Mode.TOLERANT:
            assert own.sent_log is not None
            own.sent_log.tofile(self.folder / SENT)
            write_tensors(self.folder / END, [end[number] for number in sorted(part.state)])
            files = RecordFiles(files.plan, files.start, files.messages, self.folder / SENT, self.folder / END)
        audit = self.folder / "audit"
        mine = self.signed[self.stage]
        write_dossier(audit / RECORDS, MEMBERS[self.stage], self.stage, (), mine, files)
        keep_statements(audit / RECORDS / dossier_name(mine.work), self.signed)
        graph = graph if self.mode is Mode.TOLERANT else None
        self.ground = Ground(TASK, self.task, graph, Proof(self.folder / "proof", roots), audit, "cpu")

    def inquire(self) -> list[int]:
        """The stages that this member finds false."""
        own = latest_record(self.ground.audit, SEGMENT)
        assert own is not None
        found = inquire(self.ground, SEGMENT, own, lambda: self.board, [self.store], 0.1)
        return [false.stage for false in found.false]

    @property
    def findings(self) -> list[StageDossier]:
        return list(dossiers_in(self.ground.audit / FINDINGS, unskipped))


def member(folder: Path, mode: Mode, stage: int, board: HashStore) -> Member:
    place = folder / MEMBERS[stage]
    place.mkdir()
    return Member(place, mode, stage, board, DirectoryStore(folder / "store"))


@pytest.mark.parametrize("mode", list(Mode))
def test_what_is_found_false_can_be_taken_to_court(tmp_path: Path, mode: Mode) -> None:
    board = HashStore()
    ann, ben = (member(tmp_path, mode, stage, board) for stage in (ANN, BEN))
    assert ann.inquire() == [BEN]  # of ben nothing is there yet
    # Who finds that its own stage is false keeps that to itself, and hands over all the same.
    assert ben.inquire() == [BEN]
    assert ben.findings == []
    assert ann.inquire() == [BEN]
    (found,) = ann.findings
    assert (found.member, found.stage, found.work) == ("ben", BEN, ann.signed[BEN].work)
    end = found.load(ann.task, ann.ground.graph).end(ann.task.seed)
    if mode is Mode.TOLERANT:
        assert end.fault > 1
    assert end == latest(ben).load(ben.task, ben.ground.graph).end(ben.task.seed)


def latest(owner: Member) -> StageDossier:
    own = latest_record(owner.ground.audit, SEGMENT)
    assert own is not None
    return own


def stranger_file(store: DirectoryStore, folder: Path) -> str:
    """A reference to a log of another length."""
    path = folder / "stranger.bin"
    np.zeros(3, np.uint32).tofile(path)
    return FileReference((store.put(path),), 12, bytes(32)).encode()


NONSENSE = {
    "nothing": "",
    "a list": "[]",
    "no file": "{}",
    "a number": "7",
    "no reference": '{"messages.bin": 5}',
    "null": '{"messages.bin": null}',
    "another reference": '{"messages.bin": "[]"}',
    "too deep": "[" * 100_000,
}


@pytest.mark.parametrize("content", list(NONSENSE.values()), ids=list(NONSENSE))
def test_nonsense_on_the_board_counts_as_nothing(tmp_path: Path, content: str) -> None:
    board = HashStore()
    ann = member(tmp_path, Mode.EXACT, ANN, board)
    board.set(KEY + "ben", content)
    assert ann.inquire() == [BEN]


def test_a_file_of_another_length_is_not_fetched(tmp_path: Path) -> None:
    board = HashStore()
    ann = member(tmp_path, Mode.EXACT, ANN, board)
    board.set(KEY + "ben", json.dumps({MESSAGES: stranger_file(ann.store, tmp_path)}))
    assert ann.inquire() == [BEN]
    assert not list((ann.ground.audit / "inquiries").rglob("ben/*.bin"))


def test_the_record_of_the_last_time_counts_where_a_segment_was_trained_again(tmp_path: Path) -> None:
    ann = member(tmp_path, Mode.EXACT, ANN, HashStore())
    files = RecordFiles(ann.folder / "plan.toml", ann.folder / START, ann.folder / MESSAGES)
    for until in (UNTIL - 1, UNTIL + 1):
        work = StageWork("0x" + 40 * "7", 9, SEGMENT, until, *(4 * [bytes(32)]))
        write_dossier(ann.ground.audit / RECORDS, "ann", ANN, (), SignedStage(work, b"signed", {}), files)
    assert latest(ann).work.until == UNTIL + 1
    assert latest_record(ann.ground.audit, SEGMENT + 1) is None
