"""Submitting a task: files first, then the posting, so that nothing on chain ever points to nothing.

A submission killed at any moment and started again posts the task once: the transaction's key is a hash of the posting.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from hashlib import sha256

from hexbytes import HexBytes

from assay.chain.errors import ChainError
from assay.chain.sender import Outcome, Sender, Sent
from assay.market.abi import interface_of
from assay.market.connection import Market
from assay.market.explain import coins
from assay.market.types import Posting
from assay.tasks.errors import TaskFileError

FALLBACK_SUBMIT_GAS = 400_000
"""Of a submission: measured 330 000, with some margin for the length of the locations."""


@dataclass(frozen=True)
class Submission:
    """A task on chain, and the transaction that brought it."""

    task_id: int
    sent: Sent
    repeated: bool  # whether this posting had been submitted before


def submission_key(posting: Posting, copy: int = 0) -> str:
    """The key of a posting's transaction; the same posting again (`copy` > 0) is another task."""
    return f"submit:{sha256(repr(astuple(posting)).encode()).hexdigest()}:{copy}"


def submit_posting(sender: Sender, market: Market, posting: Posting, another: bool = False) -> Submission:
    """Post the task and pay its escrow. Returns when the transaction is final.

    The same posting is submitted once, however often this is called, unless `another` asks for one more task. Raises
    `TaskFileError` where the account cannot pay, `RevertedError` where the market refuses the posting.
    """
    copy = 0
    while another and sender.find(sender.attempt(submission_key(posting, copy))[0]) is not None:
        copy += 1
    key, _ = sender.attempt(submission_key(posting, copy))
    repeated = sender.find(key) is not None
    if not repeated:
        escrow = market.tasks.escrow_of(posting)
        check_balance(sender, escrow)
        sender.submit(key, market.tasks.submit(posting, escrow))
    sent = sender.wait(key)
    if sent.outcome is not Outcome.SUCCEEDED:
        raise ChainError(
            f"the submission {sent.hash} was mined and refused: look at it with a block explorer, then submit again"
        )
    return Submission(task_of_transaction(market, sent), sent, repeated)


def check_balance(sender: Sender, escrow: int) -> None:
    """Raise `TaskFileError` unless the account can pay the escrow."""
    address = sender.chain.web3.to_checksum_address(sender.address)
    balance = sender.chain.ask("asking for the balance", lambda: sender.chain.web3.eth.get_balance(address))
    if balance <= escrow:
        raise TaskFileError(
            f"{sender.address} has {coins(balance)}, the escrow is {coins(escrow)} and gas comes on top: send it "
            "coins, withdraw what it has earned, or lower the prices in task.toml"
        )


def task_of_transaction(market: Market, sent: Sent) -> int:
    """Number of the task that a submission's transaction made."""
    receipt = market.chain.ask(
        "asking for the receipt",
        lambda: market.chain.web3.eth.get_transaction_receipt(HexBytes(sent.hash)),
    )
    for log in receipt["logs"]:
        if str(log["address"]).lower() == market.address("Market").lower():
            event = interface_of("Market").event_of(log)
            if event is not None and event.name == "Submitted":
                return int(event.arguments["taskId"])
    raise ChainError(f"the transaction {sent.hash} made no task: is chain.deployment the right one?")
