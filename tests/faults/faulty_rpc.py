"""A proxy between the client and a chain's endpoint that drops, delays, garbles, lags behind, and changes the order."""

from __future__ import annotations

import json
import random
import threading
import time
import urllib.request
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LATEST = ("eth_call", "eth_getBalance", "eth_getTransactionCount")
"""Methods whose second parameter is the block they are about."""


class Proxy:
    """Passes calls on, except that `plan` may name a fault for the next call of a method.

    `chance` of a random one of `faults` for every other call; `lag` is how many blocks half of the calls are behind.
    """

    def __init__(
        self, target: str, chance: float = 0.0, faults: Sequence[str] = (), lag: int = 0, seed: int = 7
    ) -> None:
        self.target, self.chance, self.faults, self.lag = target, chance, list(faults), lag
        self.plan: dict[str, list[str]] = {}
        self.calls: list[str] = []
        self.happened = 0
        self._random = random.Random(seed)
        self._held: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *words: object) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = json.loads(body)
                method = request["method"]
                outer.calls.append(method)
                fault = outer.next_fault(method)
                if fault == "drop":
                    self.close_connection = True
                    return
                if fault in ("429", "503"):
                    self.answer(b"slow down", int(fault))
                    return
                if fault == "rate":
                    error = {"code": -32005, "message": "rate limit exceeded"}
                    self.answer(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode(), 200)
                    return
                behind = outer.lag > 0 and outer.is_heads()
                answer = outer.ask(request, behind, reorder=fault == "reorder")
                if fault == "lost":  # the node took the call, its answer never arrives
                    self.close_connection = True
                elif fault == "slow":
                    time.sleep(1.5)
                    self.close_connection = True
                elif fault == "cut":
                    self.answer(answer[: len(answer) // 2], 200)
                elif fault == "page":
                    self.answer(b"<html>\xff gateway</html>", 200)
                elif fault == "list":
                    self.answer(b"[]", 200)
                else:
                    self.answer(answer, 200)

            def answer(self, body: bytes, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *words: None  # type: ignore[method-assign]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def is_heads(self) -> bool:
        return self._random.random() < 0.5

    def next_fault(self, method: str) -> str:
        planned = self.plan.get(method, self.plan.get("*", []))
        fault = planned.pop(0) if planned else ""
        if not fault and self.faults and self._random.random() < self.chance:
            fault = self._random.choice(self.faults)
        self.happened += bool(fault)
        return fault

    def ask(self, request: dict[str, Any], behind: bool, reorder: bool) -> bytes:
        """The chain's answer; `behind`: as of a few blocks ago; `reorder`: events backwards, transactions later."""
        if reorder and request["method"] == "eth_sendRawTransaction":
            # Taken, and handed on only after the next one.
            self._held.append(json.dumps(request).encode())
            return json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": "0x" + "00" * 32}).encode()
        past = max(0, self.head() - self.lag) if behind else 0
        if behind:
            request = self.as_of(request, past)
            number = request["params"][1] if request["method"] in LATEST else "latest"
            if str(number).startswith("0x") and int(number, 16) > past:
                error = {"code": -32000, "message": "header not found"}
                return json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode()
        answer = self.forward(json.dumps(request).encode())
        if request["method"] == "eth_sendRawTransaction" and self._held:
            self.forward(self._held.pop(0))
        if reorder and request["method"] == "eth_getLogs":
            document = json.loads(answer)
            document["result"] = document.get("result", [])[::-1]
            return json.dumps(document).encode()
        if behind:
            return self.forget(request, answer, past)
        return answer

    def head(self) -> int:
        question = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "eth_blockNumber", "params": []})
        return int(json.loads(self.forward(question.encode()))["result"], 16)

    def as_of(self, request: dict[str, Any], past: int) -> dict[str, Any]:
        """The same question, about block `past` where it is about the newest."""
        method, values = request["method"], list(request.get("params", []))
        if method == "eth_getBlockByNumber" and values[0] == "latest":
            values[0] = hex(past)
        elif method in LATEST and values[1] == "latest":
            values[1] = hex(past)
        return {**request, "params": values}

    def forget(self, request: dict[str, Any], answer: bytes, past: int) -> bytes:
        """An answer without what happened after block `past`."""
        document = json.loads(answer)
        found, method = document.get("result"), request["method"]
        if method == "eth_blockNumber":
            document["result"] = hex(past)
        elif method == "eth_getLogs" and isinstance(found, list):
            known = [log for log in found if int(log["blockNumber"], 16) <= past]
            if "blockHash" in request["params"][0] and known != found:
                del document["result"]
                document["error"] = {"code": -32000, "message": "unknown block"}
            else:
                document["result"] = known
        elif method in ("eth_getTransactionReceipt", "eth_getBlockByNumber") and isinstance(found, dict):
            number = found.get("blockNumber", found.get("number"))
            document["result"] = found if int(number, 16) <= past else None
        return json.dumps(document).encode()

    def forward(self, body: bytes) -> bytes:
        request = urllib.request.Request(self.target, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=10) as found:
            answer: bytes = found.read()
        return answer

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()
