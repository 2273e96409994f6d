"""Hash trees that are asked node by node, so that a large one need not exist in memory at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from assay.commitments import tensor, tree
from assay.program.operator import Array


class HashTree(Protocol):
    """A plain tree (contracts/FORMAT.md, section 1)."""

    @property
    def depth(self) -> int:
        """Levels between leaves and root."""
        ...

    def node(self, height: int, index: int) -> bytes:
        """The hash `height` levels above the leaves; padding included."""
        ...


class ChunkTree(HashTree, Protocol):
    """The tree of a tensor."""

    def chunk(self, index: int) -> bytes:
        """The 1024 bytes of a chunk."""
        ...


def root(source: HashTree) -> bytes:
    """The root of a tree."""
    return source.node(source.depth, 0)


def below(source: HashTree, height: int, index: int, levels: int) -> bytes:
    """The 2^levels nodes `levels` below a node, one after the other."""
    first = index << levels
    return b"".join(source.node(height - levels, first + place) for place in range(1 << levels))


def siblings(source: HashTree, index: int, known: Mapping[tuple[int, int], bytes] | None = None) -> list[bytes]:
    """Siblings of a leaf from the bottom up; those in `known` (another's tree, equal to the left) come first."""
    known = known or {}
    proof = []
    for height in range(source.depth):
        place = (height, (index >> height) ^ 1)
        proof.append(known[place] if place in known else source.node(*place))
    return proof


@dataclass(frozen=True)
class LeafTree:
    """A tree over leaves held in memory."""

    leaves: Sequence[bytes]

    @cached_property
    def levels(self) -> list[list[bytes]]:
        """All levels, leaves (padded) first."""
        return tree.levels(self.leaves)

    @property
    def depth(self) -> int:
        return tree.depth_of(len(self.leaves))

    def node(self, height: int, index: int) -> bytes:
        return self.levels[height][index]


@dataclass(frozen=True)
class TensorTree:
    """The tree of a tensor held in memory."""

    values: Array

    @cached_property
    def levels(self) -> list[list[bytes]]:
        """All levels, chunk leaves (padded) first."""
        flat = np.ascontiguousarray(self.values).reshape(-1)
        return tree.levels([tensor.chunk_leaf(self.chunk(i)) for i in range(tensor.chunks_of(flat.size))])

    @property
    def depth(self) -> int:
        return tree.depth_of(tensor.chunks_of(self.values.size))

    def node(self, height: int, index: int) -> bytes:
        return self.levels[height][index]

    def chunk(self, index: int) -> bytes:
        return tensor.chunk(self.values, index)


def nodes_above(shown: bytes, height: int, index: int, levels: int) -> dict[tuple[int, int], bytes]:
    """Every node that a reveal under the node at (height, index) shows: those given, and those between."""
    level = [shown[at : at + 32] for at in range(0, len(shown), 32)]
    found: dict[tuple[int, int], bytes] = {}
    for above in range(levels + 1):
        bottom = height - levels + above
        first = index << (levels - above)
        found.update({(bottom, first + place): value for place, value in enumerate(level)})
        level = [tree.node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    return found
