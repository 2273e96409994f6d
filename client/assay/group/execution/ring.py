"""The ring of an audited segment: every member hands its record to the next, judges the one before, and all learn the
verdicts before anybody keeps the checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from assay.group.errors import FalseStageError, GroupMessageError, MemberFailedError
from assay.group.execution.audit import StageJudge, StageRecord, judge_of
from assay.group.execution.engines import StageEngine
from assay.group.execution.exchange import links
from assay.group.execution.keeping import bytes_of, wait_all
from assay.group.execution.message_log import log_words, read_log
from assay.group.execution.packing import Words
from assay.group.execution.partition import Partition
from assay.group.execution.schedule import StageSchedule
from assay.group.execution.stage_records import FINDINGS, RECORDS, drop_expired, write_dossier
from assay.group.execution.stage_statements import SignedStage, Signer
from assay.group.transcript import Statement
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
"""A verdict may take so many times as long as the segment took, beyond the group's usual time limit."""


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
        self.next, self.before = (self.rank + 1) % len(members), (self.rank - 1) % len(members)
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

    def begin_segment(self, held: Mapping[int, Array]) -> None:
        """Put the state that a segment starts from on disk."""
        write_tensors(self.start_path, [held[number] for number in sorted(held)])

    def keep(self, signed: SignedStage) -> None:
        """Keep what defends the own statement, for as long as it can be taken to court."""
        drop_expired(self.folder / RECORDS, Signer.of(self.orders["keys"]).now)
        write_dossier(
            self.folder / RECORDS, self.members[self.rank], self.rank, self.memory, signed, Path(self.orders["plan"]),
            self.start_path, self.log_path,
        )  # fmt: skip

    def audit(
        self, segment: int, seconds: float, start_roots: Sequence[bytes], ends: Sequence[Mapping[int, bytes]],
        state: Mapping[int, Array], signed: Sequence[SignedStage] = (),
    ) -> None:  # fmt: skip
        """Exchange records, judge, and wait for all verdicts. `seconds`: how long the segment took.

        `ends`: the roots that each member stated for its tensors; `state`: this one's; `signed`: what members of an
        exact group signed about their stages. Raises GroupMessageError naming every member that an audit found to
        cheat; they are noted as guilty, and the next generation is planned without them.
        """
        given = self._exchange(segment, state)
        name = self.members[self.before]
        keys = self.orders["keys"]
        if self._judge is None:
            schedule = self.schedules[self.before]
            self._judge = judge_of(self.task, self.divided, schedule, self.members, self.engine)
        verdict = ""
        try:
            record = StageRecord(
                given.start, given.log, ends[self.before], sent_log=given.sent_log, end_state=given.end
            )
            if self.engine.is_exact:
                tables = {link: root for each in signed for link, root in each.sent.items()}
                record = replace(record, tables=tables)
            else:
                received, sent = self._statements(segment)
                record = replace(record, received=received, sent=sent)
            self._judge.judge(segment, record, int(keys["task"]), keys["addresses"], start_roots)
        except GroupMessageError as error:
            verdict = str(error)
            self._keep_evidence(segment, name, verdict, given)
            if isinstance(error, FalseStageError):
                self._keep_finding(segment, name, signed[self.before])
        prefix = f"audit/{self.orders['generation']}/{segment}"
        self.store.set(f"{prefix}/{name}", verdict or "honest")
        limit = time.monotonic() + float(self.orders["timeout_seconds"]) + PATIENCE * seconds
        verdicts = {member: self._verdict(f"{prefix}/{member}", member, limit) for member in self.members}
        found = {member: text for member, text in verdicts.items() if text != "honest"}
        if found:
            self.store.set(f"guilty/{self.orders['generation']}", json.dumps(sorted(found)))
            raise GroupMessageError("; ".join(found.values()))

    def _exchange(self, segment: int, state: Mapping[int, Array]) -> _Given:
        """Send the own record to the next member; returns that of the one before."""
        steps = (self.task.first_step(segment), self.task.segment_steps(segment))
        schedule = self.schedules[self.before]
        own, theirs = self._descriptors(self.rank), self._descriptors(self.before)
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
            given.end = {number: aligned(theirs[number]) for number in self.divided.parts[self.before].state}
            arriving[_SENT_LOG_TAG] = given.sent_log
            arriving.update({_END_TAG + number: array for number, array in given.end.items()})
        works = [dist.irecv(bytes_of(a), src=self.before, tag=tag) for tag, a in sorted(arriving.items()) if a.size]
        works += [dist.isend(bytes_of(a), dst=self.next, tag=tag) for tag, a in sorted(sending.items()) if a.size]
        wait_all(works)
        return given

    def _descriptors(self, stage: int) -> dict[int, TensorDescriptor]:
        part = self.divided.parts[stage]
        return {number: self.task.program.state[number] for number in sorted({*part.state, *part.copies})}

    def _statements(self, segment: int) -> tuple[list[Statement], list[Statement]]:
        """What the judged member's neighbours signed for it, and what it signed itself."""
        end = self.task.first_step(segment) + self.task.segment_steps(segment)
        prefix, name = f"statement/{self.orders['generation']}/{end}", self.members[self.before]
        to, of = links(self.schedules[self.before], self.members)

        def read(sender: str, receiver: str, direction: str) -> Statement:
            return Statement.from_json(self.store.get(f"{prefix}/{sender}/{receiver}/{direction}").decode(), sender)

        return (
            [read(other, name, direction) for direction, other in of],
            [read(name, other, direction) for direction, other in to],
        )

    def _verdict(self, key: str, member: str, limit: float) -> str:
        while not self.store.check([key]):
            if time.monotonic() > limit:
                raise MemberFailedError(f"nobody gave a verdict on {member!r} in time; its judge is lost")
            time.sleep(0.05)
        return str(self.store.get(key).decode())

    def _keep_evidence(self, segment: int, name: str, verdict: str, given: _Given) -> None:
        """What anybody needs to judge again: start state, messages, and all signed statements."""
        place = self._evidence_path(segment)
        place.mkdir(exist_ok=True)
        write_tensors(place / "start.safetensors", [given.start[number] for number in sorted(given.start)])
        # Another file: a finding may hold the one before under its own name.
        (place / "messages.bin").unlink(missing_ok=True)
        given.log.tofile(place / "messages.bin")
        if given.sent_log is not None:
            given.sent_log.tofile(place / "sent.bin")
        if given.end is not None:
            write_tensors(place / "end.safetensors", [given.end[number] for number in sorted(given.end)])
        document: dict[str, Any] = {
            "member": name, "segment": segment, "verdict": verdict, "tensors": sorted(given.start),
        }  # fmt: skip
        if not self.engine.is_exact:
            received, sent = self._statements(segment)
            document["received"] = [statement.to_json() for statement in received]
            document["sent"] = [statement.to_json() for statement in sent]
        (place / "verdict.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    def _keep_finding(self, segment: int, name: str, signed: SignedStage) -> None:
        """What takes a false statement to court."""
        evidence = self._evidence_path(segment)
        write_dossier(
            self.folder / FINDINGS, name, self.before, self.memory, signed, Path(self.orders["plan"]),
            evidence / "start.safetensors", evidence / "messages.bin",
        )  # fmt: skip

    def _evidence_path(self, segment: int) -> Path:
        return self.folder / f"evidence-{segment:06d}"
