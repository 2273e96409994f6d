"""Records, trees, headers and files: exact round trips, and refusals of everything else."""

from __future__ import annotations

import random
import struct
from hashlib import sha256

import numpy as np
import pytest
import torch

from assay.program.encoding import (
    decode_header,
    decode_operator,
    encode_header,
    encode_operator,
    operator_leaf,
    program_root,
    program_tree,
    verify_sum_proof,
    work,
)
from assay.program.errors import ProgramError
from assay.program.file import dump_program, load_program, read_program, write_program
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
)
from assay.program.optimizer import AdamW
from assay.program.sections import Precision, build_program
from assay.program.trace import trace
from assay.program.validate import Limits

from .models import Perceptron, token_data, uniform_data


def random_operator(source: random.Random) -> Operator:
    """Any operator that has a record; nothing says that it is well-formed."""
    body = source.choice(list(Body))
    outer = source.randint(0, 4)
    inner = source.randint(1, 4) if BODY_RULES[body].fold else 0
    rank = outer + inner

    def strides() -> tuple[int, ...]:
        return tuple(source.randint(-(2**31), 2**31 - 1) for _ in range(rank))

    def word() -> int:
        return source.getrandbits(32)

    def guard() -> Guard:
        return Guard(source.randint(-(2**31), 2**31 - 1), strides(), word(), word(), source.randint(-5, 5))

    operands = tuple(
        Operand(
            source.choice(list(Source)),
            word(),
            word(),
            strides(),
            source.randint(-(2**63), 2**63 - 1),
            word(),
            tuple(guard() for _ in range(source.randint(0, 3))),
        )
        for _ in BODY_RULES[body].operands
    )
    extents = [source.randint(1, 2**32 - 1) for _ in range(rank)]
    kind = source.choice(list(ElementType))
    return Operator(body, kind, tuple(extents[:outer]), operands, tuple(extents[outer:]), word(), word())


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(1)
    batch = (uniform_data(4, 12), token_data(5, 4))
    task = trace(Perceptron(), "cross_entropy", AdamW(0.01), batch, 10)
    return build_program(task.graph, Precision.FP32)


def test_every_operator_survives_its_record() -> None:
    source = random.Random(5)
    for _ in range(500):
        operator = random_operator(source)
        assert decode_operator(encode_operator(operator)) == operator


def test_a_record_has_the_documented_bytes() -> None:
    guard = Guard(-1, (1, 0, 1), 1, 7, 7)
    operands = (
        Operand(Source.DATA, 2, 49, (0, 1, 0), -3, 0x3F800000, (guard,)),
        Operand(Source.IMMEDIATE, 0x40000000, 0, (0, 0, 0)),
    )
    operator = Operator(Body.FOLD_FMA, ElementType.FLOAT, (5, 6), operands, (3,))
    expected = struct.pack(">4B", 0x40, 0, 2, 1) + struct.pack(">3I", 5, 6, 3) + struct.pack(">IIB", 0, 0, 2)
    expected += struct.pack(">BBIIIq3i", 3, 1, 2, 49, 0x3F800000, -3, 0, 1, 0) + struct.pack(
        ">i3iIIi", -1, 1, 0, 1, 1, 7, 7
    )
    expected += struct.pack(">BBIIIq3i", 0, 0, 0x40000000, 0, 0, 0, 0, 0, 0)
    assert encode_operator(operator) == expected
    assert operator_leaf(operator) == (sha256(b"\x03" + expected).digest(), 90)


def test_records_that_are_no_operators_are_refused() -> None:
    source = random.Random(6)
    refused = 0
    for _ in range(300):
        record = bytearray(encode_operator(random_operator(source)))
        choice = source.randrange(3)
        if choice == 0:
            del record[source.randrange(len(record)) :]
        elif choice == 1:
            record += bytes(source.randint(1, 9))
        else:
            record[source.randrange(min(len(record), 30))] ^= 1 << source.randrange(8)
        try:
            decoded = decode_operator(bytes(record))
        except ProgramError:
            refused += 1
        else:
            assert encode_operator(decoded) == bytes(record)
    assert refused > 200


@pytest.mark.parametrize(
    ("place", "value", "word"),
    [
        (0, 0x70, "body"),
        (1, 2, "type"),
        (2, 9, "dimensions"),
        (12, 5, "operands"),
        (13, 12, "source"),
        (14, 4, "guards"),
    ],
)
def test_refusals_of_records_name_the_field(place: int, value: int, word: str) -> None:
    record = bytearray(encode_operator(Operator(Body.NEG, ElementType.FLOAT, (), (Operand(Source.DATA, 0, 1, ()),))))
    record[place] = value
    with pytest.raises(ProgramError, match=word):
        decode_operator(bytes(record))


def test_a_field_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ProgramError, match="does not fit"):
        encode_operator(Operator(Body.PERMUTE, ElementType.INT, (2**32,), (), p0=1, p1=1))


def test_operators_prove_themselves_and_their_work(program: Program) -> None:
    section = program.section(Role.STEP)
    tree = program_tree(section)
    assert tree.work == section.work == work(program) == sum(operator.work for operator in section.operators)
    for index in (0, 1, len(section.operators) - 1):
        leaf = operator_leaf(section.operators[index])
        assert verify_sum_proof(leaf, index, len(section.operators), tree.proof(index)) == tree.root
        wrong = (leaf[0], leaf[1] + 1)
        assert verify_sum_proof(wrong, index, len(section.operators), tree.proof(index)) != tree.root
    with pytest.raises(ProgramError):
        verify_sum_proof(leaf, index, len(section.operators), tree.proof(index)[:-1])


def test_a_header_says_what_the_program_is(program: Program) -> None:
    header = decode_header(encode_header(program))
    assert [section.role for section in header.sections] == list(Role)
    assert header.sections[0].work == program.section(Role.STEP).work
    assert header.sections[1].table_root == header.sections[3].table_root == bytes(32)
    assert (header.states, header.data) == (len(program.state), len(program.data))
    assert program_root(program) == sha256(b"\x02" + encode_header(program)).digest()


@pytest.mark.parametrize("cut", [0, 3, 40, 100, -1])
def test_malformed_headers_are_refused(program: Program, cut: int) -> None:
    with pytest.raises(ProgramError):
        decode_header(encode_header(program)[:cut])
    with pytest.raises(ProgramError, match="left over"):
        decode_header(encode_header(program) + b"\0")
    with pytest.raises(ProgramError, match="format"):
        decode_header(b"\0\2" + encode_header(program)[2:])


def test_files_are_read_as_they_were_written(program: Program, tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "step.assayprogram"
    write_program(program, path)
    again = read_program(path)
    assert program_root(again) == program_root(program)
    assert dump_program(again) == path.read_bytes()
    assert again.loss == program.loss
    assert [t.name for t in again.state] == [t.name for t in program.state]
    with pytest.raises(ProgramError, match="accepted"):
        read_program(path, Limits(file_bytes=100))
    with pytest.raises(ProgramError, match="operators"):
        read_program(path, Limits(operators=5))


def small_program() -> Program:
    """One state tensor, doubled."""
    operand = Operand(Source.STATE, 0, 4, (1,))
    constant = np.arange(4, dtype=np.float32)
    operators = (
        Operator(Body.ADD, ElementType.FLOAT, (4,), (operand, operand)),
        Operator(
            Body.MUL,
            ElementType.FLOAT,
            (4,),
            (Operand(Source.OPERATOR, 0, 4, (1,)), Operand(Source.CONSTANT, 0, 4, (1,))),
        ),
    )
    section = Section(Role.STEP, operators, (StateEntry(1),))
    return Program((TensorDescriptor("x", ElementType.FLOAT, (4,)),), (), (constant,), (section,))


def test_damaged_files_are_refused_and_never_crash() -> None:
    content = dump_program(small_program())
    for end in range(len(content)):
        with pytest.raises(ProgramError):
            load_program(content[:end])
    for place in range(len(content)):
        for bit in (0, 7):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            try:
                loaded = load_program(bytes(damaged))
            except ProgramError:
                continue
            # Names and shapes are not hashed; everything else must have been noticed.
            assert program_root(loaded) == program_root(small_program())


def test_claimed_sizes_are_checked_before_memory_is_taken() -> None:
    content = bytearray(dump_program(small_program()))
    shape = struct.pack(">BBI", 0, 1, 4)  # type, rank and extent: first of the state tensor, then of the constant
    place = content.index(shape, content.index(shape) + 1)
    content[place + 2 : place + 6] = struct.pack(">I", 2**30)
    with pytest.raises(ProgramError, match="larger than"):
        load_program(bytes(content))
