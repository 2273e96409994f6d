"""Run a trial of group training on a simulated network and gather what its members measured."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from assay.group.errors import SimulationError
from assay.group.member_process import member_environment
from assay.group.network import Network
from assay.group.simulate.member import Trial
from assay.group.simulate.namespaces import INTERFACE, NamespaceNetwork, namespace_network, namespaces_permitted

MODES = ("namespaces", "held", "loopback")


@dataclass(frozen=True)
class TrialReport:
    """`step_seconds`: of each timed step, the slowest member's; bytes are of the timed steps, over all members."""

    mode: str
    step_seconds: tuple[float, ...]
    losses: tuple[float, ...]
    forward_bytes: int
    backward_bytes: int
    forward_uncompressed: int
    backward_uncompressed: int

    @property
    def median_seconds(self) -> float:
        """The median timed step."""
        return float(np.median(self.step_seconds))


@contextlib.contextmanager
def simulated_network(network: Network, mode: str = "auto") -> Iterator[SimulatedNetwork]:
    """A network to run trials on, one after another.

    Modes: `namespaces` (real TCP through delayed packets), `held` (no privilege: messages are held back at the
    receiver), `loopback` (no delay, no limit), `auto` (namespaces where permitted, else held).
    """
    if mode == "auto":
        mode = "namespaces" if namespaces_permitted() else "held"
    if mode not in MODES:
        raise SimulationError(f"no simulation mode is called {mode!r}; use auto, {', '.join(MODES)}")
    if mode == "namespaces":
        with namespace_network(network) as namespaces:
            yield SimulatedNetwork(network, mode, namespaces)
    else:
        yield SimulatedNetwork(network, mode, None)


@dataclass(frozen=True)
class SimulatedNetwork:
    """A running simulation: member i of a trial sits on device i."""

    network: Network
    mode: str
    namespaces: NamespaceNetwork | None

    def run(self, trial: Trial, timeout_seconds: float = 300.0) -> TrialReport:
        """Start every member, wait, merge their reports; raises SimulationError with a member's last words."""
        size = len(trial.split) * trial.replicas
        if size > self.network.size:
            raise SimulationError(f"the trial needs {size} members, the network has {self.network.size} devices")
        with tempfile.TemporaryDirectory(prefix="assay-group-") as folder:
            reports = self._run_members(trial, size, Path(folder), timeout_seconds)
        seconds = np.max([report["seconds"] for report in reports], axis=0)
        losses = [report["losses"] for report in reports if report["losses"]]
        total = {
            f"{direction}_{suffix}": int(sum(report[key][direction] for report in reports))
            for direction in ("forward", "backward")
            for key, suffix in (("sent", "bytes"), ("uncompressed", "uncompressed"))
        }
        return TrialReport(
            mode=self.mode,
            step_seconds=tuple(float(value) for value in seconds),
            losses=tuple(float(value) for value in np.mean(losses, axis=0)),
            **total,
        )

    def _run_members(self, trial: Trial, size: int, folder: Path, timeout: float) -> list[dict[str, Any]]:
        port = 29400 if self.namespaces else _free_port()
        processes = []
        environment = member_environment(threads=1)
        try:
            for rank in range(size):
                held = self.mode == "held"
                orders = {
                    "trial": asdict(trial),
                    "rank": rank,
                    "size": size,
                    "address": self.namespaces.addresses[0] if self.namespaces else "127.0.0.1",
                    "port": port,
                    "interface": INTERFACE if self.namespaces else "lo",
                    "timeout_seconds": timeout,
                    "delay_seconds": self.network.delay_seconds[:size, rank].tolist() if held else [],
                    "bandwidth": [_finite(v) for v in self.network.bandwidth[:size, rank]] if held else [],
                }
                (folder / f"orders-{rank}.json").write_text(json.dumps(orders), encoding="utf-8")
                arguments = [
                    sys.executable, "-m", "assay.group.simulate.member",
                    str(folder / f"orders-{rank}.json"), str(folder / f"report-{rank}.json"),
                ]  # fmt: skip
                command = self.namespaces.command(rank, arguments) if self.namespaces else arguments
                log = (folder / f"log-{rank}.txt").open("w", encoding="utf-8")
                with log:
                    processes.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment))
            for rank, process in enumerate(processes):
                try:
                    status = process.wait(timeout)
                except subprocess.TimeoutExpired as error:
                    raise SimulationError(
                        f"member {rank} did not finish within {timeout:.0f} s; give fewer steps or a longer timeout"
                    ) from error
                if status != 0:
                    words = (folder / f"log-{rank}.txt").read_text(encoding="utf-8").strip().splitlines()
                    raise SimulationError(f"member {rank} ended with status {status}: {' | '.join(words[-3:])}")
            return [json.loads((folder / f"report-{rank}.json").read_text(encoding="utf-8")) for rank in range(size)]
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else 1e15


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
