"""One connection to a chain that nobody else writes to: what was read stays true until this process writes."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.client import HTTPConnection
from queue import SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from eth_utils.conversions import to_hex
from hexbytes import HexBytes
from web3 import HTTPProvider
from web3.eth import Eth
from web3.types import RPCEndpoint, RPCResponse, TxParams

from assay.chain.rpc import Chain
from assay.roles.jobs import Jobs

READS = frozenset(
    {
        "eth_blockNumber",
        "eth_call",
        "eth_chainId",
        "eth_estimateGas",
        "eth_getBalance",
        "eth_getBlockByNumber",
        "eth_getLogs",
        "eth_getTransactionByHash",
        "eth_getTransactionCount",
        "eth_getTransactionReceipt",
        "eth_maxPriorityFeePerGas",
    }
)
"""Calls to the node that change nothing."""
QUESTIONS = frozenset({"call", "get_balance", "get_block", "get_logs", "get_transaction_receipt"})
FIGURES = frozenset({"block_number", "chain_id", "max_priority_fee"})
"""Names in web3's `eth` whose answers stay true until something is written."""
MINING_SECONDS = 30.0


class WritingProvider(HTTPProvider):
    """Keeps what was learnt since the last write. All accounts of a test share it."""

    def __init__(self, url: str) -> None:
        super().__init__(url, exception_retry_configuration=None)
        self.known: dict[str, Any] = {}
        self._mines_at_once = True
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=60)

    def _make_request(self, method: RPCEndpoint, request_data: bytes) -> bytes:
        self._connection.request("POST", "/", request_data, {"Content-Type": "application/json"})
        return self._connection.getresponse().read()

    def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        answer = super().make_request(method, params)
        if method not in READS:
            if method == "evm_setAutomine":
                self._mines_at_once = bool(params[0])
            elif method == "eth_sendRawTransaction" and "result" in answer and self._mines_at_once:
                self._wait_for(answer["result"])
            self.known.clear()
        return answer

    def _wait_for(self, digest: Any) -> None:
        """Anvil answers before it has mined what it was sent."""
        end = time.monotonic() + MINING_SECONDS
        while super().make_request(RPCEndpoint("eth_getTransactionReceipt"), [digest]).get("result") is None:
            if time.monotonic() > end:
                raise AssertionError(f"{digest} is not mined after {MINING_SECONDS:.0f} s")
            time.sleep(0.001)


class RememberingEth:
    """web3's `eth`, which spends most of a test's time on formats, asked once for everything between two writes."""

    def __init__(self, eth: Eth, provider: WritingProvider) -> None:
        self._eth, self._provider = eth, provider

    def __getattr__(self, name: str) -> Any:
        if name in FIGURES:
            return self._remember(name, lambda: getattr(self._eth, name))
        found = self._call if name == "call" else getattr(self._eth, name)
        if name not in QUESTIONS:
            return found
        return lambda *arguments: self._remember(f"{name}{arguments}", lambda: found(*arguments))

    def _call(self, request: TxParams, block: int | str = "latest") -> HexBytes:
        """A call past web3's formats; what fails goes through them, for its error."""
        plain = {name: value if isinstance(value, str) else to_hex(value) for name, value in request.items()}
        place = block if isinstance(block, str) else hex(block)
        answer = self._provider.make_request(RPCEndpoint("eth_call"), [plain, place])
        return HexBytes(answer["result"]) if "result" in answer else self._eth.call(request, block)  # type: ignore[arg-type]

    def _remember(self, question: str, ask: Callable[[], Any]) -> Any:
        known = self._provider.known
        if question not in known:
            known[question] = ask()
        return known[question]


def remember(chain: Chain, provider: WritingProvider) -> None:
    """Let a connection remember what any of those with this provider was told, until one of them writes."""
    chain.web3.provider = provider
    chain.web3.eth = RememberingEth(chain.web3.eth, provider)  # type: ignore[assignment]


class JobsAtOnce(Jobs):
    """A role's work, done in the order it is asked for: a test plays the same way every time."""

    def start(self, key: str, piece: Callable[[], Any]) -> bool:
        failure = self._failures.get(key)
        if key in self._results or (failure is not None and (failure.is_final or self.clock() < failure.not_before)):
            return False
        lane: SimpleQueue[Any] = SimpleQueue()
        for item in ((key, piece), None):
            lane.put(item)
        self._running.add(key)
        self._work(lane)
        return True

    def is_waiting(self, key: str) -> bool:
        """Whoever waits for another attempt waits for time to pass, as everybody else does."""
        return False
