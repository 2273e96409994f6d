"""A role that follows a market and has nothing to do, measured: `python -m assay.bench.watcher URL DEPLOYMENT FOLDER
SECONDS`, with a private key on standard input, prints a JSON object. Used by `assay bench market`."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from eth_account import Account

from assay.chain.sender import Sender
from assay.market.connection import connect
from assay.roles.bench import Workbench
from assay.roles.metrics import Metrics
from assay.roles.node import Node
from assay.roles.whistleblower import Whistleblower
from assay.state import StateFolder
from assay.storage.directory import DirectoryStore


def peak_mib() -> float:
    """This program's own peak: getrusage would count that of the process it was started from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


def main(url: str, deployment: str, folder: str, seconds: str) -> None:
    """Catch up, then follow for `seconds` with a look a second."""
    account = Account.from_key(sys.stdin.readline().strip())
    market = connect(url, Path(deployment))
    with StateFolder(Path(folder)) as state:
        bench = Workbench(Path(folder) / "work", (DirectoryStore(Path(folder) / "store"),), state)
        node = Node(market, Sender(market.chain, account, state), state, bench, [Whistleblower()], Metrics("watcher"))
        begin = time.perf_counter()
        while node.turn():
            time.sleep(0.2)
        first = time.perf_counter() - begin
        blocks, begin, used = node.reader.view.block, time.perf_counter(), time.process_time()
        node.run(stop=lambda: time.perf_counter() - begin > float(seconds))
        document = {
            "tasks": sum(1 for _ in node.reader.view.running()),
            "first_look_seconds": round(first, 2),
            "blocks": node.reader.view.block - blocks,
            "core_share": round((time.process_time() - used) / (time.perf_counter() - begin), 4),
            "peak_mib": round(peak_mib(), 1),
        }
    print(json.dumps(document))


if __name__ == "__main__":
    main(*sys.argv[1:])
