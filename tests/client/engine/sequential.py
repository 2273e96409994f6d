"""The specification's folds as naive scalar loops, one rounding at a time, to hold the fast kernels to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from assay.engine.cpu.vector import fma

Floats = npt.NDArray[np.float32]

SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754944e-38, 3e-39, 3.4028235e38, -1e-30, 1e30,
     1.0000001, 0.99999994],
    np.float32,
)  # fmt: skip


def same_bits(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> bool:
    """Equal bit for bit, all NaNs counting as one."""
    both_nan = np.isnan(found) & np.isnan(expected)
    return found.shape == expected.shape and bool(np.all(both_nan | (found.view(np.int32) == expected.view(np.int32))))


def random_floats(shape: Any, seed: int, special: float = 0.0) -> Floats:
    """Normal values of mixed magnitude; a fraction `special` of them is replaced by special values."""
    generator = np.random.default_rng(seed)
    values = (generator.standard_normal(shape) * 2.0 ** generator.integers(-4, 5, shape)).astype(np.float32)
    chosen = generator.random(shape) < special
    values[chosen] = generator.choice(SPECIAL, int(chosen.sum()))
    return values


@njit
def product(a: Any, b: Any, c: Any) -> None:
    """c = a @ b by sequential fused folds."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            accumulator = np.float32(0)
            for k in range(a.shape[1]):
                accumulator = fma(a[i, k], b[k, j], accumulator)
            c[i, j] = accumulator
