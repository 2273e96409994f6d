"""How the contracts number claims, rounds, accusations and reports: by a hash of what they are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eth_abi.abi import encode
from eth_utils.crypto import keccak


def number_of(kinds: Sequence[str], values: Sequence[Any]) -> int:
    """`uint256(keccak256(abi.encode(...)))` of values of these ABI types."""
    return int.from_bytes(keccak(encode(kinds, values)), "big")
