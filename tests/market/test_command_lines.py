"""Roles as processes of the real command line: two on one account, several in one, another chain, what they print."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_market import SOLVER, VERIFIER, World, tiny_world

from assay.accounts import import_keystore
from assay.market.deployment import write_deployment
from assay.market.types import TaskState
from assay.tasks.bundle import Bundle
from assay.tasks.task_file import TaskFile

pytestmark = pytest.mark.slow

PASSWORD = "only for tests"
CLIENT = Path(__file__).resolve().parents[2] / "client"


class Desk:
    """A machine with the command line: one settings file, a key file for each account."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.folder = world, folder
        folder.mkdir(exist_ok=True)
        self.started: list[subprocess.Popen[str]] = []
        write_deployment(world.local.deployment, folder / "deployment.json")

    def environment(self, place: int) -> dict[str, str]:
        key = self.folder / f"{place}.json"
        if not key.exists():
            import_keystore(key, self.world.local.chain.private_keys[place], PASSWORD, iterations=2)
        return {
            **os.environ,
            "PYTHONPATH": str(CLIENT),
            "ASSAY_CHAIN_URL": self.world.local.chain.url,
            "ASSAY_CHAIN_DEPLOYMENT": str(self.folder / "deployment.json"),
            "ASSAY_CHAIN_POLL_SECONDS": "0.1",
            "ASSAY_ACCOUNT_KEYSTORE": str(key),
            "ASSAY_PASSWORD": PASSWORD,
            "ASSAY_STATE_FOLDER": str(self.folder / "state"),
            "ASSAY_STORAGE_FOLDER": str(self.world.folder / "store"),
            "XDG_CONFIG_HOME": str(self.folder / "none"),
            "OMP_NUM_THREADS": "1",
            "NUMBA_NUM_THREADS": "1",
        }

    def start(self, place: int, *words: str) -> subprocess.Popen[str]:
        output = (self.folder / f"{'-'.join(words[:2])}-{place}.out").open("w")
        process = subprocess.Popen(
            [sys.executable, "-m", "assay", *words],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(place),
        )
        self.started.append(process)
        return process

    def lines(self, place: int, *words: str) -> list[dict[str, Any]]:
        """What a process has printed so far."""
        text = (self.folder / f"{'-'.join(words[:2])}-{place}.out").read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()


@pytest.fixture
def desk(world: World, tmp_path: Path) -> Any:
    made = Desk(world, tmp_path / "desk")
    yield made
    made.end()


def until(done: Callable[[], bool], world: World, seconds: float = 150.0, mine: bool = False) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        if mine:
            world.tick()
        time.sleep(0.5)
        world.reader.poll()


def test_one_process_plays_all_roles_and_sums_up_what_it_did_and_a_second_one_is_refused(
    world: World, desk: Desk
) -> None:
    words = (
        "node",
        "run",
        "--role",
        "solver",
        "--role",
        "verifier",
        "--role",
        "whistleblower",
        "--audits",
        "0",
        "--json",
    )
    running = desk.start(VERIFIER, *words)
    account = world.address(VERIFIER)
    until(lambda: world.market.stakes.seats(account) == 1, world)
    parameters = world.market.parameters
    assert world.market.stakes.free(account) == parameters.seat + 10**18  # its seat, and stake for bonds beside it

    refused = desk.start(VERIFIER, "solver", "run", "--json")
    _, told = refused.communicate(timeout=120)
    assert refused.returncode == 1
    error = json.loads(told)
    assert error["code"] == "account-in-use"
    assert f"process {running.pid}" in error["error"]
    assert "assay node run" in error["error"]

    # The own account's solver needs somebody else to verify it: another account, with the same state folder, takes a
    # seat too.
    desk.start(SOLVER, "verifier", "run", "--json")
    until(lambda: world.market.stakes.seats(world.address(SOLVER)) == 1, world)
    task = world.submit()
    until(lambda: world.reader.view.tasks[task].state.is_over, world, mine=True)
    assert world.market.tasks.state(task) is TaskState.SETTLED
    assert world.reader.view.tasks[task].solver == account
    until(lambda: world.market.stakes.credit(account) == 0, world, mine=True)

    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 143
    lines = desk.lines(VERIFIER, *words)
    events = [line["event"] for line in lines]
    assert events[0] == "started"
    assert {"take", "register"} <= set(events)
    summary = lines[-1]
    assert summary["event"] == "summary"
    assert summary["account"] == account
    assert summary["transactions"]["failed"] == 0
    assert summary["transactions"]["gas"] > 500_000
    (row,) = summary["tasks"]
    assert row["task"] == f"{task:#066x}"
    assert int(row["earned"]) >= world.reader.view.tasks[task].price
    final = [line for line in lines if line["event"] == "succeeded" and line["action"] == "register"]
    assert final[0]["task"] == f"{task:#x}"
    assert final[0]["gas"] > 0


def test_a_fresh_chain_with_an_old_state_folder_has_a_journal_of_its_own(
    world: World, desk: Desk, tmp_path: Path, tiny_task: tuple[TaskFile, Bundle]
) -> None:
    running = desk.start(VERIFIER, "verifier", "run", "--json")
    until(lambda: world.market.stakes.seats(world.address(VERIFIER)) == 1, world)
    running.send_signal(signal.SIGTERM)
    running.wait(60)
    (tmp_path / "again").mkdir()
    with tiny_world(tmp_path / "again", *tiny_task) as fresh:
        assert fresh.local.deployment.addresses == world.local.deployment.addresses
        desk.world = fresh
        write_deployment(fresh.local.deployment, desk.folder / "deployment.json")
        running = desk.start(VERIFIER, "verifier", "run", "--json")
        until(lambda: fresh.market.stakes.seats(fresh.address(VERIFIER)) == 1, fresh)
        nonces = [line["nonce"] for line in desk.lines(VERIFIER, "verifier", "run") if "nonce" in line]
        assert nonces == list(range(len(nonces)))
        running.kill()
        running.wait()
    assert len(list((desk.folder / "state").glob("31337-*/0x*"))) == 2
