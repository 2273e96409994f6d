"""Operators with kernels of their own: products, convolutions, scatter-adds by rows, and what only numbers decide."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from assay.engine.convolution_pattern import ConvolutionPattern, recognise_convolution
from assay.engine.nest import chains
from assay.engine.pooling_pattern import PoolingGradient, recognise_pooling_gradient
from assay.program.operator import Body, Operand, Operator, Source, row_major_strides

TENSORS = (
    Source.STATE,
    Source.OPERATOR,
    Source.DATA,
    Source.CONSTANT,
    Source.COMPARED,
    Source.START,
    Source.NOISY,
    Source.PENULTIMATE,
)
SMALL_PRODUCT = 256
"""Multiply-adds below which a product is an ordinary fold, which can be fused with its neighbours."""


@dataclass(frozen=True)
class Product:
    """A batch of matrix products: c[n, i, j] = fold over k of a[n, i, k] * b[n, k, j].

    `left` and `right` are operand numbers; strides in elements. `batch` are the output dimensions of the batch with
    their strides in a, b and c.
    """

    left: int
    right: int
    rows: int
    columns: int
    depth: int
    left_strides: tuple[int, int]  # over i, over k
    right_strides: tuple[int, int]  # over k, over j
    output_stride: int  # over i; columns lie side by side
    batch: tuple[tuple[int, int, int, int], ...]  # extent, stride in a, in b, in c


@dataclass(frozen=True)
class Scatter:
    """out[v, :] = sum over k in order of rows[k, :] where index[k] == v; a scatter-add of rows (embedding gradient)."""

    values: int  # v < values
    width: int
    terms: int
    index_offset: int
    index_stride: int
    row_offset: int
    row_stride: int


@dataclass(frozen=True)
class Permute:
    """Sample numbers of the data order."""


@dataclass(frozen=True)
class Uniform:
    """Uniform random numbers."""


Pattern = Product | ConvolutionPattern | PoolingGradient | Scatter | Permute | Uniform


def recognise(operator: Operator) -> Pattern | None:
    """The special kernel that suits an operator, or None: then a generated loop kernel computes it."""
    if operator.body == Body.PERMUTE:
        return Permute()
    if operator.body == Body.UNIFORM:
        return Uniform()
    if operator.body == Body.FOLD_FMA:
        return _product(operator) or recognise_convolution(operator)
    if operator.body == Body.FOLD_ADD_IF:
        return _scatter(operator) or recognise_pooling_gradient(operator)
    return None


def _plain_tensor(operand: Operand) -> bool:
    return operand.source in TENSORS and not operand.guards


def _last_stride(extents: tuple[int, ...], strides: tuple[int, ...]) -> int:
    return next((s for e, s in zip(reversed(extents), reversed(strides), strict=True) if e > 1), 0)


def _product(operator: Operator) -> Product | None:
    a, b = operator.operands
    if not (_plain_tensor(a) and _plain_tensor(b)) or operator.elements * operator.terms < SMALL_PRODUCT:
        return None
    rank = len(operator.extents)
    fold_a, fold_b = a.stride[rank:], b.stride[rank:]
    # One fold dimension for both operands; several that do not chain have no packed layout.
    if not (chains(operator.reduced, fold_a) and chains(operator.reduced, fold_b)):
        return None
    output = row_major_strides(operator.extents)
    dims = [d for d in range(rank) if operator.extents[d] > 1]
    if not dims or operator.terms == 1:
        return None
    left, right = 0, 1
    if a.stride[dims[-1]] and not b.stride[dims[-1]]:
        left, right, a, b = 1, 0, b, a  # a product is the same either way round
        fold_a, fold_b = fold_b, fold_a
    if a.stride[dims[-1]] or not b.stride[dims[-1]]:
        return None

    def run_of(end: int, inside: Operand, absent: Operand) -> int:
        """First place in `dims` of the run ending at `end` over which only `inside` moves and which acts as one."""
        start = end
        while start > 0:
            d = dims[start - 1]
            if absent.stride[d] or not inside.stride[d]:
                break
            merged = dims[start - 1 : end]
            extents = tuple(operator.extents[i] for i in merged)
            if not chains(extents, tuple(inside.stride[i] for i in merged)):
                break
            start -= 1
        return start

    first_column = run_of(len(dims), b, a)
    column_dims = dims[first_column:]
    first_row = run_of(first_column, a, b)
    row_dims = dims[first_row:first_column]
    batch_dims = dims[:first_row]
    rows = prod(operator.extents[d] for d in row_dims)
    columns = prod(operator.extents[d] for d in column_dims)
    # With hardly any reuse (a matrix times a vector, a long batch of tiny products) a fold does as well.
    if not row_dims or columns < 2:
        return None
    return Product(
        left,
        right,
        rows,
        columns,
        operator.terms,
        (a.stride[row_dims[-1]], _last_stride(operator.reduced, fold_a)),
        (_last_stride(operator.reduced, fold_b), b.stride[column_dims[-1]]),
        output[row_dims[-1]],
        tuple((operator.extents[d], a.stride[d], b.stride[d], output[d]) for d in batch_dims),
    )


def _scatter(operator: Operator) -> Scatter | None:
    first, second, value = operator.operands
    if first.source == Source.INDEX:
        first, second = second, first
    if not _plain_tensor(first) or second.source != Source.INDEX or second.guards or not _plain_tensor(value):
        return None
    rank = len(operator.extents)
    if rank == 0 or any(first.stride[:rank]) or any(value.stride[0:1]):
        return None
    if second.offset or second.stride[0] != 1 or any(second.stride[1:]):
        return None
    width = prod(operator.extents[1:])
    row = value.stride[1:rank]
    fold_index, fold_value = first.stride[rank:], value.stride[rank:]
    if row_major_strides(operator.extents[1:]) != row or not (
        chains(operator.reduced, fold_index) and chains(operator.reduced, fold_value)
    ):
        return None
    return Scatter(
        operator.extents[0],
        width,
        operator.terms,
        first.offset,
        _last_stride(operator.reduced, fold_index),
        value.offset,
        _last_stride(operator.reduced, fold_value),
    )
