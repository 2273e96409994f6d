"""Accounts that act by themselves, transaction by transaction, and see what others are about to send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eth_account.signers.local import LocalAccount

from assay.chain.sender import Call
from assay.market.connection import Market

GAS = 16_000_000


class RefusedError(Exception):
    """A transaction that a contract refused; the text names the contract's error."""


@dataclass(frozen=True)
class Pending:
    """A transaction that waits to be mined."""

    sender: str
    call: Call


@dataclass
class Party:
    """An account that acts by itself, transaction by transaction."""

    market: Market
    name: str
    signer: LocalAccount

    @property
    def address(self) -> str:
        return str(self.signer.address)

    def sign(self, call: Call, *, nonce_ahead: int = 0, tip: int = 0, gas: int = GAS) -> bytes:
        """A transaction of this account, ready for the chain."""
        web3 = self.market.chain.web3
        transaction: dict[str, Any] = {
            "type": 2,
            "chainId": web3.eth.chain_id,
            "nonce": web3.eth.get_transaction_count(self.signer.address) + nonce_ahead,
            "to": call.to,
            "data": call.data,
            "value": call.value,
            "gas": call.gas or gas,
            "maxFeePerGas": tip + 10 * 10**9,
            "maxPriorityFeePerGas": tip,
        }
        return bytes(self.signer.sign_transaction(transaction).raw_transaction)

    def send_ahead(self, seen: Pending, tip: int = 5 * 10**9, after: int = 0) -> bytes:
        """Send what somebody else is about to send, at a price that gets it mined first; its hash. `after` counts
        transactions of this account that wait too."""
        raw = self.sign(seen.call, tip=tip, nonce_ahead=after)
        return bytes(self.market.chain.web3.eth.send_raw_transaction(raw))

    def send(self, call: Call) -> Any:
        """Send a transaction and have it mined; its receipt. Raises `RefusedError` where a contract reverts it."""
        chain = self.market.chain
        eth = chain.web3.eth
        request = {"from": self.address, "to": call.to, "data": call.data, "value": call.value, "gas": call.gas or GAS}
        chain_error = None
        try:
            chain.ask("asking beforehand", lambda: eth.call(request))  # type: ignore[arg-type]
        except Exception as error:  # sent all the same: that it was refused beforehand proves little
            chain_error = str(error)
        receipt = eth.wait_for_transaction_receipt(eth.send_raw_transaction(self.sign(call)))
        if receipt["status"] != 1:
            raise RefusedError(chain_error or "reverted")
        return receipt
