"""A connection to a chain: time limits, retries for questions that may be asked twice, and decoded refusals."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import requests
from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError
from eth_utils.abi import function_abi_to_4byte_selector
from web3 import HTTPProvider, Web3
from web3.exceptions import BadResponseFormat, BlockNotFound, ContractLogicError, Web3Exception, Web3RPCError
from web3.middleware import ExtraDataToPOAMiddleware
from web3.types import BlockIdentifier

from assay.chain.errors import AnswerError, ChainError, RevertedError

Answer = TypeVar("Answer")

TIMEOUT = 20.0  # seconds for one answer
ATTEMPTS = 5
# ValueError: an answer that is no JSON, or no text, as proxies give that cut answers off or add pages of their own.
TRANSIENT = (requests.RequestException, TimeoutError, ConnectionError, ValueError, BadResponseFormat)
_BUSY = ("rate limit", "too many requests", "timeout", "temporarily", "overloaded")
# Of several nodes behind one address, one may not have the newest block yet: geth's, Nethermind's and anvil's words.
_BEHIND = ("header not found", "unknown block", "blockoutofrange")


class Chain:
    """One RPC endpoint and the contracts' error definitions.

    `as_of` is the block whose state contracts are asked about. Behind one address there may be several nodes, and the
    newest block of one is not that of the next: whoever compares answers with events names the block of both.
    """

    def __init__(self, url: str, errors: list[dict[str, Any]] | None = None, timeout: float = TIMEOUT) -> None:
        self.url = url
        self.as_of: BlockIdentifier = "latest"
        self.web3 = Web3(HTTPProvider(url, request_kwargs={"timeout": timeout}, exception_retry_configuration=None))
        # It would ask for the chain's id with every call; transactions are signed for the id that `Sender` asked for.
        self.web3.middleware_onion.remove("validation")
        # Proof-of-authority chains put more into a block's extra data than web3 accepts by itself.
        self.web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)
        self._errors = {function_abi_to_4byte_selector(each): each for each in errors or []}  # type: ignore[arg-type]

    def ask(self, what: str, question: Callable[[], Answer], attempts: int = ATTEMPTS) -> Answer:
        """The answer to a question that has no effects, retried while the endpoint fails to answer.

        Raises `ChainError` naming the endpoint when it keeps failing (`AnswerError` where it answers with an error that
        does not pass), `RevertedError` where a contract refuses.
        """
        for attempt in range(attempts):
            try:
                return question()
            except ContractLogicError as error:
                raise RevertedError(what, self.reason(error)) from error
            except (*TRANSIENT, Web3RPCError) as error:
                passes = isinstance(error, BlockNotFound) or any(
                    word in str(error).lower() for word in (*_BUSY, *_BEHIND)
                )
                if isinstance(error, Web3RPCError) and not passes:
                    raise AnswerError(f"{what}: {self.url} answers with an error: {error}") from error
                if attempt + 1 == attempts:
                    raise ChainError(
                        f"{what}: no answer from {self.url} after {attempts} attempts ({error}): check the address "
                        "with `assay doctor`, or start a local chain with `assay chain up`"
                    ) from error
                time.sleep(min(4.0, 0.2 * 2**attempt))
            except Web3Exception as error:
                raise ChainError(f"{what}: {self.url} gives an answer that makes no sense: {error}") from error
        raise AssertionError("unreachable")

    def reason(self, error: ContractLogicError) -> str:
        """The refusal of a contract in words: its custom error with arguments, or its message."""
        data = error.data
        if isinstance(data, str) and data.startswith("0x") and len(data) >= 10:
            raw = bytes.fromhex(data[2:])
            definition = self._errors.get(raw[:4])
            if definition is not None:
                kinds = [each["type"] for each in definition["inputs"]]
                try:
                    values = decode(kinds, raw[4:])
                except DecodingError:
                    return str(definition["name"])
                return f"{definition['name']}({', '.join(map(_shown, values))})"
            return f"an unknown error {data[:10]}"
        return str(error.message or error)


def _shown(value: Any) -> str:
    """An argument of a refusal; numbers of tasks, rounds and cases as the command line writes them."""
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    return f"{value:#066x}" if isinstance(value, int) and value >> 128 else str(value)
