# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, attr-defined, unreachable, var-annotated"
"""Roots of large tensors: SHA-256 over 1 KiB chunks and their tree, at the speed of the machine.

    leaf = SHA-256(00 || chunk), node = SHA-256(01 || left || right), padding leaf = 32 zero bytes

as contracts/FORMAT.md, section 1, has it. hashlib loses three quarters of its speed to call overhead at this chunk
size. The tensor is read in place (memory-mapped files too); each task hashes a subtree of 256 chunks within one core's
cache.
"""

from __future__ import annotations

import os
from functools import cache
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from numba import carray, njit

from assay.commitments import _sha256_lanes as lanes
from assay.engine.cpu import isa, launch
from assay.engine.cpu.vector import read_i32, read_i64, write_i64
from assay.errors import AssayError

Hashes = npt.NDArray[np.uint8]
"""Shape (n, 32)."""

CHUNK_BYTES = 1024
HASH_BYTES = 32
SUBTREE_DEPTH = 8  # levels that one task hashes: 256 chunks
LEAF_BLOCKS = 17  # 1 + 1024 bytes of message and 9 of padding
NODE_BLOCKS = 2  # 1 + 64 bytes and 9 of padding
NODE_DOMAIN = b"\x01"

_LANES = isa.UNIT.lanes
_VECTOR_BYTES = 4 * _LANES


def _has_instructions() -> bool:
    """Whether to use the SHA instructions; `ASSAY_SHA=lanes` forces the vector code."""
    return isa.host_features().get("sha", False) and os.environ.get("ASSAY_SHA", "") != "lanes"


USES_INSTRUCTIONS = _has_instructions()
MESSAGES = lanes.STREAMS if USES_INSTRUCTIONS else _LANES
_hash_messages = lanes.hash_with_instructions if USES_INSTRUCTIONS else lanes.hash_in_lanes

_LEAF_AREA = MESSAGES * 64 * LEAF_BLOCKS
_NODE_AREA = MESSAGES * 64 * NODE_BLOCKS
_DIGEST_AREA = HASH_BYTES * max(MESSAGES, 2)
_WORKSPACE = _LEAF_AREA + _NODE_AREA + _DIGEST_AREA + HASH_BYTES * (1 << SUBTREE_DEPTH)


class TensorHashError(AssayError):
    """An array that has no tensor root."""

    code: ClassVar[str] = "tensor-hash"


@njit
def _prepare(workspace):
    """Write the constant bytes of the messages: domain, the bit 1 after the data, zeros, the length in bits."""
    for i in range(0, _LEAF_AREA + _NODE_AREA, 8):
        write_i64(workspace + i, 0)
    for i in range(MESSAGES):
        leaf, leaf_end = workspace + i * 64 * LEAF_BLOCKS, workspace + (i + 1) * 64 * LEAF_BLOCKS
        lanes.store_byte(leaf + 1 + CHUNK_BYTES, 0x80)
        lanes.store_byte(leaf_end - 2, (8 * (1 + CHUNK_BYTES)) >> 8)
        lanes.store_byte(leaf_end - 1, (8 * (1 + CHUNK_BYTES)) & 255)
        node = workspace + _LEAF_AREA + i * 64 * NODE_BLOCKS
        lanes.store_byte(node, 1)
        lanes.store_byte(node + 1 + 2 * HASH_BYTES, 0x80)
        lanes.store_byte(node + 64 * NODE_BLOCKS - 2, (8 * (1 + 2 * HASH_BYTES)) >> 8)
        lanes.store_byte(node + 64 * NODE_BLOCKS - 1, (8 * (1 + 2 * HASH_BYTES)) & 255)


@njit
def _write_chunk(message, source, size, is_float):
    """Copy `size` <= 1024 bytes of a tensor behind the domain byte, NaNs canonical, filled up with zeros."""
    whole = size - size % _VECTOR_BYTES
    if is_float:
        for i in range(0, whole, _VECTOR_BYTES):
            lanes.copy_canonical(message + i, source + i)
    else:
        for i in range(0, whole, _VECTOR_BYTES):
            lanes.copy_words(message + i, source + i)
    for i in range(whole, size, 4):
        word = read_i32(source + i)
        is_nan = (word & 0x7FFFFFFF) > 0x7F800000
        lanes.store_word(message + i, np.int64(0x7FC00000) if is_float and is_nan else np.int64(word))
    for i in range(size, CHUNK_BYTES, 4):
        lanes.store_word(message + i, 0)


@njit
def _copy_hashes(destination, source, count):
    for i in range(0, HASH_BYTES * count, 8):
        write_i64(destination + i, read_i64(source + i))


@njit
def _hash_leaves(workspace, source, size, is_float, count, destination):
    """Leaves of `count` chunks of a tensor of which `size` bytes are left."""
    digests = workspace + _LEAF_AREA + _NODE_AREA
    for start in range(0, count, MESSAGES):
        valid = min(MESSAGES, count - start)
        for i in range(valid):
            offset = (start + i) * CHUNK_BYTES
            _write_chunk(
                workspace + i * 64 * LEAF_BLOCKS + 1, source + offset, min(CHUNK_BYTES, size - offset), is_float
            )
        _hash_messages(workspace, 64 * LEAF_BLOCKS, LEAF_BLOCKS, digests)
        _copy_hashes(destination + HASH_BYTES * start, digests, valid)


@njit
def _hash_nodes(workspace, children, count, destination):
    """`count` nodes over 2 * `count` hashes; destination may be `children`."""
    messages, digests = workspace + _LEAF_AREA, workspace + _LEAF_AREA + _NODE_AREA
    for start in range(0, count, MESSAGES):
        valid = min(MESSAGES, count - start)
        for i in range(valid):
            _copy_hashes(messages + i * 64 * NODE_BLOCKS + 1, children + 2 * HASH_BYTES * (start + i), 2)
        _hash_messages(messages, 64 * NODE_BLOCKS, NODE_BLOCKS, digests)
        _copy_hashes(destination + HASH_BYTES * start, digests, valid)


_TREE = launch.record_type("source", "size", "is_float", "count", "levels", "constants", "destination", "workspace")
_VARIANT = "-instructions" if USES_INSTRUCTIONS else "-lanes"


@launch.kernel(_TREE, lanes.__file__, variant=_VARIANT)
def _subtree_roots(parameters, task, worker):
    """Root of the task's 2^levels chunks, the missing ones padded."""
    p = carray(parameters, 1)[0]
    workspace = p.workspace + worker * _WORKSPACE
    hashes = workspace + _LEAF_AREA + _NODE_AREA + _DIGEST_AREA
    _prepare(workspace)
    width = 1 << p.levels
    count = min(width, p.count - task * width)
    offset = task * width * CHUNK_BYTES
    _hash_leaves(workspace, p.source + offset, p.size - offset, p.is_float != 0, count, hashes)
    for level in range(p.levels):
        if count % 2 == 1:
            _copy_hashes(hashes + HASH_BYTES * count, p.constants + HASH_BYTES * level, 1)
        count = (count + 1) // 2
        _hash_nodes(workspace, hashes, count, hashes)
    _copy_hashes(p.destination + HASH_BYTES * task, hashes, 1)


@launch.kernel(_TREE, lanes.__file__, variant=_VARIANT)
def _leaves(parameters, task, worker):
    """Leaves of the task's 2^levels chunks."""
    p = carray(parameters, 1)[0]
    workspace = p.workspace + worker * _WORKSPACE
    _prepare(workspace)
    first = task << p.levels
    offset = first * CHUNK_BYTES
    count = min(1 << p.levels, p.count - first)
    _hash_leaves(
        workspace, p.source + offset, p.size - offset, p.is_float != 0, count, p.destination + HASH_BYTES * first
    )


@launch.kernel(_TREE, lanes.__file__, variant=_VARIANT)
def _nodes(parameters, task, worker):
    """2^levels nodes over the hashes at `source`."""
    p = carray(parameters, 1)[0]
    workspace = p.workspace + worker * _WORKSPACE
    _prepare(workspace)
    first = task << p.levels
    count = min(1 << p.levels, p.count - first)
    _hash_nodes(workspace, p.source + 2 * HASH_BYTES * first, count, p.destination + HASH_BYTES * first)


@cache
def padding_constants() -> Hashes:
    """Value at every level of a subtree that is all padding: 32 zero bytes, then node(it, it), up to level 63."""
    constants = [bytes(HASH_BYTES)]
    for _ in range(63):
        constants.append(sha256(NODE_DOMAIN + 2 * constants[-1]).digest())
    return np.frombuffer(b"".join(constants), np.uint8).reshape(-1, HASH_BYTES)


def _run(kernel: launch.Kernel, source: int, size: int, is_float: bool, count: int, levels: int, out: Hashes,
         threads: int | None) -> None:  # fmt: skip
    workers = isa.threads(threads)
    parameters = np.array(
        [(
            source, size, int(is_float), count, levels, padding_constants().ctypes.data, out.ctypes.data,
            launch.scratch("sha256", workers * _WORKSPACE),
        )], _TREE,
    )  # fmt: skip
    launch.run(kernel, parameters, -(-count // (1 << levels)), workers)


def _checked(array: npt.NDArray[Any]) -> tuple[int, bool]:
    """Number of chunks, and whether the elements are floats."""
    if array.dtype not in (np.dtype("<f4"), np.dtype("<i4")):
        raise TensorHashError(f"a tensor to commit to holds float32 or int32, not {array.dtype}: convert it first")
    if not array.flags.c_contiguous:
        raise TensorHashError(f"an array with strides {array.strides} is not contiguous: pass np.ascontiguousarray(it)")
    if array.size == 0:
        raise TensorHashError(f"an array of shape {array.shape} has no elements and so no root: leave it out")
    return -(-array.nbytes // CHUNK_BYTES), array.dtype == np.dtype("<f4")


def tensor_leaves(array: npt.NDArray[Any], threads: int | None = None) -> Hashes:
    """Leaves of a float32 or int32 array (C-contiguous, any shape), shape (chunks, 32). NaNs count as 0x7fc00000."""
    count, is_float = _checked(array)
    leaves = np.empty((count, HASH_BYTES), np.uint8)
    _run(_leaves, array.ctypes.data, array.nbytes, is_float, count, SUBTREE_DEPTH, leaves, threads)
    return leaves


def merkle_levels(leaves: Hashes, threads: int | None = None) -> list[Hashes]:
    """All levels of the tree over `leaves` (n, 32), from the leaves padded to a power of two up to the root (1, 32)."""
    if leaves.ndim != 2 or leaves.shape[1] != HASH_BYTES or len(leaves) == 0 or leaves.dtype != np.uint8:
        raise TensorHashError(f"leaves are uint8 of shape (n >= 1, 32), not {leaves.dtype} of shape {leaves.shape}")
    count = len(leaves)
    depth = (count - 1).bit_length()
    level = np.zeros((1 << depth, HASH_BYTES), np.uint8)
    level[:count] = leaves
    levels = [level]
    for height in range(depth):
        count = (count + 1) // 2
        level = np.empty((len(levels[-1]) // 2, HASH_BYTES), np.uint8)
        _run(_nodes, levels[-1].ctypes.data, 0, False, count, SUBTREE_DEPTH, level, threads)
        level[count:] = padding_constants()[height + 1]
        levels.append(level)
    return levels


def tensor_root(array: npt.NDArray[Any], threads: int | None = None) -> bytes:
    """Root of a float32 or int32 array (C-contiguous, any shape, memory-mapped or not), read once and in place."""
    count, is_float = _checked(array)
    depth = (count - 1).bit_length()
    levels = min(SUBTREE_DEPTH, depth)
    roots = np.empty((-(-count >> levels), HASH_BYTES), np.uint8)
    _run(_subtree_roots, array.ctypes.data, array.nbytes, is_float, count, levels, roots, threads)
    while levels < depth:
        count = len(roots)
        padded = np.empty((count + 1, HASH_BYTES), np.uint8)
        padded[:count], padded[count] = roots, padding_constants()[levels]
        roots = np.empty(((count + 1) // 2, HASH_BYTES), np.uint8)
        _run(_nodes, padded.ctypes.data, 0, False, len(roots), SUBTREE_DEPTH, roots, threads)
        levels += 1
    return bytes(roots[0])
