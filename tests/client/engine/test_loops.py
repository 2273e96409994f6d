"""Generated loop kernels against the slow interpreter, bit for bit, on random operators and operands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from assay.engine.cpu.device import CpuDevice
from assay.engine.device import Bindings
from assay.program.interpreter import Inputs, run_section
from assay.program.operator import (
    BODY_RULES,
    Body,
    ElementType,
    Guard,
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

SPECIAL = np.array(
    [0, 0x80000000, 1, 0x80000001, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F7FFFFF, 0x00800000, 0x3F800000, 0xBF800000],
    np.uint32,
).view(np.float32)
FLOAT, INT = ElementType.FLOAT, ElementType.INT


def random_floats(generator: np.random.Generator, shape: tuple[int, ...], special: bool = True) -> np.ndarray:
    values = generator.standard_normal(shape).astype(np.float32)
    if special:
        chosen = generator.random(shape) < 0.05
        values[chosen] = generator.choice(SPECIAL, int(chosen.sum()))
    return values


def canonical(array: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(array).view(np.uint32).copy()
    if array.dtype == np.float32:
        bits[np.isnan(array)] = 0x7FC00000
    return bits


def tensor(
    source: Source, index: int, shape: tuple[int, ...], strides: tuple[int, ...] | None = None, **more
) -> Operand:
    return Operand(source, index, int(np.prod(shape)), row_major_strides(shape) if strides is None else strides, **more)


def assert_same(program: Program, state: list[np.ndarray], step: int = 3, seed: int = 11) -> None:
    """Run all operators with everything fused, and with everything materialised, and compare with the interpreter."""
    section = program.sections[0]
    expected = run_section(program, Role.STEP, Inputs(state, context=StepContext(seed, step))).outputs
    bindings = Bindings({}, seed).bind(Source.STATE, [np.ascontiguousarray(part) for part in state])
    last = len(section.operators) - 1
    fused = CpuDevice(threads=2).compile(program, Role.STEP, [last])
    watch = [
        (index, int(e)) for index, op in enumerate(section.operators) for e in {0, op.elements - 1, op.elements // 2}
    ]
    bits = fused.run(bindings, step, {}, watch)
    np.testing.assert_array_equal(canonical(fused.value(last)).ravel(), canonical(expected[last]).ravel())
    for (index, element), got in zip(watch, bits, strict=True):
        assert got == canonical(expected[index]).ravel()[element], f"operator {index} element {element}"
    seen: dict[int, np.ndarray] = {}
    full = CpuDevice(threads=1).compile(program, Role.STEP, [], lambda i, a: seen.__setitem__(i, a.copy()))
    full.run(bindings, step, {})
    for index in range(len(section.operators)):
        np.testing.assert_array_equal(
            canonical(seen[index]).ravel(), canonical(expected[index]).ravel(), f"operator {index}"
        )


def program_of(operators: list[Operator], state: list[np.ndarray]) -> Program:
    descriptors = tuple(TensorDescriptor(f"s{i}", ElementType.of(part), part.shape) for i, part in enumerate(state))
    unchanged = (StateEntry(None),) * len(state)
    return Program(descriptors, (), (), (Section(Role.STEP, tuple(operators), unchanged),))


@pytest.mark.parametrize(
    "body", [b for b in Body if not BODY_RULES[b].fold and b not in (Body.GATHER, Body.PERMUTE, Body.UNIFORM)]
)
def test_a_scalar_body_equals_the_interpreter(body: Body) -> None:
    generator = np.random.default_rng(int(body))
    shape = (5, 37)
    rule = BODY_RULES[body]
    floats = [random_floats(generator, shape) for _ in range(3)]
    floats[1].ravel()[:40] = floats[0].ravel()[:40]
    integers = [generator.integers(-3, 4, shape).astype(np.int32) for _ in range(3)]
    integers[0].ravel()[:4] = [-(2**31), 2**31 - 1, -(2**31), 0]
    integers[1].ravel()[:4] = [-1, -1, 0, 0]
    state = floats + integers
    kind = INT if rule.output == "i" else FLOAT
    operands = tuple(
        tensor(Source.STATE, place + (3 if letter == "i" else 0), shape) for place, letter in enumerate(rule.operands)
    )
    assert_same(program_of([Operator(body, kind, shape, operands)], state), state)


@pytest.mark.parametrize("body", [b for b in Body if BODY_RULES[b].fold])
@pytest.mark.parametrize("layout", ["rows", "columns", "middle"])
def test_a_fold_equals_the_interpreter(body: Body, layout: str) -> None:
    generator = np.random.default_rng(int(body))
    shape = {"rows": (37, 70), "columns": (70, 83), "middle": (3, 19, 35)}[layout]
    strides = row_major_strides(shape)
    keep = {"rows": [0], "columns": [1], "middle": [0, 2]}[layout]
    gone = [d for d in range(len(shape)) if d not in keep]
    order = keep + gone
    extents, reduced = tuple(shape[d] for d in keep), tuple(shape[d] for d in gone)
    place = tuple(strides[d] for d in order)
    floats = [random_floats(generator, shape, special=body != Body.FOLD_FMA) for _ in range(3)]
    integers = [generator.integers(-2, 3, shape).astype(np.int32) for _ in range(3)]
    state = floats + integers
    rule = BODY_RULES[body]
    operands = tuple(
        Operand(Source.STATE, n + (3 if letter == "i" else 0), floats[0].size, place)
        for n, letter in enumerate(rule.operands)
    )
    kind = INT if rule.output == "i" else FLOAT
    assert_same(program_of([Operator(body, kind, extents, operands, reduced)], state), state)


def test_a_layer_norm_with_residual_is_one_group_and_exact() -> None:
    generator = np.random.default_rng(1)
    rows, width = (3, 11), 48
    shape = (*rows, width)
    state = [
        random_floats(generator, shape, False),
        random_floats(generator, (width,), False),
        random_floats(generator, shape),
    ]
    x = tensor(Source.OPERATOR, 0, shape)
    statistic = (11, 1, 0)

    def row_value(index: int) -> Operand:
        return Operand(Source.OPERATOR, index, 33, statistic)

    def constant(bits: int, rank: int) -> Operand:
        return Operand(Source.IMMEDIATE, bits, 0, (0,) * rank)

    inverse = int(np.float32(1 / width).view(np.uint32))
    operators = [
        Operator(Body.ADD, FLOAT, shape, (tensor(Source.STATE, 0, shape), tensor(Source.STATE, 2, shape))),
        Operator(Body.FOLD_ADD, FLOAT, rows, (x,), (width,)),
        Operator(Body.MUL, FLOAT, rows, (tensor(Source.OPERATOR, 1, rows), constant(inverse, 2))),
        Operator(Body.SUB, FLOAT, shape, (x, row_value(2))),
        Operator(
            Body.FOLD_FMA, FLOAT, rows, (tensor(Source.OPERATOR, 3, shape), tensor(Source.OPERATOR, 3, shape)), (width,)
        ),
        Operator(Body.SQRT, FLOAT, rows, (tensor(Source.OPERATOR, 4, rows),)),
        Operator(Body.DIV, FLOAT, shape, (tensor(Source.OPERATOR, 3, shape), row_value(5))),
        Operator(
            Body.MUL, FLOAT, shape, (tensor(Source.OPERATOR, 6, shape), Operand(Source.STATE, 1, width, (0, 0, 1)))
        ),
    ]
    program = program_of(operators, state)
    assert len(CpuDevice().compile(program, Role.STEP, [7]).launches) == 1
    assert_same(program, state)


def test_guards_pad_windows_and_mask_triangles() -> None:
    generator = np.random.default_rng(2)
    image = random_floats(generator, (2, 9, 21))
    state = [image]
    nine = (2, 9, 21, 3, 3)
    window = Operand(
        Source.STATE,
        0,
        image.size,
        (9 * 21, 0, 0, 0, 0),
        fill=0x3F800000,
        guards=(Guard(-1, (0, 1, 0, 1, 0), 1, 9, 21), Guard(-1, (0, 0, 1, 0, 1), 1, 21, 1)),
    )
    strided = Operand(
        Source.STATE,
        0,
        image.size,
        (9 * 21, 0, 0, 0, 0),
        guards=(Guard(1, (0, 1, 0, -1, 0), 2, 9, 21), Guard(1, (0, 0, 1, 0, -1), 2, 21, 1)),
    )
    triangle = Operand(
        Source.STATE, 0, image.size, (9 * 21, 21, 1), fill=0xFF800000, guards=(Guard(0, (0, 1, -1), 1, 1 << 20),)
    )
    operators = [
        Operator(Body.FOLD_ADD, FLOAT, (2, 9, 21), (window,), nine[3:]),
        Operator(Body.FOLD_MAX, FLOAT, (2, 9, 21), (window,), nine[3:]),
        Operator(Body.FOLD_ADD, FLOAT, (2, 9, 21), (strided,), nine[3:]),
        Operator(Body.COPY, FLOAT, (2, 9, 21), (triangle,)),
        Operator(Body.FOLD_ARGMAX, INT, (2, 9, 21), (window,), nine[3:]),
    ]
    assert_same(program_of(operators, state), state)


def test_gather_reads_rows_scalars_and_zero_outside() -> None:
    generator = np.random.default_rng(3)
    table = random_floats(generator, (7, 20))
    chosen = np.array([0, 6, 7, -1, 3, 3, 2**31 - 1, 5], np.int32)
    rows = Operator(
        Body.GATHER,
        FLOAT,
        (8, 20),
        (Operand(Source.STATE, 0, 140, (0, 1)), Operand(Source.STATE, 1, 8, (1, 0))),
        p0=20,
        p1=7,
    )
    single = Operator(
        Body.GATHER, FLOAT, (8,), (Operand(Source.STATE, 0, 140, (1,)), Operand(Source.STATE, 1, 8, (1,))), p0=20, p1=6
    )
    scatter = Operator(
        Body.FOLD_ADD_IF,
        FLOAT,
        (7, 20),
        (
            Operand(Source.STATE, 1, 8, (0, 0, 1)),
            Operand(Source.INDEX, 0, 0, (1, 0, 0)),
            Operand(Source.OPERATOR, 0, 160, (0, 1, 20)),
        ),
        (8,),
    )
    assert_same(program_of([rows, single, scatter], [table, chosen]), [table, chosen])


def test_gather_reads_what_its_own_kernel_computes() -> None:
    """Along a dimension of one element: but for the index, the table is read where it is written."""
    generator = np.random.default_rng(3)
    values = random_floats(generator, (6, 5))
    chosen = generator.integers(-1, 2, (6, 5)).astype(np.int32)
    index = tensor(Source.STATE, 1, (6, 5))
    operators = [
        Operator(Body.NEG, FLOAT, (6, 5), (tensor(Source.STATE, 0, (6, 5)),)),
        Operator(Body.GATHER, FLOAT, (6, 5), (tensor(Source.OPERATOR, 0, (6, 5)), index), p0=1, p1=1),
        Operator(Body.ISUB, INT, (6, 5), (index, index)),
        Operator(
            Body.GATHER,
            FLOAT,
            (6, 5),
            (tensor(Source.OPERATOR, 1, (6, 5)), tensor(Source.OPERATOR, 2, (6, 5))),
            (),
            1,
            1,
        ),
    ]
    assert_same(program_of(operators, [values, chosen]), [values, chosen])


def test_matrix_products_in_every_orientation() -> None:
    generator = np.random.default_rng(4)
    a, b = random_floats(generator, (2, 13, 24), False), random_floats(generator, (2, 24, 17), False)
    left, right = (13 * 24, 24, 0, 1), (24 * 17, 0, 1, 17)
    operators = [
        Operator(
            Body.FOLD_FMA,
            FLOAT,
            (2, 13, 17),
            (Operand(Source.STATE, 0, a.size, left), Operand(Source.STATE, 1, b.size, right)),
            (24,),
        ),
        Operator(
            Body.FOLD_FMA,
            FLOAT,
            (2, 17, 13),
            (
                Operand(Source.STATE, 0, a.size, (13 * 24, 0, 24, 1)),
                Operand(Source.STATE, 1, b.size, (24 * 17, 1, 0, 17)),
            ),
            (24,),
        ),
        Operator(
            Body.FOLD_FMA,
            FLOAT,
            (24, 17),
            (
                Operand(Source.STATE, 0, a.size, (1, 0, 13 * 24, 24)),
                Operand(Source.OPERATOR, 0, 2 * 13 * 17, (0, 1, 13 * 17, 17)),
            ),
            (2, 13),
        ),
    ]
    assert_same(program_of(operators, [a, b]), [a, b])


def test_step_index_and_random_sources() -> None:
    operators = [
        Operator(Body.COPY, INT, (4, 5), (Operand(Source.INDEX, 0, 0, (-3, 2), offset=7),)),
        Operator(Body.COPY, INT, (), (Operand(Source.STEP, 0, 0, ()),)),
        Operator(Body.UNIFORM, FLOAT, (33,), (), p0=5),
        Operator(Body.PERMUTE, INT, (8,), (), p0=8, p1=21),
        Operator(Body.TO_FLOAT, FLOAT, (4, 5), (tensor(Source.OPERATOR, 0, (4, 5)),)),
    ]
    assert_same(program_of(operators, []), [])


@pytest.mark.parametrize("edge", ["start", "end"])
@pytest.mark.parametrize("compression", ["tile-8-8", "direct-4-8"])
def test_kernels_read_nothing_beyond_their_scratch_memory(edge: str, compression: str) -> None:
    script = Path(__file__).with_name("guarded_memory.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, str(script), edge, compression], capture_output=True, text=True, env=environment, timeout=300
    )
    assert (ended.returncode, ended.stdout) == (0, "done"), ended.stderr[-2000:]
