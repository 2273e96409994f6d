"""Names of compression settings, and how many times fewer bytes each sends.

none            float32 both ways
aqsgd-4-8       forward: changes against what the sample's last visit left on both sides, 4 bits; backward: 8 bits
tile-4-8        forward: each tile of values against its own range, no memory of earlier visits; backward as above
direct-4-8      forward: the values themselves (the baseline that the literature compares with)
aqsgd-4-8-g8    as the first, and gradients between replicas in 8 bits with error feedback
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from assay.group.compression.quantise import packed_bytes, scale_count, tile_bytes
from assay.group.errors import CompressionError

SCHEMES = ("none", "aqsgd", "tile", "direct")


@dataclass(frozen=True)
class CompressionChoice:
    """`forward_bits` and `backward_bits` are 2 to 8; `gradient_bits` also, or 0 for float32 between replicas."""

    scheme: str
    forward_bits: int = 32
    backward_bits: int = 32
    gradient_bits: int = 0

    def __str__(self) -> str:
        name = self.scheme if self.scheme == "none" else f"{self.scheme}-{self.forward_bits}-{self.backward_bits}"
        return name + (f"-g{self.gradient_bits}" if self.gradient_bits else "")


def parse_compression(text: str) -> CompressionChoice:
    """Read a setting's name; raises CompressionError for one that does not exist."""
    match = re.fullmatch(r"(none)(?:-g(\d))?|(aqsgd|tile|direct)-(\d)-(\d)(?:-g(\d))?", text)
    if match is None:
        raise CompressionError(
            f"no compression is called {text!r}; use none, or aqsgd, tile or direct with bits, such as aqsgd-4-8 or "
            "aqsgd-4-8-g8"
        )
    if match[1]:
        choice = CompressionChoice("none", gradient_bits=int(match[2] or 0))
    else:
        choice = CompressionChoice(match[3], int(match[4]), int(match[5]), int(match[6] or 0))
    for bits in (choice.forward_bits, choice.backward_bits, choice.gradient_bits):
        if bits not in (0, 32) and not 2 <= bits <= 8:
            raise CompressionError(f"{text!r}: {bits} bits; give 2 to 8")
    if 0 in (choice.forward_bits, choice.backward_bits):
        raise CompressionError(f"{text!r}: 0 bits; give 2 to 8")
    return choice


def suit_to_visits(choice: CompressionChoice, visits_per_sample: float) -> tuple[CompressionChoice, str]:
    """Replace AQ-SGD by the tile scheme where samples are not visited again; also the sentence that says so."""
    if choice.scheme == "aqsgd" and visits_per_sample < 2:
        tile = CompressionChoice("tile", choice.forward_bits, choice.backward_bits, choice.gradient_bits)
        return tile, (
            f"samples are visited {visits_per_sample:.3g} times, so there is no earlier visit to send changes against: "
            f"{tile} is used instead of {choice}"
        )
    return choice, ""


def declared_gradient_ratio(bits: int, parts: int, members: int) -> float:
    """Bytes that `members` replicas send each other when they exchange their share of float32 gradients and of what
    becomes of them, over those sent where a task has each batch in `parts`, with gradients in `bits` bits.

    A task's program adds up the codes of all parts. Every member sends those of its own, either to all others, or to
    the one that updates a parameter and sends it back in full: whichever is less, as the group's execution chooses.
    """
    if members < 2:
        return 1.0
    if parts * bits * (members - 1) < 32 * members:
        return told_to_all_ratio(bits, parts)
    return 8 / (parts / members * _coded_bytes(bits) + 4)


def told_to_all_ratio(bits: int, parts: int) -> float:
    """The same where each member sends the codes of its own `parts`, a message each, to all others."""
    return 8 / (parts * _coded_bytes(bits))


def _coded_bytes(bits: int) -> float:
    """Bytes a value, scales included."""
    return 4 / wire_ratios(CompressionChoice("none", gradient_bits=bits))[2]


def wire_ratios(choice: CompressionChoice, values: int = 1 << 20) -> tuple[float, float, float]:
    """Bytes of float32 over bytes sent (forward on repeated visits, backward, between replicas), for large messages."""
    if choice.scheme == "none":
        forward = backward = 1.0
    else:
        if choice.scheme == "tile":
            forward = 4 * values / tile_bytes(values, choice.forward_bits)
        else:
            forward = 4 * values / (packed_bytes(values, choice.forward_bits) + 2 * scale_count(values))
        backward = 4 * values / (packed_bytes(values, choice.backward_bits) + 2 * scale_count(values))
    gradient = 1.0
    if choice.gradient_bits:
        gradient = 4 * values / (packed_bytes(values, choice.gradient_bits) + 2 * scale_count(values))
    return forward, backward, gradient
