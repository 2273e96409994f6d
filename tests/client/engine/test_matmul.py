"""Matrix products are the sequential fused folds of the specification, bit for bit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from numba import njit

from assay.engine.cpu import matmul
from assay.engine.cpu.isa import UNIT
from assay.engine.cpu.vector import fma

from . import sequential

TILE_EDGES = [
    (1, 1, 1), (1, 33, 7), (12, 32, 16), (13, 31, 5), (16, 64, 3), (17, 10, 130), (24, 33, 64), (29, 95, 513),
    (36, 65, 1025), (UNIT.rows + 1, UNIT.columns + 1, 11), (100, 1, 40), (130, 129, 600),
]  # fmt: skip


@njit
def _fma_of(x: float, y: float, z: float) -> float:
    return fma(x, y, z)  # type: ignore[no-any-return]


def _expected(a: sequential.Floats, b: sequential.Floats) -> sequential.Floats:
    c = np.empty((a.shape[0], b.shape[1]), np.float32)
    sequential.product(np.ascontiguousarray(a), np.ascontiguousarray(b), c)
    return c


def _multiply(a: sequential.Floats, b: sequential.Floats, threads: int) -> sequential.Floats:
    c = np.full((a.shape[0], b.shape[1]), np.nan, np.float32)
    strides = [(each.strides[0] // 4, each.strides[1] // 4) for each in (a, b)]
    matmul.matmul(a, 0, strides[0], b, 0, strides[1], c, 0, c.shape[1], *c.shape, a.shape[1], threads)
    return c


def test_scalar_fma_rounds_once() -> None:
    for seed in range(300):
        x, y, z = (float(v) for v in sequential.random_floats(3, seed))
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        found = float(_fma_of(np.float32(x), np.float32(y), np.float32(z)))
        spacing = Fraction(float(np.spacing(np.float32(abs(found)))))
        assert abs(exact - Fraction(found)) <= spacing / 2


@pytest.mark.parametrize(("rows", "columns", "depth"), TILE_EDGES)
@pytest.mark.parametrize("threads", [1, 3])
def test_every_remainder_of_the_tiles_is_the_sequential_fold(rows: int, columns: int, depth: int, threads: int) -> None:
    a = sequential.random_floats((rows, depth), 1)
    b = sequential.random_floats((depth, columns), 2)
    assert sequential.same_bits(_multiply(a, b, threads), _expected(a, b))


@pytest.mark.parametrize(("rows", "columns", "depth"), [(37, 70, 129), (150, 100, 40)])
def test_transposed_operands_give_the_same_bits(rows: int, columns: int, depth: int) -> None:
    a = sequential.random_floats((rows, depth), 3)
    b = sequential.random_floats((depth, columns), 4)
    expected = _expected(a, b)
    for left in (a, np.asfortranarray(a)):
        for right in (b, np.asfortranarray(b)):
            assert sequential.same_bits(_multiply(left, right, 2), expected)


@pytest.mark.parametrize(("rows", "columns", "depth"), [(25, 40, 70), (140, 64, 90)])
def test_special_values_and_subnormals_survive(rows: int, columns: int, depth: int) -> None:
    a = sequential.random_floats((rows, depth), 5, special=0.02)
    b = sequential.random_floats((depth, columns), 6, special=0.02)
    assert sequential.same_bits(_multiply(a, b, 2), _expected(a, b))
    tiny_a, tiny_b = a * np.float32(1e-22), b * np.float32(1e-18)
    expected = _expected(tiny_a, tiny_b)
    assert np.any((expected != 0) & (np.abs(expected) < np.finfo(np.float32).tiny))
    assert sequential.same_bits(_multiply(tiny_a, tiny_b, 2), expected)


def test_subnormals_survive_a_host_that_flushes_them() -> None:
    torch = pytest.importorskip("torch")
    a = sequential.random_floats((40, 30), 7) * np.float32(1e-22)
    b = sequential.random_floats((30, 50), 8) * np.float32(1e-18)
    expected = _expected(a, b)
    torch.set_flush_denormal(True)
    try:
        found = [_multiply(a, b, threads) for threads in (1, 2)]
    finally:
        torch.set_flush_denormal(False)
    assert all(sequential.same_bits(each, expected) for each in found)


def test_blocks_larger_than_the_packing_buffers_agree() -> None:
    a = sequential.random_floats((matmul.ROW_BLOCK + 13, 3), 9)
    b = sequential.random_floats((3, 70), 10)
    assert sequential.same_bits(_multiply(a, b, 2), _expected(a, b))
    a = sequential.random_floats((14, 5), 11)
    b = sequential.random_floats((5, matmul.COLUMN_BLOCK + 40), 12)
    assert sequential.same_bits(_multiply(a, b, 2), _expected(a, b))


def test_an_empty_fold_is_positive_zero_and_padding_is_left_alone() -> None:
    c = np.full((4, 9), 7, np.float32)
    a = np.empty((4, 0), np.float32)
    matmul.matmul(a, 0, (0, 1), a, 0, (5, 1), c, 1, 9, 4, 5, 0, 1)
    assert not c[:, 1:6].view(np.int32).any()
    assert (c[:, 0] == 7).all()
    assert (c[:, 6:] == 7).all()


@pytest.mark.parametrize(("batch", "size"), [((2, 3), (20, 16, 40)), ((1, 2), (150, 100, 90)), ((5, 1), (33, 64, 600))])
def test_batches_follow_their_strides(batch: tuple[int, int], size: tuple[int, int, int]) -> None:
    # queries and keys of attention: (batch, time, heads, dim), read per (batch, head), the second one transposed
    rows, columns, depth = size
    a = sequential.random_floats((batch[0], rows, batch[1], depth), 13)
    b = sequential.random_floats((batch[0], columns, batch[1], depth), 14)
    c = np.empty((*batch, rows, columns), np.float32)
    matmul.batched_matmul(
        a, matmul.batch_offsets(0, batch, (rows * batch[1] * depth, depth)), (batch[1] * depth, 1),
        b, matmul.batch_offsets(0, batch, (columns * batch[1] * depth, depth)), (1, batch[1] * depth),
        c, matmul.batch_offsets(0, batch, (batch[1] * rows * columns, rows * columns)), columns,
        rows, columns, depth, 2,
    )  # fmt: skip
    for n in range(batch[0]):
        for head in range(batch[1]):
            assert sequential.same_bits(c[n, head], _expected(a[n, :, head], b[n, :, head].T))
