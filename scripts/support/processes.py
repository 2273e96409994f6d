"""Runs other programs so that none outlives the script, however the script ends. Standard library only."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

PR_SET_PDEATHSIG = 1  # from linux/prctl.h
GRACE_SECONDS = 10.0


class SignalError(Exception):
    """A signal asked the script to stop; `exit_code` is 128 + its number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def _raise_interrupted(number: int, _frame: FrameType | None) -> None:
    raise SignalError(number)


@contextlib.contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """Within the block Ctrl-C, SIGTERM and a closed terminal raise `SignalError`."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, _raise_interrupted) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ask_for_signal_when_parent_dies(number: int) -> None:
    """In the child: even where the parent is killed with SIGKILL, the kernel sends `number` here (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def stop_group(process: subprocess.Popen[Any], first: int = signal.SIGTERM) -> None:
    """End a process started by `start` with everything in its group: `first`, then SIGKILL after a grace time."""
    for number in (first, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
            return


def start(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    output: IO[Any] | int | None = None,
    keep_open: Sequence[int] = (),
    death_signal: int = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start a program as the leader of a process group of its own, ended by `death_signal` if this script dies.

    `output` takes standard output and standard error; `keep_open` are file descriptors the program inherits.
    """
    return subprocess.Popen(
        [str(word) for word in command],
        env=None if environment is None else dict(environment),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        start_new_session=True,
        pass_fds=tuple(keep_open),
        preexec_fn=lambda: _ask_for_signal_when_parent_dies(death_signal),
    )


def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    output: IO[Any] | int | None = None,
    keep_open: Sequence[int] = (),
    timeout: float | None = None,
    death_signal: int = signal.SIGTERM,
) -> int:
    """Run a program to its end and return its exit code (negative for a signal).

    Raises `subprocess.TimeoutExpired` after `timeout` seconds; the program and its group are gone by then, as they are
    when `SignalError` or any other exception passes through.
    """
    process = start(
        command,
        environment=environment,
        folder=folder,
        output=output,
        keep_open=keep_open,
        death_signal=death_signal,
    )
    begin = time.monotonic()
    try:
        # Short waits: a signal's exception is then raised here and not after the program's end.
        while True:
            try:
                return process.wait(0.5)
            except subprocess.TimeoutExpired:
                if timeout is not None and time.monotonic() - begin > timeout:
                    raise
    except BaseException:
        stop_group(process, death_signal)
        raise
    finally:
        # Whatever the program left running in its group.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
