"""Train a market task with a group: what a solver's process calls on every member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from assay.group.errors import MemberFailedError, PlacementError
from assay.group.execution.task_files import write_task
from assay.group.plan import GroupPlan, write_plan
from assay.group.session import SessionOrders, run_session
from assay.program.graph import Graph
from assay.program.local_schedule import LocalSteps
from assay.training.task import TrainingTask
from assay.training.train import Proof

AUDIT_RATE = 0.1
"""Fraction of the segments that are audited unless the settings say otherwise, where messages are signed."""

TRAINER = "assay.group.execution.member"
"""The module that trains a member's stage of a market task."""

SIDE_BY_SIDE = "assay.group.execution.side_by_side"
"""The module that trains a member's segments of one with local steps."""

PROOF = "proof"
"""Where in its folder a member keeps the checkpoints."""


def member_folder(directory: Path, name: str) -> Path:
    """Where a member keeps its files: `proof` (checkpoints of the whole state), `audit`, logs."""
    return directory / "members" / name


@dataclass(frozen=True)
class Seat:
    """A member's place in a group, and how it reaches the others.

    `cluster`: path of the cluster.toml that the plan was made from, to plan anew when members are lost. `store_host`,
    `store_port`: where the group meets (`assay group meet`). `private_key` and `addresses` (by member) sign what is
    sent; without them nothing is signed or audited. `task_id` is what the statements are about, `chain_id` and `group`
    (an account) where they can be taken to court, for `record_seconds`; `clock_offset`: by how many seconds the chain's
    clock is ahead of this machine's. `keepers`: how many members hold the whole proof. `audit_rate`: the fraction of
    segments in which members replay each other's stages. `device`: where this member trains natively: auto, cpu, cuda.
    `owners`: who answers for which segment, in turn, and trains it where segments are trained alone.
    """

    name: str
    cluster: Path
    store_host: str
    store_port: int
    private_key: str = ""
    addresses: dict[str, str] = field(default_factory=dict)
    task_id: int = 0
    interface: str = "lo"
    threads: int = 1
    grace_seconds: float = 30.0
    timeout_seconds: float = 120.0
    deadline_seconds: float = 86400.0
    slow_factor: float = 0.0
    keepers: int = 2
    audit_rate: float = AUDIT_RATE
    device: str = "auto"
    fault: dict[str, Any] = field(default_factory=dict)  # for tests: a misbehaviour to show
    chain_id: int = 0
    group: str = ""
    record_seconds: int = 86400
    clock_offset: float = 0.0
    owners: tuple[str, ...] = ()


def trains_side_by_side(plan: GroupPlan, owners: Sequence[str], local_steps: LocalSteps | None) -> bool:
    """Whether the members of a plan train whole segments of their own, and not stages.

    Raises PlacementError where they would, and the plan has more members than a round has runs, or not each run has one
    member that answers for it (`owners`, by run), unless none has one.
    """
    if local_steps is None or plan.stages > 1:
        return False
    runs = local_steps.members
    if len(plan.members) > runs:
        raise PlacementError(
            f"the task trains {runs} members side by side, the plan has {len(plan.members)}: set [program] replicas = "
            f"{runs} in cluster.toml and plan again"
        )
    if owners and len(owners) != runs:
        raise PlacementError(
            f"the task trains {runs} members side by side, and {len(owners)} answer for segments in turn: name {runs} "
            "in group.toml's `segments`, or leave it out"
        )
    return True


@dataclass(frozen=True)
class GroupRun:
    """How a group's training ended for one member.

    `proof` is None on members that do not keep the checkpoints; `leader` is the one who registers: the first keeper.
    """

    roots: tuple[bytes, ...]
    proof: Proof | None
    leader: bool
    members: tuple[str, ...]
    generations: int
    failures: Sequence[str]
    report: dict[str, Any]


def run_group_training(
    task: TrainingTask, plan: GroupPlan, seat: Seat, folder: Path, graph: Graph | None = None,
    local_steps: LocalSteps | None = None,
) -> GroupRun:  # fmt: skip
    """Train `task` with the group of `plan`, or finish what was begun in `folder`; every member calls this.

    Without a `graph` the group computes in the exact arithmetic, and the proof is bit-equal to one machine's. With the
    recorded graph of a tolerant task it trains with PyTorch's kernels, each member on its own device. With the
    `local_steps` of an exact task and a plan of one stage, every member trains whole segments of its own, side by side.
    All members must decide alike. Raises MemberFailedError when this member was left behind or the deadline passed.
    """
    write_task(task, folder / "task", graph)
    write_plan(plan, folder / "plan.toml")
    keys: dict[str, Any] = {}
    if seat.private_key:
        keys = {
            "task": seat.task_id, "chain_id": seat.chain_id, "group": seat.group, "private_key": seat.private_key,
            "addresses": seat.addresses, "record_seconds": seat.record_seconds, "clock_offset": seat.clock_offset,
        }  # fmt: skip
    arguments: dict[str, Any] = {"task": str(folder / "task")}
    trainer = TRAINER
    if local_steps is not None and trains_side_by_side(plan, seat.owners, local_steps):
        trainer = SIDE_BY_SIDE
        arguments["local_steps"] = asdict(local_steps)
    orders = SessionOrders(
        name=seat.name,
        cluster=str(seat.cluster),
        plan=str(folder / "plan.toml"),
        directory=str(folder),
        store_host=seat.store_host,
        store_port=seat.store_port,
        steps=task.steps,
        checkpoint_interval=task.interval,
        factory="",
        arguments=arguments,
        trainer=trainer,
        interface=seat.interface,
        grace_seconds=seat.grace_seconds,
        timeout_seconds=seat.timeout_seconds,
        deadline_seconds=seat.deadline_seconds,
        slow_factor=seat.slow_factor,
        threads=seat.threads,
        keys=keys,
        settings={
            "keepers": seat.keepers,
            "audit_rate": seat.audit_rate,
            "device": seat.device,
            "owners": seat.owners,
        },
        fault=seat.fault,
    )
    try:
        result = run_session(orders)
    except RuntimeError as error:  # the store's client reports a lost connection this way
        where = f"{seat.store_host}:{seat.store_port}"
        raise MemberFailedError(
            f"lost the group's meeting place {where}: {error}; start `assay group meet` there again, then every "
            "member, to go on from the last checkpoint"
        ) from error
    report = result.report
    if not report:
        raise MemberFailedError(f"{seat.name!r} was a spare to the end: nothing was trained here")
    roots = tuple(bytes.fromhex(root) for root in report["roots"])
    proof = Proof(Path(report["proof"]), roots) if report["keeper"] else None
    return GroupRun(
        roots, proof, report["stage"] == 0, result.plan.members, result.generations, result.failures, report
    )
