"""A daemon that speaks IPFS's HTTP interface and stalls, cuts off, lies, or sends other bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from faulty_ipfs import Daemon

from assay.storage.errors import StalledError, StorageError
from assay.storage.ipfs import IpfsStore
from assay.storage.store import fetch
from assay.tasks.references import FileReference, fetch_file

CONTENT = np.random.default_rng(1).bytes(300_000)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon()
    yield daemon
    daemon.close()


@pytest.fixture
def locator(daemon: Daemon) -> str:
    return f"ipfs:{daemon.put(CONTENT)}"


@pytest.fixture
def store(daemon: Daemon) -> IpfsStore:
    return IpfsStore(daemon.address, timeout=0.7)


def quick(seconds: float) -> None:
    assert seconds <= 8


@pytest.mark.parametrize("mode", ["stall", "stall in the middle", "cut", "error", "page"])
def test_a_fault_now_and_then_costs_an_attempt_only(
    mode: str, daemon: Daemon, locator: str, store: IpfsStore, tmp_path: Path
) -> None:
    daemon.modes[:] = [mode, mode]
    target = fetch(store, locator, tmp_path / "file", 10**6, size=len(CONTENT), pause=quick)
    assert target.read_bytes() == CONTENT
    assert len(daemon.offsets) == 3
    if mode in ("cut", "stall in the middle"):
        assert daemon.offsets[1] > 0


@pytest.mark.parametrize("mode", ["stall", "error", "page"])
def test_a_fault_for_good_is_told(mode: str, daemon: Daemon, locator: str, store: IpfsStore, tmp_path: Path) -> None:
    daemon.modes[:] = [mode] * 9
    with pytest.raises(StorageError, match="IPFS daemon at"):
        fetch(store, locator, tmp_path / "file", 10**6, size=len(CONTENT), attempts=2, pause=quick)
    assert not (tmp_path / "file").exists()


def test_a_store_that_trickles_is_left(daemon: Daemon, locator: str, store: IpfsStore, tmp_path: Path) -> None:
    daemon.modes[:] = ["trickle"] * 9
    with pytest.raises(StalledError, match="another place"):
        fetch(store, locator, tmp_path / "file", 10**6, size=len(CONTENT), pause=quick, patience=0.3)


@pytest.mark.parametrize("modes", [["other"], ["cut", "other"], ["endless"]])
def test_other_bytes_never_pass_for_the_file_and_do_not_spoil_the_next_try(
    modes: list[str], daemon: Daemon, locator: str, store: IpfsStore, tmp_path: Path
) -> None:
    """A node serves another file, or the rest of another file after the right beginning, or more than the file."""
    daemon.modes[:] = modes
    reference = FileReference((locator,), len(CONTENT), hashlib.sha256(CONTENT).digest())
    with pytest.raises(StorageError):
        fetch_file([store], reference, tmp_path / "file", 10**6)
    assert not (tmp_path / "file").exists()
    assert fetch_file([store], reference, tmp_path / "file", 10**6).read_bytes() == CONTENT


def test_an_answer_that_is_no_json_is_told(daemon: Daemon, store: IpfsStore, tmp_path: Path) -> None:
    daemon.is_honest_to_add = False
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(StorageError):
        store.put(tmp_path / "file")
    with pytest.raises(StorageError):
        store.check()
