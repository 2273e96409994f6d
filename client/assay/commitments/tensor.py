"""Tensor roots and the opening of single elements (contracts/FORMAT.md, section 1)."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from assay.commitments import tree
from assay.commitments.sha256 import merkle_levels, tensor_leaves, tensor_root

CHUNK_BYTES = 1024
CHUNK_ELEMENTS = CHUNK_BYTES // 4
CHUNK_DOMAIN = b"\x00"
CANONICAL_NAN = 0x7FC00000

Tensor = npt.NDArray[np.float32] | npt.NDArray[np.int32]


@dataclass(frozen=True)
class Opening:
    """One chunk of a tensor and its way to the tensor's root."""

    chunk: bytes  # CHUNK_BYTES bytes
    index: int  # number of the chunk
    proof: tuple[bytes, ...]

    def bits(self, element: int) -> int:
        """The 32 bits of the tensor's element `element`, which must lie in this chunk."""
        if element >> 8 != self.index:
            raise tree.ProofError(f"element {element} lies in chunk {element >> 8}, not in chunk {self.index}")
        start = 4 * (element & 255)
        return int.from_bytes(self.chunk[start : start + 4], "little")


def chunks_of(elements: int) -> int:
    """Number of chunks (leaves) of a tensor of `elements` elements."""
    return -(-elements // CHUNK_ELEMENTS)


def root(tensor: Tensor, threads: int | None = None) -> bytes:
    """Root of a float32 or int32 tensor of any shape; reads it in place when it is C-contiguous."""
    return tensor_root(np.ascontiguousarray(tensor).reshape(-1), threads)


def chunk(tensor: Tensor, index: int) -> bytes:
    """Chunk `index` as it is hashed: NaNs canonical, filled with zero bytes to 1024."""
    flat = np.ascontiguousarray(tensor).reshape(-1)
    part = flat[index * CHUNK_ELEMENTS : (index + 1) * CHUNK_ELEMENTS].copy()
    if part.dtype == np.float32:
        part.view(np.uint32)[np.isnan(part)] = CANONICAL_NAN
    return part.astype(part.dtype.newbyteorder("<"), copy=False).tobytes().ljust(CHUNK_BYTES, b"\0")


def chunk_leaf(data: bytes) -> bytes:
    """Leaf of one chunk of 1024 bytes: H(00 ‖ chunk)."""
    return sha256(CHUNK_DOMAIN + data).digest()


def levels(tensor: Tensor) -> list[list[bytes]]:
    """All levels of the tensor's tree, leaves first, as lists of hashes (for openings and reveals)."""
    flat = np.ascontiguousarray(tensor).reshape(-1)
    leaves = tensor_leaves(flat)
    return [[bytes(row) for row in level] for level in merkle_levels(leaves)]


def open_element(tensor: Tensor, element: int) -> Opening:
    """The chunk that holds `element`, with its proof."""
    index = element >> 8
    return Opening(chunk(tensor, index), index, tuple(tree.proof_of(levels(tensor), index)))
