"""Cheats of tolerant tasks, where honest proofs differ from replays by rounding, and thresholds say by how much."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from arena import BOUNTY, Arena, arena_on
from cheating_solvers import carrying_out
from tiny_market import make_task
from tolerant_market import (
    Auditor,
    BribedBench,
    FalseAccuser,
    JoiningBench,
    SkippingBench,
    UnjustBench,
    WideProfileBench,
)

from assay.attacks.proofs import (
    ATTACKS,
    Attack,
    another_rate,
    forged_momentum,
    lower_precision,
    not_a_number,
    tiny_updates,
)
from assay.commitments import tensor
from assay.market.local import LocalMarket
from assay.market.types import MILLION, TaskState
from assay.program.graph import Graph
from assay.roles.bench import Workbench
from assay.roles.solver import Solver
from assay.roles.verifier import Verifier, VerifierOptions
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions
from assay.tasks.bundle import Bundle
from assay.tasks.task_file import TaskFile
from assay.training.profile import profile

SEGMENTS = 4
JOINED_SEGMENTS = 20
"""Segments of a joined proof; two are drawn, and one more is audited at random."""
CLOSE = {another_rate, lower_precision, tiny_updates, forged_momentum, not_a_number}
"""The forgeries that come closest to their thresholds, or deceive comparisons."""


@pytest.fixture
def tolerant(quiet_market: LocalMarket, tmp_path: Path, tolerant_task: tuple[TaskFile, Bundle]) -> Iterator[Arena]:
    with arena_on(quiet_market, tmp_path, tolerant_task) as found:
        yield found


def verifying(arena: Arena, name: str, bench: type[Workbench] = Workbench) -> None:
    """A verifier with two seats on the roll: one for the profile, one for the proof."""
    arena.enter(name, Verifier(VerifierOptions(seats=2)), bench=bench)
    arena.settle_down()


def profiling_cost(arena: Arena, task: int) -> int:
    """What a submitter pays for the profile, whatever becomes of the proof."""
    return int(arena.task(task).posting.profiler_fee + arena.market.tasks.tax(task) + 2 * BOUNTY)


@pytest.mark.parametrize("attack", [each for each in ATTACKS if each.forge in CLOSE], ids=lambda attack: attack.name)
def test_a_forged_tolerant_proof_is_over_its_threshold_and_costs_its_stake(
    attack: Attack, tolerant: Arena, half_batch: Graph
) -> None:
    arena = tolerant
    verifying(arena, "verifier")
    arena.enter("solver", Solver(), bench=carrying_out(attack, half_batch, arena.file.optimizer))
    task = arena.play_task(arena.submit(arena.posting(drawn=SEGMENTS))).id
    assert arena.state(task) is TaskState.FAILED
    fees = arena.fee_of(task) + arena.task(task).posting.profiler_fee
    arena.conclude(
        "solver",
        honest=arena.price_of(task),
        promised={"verifier": fees + arena.found_share(task), "submitter": -profiling_cost(arena, task)},
        most=2 * BOUNTY - arena.market.tasks.stake(task),
    )


def assert_slashed(arena: Arena, task: int, finder: str, *others: str) -> None:
    """The solver, and its accomplices, have lost all its stake, and the finder has its part."""
    assert arena.state(task) is TaskState.FAILED
    verifiers = arena.fee_of(task) + arena.task(task).posting.profiler_fee
    arena.conclude(
        "solver",
        *others,
        honest=arena.price_of(task),
        promised={
            finder: arena.found_share(task) + (verifiers if finder == "verifier" else 0),
            "submitter": -profiling_cost(arena, task),
        },
        most=2 * BOUNTY - arena.market.tasks.stake(task) + (verifiers if others else 0),
    )


@pytest.mark.slow
def test_a_solver_that_skips_steps_is_slashed(tolerant: Arena) -> None:
    arena = tolerant
    verifying(arena, "verifier")
    arena.enter("solver", Solver(), bench=SkippingBench)
    assert_slashed(arena, arena.play_task().id, "verifier")


@pytest.mark.slow
def test_an_accused_segment_fails_a_proof_whose_drawn_verifier_was_bribed(tolerant: Arena) -> None:
    """An audit of a segment that was not drawn is enough: the bribed verifier keeps its seat, and no more than its
    fees, which are less than what the pair has lost."""
    arena = tolerant
    verifying(arena, "bribed", BribedBench)
    arena.enter("solver", Solver(), bench=SkippingBench)
    arena.enter("auditor", Auditor())
    task = arena.play_task()
    (line,) = (arena.view.claims.lines[number] for number in task.accusations)
    assert (line.claimant, line.is_closed, line.passes) == (arena.address("auditor"), True, False)
    drawn = {s for each in arena.view.rounds_of(task.id) if not each.is_profile for s in each.segments}
    assert line.segment not in drawn
    assert_slashed(arena, task.id, "auditor", "bribed")


@pytest.mark.slow
def test_the_one_segment_between_two_joined_runs_is_found_though_hardly_any_draw_finds_it(
    quiet_market: LocalMarket, tmp_path: Path
) -> None:
    task_and_bundle = make_task(tmp_path / "task", tolerant=True, steps=JOINED_SEGMENTS * 2)
    with arena_on(quiet_market, tmp_path / "arena", task_and_bundle) as arena:
        verifying(arena, "verifier")
        arena.enter("solver", Solver(), bench=JoiningBench)
        arena.enter("whistleblower", Whistleblower())
        task = arena.play_task()
        joint = JOINED_SEGMENTS // 2
        drawn = {s for each in arena.view.rounds_of(task.id) if not each.is_profile for s in each.segments}
        finder = "verifier" if joint in drawn else "whistleblower"
        accused = [arena.view.claims.lines[number] for number in task.accusations]
        assert [line.segment for line in accused] == ([] if joint in drawn else [joint])
        assert all(line.claimant == arena.address("whistleblower") for line in accused)
        assert_slashed(arena, task.id, finder)


@pytest.mark.slow
def test_a_profiler_that_widens_the_thresholds_loses_its_seat_to_whoever_profiles_again(tolerant: Arena) -> None:
    """Anything would have passed: the task opens with the thresholds that its whistleblower found instead."""
    arena = tolerant
    verifying(arena, "liar", WideProfileBench)
    arena.enter("solver", Solver())
    arena.enter("whistleblower", Whistleblower(WhistleblowerOptions(audits=0)))
    task = arena.submit()
    arena.play(lambda: arena.state(task) is TaskState.OPEN)
    expected = profile(arena.bundle.task, 0, arena.task(task).posting.profile_segments)
    assert arena.task(task).threshold_root == tensor.root(expected.thresholds)
    verifying(arena, "verifier")
    arena.play_task(task)
    assert arena.state(task) is TaskState.SETTLED
    found = arena.parameters.seat * arena.parameters.finder_rate // MILLION
    arena.conclude(
        "liar",
        honest=arena.task(task).posting.profiler_fee,
        promised={
            "solver": arena.price_of(task), "whistleblower": found, "submitter": -arena.cost_of(task),
        },
        most=arena.fee_of(task) + 2 * BOUNTY - arena.parameters.seat,
    )  # fmt: skip


@pytest.mark.slow
def test_a_verifier_that_fails_an_honest_tolerant_proof_loses_its_seat(tolerant: Arena) -> None:
    arena = tolerant
    verifying(arena, "liar", UnjustBench)
    arena.enter("solver", Solver())
    arena.enter("whistleblower", Whistleblower(WhistleblowerOptions(audits=0)))
    task = arena.play_task().id
    assert arena.state(task) is TaskState.SETTLED
    found = arena.parameters.seat * arena.parameters.finder_rate // MILLION
    profiled = arena.task(task).posting.profiler_fee
    arena.conclude(
        "liar",
        honest=arena.fee_of(task) + profiled,
        promised={
            "solver": arena.price_of(task), "whistleblower": found, "submitter": -arena.cost_of(task),
        },
        most=profiled + 2 * BOUNTY - arena.parameters.seat,
    )  # fmt: skip


@pytest.mark.slow
def test_a_solver_takes_an_unjust_verdict_to_court(tolerant: Arena) -> None:
    """Nobody else looks: the solver wins the case itself, and has the finder's part."""
    arena = tolerant
    verifying(arena, "liar", UnjustBench)
    arena.enter("solver", Solver())
    task = arena.play_task().id
    assert arena.state(task) is TaskState.SETTLED
    (case,) = arena.view.claims.cases_of(task)
    assert (case.challenger, case.claimant, case.challenger_won) == (
        arena.address("solver"), arena.address("liar"), True
    )  # fmt: skip
    found = arena.parameters.seat * arena.parameters.finder_rate // MILLION
    profiled = arena.task(task).posting.profiler_fee
    arena.conclude(
        "liar",
        honest=arena.fee_of(task) + profiled,
        promised={"solver": arena.price_of(task) + found, "submitter": -arena.cost_of(task)},
        most=profiled + 2 * BOUNTY - arena.parameters.seat,
    )


@pytest.mark.slow
def test_a_false_accusation_costs_its_bond(tolerant: Arena) -> None:
    arena = tolerant
    verifying(arena, "verifier")
    arena.enter("solver", Solver())
    arena.enter("accuser", FalseAccuser())
    task = arena.play_task()
    assert task.state is TaskState.SETTLED
    (line,) = (arena.view.claims.lines[number] for number in task.accusations)
    assert (line.has_fallen, line.passes, line.claimant) == (True, True, arena.address("solver"))
    (case,) = arena.view.claims.cases_of(task.id)
    assert (case.challenger, case.claimant, case.challenger_won) == (
        arena.address("solver"), arena.address("accuser"), True
    )  # fmt: skip
    bond = arena.parameters.accusation_bond
    arena.conclude(
        "accuser",
        honest=0,
        promised={
            "solver": arena.price_of(task.id) + bond // 2,
            "verifier": arena.fee_of(task.id) + task.posting.profiler_fee,
            "submitter": -arena.cost_of(task.id),
        },
        most=-bond,
    )
