"""Uniform quantisation to 2 to 8 bits, packed: what both ends of a link compute, bit for bit.

The arithmetic is that of `assay.program.quantised`, where it is defined, so that what crosses a link between two
members is what a compressed task's program computes and a verifier replays. Rows are cut into groups of 128; each has
a scale, and in the tile scheme a minimum, of 8 significant bits (a bfloat16, the upper half of a float32).

Codes are a little-endian bit stream, each group starting on a byte (128 codes of any width fill whole bytes); the last
group is padded with zero codes to a multiple of 8.
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


def encode_changes(values: torch.Tensor, kept: Float32Array, numbers: NDArray[np.int64], bits: int) -> torch.Tensor:
    """Quantise values - kept[numbers] by row, and move `kept` to what the receiver will have: kept + Q(change).

    `values`: (rows, n) float32; `kept`: (samples, n), changed in place. Returns (rows, row_bytes(n, bits)) uint8.
    """
    rows = _rows(values, bits)
    if len(np.unique(numbers)) < len(numbers):
        # A sample twice in a message: its second change is relative to the first.
        each = range(len(numbers))
        return torch.cat([encode_changes(values[i : i + 1], kept, numbers[i : i + 1], bits) for i in each])
    out = np.empty((rows.shape[0], row_bytes(rows.shape[1], bits)), dtype=np.uint8)
    _encode_changes(rows, kept, numbers, bits, out)
    return torch.from_numpy(out)


def decode_changes(message: torch.Tensor, kept: Float32Array, numbers: NDArray[np.int64], bits: int) -> torch.Tensor:
    """Inverse of `encode_changes` at the other end: moves `kept` alike and returns the new rows, (rows, n)."""
    if len(np.unique(numbers)) < len(numbers):
        each = range(len(numbers))
        return torch.cat([decode_changes(message[i : i + 1], kept, numbers[i : i + 1], bits) for i in each])
    data = _message(message, row_bytes(kept.shape[1], bits), bits)
    rows = np.empty((data.shape[0], kept.shape[1]), dtype=np.float32)
    _decode_changes(data, kept, numbers, bits, rows)
    return torch.from_numpy(rows)


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
def _short(value: np.float32) -> np.float32:
    """Rounded to 8 significant bits; not-a-number beyond 2^100 or so."""
    spread = value * np.float32(65537.0)
    return spread - (spread - value)


@njit(cache=True, inline="always")
def _in_order(bits: np.int32) -> np.int32:
    """A float32's bits as an integer of the same order, and the inverse: negative ones are turned around. What is not a
    number lies beyond both infinities. Integers, because their minima and maxima vectorise."""
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@njit(cache=True, nogil=True)
def _encode(rows: Float32Array, bits: int, out: ByteArray, tiled: bool) -> None:
    # Written in passes over a group of 128 that vectorise: minimum and maximum, codes, then packing.
    count, length = rows.shape
    groups = (length + 127) // 128
    top = np.float32((1 << bits) - 1)
    middle = top * np.float32(0.5)
    half, one, zero = np.float32(0.5), np.float32(1), np.float32(0)
    away, smallest = np.float32(2.0**-8), np.float32(2.0**-100)
    word = np.empty(1, np.float32)
    word_bits = word.view(np.uint32)
    row_bits = rows.view(np.int32)
    infinity, sign = np.int32(0x7F800000), np.int32(0x7FFFFFFF)
    codes = np.zeros(128, np.uint8)
    for row in range(count):
        at = (4 if tiled else 2) * groups
        for group in range(groups):
            start = group * 128
            size = min(128, length - start)
            base = zero
            if tiled:
                least = most = _in_order(row_bits[row, start])
                for i in range(start, start + size):
                    ordered = _in_order(row_bits[row, i])
                    least = min(least, ordered)
                    most = max(most, ordered)
                low = high = np.float32(np.nan)
                if most <= infinity and least >= _in_order(np.int32(-0x800000)):
                    word_bits[0] = _in_order(least)
                    low = word[0]
                    word_bits[0] = _in_order(most)
                    high = word[0]
                if not abs(low) < smallest:
                    base = _short(low - abs(low) * away)
                word[0] = base
                upper = np.int64(word_bits[0]) >> 16
                out[row, 2 * groups + 2 * group] = upper & 255
                out[row, 2 * groups + 2 * group + 1] = upper >> 8
                scale = (high - base) / top
            else:
                most = np.int32(0)
                for i in range(start, start + size):
                    most = max(most, row_bits[row, i] & sign)
                word_bits[0] = most if most <= infinity else np.int32(0x7FC00000)
                scale = word[0] * np.float32(2) / top
            scale = zero if scale < smallest else _short(scale * (one + away))
            word[0] = scale
            upper = np.int64(word_bits[0]) >> 16
            out[row, 2 * group] = upper & 255
            out[row, 2 * group + 1] = upper >> 8
            inverse = zero if scale == zero else one / scale
            shift = half if tiled else middle + half
            for i in range(size):
                level = (rows[row, start + i] - base) * inverse + shift
                level = level if level > zero else zero  # not a number becomes 0
                level = level if level < top else top
                codes[i] = np.uint8(np.int32(level))
            padded = (size + 7) // 8 * 8
            for i in range(size, padded):
                codes[i] = 0
            if bits == 8:
                out[row, at : at + padded] = codes[:padded]
            elif bits == 4:
                for i in range(padded // 2):
                    out[row, at + i] = codes[2 * i] | codes[2 * i + 1] << 4
            else:
                for octet in range(padded // 8):
                    stream = np.int64(0)
                    for i in range(8):
                        stream |= np.int64(codes[8 * octet + i]) << (bits * i)
                    for i in range(bits):
                        out[row, at + octet * bits + i] = (stream >> (8 * i)) & 255
            at += padded * bits // 8


@njit(cache=True)
def _upper_half(data: ByteArray, row: int, place: int) -> np.uint32:
    """Two little-endian bytes as the upper half of a float32's bits."""
    return np.uint32((np.int64(data[row, place]) | np.int64(data[row, place + 1]) << 8) << 16)


@njit(cache=True, nogil=True)
def _decode(data: ByteArray, bits: int, out: Float32Array, tiled: bool) -> None:
    count, length = out.shape
    groups = (length + 127) // 128
    mask = (1 << bits) - 1
    middle = np.float32((1 << bits) - 1) * np.float32(0.5)
    word = np.empty(1, np.float32)
    word_bits = word.view(np.uint32)
    codes = np.zeros(128, np.uint8)
    for row in range(count):
        at = (4 if tiled else 2) * groups
        for group in range(groups):
            start = group * 128
            size = min(128, length - start)
            word_bits[0] = _upper_half(data, row, 2 * group)
            scale = word[0]
            padded = (size + 7) // 8 * 8
            if bits == 8:
                codes[:padded] = data[row, at : at + padded]
            elif bits == 4:
                for i in range(padded // 2):
                    codes[2 * i] = data[row, at + i] & 15
                    codes[2 * i + 1] = data[row, at + i] >> 4
            else:
                for octet in range(padded // 8):
                    stream = np.int64(0)
                    for i in range(bits):
                        stream |= np.int64(data[row, at + octet * bits + i]) << (8 * i)
                    for i in range(8):
                        codes[8 * octet + i] = (stream >> (bits * i)) & mask
            at += padded * bits // 8
            if tiled:
                word_bits[0] = _upper_half(data, row, 2 * groups + 2 * group)
                base = word[0]
                for i in range(size):
                    product = np.float32(codes[i]) * scale
                    out[row, start + i] = base + product
            else:
                for i in range(size):
                    out[row, start + i] = (np.float32(codes[i]) - middle) * scale


@njit(cache=True, nogil=True)
def _encode_changes(
    rows: Float32Array, kept: Float32Array, numbers: NDArray[np.int64], bits: int, out: ByteArray
) -> None:
    # Row by row: what one row needs stays in the cache.
    change = np.empty((1, rows.shape[1]), np.float32)
    for row in range(rows.shape[0]):
        number = numbers[row]
        for i in range(rows.shape[1]):
            change[0, i] = rows[row, i] - kept[number, i]
        message = out[row : row + 1]
        _encode(change, bits, message, False)
        _decode(message, bits, change, False)
        for i in range(rows.shape[1]):
            kept[number, i] += change[0, i]


@njit(cache=True, nogil=True)
def _decode_changes(
    data: ByteArray, kept: Float32Array, numbers: NDArray[np.int64], bits: int, out: Float32Array
) -> None:
    """kept[numbers] moved by the changes in `data`, and written to `out` too."""
    for row in range(data.shape[0]):
        number = numbers[row]
        _decode(data[row : row + 1], bits, out[row : row + 1], False)
        for i in range(out.shape[1]):
            value = kept[number, i] + out[row, i]
            kept[number, i] = value
            out[row, i] = value
