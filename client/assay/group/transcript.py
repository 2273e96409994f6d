"""What a member said to whom: every boundary message hashed, the hashes signed, so that garbage has an author.

During a segment each member keeps the SHA-256 of every boundary message it sent and received. At the segment's end the
sender signs a statement for each neighbour: the tree root over the hashes, in order of (step, direction, micro-batch).
The receiver compares it with what arrived. From there on a stage can be judged alone: replayed from the last checkpoint
with the messages that its neighbours signed, it must produce the messages that its own statement names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from eth_account import Account

from assay.commitments import tree
from assay.group.errors import GroupMessageError

STATEMENT_DOMAIN = b"assay-group-statement-1"

Signer = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Statement:
    """`sender` states that it sent `receiver` messages with this root in steps [first_step, last_step)."""

    task: int
    sender: str
    receiver: str
    first_step: int
    last_step: int
    messages: int
    root: bytes
    signature: bytes = b""

    def digest(self) -> bytes:
        """The 32 bytes that the sender signs."""
        head = f"{self.task}|{self.first_step}|{self.last_step}|{self.messages}".encode()
        parts = (STATEMENT_DOMAIN, head, self.sender.encode(), self.receiver.encode(), self.root)
        # Lengths before the parts: no two statements share an encoding.
        return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()

    def to_json(self) -> str:
        """The statement as it travels."""
        return json.dumps({**self.__dict__, "root": self.root.hex(), "signature": self.signature.hex()})

    @staticmethod
    def from_json(text: str, sender: str) -> Statement:
        """Parse a statement received from `sender`. Raises GroupMessageError naming it where it is not one."""
        try:
            fields = json.loads(text)
            return Statement(
                int(fields["task"]), str(fields["sender"]), str(fields["receiver"]), int(fields["first_step"]),
                int(fields["last_step"]), int(fields["messages"]), bytes.fromhex(fields["root"]),
                bytes.fromhex(fields["signature"]),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise GroupMessageError(f"{sender!r} sent something that is no statement ({error}); exclude it") from error


class Transcript:
    """Observes a member's boundary messages; give `observe` to its PipelineWorker.

    `keep`: also keep the messages themselves, which a replay of a neighbour needs as its inputs.
    """

    def __init__(self, keep: bool = False) -> None:
        self.step = 0
        self.keep = keep
        self.hashes: dict[tuple[str, str], dict[tuple[int, int], bytes]] = {}
        self.messages: dict[tuple[str, str], dict[tuple[int, int], torch.Tensor]] = {}

    def observe(self, direction: str, chunk: int, way: str, message: torch.Tensor) -> None:
        """Record one message; `way` is "sent" or "received"."""
        key = (self.step, chunk)
        data = message.cpu().numpy()
        self.hashes.setdefault((way, direction), {})[key] = hashlib.sha256(data.tobytes()).digest()
        if self.keep:
            self.messages.setdefault((way, direction), {})[key] = message.detach().cpu().clone()

    def root(self, way: str, direction: str) -> tuple[bytes, int]:
        """Tree root over the hashes of one way and direction, and their number."""
        hashes = self.hashes.get((way, direction), {})
        if not hashes:
            raise GroupMessageError(f"no {direction} message was {way} in this segment; nothing can be stated about it")
        return tree.root([hashes[key] for key in sorted(hashes)]), len(hashes)

    def begin_segment(self) -> None:
        """Forget the segment before; its statements have been exchanged."""
        self.hashes.clear()
        self.messages.clear()


def make_statement(
    transcript: Transcript, task: int, direction: str, sender: str, receiver: str, steps: tuple[int, int], sign: Signer
) -> Statement:
    """State and sign what was sent in `direction` during the segment."""
    root, count = transcript.root("sent", direction)
    plain = Statement(task, sender, receiver, *steps, count, root)
    return Statement(**{**plain.__dict__, "signature": sign(plain.digest())})


def check_statement(
    statement: Statement, transcript: Transcript, task: int, direction: str, sender: str, receiver: str,
    steps: tuple[int, int], address: str,
) -> None:  # fmt: skip
    """Raise GroupMessageError naming the sender unless the statement is signed by it and matches what arrived."""
    if (statement.task, statement.sender, statement.receiver) != (task, sender, receiver) or steps != (
        statement.first_step,
        statement.last_step,
    ):
        raise GroupMessageError(f"{sender!r} handed over a statement about something else: {statement}")
    if recover(statement.digest(), statement.signature) != address:
        raise GroupMessageError(f"the statement of {sender!r} is not signed by its key {address}; exclude the member")
    root, count = transcript.root("received", direction)
    if (root, count) != (statement.root, statement.messages):
        raise GroupMessageError(
            f"{sender!r} states {statement.messages} {direction} messages with root {statement.root.hex()[:16]}, but "
            f"{count} with root {root.hex()[:16]} arrived; replay its stage to find who is wrong"
        )


def account_signer(private_key: str) -> Signer:
    """A signer with an account's key; signatures are 65 bytes and can be checked on chain."""
    account = Account.from_key(private_key)

    def sign(digest: bytes) -> bytes:
        return bytes(account.unsafe_sign_hash(digest).signature)

    return sign


def recover(digest: bytes, signature: bytes) -> str:
    """The address that signed, or "" where the signature is malformed."""
    try:
        return str(Account._recover_hash(digest, signature=signature))
    except Exception:  # the library raises several unrelated types for malformed signatures
        return ""


def statement_direction_root(messages: list[torch.Tensor]) -> bytes:
    """Root over whole messages in order, as a transcript would have it: for judging a replayed stage."""
    return tree.root([hashlib.sha256(message.cpu().numpy().tobytes()).digest() for message in messages])
