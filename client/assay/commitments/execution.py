"""The trees over a deterministic execution: states, steps, segments, traces, checkpoints and claims.

Formats: contracts/FORMAT.md, sections 1 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TypeVar

import numpy as np

from assay.commitments import tensor, tree
from assay.commitments.derivation import false_trace
from assay.commitments.tensor import Tensor

REPLAY_LEAF_DOMAIN = b"\x05"
PROFILE_LEAF_DOMAIN = b"\x06"
TRACE_VALUES = 64


def state_root(state: Sequence[Tensor], threads: int | None = None) -> bytes:
    """Root of a state: plain tree over its tensors' roots, in the program's order."""
    return tree.root([tensor.root(part, threads) for part in state])


data_root = state_root
"""Root of a task's data: plain tree over the data tensors' roots."""


def checkpoint_root(states: Sequence[bytes]) -> bytes:
    """Root over S + 1 state roots: the initial state, then the state after each segment."""
    return tree.root(states)


def step_root(operators: Sequence[bytes], next_state: bytes) -> bytes:
    """node(operator tree, next state root), from the roots of the step's operator outputs."""
    return tree.node(tree.root(operators), next_state)


def segment_root(states_after: Sequence[bytes]) -> bytes:
    """Root over the state roots after each step of a segment."""
    return tree.root(states_after)


def trace_leaf(values: np.ndarray) -> bytes:
    """Leaf of one step's trace: its 64 values (float32 or int32 bits, as uint32) as a tensor of one chunk."""
    if values.shape != (TRACE_VALUES,) or values.dtype != np.uint32:
        raise ValueError(f"a step's trace is {TRACE_VALUES} uint32 values, not {values.shape} of {values.dtype}")
    return tensor.chunk_leaf(values.astype("<u4").tobytes().ljust(tensor.CHUNK_BYTES, b"\0"))


def trace_root(steps: Sequence[bytes]) -> bytes:
    """Root over the trace leaves of a segment's steps."""
    return tree.root(steps)


@dataclass(frozen=True)
class ReplayLeaf:
    """What a replay claims of one segment."""

    segment: int
    end_root: bytes
    distance_bits: int  # binary32; 0 in exact mode
    trace_root: bytes

    def encode(self) -> bytes:
        """The bytes hashed after the domain byte: u32 segment ‖ end root ‖ u32 distance ‖ trace root."""
        return self.segment.to_bytes(4, "big") + self.end_root + self.distance_bits.to_bytes(4, "big") + self.trace_root

    def leaf(self) -> bytes:
        return sha256(REPLAY_LEAF_DOMAIN + self.encode()).digest()


@dataclass(frozen=True)
class ProfileLeaf:
    """What a profile claims of one segment."""

    segment: int
    clean_root: bytes
    noisy_root: bytes
    threshold_root: bytes
    separation_bits: int  # binary32
    trace_root: bytes

    def encode(self) -> bytes:
        """u32 segment ‖ clean end ‖ noisy end ‖ threshold vector root ‖ u32 separation ‖ trace root."""
        return (
            self.segment.to_bytes(4, "big")
            + self.clean_root
            + self.noisy_root
            + self.threshold_root
            + self.separation_bits.to_bytes(4, "big")
            + self.trace_root
        )

    def leaf(self) -> bytes:
        return sha256(PROFILE_LEAF_DOMAIN + self.encode()).digest()


Leaf = TypeVar("Leaf", bound=ReplayLeaf | ProfileLeaf)


def claim_root(leaves: Sequence[ReplayLeaf | ProfileLeaf]) -> bytes:
    """Root of a claim: plain tree over its segments' leaves in the order drawn."""
    return tree.root([leaf.leaf() for leaf in leaves])


def derived_false_claim(leaves: Sequence[Leaf], secret: bytes, task: int, round_number: int) -> list[Leaf]:
    """The one false claim a verifier with this secret may be made to show: one segment's trace root replaced by
    `false_trace`, the segment chosen by the same hash."""
    word = false_trace(secret, task, round_number)
    place = int.from_bytes(word, "big") % len(leaves)
    return [*leaves[:place], replace(leaves[place], trace_root=word), *leaves[place + 1 :]]
