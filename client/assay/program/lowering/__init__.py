"""Lowering: from the traced graph of ATen calls to operators, a pure function that anyone can repeat.

The version below is on chain beside the graph's hash: the same graph and version give the same program root.
"""

from assay.program.lowering.lower import (
    LOWERING_VERSION,
    LoweredNodes,
    lower,
    lower_nodes,
    lower_part,
    lower_step,
    used_constants,
)

__all__ = [
    "LOWERING_VERSION",
    "LoweredNodes",
    "lower",
    "lower_nodes",
    "lower_part",
    "lower_step",
    "used_constants",
]
