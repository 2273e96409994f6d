"""One dispute inside an execution far too large to run: only what the two parties open has content.

The program has the shapes of a character GPT of 10.8 million parameters (6 layers of 384, batch 64 of 256 tokens,
AdamW). Every hash that no party has to explain is a random one; what lies on the way to the disputed operation is
real, so that the court executes it. Claimant and challenger share all of it but that way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256

import numpy as np

from assay.arithmetic.binary32 import fma
from assay.commitments import tensor, tree
from assay.dispute.hash_tree import ChunkTree, HashTree, root
from assay.program.operator import (
    Body,
    ElementType,
    Operand,
    Operator,
    Program,
    Role,
    Section,
    Source,
    StateEntry,
    TensorDescriptor,
    row_major_strides,
)
from assay.program.reference import StepContext

LAYERS, WIDTH, TOKENS, BATCH, VOCABULARY, HEADS = 6, 384, 256, 64, 65, 6
POSITIONS = BATCH * TOKENS
STEPS = 100
STEP_OPERATORS_A_LAYER = 110  # forward and backward of one block: products, softmax, two norms, GELU, their gradients
STEP_OPERATORS_A_TENSOR = 13  # AdamW


def parameter_shapes() -> list[tuple[int, ...]]:
    """Shapes of the model's parameters."""
    layer: list[tuple[int, ...]] = [
        (WIDTH,), (WIDTH,), (3 * WIDTH, WIDTH), (3 * WIDTH,), (WIDTH, WIDTH), (WIDTH,),
        (WIDTH,), (WIDTH,), (4 * WIDTH, WIDTH), (4 * WIDTH,), (WIDTH, 4 * WIDTH), (WIDTH,),
    ]  # fmt: skip
    return [(VOCABULARY, WIDTH), (TOKENS, WIDTH), *layer * LAYERS, (WIDTH,), (WIDTH,), (VOCABULARY, WIDTH)]


@dataclass(frozen=True)
class Disputed:
    """Which operation is in dispute."""

    name: str
    rows: int  # of the output
    columns: int
    terms: int
    element: int
    term: int


FORWARD = Disputed("up-projection", POSITIONS, 4 * WIDTH, WIDTH, 25_000_123, 300)
WEIGHT_GRADIENT = Disputed("gradient of its weights", 4 * WIDTH, WIDTH, POSITIONS, 412_345, 12_544)


def operands_of(disputed: Disputed) -> tuple[Operand, Operand]:
    """Operands of the disputed product: (i, k) of an earlier output, and (j, k) of a weight or (k, j) of an output."""
    rows, columns, terms = disputed.rows, disputed.columns, disputed.terms
    if terms == WIDTH:
        left = Operand(Source.OPERATOR, 700, rows * terms, (terms, 0, 1))
        return left, Operand(Source.STATE, WEIGHT, columns * terms, (0, terms, 1))
    left = Operand(Source.OPERATOR, 690, rows * terms, (1, 0, rows))
    return left, Operand(Source.OPERATOR, 700, columns * terms, (0, 1, columns))


WEIGHT = 2 + 12 * 3 + 8  # the up-projection of layer 3
NUMBER = 811  # of the disputed operator


def gpt_like_program(disputed: Disputed) -> Program:
    """Shapes and number of operators as a lowered step has them; every other one is a copy of tokens' features."""
    shapes = parameter_shapes()
    count = LAYERS * STEP_OPERATORS_A_LAYER + len(shapes) * STEP_OPERATORS_A_TENSOR
    filler_shape = (POSITIONS, WIDTH)
    strides = row_major_strides(filler_shape)
    elements = POSITIONS * WIDTH
    data = (TensorDescriptor("tokens", ElementType.FLOAT, filler_shape),)
    filler = Operator(Body.COPY, ElementType.FLOAT, filler_shape, (Operand(Source.DATA, 0, elements, strides),))
    operators = [filler] * count
    # What the disputed product reads has the right number of elements.
    for operand in operands_of(disputed):
        if operand.source == Source.OPERATOR:
            shape = (operand.count // WIDTH, WIDTH)
            broadcast = Operand(Source.DATA, 0, elements, (0, 1))
            operators[operand.index] = Operator(Body.COPY, ElementType.FLOAT, shape, (broadcast,))
    operators[NUMBER] = Operator(
        Body.FOLD_FMA,
        ElementType.FLOAT,
        (disputed.rows, disputed.columns),
        operands_of(disputed),
        (disputed.terms,),
    )
    # Parameters and AdamW's two moments.
    state = tuple(
        TensorDescriptor(f"{kind}{number}", ElementType.FLOAT, shape)
        for kind in ("parameter", "first", "second")
        for number, shape in enumerate(shapes)
    )
    entries = tuple(StateEntry(None) for _ in state)
    return Program(state, data, (), (Section(Role.STEP, tuple(operators), entries),))


@dataclass(frozen=True, eq=False)
class SparseTree:
    """A plain tree of which some leaves are given and the others are random, the same for the same salt."""

    leaves: int
    salt: str
    known: Mapping[int, bytes]
    chunks: Mapping[int, bytes]

    @property
    def depth(self) -> int:
        return tree.depth_of(self.leaves)

    @cached_property
    def levels(self) -> list[list[bytes]]:
        """All levels, leaves first."""
        salt = self.salt.encode()
        leaves = [sha256(salt + index.to_bytes(4, "big")).digest() for index in range(self.leaves)]
        for index, value in self.known.items():
            leaves[index] = value
        return tree.levels(leaves)

    def node(self, height: int, index: int) -> bytes:
        return self.levels[height][index]

    def chunk(self, index: int) -> bytes:
        """The bytes of a chunk that was given."""
        return self.chunks[index]


def sparse_hashes(leaves: int, salt: str, known: Mapping[int, bytes]) -> SparseTree:
    """A tree over hashes."""
    return SparseTree(leaves, salt, known, {})


def sparse_tensor(elements: int, salt: str, values: Mapping[int, int]) -> SparseTree:
    """A tensor of random floats in which these elements have these bits; only their chunks have content."""
    return _sparse_tensor(elements, salt, tuple(values.items()))


@cache
def _sparse_tensor(elements: int, salt: str, values: tuple[tuple[int, int], ...]) -> SparseTree:
    chunks = {}
    for index in {element >> 8 for element, _ in values}:
        seed = int.from_bytes(sha256(f"{salt}{index}".encode()).digest()[:8], "big")
        words = np.random.default_rng(seed).normal(0, 1, 256).astype(np.float32).view(np.uint32)
        words[max(0, min(256, elements - 256 * index)) :] = 0
        for element, word in values:
            if element >> 8 == index:
                words[element & 255] = word
        chunks[index] = words.astype("<u4").tobytes()
    known = {index: tensor.chunk_leaf(chunk) for index, chunk in chunks.items()}
    return SparseTree(tensor.chunks_of(elements), salt, known, chunks)


A, B, BEFORE = 0x3F9D70A4, 0xBF266666, 0x40490FDB
"""Bits of the two operands and of the partial sum before the disputed one."""


@dataclass(frozen=True, eq=False)
class SparseExecution:
    """A party's view of the segment: the truth, or, if `lies`, one partial sum wrong and all that follows from it."""

    disputed: Disputed
    lies: bool
    step: int = 57
    draw_seed: int = 5

    @property
    def salt(self) -> str:
        return "claimant" if self.lies else "challenger"

    @property
    def program(self) -> Program:
        return self._program

    @cached_property
    def _program(self) -> Program:
        return gpt_like_program(self.disputed)

    @property
    def steps(self) -> int:
        return STEPS

    @property
    def context(self) -> StepContext:
        return StepContext(7, 300)

    @cached_property
    def _positions(self) -> tuple[int, int]:
        """Where the disputed term reads its two operands."""
        row, column = divmod(self.disputed.element, self.disputed.columns)
        place = (row, column, self.disputed.term)
        left, right = operands_of(self.disputed)
        return (
            sum(s * i for s, i in zip(left.stride, place, strict=True)),
            sum(s * i for s, i in zip(right.stride, place, strict=True)),
        )

    def sums(self, role: Role, step: int, operator: int, element: int) -> ChunkTree:
        term = self.disputed.term
        value = fma(A, B, BEFORE) ^ (1 if self.lies else 0)
        last = self.output(role, step, operator).chunk(element >> 8)[4 * (element & 255) :][:4]
        values = {term - 1: BEFORE, term: value, self.disputed.terms - 1: int.from_bytes(last, "little")}
        return sparse_tensor(self.disputed.terms, "sums", values)

    def output(self, role: Role, step: int, operator: int) -> ChunkTree:
        element = self.disputed.element
        value = 0x41200000 ^ (1 if self.lies else 0)
        return sparse_tensor(self.disputed.rows * self.disputed.columns, "output", {element: value})

    def outputs(self, role: Role, step: int) -> HashTree:
        return self._outputs

    @cached_property
    def _outputs(self) -> SparseTree:
        known = {NUMBER: root(self.output(Role.STEP, self.step, NUMBER))}
        for operand in operands_of(self.disputed):
            if operand.source == Source.OPERATOR:
                known[operand.index] = root(self.tensor(Role.STEP, self.step, operand.source, operand.index))
        return sparse_hashes(len(self.program.section(Role.STEP).operators), "outputs", known)

    def tensor(self, role: Role, step: int, source: Source, index: int) -> ChunkTree:
        for operand, position, word in zip(operands_of(self.disputed), self._positions, (A, B), strict=True):
            if (operand.source, operand.index) == (source, index):
                return sparse_tensor(operand.count, f"{source.name}{index}", {position: word})
        raise KeyError(f"{source.name.lower()} {index} has no content here")

    def tensors(self, role: Role, step: int, source: Source) -> HashTree:
        return self._outputs if source == Source.OPERATOR else self.state(role, step - 1)

    def state(self, role: Role, step: int) -> HashTree:
        known = {}
        for operand in operands_of(self.disputed):
            if operand.source == Source.STATE and step == self.step - 1:
                known[operand.index] = root(self.tensor(role, step + 1, operand.source, operand.index))
        salt = f"state {step}" + (self.salt if step >= self.step else "")
        return sparse_hashes(len(self.program.state), salt, known)

    def segment(self, role: Role) -> HashTree:
        return self._segment

    @cached_property
    def _segment(self) -> SparseTree:
        return sparse_hashes(STEPS, "segment", {step: root(self.state(Role.STEP, step)) for step in range(STEPS)})

    def trace(self, role: Role) -> HashTree:
        return sparse_hashes(STEPS, "trace", {})

    def trace_chunk(self, role: Role, step: int) -> bytes:
        return bytes(256)
