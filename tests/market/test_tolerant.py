"""Stories of tolerant tasks: profiled before the auction, trained natively, replayed with a distance.

Whoever cheats in them is in tests/attacks/test_tolerant_attacks.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_market import SOLVER, VERIFIER, WITNESS, World, make_task, settings_of, tiny_world
from tolerant_market import CarefulSkippingBench, ElsewhereBench

from assay.cli.task_files import audit
from assay.cli.task_view import explain
from assay.commitments import tensor
from assay.market.records import TaskRecord
from assay.market.types import PROFILE, AnswerState, RoundState, TaskState
from assay.market.view import MarketView
from assay.roles.bench import Workbench
from assay.roles.context import Player
from assay.roles.solver import Solver, SolverOptions
from assay.roles.verifier import Verifier, VerifierOptions
from assay.roles.whistleblower import Whistleblower
from assay.tasks.bundle import Bundle
from assay.tasks.task_file import TaskFile
from assay.training.profile import profile

pytestmark = pytest.mark.slow


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
    assert list(view(world).claims.open_cases()) == [] == list(view(world).claims.open_accusations())

    flags = settings_of(world)
    audited = CliRunner().invoke(audit, [f"{task.id:#x}", "--all", "--json", *flags], standalone_mode=False)
    assert audited.return_value == 0, audited.output
    distances = [each["distance"] for each in json.loads(audited.stdout)["segments"]]
    assert all(0 < distance <= 1 for distance in distances)
    explained = CliRunner().invoke(explain, [f"{task.id:#x}", *flags], catch_exceptions=False)
    assert "honest and dishonest training lie apart" in explained.output
    assert "which stood, the proof passes" in explained.output


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
