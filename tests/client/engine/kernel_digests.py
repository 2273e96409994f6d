"""Run as a program: prints the vector unit and digests of what the hand-written kernels compute on fixed operands."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from assay.commitments import sha256
from assay.engine.convolution_shape import Convolution
from assay.engine.cpu import convolution, isa, matmul


def _floats(seed: int, *shape: int) -> np.ndarray:  # type: ignore[type-arg]
    generator = np.random.default_rng(seed)
    values = generator.standard_normal(shape) * 2.0 ** generator.integers(-70, 40, shape)
    return values.astype(np.float32)


def digests() -> dict[str, str]:
    """Name of a computation to the SHA-256 of its result's bits, NaNs counting as one."""
    results: dict[str, np.ndarray] = {}  # type: ignore[type-arg]
    for rows, columns, depth in ((1, 1, 9), (45, 77, 530), (128, 10, 64), (61, 130, 33)):
        a, b = _floats(1, rows, depth), _floats(2, columns, depth)
        c = np.empty((rows, columns), np.float32)
        matmul.matmul(a, 0, (depth, 1), b, 0, (1, depth), c, 0, columns, rows, columns, depth)
        results[f"product {c.shape} {depth}"] = c
    shapes = (
        Convolution(3, 3, 16, 16, 20, (3, 3), padding=(1, 1)),
        Convolution(5, 4, 7, 6, 9, (3, 3), stride=(2, 2), padding=(1, 1)),
        Convolution(2, 40, 8, 8, 33, (1, 1)),
    )
    for number, shape in enumerate(shapes):
        x, w, dy = _floats(3, *shape.x_shape), _floats(4, *shape.w_shape), _floats(5, *shape.y_shape)
        y, dx, dw = (np.empty(each, np.float32) for each in (shape.y_shape, shape.x_shape, shape.w_shape))
        convolution.forward(shape, x, w, y)
        convolution.input_gradient(shape, dy, w, dx)
        convolution.weight_gradient(shape, x, dy, dw)
        results.update({f"convolution {number}": y, f"input gradient {number}": dx, f"weight gradient {number}": dw})
    for result in results.values():
        result[np.isnan(result)] = np.nan
    found = {name: hashlib.sha256(result.tobytes()).hexdigest() for name, result in results.items()}
    found["tensor root"] = sha256.tensor_root(_floats(6, 70_000)).hex()
    return found


def _assembly() -> str:
    """Machine code of freshly compiled kernels (what comes from the cache has no text)."""
    return "".join(
        kernel._compiled._library.get_asm_str()
        for kernel in (matmul._multiply_one, convolution.kernels.gather_convolution)
        if kernel._compiled is not None and not kernel._compiled.cache_hits
    )


if __name__ == "__main__":
    report = {"unit": isa.UNIT.name, "threads": isa.threads(), "digests": digests()}
    text = _assembly()
    report["fresh"] = bool(text)
    report["widest"] = "zmm" if "zmm" in text else "ymm" if "ymm" in text else "xmm"
    print(json.dumps(report))
