"""What judging one stage in one segment takes, on disk: a member keeps it for every statement it signed, to defend it;
who found a false one keeps what the other handed over, to show it.

A record is a folder: `record.json` (whose stage, what it signed), `plan.toml`, `start.safetensors` (the state tensors
held) and `messages.bin` (what was received; not of a segment that a member trained alone, all of it); of a tolerant
task also `sent.bin` (what was sent) and `end.safetensors` (the tensors that the member answered for, afterwards).
Everything else follows from the task.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay.commitments import tensor, tree
from assay.engine.cpu.device import CpuDevice
from assay.group.errors import GroupMessageError
from assay.group.execution.engines import engine_of
from assay.group.execution.link_tables import logged_segment
from assay.group.execution.message_log import read_log
from assay.group.execution.stage_statements import SignedStage
from assay.group.plan import read_plan
from assay.market.types import StageWork
from assay.program.encoding import program_root
from assay.program.graph import Graph
from assay.program.operator import Array, Program
from assay.training.canonical import CanonicalRun
from assay.training.checkpoint import read_tensors, sync_folder, write_synced
from assay.training.task import TrainingTask

RECORD, PLAN, START, MESSAGES = "record.json", "plan.toml", "start.safetensors", "messages.bin"
SENT, END = "sent.bin", "end.safetensors"
RECORDS, FINDINGS = "records", "findings"
"""Folders of an audit: what defends the own statements, and what shows that others' are false."""

PINNED = "in-court"
NOTICE_SECONDS = 3600
"""What was taken to court in the last second is heard of within that time."""

_ROOTS = ("program_root", "data_root", "start_root", "end_root")


@dataclass(frozen=True)
class StageEnd:
    """Where a stage's segment ends: the state's root; and the bits of its first number, opened under it, which of a
    program that checks a stage are the fault's."""

    root: bytes
    fault_bits: int
    proof: tuple[bytes, ...]

    @staticmethod
    def of(state: Sequence[Array]) -> StageEnd:
        """Of the state itself."""
        levels = tree.levels([tensor.root(array) for array in state])
        bits = int(state[0].reshape(-1)[:1].view(np.uint32)[0])
        return StageEnd(levels[-1][0], bits, tuple(tree.proof_of(levels, 0)))

    @property
    def fault(self) -> float:
        """The number; garbage if it is not at most 1."""
        return float(np.array([self.fault_bits], np.uint32).view(np.float32)[0])


@dataclass(frozen=True)
class StageSegment:
    """A stage's segment, ready to be executed: its program from `start` over `data`, in `steps` steps from the global
    step `first` on."""

    program: Program
    start: Sequence[Array]
    data: Sequence[Array]
    first: int
    steps: int

    def end(self, seed: int) -> StageEnd:
        """Execute it in the exact arithmetic; `seed` is the task's."""
        run = CanonicalRun(self.program, self.data, seed, CpuDevice())
        run.load(self.start)
        for number in range(self.first, self.first + self.steps):
            run.step(number)
        return StageEnd.of(run.state)


@dataclass(frozen=True)
class StageDossier:
    """A record on disk. `member`: who signed `work`; `stage`: its place among the plan's members; `memory`: the bytes
    of each of them that the partition was made with."""

    folder: Path
    member: str
    stage: int
    memory: tuple[float, ...]
    work: StageWork
    signature: bytes

    def load(self, task: TrainingTask, graph: Graph | None = None) -> StageSegment:
        """Make the stage's segment out of it; `graph` is a tolerant task's. Raises CheckpointError where a file is
        damaged, GroupMessageError where the stage's program is not the one that was signed."""
        if self.is_alone:
            return self._whole(task)
        plan = read_plan(self.folder / PLAN)
        engine = engine_of(task, graph, plan, "cpu", 1)
        divided = engine.divide_plan(plan, self.memory)
        made = engine.stage_program(divided, self.stage)
        if made.root != self.work.program_root:
            raise GroupMessageError(
                f"{self.folder} is about a stage program with root {self.work.program_root.hex()[:16]}; from its plan "
                f"follows {made.root.hex()[:16]}: use the version of assay that trained"
            )
        first, steps = task.first_step(self.work.segment), task.segment_steps(self.work.segment)
        held = self._tensors(START, made.held, task, "the segment's start")
        sent = end = None
        if not engine.is_exact:
            sent = read_log(self.folder / SENT)
            end = self._tensors(END, sorted(divided.parts[self.stage].state), task, "the segment's end")
        schedule, log = engine.schedules(divided)[self.stage], read_log(self.folder / MESSAGES)
        segment = logged_segment(made, task, schedule, (first, first + steps), held, log, sent, end)
        return StageSegment(made.program, *made.tensors(task.data, segment), first, steps)

    @property
    def is_alone(self) -> bool:
        """Whether the member trained the segment alone, all of it (`side_by_side`)."""
        return not (self.folder / MESSAGES).exists()

    def _whole(self, task: TrainingTask) -> StageSegment:
        """The segment of the task itself."""
        if program_root(task.program) != self.work.program_root:
            raise GroupMessageError(f"{self.folder} is about another program than the task's: remove it")
        start = self._tensors(START, range(len(task.program.state)), task, "the segment's start")
        first = task.first_step(self.work.segment)
        return StageSegment(task.program, list(start.values()), task.data, first, task.segment_steps(self.work.segment))

    def pin(self) -> None:
        """Keep the record whatever its time: its statement is in court."""
        if not (self.folder / PINNED).exists():
            (self.folder / PINNED).touch()

    def _tensors(self, name: str, numbers: Sequence[int], task: TrainingTask, what: str) -> dict[int, Array]:
        found = read_tensors(self.folder / name, [task.program.state[number] for number in numbers], what)
        return dict(zip(numbers, found, strict=True))


@dataclass(frozen=True)
class RecordFiles:
    """Where the parts of a record lie that are files; `messages` not of a segment that one member trained alone, `sent`
    and `end` of a tolerant task only. They may be replaced afterwards, but not changed."""

    plan: Path
    start: Path
    messages: Path | None
    sent: Path | None = None
    end: Path | None = None

    def named(self) -> dict[str, Path]:
        """Those that are there, by their names in a record."""
        found = {PLAN: self.plan, START: self.start, MESSAGES: self.messages, SENT: self.sent, END: self.end}
        return {name: path for name, path in found.items() if path is not None}


def dossier_name(work: StageWork) -> str:
    """Name of the folder of a statement's record. A segment may be trained, and signed for, several times, and findings
    may be about several members."""
    return f"{work.segment:06d}-{work.run:04d}-{work.program_root.hex()[:8]}-{work.until}"


def write_dossier(
    folder: Path, member: str, stage: int, memory: Sequence[float], signed: SignedStage, files: RecordFiles
) -> None:
    """Keep what judges a stage, in a folder of its own in `folder`. Whoever finds `record.json` finds the rest."""
    folder /= dossier_name(signed.work)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, source in files.named().items():
        if name == PLAN:  # whoever wrote it may change it
            shutil.copyfile(source, folder / name)
        else:
            _link_or_copy(source, folder / name)
        with (folder / name).open("rb+") as file:
            os.fsync(file.fileno())
    document = {
        "member": member, "stage": stage, "memory": list(memory), "work": encode_work(signed.work),
        "signature": signed.signature.hex(),
    }  # fmt: skip
    write_synced(folder / RECORD, json.dumps(document, indent=1) + "\n")
    sync_folder(folder.parent)


def encode_work(work: StageWork) -> dict[str, str | int]:
    """What a statement is about, as JSON has it."""
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in asdict(work).items()}


def decode_work(document: Mapping[str, Any]) -> StageWork:
    """The same, read again. Raises KeyError, ValueError or TypeError where it is none."""
    roots = (bytes.fromhex(document[name]) for name in _ROOTS)
    return StageWork(
        str(document["group"]), int(document["run"]), int(document["segment"]), int(document["until"]), *roots
    )


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)


def read_dossier(folder: Path) -> StageDossier:
    """Read what `write_dossier` wrote. Raises GroupMessageError where it is damaged."""
    try:
        document = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return StageDossier(
            folder, str(document["member"]), int(document["stage"]), tuple(map(float, document["memory"])),
            decode_work(document["work"]), bytes.fromhex(document["signature"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GroupMessageError(f"{folder} holds no record of a stage ({error!r}): remove it") from error


def find_dossier(folders: Iterable[Path], work: StageWork) -> StageDossier | None:
    """The record of a statement in one of several folders, or None where there is none that can be read."""
    for folder in folders:
        place = folder / dossier_name(work)
        if not (place / RECORD).exists():
            continue
        try:
            found = read_dossier(place)
        except GroupMessageError:
            continue  # another folder may have it, too
        if found.work == work:
            return found
    return None


def dossiers_in(folder: Path, skipped: Callable[[GroupMessageError], None]) -> Iterator[StageDossier]:
    """All records in a folder that are complete, in the order of their names. `skipped` is told of damaged ones."""
    for record in sorted(folder.glob(f"*/{RECORD}")):
        try:
            yield read_dossier(record.parent)
        except GroupMessageError as error:
            skipped(error)


def drop_expired(folder: Path, now: float) -> None:
    """Remove records of statements that nobody can take to court any more at the chain's time `now`, and that are not
    there (`StageDossier.pin`)."""
    for place in folder.glob("*-*-*-*"):
        until = place.name.rpartition("-")[2]
        if until.isdigit() and int(until) + NOTICE_SECONDS < now and not (place / PINNED).exists():
            shutil.rmtree(place, ignore_errors=True)
