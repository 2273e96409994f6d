"""A member's seat in a group: joins, starts the trainer, watches, and re-forms the group when somebody fails.

All members meet at a key-value store (torch's TCPStore, run by whoever formed the group). A generation's failure is
announced there; every member then stops its trainer and joins the next generation. Who has not joined within the grace
period is out of it: dead, stalled, or cut off, it makes no difference. The first to claim it leads: it plans anew
without the missing and publishes the plan. Training goes on from the newest complete checkpoint. Who comes back, or
starts late, waits as a spare; who was caught sending garbage is out for good.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch._C._distributed_c10d import TCPStore

from assay.group.cluster_file import read_cluster_file
from assay.group.declared import Declared
from assay.group.errors import ClusterError, FalseStageError, GroupMessageError, MemberFailedError
from assay.group.generation import DONE, FAILED, SLOW, UNFORESEEN, SlowMemberError
from assay.group.member_process import member_environment
from assay.group.plan import GroupPlan, read_plan, render_plan, replan
from assay.program.local_schedule import LocalSteps

POLL_SECONDS = 0.1
PLANNING_SECONDS = 60.0
"""What a leader may need to plan beyond its waiting, before another takes the lead."""

OTHERS_CAUSES = (
    GroupMessageError.code, FalseStageError.code, MemberFailedError.code, SlowMemberError.code, UNFORESEEN,
)  # fmt: skip
"""Codes of errors of a trainer that other members may have caused. Any other is this member's own trouble."""


@dataclass(frozen=True)
class SessionOrders:
    """What one member needs to take part. `cluster`, `plan` and `directory` are paths that all members can read.

    `trainer` is the module that trains for one generation, with its own `settings`; `factory` ("module:function") and
    `arguments` build the workload. `keys`: task, private_key and the members' addresses, to sign and check what is
    sent. `deadline_seconds`: give up after so long.
    """

    name: str
    cluster: str
    plan: str
    directory: str
    store_host: str
    store_port: int
    steps: int
    checkpoint_interval: int
    factory: str
    arguments: dict[str, Any]
    trainer: str = "assay.group.trainer"
    interface: str = "lo"
    grace_seconds: float = 10.0
    timeout_seconds: float = 60.0
    deadline_seconds: float = 3600.0
    slow_factor: float = 0.0
    threads: int = 1
    keys: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    fault: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SessionResult:
    """How a member's session ended. `report` is empty for a member that only waited as a spare."""

    generations: int
    plan: GroupPlan
    report: dict[str, Any]
    failures: tuple[str, ...]


def run_session(orders: SessionOrders) -> SessionResult:
    """Take part until the group is done. A member that comes late waits as a spare until the group needs it.

    Raises MemberFailedError when this member was found to cheat, cannot go on (a plan that the task cannot be divided
    by, a full disk), or the deadline passed.
    """
    ends = time.monotonic() + orders.deadline_seconds
    store = TCPStore(
        orders.store_host, orders.store_port, is_master=False, timeout=timedelta(seconds=orders.grace_seconds + 60)
    )
    failures: list[str] = []
    plan = read_plan(Path(orders.plan))
    everybody = [*plan.members, *plan.spares]
    generation = 0
    while store.check([f"failed/{generation}"]):
        generation += 1
    while True:
        if orders.name in _guilty(store, generation):
            raise MemberFailedError(f"the group found that {orders.name!r} sent garbage and excluded it: see its audit")
        store.set(f"join/{generation}/{orders.name}", "here")
        try:
            if generation > 0:
                plan = _agree(store, orders, plan, everybody, generation)
            status, report = _run_generation(store, orders, plan, generation, ends)
        except GroupMessageError as error:
            status, report = FAILED, {"error": _announce(store, orders, generation, str(error))}
        if status == DONE:
            return SessionResult(generation + 1, plan, report, tuple(failures))
        failures.append(str(report.get("error", "a member failed")))
        generation += 1
        if time.monotonic() > ends:
            raise MemberFailedError(f"the deadline passed after {len(failures)} failures, the last: {failures[-1]}")


def main() -> None:
    """Entry point of a member as a process of its own: the path of its orders (JSON of `SessionOrders`)."""
    orders = SessionOrders(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    try:
        result = run_session(orders)
    except MemberFailedError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)
    outcome = {"generations": result.generations, "report": result.report, "failures": result.failures}
    sys.stdout.write(json.dumps({**outcome, "members": result.plan.members}) + "\n")


def _agree(store: TCPStore, orders: SessionOrders, plan: GroupPlan, everybody: list[str], generation: int) -> GroupPlan:
    """The generation's plan: made by the first member to claim the lead, read by all others.

    A leader that does not publish in time is followed by the next to claim.
    """
    published, attempt = f"plan/{generation}", 0
    while not store.check([published]):
        if store.compare_set(f"leader/{generation}/{attempt}", "", orders.name).decode() == orders.name:
            text = render_plan(_plan_anew(store, orders, plan, everybody, generation))
            store.compare_set(published, "", text)
        else:
            waited = time.monotonic() + 2 * orders.grace_seconds + PLANNING_SECONDS
            while time.monotonic() < waited and not store.check([published]):
                time.sleep(POLL_SECONDS)
            attempt += 1
    path = Path(orders.directory) / f"plan-{generation}-{orders.name}.toml"
    path.write_bytes(store.get(published))
    try:
        found = read_plan(path)
    except (ClusterError, RecursionError) as error:
        raise GroupMessageError(f"what was left as the plan of generation {generation} is none: {error}") from error
    # Later plans are made from this one.
    strangers = {*found.members, *found.spares} - set(everybody)
    if strangers or found.compression != plan.compression or not 0 < sum(found.layers) <= sum(plan.layers):
        raise GroupMessageError(
            f"the plan of generation {generation} is not one for this group (layers {found.layers}, {found.compression}"
            f"{', strangers: ' + ', '.join(sorted(strangers)) if strangers else ''})"
        )
    return found


def _plan_anew(
    store: TCPStore, orders: SessionOrders, plan: GroupPlan, everybody: list[str], generation: int
) -> GroupPlan:
    """Wait for the members that still answer, and plan for them."""
    waited = time.monotonic() + orders.grace_seconds
    guilty = _guilty(store, generation)
    expected = [name for name in everybody if name not in guilty]
    while time.monotonic() < waited and not all(_joined(store, generation, name) for name in expected):
        time.sleep(POLL_SECONDS)
    absent = guilty | {name for name in expected if not _joined(store, generation, name)}
    absent |= _names(store, f"slow/{generation - 1}")
    description = read_cluster_file(Path(orders.cluster))
    # The plan may have been made for what a task declares, which the cluster's description does not say.
    local = orders.arguments.get("local_steps")
    declared = Declared(local_steps=LocalSteps(**local)) if local else None
    description = replace(description, compression=plan.compression, declared=declared)
    costs = description.costs(plan.stages, plan.replicas)
    done = max((_progress(store, name) for name in everybody), default=0)
    known = {device.name for device in description.cluster.devices}
    absent |= known - set(everybody)
    return replan(description.cluster, costs, plan, sorted(absent), max(1, orders.steps - done)).plan


def _guilty(store: TCPStore, generation: int) -> set[str]:
    """Members that an audit of an earlier generation found to cheat."""
    return set[str]().union(*(_names(store, f"guilty/{earlier}") for earlier in range(generation)))


def _names(store: TCPStore, key: str) -> set[str]:
    """Members that are named under a key; none where no list can be read there, whoever wrote it."""
    content = store.get(key) if store.check([key]) else b"[]"
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return set()
    return {str(name) for name in found} if isinstance(found, list) else set()


def _progress(store: TCPStore, name: str) -> int:
    """The step that a member says it has reached; 0 where that is no number."""
    content = store.get(f"progress/{name}") if store.check([f"progress/{name}"]) else b"0"
    try:
        return int(content)
    except ValueError:
        return 0


def _joined(store: TCPStore, generation: int, name: str) -> bool:
    return bool(store.check([f"join/{generation}/{name}"]))


def _run_generation(
    store: TCPStore, orders: SessionOrders, plan: GroupPlan, generation: int, ends: float
) -> tuple[int, dict[str, Any]]:
    """Run the trainer, or wait as a spare or latecomer, until the generation is done or has failed."""
    failed, finished = f"failed/{generation}", f"finished/{generation}"
    if orders.name not in plan.members:
        while True:
            if store.check([finished]):
                return DONE, {}
            if store.check([failed]):
                return 1, {"error": store.get(failed).decode(errors="replace")}
            if time.monotonic() > ends:
                return 1, {"error": "the deadline passed while waiting as a spare"}
            time.sleep(POLL_SECONDS)
    folder = Path(orders.directory) / "members" / orders.name
    folder.mkdir(parents=True, exist_ok=True)
    plan_path, report = folder / f"plan-{generation}.toml", folder / f"report-{generation}.json"
    report.unlink(missing_ok=True)  # of a generation of the same number, at another meeting place
    plan_path.write_text(render_plan(plan), encoding="utf-8")
    given = {**orders.__dict__, "plan": str(plan_path), "generation": generation}
    order_path = folder / f"orders-{generation}.json"
    # Orders may hold a key: nobody else may read them, and they go when the trainer has ended.
    with os.fdopen(os.open(order_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(given, file)
    environment = member_environment(orders.threads)
    with (folder / f"log-{generation}.txt").open("w", encoding="utf-8") as log:
        trainer = subprocess.Popen(
            [sys.executable, "-m", orders.trainer, str(order_path), str(report)],
            stdout=log, stderr=subprocess.STDOUT, env=environment,
        )  # fmt: skip
    try:
        while trainer.poll() is None:
            if store.check([failed]) or time.monotonic() > ends:
                break
            time.sleep(POLL_SECONDS)
    finally:
        if trainer.poll() is None:
            trainer.kill()
        trainer.wait()
        order_path.unlink(missing_ok=True)
    result: dict[str, Any] = {}
    if report.exists():
        result = json.loads(report.read_text(encoding="utf-8"))
    if trainer.returncode == DONE:
        store.set(finished, "done")
        return DONE, result
    error = str(result.get("error") or f"the trainer of {orders.name!r} ended with status {trainer.returncode}")
    cause = _announce(store, orders, generation, error)
    if result.get("code", UNFORESEEN) not in OTHERS_CAUSES:
        # Its next attempt would end the same way, and the others' with it.
        raise MemberFailedError(f"{orders.name!r} cannot go on: {error}")
    return (SLOW if trainer.returncode == SLOW else 1), {"error": cause}


def _announce(store: TCPStore, orders: SessionOrders, generation: int, error: str) -> str:
    """Tell everybody that a generation has failed; returns what it failed by. The first failure is the cause; the
    others lost contact because of it."""
    store.compare_set(f"failed/{generation}", "", f"{orders.name}: {error}")
    return str(store.get(f"failed/{generation}").decode(errors="replace"))


if __name__ == "__main__":
    main()
