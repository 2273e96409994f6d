"""One network namespace a member, each with a TUN device whose packets a switch in user space delays and paces.

Real TCP connections run through it, with their slow start and windows. The kernel's own emulator (netem) is a module
that many machines lack, so delay and bandwidth are kept here. Needs root (or a user namespace) and `ip`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from assay.group.errors import SimulationError
from assay.group.network import Network
from assay.group.simulate.switch import run_switch

_Result = TypeVar("_Result")

INTERFACE = "assay0"
# Larger than the Internet's 1500 so that a user-space switch keeps up; windows grow in units of this.
MTU = 9000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI, _CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000


@dataclass(frozen=True)
class NamespaceNetwork:
    """Namespaces that are up: member i runs in `names[i]` and listens on `addresses[i]`."""

    names: tuple[str, ...]
    addresses: tuple[str, ...]

    def command(self, member: int, arguments: list[str]) -> list[str]:
        """The command line that runs `arguments` as that member."""
        return ["ip", "netns", "exec", self.names[member], *arguments]


def namespaces_permitted() -> bool:
    """Whether this process may make namespaces and TUN devices."""
    if shutil.which("ip") is None or not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return False
    name = f"assay-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode != 0:
        return False
    try:
        os.close(_in_namespace(name, lambda: _open_tun(INTERFACE)))
    except OSError:
        return False
    finally:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return True


@contextmanager
def namespace_network(network: Network) -> Iterator[NamespaceNetwork]:
    """Bring up a namespace for every device of `network` and the switch between them; all gone at the end."""
    if network.size > 250:
        raise SimulationError(f"{network.size} members are too many for one simulated subnet; use at most 250")
    names = tuple(f"assay-{os.getpid()}-{i}" for i in range(network.size))
    addresses = tuple(f"10.77.0.{i + 1}" for i in range(network.size))
    devices: list[int] = []
    stop_read, stop_write = os.pipe()
    child = 0
    try:
        for name, address in zip(names, addresses, strict=True):
            _ip("netns", "add", name)
            devices.append(_in_namespace(name, lambda: _open_tun(INTERFACE)))
            _in_namespace(name, _keep_windows)
            for command in (
                ["link", "set", "lo", "up"],
                ["addr", "add", f"{address}/16", "dev", INTERFACE],
                ["link", "set", INTERFACE, "mtu", str(MTU), "txqueuelen", "10000", "up"],
            ):
                _ip("-n", name, *command)
        # A process of its own: a thread would compete with the caller for the interpreter.
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.close(stop_write)
                run_switch(devices, network.delay_seconds.tolist(), network.bandwidth.tolist(), stop_read)
                status = 0
            finally:
                os._exit(status)
        yield NamespaceNetwork(names, addresses)
    finally:
        os.close(stop_write)
        if child:
            os.waitpid(child, 0)
        os.close(stop_read)
        for device in devices:
            os.close(device)
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SimulationError(
            f"`ip {' '.join(arguments)}` failed: {done.stderr.strip()}; without the privilege use --mode held"
        )


def _open_tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError:
        os.close(device)
        raise
    return device


def _keep_windows() -> None:
    """Let connections keep what they know of their link while they are idle, as members should (`group member --help`).
    Where /proc/sys cannot be written, they begin slowly every time a member has computed for a while."""
    with suppress(OSError):
        Path("/proc/sys/net/ipv4/tcp_slow_start_after_idle").write_text("0")


def _in_namespace(name: str, action: Callable[[], _Result]) -> _Result:
    """Run `action` inside the namespace: in a thread of its own, because a thread's namespace cannot leak out."""
    results: list[_Result] = []
    problems: list[OSError] = []
    libc = ctypes.CDLL(None, use_errno=True)

    def enter() -> None:
        try:
            with Path("/run/netns", name).open("rb") as handle:
                if libc.setns(handle.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns into {name}")
            results.append(action())
        except OSError as problem:
            problems.append(problem)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if problems:
        raise problems[0]
    return results[0]
