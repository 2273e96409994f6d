"""Codecs of a stage boundary: activations forward, their gradients back, as rows of bytes.

Sizes are known before a message arrives: they follow from the compression, the shapes, and which samples both ends
have seen. That is what lets a receiver post its receive early and never trust a length that a peer sends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch

from assay.group.compression.cache import SampleCache
from assay.group.compression.choice import CompressionChoice
from assay.group.compression.quantise import (
    decode_rows,
    decode_tiles,
    encode_rows,
    encode_tiles,
    row_bytes,
    tile_bytes,
)
from assay.group.errors import CompressionError


class BoundaryCodec(ABC):
    """One end of one boundary. A sample's values are one row, whatever their shape.

    `begin_step` is called at both ends with all sample numbers of a step before its first message: what counts as a
    first visit is fixed then, for all micro-batches of the step.
    """

    def __init__(self, sample_shape: tuple[int, ...], choice: CompressionChoice) -> None:
        self.sample_shape = sample_shape
        self.values = int(np.prod(sample_shape))
        self.choice = choice

    def begin_step(self, samples: torch.Tensor) -> None:  # noqa: B027 - optional for codecs without memory
        """Fix first visits for the step's (n,) sample numbers. Codecs without memory have nothing to do."""

    @abstractmethod
    def forward_bytes(self, samples: torch.Tensor) -> int:
        """Size of the forward message for (batch,) sample numbers."""

    @abstractmethod
    def encode_forward(self, activations: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        """(batch, *sample_shape) float32 to a flat uint8 message."""

    @abstractmethod
    def decode_forward(self, message: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        """A flat uint8 message to (batch, *sample_shape) float32."""

    def backward_bytes(self, batch: int) -> int:
        """Size of the backward message for `batch` samples."""
        if self.choice.scheme == "none":
            return 4 * self.values * batch
        return row_bytes(self.values, self.choice.backward_bits) * batch

    def encode_backward(self, gradients: torch.Tensor) -> torch.Tensor:
        """Gradients of the activations, quantised directly: (batch, *sample_shape) to a flat uint8 message."""
        rows = self._rows(gradients)
        if self.choice.scheme == "none":
            return _raw(rows)
        return encode_rows(rows, self.choice.backward_bits).reshape(-1)

    def decode_backward(self, message: torch.Tensor, batch: int) -> torch.Tensor:
        """Inverse of `encode_backward`."""
        self._check_size(message, self.backward_bytes(batch))
        if self.choice.scheme == "none":
            return _unraw(message, batch, self.values).reshape(batch, *self.sample_shape)
        rows = decode_rows(message.reshape(batch, -1), self.values, self.choice.backward_bits)
        return rows.reshape(batch, *self.sample_shape)

    def _rows(self, values: torch.Tensor) -> torch.Tensor:
        if tuple(values.shape[1:]) != self.sample_shape:
            raise CompressionError(
                f"the boundary carries samples of shape {self.sample_shape}, got {tuple(values.shape[1:])}; "
                "plan again after changing the model"
            )
        return values.detach().to(torch.float32).reshape(values.shape[0], -1)

    def _check_size(self, message: torch.Tensor, expected: int) -> None:
        if message.dtype != torch.uint8 or message.numel() != expected:
            raise CompressionError(
                f"a boundary message should have {expected} bytes, this one has {message.numel()} of {message.dtype}; "
                "both ends must agree on compression, shapes and the samples seen"
            )


class RawCodec(BoundaryCodec):
    """float32 both ways."""

    def forward_bytes(self, samples: torch.Tensor) -> int:
        return 4 * self.values * samples.numel()

    def encode_forward(self, activations: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        return _raw(self._rows(activations))

    def decode_forward(self, message: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        self._check_size(message, self.forward_bytes(samples))
        return _unraw(message, samples.numel(), self.values).reshape(-1, *self.sample_shape)


class DirectCodec(BoundaryCodec):
    """Activations quantised as they are: by group symmetric around 0 (`direct`), or in its own range (`tile`)."""

    def forward_bytes(self, samples: torch.Tensor) -> int:
        size = tile_bytes if self.choice.scheme == "tile" else row_bytes
        return size(self.values, self.choice.forward_bits) * samples.numel()

    def encode_forward(self, activations: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        encode = encode_tiles if self.choice.scheme == "tile" else encode_rows
        return encode(self._rows(activations), self.choice.forward_bits).reshape(-1)

    def decode_forward(self, message: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        self._check_size(message, self.forward_bytes(samples))
        decode = decode_tiles if self.choice.scheme == "tile" else decode_rows
        rows = decode(message.reshape(samples.numel(), -1), self.values, self.choice.forward_bits)
        return rows.reshape(-1, *self.sample_shape)


class ChangeCodec(BoundaryCodec):
    """AQ-SGD (Wang et al., NeurIPS 2022): a sample's first visit in full, later ones as quantised changes.

    Both ends keep m, the activation the receiver used last: a message carries Q(x - m), both set m to m + Q(x - m).
    The error of what is used shrinks with the change of the model between visits, instead of staying that of Q(x).
    """

    def __init__(self, sample_shape: tuple[int, ...], choice: CompressionChoice, cache: SampleCache) -> None:
        super().__init__(sample_shape, choice)
        if cache.values != self.values:
            raise CompressionError(f"the cache holds rows of {cache.values} values, the boundary has {self.values}")
        self.cache = cache
        self._known = np.zeros(cache.samples, dtype=bool)

    def begin_step(self, samples: torch.Tensor) -> None:
        numbers = samples.cpu().numpy()
        self._known[:] = False
        self._known[numbers] = self.cache.seen[numbers]

    def forward_bytes(self, samples: torch.Tensor) -> int:
        known = int(self._known[samples.cpu().numpy()].sum())
        return row_bytes(self.values, self.choice.forward_bits) * known + 4 * self.values * (samples.numel() - known)

    def encode_forward(self, activations: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        rows = self._rows(activations).cpu()
        known = torch.from_numpy(self._known[samples.cpu().numpy()])
        if known.all():
            return self.cache.encode_changes(samples, rows, self.choice.forward_bits).reshape(-1)
        self.cache.write(samples[~known], rows[~known])
        message = [_raw(rows[~known])]
        if known.any():
            message.append(self.cache.encode_changes(samples[known], rows[known], self.choice.forward_bits).reshape(-1))
        return torch.cat(message)

    def decode_forward(self, message: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        self._check_size(message, self.forward_bytes(samples))
        known = torch.from_numpy(self._known[samples.cpu().numpy()])
        new = int((~known).sum())
        changes = message[4 * self.values * new :]
        if new == 0:
            rows = self.cache.decode_changes(samples, changes.reshape(samples.numel(), -1), self.choice.forward_bits)
            return rows.reshape(-1, *self.sample_shape)
        rows = torch.empty(samples.numel(), self.values)
        rows[~known] = _unraw(message[: 4 * self.values * new], new, self.values)
        self.cache.write(samples[~known], rows[~known])
        if known.any():
            changes = changes.reshape(samples.numel() - new, -1)
            rows[known] = self.cache.decode_changes(samples[known], changes, self.choice.forward_bits)
        return rows.reshape(-1, *self.sample_shape)


def make_codec(
    choice: CompressionChoice, sample_shape: tuple[int, ...], samples: int, directory: Path | None, name: str
) -> BoundaryCodec:
    """One end of a boundary for a data set of `samples` samples; both ends call this with the same arguments."""
    if choice.scheme == "none":
        return RawCodec(sample_shape, choice)
    if choice.scheme == "aqsgd":
        return ChangeCodec(sample_shape, choice, SampleCache(samples, int(np.prod(sample_shape)), directory, name))
    return DirectCodec(sample_shape, choice)


def _raw(rows: torch.Tensor) -> torch.Tensor:
    return rows.cpu().contiguous().view(torch.uint8).reshape(-1)


def _unraw(message: torch.Tensor, batch: int, values: int) -> torch.Tensor:
    # A copy: slices of a message need not be aligned, and the caller must not share memory with a receive buffer.
    return message.contiguous().clone().view(torch.float32).reshape(batch, values)
