"""Bytes of operator records, tables and headers, and the trees over them (contracts/FORMAT.md, sections 2.1, 2.4)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from assay.commitments import tensor, tree
from assay.program.errors import ProgramError
from assay.program.operator import (
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

FORMAT_VERSION = 1
ARITHMETIC_VERSION = 1
MAX_DIMENSIONS = 8
MAX_OPERANDS = 4
MAX_GUARDS = 3

HEADER_DOMAIN = b"\x02"
OPERATOR_DOMAIN = b"\x03"
STATE_ENTRY_DOMAIN = b"\x04"
SUM_NODE_DOMAIN = b"\x08"
DATA_ENTRY_DOMAIN = b"\x09"

_Enum = TypeVar("_Enum", Body, ElementType, Source, Role)

STATE_TABLE_ROLES = (Role.STEP, Role.NOISY_STEP)


def encode_operator(operator: Operator) -> bytes:
    """The record of an operator; `ProgramError` where a field does not fit its width."""
    outer, inner = len(operator.extents), len(operator.reduced)
    dimensions = outer + inner
    try:
        parts = [
            struct.pack(">4B", operator.body, operator.type, outer, inner),
            struct.pack(f">{dimensions}I", *operator.dimensions),
            struct.pack(">IIB", operator.p0, operator.p1, len(operator.operands)),
        ]
        for operand in operator.operands:
            parts.append(
                struct.pack(
                    f">BBIIIq{dimensions}i",
                    operand.source,
                    len(operand.guards),
                    operand.index,
                    operand.count,
                    operand.fill,
                    operand.offset,
                    *operand.stride,
                )
            )
            for guard in operand.guards:
                parts.append(
                    struct.pack(
                        f">i{dimensions}iIIi",
                        guard.offset,
                        *guard.stride,
                        guard.divisor,
                        guard.bound,
                        guard.multiplier,
                    )
                )
    except struct.error as error:
        raise ProgramError(f"an operator {operator.body.name.lower()} does not fit its record: {error}") from error
    return b"".join(parts)


class _Reader:
    """Reads fields from a record's front and never past its end."""

    def __init__(self, record: bytes, name: str) -> None:
        self.record, self.name, self.position = record, name, 0

    def take(self, form: str, field: str) -> tuple[int, ...]:
        size = struct.calcsize(form)
        if self.position + size > len(self.record):
            raise ProgramError(
                f"{self.name}: the record ends at byte {len(self.record)} within `{field}`, which needs "
                f"{size} bytes from byte {self.position}"
            )
        values = struct.unpack_from(form, self.record, self.position)
        self.position += size
        return values


def decode_operator(record: bytes, name: str = "operator") -> Operator:
    """The operator of a record. `ProgramError` names the field and value where the record is not one (unknown body,
    too many dimensions, truncated, bytes left over); what the fields mean together is `validate`'s to judge."""
    reader = _Reader(record, name)
    body_code, type_code, outer, inner = reader.take(">4B", "body")
    body = _member(Body, body_code, "body", name)
    element_type = _member(ElementType, type_code, "output type", name)
    if outer > MAX_DIMENSIONS or inner > MAX_DIMENSIONS or outer + inner > MAX_DIMENSIONS:
        raise ProgramError(f"{name}: {outer} output and {inner} reduced dimensions, {MAX_DIMENSIONS} are allowed")
    dimensions = outer + inner
    extents = reader.take(f">{dimensions}I", "extent")
    p0, p1, operand_count = reader.take(">IIB", "p0")
    if operand_count > MAX_OPERANDS:
        raise ProgramError(f"{name}: number of operands is {operand_count}, {MAX_OPERANDS} are allowed")
    operands = []
    for number in range(operand_count):
        source_code, guard_count, index, count, fill, offset, *stride = reader.take(
            f">BBIIIq{dimensions}i", f"operand {number}"
        )
        source = _member(Source, source_code, f"operand {number} source", name)
        if guard_count > MAX_GUARDS:
            raise ProgramError(f"{name}: operand {number} has {guard_count} guards, {MAX_GUARDS} are allowed")
        guards = []
        for place in range(guard_count):
            guard_offset, *rest = reader.take(f">i{dimensions}iIIi", f"operand {number} guard {place}")
            *guard_stride, divisor, bound, multiplier = rest
            guards.append(Guard(guard_offset, tuple(guard_stride), divisor, bound, multiplier))
        operands.append(Operand(source, index, count, tuple(stride), offset, fill, tuple(guards)))
    if reader.position != len(record):
        raise ProgramError(f"{name}: {len(record) - reader.position} bytes are left over after the last operand")
    return Operator(body, element_type, extents[:outer], tuple(operands), extents[outer:], p0, p1)


def _member(kind: type[_Enum], code: int, field: str, name: str) -> _Enum:
    try:
        return kind(code)
    except ValueError:
        raise ProgramError(f"{name}: {field} {code:#04x} does not exist in format {FORMAT_VERSION}") from None


@dataclass(frozen=True)
class SumTree:
    """The levels of a program tree, leaves (padded) first: hashes with the work below them."""

    levels: tuple[tuple[tuple[bytes, int], ...], ...]

    @property
    def root(self) -> bytes:
        """The root hash."""
        return self.levels[-1][0][0]

    @property
    def work(self) -> int:
        """The work of all leaves."""
        return self.levels[-1][0][1]

    def proof(self, index: int) -> list[tuple[bytes, int]]:
        """(sibling hash, sibling work) of leaf `index`, from the bottom up."""
        if not 0 <= index < len(self.levels[0]):
            raise ProgramError(f"operator {index} is outside a tree of {len(self.levels[0])} padded leaves")
        return [level[(index >> height) ^ 1] for height, level in enumerate(self.levels[:-1])]


def sum_node(left: tuple[bytes, int], right: tuple[bytes, int]) -> tuple[bytes, int]:
    """H(08 ‖ left hash ‖ u128 left work ‖ right hash ‖ u128 right work), and the sum of both works."""
    message = left[0] + left[1].to_bytes(16, "big") + right[0] + right[1].to_bytes(16, "big")
    return sha256(SUM_NODE_DOMAIN + message).digest(), left[1] + right[1]


def sum_tree(leaves: Sequence[tuple[bytes, int]]) -> SumTree:
    """The sum tree over (hash, work) leaves, of which there is at least one."""
    depth = tree.depth_of(len(leaves))
    level = [*leaves, *[(tree.ZERO_HASH, 0)] * ((1 << depth) - len(leaves))]
    levels = [tuple(level)]
    while len(level) > 1:
        level = [sum_node(level[i], level[i + 1]) for i in range(0, len(level), 2)]
        levels.append(tuple(level))
    return SumTree(tuple(levels))


def verify_sum_proof(leaf: tuple[bytes, int], index: int, leaves: int, proof: Sequence[tuple[bytes, int]]) -> bytes:
    """The root that a sum proof leads to; `ProgramError` where it has the wrong length or the index is outside."""
    depth = tree.depth_of(leaves)
    if len(proof) != depth or not 0 <= index < leaves:
        raise ProgramError(f"a proof of operator {index} among {leaves} needs {depth} nodes, this one has {len(proof)}")
    current = leaf
    for height, sibling in enumerate(proof):
        current = sum_node(sibling, current) if (index >> height) & 1 else sum_node(current, sibling)
    return current[0]


def operator_leaf(operator: Operator) -> tuple[bytes, int]:
    """(H(03 ‖ record), work) of an operator."""
    return sha256(OPERATOR_DOMAIN + encode_operator(operator)).digest(), operator.work


def program_tree(section: Section) -> SumTree:
    """The sum tree over a section's operators."""
    return sum_tree([operator_leaf(operator) for operator in section.operators])


def state_entry_bytes(number: int, entry: StateEntry, descriptor: TensorDescriptor) -> bytes:
    """u8 kind ‖ u32 index ‖ u8 type ‖ u32 count of entry `number` of a next-state table."""
    index = number if entry.operator is None else entry.operator
    return struct.pack(">BIBI", entry.kind, index, descriptor.type, descriptor.count)


def state_table_leaves(section: Section, state: Sequence[TensorDescriptor]) -> list[bytes]:
    """The leaves of a section's next-state table."""
    return [
        sha256(STATE_ENTRY_DOMAIN + state_entry_bytes(number, entry, descriptor)).digest()
        for number, (entry, descriptor) in enumerate(zip(section.next_state, state, strict=True))
    ]


def data_table_leaves(data: Sequence[TensorDescriptor]) -> list[bytes]:
    """The leaves of the data table: H(09 ‖ u8 type ‖ u32 count)."""
    return [sha256(DATA_ENTRY_DOMAIN + struct.pack(">BI", entry.type, entry.count)).digest() for entry in data]


def constant_root(program: Program) -> bytes:
    """Plain tree over the constants' tensor roots; the zero hash where there are none."""
    if not program.constants:
        return tree.ZERO_HASH
    return tree.root([tensor.root(constant) for constant in program.constants])


def encode_header(program: Program) -> bytes:
    """The header of a program; its hash is the program root."""
    data_table = tree.root(data_table_leaves(program.data)) if program.data else tree.ZERO_HASH
    parts = [
        struct.pack(">HHII", FORMAT_VERSION, ARITHMETIC_VERSION, len(program.state), len(program.data)),
        data_table,
        struct.pack(">I", len(program.constants)),
        constant_root(program),
        struct.pack(">B", len(program.sections)),
    ]
    for section in program.sections:
        operators = program_tree(section)
        has_table = section.role in STATE_TABLE_ROLES
        table = tree.root(state_table_leaves(section, program.state)) if has_table else tree.ZERO_HASH
        parts += [
            struct.pack(">BI", section.role, len(section.operators)),
            operators.root,
            operators.work.to_bytes(16, "big"),
            table,
        ]
    return b"".join(parts)


def program_root(program: Program) -> bytes:
    """H(02 ‖ header)."""
    return sha256(HEADER_DOMAIN + encode_header(program)).digest()


@dataclass(frozen=True)
class SectionHeader:
    """What a header says of one section."""

    role: Role
    operators: int
    tree_root: bytes
    work: int
    table_root: bytes


@dataclass(frozen=True)
class Header:
    """A program's header, decoded."""

    states: int
    data: int
    data_table_root: bytes
    constants: int
    constant_root: bytes
    sections: tuple[SectionHeader, ...]


def decode_header(header: bytes) -> Header:
    """The fields of a header; `ProgramError` names what does not fit."""
    reader = _Reader(header, "header")
    version, arithmetic, states, data = reader.take(">HHII", "format")
    if version != FORMAT_VERSION:
        raise ProgramError(f"header: format {version}, this client knows format {FORMAT_VERSION}")
    if arithmetic != ARITHMETIC_VERSION:
        raise ProgramError(f"header: arithmetic {arithmetic}, this client knows binary32-{ARITHMETIC_VERSION}")
    data_root = _take_hash(reader, "data table root")
    (constants,) = reader.take(">I", "number of constants")
    constants_root = _take_hash(reader, "constant root")
    (count,) = reader.take(">B", "number of sections")
    sections = []
    for number in range(count):
        role_code, operators = reader.take(">BI", f"section {number}")
        role = _member(Role, role_code, f"section {number} role", "header")
        root = _take_hash(reader, f"section {number} root")
        high, low = reader.take(">QQ", f"section {number} work")
        sections.append(SectionHeader(role, operators, root, high << 64 | low, _take_hash(reader, "state table root")))
    if reader.position != len(header):
        raise ProgramError(f"header: {len(header) - reader.position} bytes are left over")
    return Header(states, data, data_root, constants, constants_root, tuple(sections))


def _take_hash(reader: _Reader, field: str) -> bytes:
    reader.take(">32B", field)
    return reader.record[reader.position - 32 : reader.position]


def work(program: Program, role: Role = Role.STEP) -> int:
    """Work units of one execution of a section, known before anything runs."""
    return program.section(role).work
