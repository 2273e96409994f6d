"""A group whose members are all processes of this machine: to measure and to try, with the real programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from eth_account import Account
from torch._C._distributed_c10d import TCPStore

from assay.group.cost import StepTime
from assay.group.errors import MemberFailedError
from assay.group.execution.run import SIDE_BY_SIDE, TRAINER
from assay.group.execution.task_files import write_task
from assay.group.member_process import member_environment
from assay.group.plan import GroupPlan, write_plan
from assay.group.session import SessionOrders
from assay.program.graph import Graph
from assay.program.local_schedule import LocalSteps
from assay.training.task import TrainingTask

SIGNED_AUDIT_RATE = 1e-12
"""Of a group that signs: everything is kept ready for audits, and none comes."""


def run_local_group(
    task: TrainingTask, members: int, microbatches: int, limit_seconds: float, graph: Graph | None = None,
    replicas: int = 1, device: str = "cpu", *, signed: bool = False, trainer: str = TRAINER,
    local_steps: LocalSteps | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Train `task` with `members` processes of one thread each; returns their reports, in order of stages. With its
    recorded `graph` they train with PyTorch's kernels on `device` ("cpu", or one GPU that all share: "cuda"), each
    stage with `replicas` of them. `signed`: members hash, log and sign what crosses, as those of a market's group do.
    `trainer`: the module that each of them runs. `local_steps`: those of the task; its members train side by side.

    Raises MemberFailedError with a member's last words where one fails.
    """
    arguments: dict[str, Any] = {}
    if local_steps is not None:
        replicas, trainer, arguments = members, SIDE_BY_SIDE, {"local_steps": asdict(local_steps)}
    names = tuple(f"member-{number}" for number in range(members))
    none = StepTime(0.0, 0.0, 0.0, 0.0)
    pipelines = tuple(names[replica::replicas] for replica in range(replicas))
    plan = GroupPlan(pipelines, (1,) * (members // replicas), (), "none", microbatches, none, 0.0, 0.0, False)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory(prefix="assay-group-") as text:
        folder = Path(text)
        write_task(task, folder / "task", graph)
        write_plan(plan, folder / "plan.toml")
        (folder / "cluster.toml").write_text(_cluster_of(names), encoding="utf-8")
        orders = SessionOrders(
            name="",
            cluster=str(folder / "cluster.toml"),
            plan=str(folder / "plan.toml"),
            directory=str(folder),
            store_host="127.0.0.1",
            store_port=store.port,
            steps=task.steps,
            checkpoint_interval=task.interval,
            factory="",
            arguments={"task": str(folder / "task"), **arguments},
            trainer=trainer,
            deadline_seconds=limit_seconds,
            settings={"keepers": 1, "device": device, "audit_rate": SIGNED_AUDIT_RATE},
        )
        keys = _keys_of(names) if signed else {name: {} for name in names}
        return _run_members(folder, orders, keys, limit_seconds)


def _keys_of(names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What each member signs with. They are made of the names: nothing is at stake here."""
    accounts = {name: Account.from_key(sha256(name.encode()).digest()) for name in names}
    addresses = {name: account.address for name, account in accounts.items()}
    return {
        name: {"task": 0, "private_key": account.key.to_0x_hex(), "addresses": addresses}
        for name, account in accounts.items()
    }


def _run_members(
    folder: Path, orders: SessionOrders, keys: dict[str, dict[str, Any]], limit_seconds: float
) -> list[dict[str, Any]]:
    environment = {**member_environment(threads=1), "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = []
    try:
        for name, own in keys.items():
            path = folder / f"{name}.json"
            path.write_text(json.dumps({**asdict(orders), "name": name, "keys": own}), encoding="utf-8")
            command = [sys.executable, "-m", "assay.group.session", str(path)]
            processes.append(
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
            )
        reports = []
        for name, process in zip(keys, processes, strict=True):
            output, problems = process.communicate(timeout=limit_seconds)
            if process.returncode != 0:
                raise MemberFailedError(f"{name} failed: {problems.strip()[-400:]}")
            reports.append(dict(json.loads(output)["report"]))
        return reports
    except subprocess.TimeoutExpired as error:
        raise MemberFailedError(f"the group was not done in {limit_seconds:.0f} s; train fewer steps") from error
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def _cluster_of(names: tuple[str, ...]) -> str:
    lines = ["[program]", "activation_bytes = 1.0", "parameter_bytes = 1.0", f"layers = {len(names)}"]
    lines += ["[[link]]", 'between = ["here", "here"]', "delay_ms = 0.01", "bandwidth_mbps = 10000.0"]
    for name in names:
        lines += ["[[device]]", f'name = "{name}"', 'region = "here"']
    return "\n".join(lines) + "\n"
