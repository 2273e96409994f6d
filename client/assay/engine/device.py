"""What a back end must offer: compile a section once, run it many times, bit for bit as the arithmetic says.

The CPU's is `assay.engine.cpu.device`. A GPU back end implements the same two protocols; nothing above this module
knows on which device a section runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from assay.program.operator import Array, ElementType, Program, Role, Source

Element = tuple[int, int]
"""Operator number and element number of one value of a run."""


@dataclass
class Bindings:
    """The tensors a section reads: C-contiguous float32 or int32 arrays by source and number, and the task's seed."""

    arrays: dict[tuple[Source, int], Array]
    seed: int = 0
    _alive: list[Array] = field(default_factory=list)

    def bind(self, source: Source, arrays: Sequence[Array]) -> Bindings:
        """Bind all tensors of a source, in order."""
        for number, array in enumerate(arrays):
            if not array.flags.c_contiguous:
                raise ValueError(f"{source.name.lower()} tensor {number} is not contiguous: copy it first")
            self.arrays[(source, number)] = array
        return self


def contiguous(array: Array) -> Array:
    """The array itself if it is C-contiguous, otherwise a copy that is."""
    return array if array.flags.c_contiguous else array.copy()


def typed(raw: npt.NDArray[np.uint8], kind: ElementType) -> Array:
    """The elements that lie in these bytes."""
    return raw.view(np.float32) if kind is ElementType.FLOAT else raw.view(np.int32)


class Executable(Protocol):
    """A compiled section."""

    def run(
        self,
        bindings: Bindings,
        step: int,
        outputs: Mapping[int, Array],
        watch: Sequence[Element] = (),
    ) -> npt.NDArray[np.uint32]:
        """Execute the section once.

        `outputs` says where the values of kept operators go; the other kept ones stay in the executable's own memory
        (`value`). Returns the bits of the watched elements, NaNs canonical, in the order asked.
        """

    def value(self, operator: int) -> Array:
        """The output of a kept operator after `run`, valid until the next one."""

    @property
    def memory_bytes(self) -> int:
        """Memory for intermediate values."""


class Device(Protocol):
    """A back end."""

    @property
    def name(self) -> str: ...

    def compile(
        self,
        program: Program,
        role: Role,
        keep: Collection[int],
        observe: Callable[[int, Array], None] | None = None,
    ) -> Executable:
        """Compile a section. `keep` are the operators whose outputs the caller wants. With `observe`, every operator's
        output is materialised and shown, in an order in which they were computed, during each run."""
