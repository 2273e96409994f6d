"""Hold messages back until a slow link would have delivered them: a simulated network without any privilege.

The sender appends the time of sending, the receiver waits until the link's last message has passed, this one's bytes
have passed at the link's bandwidth, and the delay is over. Both processes must share a clock, so be on one machine.
"""

from __future__ import annotations

import struct
import time

import torch

STAMP_BYTES = 8


class LinkPacer:
    """One member's incoming links: `delay_seconds[peer]` and `bandwidth[peer]` (bytes a second), by global rank."""

    def __init__(self, delay_seconds: list[float], bandwidth: list[float]) -> None:
        self._delay, self._bandwidth = delay_seconds, bandwidth
        self._free = [0.0] * len(delay_seconds)

    def stamp(self, message: torch.Tensor) -> torch.Tensor:
        """The message with its time of sending appended."""
        stamp = torch.frombuffer(bytearray(struct.pack("<d", time.monotonic())), dtype=torch.uint8)
        return torch.cat([message, stamp])

    def release(self, peer: int, message: torch.Tensor) -> torch.Tensor:
        """Wait until the link from `peer` would have delivered the message; returns it without the stamp."""
        (sent,) = struct.unpack("<d", bytes(message[-STAMP_BYTES:].tolist()))
        passed = max(sent, self._free[peer]) + (message.numel() - STAMP_BYTES) / self._bandwidth[peer]
        self._free[peer] = passed
        time.sleep(max(0.0, passed + self._delay[peer] - time.monotonic()))
        return message[:-STAMP_BYTES]
