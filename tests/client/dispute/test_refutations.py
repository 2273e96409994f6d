"""Programs that are not well-formed are refuted at one place; a well-formed one never is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import pytest
import small_program
import world
from test_moves import refuses

from assay.bench.arena import Arena
from assay.dispute.evidence import record_opening
from assay.dispute.hash_tree import LeafTree, siblings
from assay.program.encoding import (
    encode_header,
    program_root,
    program_tree,
    state_entry_bytes,
    state_table_leaves,
)
from assay.program.operator import Body, ElementType, Operator, Program, Role, Source, StateEntry, TensorDescriptor


class Fault(IntEnum):
    """As in contracts/interfaces/IRefuter.sol."""

    HEADER = 0
    OPERATOR = 1
    SOURCE = 2
    WORK = 3
    ENTRY = 4
    ENTRY_OPERATOR = 5
    ENTRY_TENSOR = 6
    OUTPUT = 7


NO_RECORD: tuple[bytes, int, list[Any]] = (b"", 0, [])
ROLES = (Role.STEP, Role.DISTANCE, Role.NOISY_STEP, Role.DEVIATION)


@dataclass(frozen=True)
class Evidence:
    """As in the contract's `RefutationEvidence`."""

    fault: Fault
    place: int = 0
    number: int = 0
    operator: tuple[bytes, int, Sequence[Any]] = (b"", 0, ())
    works: Sequence[int] = ()
    operand: int = 0
    other: tuple[bytes, int, Sequence[Any]] = (b"", 0, ())
    entry: bytes = b""
    entry_proof: Sequence[bytes] = ()
    other_entry: bytes = b""
    other_entry_proof: Sequence[bytes] = ()

    def as_tuple(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)


def post(arena: Arena, program: Program, header: bytes | None = None) -> int:
    """A task with this program; its id."""
    claimant = str(arena.web3.eth.accounts[1])
    claim = world.base_claim(claimant, world.REPLAY, bytes(32), 1)
    task_id = next(world._ids)
    posted = replace(claim, program_root=program_root(program)).as_tuple()
    arena.transact(claimant, arena.claims.functions.post(task_id, posted, []))
    return task_id


def refute(arena: Arena, program: Program, evidence: Evidence) -> bool:
    """Whether the program is refuted by the evidence; the keeper of claims hears of it only if so."""
    refuter = str(arena.web3.eth.accounts[3])
    task_id = post(arena, program)
    call = arena.court.functions.refuteProgram(task_id, encode_header(program), evidence.as_tuple())
    try:
        arena.transact(refuter, call)
    except Exception as error:
        if getattr(error, "name", "") != "WellFormed":
            raise
        assert int(arena.claims.functions.refuters(task_id).call(), 16) == 0
        return False
    assert arena.claims.functions.refuters(task_id).call() == refuter
    return True


def with_operator(program: Program, role: Role, number: int, operator: Operator) -> Program:
    """The program with one operator replaced."""
    sections = []
    for section in program.sections:
        if section.role == role:
            operators = (*section.operators[:number], operator, *section.operators[number + 1 :])
            section = replace(section, operators=operators)
        sections.append(section)
    return replace(program, sections=tuple(sections))


def about(program: Program, role: Role, number: int, fault: Fault = Fault.OPERATOR, **rest: Any) -> Evidence:
    """Evidence that opens one operator."""
    return Evidence(fault, ROLES.index(role), number, record_opening(program, role, number), **rest)


def works_up(program: Program, role: Role, number: int) -> list[int]:
    """Works of an operator's leaf and of every node above it."""
    levels = program_tree(program.section(role)).levels
    return [level[number >> height][1] for height, level in enumerate(levels)]


STEP = world.PROGRAM.section(Role.STEP).operators


def altered_operand(number: int, place: int, **changes: Any) -> Operator:
    """An operator of the small program with one operand changed."""
    operator = STEP[number]
    operand = replace(operator.operands[place], **changes)
    return replace(operator, operands=(*operator.operands[:place], operand, *operator.operands[place + 1 :]))


FORWARD_READER = altered_operand(3, 0, index=3)  # reads itself
FAULTY = {
    "reads forward": (3, FORWARD_READER),
    "leaves its source behind the end": (3, altered_operand(3, 0, offset=1)),
    "leaves its source before the beginning": (3, altered_operand(3, 0, offset=-1)),
    "no such state tensor": (3, altered_operand(3, 1, index=7)),
    "source of another section": (3, altered_operand(3, 1, source=Source.COMPARED)),
    "a fold without terms": (3, replace(STEP[3], extents=(4, 40, 20), reduced=())),
    "an extent of zero": (4, replace(STEP[4], extents=(4, 0))),
    "wrong output type": (4, replace(STEP[4], type=ElementType.FLOAT)),
    "too few operands": (8, replace(STEP[8], operands=STEP[8].operands[:1])),
    "a gather of no rows": (1, replace(STEP[1], p1=0)),
}


@pytest.mark.parametrize("name", FAULTY)
def test_one_faulty_record_refutes(arena: Arena, name: str) -> None:
    number, operator = FAULTY[name]
    program = with_operator(world.PROGRAM, Role.STEP, number, operator)
    assert refute(arena, program, about(program, Role.STEP, number))
    # Nothing is wrong with its neighbour.
    assert not refute(arena, program, about(program, Role.STEP, number + 1))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name.lower())
def test_no_operator_of_a_well_formed_program_refutes_it(arena: Arena, role: Role) -> None:
    operators = world.PROGRAM.section(role).operators
    for number in range(0, len(operators), 5):
        assert not refute(arena, world.PROGRAM, about(world.PROGRAM, role, number))
        works = works_up(world.PROGRAM, role, number)
        assert not refute(arena, world.PROGRAM, about(world.PROGRAM, role, number, Fault.WORK, works=works))
    assert not refute(arena, world.PROGRAM, Evidence(Fault.HEADER))


def test_operand_of_another_count_or_type_than_its_source_refutes(arena: Arena) -> None:
    for place, changes in ((0, {"count": 81}), (0, {"index": 0, "count": 4})):
        # Operator 3 reads operator 1 (80 floats); 81 is not its count, and operator 0 is an integer tensor of 4.
        bad = (
            replace(altered_operand(3, place, **changes), extents=(1, 1), reduced=(1,))
            if "index" in changes
            else (altered_operand(3, place, **changes))
        )
        program = with_operator(world.PROGRAM, Role.STEP, 3, bad)
        read = bad.operands[0].index
        other = record_opening(program, Role.STEP, read)
        assert refute(arena, program, about(program, Role.STEP, 3, Fault.SOURCE, operand=0, other=other))
    other = record_opening(world.PROGRAM, Role.STEP, 1)
    assert not refute(arena, world.PROGRAM, about(world.PROGRAM, Role.STEP, 3, Fault.SOURCE, operand=0, other=other))


def table(program: Program, role: Role) -> tuple[LeafTree, list[bytes]]:
    """The next-state table of a section: its tree, and the entries without their domain byte."""
    section = program.section(role)
    entries = [
        state_entry_bytes(number, entry, part)
        for number, (entry, part) in enumerate(zip(section.next_state, program.state, strict=True))
    ]
    return LeafTree(state_table_leaves(section, program.state)), entries


def entry_evidence(program: Program, role: Role, number: int, fault: Fault, **rest: Any) -> Evidence:
    tree, entries = table(program, role)
    return Evidence(fault, ROLES.index(role), number, entry=entries[number], entry_proof=siblings(tree, number), **rest)


def test_state_operand_is_held_to_the_step_sections_table(arena: Arena) -> None:
    bad = altered_operand(3, 1, count=801)
    program = with_operator(world.PROGRAM, Role.STEP, 3, bad)
    tree, entries = table(program, Role.STEP)
    rest = {"operand": 1, "other_entry": entries[0], "other_entry_proof": siblings(tree, 0)}
    assert refute(arena, program, about(program, Role.STEP, 3, Fault.SOURCE, **rest))
    assert not refute(arena, world.PROGRAM, about(world.PROGRAM, Role.STEP, 3, Fault.SOURCE, **rest))


def test_false_work_refutes(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    number = 6
    honest = Operator.work.fget  # type: ignore[attr-defined]
    lied_about = STEP[number]
    monkeypatch.setattr(Operator, "work", property(lambda self: honest(self) + (10**6 if self is lied_about else 0)))
    evidence = about(world.PROGRAM, Role.STEP, number, Fault.WORK, works=works_up(world.PROGRAM, Role.STEP, number))
    assert refute(arena, world.PROGRAM, evidence)


def test_entry_that_names_no_operator_or_another_shape_refutes(arena: Arena) -> None:
    section = world.PROGRAM.section(Role.STEP)
    for entry, fault in ((StateEntry(99), Fault.ENTRY), (StateEntry(0), Fault.ENTRY_OPERATOR)):
        changed = replace(section, next_state=(entry, *section.next_state[1:]))
        program = replace(world.PROGRAM, sections=(changed, *world.PROGRAM.sections[1:]))
        other = record_opening(program, Role.STEP, 0) if fault == Fault.ENTRY_OPERATOR else NO_RECORD
        assert refute(arena, program, entry_evidence(program, Role.STEP, 0, fault, other=other))
    number = section.next_state[0].operator
    assert number is not None
    other = record_opening(world.PROGRAM, Role.STEP, number)
    assert not refute(arena, world.PROGRAM, entry_evidence(world.PROGRAM, Role.STEP, 0, Fault.ENTRY))
    evidence = entry_evidence(world.PROGRAM, Role.STEP, 0, Fault.ENTRY_OPERATOR, other=other)
    assert not refute(arena, world.PROGRAM, evidence)


def test_noisy_table_equal_to_the_steps_does_not_refute(arena: Arena) -> None:
    tree, entries = table(world.PROGRAM, Role.STEP)
    rest = {"other_entry": entries[2], "other_entry_proof": siblings(tree, 2)}
    assert not refute(
        arena, world.PROGRAM, entry_evidence(world.PROGRAM, Role.NOISY_STEP, 2, Fault.ENTRY_TENSOR, **rest)
    )


def test_distance_that_is_no_single_float_refutes(arena: Arena) -> None:
    last = len(world.PROGRAM.section(Role.DISTANCE).operators) - 1
    wide = Operator(Body.COPY, ElementType.FLOAT, (5,), (small_program.state(5, 1),))
    program = with_operator(world.PROGRAM, Role.DISTANCE, last, wide)
    assert refute(arena, program, about(program, Role.DISTANCE, last, Fault.OUTPUT))
    assert not refute(arena, world.PROGRAM, about(world.PROGRAM, Role.DISTANCE, last, Fault.OUTPUT))


def test_faulty_header_refutes(arena: Arena) -> None:
    # A noisy section before the distance: roles must ascend.
    first, distance, noisy, deviation = world.PROGRAM.sections
    program = replace(world.PROGRAM, sections=(first, noisy, distance, deviation))
    assert refute(arena, program, Evidence(Fault.HEADER))


def test_a_refutation_of_another_program_reverts(arena: Arena) -> None:
    program = with_operator(world.PROGRAM, Role.STEP, 3, FORWARD_READER)
    task_id = post(arena, world.PROGRAM)
    evidence = about(program, Role.STEP, 3).as_tuple()
    stranger = str(arena.web3.eth.accounts[3])
    functions = arena.court.functions
    for name, header in (("WrongHeader", encode_header(program)), ("WrongHash", encode_header(world.PROGRAM))):
        call = functions.refuteProgram(task_id, header, evidence)
        refuses(name, lambda call=call: arena.transact(stranger, call))


def test_descriptor_is_what_the_table_hashes() -> None:
    part = TensorDescriptor("any", ElementType.INT, (3, 2))
    assert state_entry_bytes(4, StateEntry(None), part) == bytes([1, 0, 0, 0, 4, 1, 0, 0, 0, 6])
