"""The frame of every trainer process: one generation of a group, from joining to the report. `session.py` watches it.

A generation is the life of one process group: it ends when the work is done or when anybody fails. Whatever state the
process had beyond the last checkpoint is lost with it, so a failure cannot leave half a step behind.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore

from assay.engine.cpu import isa
from assay.errors import AssayError
from assay.group.errors import MemberFailedError
from assay.group.transcript import Statement, Transcript, account_signer, check_statement, make_statement

DONE, FAILED, SLOW = 0, 3, 4

UNFORESEEN = "unforeseen"
"""Code of an error that is no AssayError."""

COMPILING_LIMITS = 5
"""Compiling what a member trains and reading its data may take so many times the limit for a message."""


class SlowMemberError(MemberFailedError):
    """Members fell too far behind and there are spares to take their place."""

    code = "member-slow"


def join_generation(orders: dict[str, Any], members: Sequence[str]) -> TCPStore:
    """Open the process group of `members`, in the order of ranks; returns the store where the group meets."""
    threads = int(orders.get("threads", 1))
    torch.set_num_threads(threads)
    # Hashing, too: where members share a machine, threads that wait for each other take the processors from them.
    isa.set_threads(threads)
    timeout = timedelta(seconds=float(orders["timeout_seconds"]))
    os.environ["GLOO_SOCKET_IFNAME"] = orders["interface"]
    store = TCPStore(orders["store_host"], int(orders["store_port"]), is_master=False, timeout=timeout)
    dist.init_process_group(
        "gloo", store=PrefixStore(f"generation-{orders['generation']}", store), rank=members.index(orders["name"]),
        world_size=len(members), timeout=timeout,
    )  # fmt: skip
    return store


def wait_until_ready(store: Store, generation: int, name: str, members: Sequence[str], timeout: float) -> None:
    """Wait for the slowest compiler. Who dies meanwhile is noticed by its session, who stalls only by the limit."""
    store.set(f"ready/{generation}/{name}", "ready")
    ends = time.monotonic() + COMPILING_LIMITS * timeout
    for member in members:
        while not store.check([f"ready/{generation}/{member}"]):
            if time.monotonic() > ends:
                raise MemberFailedError(f"{member!r} was not ready in {COMPILING_LIMITS * timeout:.0f} s")
            time.sleep(0.1)


def exchange_statements(
    store: Store,
    orders: dict[str, Any],
    transcript: Transcript,
    steps: tuple[int, int],
    sent: Sequence[tuple[str, str]],
    received: Sequence[tuple[str, str]],
) -> list[Statement]:
    """Sign what was sent in these steps, and check what others signed; returns theirs, in the order of `received`.

    `sent` and `received` are (direction in the transcript, the other member) pairs. Raises GroupMessageError naming the
    member whose statement does not match what arrived.
    """
    keys, name = orders["keys"], orders["name"]
    sign, task = account_signer(keys["private_key"]), int(keys["task"])
    prefix = f"statement/{orders['generation']}/{steps[1]}"
    for direction, receiver in sent:
        made = make_statement(transcript, task, direction, name, receiver, steps, sign)
        store.set(f"{prefix}/{name}/{receiver}/{direction}", made.to_json())
    statements = []
    for direction, sender in received:
        statement = Statement.from_json(store.get(f"{prefix}/{sender}/{name}/{direction}").decode(), sender)
        check_statement(statement, transcript, task, direction, sender, name, steps, keys["addresses"][sender])
        statements.append(statement)
    return statements


def report_slow_members(
    store: Store, generation: int, members: Sequence[str], seconds_per_unit: float, factor: float, replaceable: bool
) -> None:
    """Raise SlowMemberError, on every rank alike, if a member's own work takes `factor` times the median member's.

    `seconds_per_unit`: this member's busy time for a unit of its share. `factor` 0 never complains.
    """
    if factor <= 0 or not replaceable:
        return
    busy = torch.zeros(len(members), dtype=torch.float64)
    busy[dist.get_rank()] = seconds_per_unit
    dist.all_reduce(busy)
    median = float(np.median(busy.numpy()))
    slow = [name for name, seconds in zip(members, busy.tolist(), strict=True) if seconds > factor * median]
    if slow:
        store.set(f"slow/{generation}", json.dumps(slow))
        raise SlowMemberError(f"{', '.join(slow)} work far slower than the others; planning without them")


def ordered_fault(orders: dict[str, Any], step: int) -> str:
    """The misbehaviour that a test ordered of this member at this step, or the steps from it on, or ""."""
    fault = orders.get("fault", {})
    mine = fault.get("member") == orders["name"] and fault.get("generation") == orders["generation"]
    return str(fault["kind"]) if mine and 0 <= step - fault["step"] < fault.get("steps", 1) else ""


def inject(kind: str) -> None:
    """Misbehave as a test ordered."""
    if kind == "die":
        os._exit(9)
    if kind == "stall":
        import signal

        os.kill(os.getpid(), signal.SIGSTOP)
    raise MemberFailedError(f"an ordered fault: {kind}")


def _end_with_parent(parent: int) -> None:
    """A trainer whose session was killed must not go on in its name."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(FAILED)


def run_trainer(train: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Entry point of a trainer: the path of the orders, then the path for the report. Does not return."""
    orders = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    report, status = Path(sys.argv[2]), DONE
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        result = train(orders)
    except SlowMemberError as error:
        result, status = {"error": str(error), "code": error.code}, SLOW
    except AssayError as error:
        result, status = {"error": str(error), "code": error.code}, FAILED
    except RuntimeError as error:
        # gloo and the store report lost and late peers this way.
        result, status = {"error": f"lost contact with the group: {error}", "code": MemberFailedError.code}, FAILED
    except OSError as error:
        result, status = {"error": f"{error}: free the disk, or repair it, and start again", "code": "disk"}, FAILED
    except Exception as error:  # others may have sent what nobody foresaw
        traceback.print_exc()
        result, status = {"error": f"an error that nobody foresaw: {error!r}", "code": UNFORESEEN}, FAILED
    report.write_text(json.dumps(result), encoding="utf-8")
    # Threads of a broken process group would keep a normal exit waiting.
    sys.stdout.flush()
    os._exit(status)
