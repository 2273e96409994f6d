"""Stories of tolerant tasks: profiled before the auction, trained natively, replayed with a distance."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_market import LIAR, SOLVER, SUBMITTER, VERIFIER, WITNESS, World, make_task, settings_of, tiny_world
from tolerant_market import (
    Auditor,
    BribedBench,
    CarefulSkippingBench,
    ElsewhereBench,
    FalseAccuser,
    JoiningBench,
    SkippingBench,
    UnjustBench,
    WideProfileBench,
)

from assay.cli.task_files import audit
from assay.cli.task_view import explain
from assay.commitments import tensor
from assay.market.records import TaskRecord
from assay.market.types import PROFILE, AnswerState, Class, RoundState, TaskState
from assay.market.view import MarketView
from assay.roles.bench import Workbench
from assay.roles.context import Player
from assay.roles.solver import Solver, SolverOptions
from assay.roles.verifier import Verifier, VerifierOptions
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions
from assay.tasks.bundle import Bundle
from assay.tasks.task_file import TaskFile
from assay.training.profile import profile

pytestmark = pytest.mark.slow

JOINED_SEGMENTS = 20
"""Segments of a joined proof; two are drawn, and one more is audited at random."""


@pytest.fixture(scope="module")
def tolerant_task(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskFile, Bundle]:
    return make_task(tmp_path_factory.mktemp("task") / "tolerant", tolerant=True)


@pytest.fixture
def world(tmp_path: Path, tolerant_task: tuple[TaskFile, Bundle]) -> Iterator[World]:
    with tiny_world(tmp_path, *tolerant_task) as found:
        yield found


def gather(world: World, *cast: tuple[int, Player, type[Workbench]]) -> None:
    """Nodes for these roles, and two seats on the roll: a profiler may be drawn for the proof as well."""
    world.nodes = [world.node(place, [player], make_bench=bench) for place, player, bench in cast]
    verifiers = [place for place, player, _ in cast if isinstance(player, Verifier)]
    world.play(lambda: all(world.market.stakes.seats(world.address(place)) for place in verifiers))


def play_task(world: World) -> TaskRecord:
    """A task from its submission until it is over and everything that can be done then is done."""
    task = world.submit()
    world.play(lambda: view(world).task(task).state.is_over, limit=240)
    turns = 0
    while turns < 12 or any(node.jobs.running or node.sender.pending() for node in world.nodes):
        for node in world.nodes:
            node.turn()
        turns += 1
        assert turns < 2000, "still something to do"
        time.sleep(0.01)
    world.reader.poll()
    return view(world).task(task)


def view(world: World) -> MarketView:
    return world.reader.view


def two_seats() -> Verifier:
    return Verifier(VerifierOptions(seats=2))


def silent_whistleblower() -> Whistleblower:
    """One that audits nothing."""
    return Whistleblower(WhistleblowerOptions(audits=0))


def test_an_honest_task_is_profiled_trained_natively_and_settled(world: World) -> None:
    gather(
        world,
        (SOLVER, Solver(), ElsewhereBench),
        (VERIFIER, two_seats(), Workbench),
        (WITNESS, Whistleblower(), Workbench),
    )
    task = play_task(world)
    assert task.state is TaskState.SETTLED
    expected = profile(world.bundle.task, 0, task.posting.profile_segments)
    assert task.threshold_root == tensor.root(expected.thresholds)
    rounds = view(world).rounds_of(task.id)
    assert [each.share for each in rounds] == [0, PROFILE]
    for each in rounds:
        assert each.state is RoundState.DISCLOSED
        assert each.answers == {world.address(WITNESS): AnswerState.COLLECTED}
    # Native checkpoints are not those of the exact arithmetic, and pass all the same.
    (replayed,) = (each for each in rounds if not each.is_profile)
    assert all(leaf.distance for leaf in replayed.leaves)  # type: ignore[union-attr]
    stakes = world.market.stakes
    assert stakes.locked(world.address(SOLVER)) == 0 == stakes.locked(world.address(VERIFIER))
    assert stakes.total() == world.market.chain.web3.eth.get_balance(stakes.address)
    assert list(view(world).open_cases()) == [] == list(view(world).open_accusations())

    flags = settings_of(world)
    audited = CliRunner().invoke(audit, [f"{task.id:#x}", "--all", "--json", *flags], standalone_mode=False)
    assert audited.return_value == 0, audited.output
    distances = [each["distance"] for each in json.loads(audited.stdout)["segments"]]
    assert all(0 < distance <= 1 for distance in distances)
    explained = CliRunner().invoke(explain, [f"{task.id:#x}", *flags], catch_exceptions=False)
    assert "honest and dishonest training lie apart" in explained.output
    assert "which stood, the proof passes" in explained.output


def test_a_solver_that_skips_steps_is_slashed(world: World) -> None:
    gather(world, (SOLVER, Solver(), SkippingBench), (VERIFIER, two_seats(), Workbench))
    task = play_task(world)
    assert task.state is TaskState.FAILED
    stakes = world.market.stakes
    assert stakes.locked(world.address(SOLVER)) == 0 == stakes.free(world.address(SOLVER))
    assert stakes.credit(world.address(SUBMITTER)) >= task.posting.highest_reward


def test_a_solver_whose_own_replay_fails_steps_down_for_the_forfeit(world: World) -> None:
    gather(world, (SOLVER, Solver(SolverOptions(checks=1)), CarefulSkippingBench), (VERIFIER, two_seats(), Workbench))
    task = world.submit()
    world.play(lambda: view(world).task(task).relists == 1)
    record = view(world).task(task)
    assert (record.state, record.former_solvers) == (TaskState.OPEN, (world.address(SOLVER),))
    assert world.market.stakes.locked(world.address(SOLVER)) == 0 < world.market.stakes.free(world.address(SOLVER))
    for _ in range(5):
        world.tick()
        world.nodes[0].turn()
    assert world.market.tasks.state(task) is TaskState.OPEN


def test_a_profiler_that_widens_the_thresholds_is_taken_to_court(world: World) -> None:
    gather(
        world,
        (SOLVER, Solver(), Workbench),
        (LIAR, Verifier(), WideProfileBench),
        (WITNESS, silent_whistleblower(), Workbench),
    )
    task = world.submit()
    world.play(lambda: view(world).task(task).state is TaskState.OPEN, limit=240)
    (found,) = view(world).rounds_of(task)
    liar = world.address(LIAR)
    assert found.verifier == liar
    line = view(world).lines[found.id]
    assert (line.has_fallen, line.claimant) == (True, world.address(WITNESS))
    (case,) = view(world).cases_of(task)
    assert (case.challenger, case.claimant, case.challenger_won) == (world.address(WITNESS), liar, True)
    expected = profile(world.bundle.task, 0, view(world).task(task).posting.profile_segments)
    assert view(world).task(task).threshold_root == tensor.root(expected.thresholds)
    assert world.market.stakes.locked(liar) == 0 == world.market.stakes.free(liar)


def test_a_solver_takes_an_unjust_verdict_to_court(world: World) -> None:
    gather(world, (SOLVER, Solver(), Workbench), (LIAR, two_seats(), UnjustBench))
    task = play_task(world)
    assert task.state is TaskState.SETTLED
    solver, liar = world.address(SOLVER), world.address(LIAR)
    (case,) = view(world).cases_of(task.id)
    assert (case.challenger, case.claimant, case.challenger_won) == (solver, liar, True)
    (line,) = (view(world).lines[each.id] for each in view(world).rounds_of(task.id) if not each.is_profile)
    assert (line.has_fallen, line.passes) == (True, True)
    # One seat is lost for the verdict, the one for the honest profile is not.
    stakes = world.market.stakes
    assert (stakes.locked(liar), stakes.free(liar)) == (0, world.market.parameters.seat)


def test_an_accused_segment_fails_a_proof_whose_drawn_verifier_was_bribed(world: World) -> None:
    gather(
        world, (SOLVER, Solver(), SkippingBench), (VERIFIER, two_seats(), BribedBench), (WITNESS, Auditor(), Workbench)
    )
    task = play_task(world)
    accuser = world.address(WITNESS)
    assert (task.state, task.finder) == (TaskState.FAILED, accuser)
    (number,) = task.accusations
    line = view(world).lines[number]
    assert (line.claimant, line.is_closed, line.passes) == (accuser, True, False)
    assert line.segment not in {
        s for each in view(world).rounds_of(task.id) if not each.is_profile for s in each.segments
    }
    bond = world.market.parameters.accusation_bond
    assert world.market.stakes.credit(accuser) == bond + task.finder_share
    assert world.market.stakes.locked(world.address(SOLVER)) == 0


def test_the_one_segment_between_two_joined_runs_is_found_though_hardly_any_draw_finds_it(tmp_path: Path) -> None:
    file, bundle = make_task(tmp_path / "task", tolerant=True, steps=JOINED_SEGMENTS * 2)
    with tiny_world(tmp_path, file, bundle) as world:
        gather(
            world,
            (SOLVER, Solver(), JoiningBench),
            (VERIFIER, two_seats(), Workbench),
            (WITNESS, Whistleblower(), Workbench),
        )
        task = play_task(world)
        joint = JOINED_SEGMENTS // 2
        drawn = {s for each in view(world).rounds_of(task.id) if not each.is_profile for s in each.segments}
        accused = [view(world).lines[number] for number in task.accusations]
        assert task.state is TaskState.FAILED
        assert [line.segment for line in accused] == ([] if joint in drawn else [joint])
        assert all(line.claimant == task.finder == world.address(WITNESS) for line in accused)
        stakes = world.market.stakes
        assert stakes.locked(world.address(SOLVER)) == 0 == stakes.free(world.address(SOLVER))


def test_a_false_accusation_costs_its_bond(world: World) -> None:
    gather(
        world,
        (SOLVER, Solver(), Workbench),
        (VERIFIER, two_seats(), Workbench),
        (LIAR, FalseAccuser(), Workbench),
    )
    task = play_task(world)
    assert task.state is TaskState.SETTLED
    (number,) = task.accusations
    line = view(world).lines[number]
    assert (line.has_fallen, line.passes, line.claimant) == (True, True, world.address(SOLVER))
    (case,) = view(world).cases_of(task.id)
    assert (case.challenger, case.claimant, case.challenger_won) == (world.address(SOLVER), world.address(LIAR), True)
    stakes = world.market.stakes
    assert stakes.balance(Class.CASE, number) == 0 == stakes.credit(world.address(LIAR))
