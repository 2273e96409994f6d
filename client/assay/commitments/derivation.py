"""What the false claim of a verifier differs by from its true one (contracts/FORMAT.md, section 3)."""

from __future__ import annotations

from hashlib import sha256


def false_trace(secret: bytes, task: int, round_number: int) -> bytes:
    """The trace root that takes the place of a true one: H(r ‖ u256 task ‖ u256 round)."""
    return sha256(secret + task.to_bytes(32, "big") + round_number.to_bytes(32, "big")).digest()
