"""One contract at its address: calls to send, questions to ask."""

from __future__ import annotations

from typing import Any

from hexbytes import HexBytes
from web3.types import TxParams

from assay.chain.rpc import Chain
from assay.chain.sender import Call
from assay.market.abi import interface_of


class Contract:
    """Encodes calls for a `Sender` and asks views."""

    def __init__(self, chain: Chain, name: str, address: str) -> None:
        self.chain, self.name = chain, name
        self.address = chain.web3.to_checksum_address(address)
        self.interface = interface_of(name)

    def call(self, function: str, *arguments: Any, value: int = 0, gas: int | None = None) -> Call:
        """A transaction to send. `value` in wei; `gas` is estimated by the sender if None."""
        return Call(self.address, self.interface.encode(function, arguments), value, gas)

    def ask(self, function: str, *arguments: Any, sender: str | None = None) -> Any:
        """What a view returns as of the connection's block; nothing is sent.

        Raises `RevertedError` where the contract refuses.
        """
        data = self.interface.encode(function, arguments)
        request: TxParams = {"to": self.address, "data": HexBytes(data)}
        if sender is not None:
            request["from"] = self.chain.web3.to_checksum_address(sender)
        answer = self.chain.ask(f"{self.name}.{function}", lambda: self.chain.web3.eth.call(request, self.chain.as_of))
        return self.interface.result(function, bytes(answer))
