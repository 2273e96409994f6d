# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, attr-defined, unreachable, var-annotated"
"""Register tiles: the innermost loops of matrix products and convolutions, as LLVM vector code.

A tile keeps `rows` x `vectors` vectors of accumulators in registers and walks the fold dimension in order, one
`fma` per term and accumulator, so each accumulator is exactly the sequential fold of the specification. A fold longer
than one block is continued by reloading the accumulators (binary32 in memory is lossless).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import types
from numba.extending import intrinsic

from assay.engine.cpu.isa import UNIT
from assay.engine.cpu.vector import (
    FLOAT,
    I64,
    VECTOR,
    emit_loop,
    fma_function,
    load,
    load_accumulators,
    splat,
    store,
)

LARGE, MEDIUM, SMALL = UNIT.rows, 2 * UNIT.row_unit, UNIT.row_unit
"""The three tile heights; see `row_panels`."""


def _multiply_add(builder: Any, a_address: Any, rows: int, b_vectors: list[Any], carried: list[Any]) -> list[Any]:
    """accumulators[i][j] = fma(a[i], b[j], accumulators[i][j]) for contiguous a."""
    fused = fma_function(builder, VECTOR)
    results = []
    for i in range(rows):
        factor = splat(builder, load(builder, a_address, 4 * i, FLOAT), VECTOR)
        for j, b_vector in enumerate(b_vectors):
            results.append(builder.call(fused, [factor, b_vector, carried[i * len(b_vectors) + j]]))
    return results


def _accumulator_addresses(builder: Any, c: Any, c_step: Any, rows: int, vectors: int) -> list[Any]:
    return [
        builder.add(builder.add(c, builder.mul(c_step, I64(i))), I64(4 * UNIT.lanes * j))
        for i in range(rows)
        for j in range(vectors)
    ]


@cache
def packed_tile(rows: int) -> Any:
    """tile(a, b, b_step, c, c_step, depth, first): c[i][j] = fold over k < depth of fma(a[k][i], b[k][j], .).

    a is packed ([k][rows] contiguous), row k of b is `b_step` bytes after row k - 1 and holds the tile's columns
    contiguously, rows of c are `c_step` bytes apart. The fold starts at +0 if `first`, otherwise at c. depth >= 1.
    """

    @intrinsic
    def tile(typingctx, a, b, b_step, c, c_step, depth, first):
        def generate(context, builder, signature, arguments):
            a, b, b_step, c, c_step, depth, first = arguments
            addresses = _accumulator_addresses(builder, c, c_step, rows, UNIT.vectors)
            start = load_accumulators(builder, first, addresses)

            def body(index, carried):
                a_now, b_now, *accumulators = carried
                b_vectors = [load(builder, b_now, 4 * UNIT.lanes * j, VECTOR) for j in range(UNIT.vectors)]
                results = _multiply_add(builder, a_now, rows, b_vectors, accumulators)
                return [builder.add(a_now, I64(4 * rows)), builder.add(b_now, b_step), *results]

            results = emit_loop(builder, depth, [a, b, *start], body)[2:]
            for address, value in zip(addresses, results, strict=True):
                store(builder, value, address, 0)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), generate

    return tile


@cache
def table_tile(rows: int) -> Any:
    """tile(a, b0, b1, table, c, c_step, depth, first): like `packed_tile`, but the tile's two vectors of row k of b lie
    at b0 + table[k] and b1 + table[k] (`table`: address of int64 byte offsets)."""

    @intrinsic
    def tile(typingctx, a, b0, b1, table, c, c_step, depth, first):
        def generate(context, builder, signature, arguments):
            a, b0, b1, table, c, c_step, depth, first = arguments
            addresses = _accumulator_addresses(builder, c, c_step, rows, 2)
            start = load_accumulators(builder, first, addresses)

            def body(index, carried):
                a_now, table_now, *accumulators = carried
                offset = load(builder, table_now, 0, I64)
                b_vectors = [load(builder, base, offset, VECTOR) for base in (b0, b1)]
                results = _multiply_add(builder, a_now, rows, b_vectors, accumulators)
                return [builder.add(a_now, I64(4 * rows)), builder.add(table_now, I64(8)), *results]

            results = emit_loop(builder, depth, [a, table, *start], body)[2:]
            for address, value in zip(addresses, results, strict=True):
                store(builder, value, address, 0)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), generate

    return tile


@cache
def row_panels(rows: int) -> tuple[int, int, int, int]:
    """Split `rows` rows of a matrix into (large, medium, small) tiles with little waste.

    Returns the numbers of large, medium and small tiles, in that order down the matrix, and the padded rows they cover.
    """
    large, rest = divmod(rows, LARGE)
    if rest == 0:
        medium = small = 0
    elif rest <= SMALL:
        # one full and one small tile are better done as two medium ones: a small tile waits for its own results
        large, medium, small = (large - 1, 2, 0) if large else (0, 0, 1)
    elif rest <= MEDIUM:
        medium, small = 1, 0
    else:
        large, medium, small = large + 1, 0, 0
    return large, medium, small, large * LARGE + medium * MEDIUM + small * SMALL
