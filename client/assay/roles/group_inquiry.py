"""Members find out among themselves who was wrong in a segment that failed their task.

Each leaves what it received in the segment (of a tolerant task also what it sent) in its store, and where that lies on
the group's board; takes the others'; judges every stage (`group.execution.inquiry`); and keeps what it finds false
where its audits keep theirs, so that it is brought to court like theirs.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.errors import AssayError
from assay.group.errors import GroupMessageError, MemberFailedError
from assay.group.execution.engines import StageEngine, engine_of
from assay.group.execution.inquiry import AgreedSegment, FalseStage, Inquest, Inquiry, StageLogs
from assay.group.execution.kept_statements import read_statements
from assay.group.execution.message_log import log_words, read_log
from assay.group.execution.partition import Partition, member_order
from assay.group.execution.schedule import StageSchedule
from assay.group.execution.stage_program import links_of
from assay.group.execution.stage_records import (
    FINDINGS,
    MESSAGES,
    PLAN,
    RECORDS,
    SENT,
    START,
    RecordFiles,
    StageDossier,
    dossiers_in,
    write_dossier,
)
from assay.group.execution.stage_statements import SignedStage
from assay.group.plan import read_plan
from assay.program.graph import Graph
from assay.roles.group_work import POLL_SECONDS, Board
from assay.storage.store import Store
from assay.tasks.references import FileReference, decode_locations, fetch_file, put_file
from assay.training.checkpoint import CheckpointFolder, write_tensors
from assay.training.task import TrainingTask
from assay.training.train import Proof

logger = logging.getLogger(__name__)

INQUIRIES = "inquiries"
"""Folder of an audit's, of what members handed over."""


@dataclass(frozen=True)
class Ground:
    """What an inquiry stands on: the task, the proof that the group made, and where this member keeps what judges
    stages. `task_id` names the task on the board, `device` is where a tolerant one is trained."""

    task_id: int
    task: TrainingTask
    graph: Graph | None
    proof: Proof
    audit: Path
    device: str


def latest_record(audit: Path, segment: int) -> StageDossier | None:
    """The own record of a segment, or that of the member that trained it alone; of the last time, where it was trained
    several times. None where none is left."""
    found = [record for record in dossiers_in(audit / RECORDS, _skip) if record.work.segment == segment]
    return max(found, key=lambda record: record.work.until, default=None)


def inquire(
    ground: Ground, segment: int, own: StageDossier, meet: Callable[[], Board], stores: Sequence[Store],
    limit_seconds: float,
) -> Inquest:  # fmt: skip
    """Hand over what was kept of a segment, wait up to a limit for what the others kept, and judge all of it. `meet`
    opens the group's board.

    Raises `AssayError` where what is needed is not there, `MemberFailedError` where the board is lost.
    """
    plan = read_plan(own.folder / PLAN)
    members = member_order(plan)
    engine = engine_of(ground.task, ground.graph, plan, ground.device, 1)
    divided = engine.divide_plan(plan, own.memory)
    signed = read_statements(own.folder, links_of(engine.program, divided))
    place = ground.audit / INQUIRIES / f"{segment:06d}"
    mine = _handed_over(own, stores[0], engine.is_exact)
    try:
        told = _told(meet(), f"inquiry/{ground.task_id:x}/{segment}", own, mine, members, limit_seconds)
    except RuntimeError as error:  # the store's client reports a lost connection this way
        raise MemberFailedError(
            f"the group's meeting place is gone ({error}), where members tell each other what they kept: start `assay "
            "group meet` there again"
        ) from error
    given = {own.stage: _own_logs(own, engine.is_exact)}
    schedules = engine.schedules(divided)
    steps = (ground.task.first_step(segment), ground.task.segment_steps(segment))
    for stage, content in told.items():
        name = members[stage]
        logs = _taken(content, name, schedules[stage], steps, engine.is_exact, place / name, stores)
        if logs is not None:
            given[stage] = logs
    states = CheckpointFolder(ground.proof.folder, ground.task.program.state)
    roots = ground.proof.roots
    agreed = AgreedSegment(
        segment, states.read(segment, roots[segment]), states.read(segment + 1, roots[segment + 1]), signed
    )
    found = Inquiry(ground.task, engine, divided, members, agreed).hold(given)
    for false in found.false:
        logger.warning("%s", false.verdict, extra={"task": f"{ground.task_id:#x}", "segment": segment})
        if false.stage != own.stage:
            _keep_finding(ground, own, engine, divided, members, agreed, false, place)
    if found.unknown:
        logger.warning(
            "nobody has what these members were sent in a segment that failed the task, and they hand over nothing "
            "that is what was signed",
            extra={"segment": segment, "members": ",".join(members[stage] for stage in found.unknown)},
        )
    elif not found.false:
        logger.warning(
            "all stages of a segment that failed the task are as their members said: what was registered is not what "
            "was trained, or the verdict is false",
            extra={"task": f"{ground.task_id:#x}", "segment": segment},
        )
    return found


def _told(
    board: Board, prefix: str, own: StageDossier, mine: str, members: Sequence[str], limit_seconds: float
) -> dict[int, bytes]:
    """Tell the others where the own logs lie, and what they tell within the limit, by stage."""
    board.set(f"{prefix}/{own.member}", mine)
    ends, found = time.monotonic() + limit_seconds, dict[int, bytes]()
    for stage, name in enumerate(members):
        if stage == own.stage:
            continue
        key = f"{prefix}/{name}"
        while not (is_there := board.check([key])) and time.monotonic() < ends:
            time.sleep(POLL_SECONDS)
        if is_there:
            found[stage] = board.get(key)
    return found


def replay_alone(ground: Ground, record: StageDossier, me: str) -> None:
    """Replay a segment that one member trained alone. If it does not end where that member signed, and that is not
    this one, it is kept to be brought to court."""
    if record.load(ground.task).end(ground.task.seed).root == record.work.end_root:
        logger.warning(
            "a segment that failed the task is as its member signed: what was registered is not what was trained, or "
            "the verdict is false",
            extra={"task": f"{ground.task_id:#x}", "segment": record.work.segment, "member": record.member},
        )
        return
    logger.warning(
        "the member that trained a segment which failed the task signed for another state than its steps lead to",
        extra={"task": f"{ground.task_id:#x}", "segment": record.work.segment, "member": record.member},
    )
    if record.member != me:
        signed = SignedStage(record.work, record.signature, {})
        files = RecordFiles(record.folder / PLAN, record.folder / START, None)
        write_dossier(ground.audit / FINDINGS, record.member, record.stage, record.memory, signed, files)


def _skip(_error: GroupMessageError) -> None:
    """Damaged records are of no use here."""


def _own_logs(own: StageDossier, is_exact: bool) -> StageLogs:
    return StageLogs(read_log(own.folder / MESSAGES), None if is_exact else read_log(own.folder / SENT))


def _names(is_exact: bool) -> tuple[str, ...]:
    return (MESSAGES,) if is_exact else (MESSAGES, SENT)


def _handed_over(own: StageDossier, store: Store, is_exact: bool) -> str:
    """Put the own logs in the store; says where they lie."""
    references: dict[str, str | None] = {}
    for name in _names(is_exact):
        path = own.folder / name
        # A stage at the end of a chain may have received, or sent, nothing.
        references[name] = put_file(store, path).encode() if path.stat().st_size else None
    return json.dumps(references)


def _taken(
    content: bytes, name: str, schedule: StageSchedule, steps: tuple[int, int], is_exact: bool, folder: Path,
    stores: Sequence[Store],
) -> StageLogs | None:  # fmt: skip
    """A member's logs; None where it gives none of the right lengths. Nothing of it is believed."""
    try:
        references = json.loads(content)
        logs = []
        for file, messages in zip(_names(is_exact), (schedule.receives, schedule.sends), strict=False):
            size = 4 * log_words(messages, *steps)
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            if not size:
                (folder / file).write_bytes(b"")
            else:
                fetch_file(stores, _reference(references[file], size), folder / file, size)
            logs.append(read_log(folder / file))
    except (AssayError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        logger.warning("what a member hands over cannot be had", extra={"member": name, "error": str(error)})
        return None
    return StageLogs(*logs)


def _reference(text: str, size: int) -> FileReference:
    found = decode_locations(text)
    if found.size != size:
        raise GroupMessageError(f"a log of {found.size} bytes instead of {size} was handed over")
    return found


def _keep_finding(
    ground: Ground, own: StageDossier, engine: StageEngine, divided: Partition, members: Sequence[str],
    agreed: AgreedSegment, false: FalseStage, place: Path,
) -> None:  # fmt: skip
    """What takes a false statement to court."""
    part, name = divided.parts[false.stage], members[false.stage]
    folder = place / f"{name}.finding"
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / START, [agreed.start[n] for n in sorted({*part.state, *part.copies})])
    false.logs.received.tofile(folder / MESSAGES)
    sent = end = None
    if not engine.is_exact and false.logs.sent is not None:
        sent, end = folder / SENT, folder / "end.safetensors"
        false.logs.sent.tofile(sent)
        write_tensors(end, [agreed.end[number] for number in sorted(part.state)])
    files = RecordFiles(own.folder / PLAN, folder / START, folder / MESSAGES, sent, end)
    write_dossier(ground.audit / FINDINGS, name, false.stage, own.memory, agreed.signed[false.stage], files)
