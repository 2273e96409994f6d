"""The process that trains a market task with local steps for one member during one generation of a group.

Members train side by side what the task's program does one after the other (`assay.group.local_steps`): each the runs
of its own, whole segments. After every round they give each other a quantised message, from which all go on at once;
the replica that a run ended in travels while the next round is trained. Out of these parts every member composes the
checkpoints of the sequential run. So whoever trained a segment answers for it alone: it signs for it
(`segment_statements`), and some segments, drawn by the state they end in, are replayed by another member before anybody
keeps the round.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.distributed as dist
from torch._C._distributed_c10d import Store

from assay.commitments.execution import state_root
from assay.engine.cpu.device import CpuDevice
from assay.group.errors import GroupMessageError, MemberFailedError
from assay.group.execution.audit import is_audited, judge_distance
from assay.group.execution.journals import TRAINED, Journals, bytes_of, wait_all
from assay.group.execution.partition import member_order
from assay.group.execution.receipts import RECEIPTS, ReceiptBook, Receipts
from assay.group.execution.run import AUDIT_RATE, PROOF, member_folder
from assay.group.execution.segment_statements import SegmentStatements
from assay.group.execution.stage_records import FINDINGS, RECORDS, RecordFiles, drop_expired, write_dossier
from assay.group.execution.stage_statements import SignedStage, Signer
from assay.group.execution.task_files import read_task
from assay.group.generation import (
    inject,
    join_generation,
    ordered_fault,
    report_slow_members,
    run_trainer,
    wait_until_ready,
)
from assay.group.local_steps import Composer, LocalMember, LocalPart, Message, empty_replica, message_bytes
from assay.group.plan import read_plan
from assay.program.local_schedule import LocalSteps
from assay.training.canonical import CanonicalRun
from assay.training.checkpoint import CheckpointFolder
from assay.training.task import TrainingTask

_MESSAGE_TAG = 5_000_000
_PART_TAG = 6_000_000
_MOST_TENSORS = 10_000
"""Of a part: room for that many between the tags of two."""
BEAT_SECONDS = 1.0
"""How often a member that computes says that it is there. Each time costs a round trip to the meeting place."""
_GARBAGE = np.uint8(0x10)


def assign_runs(runs: int, owners: Sequence[str], members: Sequence[str]) -> tuple[int, ...]:
    """Who trains which of a round's runs, as ranks in `members`: the one that the group agreed on (`owners`, by run, or
    nobody in particular), and, where it is not there, whoever has the fewest."""
    found: dict[int, int] = {}
    for run, name in enumerate(owners):
        if name in members:
            found[run] = members.index(name)
    for run in range(runs):
        if run not in found:
            ranks = list(found.values())
            found[run] = min(range(len(members)), key=lambda rank: (ranks.count(rank), rank))
    return tuple(found[run] for run in range(runs))


def train_generation(orders: dict[str, Any]) -> dict[str, Any]:
    """Train this member's runs from the newest round that a member has to the last; returns the report."""
    plan = read_plan(Path(orders["plan"]))
    members, generation, settings = member_order(plan), int(orders["generation"]), orders.get("settings", {})
    local = LocalSteps(**orders["arguments"]["local_steps"])
    store = join_generation(orders, members)
    task, _ = read_task(orders["arguments"]["task"])
    place = member_folder(Path(orders["directory"]), orders["name"])
    folder = CheckpointFolder(place / PROOF, task.program.state)
    folder.claim(task.fingerprint.hex())
    runs = assign_runs(local.members, settings.get("owners", ()), members)
    rank = members.index(orders["name"])
    own = {run: LocalMember(task, local, run) for run in _of(runs, rank)}
    wait_until_ready(store, generation, orders["name"], members, float(orders["timeout_seconds"]))
    journals = Journals(store, generation, members, task.program, folder, len(members))
    roots, _ = journals.catch_up(task.state)
    # A round counts when all of it is there.
    done = (len(roots) - 1) // local.members
    roots = roots[: done * local.members + 1]
    # What follows is written again: the journal must not say that it is there.
    folder.note(done * local.members, roots[-1])
    group = _Group(orders, store, task, local, members, runs, place, bool(plan.spares))
    training = _Rounds(group, own, folder, roots)
    training.train(done)
    dist.destroy_process_group()
    return {
        "stage": rank,
        "generation": generation,
        "not_shared": "",
        "first_step": done * local.round_steps,
        "loss": training.loss(),
        "roots": [root.hex() for root in training.roots],
        "keeper": True,
        "proof": str(folder.folder),
        "sent_bytes": training.sent_bytes,
        "step_seconds": training.step_seconds,
        "round_seconds": training.round_seconds,
    }


def _of(runs: Sequence[int], rank: int) -> list[int]:
    return [run for run, trainer in enumerate(runs) if trainer == rank]


@dataclass
class _Group:
    """The members of a generation, who trains what, and how they hear of each other."""

    orders: dict[str, Any]
    store: Store
    task: TrainingTask
    local: LocalSteps
    members: tuple[str, ...]
    runs: tuple[int, ...]
    place: Path
    has_spares: bool

    def __post_init__(self) -> None:
        self.generation, self.name = int(self.orders["generation"]), str(self.orders["name"])
        self.rank = self.members.index(self.name)
        self.others = [rank for rank in range(len(self.members)) if rank != self.rank]
        self.patience = float(self.orders["timeout_seconds"])
        self._next_beat, self._beats = 0.0, 0

    def trainer_of(self, segment: int) -> int:
        """The rank that trains a segment."""
        return self.runs[segment % self.local.members]

    def beat(self, step: int | None = None) -> None:
        """Say that this member is there, and which step it has reached, once in a while."""
        now = time.monotonic()
        if now < self._next_beat:
            return
        self._next_beat, self._beats = now + BEAT_SECONDS, self._beats + 1
        self.store.set(f"beat/{self.generation}/{self.name}", str(self._beats))
        if step is not None:
            self.store.set(f"progress/{self.name}", str(step))

    def wait_for(self, key: str, rank: int) -> bytes:
        """What a member leaves under a key; it may take its time as long as it is heard of."""
        beat = f"beat/{self.generation}/{self.members[rank]}"
        limit, seen = time.monotonic() + self.patience, b""
        while not self.store.check([key]):
            if self.store.check([beat]) and (now := self.store.get(beat)) != seen:
                limit, seen = time.monotonic() + self.patience, now
            if time.monotonic() > limit:
                raise MemberFailedError(f"nothing is heard of {self.members[rank]!r} for {self.patience:.0f} s")
            time.sleep(0.02)
        return bytes(self.store.get(key))


@dataclass
class _Travelling:
    """A round's parts on their way; `stated` are the hashes that their trainers gave beforehand."""

    number: int
    parts: dict[int, LocalPart]
    stated: Mapping[int, tuple[str, str]]
    works: list[dist.Work | None]


class _Rounds:
    """Trains rounds, and keeps them."""

    def __init__(
        self, group: _Group, own: dict[int, LocalMember], folder: CheckpointFolder, roots: list[bytes]
    ) -> None:
        self.group, self.own, self.folder, self.roots = group, own, folder, roots
        self.task, self.local = group.task, group.local
        keys, settings = group.orders.get("keys"), group.orders.get("settings", {})
        self.rate = float(settings.get("audit_rate", AUDIT_RATE)) if len(group.members) > 1 else 0.0
        self.signer = Signer.of(keys) if keys else None
        self.statements: SegmentStatements | None = None
        self.receipts: Receipts | None = None
        if self.signer is not None:
            self.statements = SegmentStatements(group.store, self.signer, self.task, group.generation)
            book = ReceiptBook(group.place / RECEIPTS)
            self.receipts = Receipts(group.store, self.signer, group.members, group.rank, group.generation, book)
            self.receipts.catch_up()
        self.sent_bytes, self.step_seconds = 0, math.inf
        self.round_seconds = math.inf  # the least between the beginnings of two rounds
        self._travelling: _Travelling | None = None
        self._is_garbage = False

    def train(self, done: int) -> None:
        """All rounds after the first `done`."""
        state = self.folder.read(done * self.local.members, self.roots[-1])
        self.composer = Composer(self.task, self.local, state, done * self.local.members)
        for member in self.own.values():
            member.resume(done, state)
        rounds, before = self.task.steps // self.local.round_steps, -math.inf
        for number in range(done, rounds):
            started = time.monotonic()
            self.round_seconds, before = min(self.round_seconds, started - before), started
            parts = {run: self._trained(member) for run, member in self.own.items()}
            seconds = time.monotonic() - started
            if self.own:
                self.step_seconds = min(self.step_seconds, seconds / (len(self.own) * self.task.interval))
            stated = self._state(number, parts)
            messages = self._exchange(number, parts, stated)
            for member in self.own.values():
                member.finish_round(messages)
            self._settle()
            self._send(number, parts, messages, stated)
            orders = self.group.orders
            report_slow_members(
                self.group.store, self.group.generation, self.group.members, seconds / max(1, len(self.own)),
                float(orders.get("slow_factor", 0)), self.group.has_spares and number + 1 < rounds,
            )  # fmt: skip
        self._settle()

    def loss(self) -> float | None:
        """The loss of the last step taken here."""
        return next((member.run.loss() for member in self.own.values()), None)

    # ---- Training and telling ---------------------------------------------------------------------------------------

    def _trained(self, member: LocalMember) -> LocalPart:
        self._is_garbage = False
        part = member.inner_run(self._begin_step)
        if self._is_garbage:
            part.message[:] ^= _GARBAGE
        return part

    def _begin_step(self, step: int) -> None:
        kind = ordered_fault(self.group.orders, step)
        if kind == "garbage":
            self._is_garbage = True
        elif kind:
            self.group.store.set(f"progress/{self.group.name}", str(step))
            inject(kind)
        self.group.beat(step)

    def _state(self, number: int, parts: Mapping[int, LocalPart]) -> dict[int, tuple[str, str]]:
        """Tell what the own runs came to, and hear what all others' did, as hashes: nobody tells two members two
        things."""
        prefix = f"run/{self.group.generation}/{number}"
        for run, part in parts.items():
            self.group.store.set(f"{prefix}/{run}", json.dumps([_digest([part.message]), _digest(part.replica)]))
        found = {}
        for run, rank in enumerate(self.group.runs):
            try:
                message, replica = json.loads(self.group.wait_for(f"{prefix}/{run}", rank))
            except (ValueError, TypeError) as error:
                raise GroupMessageError(
                    f"{self._name(rank)} states nothing of its run ({error}); exclude it"
                ) from error
            found[run] = (str(message), str(replica))
        return found

    def _exchange(
        self, number: int, parts: Mapping[int, LocalPart], stated: Mapping[int, tuple[str, str]]
    ) -> list[Message]:
        """Everybody's messages of a round, by run. Raises GroupMessageError naming who sent another than it stated."""
        messages: dict[int, Message] = {run: part.message for run, part in parts.items()}
        works: list[dist.Work | None] = []
        for run, rank in enumerate(self.group.runs):
            if run not in messages:
                messages[run] = np.empty(message_bytes(self.task.program, self.local), np.uint8)
                works.append(dist.irecv(bytes_of(messages[run]), src=rank, tag=_MESSAGE_TAG + run))
        for run, part in parts.items():
            works += [dist.isend(bytes_of(part.message), dst=o, tag=_MESSAGE_TAG + run) for o in self.group.others]
            self.sent_bytes += len(self.group.others) * part.message.nbytes
        wait_all(works)
        for run, rank in enumerate(self.group.runs):
            if _digest([messages[run]]) != stated[run][0]:
                raise GroupMessageError(
                    f"{self._name(rank)} sent another message in round {number} than it stated; exclude it"
                )
        return [messages[run] for run in range(self.local.members)]

    def _send(
        self, number: int, parts: Mapping[int, LocalPart], messages: Sequence[Message],
        stated: Mapping[int, tuple[str, str]],
    ) -> None:  # fmt: skip
        """Let the replicas of a round travel."""
        everything, works = dict(parts), list[dist.Work | None]()
        for run, rank in enumerate(self.group.runs):
            tag = _PART_TAG + run * _MOST_TENSORS
            if run in parts:
                arrays = parts[run].replica
                for other in self.group.others:
                    works += [dist.isend(bytes_of(a), dst=other, tag=tag + n) for n, a in enumerate(arrays) if a.size]
                self.sent_bytes += len(self.group.others) * sum(array.nbytes for array in arrays)
            else:
                part = everything[run] = LocalPart(empty_replica(self.task.program), messages[run])
                works += [dist.irecv(bytes_of(a), src=rank, tag=tag + n) for n, a in enumerate(part.replica) if a.size]
        self._travelling = _Travelling(number, everything, stated, works)

    # ---- Keeping ----------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Keep the round whose parts were on their way: compose it, sign for it, have some of it replayed."""
        coming, self._travelling = self._travelling, None
        if coming is None:
            return
        wait_all(coming.works)
        first = coming.number * self.local.members
        segments = range(first, first + self.local.members)
        for run, segment in enumerate(segments):
            part, trainer = coming.parts[run], self.group.trainer_of(segment)
            if _digest(part.replica) != coming.stated[run][1]:
                raise GroupMessageError(
                    f"{self._name(trainer)} sent another replica in round {coming.number} than it stated; exclude it"
                )
            self.composer.add(part)
            root = self.folder.put(segment + 1, self.composer.state, threads=None)  # nothing else computes now
            agreed = self.group.store.compare_set(f"round/{self.group.generation}/{segment}", "", root.hex()).decode()
            if agreed != root.hex():
                raise GroupMessageError(
                    f"segment {segment} ends in {root.hex()[:16]} here and in {agreed[:16]} elsewhere in the group, "
                    "from the same parts: use one version of assay on all members"
                )
            self.roots.append(root)
            self.group.beat()
        signed = self._sign(segments)
        self._audit([s for s in segments if self.rate > 0 and is_audited(self.roots[s + 1], self.rate)], signed)
        for segment in segments:
            if self.receipts is not None:
                self.receipts.exchange(segment)
            root = self.roots[segment + 1]
            self.group.store.set(f"checkpoint/{segment + 1}", root.hex())
            self.group.store.set(TRAINED, "trained")
            self.folder.note(segment + 1, root)

    def _sign(self, segments: range) -> dict[int, SignedStage]:
        """Sign for the own segments; what all have signed, by segment. A record of each is kept."""
        if self.statements is None or self.signer is None:
            return {}
        drop_expired(self.group.place / "audit" / RECORDS, self.signer.now)
        for segment in segments:
            if self.group.trainer_of(segment) == self.group.rank:
                self.statements.sign(segment, self.roots[segment], self.roots[segment + 1], self._keep)
        signed = {}
        for segment in segments:
            rank = self.group.trainer_of(segment)
            found = self.statements.check(
                segment, self.group.members[rank], self.roots[segment], self.roots[segment + 1]
            )
            if rank != self.group.rank:
                self._keep(found)
            signed[segment] = found
        return signed

    def _keep(self, signed: SignedStage) -> None:
        """Put a record of what a segment's member signed on disk."""
        segment = signed.work.segment
        name, run = self.group.members[self.group.trainer_of(segment)], segment % self.local.members
        write_dossier(self.group.place / "audit" / RECORDS, name, run, (), signed, self._files(segment))

    def _files(self, segment: int) -> RecordFiles:
        return RecordFiles(Path(self.group.orders["plan"]), self.folder.path(segment), None)

    def _audit(self, segments: Sequence[int], signed: Mapping[int, SignedStage]) -> None:
        """Have segments replayed, each by another member than the one that trained it. What one finds false, all look
        at: who is wrong, the trainer or its judge, is then known to everybody."""
        group = self.group
        judges = {
            segment: (group.trainer_of(segment) + judge_distance(self.roots[segment + 1], len(group.members)))
            % len(group.members)
            for segment in segments
        }
        prefix = f"audit/{group.generation}"
        for segment, judge in judges.items():
            if judge == group.rank:
                verdict = "true" if self._is_true(segment) else "false"
                if verdict == "false" and segment in signed:
                    name, run = group.members[group.trainer_of(segment)], segment % self.local.members
                    folder = group.place / "audit" / FINDINGS
                    write_dossier(folder, name, run, (), signed[segment], self._files(segment))
                group.store.set(f"{prefix}/{segment}", verdict)
        for segment, judge in judges.items():
            if group.wait_for(f"{prefix}/{segment}", judge) == b"true":
                continue
            is_true = self._is_true(segment)
            guilty = judge if is_true else group.trainer_of(segment)
            group.store.set(f"guilty/{group.generation}", json.dumps([group.members[guilty]]))
            if is_true:
                raise GroupMessageError(f"{self._name(judge)} calls segment {segment} false, which is true; excluded")
            raise GroupMessageError(
                f"{self._name(guilty)} trained segment {segment} to another state than its steps lead to; excluded"
            )

    def _is_true(self, segment: int) -> bool:
        """Whether a segment ends where it is said to."""
        run = CanonicalRun(self.task.program, self.task.data, self.task.seed, CpuDevice())
        run.load(self.folder.read(segment, self.roots[segment]))
        first = self.task.first_step(segment)
        for step in range(first, first + self.task.segment_steps(segment)):
            run.step(step)
            self.group.beat()
        return state_root(run.state) == self.roots[segment + 1]

    def _name(self, rank: int) -> str:
        return repr(self.group.members[rank])


def _digest(arrays: Sequence[npt.NDArray[Any]]) -> str:
    hashed = sha256()
    for array in arrays:
        hashed.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
    return hashed.hexdigest()


if __name__ == "__main__":
    run_trainer(train_generation)
