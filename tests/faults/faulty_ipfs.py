"""A daemon that speaks IPFS's HTTP interface and stalls, cuts off, lies, or sends other bytes."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

CUT_AT = 100_000


class Daemon:
    """`contents` by name. `modes` is what each answer to `cat` does, one after the other; then `always`.

    Modes: honest, stall, error, page, other (bytes), endless, cut, stall in the middle, trickle.
    """

    def __init__(self, always: str = "honest", pause: float = 3.0) -> None:
        self.contents: dict[str, bytes] = {}
        self.modes: list[str] = []
        self.always, self.pause = always, pause
        self.offsets: list[int] = []
        self.is_honest_to_add = True
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *words: object) -> None:
                pass

            def do_POST(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                if "/cat" not in self.path:
                    content = self.body()
                    self.answer(outer.add(content) if "/add" in self.path else b'{"Name": ', 200)
                    return
                self.body()
                content = outer.contents.get(query["arg"][0])
                if content is None:
                    self.answer(b'{"Message": "block not found", "Code": 0, "Type": "error"}', 500)
                    return
                offset = int(query.get("offset", ["0"])[0])
                length = query.get("length")
                if length is not None:
                    self.answer(content[offset : offset + int(length[0])], 200)
                    return
                outer.offsets.append(offset)
                self.serve(content[offset:], outer.modes.pop(0) if outer.modes else outer.always)

            def body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                pieces = []
                while size := int(self.rfile.readline(), 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)

            def serve(self, body: bytes, mode: str) -> None:
                if mode == "stall":
                    time.sleep(outer.pause)
                    self.close_connection = True
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
                        self.wfile.write(body[: min(CUT_AT, len(body) // 2)])
                        self.wfile.flush()
                        time.sleep(outer.pause if mode == "stall in the middle" else 0)
                    self.close_connection = True
                else:
                    self.answer(body, 200)

            def answer(self, body: bytes, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *words: None  # type: ignore[method-assign] # clients leave in the middle
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        self.address = f"/ip4/127.0.0.1/tcp/{self.server.server_port}/http"

    def put(self, content: bytes) -> str:
        """Keep a file; returns its name."""
        name = "bafkrei" + hashlib.sha256(content).hexdigest()
        self.contents[name] = content
        return name

    def add(self, form: bytes) -> bytes:
        """The answer to `/api/v0/add` with a form of one file."""
        if not self.is_honest_to_add:
            return b'{"Name": '
        boundary, _, rest = form.partition(b"\r\n")
        content = rest.partition(b"\r\n\r\n")[2].rpartition(b"\r\n" + boundary)[0]
        return json.dumps({"Name": "file", "Hash": self.put(content), "Size": str(len(content))}).encode()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
