"""A chain on this machine (anvil): started on a free port, stopped with the program that started it."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from assay.errors import AssayError

PR_SET_PDEATHSIG = 1  # from linux/prctl.h
START_SECONDS = 30.0
STOP_SECONDS = 5.0
LOOPBACK = "127.0.0.1"


class LocalChainError(AssayError):
    """The local chain could not be started."""

    code = "local-chain"


class AnvilNotFoundError(LocalChainError):
    """There is no anvil on this machine."""

    code = "anvil-not-found"


class PortTakenError(LocalChainError):
    """Something else listens on the port that was asked for."""

    code = "port-taken"


@dataclass(frozen=True)
class LocalChain:
    """A running anvil.

    `addresses` and `private_keys` (hexadecimal with 0x) are its funded accounts, in order. The keys are derived from
    the seed phrase given, by default a publicly known one: never send anything of value to them.
    """

    url: str
    chain_id: int
    addresses: tuple[str, ...]
    private_keys: tuple[str, ...]
    process: subprocess.Popen[bytes]

    def is_running(self) -> bool:
        """True until the process has ended."""
        return self.process.poll() is None

    def stop(self) -> None:
        """End the process, and wait for it. Stopping twice is no error."""
        if self.is_running():
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        atexit.unregister(self.stop)


def find_anvil() -> Path:
    """The anvil to run: $ASSAY_ANVIL, the one beside this Python (scripts/demo puts it there), or one on the PATH.

    Raises `AnvilNotFoundError` where there is none.
    """
    chosen = os.environ.get("ASSAY_ANVIL")
    if chosen:
        if not os.access(chosen, os.X_OK):
            raise AnvilNotFoundError(f"ASSAY_ANVIL names {chosen}, which is no program: correct or unset it")
        return Path(chosen)
    beside = Path(sys.executable).parent / "anvil"
    found = str(beside) if os.access(beside, os.X_OK) else shutil.which("anvil")
    if found is None:
        raise AnvilNotFoundError(
            "no anvil beside this Python or on the PATH: in a checkout run scripts/demo once, which brings it, "
            "elsewhere install Foundry, or set ASSAY_ANVIL to an anvil's path"
        )
    return Path(found)


def start_local_chain(
    *,
    port: int | None = None,
    accounts: int = 10,
    balance: int = 10_000,
    block_time: float | None = None,
    mnemonic: str | None = None,
    log: Path | None = None,
    options: tuple[str, ...] = (),
) -> LocalChain:
    """Start anvil on the loopback interface and wait until it answers.

    `port` is a free one where none is given; `balance` is each account's in whole coins; `block_time` is seconds
    between blocks, None for a block a transaction; `log` gets anvil's output, which is discarded otherwise; `options`
    are passed on to anvil. The chain ends with this process, however that ends (on Linux also when it is killed; the
    calling thread must live as long as the chain then).

    Raises `AnvilNotFoundError`, `PortTakenError`, or `LocalChainError` where it does not come up.
    """
    anvil = find_anvil()
    if port is not None and _is_taken(port):
        raise PortTakenError(f"port {port} on {LOOPBACK} is taken: stop what listens there or choose another port")
    command = [str(anvil), "--host", LOOPBACK, "--accounts", str(accounts), "--balance", str(balance)]
    if block_time is not None:
        command += ["--block-time", str(block_time)]
    if mnemonic is not None:
        command += ["--mnemonic", mnemonic]
    attempts = 1 if port is not None else 3
    for attempt in range(1, attempts + 1):
        number = port if port is not None else _free_port()
        try:
            return _launch([*command, "--port", str(number), *options], number, log)
        except PortTakenError:
            # Somebody took the free port in between.
            if attempt == attempts:
                raise
    raise AssertionError("unreachable")


@contextlib.contextmanager
def local_chain(
    *,
    port: int | None = None,
    accounts: int = 10,
    balance: int = 10_000,
    block_time: float | None = None,
    mnemonic: str | None = None,
    log: Path | None = None,
    options: tuple[str, ...] = (),
) -> Iterator[LocalChain]:
    """A local chain for the time of a block; arguments and errors as for `start_local_chain`."""
    chain = start_local_chain(
        port=port,
        accounts=accounts,
        balance=balance,
        block_time=block_time,
        mnemonic=mnemonic,
        log=log,
        options=options,
    )
    try:
        yield chain
    finally:
        chain.stop()


def _launch(command: list[str], port: int, log: Path | None) -> LocalChain:
    """Start anvil with the command line given and read its accounts."""
    with tempfile.TemporaryDirectory(prefix="assay-chain-") as folder:
        accounts_file = Path(folder) / "accounts.json"
        output_file = log if log is not None else Path(folder) / "output.log"
        quiet = [] if log is not None else ["--quiet"]
        with output_file.open("ab") as output:
            try:
                process = subprocess.Popen(
                    [*command, *quiet, "--config-out", str(accounts_file)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    # Out of the terminal's process group: Ctrl-C ends the program, which then ends its chain.
                    start_new_session=True,
                    preexec_fn=_end_with_parent,
                )
            except OSError as error:
                raise LocalChainError(f"{command[0]} does not start: {error}") from error
        atexit.register(process.kill)
        try:
            _wait_until_ready(process, port, output_file)
            record = _read_accounts(accounts_file)
            chain = LocalChain(
                url=f"http://{LOOPBACK}:{port}",
                chain_id=int(_call(port, "eth_chainId"), 16),
                addresses=tuple(record["available_accounts"]),
                private_keys=tuple(record["private_keys"]),
                process=process,
            )
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            atexit.unregister(process.kill)
    atexit.register(chain.stop)
    return chain


def _read_accounts(path: Path) -> dict[str, list[str]]:
    """What anvil says of its accounts; it may answer calls before it has written the file."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            record: dict[str, list[str]] = json.loads(path.read_text())
            return record
        except (FileNotFoundError, json.JSONDecodeError) as error:
            if time.monotonic() > end:
                raise LocalChainError(f"anvil answers but did not write its accounts to {path}: {error}") from error
            time.sleep(0.02)


def _end_with_parent() -> None:
    """In the child: the kernel ends it when its parent dies, even by SIGKILL (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, output_file: Path) -> None:
    """Return when anvil answers; raise `PortTakenError` or `LocalChainError` with its last words where it does not."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            words = output_file.read_text(errors="replace").strip()[-500:]
            if "in use" in words:
                raise PortTakenError(
                    f"port {port} on {LOOPBACK} is taken: stop what listens there or choose another port"
                )
            raise LocalChainError(f"anvil ended with exit code {process.returncode}: {words or 'it printed nothing'}")
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
            _call(port, "eth_chainId")
            return
        time.sleep(0.02)
    raise LocalChainError(
        f"anvil did not answer on port {port} within {START_SECONDS:.0f} s: is this machine overloaded?"
    )


def _call(port: int, method: str) -> str:
    """The result of a JSON-RPC call without parameters. Never goes through a proxy."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=START_SECONDS)
    try:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": []})
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        return str(json.loads(connection.getresponse().read())["result"])
    finally:
        connection.close()


def _is_taken(port: int) -> bool:
    """True where something listens on the port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0


def _free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        number: int = probe.getsockname()[1]
        return number
