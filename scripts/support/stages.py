"""What any set-up needs: stages that are done once, redone when they were cut off, and errors that say what to try.

Standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import run

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".toolchain"
STATE = TOOLS / "state"
LOGS = TOOLS / "logs"
GIGABYTE = 10**9


class SetupError(Exception):
    """The set-up cannot go on; the message says why and what to try."""


@dataclass(frozen=True)
class Stage:
    """One step of the set-up. `work` does it from nothing and gets the log file; `made` must exist when it is done."""

    name: str
    title: str
    key: str
    needs_bytes: int
    made: tuple[Path, ...]
    work: Callable[[Path], None]


def digest(*parts: str | Path) -> str:
    """SHA-256 (hex) over texts and the contents of files."""
    total = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode()
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


def say(text: str) -> None:
    """One line of progress; on standard error, so that a command's output stays its own."""
    print(text, file=sys.stderr, flush=True)


def remove(path: Path) -> None:
    """Delete a file or a folder with everything in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


# ---- Running installers -------------------------------------------------------------------------------------------

HINTS = (
    (r"No space left on device|ENOSPC|Disk quota exceeded", "The disk is full: free some space and run this again."),
    (
        r"name resolution|Name or service not known|NewConnectionError|ConnectTimeout|Network is unreachable"
        r"|Connection refused|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ETIMEDOUT|ENETUNREACH|Read timed out|ProxyError",
        "The package index could not be reached: check the network (behind a proxy, set HTTPS_PROXY; for a mirror,\n"
        "  set PIP_INDEX_URL and NPM_CONFIG_REGISTRY) and run this again. What was downloaded is kept.",
    ),
    (
        r"No matching distribution|Could not find a version",
        "A pinned package is not offered to this Python: try another, ASSAY_PYTHON=/path/to/python3.11 (3.11 to 3.13\n"
        "  are tested), or check that the package index is complete.",
    ),
    (r"Permission denied|EACCES", "A file could not be written: check who owns this folder."),
)


def install(log: Path, command: Sequence[str | Path], environment: dict[str, str] | None = None) -> None:
    """Run an installer with its output in `log`.

    Raises `SetupError` with the last lines and the next thing to try when it fails.
    """
    with log.open("ab") as output:
        output.write(f"\n$ {' '.join(str(word) for word in command)}\n".encode())
        output.flush()
        code = run(
            command,
            environment={**os.environ, **(environment or {})},
            folder=ROOT,
            output=output,
            keep_open=lock_descriptors,
        )
    if code == 0:
        return
    text = log.read_text(errors="replace")
    hint = next(
        (hint for pattern, hint in HINTS if re.search(pattern, text)), "Run this again; it starts over cleanly."
    )
    lines = [line for line in text.splitlines() if line.strip() and "is ignored: it is" not in line][-8:]
    tail = "\n".join(f"    {line[:300]}" for line in lines)
    raise SetupError(
        f"an installer ended with exit code {code}:\n{tail}\n  {hint}\n  The whole log: {log.relative_to(ROOT)}"
    )


# ---- Stages --------------------------------------------------------------------------------------------------------


def state_file(stage: Stage) -> Path:
    """Where a stage's record lies."""
    return STATE / f"{stage.name}.json"


def recorded(stage: Stage) -> dict[str, object]:
    """A stage's record; empty where there is none or it was cut off."""
    try:
        record = json.loads(state_file(stage).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def is_done(stage: Stage) -> bool:
    """True where the stage was finished with the present key and what it made is still there."""
    return recorded(stage) == {"key": stage.key, "done": True} and all(path.exists() for path in stage.made)


def record(stage: Stage, done: bool) -> None:
    """Write a stage's record in one step."""
    fresh = state_file(stage).with_suffix(".new")
    fresh.write_text(json.dumps({"key": stage.key, "done": done}))
    fresh.replace(state_file(stage))


def check_disk(stage: Stage) -> None:
    """Raise `SetupError` where the disk has less room than the stage is known to need."""
    free = shutil.disk_usage(ROOT).free
    if free < stage.needs_bytes:
        raise SetupError(
            f"{stage.title} needs about {stage.needs_bytes / GIGABYTE:.1f} GB; {free / GIGABYTE:.1f} GB are free\n"
            f"  in {ROOT}: free some space (or clone this repository on a larger disk) and run this again"
        )


def carry_out(wanted: list[Stage]) -> None:
    """Do the stages that are not done. A linked `.toolchain` is another checkout's: used as it is, never changed."""
    if TOOLS.is_symlink():
        absent = [str(path) for stage in wanted for path in stage.made if not path.exists()]
        if absent:
            raise SetupError(
                f"{TOOLS} links to the set-up of another checkout, which lacks {', '.join(absent)}: "
                "set that one up, or remove the link"
            )
        return
    missing = [stage for stage in wanted if not is_done(stage)]
    if not missing:
        return
    say(f"Setting up {ROOT} with Python {platform.python_version()} (only once; logs in {LOGS.relative_to(ROOT)})")
    (TOOLS / "python").write_text(f"{sys.executable}\n")
    for number, stage in enumerate(missing, start=1):
        # What an earlier stage made may have made this one's record true, never false: only time is lost by asking.
        again = " (again: its last try was not finished)" if recorded(stage).get("done") is False else ""
        say(f"  {number}/{len(missing)} {stage.title}{again} ...")
        begin = time.monotonic()
        check_disk(stage)
        log = LOGS / f"{stage.name}.log"
        log.write_text(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {stage.title}\n")
        record(stage, done=False)
        try:
            stage.work(log)
        except OSError as error:
            raise SetupError(f"{stage.title}: {error}") from error
        absent = [str(path.relative_to(ROOT)) for path in stage.made if not path.exists()]
        if absent:
            raise SetupError(f"{stage.title} ended without making {', '.join(absent)}: see {log.relative_to(ROOT)}")
        record(stage, done=True)
        say(f"      done in {time.monotonic() - begin:.0f} s")


lock_descriptors: list[int] = []


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Hold this checkout's set-up lock. Installers inherit it: one that outlives its script is waited for, too."""
    for folder in (STATE, LOGS):
        folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(TOOLS / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another set-up of this checkout is running; waiting for it to end ...")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        lock_descriptors.append(descriptor)
        yield
    finally:
        lock_descriptors.clear()
        os.close(descriptor)
