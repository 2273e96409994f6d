"""The trace of a replay: at every step, 64 values of the computation that nobody can know without having done it."""

from __future__ import annotations

from collections.abc import Sequence

from assay.arithmetic.native_random import philox_words
from assay.commitments.execution import TRACE_VALUES
from assay.engine.device import Element
from assay.program.operator import Operator

TRACE_STREAM = 0xFFFFFFFF


def trace_elements(operators: Sequence[Operator], draw_seed: int, step: int) -> list[Element]:
    """Which elements the trace of global step `step` holds (contracts/FORMAT.md, section 1)."""
    words = [int(word) for word in philox_words(draw_seed, step, TRACE_STREAM, 0, 2 * TRACE_VALUES)]
    chosen = [word % len(operators) for word in words[0::2]]
    return [(operator, word % operators[operator].elements) for operator, word in zip(chosen, words[1::2], strict=True)]
