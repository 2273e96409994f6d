"""The ring of an audited segment: every member hands its record to the next, judges the one before, and all learn the
verdicts before anybody keeps the checkpoint."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from assay.engine.device import Device
from assay.group.errors import GroupMessageError, MemberFailedError
from assay.group.execution.audit import StageJudge, StageRecord
from assay.group.execution.exchange import links
from assay.group.execution.keeping import bytes_of, wait_all
from assay.group.execution.message_log import log_words, read_log
from assay.group.execution.partition import Partition
from assay.group.execution.schedule import StageSchedule
from assay.group.execution.stage import Words
from assay.group.transcript import Statement
from assay.program.operator import Array, TensorDescriptor
from assay.training.canonical import aligned
from assay.training.checkpoint import read_tensors, write_tensors
from assay.training.task import TrainingTask

_START_TAG = 3_000_000
_LOG_TAG = 3_999_999

PATIENCE = 5.0
"""A verdict may take so many times as long as the segment took, beyond the group's usual time limit."""


class AuditRing:
    """One member's part in the audits of one generation. Rank and stage number are the same."""

    def __init__(
        self, store: Store, orders: dict[str, Any], task: TrainingTask, divided: Partition,
        schedules: Sequence[StageSchedule], members: Sequence[str], folder: Path, device: Device,
    ) -> None:  # fmt: skip
        self.store, self.orders, self.task, self.divided = store, orders, task, divided
        self.schedules, self.members, self.folder, self.device = schedules, members, folder, device
        self.rank = dist.get_rank()
        self.next, self.before = (self.rank + 1) % len(members), (self.rank - 1) % len(members)
        self._judge: StageJudge | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def log_path(self) -> Path:
        """Where this member logs what it receives."""
        return self.folder / "messages.bin"

    def begin_segment(self, held: Mapping[int, Array]) -> None:
        """Put the state that a segment starts from on disk."""
        write_tensors(self.folder / "start.safetensors", [held[number] for number in sorted(held)])

    def audit(
        self, segment: int, seconds: float, start_roots: Sequence[bytes], ends: Sequence[Mapping[int, bytes]]
    ) -> None:
        """Exchange records, judge, and wait for all verdicts. `seconds`: how long the segment took.

        `ends`: the roots that each member stated for its tensors. Raises GroupMessageError naming every member that an
        audit found to cheat; they are noted as guilty, and the next generation is planned without them.
        """
        start, log = self._exchange(segment)
        name = self.members[self.before]
        keys = self.orders["keys"]
        if self._judge is None:
            schedule = self.schedules[self.before]
            self._judge = StageJudge(self.task, self.divided, schedule, self.members, self.device)
        verdict = ""
        try:
            record = StageRecord(start, log, *self._statements(segment), ends[self.before])
            self._judge.judge(segment, record, int(keys["task"]), keys["addresses"], start_roots)
        except GroupMessageError as error:
            verdict = str(error)
            self._keep_evidence(segment, name, verdict, start, log)
        prefix = f"audit/{self.orders['generation']}/{segment}"
        self.store.set(f"{prefix}/{name}", verdict or "honest")
        limit = time.monotonic() + float(self.orders["timeout_seconds"]) + PATIENCE * seconds
        verdicts = {member: self._verdict(f"{prefix}/{member}", member, limit) for member in self.members}
        found = {member: text for member, text in verdicts.items() if text != "honest"}
        if found:
            self.store.set(f"guilty/{self.orders['generation']}", json.dumps(sorted(found)))
            raise GroupMessageError("; ".join(found.values()))

    def _exchange(self, segment: int) -> tuple[dict[int, Array], Words]:
        """Send the own record to the next member; returns the start state and log of the one before."""
        own = self._descriptors(self.rank)
        mine = read_tensors(self.folder / "start.safetensors", list(own.values()), "the segment's start")
        log = read_log(self.log_path)
        steps = self.task.segment_steps(segment)
        theirs = self._descriptors(self.before)
        start = {number: aligned(descriptor) for number, descriptor in theirs.items()}
        received = np.empty(log_words(self.schedules[self.before], steps), np.uint32)
        works = [
            dist.irecv(bytes_of(array), src=self.before, tag=_START_TAG + number) for number, array in start.items()
        ]
        works += [
            dist.isend(bytes_of(array), dst=self.next, tag=_START_TAG + number)
            for number, array in zip(own, mine, strict=True)
        ]
        if received.size:
            works.append(dist.irecv(bytes_of(received), src=self.before, tag=_LOG_TAG))
        if log.size:
            works.append(dist.isend(bytes_of(log), dst=self.next, tag=_LOG_TAG))
        wait_all(works)
        return start, received

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

    def _keep_evidence(self, segment: int, name: str, verdict: str, start: Mapping[int, Array], log: Words) -> None:
        """What anybody needs to judge again: start state, received messages, and all signed statements."""
        place = self.folder / f"evidence-{segment:06d}"
        place.mkdir(exist_ok=True)
        write_tensors(place / "start.safetensors", [start[number] for number in sorted(start)])
        log.tofile(place / "messages.bin")
        received, sent = self._statements(segment)
        document = {
            "member": name,
            "segment": segment,
            "verdict": verdict,
            "tensors": sorted(start),
            "received": [statement.to_json() for statement in received],
            "sent": [statement.to_json() for statement in sent],
        }
        (place / "verdict.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
