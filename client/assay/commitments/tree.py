"""Plain Merkle trees (contracts/FORMAT.md, section 1) over 32-byte hashes.

The trees here are small (operators, steps, tensors of a state: thousands of leaves at most); the large ones, over the
chunks of a tensor, are made by `assay.commitments.sha256`.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from assay.errors import AssayError

HASH_BYTES = 32
ZERO_HASH = bytes(HASH_BYTES)
NODE_DOMAIN = b"\x01"


class ProofError(AssayError):
    """A Merkle proof does not have the shape its tree demands, or does not lead to the root."""

    code = "proof"


def node(left: bytes, right: bytes) -> bytes:
    """Inner node: H(01 ‖ left ‖ right)."""
    return sha256(NODE_DOMAIN + left + right).digest()


def depth_of(leaves: int) -> int:
    """Depth of a plain tree over `leaves` >= 1 leaves: ceil(log2 leaves)."""
    if leaves < 1:
        raise ProofError(f"a tree has at least one leaf, not {leaves}: check the number of elements it is made from")
    return (leaves - 1).bit_length()


def levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """All levels of the padded tree, from the leaves (padded to a power of two) up to the root."""
    depth = depth_of(len(leaves))
    level = list(leaves) + [ZERO_HASH] * ((1 << depth) - len(leaves))
    tree = [level]
    while len(level) > 1:
        level = [node(level[i], level[i + 1]) for i in range(0, len(level), 2)]
        tree.append(level)
    return tree


def root(leaves: Sequence[bytes]) -> bytes:
    """Root of the plain tree over `leaves`."""
    return levels(leaves)[-1][0]


def proof_of(tree: Sequence[Sequence[bytes]], index: int) -> list[bytes]:
    """Siblings of leaf `index` from the bottom up, out of `levels(...)`."""
    if not 0 <= index < len(tree[0]):
        raise ProofError(f"leaf {index} is outside a tree of {len(tree[0])} padded leaves")
    return [level[(index >> height) ^ 1] for height, level in enumerate(tree[:-1])]


def root_from(leaf: bytes, index: int, proof: Sequence[bytes]) -> bytes:
    """The root that `proof` leads to from `leaf` at `index`."""
    current = leaf
    for height, sibling in enumerate(proof):
        current = node(sibling, current) if (index >> height) & 1 else node(current, sibling)
    return current


def verify(leaf: bytes, index: int, leaves: int, proof: Sequence[bytes], expected: bytes) -> None:
    """Raise `ProofError` unless `leaf` is number `index` of the tree of `leaves` leaves with root `expected`."""
    depth = depth_of(leaves)
    if len(proof) != depth:
        raise ProofError(f"a proof in a tree of {leaves} leaves has {depth} hashes, this one {len(proof)}")
    if not 0 <= index < leaves:
        raise ProofError(f"leaf {index} is outside a tree of {leaves} leaves")
    found = root_from(leaf, index, proof)
    if found != expected:
        raise ProofError(f"the proof of leaf {index} leads to {found.hex()}, not to the root {expected.hex()}")
