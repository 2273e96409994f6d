"""Stories of the market with a tiny task, all roles inside one process: honest, lying, cheating, accusing, two roles on
one account, a chain that loses blocks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_market import LIAR, SOLVER, SUBMITTER, VERIFIER, WITNESS, World, settings_of

from assay.cli.court import court
from assay.cli.status import status
from assay.demo.dishonest import FalseAccuser, LazyBench, LyingBench
from assay.market.records import TaskRecord
from assay.market.types import AnswerState, Class, RoundState, TaskState
from assay.roles.case_report import report_case
from assay.roles.descent import descent, draw
from assay.roles.solver import Solver
from assay.roles.verifier import Verifier
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions


def whistleblower(audits: int = 0) -> Whistleblower:
    return Whistleblower(WhistleblowerOptions(audits=audits))


def gather(world: World, solver_bench: type | None = None) -> None:
    """One of each role; the verifier is on the roll."""
    world.nodes = [
        world.node(SOLVER, [Solver()], **({} if solver_bench is None else {"make_bench": solver_bench})),
        world.node(VERIFIER, [Verifier()]),
        world.node(WITNESS, [whistleblower()]),
    ]
    world.play(lambda: world.market.stakes.seats(world.address(VERIFIER)) == 1)


def play_task(world: World, verifiers: int = 1) -> TaskRecord:
    """A task from its submission until it is over and everything that can be done then is done."""
    task = world.submit(verifiers)
    world.play(lambda: world.reader.view.tasks[task].state.is_over, limit=240)
    for _ in range(12):
        for node in world.nodes:
            node.turn()
    world.reader.poll()
    return world.reader.view.tasks[task]


def test_an_honest_task_is_settled_and_everybody_paid(world: World) -> None:
    gather(world)
    task = play_task(world)
    assert task.state is TaskState.SETTLED
    stakes = world.market.stakes
    assert stakes.total() == world.market.chain.web3.eth.get_balance(stakes.address)
    assert stakes.locked(world.address(SOLVER)) == 0 == stakes.locked(world.address(VERIFIER))
    (found,) = world.reader.view.rounds_of(task.id)
    assert found.state is RoundState.DISCLOSED
    assert found.answers == {world.address(WITNESS): AnswerState.COLLECTED}
    assert stakes.balance(Class.ROUND, found.id) == 0

    result = CliRunner().invoke(status, ["--json", "--account", world.address(VERIFIER), *settings_of(world)])
    assert result.exit_code == 0, result.output
    shown = json.loads(result.output)
    assert shown["tasks"] == {"settled": 1}
    assert shown["account"]["seats"] == 1
    assert int(shown["held"]) == stakes.total()


@pytest.mark.slow
def test_a_lying_verifier_loses_its_seat_to_one_executed_operation(world: World) -> None:
    gather(world)
    world.nodes.append(world.node(LIAR, [Verifier()], make_bench=LyingBench))
    liar = world.address(LIAR)
    world.play(lambda: world.market.stakes.seats(liar) == 1)
    task = play_task(world, verifiers=2)
    assert task.state is TaskState.SETTLED
    assert world.market.stakes.locked(liar) == 0 == world.market.stakes.free(liar)
    (case,) = world.reader.view.claims.cases.values()
    assert (case.challenger, case.claimant, case.challenger_won) == (world.address(WITNESS), liar, True)
    report = report_case(world.market, case.id)
    assert report.operation is not None
    assert report.operation.result != report.operation.claimed
    said = descent(world.reader.case_events(case.id))
    assert [each.side for each in said][-2:] == ["chain", "chain"]
    assert "the challenger wins" in draw(said)[-1]

    runner, flags = CliRunner(), settings_of(world)
    listed = runner.invoke(court, ["list", "--all", "--json", *flags])
    assert listed.exit_code == 0, listed.output
    (row,) = json.loads(listed.output)
    assert row["challenger_won"] is True
    drawn = runner.invoke(court, ["show", row["case"][:12], *flags])
    assert drawn.exit_code == 0, drawn.output
    assert "one operation" in drawn.output


@pytest.mark.slow
def test_a_cheating_solver_loses_its_stake_and_the_submitter_nothing(world: World) -> None:
    gather(world, solver_bench=LazyBench)
    task = play_task(world)
    assert task.state is TaskState.FAILED
    stakes = world.market.stakes
    assert stakes.locked(world.address(SOLVER)) == 0
    assert stakes.credit(world.address(SUBMITTER)) >= task.posting.highest_reward


@pytest.mark.slow
def test_an_audit_finds_a_cheating_solver_without_any_verifier_being_drawn_for_it(world: World) -> None:
    world.nodes = [
        world.node(SOLVER, [Solver()], make_bench=LazyBench),
        world.node(VERIFIER, [Verifier()]),
        world.node(WITNESS, [whistleblower(audits=2)]),
    ]
    world.play(lambda: world.market.stakes.seats(world.address(VERIFIER)) == 1)
    task = play_task(world)
    assert task.state is TaskState.FAILED
    assert any(case.challenger_won for case in world.reader.view.claims.cases.values())


@pytest.mark.slow
def test_a_false_accusation_costs_its_bond(world: World) -> None:
    gather(world)
    world.nodes.append(world.node(LIAR, [FalseAccuser()], make_bench=LyingBench))
    task = play_task(world)
    assert task.state is TaskState.SETTLED
    (case,) = world.reader.view.claims.cases.values()
    assert (case.challenger, case.challenger_won) == (world.address(LIAR), False)
    assert world.market.stakes.balance(Class.CASE, case.id) == 0
    assert world.market.stakes.credit(world.address(LIAR)) == 0


@pytest.mark.slow
def test_two_roles_share_an_account(world: World) -> None:
    world.nodes = [
        world.node(SOLVER, [Solver()]),
        world.node(VERIFIER, [Verifier(), whistleblower()]),
    ]
    world.play(lambda: world.market.stakes.seats(world.address(VERIFIER)) == 1)
    task = play_task(world)
    assert task.state is TaskState.SETTLED
    (found,) = world.reader.view.rounds_of(task.id)
    assert not found.answers  # nobody answers the own round


def test_blocks_that_are_rolled_back_are_played_again(world: World, tmp_path: Path) -> None:
    gather(world)
    task = world.submit()

    def request(method: str, *values: object) -> object:
        answer = world.market.chain.web3.provider.make_request(method, list(values))  # type: ignore[arg-type]
        assert "result" in answer, answer
        return answer["result"]

    world.play(lambda: world.reader.view.tasks[task].state is TaskState.TAKEN)
    snapshot = request("evm_snapshot")
    world.play(lambda: world.reader.view.tasks[task].state is TaskState.VERIFYING)
    assert request("evm_revert", snapshot)
    world.tick()
    world.play(lambda: world.reader.view.tasks[task].state.is_over, limit=240)
    assert world.market.tasks.state(task) is TaskState.SETTLED
