from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from assay.group.cost import StepTime
from assay.group.errors import MemoryLimitError, PlacementError
from assay.group.execution.engines import ExactEngine
from assay.group.execution.families import find_families
from assay.group.execution.min_cut import FlowNetwork
from assay.group.execution.partition import Partition, held_by, member_order, member_shares, partition
from assay.group.execution.pieces import Pieces, find_pieces
from assay.group.execution.schedule import make_schedules
from assay.group.execution.stage import StageRun
from assay.group.plan import GroupPlan
from assay.program.operator import Body, Program, Role, Source

from .tasks import BATCH, task_of

NAMES = ("mlp", "cnn", "gpt")


def available(program: Program, divided: Partition, stage: int) -> set[tuple[Source, int]]:
    """All that a stage can read: what it holds, computes, and receives."""
    part = divided.parts[stage]
    values = {(Source.STATE, number) for number in (*part.state, *part.copies)}
    values |= {(Source.OPERATOR, number) for number in part.operators}
    return values | {crossing.value for crossing in divided.crossings if crossing.receiver == stage}


def pieces_of(program: Program, wanted: int) -> Pieces:
    return find_pieces(program, find_families(program).free, wanted)


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_every_operator_is_placed_and_finds_its_operands(name: str, stages: int) -> None:
    program = task_of(name).program
    divided = partition(program, [1.0] * stages)
    section = program.section(Role.STEP)
    for stage, part in enumerate(divided.parts):
        values = available(program, divided, stage)
        for number in part.operators:
            for operand in section.operators[number].operands:
                assert (
                    operand.source not in (Source.STATE, Source.OPERATOR) or (operand.source, operand.index) in values
                )
        for number in (*part.state, *part.copies):
            entry = section.next_state[number].operator
            assert entry is None or (Source.OPERATOR, entry) in values
    assert sorted(number for part in divided.parts for number in part.state) == list(range(len(program.state)))
    placed = [number for part in divided.parts for number in part.operators if number in divided.home]
    assert sorted(placed) == sorted(divided.home)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_sent_that_its_receiver_does_not_read(name: str) -> None:
    program = task_of(name).program
    divided = partition(program, [1.0, 1.0, 1.0])
    section = program.section(Role.STEP)
    for crossing in divided.crossings:
        part = divided.parts[crossing.receiver]
        read = {(o.source, o.index) for number in part.operators for o in section.operators[number].operands}
        read |= {(Source.OPERATOR, section.next_state[number].operator or -1) for number in part.state}
        assert crossing.value in read
        assert crossing.sender != crossing.receiver


def test_moments_stay_with_their_parameter() -> None:
    program = task_of("gpt").program
    names = [entry.name for entry in program.state]
    for group in find_families(program).families:
        parameters = {names[number].split(".", 1)[-1] for number in group}
        assert len({names[number].rsplit(".", 2)[-2:][0] for number in group}) == 1, parameters
        assert len(group) == 3  # the parameter and both moments of AdamW


def test_every_member_computes_the_powers_of_beta_for_itself() -> None:
    program = task_of("gpt").program
    replicated = find_families(program).replicated
    assert {program.state[number].name for number in replicated} == {"beta1_power", "beta2_power"}
    divided = partition(program, [1.0, 1.0])
    crossing = {crossing.value for crossing in divided.crossings}
    assert not crossing & {(Source.STATE, number) for number in replicated}


def test_a_chain_is_cut_where_the_least_crosses() -> None:
    divided = partition(task_of("mlp").program, [1.0, 1.0])
    # One activation of 8 x 17 forward and its gradient back: fewer bytes than at the layer of 33.
    assert [(c.sender, c.receiver, c.elements) for c in divided.crossings] == [(0, 1, 136), (1, 0, 136)]
    assert divided.bytes_per_step == 1088


def test_a_partition_repeats_itself() -> None:
    program = task_of("gpt").program
    assert partition(program, [1.0, 2.0, 1.0]) == partition(program, [1.0, 2.0, 1.0])


def test_a_faster_member_gets_more_work() -> None:
    program = task_of("gpt").program
    slow, fast = (partition(program, [1.0, share]).parts[1].work for share in (1.0, 4.0))
    assert fast > slow


def test_members_without_enough_memory_are_refused() -> None:
    with pytest.raises(PlacementError, match="do not fit the members' memory"):
        partition(task_of("mlp").program, [1.0, 1.0], [2000.0, 2000.0])
    program = task_of("mlp").program
    roomy, tight = (partition(program, [1.0, 1.0], [limit, 0.0]).parts[0] for limit in (0.0, 12000.0))
    assert len(tight.state) < len(roomy.state)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_stage_takes_is_no_more_than_what_is_counted(name: str) -> None:
    engine = ExactEngine(task_of(name), 1)
    divided = engine.divide([1.0, 1.0, 1.0])
    for held, schedule in zip(held_by(engine.program, divided), engine.schedules(divided), strict=True):
        run = engine.stage(divided, schedule)
        assert isinstance(run, StageRun)
        state = 2 * sum(array.nbytes for array in run.held_state.values())  # this step's and the next one's
        assert state <= held.state + held.copies
        rounding = 64 * len(divided.parts[schedule.stage].operators)  # every buffer begins at a cache line
        assert state + run.memory_bytes + held.received <= held.total + rounding


@pytest.mark.parametrize("name", NAMES)
def test_limits_that_nobody_meets_change_nothing(name: str) -> None:
    program = task_of(name).program
    divided = partition(program, [1.0, 1.0])
    limits = [float(held.total) for held in held_by(program, divided)]
    assert partition(program, [1.0, 1.0], limits) == divided


@pytest.mark.parametrize("part", [0.9, 0.6])
@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_a_member_holds_no_more_than_its_memory(name: str, stage: int, part: float) -> None:
    program = task_of(name).program
    limits = [0.0, 0.0]
    limits[stage] = part * held_by(program, partition(program, [1.0, 1.0]))[stage].total
    assert held_by(program, partition(program, [1.0, 1.0], limits))[stage].total <= limits[stage]


def test_the_member_that_has_too_little_is_named_with_what_it_needs() -> None:
    engine = ExactEngine(task_of("mlp"), 1)
    time = StepTime(0.0, 0.0, 1.0, 0.0)
    plan = GroupPlan((("ann", "ben"),), (1, 1), (), "none", 1, time, 1.0, 1.0, False)
    least = min(held.total for held in held_by(engine.program, engine.divide([1.0, 1.0])))
    with pytest.raises(MemoryLimitError, match=r"'ben' would hold \d+ bytes .* its memory_bytes are 1000") as refused:
        engine.divide_plan(plan, [0.0, 1000.0])
    assert refused.value.place == 1
    assert int(str(refused.value).split("hold ")[1].split()[0]) <= least


def test_more_members_than_parameters_are_refused() -> None:
    with pytest.raises(PlacementError, match="too few for 7 members"):
        partition(task_of("mlp").program, [1.0] * 7)


def test_replicas_divide_the_layers_of_their_stage() -> None:
    time = StepTime(0.0, 0.0, 1.0, 0.0)
    plan = GroupPlan((("a", "b"), ("c", "d")), (3, 1), (), "none", 1, time, 1.0, 1.0, False)
    assert member_order(plan) == ("a", "c", "b", "d")
    assert member_shares(plan) == (1.5, 1.5, 0.5, 0.5)
    assert member_order(replace(plan, pipelines=(("a", "b"),))) == ("a", "b")


@pytest.mark.parametrize("pieces", [1, 4])
@pytest.mark.parametrize("name", NAMES)
def test_no_stage_waits_for_a_later_message_than_it_sends(name: str, pieces: int) -> None:
    program = task_of(name).program
    for schedule in make_schedules(program, partition(program, [1.0, 1.0, 1.0]), pieces_of(program, pieces)):
        for message in schedule.sends:
            for phase in schedule.phases:
                assert phase.needs < message.slot or phase.due > message.slot
        assert [message.order for message in schedule.receives] == sorted(m.order for m in schedule.receives)


def test_layers_are_split_by_samples_and_folds_over_the_batch_are_not() -> None:
    program = task_of("mlp").program
    split = pieces_of(program, 4).split
    operators = program.section(Role.STEP).operators
    for number, operator in enumerate(operators):
        over_batch = operator.body in (Body.FOLD_FMA, Body.FOLD_ADD) and operator.reduced == (BATCH,)
        assert not (over_batch and number in split)
        updates = any(operand.source == Source.STATE for operand in operator.operands) and not operator.reduced
        assert not (updates and operator.extents[:1] != (BATCH,) and number in split)
    products = [n for n, o in enumerate(operators) if o.body == Body.FOLD_FMA and o.extents[:1] == (BATCH,)]
    assert len(products) == 5  # three layers forward, two back
    assert set(products) <= split


def test_a_batch_is_cut_into_pieces_that_divide_it() -> None:
    program = task_of("mlp").program
    assert [pieces_of(program, wanted).count for wanted in (1, 2, 3, 6, 8)] == [1, 2, 1, 2, 8]


def test_a_minimum_cut_is_the_best_of_all_cuts() -> None:
    generator = random.Random(1)
    for _ in range(20):
        edges = [(a, b, generator.randrange(9)) for a in range(6) for b in range(6) if a != b]
        network = FlowNetwork(6)
        for edge in edges:
            network.add_edge(*edge)

        def cost(side: set[int], edges: list[tuple[int, int, int]] = edges) -> int:
            return sum(size for tail, head, size in edges if tail in side and head not in side)

        sides = [{0, *chosen} for size in range(5) for chosen in itertools.combinations(range(2, 6), size)]
        assert cost(network.source_side(0, 1)) == min(map(cost, sides))
