"""A reader follows a thousand open tasks in little memory and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from assay.market.deployment import write_deployment

from .conftest import PostingMaker, World

TASKS = 1000
CLIENT = Path(__file__).resolve().parents[3] / "client"
FOLLOW = """
import json, sys, time
from pathlib import Path
from assay.market.connection import connect
from assay.market.reader import MarketReader

reader = MarketReader(connect(sys.argv[1], Path(sys.argv[2])))
begin = time.perf_counter()
reader.poll()
first = time.perf_counter() - begin
begin, used = time.perf_counter(), time.process_time()
for _ in range(20):
    reader.poll()
    assert sum(1 for _ in reader.view.running()) == len(reader.view.tasks)
used = (time.process_time() - used) / 20
# The program's own peak: getrusage would count that of the process it was started from.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
print(json.dumps({
    "tasks": len(reader.view.tasks),
    "first": first,
    "poll": used,
    "mib": int(peak.split()[1]) / 1024,
}))
"""


@pytest.mark.slow
def test_a_thousand_open_tasks_are_followed_cheaply(world: World, make_posting: PostingMaker, tmp_path: Path) -> None:
    market = world.market
    sender = world.address(5)
    world.request("anvil_setBalance", sender, hex(10**24))
    # Else anvil mines behind the requests, and goes on when the chain has been set back for the next test.
    world.request("evm_setAutomine", False)
    try:
        for number in range(TASKS):
            posting = make_posting(task_seed=number)
            if number == 0:
                escrow = market.tasks.escrow_of(posting)
            call = market.tasks.submit(posting, escrow)
            world.request(
                "eth_sendTransaction",
                {
                    "from": sender,
                    "to": call.to,
                    "data": "0x" + call.data.hex(),
                    "value": hex(escrow),
                    "gas": hex(2_000_000),
                },
            )
        for _ in range(100):
            if market.tasks.ask("submitted", sender) == TASKS:
                break
            world.request("evm_mine")
    finally:
        world.request("evm_setAutomine", True)
    write_deployment(world.running.deployment, tmp_path / "deployment.json")
    output = subprocess.run(
        [sys.executable, "-c", FOLLOW, world.running.chain.url, str(tmp_path / "deployment.json")],
        env={**os.environ, "PYTHONPATH": str(CLIENT)},
        check=True,
        stdout=subprocess.PIPE,
        timeout=120,
    ).stdout
    found = json.loads(output)
    print(found)
    assert found["tasks"] == TASKS
    assert found["mib"] < 200
    # One look a second costs less than 5 % of a core.
    assert found["poll"] < 0.05
