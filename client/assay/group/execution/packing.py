"""How a value lies on the wire: in full, as whole numbers of few bits, as the upper half of floats, or not at all.

A task that declares a compressed boundary computes with what quantisation leaves (`assay.program.quantised`), so the
values that cross have few bits, and packing them loses nothing. Which steps need a value is known beforehand: the first
visit of a sample is sent in full, later ones as changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint32]
"""A message's payload, in words of 4 bytes."""

FULL, SHORT = 32, 16
NEVER = 1 << 62


@dataclass(frozen=True)
class Packing:
    """A value that is sent in steps below `until` and from `since` on, with `bits` an element.

    FULL is all bits. SHORT is the upper half of a float whose lower half is 0. Fewer are whole numbers from 0, as
    integers or as floats.
    """

    bits: int = FULL
    until: int = 0
    since: int = 0

    def is_sent(self, step: int) -> bool:
        """Whether the value is sent in a step."""
        return step < self.until or step >= self.since

    def words(self, elements: int) -> int:
        """Words on the wire when it is sent."""
        return -(-elements * self.bits // 32)

    def pack(self, values: npt.NDArray[Any], out: Words) -> None:
        """Write (n,) float32 or int32 values into their words."""
        if self.bits == FULL:
            np.copyto(out, values.view(np.uint32))
            return
        packed = np.zeros(4 * out.size, np.uint8)
        if self.bits == SHORT:
            short = (values.view(np.uint32) >> np.uint32(16)).astype("<u2")
            packed[: 2 * values.size] = short.view(np.uint8)
        else:
            codes = values.astype(np.uint8)
            bits = np.unpackbits(codes[:, None], axis=1, count=self.bits, bitorder="little").reshape(-1)
            dense = codes if self.bits == 8 else np.packbits(bits, bitorder="little")
            packed[: dense.size] = dense
        np.copyto(out, packed.view("<u4"))

    def unpack(self, words: Words, elements: int, kind: np.dtype[Any]) -> npt.NDArray[Any]:
        """The (elements,) values of `kind` (float32 or int32) that `pack` wrote; may share the words' memory."""
        if self.bits == FULL:
            return words.view(kind)
        packed = np.ascontiguousarray(words).view(np.uint8)
        if self.bits == SHORT:
            return (packed.view("<u2")[:elements].astype(np.uint32) << np.uint32(16)).view(np.float32)
        if self.bits == 8:
            return packed[:elements].astype(kind)
        bits = np.unpackbits(packed, count=elements * self.bits, bitorder="little").reshape(elements, self.bits)
        return (bits @ (1 << np.arange(self.bits)).astype(np.uint8)).astype(kind)


IN_FULL = Packing()
