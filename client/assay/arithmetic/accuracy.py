"""Errors of the transcendental functions over all 2**32 arguments, in units in the last place.

    python -m assay.arithmetic.accuracy [--write] [FUNCTION ...]      a minute or so a function; --write renews ULP.md

The error of a result y against the exact value v is |y - v| / ulp(v), with ulp(v) = 2**(max(floor(log2 |v|),
-126) - 23); an infinite y counts as 2**128. v comes from the machine's binary64 function, whose own error,
about 2**-52 of v, is below 1e-8 of these ulps; tests check the worst places with mpmath. A result is correctly
rounded when it is the binary32 number nearest to v.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

from assay.arithmetic import binary32, native, transcendental

TABLE_PATH = Path(__file__).with_name("ULP.md")
CHUNK_BITS = 24

LIMITS = {"exp": 1.0, "log": 1.0, "tanh": 2.0, "erf": 2.0, "sin": 2.0, "cos": 2.0}
"""Greatest error allowed, in ulp."""

_OVERFLOW = 2.0**128


@dataclass(frozen=True)
class Accuracy:
    """What a sweep found. `outside` counts arguments whose exact value is not a number: the result must be NaN."""

    function: str
    worst_ulp: float
    worst_argument: int  # word
    compared: int
    outside: int
    not_correctly_rounded: int


@njit(nogil=True, error_model="numpy")
def _exact_log(x: float) -> float:
    """log with IEEE's values at and below zero, where Python raises."""
    if x > 0.0:
        return math.log(x)
    return -np.inf if x == 0.0 else np.nan


@njit(nogil=True, error_model="numpy")
def _exact_sin(x: float) -> float:
    return math.sin(x) if abs(x) <= transcendental.CIRCULAR_RANGE else np.nan


@njit(nogil=True, error_model="numpy")
def _exact_cos(x: float) -> float:
    return math.cos(x) if abs(x) <= transcendental.CIRCULAR_RANGE else np.nan


@njit(nogil=True, error_model="numpy")
def _exact_exp(x: float) -> float:
    return math.exp(x)


@njit(nogil=True, error_model="numpy")
def _exact_tanh(x: float) -> float:
    return math.tanh(x)


@njit(nogil=True, error_model="numpy")
def _exact_erf(x: float) -> float:
    return math.erf(x)


_EXACT: dict[str, Any] = {
    "exp": _exact_exp,
    "log": _exact_log,
    "tanh": _exact_tanh,
    "erf": _exact_erf,
    "sin": _exact_sin,
    "cos": _exact_cos,
}


@cache
def _kernel(function: str) -> Callable[..., tuple[float, int, int, int, int]]:
    """Kernel (words, results): worst error and its place, numbers of compared, outside and incorrectly rounded."""
    exact = _EXACT[function]

    @njit(nogil=True, error_model="numpy")
    def kernel(arguments: Any, results: Any) -> Any:
        worst, place, compared, outside, inexact = -1.0, 0, 0, 0, 0
        for i in range(arguments.size):
            v = exact(np.float64(arguments[i]))
            y: Any = np.float64(results[i])
            if math.isnan(v) or math.isnan(y):
                outside += 1
                error = 0.0 if math.isnan(v) and math.isnan(y) else np.inf
            else:
                compared += 1
                nearest = float(np.float32(v))
                if y == nearest:
                    if math.isinf(y):
                        continue
                else:
                    inexact += 1
                exponent = max(math.frexp(v)[1] - 1, -126)
                if math.isinf(v):
                    exponent = 127
                    v = math.copysign(_OVERFLOW, v)
                if math.isinf(y):
                    y = math.copysign(_OVERFLOW, y)
                error = math.ldexp(abs(y - v), 23 - exponent)
            if error > worst:
                worst, place = error, i
        return worst, place, compared, outside, inexact

    typed: Callable[..., tuple[float, int, int, int, int]] = kernel
    return typed


@cache
def _unary(function: str) -> Callable[..., None]:
    return native.compile_unary(getattr(native, function))


def measure(function: str, words: np.ndarray[Any, np.dtype[np.uint32]]) -> Accuracy:
    """Errors over given argument words (uint32)."""
    arguments = words.view(np.float32)
    results = np.empty_like(arguments)
    _unary(function)(arguments, results)
    worst, place, compared, outside, inexact = _kernel(function)(arguments, results)
    return Accuracy(function, worst, int(words[place]), compared, outside, inexact)


def merge(parts: Sequence[Accuracy]) -> Accuracy:
    """One result of the sweeps of disjoint parts."""
    worst = max(parts, key=lambda part: part.worst_ulp)
    return Accuracy(
        worst.function,
        worst.worst_ulp,
        worst.worst_argument,
        sum(part.compared for part in parts),
        sum(part.outside for part in parts),
        sum(part.not_correctly_rounded for part in parts),
    )


def sweep(function: str, threads: int | None = None) -> Accuracy:
    """Errors over all 2**32 words, on `threads` threads (default: one a core)."""

    def part(chunk: int) -> Accuracy:
        first = chunk << CHUNK_BITS
        return measure(function, np.arange(first, first + (1 << CHUNK_BITS), dtype=np.uint64).astype(np.uint32))

    measure(function, np.arange(4, dtype=np.uint32))  # compiles before the threads start
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        return merge(list(pool.map(part, range(1 << (32 - CHUNK_BITS)))))


def table(results: Sequence[Accuracy]) -> str:
    """ULP.md for these results."""
    lines = [
        "# Errors of the transcendental functions",
        "",
        "Generated by `python -m assay.arithmetic.accuracy --write` from all 2^32 arguments of each function.",
        "The functions have the same bits on every machine, so the errors have too. `accuracy.py` measures them.",
        "",
        "| function | worst error (ulp) | allowed | at | not correctly rounded | arguments compared | rightly NaN |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        value = binary32.to_float(result.worst_argument)
        share = 100.0 * result.not_correctly_rounded / max(1, result.compared)
        lines.append(
            f"| {result.function} | {result.worst_ulp:.4f} | {LIMITS[result.function]:.0f} "
            f"| {value:.9g} (0x{result.worst_argument:08x}) | {share:.2f} % | {result.compared} | {result.outside} |"
        )
    lines += [
        "",
        f"sin and cos are NaN beyond |x| = {transcendental.CIRCULAR_RANGE:.0f}; log is NaN below zero.",
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Sweep the named functions, print their table; 1 if one misses its limit."""
    parser = argparse.ArgumentParser(prog="python -m assay.arithmetic.accuracy", description=__doc__.splitlines()[0])
    parser.add_argument("functions", nargs="*", metavar="FUNCTION", help=f"of {', '.join(LIMITS)}; default: all")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--write", action="store_true", help=f"write {TABLE_PATH.name} (needs all functions)")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.functions if name not in LIMITS]
    if unknown or (options.write and options.functions):
        parser.error(f"unknown function {unknown[0]}" if unknown else "--write sweeps all functions; name none")
    results = []
    for function in options.functions or LIMITS:
        start = time.perf_counter()
        results.append(sweep(function, options.threads))
        print(f"{function}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    text = table(results)
    if options.write:
        TABLE_PATH.write_text(text)
    print(text, end="")
    return int(any(result.worst_ulp > LIMITS[result.function] for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
