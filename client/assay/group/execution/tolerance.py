"""How far two honest executions of a stage lie apart where PyTorch's kernels compute: bounds for audits among members.

They are loose, because they only say who is to blame; what a proof must hold to are the task's profiled thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from assay.program.sections import UNIT_ROUNDOFF, Precision


@dataclass(frozen=True)
class Tolerance:
    """Relative differences: `message` of the values of a message, `update` of how far a tensor moved in a segment, and
    `rounding` of a tensor itself."""

    message: float
    update: float
    rounding: float = 64 * UNIT_ROUNDOFF


TOLERANCES = {
    Precision.FP32: Tolerance(2.0**-8, 0.05),
    Precision.TF32: Tolerance(2.0**-5, 0.2),
    Precision.BF16: Tolerance(2.0**-4, 0.2),
}

SMALL_PART = 0.1
"""Part of a stage's elements that may end elsewhere in a replay: a bias that rounding alone moves ends anywhere under
an optimizer that divides by the gradient's size. What that hides, the market's own thresholds see."""


def norm(values: npt.NDArray[np.generic]) -> float:
    """Euclidean norm."""
    return float(np.linalg.norm(values.astype(np.float64).reshape(-1)))


def difference(given: npt.NDArray[np.generic], own: npt.NDArray[np.generic], absolute: bool = False) -> float:
    """Euclidean distance, relative to `own` unless `absolute`; 0 where all bits are equal, even of not-a-number."""
    if given.shape == own.shape and given.tobytes() == own.tobytes():
        return 0.0
    distance = norm(given.astype(np.float64) - own.astype(np.float64))
    return distance if absolute else distance / max(norm(own), 1e-30)
