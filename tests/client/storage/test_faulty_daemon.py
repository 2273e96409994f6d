"""A daemon that speaks IPFS's HTTP interface and stalls, cuts off, lies, or sends other bytes."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from assay.storage.errors import StalledError, StorageError
from assay.storage.ipfs import IpfsStore
from assay.storage.store import fetch
from assay.tasks.references import FileReference, fetch_file

CONTENT = np.random.default_rng(1).bytes(300_000)
LOCATOR = "ipfs:bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"


class Handler(BaseHTTPRequestHandler):
    """`modes` is what each answer to `cat` does, one after the other; honest when there are none left."""

    protocol_version = "HTTP/1.1"
    modes: ClassVar[list[str]] = []
    offsets: ClassVar[list[int]] = []

    def log_message(self, *words: object) -> None:
        pass

    def do_POST(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "/cat" not in self.path:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.answer(b'{"Name": ', 200)
            return
        offset = int(query.get("offset", ["0"])[0])
        length = query.get("length")
        body = CONTENT[offset:] if length is None else CONTENT[offset : offset + int(length[0])]
        if length is not None:
            self.answer(body, 200)
            return
        self.offsets.append(offset)
        mode = self.modes.pop(0) if self.modes else "honest"
        if mode == "stall":
            time.sleep(3)
        elif mode == "error":
            self.answer(b'{"Message": "out of order", "Code": 0, "Type": "error"}', 500)
        elif mode == "page":
            self.answer(b"<html>Bad gateway</html>", 502)
        elif mode == "other":
            self.answer(bytes(len(body)), 200)
        elif mode == "endless":
            self.answer(body + bytes(100_000), 200)
        elif mode in ("cut", "stall in the middle", "trickle"):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if mode == "trickle":
                for place in range(40):
                    self.wfile.write(body[place : place + 1])
                    time.sleep(0.05)
            else:
                self.wfile.write(body[:100_000])
                self.wfile.flush()
                time.sleep(3 if mode == "stall in the middle" else 0)
            self.close_connection = True
        else:
            self.answer(body, 200)

    def answer(self, body: bytes, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def store() -> Iterator[IpfsStore]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *words: None  # type: ignore[method-assign] # clients leave in the middle
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    Handler.modes.clear()
    Handler.offsets.clear()
    yield IpfsStore(f"/ip4/127.0.0.1/tcp/{server.server_port}/http", timeout=0.7)
    server.shutdown()
    server.server_close()
    thread.join()


def quick(seconds: float) -> None:
    assert seconds <= 8


@pytest.mark.parametrize("mode", ["stall", "stall in the middle", "cut", "error", "page"])
def test_a_fault_now_and_then_costs_an_attempt_only(mode: str, store: IpfsStore, tmp_path: Path) -> None:
    Handler.modes[:] = [mode, mode]
    target = fetch(store, LOCATOR, tmp_path / "file", 10**6, size=len(CONTENT), pause=quick)
    assert target.read_bytes() == CONTENT
    assert len(Handler.offsets) == 3
    if mode in ("cut", "stall in the middle"):
        assert Handler.offsets[1] > 0


@pytest.mark.parametrize("mode", ["stall", "error", "page"])
def test_a_fault_for_good_is_told(mode: str, store: IpfsStore, tmp_path: Path) -> None:
    Handler.modes[:] = [mode] * 9
    with pytest.raises(StorageError, match="IPFS daemon at"):
        fetch(store, LOCATOR, tmp_path / "file", 10**6, size=len(CONTENT), attempts=2, pause=quick)
    assert not (tmp_path / "file").exists()


def test_a_store_that_trickles_is_left(store: IpfsStore, tmp_path: Path) -> None:
    Handler.modes[:] = ["trickle"] * 9
    with pytest.raises(StalledError, match="another place"):
        fetch(store, LOCATOR, tmp_path / "file", 10**6, size=len(CONTENT), pause=quick, patience=0.3)


@pytest.mark.parametrize("modes", [["other"], ["cut", "other"], ["endless"]])
def test_other_bytes_never_pass_for_the_file_and_do_not_spoil_the_next_try(
    modes: list[str], store: IpfsStore, tmp_path: Path
) -> None:
    """A node serves another file, or the rest of another file after the right beginning, or more than the file."""
    Handler.modes[:] = modes
    reference = FileReference((LOCATOR,), len(CONTENT), hashlib.sha256(CONTENT).digest())
    with pytest.raises(StorageError):
        fetch_file([store], reference, tmp_path / "file", 10**6)
    assert not (tmp_path / "file").exists()
    assert fetch_file([store], reference, tmp_path / "file", 10**6).read_bytes() == CONTENT


def test_an_answer_that_is_no_json_is_told(store: IpfsStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(StorageError):
        store.put(tmp_path / "file")
    with pytest.raises(StorageError):
        store.check()
