"""The ring of an audited segment: every member hands its record to the one that judges it, judges another, and all
learn the verdicts before anybody keeps the checkpoint. How far apart they are in the ring is drawn anew every time: an
accomplice saves a cheat only where it happens to be its judge."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from assay.group.errors import FalseStageError, GroupMessageError, MemberFailedError
from assay.group.execution.audit import StageJudge, StageRecord, judge_distance, judge_of
from assay.group.execution.engines import StageEngine
from assay.group.execution.journals import bytes_of, wait_all
from assay.group.execution.kept_statements import keep_statements
from assay.group.execution.message_log import log_words, read_log
from assay.group.execution.packing import Words
from assay.group.execution.partition import Partition
from assay.group.execution.schedule import StageSchedule
from assay.group.execution.stage_records import (
    FINDINGS,
    RECORDS,
    RecordFiles,
    dossier_name,
    drop_expired,
    write_dossier,
)
from assay.group.execution.stage_statements import SignedStage, Signer
from assay.program.operator import Array, TensorDescriptor
from assay.training.canonical import aligned
from assay.training.checkpoint import read_tensors, write_tensors
from assay.training.task import TrainingTask

AnyArray = npt.NDArray[Any]

_START_TAG = 3_000_000
_END_TAG = 3_500_000
_LOG_TAG = 3_999_998
_SENT_LOG_TAG = 3_999_999

PATIENCE = 5.0
"""A judge may be silent for so many times as long as the segment took, beyond the group's usual time limit."""

BEAT_SECONDS = 1.0
"""How often a judge that is not done says so. What an audit doubts is executed in the exact arithmetic, which on other
hardware than the training's may take many times as long as the segment."""


@dataclass
class _Given:
    """What a member hands to its judge; see `StageRecord`."""

    start: dict[int, Array]
    log: Words
    sent_log: Words | None = None
    end: dict[int, Array] | None = None


class AuditRing:
    """One member's part in the audits of one generation. Rank and stage number are the same."""

    def __init__(
        self, store: Store, orders: dict[str, Any], task: TrainingTask, divided: Partition,
        schedules: Sequence[StageSchedule], members: Sequence[str], folder: Path, engine: StageEngine,
        memory: Sequence[float] = (),
    ) -> None:  # fmt: skip
        self.store, self.orders, self.task, self.divided = store, orders, task, divided
        self.schedules, self.members, self.folder, self.engine = schedules, members, folder, engine
        self.rank, self.memory = dist.get_rank(), tuple(memory)
        self._judge: StageJudge | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def start_path(self) -> Path:
        """Where the tensors lie that this member's segment starts from."""
        return self.folder / "start.safetensors"

    @property
    def log_path(self) -> Path:
        """Where this member logs what it receives."""
        return self.folder / "messages.bin"

    @property
    def sent_log_path(self) -> Path | None:
        """Where this member logs what it sends, which a judge that computes other bits needs."""
        return None if self.engine.is_exact else self.folder / "sent.bin"

    @property
    def end_path(self) -> Path | None:
        """Where the tensors lie that this member ended a segment with; such a judge needs them, too."""
        return None if self.engine.is_exact else self.folder / "end.safetensors"

    def begin_segment(self, held: Mapping[int, Array]) -> None:
        """Put the state that a segment starts from on disk."""
        write_tensors(self.start_path, [held[number] for number in sorted(held)])

    def end_segment(self, owned: Mapping[int, Array]) -> None:
        """Put on disk what the member says that it ended with, where that takes more than its hashes."""
        if self.end_path is not None:
            write_tensors(self.end_path, [owned[number] for number in sorted(owned)])

    def keep(self, signed: SignedStage) -> None:
        """Keep what defends the own statement, for as long as it can be taken to court, or is there."""
        drop_expired(self.folder / RECORDS, Signer.of(self.orders["keys"]).now)
        files = RecordFiles(
            Path(self.orders["plan"]), self.start_path, self.log_path, self.sent_log_path, self.end_path
        )
        name = self.members[self.rank]
        write_dossier(self.folder / RECORDS, name, self.rank, self.memory, signed, files)

    def keep_all(self, signed: Sequence[SignedStage]) -> None:
        """Keep what all members signed, with the own record: should the segment fail, it says who answers for what."""
        keep_statements(self.folder / RECORDS / dossier_name(signed[self.rank].work), signed)

    def audit(
        self, segment: int, seconds: float, root: bytes, start_roots: Sequence[bytes],
        ends: Sequence[Mapping[int, bytes]], state: Mapping[int, Array], signed: Sequence[SignedStage],
    ) -> None:  # fmt: skip
        """Exchange records, judge, and wait for all verdicts. `seconds`: how long the segment took; `root`: of the
        state it ends in.

        `ends`: the roots that each member stated for its tensors; `state`: this one's; `signed`: what members signed
        about their stages. Raises GroupMessageError naming every member that an audit found to cheat; they are noted
        as guilty, and the next generation is planned without them.
        """
        distance = judge_distance(root, len(self.members))
        judged = (self.rank - distance) % len(self.members)
        given = self._exchange(segment, state, judged, (self.rank + distance) % len(self.members))
        name = self.members[judged]
        prefix = f"audit/{self.orders['generation']}/{segment}"
        tables = {link: root for each in signed for link, root in each.sent.items()}
        record = StageRecord(given.start, given.log, ends[judged], tables, given.sent_log, given.end)
        verdict = ""
        try:
            beat = _Beat(self.store, f"{prefix}/{name}/judged")
            self._judge_of(judged).judge(segment, record, start_roots, beat)
        except GroupMessageError as error:
            verdict = str(error)
            self._keep_evidence(segment, name, verdict, given)
            if isinstance(error, FalseStageError):
                self._keep_finding(segment, judged, signed[judged])
        self.store.set(f"{prefix}/{name}", verdict or "honest")
        patience = float(self.orders["timeout_seconds"]) + PATIENCE * seconds
        verdicts = {member: self._verdict(f"{prefix}/{member}", member, patience) for member in self.members}
        found = {member: text for member, text in verdicts.items() if text != "honest"}
        if found:
            self.store.set(f"guilty/{self.orders['generation']}", json.dumps(sorted(found)))
            raise GroupMessageError("; ".join(found.values()))

    def _judge_of(self, judged: int) -> StageJudge:
        """The judge of a member. One is kept: each holds a stage's memory."""
        if self._judge is None or self._judge.schedule.stage != judged:
            self._judge = None
            schedule = self.schedules[judged]
            self._judge = judge_of(self.task, self.divided, schedule, self.members, self.engine)
        return self._judge

    def _exchange(self, segment: int, state: Mapping[int, Array], judged: int, judge: int) -> _Given:
        """Send the own record to the own judge; returns that of the member that is judged here."""
        steps = (self.task.first_step(segment), self.task.segment_steps(segment))
        schedule = self.schedules[judged]
        own, theirs = self._descriptors(self.rank), self._descriptors(judged)
        mine = read_tensors(self.start_path, list(own.values()), "the segment's start")
        sending: dict[int, AnyArray] = {_START_TAG + number: array for number, array in zip(own, mine, strict=True)}
        sending[_LOG_TAG] = read_log(self.log_path)
        start = {number: aligned(descriptor) for number, descriptor in theirs.items()}
        given = _Given(start, np.empty(log_words(schedule.receives, *steps), np.uint32))
        arriving: dict[int, AnyArray] = {_START_TAG + number: array for number, array in start.items()}
        arriving[_LOG_TAG] = given.log
        if self.sent_log_path is not None:
            sending[_SENT_LOG_TAG] = read_log(self.sent_log_path)
            sending.update({_END_TAG + number: array for number, array in state.items()})
            given.sent_log = np.empty(log_words(schedule.sends, *steps), np.uint32)
            given.end = {number: aligned(theirs[number]) for number in self.divided.parts[judged].state}
            arriving[_SENT_LOG_TAG] = given.sent_log
            arriving.update({_END_TAG + number: array for number, array in given.end.items()})
        works = [dist.irecv(bytes_of(a), src=judged, tag=tag) for tag, a in sorted(arriving.items()) if a.size]
        works += [dist.isend(bytes_of(a), dst=judge, tag=tag) for tag, a in sorted(sending.items()) if a.size]
        wait_all(works)
        return given

    def _descriptors(self, stage: int) -> dict[int, TensorDescriptor]:
        part = self.divided.parts[stage]
        return {number: self.task.program.state[number] for number in sorted({*part.state, *part.copies})}

    def _verdict(self, key: str, member: str, patience: float) -> str:
        """Wait for a verdict as long as its judge is heard of."""
        beat = f"{key}/judged"
        limit, seen = time.monotonic() + patience, b""
        while not self.store.check([key]):
            if self.store.check([beat]) and (now := self.store.get(beat)) != seen:
                limit, seen = time.monotonic() + patience, now
            if time.monotonic() > limit:
                raise MemberFailedError(f"nobody gave a verdict on {member!r} in time; its judge is lost")
            time.sleep(0.05)
        return str(self.store.get(key).decode())

    def _keep_evidence(self, segment: int, name: str, verdict: str, given: _Given) -> None:
        """What anybody needs to judge again."""
        place = self._evidence_path(segment)
        place.mkdir(exist_ok=True)
        write_tensors(place / "start.safetensors", [given.start[number] for number in sorted(given.start)])
        for log, file in ((given.log, "messages.bin"), (given.sent_log, "sent.bin")):
            # Another file: a finding may hold the one before under its own name.
            (place / file).unlink(missing_ok=True)
            if log is not None:
                log.tofile(place / file)
        if given.end is not None:
            write_tensors(place / "end.safetensors", [given.end[number] for number in sorted(given.end)])
        document = {"member": name, "segment": segment, "verdict": verdict, "tensors": sorted(given.start)}
        (place / "verdict.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    def _keep_finding(self, segment: int, judged: int, signed: SignedStage) -> None:
        """What takes a false statement to court."""
        place = self._evidence_path(segment)
        sent, end = (place / "sent.bin", place / "end.safetensors") if self.end_path is not None else (None, None)
        files = RecordFiles(Path(self.orders["plan"]), place / "start.safetensors", place / "messages.bin", sent, end)
        write_dossier(self.folder / FINDINGS, self.members[judged], judged, self.memory, signed, files)

    def _evidence_path(self, segment: int) -> Path:
        return self.folder / f"evidence-{segment:06d}"


class _Beat:
    """Says that a judge is not done, once in a while."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._next, self._count = 0.0, 0

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            self._next, self._count = time.monotonic() + BEAT_SECONDS, self._count + 1
            self._store.set(self._key, str(self._count))
