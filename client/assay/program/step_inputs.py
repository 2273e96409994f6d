"""What a model may read of the step it is in: buffers of two reserved names, bound to the step when it is traced.

A module that registers them reads, in its forward pass, the global step number and the numbers of the batch's samples,
as the step itself computes both. They are neither state nor constants: checkpoints do not hold them.
"""

from __future__ import annotations

import torch
from torch import nn

STEP_NUMBER = "assay_step_number"
SAMPLE_NUMBERS = "assay_sample_numbers"


def register_step_inputs(module: nn.Module, batch: int) -> None:
    """Give a module the buffers `assay_step_number`, int64, and `assay_sample_numbers`, int64 (batch,)."""
    module.register_buffer(STEP_NUMBER, torch.zeros((), dtype=torch.int64), persistent=False)
    # While the step is traced they hold an example: different samples.
    module.register_buffer(SAMPLE_NUMBERS, torch.arange(batch), persistent=False)


def step_input_of(name: str) -> str | None:
    """Which of the two a buffer of this (dotted) name is, or None."""
    last = name.rpartition(".")[2]
    return last if last in (STEP_NUMBER, SAMPLE_NUMBERS) else None
