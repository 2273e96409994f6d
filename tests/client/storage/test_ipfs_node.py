"""Files on real IPFS nodes: put, fetched, resumed, pinned, and a proof that crosses from one node to another."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from assay.storage.errors import StorageError
from assay.storage.ipfs import IpfsStore
from assay.storage.store import fetch
from assay.tasks.references import decode_locations, fetch_file, put_file

NAMED = os.environ.get("ASSAY_TEST_IPFS")
"""Set by scripts/test, which makes the environment: then its absence is an error and no reason to skip."""
PYTHON = Path(NAMED) if NAMED else Path(__file__).parents[3] / ".toolchain" / "ipfs" / "bin" / "python"

pytestmark = pytest.mark.skipif(
    NAMED is None and not PYTHON.exists(),
    reason="no IPFS node: python3 scripts/support/bootstrap.py dev (or scripts/test) sets one up",
)


@dataclass(frozen=True)
class Node:
    """A running daemon: its HTTP port and the address its peers dial."""

    port: int
    peer: str

    @property
    def store(self) -> IpfsStore:
        return IpfsStore(f"/ip4/127.0.0.1/tcp/{self.port}/http", timeout=20)


def call(port: int, method: str) -> dict[str, object]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v0/{method}", method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, object] = json.load(answer)
        return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Node]]:
    """Starts nodes, each on a fresh folder, that end with the tests of this file."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(*peers: str) -> Node:
        folder, port = tmp_path_factory.mktemp("node"), free_port()
        words = [PYTHON, Path(__file__).with_name("ipfs_daemon.py"), str(port), folder / "blocks", *peers]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT)
        running.append(process)
        end = time.monotonic() + 60
        while True:
            try:
                addresses = call(port, "id")["Addresses"]
                assert isinstance(addresses, list)
                return Node(port, addresses[0])
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < end, (folder / "log").read_text()
                time.sleep(0.1)

    yield begin
    for process in running:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def pair(start: Callable[..., Node]) -> tuple[Node, Node]:
    """Two nodes, the second connected to the first."""
    first = start()
    second = start(first.peer)
    end = time.monotonic() + 20
    while not call(second.port, "swarm/peers")["Peers"]:
        assert time.monotonic() < end, "the second node does not reach the first"
        time.sleep(0.1)
    return first, second


@pytest.fixture
def content(tmp_path: Path) -> Path:
    path = tmp_path / "content"
    path.write_bytes(os.urandom(1_500_001))
    return path


def test_a_node_gives_back_what_was_put(pair: tuple[Node, Node], content: Path, tmp_path: Path) -> None:
    store, seen = pair[0].store, list[int]()
    assert "IPFS daemon" in store.check()
    locator = store.put(content, lambda done, size: seen.append(done))
    assert seen[-1] == 1_500_001
    target = fetch(store, locator, tmp_path / "fetched", limit=2_000_000, size=1_500_001)
    assert target.read_bytes() == content.read_bytes()


def test_a_half_fetched_file_is_finished(pair: tuple[Node, Node], content: Path, tmp_path: Path) -> None:
    store = pair[0].store
    locator = store.put(content)
    (tmp_path / "fetched.part").write_bytes(content.read_bytes()[:700_000])
    steps: list[int] = []
    target = fetch(
        store, locator, tmp_path / "fetched", limit=2_000_000, size=1_500_001,
        progress=lambda done, size: steps.append(done),
    )  # fmt: skip
    assert steps[0] > 700_000
    assert target.read_bytes() == content.read_bytes()


def test_a_file_that_was_put_is_pinned(pair: tuple[Node, Node], content: Path, tmp_path: Path) -> None:
    store = pair[0].store
    locator = store.put(content)
    name = locator.partition(":")[2]
    call(pair[0].port, f"pin/add?arg={name}")  # Kubo pins what is added; this node is told
    call(pair[0].port, "repo/gc")
    fetch(store, locator, tmp_path / "fetched", limit=2_000_000, size=1_500_001)


def test_two_nodes_name_a_file_alike(pair: tuple[Node, Node], content: Path) -> None:
    assert pair[0].store.put(content) == pair[1].store.put(content)


def test_a_missing_file_is_an_error_in_finite_time(start: Callable[..., Node], tmp_path: Path) -> None:
    store = replace_timeout(start(), 2.0)
    unknown = "ipfs:bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
    with pytest.raises(StorageError):
        fetch(store, unknown, tmp_path / "fetched", limit=1000, size=10, attempts=2)
    assert not (tmp_path / "fetched").exists()


def replace_timeout(node: Node, seconds: float) -> IpfsStore:
    return IpfsStore(f"/ip4/127.0.0.1/tcp/{node.port}/http", timeout=seconds)


def test_a_proof_crosses_from_node_to_node_by_bitswap(pair: tuple[Node, Node], content: Path, tmp_path: Path) -> None:
    """The solver's node has the checkpoint; the verifier asks its own node, which gets the blocks from its peer."""
    solver, verifier = pair
    reference = put_file(solver.store, content)
    on_chain = decode_locations(reference.encode())
    target = fetch_file([verifier.store], on_chain, tmp_path / "checkpoint", 2_000_000)
    assert target.read_bytes() == content.read_bytes()
    wrong = replace(reference, digest=bytes(32))
    with pytest.raises(StorageError, match="other bytes"):
        fetch_file([verifier.store], wrong, tmp_path / "other", 2_000_000)
