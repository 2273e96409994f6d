"""Measure delay and bandwidth between members over plain TCP, and a member's own speed, for `cluster.toml`.

The listening member echoes: an 8-byte request carries the number of bytes to send back. Delay is half the fastest of
several empty round trips; bandwidth comes from one transfer long enough to leave TCP's slow start behind, timed from
its middle on.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from assay.group.errors import ClusterError

# What a stranger may ask a listening member to send in one request.
LARGEST_TRANSFER = 1 << 30
_REQUEST = struct.Struct("<4sQ")
_MAGIC = b"AGM1"
_BLOCK = bytes(1 << 16)


@dataclass(frozen=True)
class LinkMeasurement:
    """One way of a link: seconds of delay and bytes a second."""

    delay_seconds: float
    bandwidth: float


def serve_measurements(listener: socket.socket, stop: threading.Event) -> None:
    """Answer measurements on a bound, listening socket until `stop` is set. One client at a time."""
    listener.settimeout(0.2)
    while not stop.is_set():
        try:
            client, _ = listener.accept()
        except TimeoutError:
            continue
        # A peer that breaks off, or sends anything else, ends its own connection only.
        with client, contextlib.suppress(OSError, ClusterError):
            _serve_client(client)


@contextlib.contextmanager
def measurement_server(host: str, port: int) -> Iterator[int]:
    """Serve in a thread; yields the port (a free one for 0)."""
    stop = threading.Event()
    try:
        listener = socket.create_server((host, port))
    except OSError as error:
        raise ClusterError(f"cannot listen on {host}:{port}: {error.strerror}; choose another port") from error
    with listener:
        thread = threading.Thread(target=serve_measurements, args=(listener, stop), daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            stop.set()
            thread.join()


def measure_link(host: str, port: int, transfer_bytes: int = 8 << 20, trips: int = 8) -> LinkMeasurement:
    """Measure the link to a serving member; raises ClusterError where it cannot be reached."""
    try:
        with socket.create_connection((host, port), timeout=30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            fastest = min(_transfer(connection, 0)[0] for _ in range(trips))
            _, second_half = _transfer(connection, transfer_bytes)
    except OSError as error:
        raise ClusterError(
            f"cannot measure the link to {host}:{port}: {error}; is `assay group measure --serve` running there?"
        ) from error
    return LinkMeasurement(fastest / 2, (transfer_bytes - transfer_bytes // 2) / max(second_half, 1e-9))


def measure_flops(size: int = 512, seconds: float = 0.5) -> float:
    """Sustained float32 operations a second of this machine's matrix products."""
    # Links are measured by processes that need nothing of torch.
    import torch

    first, second = torch.rand(size, size), torch.rand(size, size)
    torch.mm(first, second)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        torch.mm(first, second)
        count += 1
    return 2.0 * size**3 * count / (time.perf_counter() - started)


def render_links(name: str, flops: float, links: dict[str, LinkMeasurement]) -> str:
    """The measured entries as TOML, to be pasted into `cluster.toml`."""
    lines = ["[[device]]", f'name = "{name}"', f"flops = {flops:.4g}", ""]
    for peer, link in links.items():
        lines += [
            "[[link]]",
            f'between = ["{name}", "{peer}"]',
            f"delay_ms = {link.delay_seconds * 1e3:.3f}",
            f"bandwidth_mbps = {link.bandwidth * 8 / 1e6:.2f}",
            "",
        ]
    return "\n".join(lines)


def _serve_client(client: socket.socket) -> None:
    client.settimeout(30)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        request = _receive(client, _REQUEST.size)
        if request is None:
            return
        magic, wanted = _REQUEST.unpack(request)
        if magic != _MAGIC or wanted > LARGEST_TRANSFER:
            raise ClusterError(f"not a measurement request: {request.hex()}")
        client.sendall(_MAGIC)
        while wanted > 0:
            size = min(wanted, len(_BLOCK))
            client.sendall(_BLOCK[:size])
            wanted -= size


def _transfer(connection: socket.socket, wanted: int) -> tuple[float, float]:
    """Ask for bytes; returns seconds until the answer began, and seconds that its second half took."""
    started = time.perf_counter()
    connection.sendall(_REQUEST.pack(_MAGIC, wanted))
    if _receive(connection, len(_MAGIC)) != _MAGIC:
        raise ClusterError("the peer answers something else than measurements; check the address")
    answered = time.perf_counter() - started
    received, middle = 0, time.perf_counter()
    while received < wanted:
        block = connection.recv(min(1 << 20, wanted - received))
        if not block:
            raise ClusterError("the peer closed the connection in the middle of a transfer; measure again")
        if received < wanted // 2 <= received + len(block):
            middle = time.perf_counter()
        received += len(block)
    return answered, time.perf_counter() - middle


def _receive(connection: socket.socket, size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        block = connection.recv(size - len(data))
        if not block:
            return None
        data += block
    return data
