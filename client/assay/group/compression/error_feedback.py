"""Gradient compression between replicas: what one exchange could not say is added to the next.

Error feedback (Seide et al. 2014, Karimireddy et al. 2019): e is the running error, g + e is quantised, the new error
is g + e - Q(g + e). Nothing is lost, only late, so training converges as without compression.
"""

from __future__ import annotations

import torch

from assay.group.compression.quantise import decode_rows, encode_rows
from assay.group.errors import CompressionError


class ErrorFeedback:
    """The running error of one flat vector that is sent again and again. It is training state: checkpoint it."""

    def __init__(self, length: int, bits: int) -> None:
        self.bits = bits
        self.error = torch.zeros(length)

    def encode(self, values: torch.Tensor) -> torch.Tensor:
        """Quantise `values` + error, (length,) float32, to a flat uint8 message, and keep the new error."""
        if values.shape != self.error.shape:
            raise CompressionError(f"expected {self.error.numel()} values, got {tuple(values.shape)}")
        wanted = values + self.error
        message = encode_rows(wanted.reshape(1, -1), self.bits)
        self.error = wanted - decode_rows(message, values.numel(), self.bits).reshape(-1)
        return message.reshape(-1)

    def decode(self, message: torch.Tensor) -> torch.Tensor:
        """What the receiver makes of a message: (length,) float32."""
        return decode_rows(message.reshape(1, -1), self.error.numel(), self.bits).reshape(-1)
