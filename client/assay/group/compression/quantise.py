"""Uniform quantisation to 2 to 8 bits, packed: what both ends of a link compute, bit for bit.

Values are cut into groups of 128. A group's scale is max |x| * 2 / (2^b - 1), rounded up to bfloat16 (the upper half
of a float32, so its range never overflows); a code k in [0, 2^b) stands for (k - (2^b - 1) / 2) * scale, computed as
one float32 subtraction (exact) and one float32 product. The tile scheme gives each group its own minimum as well
(bfloat16, rounded down): k stands for minimum + k * scale, a product and a sum, each rounded.

Codes are a little-endian bit stream, each group starting on a byte (128 codes of any width fill whole bytes); the last
group is padded with zero codes to a multiple of 8. Not-a-number is sent as the middle code; an infinity makes the
scale infinite and with it every value of the group, so a diverged run stays visibly diverged.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from assay.group.errors import CompressionError

GROUP = 128

ByteArray = NDArray[np.uint8]
Float32Array = NDArray[np.float32]
ScaleArray = NDArray[np.uint16]


def packed_bytes(values: int, bits: int) -> int:
    """Bytes of the codes of one row of `values` values."""
    full, rest = divmod(values, GROUP)
    return full * GROUP * bits // 8 + (rest + 7) // 8 * bits


def scale_count(values: int) -> int:
    """Groups, and so scales, of one row."""
    return (values + GROUP - 1) // GROUP


def row_bytes(values: int, bits: int) -> int:
    """Bytes on the wire of one quantised row: scales (2 bytes each), then codes."""
    return 2 * scale_count(values) + packed_bytes(values, bits)


def tile_bytes(values: int, bits: int) -> int:
    """The same for the tile scheme, which also sends each group's minimum."""
    return 4 * scale_count(values) + packed_bytes(values, bits)


def encode_rows(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Quantise each row on its own: (rows, n) float32 to (rows, row_bytes(n, bits)) uint8, on the CPU."""
    rows = _rows(values, bits)
    out = np.empty((rows.shape[0], row_bytes(rows.shape[1], bits)), dtype=np.uint8)
    _encode(rows, bits, out, False)
    return torch.from_numpy(out)


def decode_rows(message: torch.Tensor, length: int, bits: int) -> torch.Tensor:
    """Inverse of `encode_rows`: (rows, bytes) uint8 to (rows, length) float32; checks the size."""
    data = _message(message, row_bytes(length, bits), bits)
    out = np.empty((data.shape[0], length), dtype=np.float32)
    _decode(data, bits, out, False)
    return torch.from_numpy(out)


def encode_tiles(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Tile scheme: (rows, n) float32 to (rows, tile_bytes(n, bits)) uint8; each group has its own range."""
    rows = _rows(values, bits)
    out = np.empty((rows.shape[0], tile_bytes(rows.shape[1], bits)), dtype=np.uint8)
    _encode(rows, bits, out, True)
    return torch.from_numpy(out)


def decode_tiles(message: torch.Tensor, length: int, bits: int) -> torch.Tensor:
    """Inverse of `encode_tiles`."""
    data = _message(message, tile_bytes(length, bits), bits)
    out = np.empty((data.shape[0], length), dtype=np.float32)
    _decode(data, bits, out, True)
    return torch.from_numpy(out)


def _rows(values: torch.Tensor, bits: int) -> Float32Array:
    if not 2 <= bits <= 8:
        raise CompressionError(f"cannot quantise to {bits} bits; give 2 to 8")
    if values.dim() != 2 or values.dtype != torch.float32:
        raise CompressionError(f"expected (rows, values) of float32, got {tuple(values.shape)} of {values.dtype}")
    return np.ascontiguousarray(values.detach().cpu().numpy())


def _message(message: torch.Tensor, expected: int, bits: int) -> ByteArray:
    if message.dim() != 2 or message.shape[1] != expected or message.dtype != torch.uint8:
        raise CompressionError(
            f"a quantised message of {bits} bits should have rows of {expected} bytes, this one is "
            f"{tuple(message.shape)} of {message.dtype}; both ends must use the same compression"
        )
    return np.ascontiguousarray(message.cpu().numpy())


@njit(cache=True)
def _encode(rows: Float32Array, bits: int, out: ByteArray, tiled: bool) -> None:
    count, length = rows.shape
    groups = (length + 127) // 128
    top = np.float32((1 << bits) - 1)
    middle = top * np.float32(0.5)
    word = np.empty(1, np.float32)
    word_bits = word.view(np.uint32)
    for row in range(count):
        at = (4 if tiled else 2) * groups
        for group in range(groups):
            start = group * 128
            stop = min(start + 128, length)
            low, high = np.float32(np.inf), np.float32(-np.inf)
            for i in range(start, stop):
                value = rows[row, i]
                if value < low:
                    low = value
                if value > high:
                    high = value
            if low > high:  # nothing but not-a-number
                low = high = np.float32(0)
            if tiled:
                # bfloat16 towards minus infinity: the minimum must not exceed any value.
                word[0] = low
                upper = np.int64(word_bits[0]) >> 16
                if np.int64(word_bits[0]) & 0xFFFF and low < 0:
                    upper += 1
                out[row, 2 * groups + 2 * group] = upper & 255
                out[row, 2 * groups + 2 * group + 1] = upper >> 8
                word_bits[0] = np.uint32(upper << 16)
                base = word[0]
                word[0] = (high - base) / top
            else:
                base = np.float32(0)
                word[0] = max(-low, high) * np.float32(2) / top
            # bfloat16 towards plus infinity; a scale is never negative.
            upper = (np.int64(word_bits[0]) + 0xFFFF) >> 16
            out[row, 2 * group] = upper & 255
            out[row, 2 * group + 1] = upper >> 8
            word_bits[0] = np.uint32(upper << 16)
            scale = word[0]
            inverse = np.float32(0)
            if scale > 0:
                inverse = np.float32(1) / scale
            stream = np.int64(0)
            filled = 0
            padded = start + (stop - start + 7) // 8 * 8
            for i in range(start, padded):
                code = np.int64(0)
                if i < stop:
                    if tiled:
                        level = (rows[row, i] - base) * inverse
                    else:
                        level = rows[row, i] * inverse + middle
                    if level != level:
                        level = middle
                    code = np.int64(min(max(np.floor(level + np.float32(0.5)), np.float32(0)), top))
                stream |= code << filled
                filled += bits
                while filled >= 8:
                    out[row, at] = stream & 255
                    at += 1
                    stream >>= 8
                    filled -= 8


@njit(cache=True)
def _upper_half(data: ByteArray, row: int, place: int) -> np.uint32:
    """Two little-endian bytes as the upper half of a float32's bits."""
    return np.uint32((np.int64(data[row, place]) | np.int64(data[row, place + 1]) << 8) << 16)


@njit(cache=True)
def _decode(data: ByteArray, bits: int, out: Float32Array, tiled: bool) -> None:
    count, length = out.shape
    groups = (length + 127) // 128
    mask = (1 << bits) - 1
    middle = np.float32((1 << bits) - 1) * np.float32(0.5)
    word = np.empty(1, np.float32)
    word_bits = word.view(np.uint32)
    for row in range(count):
        at = (4 if tiled else 2) * groups
        for group in range(groups):
            start = group * 128
            stop = min(start + 128, length)
            word_bits[0] = _upper_half(data, row, 2 * group)
            scale = word[0]
            base = np.float32(0)
            if tiled:
                place = 2 * groups + 2 * group
                word_bits[0] = _upper_half(data, row, place)
                base = word[0]
            stream = np.int64(0)
            filled = 0
            padded = start + (stop - start + 7) // 8 * 8
            for i in range(start, padded):
                while filled < bits:
                    stream |= np.int64(data[row, at]) << filled
                    at += 1
                    filled += 8
                code = np.float32(stream & mask)
                stream >>= bits
                filled -= bits
                if i < stop:
                    if tiled:
                        product = code * scale
                        out[row, i] = base + product
                    else:
                        out[row, i] = (code - middle) * scale
