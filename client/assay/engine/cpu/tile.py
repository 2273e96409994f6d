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
def packed_tile(rows: int, vectors: int = UNIT.vectors) -> Any:
    """tile(a, b, b_step, c, c_step, depth, first): c[i][j] = fold over k < depth of fma(a[k][i], b[k][j], .).

    a is packed ([k][rows] contiguous), row k of b is `b_step` bytes after row k - 1 and holds the tile's columns
    (`vectors` vectors) contiguously, rows of c are `c_step` bytes apart. depth >= 1. The fold starts at +0 if `first`,
    otherwise at c.
    """

    @intrinsic
    def tile(typingctx, a, b, b_step, c, c_step, depth, first):
        def generate(context, builder, signature, arguments):
            a, b, b_step, c, c_step, depth, first = arguments
            addresses = _accumulator_addresses(builder, c, c_step, rows, vectors)
            start = load_accumulators(builder, first, addresses)

            def body(index, carried):
                a_now, b_now, *accumulators = carried
                b_vectors = [load(builder, b_now, 4 * UNIT.lanes * j, VECTOR) for j in range(vectors)]
                results = _multiply_add(builder, a_now, rows, b_vectors, accumulators)
                return [builder.add(a_now, I64(4 * rows)), builder.add(b_now, b_step), *results]

            results = emit_loop(builder, depth, [a, b, *start], body)[2:]
            for address, value in zip(addresses, results, strict=True):
                store(builder, value, address, 0)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), generate

    return tile


@cache
def gather_tile(rows: int) -> Any:
    """tile(a, bases, table, c, c_step, depth, first): like `packed_tile`, with b read where it lies.

    Vector j of row k of b lies at bases[2 * j] + table[k] (`bases`, `table`: addresses of int64 addresses and byte
    offsets).
    """

    @intrinsic
    def tile(typingctx, a, bases, table, c, c_step, depth, first):
        def generate(context, builder, signature, arguments):
            a, bases, table, c, c_step, depth, first = arguments
            starts = [load(builder, bases, 16 * j, I64) for j in range(UNIT.vectors)]
            addresses = _accumulator_addresses(builder, c, c_step, rows, UNIT.vectors)
            accumulators = load_accumulators(builder, first, addresses)

            def body(index, carried):
                a_now, table_now, *accumulators = carried
                offset = load(builder, table_now, 0, I64)
                b_vectors = [load(builder, start, offset, VECTOR) for start in starts]
                results = _multiply_add(builder, a_now, rows, b_vectors, accumulators)
                return [builder.add(a_now, I64(4 * rows)), builder.add(table_now, I64(8)), *results]

            results = emit_loop(builder, depth, [a, table, *accumulators], body)[2:]
            for address, value in zip(addresses, results, strict=True):
                store(builder, value, address, 0)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), generate

    return tile


@cache
def window_tile(rows: int, vectors: int) -> Any:
    """tile(offsets, image, image_step, b, c, lines, length, first): c[i][j] = fold over (line, k) of fma(x_i, b_j, .).

    Row i reads x at image + offsets[i] + line * image_step + 4 * k, for line < lines and k < length, both >= 1; b holds
    one packed row of the tile's columns (`vectors` vectors) for each (line, k) in that order; rows of c are contiguous.
    The fold starts at +0 if `first`, otherwise at c.
    """

    @intrinsic
    def tile(typingctx, offsets, image, image_step, b, c, lines, length, first):
        def generate(context, builder, signature, arguments):
            offsets, image, image_step, b, c, lines, length, first = arguments
            starts = [builder.add(image, load(builder, offsets, 8 * i, I64)) for i in range(rows)]
            addresses = _accumulator_addresses(builder, c, I64(4 * UNIT.lanes * vectors), rows, vectors)
            fused = fma_function(builder, VECTOR)

            def line_body(line, carried):
                line_start = builder.mul(line, image_step)
                line_starts = [builder.add(start, line_start) for start in starts]

                def body(k, carried):
                    b_now, *accumulators = carried
                    offset = builder.mul(k, I64(4))
                    b_vectors = [load(builder, b_now, 4 * UNIT.lanes * j, VECTOR) for j in range(vectors)]
                    results = []
                    for i in range(rows):
                        factor = splat(builder, load(builder, line_starts[i], offset, FLOAT), VECTOR)
                        for j, b_vector in enumerate(b_vectors):
                            accumulator = accumulators[i * vectors + j]
                            results.append(builder.call(fused, [factor, b_vector, accumulator]))
                    return [builder.add(b_now, I64(4 * UNIT.lanes * vectors)), *results]

                return emit_loop(builder, length, carried, body)

            start = [b, *load_accumulators(builder, first, addresses)]
            results = emit_loop(builder, lines, start, line_body)[1:]
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
