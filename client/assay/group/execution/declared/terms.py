"""What a step says of its own compression: values of few bits, and choices by the step number.

A compressed boundary is part of the model (`group.compression.crossing`), so its calls are in the step like all others.
Recognised are the forms that `program.quantised` has, by what they compute and not by any name: if they are not found,
everything is sent in full, and the result is the same. The same forms are read from a recorded graph and from a program
of operators, through a reader for each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass

from assay.program.quantised import SPLITTER

MOST_CODE_BITS = 8

Part = Hashable
"""A number, or a reference to a term that the reader understands."""


@dataclass(frozen=True)
class Term:
    """An elementwise computation: "choose" (condition, then, else), "less", "product", "difference", "to_int",
    "to_float", or "step", the step number."""

    kind: str
    parts: tuple[Part, ...] = ()


class Reader(ABC):
    """Reads the terms of a step."""

    @abstractmethod
    def term(self, part: Part) -> Term | None:
        """What a reference stands for; None where it is none of the kinds of `Term`."""

    def code_bits(self, part: Part) -> int | None:
        """Bits of a whole number that is cut off to [0, 2^bits - 1] and loses its fraction, as a float."""
        for kind in ("to_float", "to_int"):
            term = self.term(part)
            if term is None or term.kind != kind:
                return None
            part = term.parts[0]
        top = self._upper_end(part)
        if top is None or top != int(top) or not 1 <= top < 2**MOST_CODE_BITS:
            return None
        return int(top).bit_length()

    def _upper_end(self, part: Part) -> float | None:
        """t of `b < t ? b : t` with `b = 0 < x ? x : 0`."""
        cut = self.term(part)
        if cut is None or cut.kind != "choose":
            return None
        condition, bounded, end = cut.parts
        if not isinstance(end, float) or self.term(condition) != Term("less", (bounded, end)):
            return None
        lower = self.term(bounded)
        if lower is None or lower.kind != "choose":
            return None
        positive, x, zero = lower.parts
        return end if zero == 0.0 and self.term(positive) == Term("less", (0.0, x)) else None

    def is_short(self, part: Part) -> bool:
        """Whether a value is 0 or has 8 significant bits: `_ ? 0 : spread - (spread - x)` with spread = 65537 x."""
        whole = self.term(part)
        if whole is None or whole.kind != "choose" or whole.parts[1] != 0.0:
            return False
        outer = self.term(whole.parts[2])
        if outer is None or outer.kind != "difference":
            return False
        spread, rest = outer.parts
        inner = self.term(rest)
        if inner is None or inner.kind != "difference" or inner.parts[0] != spread:
            return False
        return self.term(spread) == Term("product", (inner.parts[1], SPLITTER))

    def choice(self, part: Part) -> tuple[Part, Part, int] | None:
        """(first, second, until) of a value that is the first in steps below `until`, and the second from there on."""
        term = self.term(part)
        if term is None or term.kind != "choose" or isinstance(term.parts[1], float):
            return None
        condition, first, second = term.parts
        less = self.term(condition)
        if less is None or less.kind != "less" or isinstance(second, float) or first == second:
            return None
        counter, limit = less.parts
        if self.term(counter) != Term("step") or not isinstance(limit, float) or limit != int(limit):
            return None
        return first, second, max(0, int(limit))
