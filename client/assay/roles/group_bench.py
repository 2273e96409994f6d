"""A member's workbench: training is done together, everything else as by anyone; members sign for their segments."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from eth_account import Account
from torch._C._distributed_c10d import TCPStore

from assay.engine.native.placement import native_device
from assay.group.errors import GroupMessageError, MemberFailedError, PlacementError
from assay.group.execution.receipts import RECEIPTS, ReceiptBook
from assay.group.execution.run import (
    PROOF,
    Seat,
    member_folder,
    run_group_training,
    trains_side_by_side,
)
from assay.group.execution.stage_records import FINDINGS, RECORDS, StageDossier, dossiers_in, find_dossier
from assay.group.plan import GroupPlan
from assay.market.presence import Receipt
from assay.market.records import TaskRecord
from assay.market.types import StageWork
from assay.roles.bench import Workbench
from assay.roles.group_inquiry import Ground, inquire, latest_record, replay_alone
from assay.roles.group_work import Duty, SignedWork, exchange, sign_segments
from assay.state import StateFolder
from assay.storage.store import Store
from assay.training.checkpoint import CheckpointFolder
from assay.training.replay import Replayer
from assay.training.task import Mode
from assay.training.train import Proof

logger = logging.getLogger(__name__)


WORK_NAME = "work.json"


class GroupBench(Workbench):
    """Trains with the group of `plan`, from `seat`. With a `duty`, owners sign for their segments."""

    duty: Duty | None = None

    clock: Callable[[], float] = staticmethod(time.time)
    """The chain's time."""

    def __init__(self, folder: Path, stores: Sequence[Store], state: StateFolder, plan: GroupPlan, seat: Seat) -> None:
        super().__init__(folder, stores, state)
        self.plan, self.seat = plan, seat
        self._damaged: set[str] = set()
        self._proofs: dict[int, Proof] = {}
        self._receipts: dict[int, tuple[tuple[int, int], tuple[Receipt, ...]]] = {}  # by task, with the file's state

    def signed_work(self, task: TaskRecord) -> SignedWork | None:
        """What the owners of a task's segments have signed; None before training is done, or where nobody signs."""
        return SignedWork.read(self.place(task.id) / "group" / WORK_NAME)

    def member_account(self, name: str) -> str:
        return self.seat.addresses.get(name, "")

    def _name_of(self, account: str) -> str:
        return next(name for name, address in self.seat.addresses.items() if address == account)

    def stage_findings(self, task: TaskRecord) -> list[StageDossier]:
        return list(dossiers_in(self.audit_folder(task) / FINDINGS, self._skip))

    def _skip(self, error: GroupMessageError) -> None:
        """Tell of a damaged finding, once."""
        if str(error) not in self._damaged:
            self._damaged.add(str(error))
            logger.warning("a finding is left out", extra={"error": str(error)})

    def stage_dossier(self, task: TaskRecord, work: StageWork) -> StageDossier | None:
        return find_dossier((self.audit_folder(task) / RECORDS, self.audit_folder(task) / FINDINGS), work)

    def receipts(self, task: TaskRecord) -> Sequence[Receipt]:
        path = member_folder(self.place(task.id) / "group", self.seat.name) / RECEIPTS
        if not path.exists():
            return ()
        found = path.stat()
        state = found.st_mtime_ns, found.st_size
        known = self._receipts.get(task.id)
        if known is None or known[0] != state:
            known = self._receipts[task.id] = state, tuple(ReceiptBook(path).read())
        return known[1]

    def audit_folder(self, task: TaskRecord) -> Path:
        """Where this member keeps what judges stages."""
        return member_folder(self.place(task.id) / "group", self.seat.name) / "audit"

    def run_training(self, task: TaskRecord) -> Proof:
        """Train a task together, or finish what was begun. Every member keeps the whole proof, since any of them may
        have to register it. Raises `MemberFailedError` where the group went on without this member."""
        everybody = len(self.plan.members) + len(self.plan.spares)
        seat = replace(
            self.seat, task_id=task.id, keepers=everybody, device=self.device, clock_offset=self.clock() - time.time()
        )  # fmt: skip
        if self.duty is not None:
            seat = replace(seat, chain_id=self.duty.chain_id, group=self.duty.group)
            seat = replace(seat, owners=self._owners())
        bundle = self.bundle(task)
        graph = bundle.graph if bundle.task.mode is Mode.TOLERANT else None
        place = self.place(task.id) / "group"
        done = run_group_training(bundle.task, self.plan, seat, place, graph, bundle.manifest.local_steps)
        logger.info(
            "trained together",
            extra={"task": f"{task.id:#x}", "members": ",".join(done.members), "generations": done.generations},
        )
        if done.proof is None:
            raise MemberFailedError(f"{seat.name!r} does not hold the proof of {task.id:#x}; another member registers")
        if self.duty is not None and self.duty.owners:
            self._exchange_work(task, done.proof, self.duty, [seat.addresses[name] for name in done.members])
        return done.proof

    def _owners(self) -> tuple[str, ...]:
        """The members that answer for the segments in turn, by name."""
        return () if self.duty is None else tuple(self._name_of(owner) for owner in self.duty.owner_accounts)

    def cannot_train(self, task: TaskRecord) -> str:
        try:
            trains_side_by_side(self.plan, self._owners(), self.bundle(task).manifest.local_steps)
        except PlacementError as error:
            logger.warning("the group cannot train a task", extra={"task": f"{task.id:#x}", "why": str(error)})
            return str(error)
        return ""

    def trained_roots(self, task: TaskRecord) -> Sequence[bytes]:
        return self._trained(task).roots

    def _trained(self, task: TaskRecord) -> Proof:
        """The proof that the group made, as far as this member holds it. Once it is whole it stays as it is."""
        known = self._proofs.get(task.id)
        if known is not None:
            return known
        folder = member_folder(self.place(task.id) / "group", self.seat.name) / PROOF
        roots = tuple(entry.root for entry in CheckpointFolder(folder, ()).entries()) if folder.exists() else ()
        if len(roots) != task.segments + 1:
            return Proof(folder, ())
        self._proofs[task.id] = Proof(folder, roots)
        return self._proofs[task.id]

    def inquire(self, task: TaskRecord, segment: int) -> bool:
        proof, audit = self._trained(task), self.audit_folder(task)
        own = latest_record(audit, segment)
        if not proof.roots or own is None or own.work.until < self.clock():
            logger.warning(
                "who was wrong in a segment that failed the task cannot be found out from here: nothing is kept of it "
                "(limits.record_hours says for how long)",
                extra={"task": f"{task.id:#x}", "segment": segment},
            )
            return True
        bundle = self.bundle(task)
        graph = None if task.posting.exact else bundle.graph
        device = native_device(self.device) if graph is not None else "cpu"
        ground = Ground(task.id, bundle.task, graph, proof, audit, device)
        if own.is_alone:
            replay_alone(ground, own, self.seat.name)
            return True
        limit = self.seat.timeout_seconds
        found = inquire(ground, segment, own, lambda: self._board(limit), self.stores, limit)
        return bool(found.false) or not found.unknown

    def _board(self, limit: float) -> TCPStore:
        return TCPStore(self.seat.store_host, self.seat.store_port, is_master=False, timeout=timedelta(seconds=limit))

    def _exchange_work(self, task: TaskRecord, proof: Proof, duty: Duty, present: Sequence[str]) -> None:
        """Sign for the own segments, after replaying one of them, and keep what all owners that are here signed."""
        path = self.place(task.id) / "group" / WORK_NAME
        if path.exists():
            return
        signer = Account.from_key(self.seat.private_key)
        mine = duty.segments_of(signer.address, len(proof.roots) - 1)
        if mine:
            self._check_segment(task, proof, secrets.choice(mine))
        signed = sign_segments(duty, task.id, mine, proof.roots, signer)
        limit = self.seat.grace_seconds
        try:
            work = exchange(self._board(limit), duty, task.id, signed, proof.roots, signer.address, present, limit)
        except RuntimeError as error:  # the store's client reports a lost connection this way
            logger.warning("the group's meeting place is gone", extra={"task": f"{task.id:#x}", "error": str(error)})
            work = SignedWork(proof.roots, signed)
        work.write(path)
        missing = [segment for segment in range(len(proof.roots) - 1) if segment not in work.signatures]
        if missing:
            logger.warning(
                "segments that no owner signed for: if one fails the task, all lose in proportion",
                extra={"task": f"{task.id:#x}", "segments": ",".join(map(str, missing))},
            )

    def _check_segment(self, task: TaskRecord, proof: Proof, segment: int) -> None:
        """Replay a segment before signing for it. Raises `GroupMessageError` where the group's proof is false there."""
        run = self.bundle(task).task
        folder = CheckpointFolder(proof.folder, run.program.state)
        start, end = folder.read(segment, proof.roots[segment]), folder.read(segment + 1, proof.roots[segment + 1])
        replay = Replayer(run).replay(segment, start, 0, None if task.posting.exact else end, self.thresholds(task))
        if not replay.passes(proof.roots[segment + 1]):
            raise GroupMessageError(
                f"segment {segment} of the group's proof of {task.id:#x} does not hold when it is replayed: this "
                "member does not sign for it; find out in the members' audits who sent garbage"
            )


def group_bench(plan: GroupPlan, seat: Seat) -> Callable[[Path, Sequence[Store], StateFolder], GroupBench]:
    """A maker of workbenches for `open_node`."""
    return lambda folder, stores, state: GroupBench(folder, stores, state, plan, seat)
