"""Programs as files (`.assayprogram`): data only, read strictly, every size checked before memory is taken for it.

Layout, integers big-endian:

    "ASSAYPRG" ‖ u16 file version ‖ u64 length of the whole file
    u32 nState ‖ tensors ‖ u32 nData ‖ tensors
    u32 nConstants ‖ constants
    u8 number of sections ‖ sections
    u32 1 + loss operator, or 0 ‖ bytes32 program root

    tensor   = u16 name length ‖ UTF-8 name ‖ u8 type ‖ u8 rank ‖ u32 extents
    constant = u8 type ‖ u8 rank ‖ u32 extents ‖ little-endian elements
    section  = u8 role ‖ u32 operators ‖ (u16 length ‖ record)* ‖ (u32 1 + operator, or 0: unchanged)* in roles 0 and 2
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np

from assay.program.encoding import STATE_TABLE_ROLES, decode_operator, encode_operator, program_root
from assay.program.errors import ProgramError
from assay.program.operator import Array, ElementType, Program, Role, Section, StateEntry, TensorDescriptor
from assay.program.validate import Limits, validate

MAGIC = b"ASSAYPRG"
FILE_VERSION = 1
SUFFIX = ".assayprogram"
MAX_RANK = 8
_PREFIX = struct.Struct(">8sHQ")


def dump_program(program: Program) -> bytes:
    """The file's bytes; the same for the same program, on every machine."""
    parts = [_dump_tensors(program.state), _dump_tensors(program.data), struct.pack(">I", len(program.constants))]
    for constant in program.constants:
        kind = ElementType.of(constant)
        parts.append(struct.pack(f">BB{constant.ndim}I", kind, constant.ndim, *constant.shape))
        parts.append(np.ascontiguousarray(constant).astype(kind.dtype.newbyteorder("<"), copy=False).tobytes())
    parts.append(struct.pack(">B", len(program.sections)))
    for section in program.sections:
        parts.append(struct.pack(">BI", section.role, len(section.operators)))
        for operator in section.operators:
            record = encode_operator(operator)
            parts += [struct.pack(">H", len(record)), record]
        if section.role in STATE_TABLE_ROLES:
            parts += [struct.pack(">I", 0 if e.operator is None else 1 + e.operator) for e in section.next_state]
    parts += [struct.pack(">I", 0 if program.loss is None else 1 + program.loss), program_root(program)]
    body = b"".join(parts)
    return _PREFIX.pack(MAGIC, FILE_VERSION, _PREFIX.size + len(body)) + body


def _dump_tensors(descriptors: Sequence[TensorDescriptor]) -> bytes:
    parts = [struct.pack(">I", len(descriptors))]
    for descriptor in descriptors:
        name = descriptor.name.encode()
        parts.append(struct.pack(">H", len(name)) + name)
        parts.append(
            struct.pack(f">BB{len(descriptor.shape)}I", descriptor.type, len(descriptor.shape), *descriptor.shape)
        )
    return b"".join(parts)


class _Cursor:
    """Reads from the front of the file's bytes and never past their end."""

    def __init__(self, content: bytes) -> None:
        self.content, self.position = content, 0

    def raw(self, size: int, field: str) -> bytes:
        if size > len(self.content) - self.position:
            raise ProgramError(
                f"the program file ends at byte {len(self.content)} within {field}, "
                f"which needs {size} bytes from byte {self.position}"
            )
        self.position += size
        return self.content[self.position - size : self.position]

    def take(self, form: str, field: str) -> tuple[int, ...]:
        return struct.unpack(form, self.raw(struct.calcsize(form), field))

    def count(self, field: str, limit: int, smallest: int) -> int:
        """A u32 count of things of at least `smallest` bytes each: refused where they cannot all be in the file."""
        (value,) = self.take(">I", field)
        if value > limit or value * smallest > len(self.content) - self.position:
            raise ProgramError(f"{field} is {value}: {limit} are accepted, and they must fit in the file")
        return value


def load_program(content: bytes, limits: Limits | None = None) -> Program:
    """The program in a file's bytes, decoded, validated and equal to the root it carries; else `ProgramError`."""
    limits = limits or Limits()
    if len(content) > limits.file_bytes:
        raise ProgramError(f"the program file has {len(content)} bytes, {limits.file_bytes} are accepted")
    cursor = _Cursor(content)
    magic, version, length = _PREFIX.unpack(cursor.raw(_PREFIX.size, "the file's prefix"))
    if magic != MAGIC:
        raise ProgramError(f"not a program file: it begins with {magic!r}, not with {MAGIC!r}")
    if version != FILE_VERSION:
        raise ProgramError(f"the program file has version {version}, this client reads version {FILE_VERSION}")
    if length != len(content):
        raise ProgramError(f"the program file says it has {length} bytes and has {len(content)}: fetch it again")
    state, data = _load_tensors(cursor, "state", limits), _load_tensors(cursor, "data", limits)
    constants = _load_constants(cursor, limits)
    (section_count,) = cursor.take(">B", "number of sections")
    if section_count > len(Role):
        raise ProgramError(f"number of sections is {section_count}, {len(Role)} exist")
    sections = tuple(_load_section(cursor, len(state), limits) for _ in range(section_count))
    (loss,) = cursor.take(">I", "loss operator")
    root = cursor.raw(32, "program root")
    if cursor.position != len(content):
        raise ProgramError(f"{len(content) - cursor.position} bytes follow the program root")
    program = Program(state, data, constants, sections, loss - 1 if loss else None)
    validate(program, limits)
    found = program_root(program)
    if found != root:
        raise ProgramError(f"the program file carries root {root.hex()}, its content has {found.hex()}")
    return program


def _type(code: int, field: str) -> ElementType:
    try:
        return ElementType(code)
    except ValueError:
        raise ProgramError(f"{field}: element type {code} does not exist") from None


def _load_shape(cursor: _Cursor, rank: int, field: str, limits: Limits) -> tuple[int, ...]:
    if rank > MAX_RANK:
        raise ProgramError(f"{field} has rank {rank}, {MAX_RANK} is the most")
    shape = cursor.take(f">{rank}I", f"{field} shape")
    if not 1 <= prod(shape) <= limits.tensor_elements:
        raise ProgramError(f"{field} has shape {shape}: 1 to {limits.tensor_elements} elements are accepted")
    return shape


def _load_tensors(cursor: _Cursor, what: str, limits: Limits) -> tuple[TensorDescriptor, ...]:
    descriptors = []
    for number in range(cursor.count(f"number of {what} tensors", limits.tensors, 4)):
        field = f"{what} tensor {number}"
        (size,) = cursor.take(">H", f"{field} name")
        try:
            name = cursor.raw(size, f"{field} name").decode()
        except UnicodeDecodeError:
            raise ProgramError(f"{field}: the name is not UTF-8") from None
        code, rank = cursor.take(">BB", f"{field} type")
        descriptors.append(TensorDescriptor(name, _type(code, field), _load_shape(cursor, rank, field, limits)))
    return tuple(descriptors)


def _load_constants(cursor: _Cursor, limits: Limits) -> tuple[Array, ...]:
    constants: list[Array] = []
    total = 0
    for number in range(cursor.count("number of constants", limits.tensors, 6)):
        field = f"constant {number}"
        code, rank = cursor.take(">BB", f"{field} type")
        kind, shape = _type(code, field), _load_shape(cursor, rank, field, limits)
        total += 4 * prod(shape)
        if total > limits.constant_bytes:
            raise ProgramError(f"{field}: the constants are larger than {limits.constant_bytes} bytes")
        raw = cursor.raw(4 * prod(shape), field)
        values = _array(raw, kind, shape)
        values.setflags(write=False)
        constants.append(values)
    return tuple(constants)


def _array(raw: bytes, kind: ElementType, shape: tuple[int, ...]) -> Array:
    if kind == ElementType.FLOAT:
        return np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape)
    return np.frombuffer(raw, "<i4").astype(np.int32).reshape(shape)


def _load_section(cursor: _Cursor, states: int, limits: Limits) -> Section:
    (code,) = cursor.take(">B", "section role")
    try:
        role = Role(code)
    except ValueError:
        raise ProgramError(f"section role {code} does not exist") from None
    operators = []
    for number in range(cursor.count(f"number of {role.name.lower()} operators", limits.operators, 15)):
        (size,) = cursor.take(">H", f"length of {role.name.lower()} operator {number}")
        name = f"{role.name.lower()} operator {number}"
        operators.append(decode_operator(cursor.raw(size, name), name))
    table: list[StateEntry] = []
    if role in STATE_TABLE_ROLES:
        for value in cursor.take(f">{states}I", f"{role.name.lower()} next-state table"):
            table.append(StateEntry(value - 1 if value else None))
    return Section(role, tuple(operators), tuple(table))


def write_program(program: Program, path: Path) -> None:
    """Write a program file (`SUFFIX` by custom)."""
    path.write_bytes(dump_program(program))


def read_program(path: Path, limits: Limits | None = None) -> Program:
    """Read a program file; its size is checked before it is read."""
    limits = limits or Limits()
    size = path.stat().st_size
    if size > limits.file_bytes:
        raise ProgramError(f"{path}: the program file has {size} bytes, {limits.file_bytes} are accepted")
    return load_program(path.read_bytes(), limits)
