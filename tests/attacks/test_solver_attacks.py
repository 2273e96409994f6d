"""Solvers that cheat, against honest verifiers and whistleblowers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from arena import BOUNTY, TICK_SECONDS, Arena, arena_on
from cheating_solvers import (
    Forge,
    RestlessSolver,
    SilentSolver,
    UnservingSolver,
    WithholdingBench,
    carrying_out,
    first_state_swapped,
    forging,
    last_state_swapped,
    random_states,
    without_momentum,
)
from cheating_verifiers import SilentVerifier, UnreplayedBench

from assay.attacks.proofs import ATTACKS, Attack, sorted_initial_state
from assay.market.local import LocalMarket
from assay.market.types import MILLION, TaskState
from assay.program.graph import Graph
from assay.roles.bench import Workbench
from assay.roles.solver import Solver
from assay.roles.verifier import Verifier, VerifierOptions
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions
from assay.storage.directory import DirectoryStore
from assay.tasks.bundle import Bundle
from assay.tasks.task_file import TaskFile

SEGMENTS = 4


@pytest.fixture
def momentum_arena(
    quiet_market: LocalMarket, tmp_path: Path, momentum_task: tuple[TaskFile, Bundle]
) -> Iterator[Arena]:
    with arena_on(quiet_market, tmp_path, momentum_task) as found:
        yield found


def verified(arena: Arena, solver: Solver, bench: type[Workbench] = Workbench) -> int:
    """A task whose every segment is drawn, taken by `solver`; its number, once it is over."""
    arena.enter("verifier", Verifier())
    arena.settle_down()
    arena.enter("solver", solver, bench=bench)
    return arena.play_task(arena.submit(arena.posting(drawn=SEGMENTS))).id


def assert_slashed(arena: Arena, task: int) -> None:
    """The solver has lost all its stake, whoever found it has a share, and the submitter its money."""
    assert arena.state(task) is TaskState.FAILED
    stake, fee = arena.market.tasks.stake(task), arena.fee_of(task)
    gains = arena.conclude(
        "solver",
        honest=arena.price_of(task),
        promised={"verifier": fee + arena.found_share(task), "submitter": -BOUNTY},
        most=BOUNTY - stake,
    )
    assert gains["pool"] == stake - fee - arena.found_share(task)


FORGERIES = [
    *(attack for attack in ATTACKS if attack.forge is not sorted_initial_state),
    Attack("another optimizer", without_momentum),
]


@pytest.mark.parametrize("attack", FORGERIES, ids=lambda attack: attack.name)
def test_a_forged_proof_of_learning_costs_its_stake(attack: Attack, momentum_arena: Arena, half_batch: Graph) -> None:
    arena = momentum_arena
    assert_slashed(arena, verified(arena, Solver(), carrying_out(attack, half_batch, arena.file.optimizer)))


@pytest.mark.parametrize("forge", [random_states, last_state_swapped], ids=lambda forge: forge.__name__)
def test_a_proof_that_was_not_trained_costs_its_stake(forge: Forge, arena: Arena) -> None:
    assert_slashed(arena, verified(arena, Solver(), forging(forge)))


@pytest.mark.parametrize("is_sorted", [True, False], ids=["sorted", "trained"])
def test_a_proof_that_starts_elsewhere_cannot_be_registered_and_its_solver_is_late(
    is_sorted: bool, momentum_arena: Arena, half_batch: Graph
) -> None:
    arena = momentum_arena
    resembling = Attack("sorted initial state", sorted_initial_state)
    bench = carrying_out(resembling, half_batch, arena.file.optimizer) if is_sorted else forging(first_state_swapped)
    arena.enter("verifier", Verifier())
    arena.settle_down()
    arena.enter("solver", Solver(), bench=bench)
    task = arena.submit()
    arena.play(lambda: arena.now > arena.task(task).deadline - TICK_SECONDS > 0)
    assert arena.state(task) is TaskState.TAKEN
    price, stake = arena.price_of(task), arena.market.tasks.stake(task)
    arena.leave("solver")
    arena.play(lambda: arena.state(task) is TaskState.OPEN)
    arena.submitter.send(arena.market.tasks.cancel(task))
    forfeit = stake * (arena.parameters.step_down_rate + arena.parameters.late_rate) // MILLION
    arena.conclude("solver", honest=price, promised={"verifier": 0, "submitter": 0}, most=-forfeit)


def test_one_forged_segment_that_was_not_drawn_is_found_by_an_audit_and_executed_in_court(arena: Arena) -> None:
    """One of four segments is drawn, and the forged one is another: whoever audits it takes the proof to court."""
    arena.enter("verifier", Verifier())
    arena.settle_down()
    arena.enter("solver", Solver(), bench=forging(last_state_swapped))
    arena.enter("auditor", Whistleblower(WhistleblowerOptions(audits=SEGMENTS)))
    task = arena.play_task(arena.submit(arena.posting(drawn=1))).id
    assert arena.state(task) is TaskState.FAILED
    assert arena.task(task).finder == arena.address("auditor")
    arena.conclude(
        "solver",
        honest=arena.price_of(task),
        promised={"auditor": arena.found_share(task), "submitter": -BOUNTY, "verifier": 0},
        most=BOUNTY - arena.market.tasks.stake(task),
    )


@pytest.mark.slow
def test_a_solver_and_a_verifier_of_one_mind_lose_both_their_stakes(arena: Arena) -> None:
    """The accomplice is drawn and confirms a proof that was never trained; a whistleblower looks."""
    arena.enter("accomplice", Verifier(), bench=UnreplayedBench)
    arena.settle_down()
    arena.enter("solver", Solver(), bench=forging(random_states))
    arena.enter("whistleblower", Whistleblower(WhistleblowerOptions(audits=0)))
    task = arena.play_task().id
    assert arena.state(task) is TaskState.FAILED
    seat, stake = arena.parameters.seat, arena.market.tasks.stake(task)
    found = seat * arena.parameters.finder_rate // MILLION + arena.found_share(task)
    arena.conclude(
        "solver",
        "accomplice",
        honest=arena.price_of(task) + arena.fee_of(task),
        promised={"whistleblower": found, "submitter": -BOUNTY},
        most=BOUNTY - seat - stake,
    )


def test_a_verifier_bribed_into_silence_is_replaced_for_the_same_segments(arena: Arena) -> None:
    arena.enter("bribed", SilentVerifier("commit"))
    arena.settle_down()
    arena.enter("solver", Solver(), bench=forging(random_states))
    task = arena.submit(arena.posting(drawn=SEGMENTS))
    arena.play(lambda: bool(arena.task(task).rounds))
    arena.enter("verifier", Verifier())
    arena.play_task(task)
    first, second = (arena.view.rounds[number] for number in arena.task(task).rounds)
    assert first.segments == second.segments
    assert arena.state(task) is TaskState.FAILED
    silence = arena.parameters.seat * arena.parameters.silence_rate // MILLION
    arena.conclude(
        "solver",
        "bribed",
        honest=arena.price_of(task),
        promised={"verifier": arena.fee_of(task) + arena.found_share(task), "submitter": -BOUNTY},
        most=2 * BOUNTY - arena.market.tasks.stake(task) - silence,
    )


def test_a_solver_that_withholds_its_files_is_not_paid_and_forfeits_a_part_of_its_price(arena: Arena) -> None:
    """Nobody can fetch: verifier after verifier steps back, until the task ends unavailable."""
    names = [f"verifier {number}" for number in range(arena.parameters.maximal_step_backs)]
    for name in names:
        arena.enter(name, Verifier(VerifierOptions(fetch_attempts=1)))
    arena.settle_down()
    arena.enter("solver", Solver(), bench=WithholdingBench)
    task = arena.play_task().id
    assert arena.state(task) is TaskState.UNAVAILABLE
    arena.conclude(
        "solver",
        honest=arena.price_of(task),
        promised={"submitter": -BOUNTY} | dict.fromkeys(names, -arena.step_back_charge(task)),
        most=len(names) * BOUNTY - arena.price_of(task) * arena.parameters.unavailable_rate // MILLION,
    )


class SelectiveBench(WithholdingBench, forging(random_states)):  # type: ignore[misc]
    """Posts what was never trained, and shows it to an accomplice only."""


@pytest.mark.slow
def test_serving_an_untrained_proof_to_an_accomplice_only_costs_more_than_it_brings(arena: Arena) -> None:
    """The accomplice holds one of five seats, and two are drawn: others cannot fetch, and step back until the task
    ends unavailable. What the accomplice has earned, also from those who stepped back before it was drawn, is less than
    the forfeit."""
    others = [f"verifier {number}" for number in range(arena.parameters.maximal_step_backs)]
    arena.enter("accomplice", Verifier(), bench=UnreplayedBench)
    for name in others:
        arena.enter(name, Verifier(VerifierOptions(fetch_attempts=1)))
    arena.settle_down()
    solver = arena.enter("solver", Solver(), bench=SelectiveBench)
    task = arena.submit(arena.posting(verifiers=2))
    arena.play(lambda: arena.state(task) is TaskState.VERIFYING)
    assert isinstance(solver.bench, SelectiveBench)
    arena.nodes["accomplice"].bench.stores = (DirectoryStore(solver.bench.kept(task)),)
    arena.play_task(task)
    assert arena.state(task) is TaskState.UNAVAILABLE
    forfeit = arena.price_of(task) * arena.parameters.unavailable_rate // MILLION
    earned = arena.fee_of(task) + BOUNTY * (len(others) + 2) + arena.step_back_charge(task) * (len(others) - 1)
    assert earned < forfeit
    arena.conclude(
        "solver",
        "accomplice",
        honest=arena.price_of(task) + arena.fee_of(task),
        promised={"submitter": -arena.cost_of(task) + arena.price_of(task) + arena.fee_of(task)}
        | dict.fromkeys(others, -arena.step_back_charge(task)),
        most=earned - forfeit,
    )


def test_a_solver_that_does_not_serve_a_demanded_chunk_loses_its_stake(arena: Arena) -> None:
    arena.enter("verifier", Verifier(VerifierOptions(fetch_attempts=99)))
    arena.settle_down()
    arena.enter("solver", UnservingSolver(), bench=WithholdingBench)
    task = arena.submit()
    arena.play(lambda: bool(arena.task(task).rounds))
    (found,) = arena.task(task).rounds
    arena.settle_down()
    arena.account("verifier").send(arena.demand(task, found))
    arena.reader.poll()
    (demand,) = arena.task(task).demands
    arena.play(lambda: arena.now > arena.view.demands[demand].deadline)
    arena.anyone(arena.market.demands.not_served(demand))
    assert arena.state(task) is TaskState.FAILED
    arena.settle_down()
    arena.conclude(
        "solver",
        honest=arena.price_of(task),
        promised={"verifier": arena.found_share(task), "submitter": -BOUNTY},
        most=BOUNTY - arena.market.tasks.stake(task),
    )


def test_a_late_solver_forfeits_by_the_time_it_held_the_task(arena: Arena) -> None:
    arena.enter("verifier", Verifier())
    arena.settle_down()
    arena.enter("solver", SilentSolver())
    task = arena.submit()
    arena.play(lambda: arena.state(task) is TaskState.TAKEN)
    price, stake, start = arena.price_of(task), arena.market.tasks.stake(task), arena.now
    length = arena.task(task).posting.train_seconds
    arena.leave("solver")
    arena.leave("verifier")
    arena.tick(3 * length)
    arena.anyone(arena.market.tasks.late(task))
    held = arena.now - start
    rate = arena.parameters.step_down_rate + arena.parameters.late_rate * held // length
    arena.submitter.send(arena.market.tasks.cancel(task))
    gains = arena.conclude("solver", honest=price, promised={"submitter": 0, "verifier": 0}, most=0)
    assert gains["solver"] == -(stake * rate // MILLION)


def test_a_solver_that_takes_tasks_only_to_give_them_up_pays_every_time(arena: Arena) -> None:
    arena.enter("verifier", Verifier())
    arena.settle_down()
    arena.enter("solver", RestlessSolver())
    task = arena.play_task().id
    assert arena.state(task) is TaskState.CANCELLED
    times = arena.parameters.maximal_relists + 1
    forfeit = arena.market.tasks.stake(task) * arena.parameters.step_down_rate // MILLION
    gains = arena.conclude(
        "solver", honest=arena.price_of(task), promised={"submitter": 0, "verifier": 0}, most=-times * forfeit
    )
    assert gains["pool"] == times * forfeit


def test_nobody_registers_a_proof_in_another_solvers_place(arena: Arena) -> None:
    """A thief sees the registration on its way and sends the same ahead of it."""
    arena.enter("verifier", Verifier())
    arena.settle_down()
    arena.enter("solver", Solver())
    thief = arena.account("thief")
    task = arena.submit()
    arena.play(lambda: arena.state(task) is TaskState.TAKEN)
    with arena.waiting() as waiting:
        arena.turn()
        arena.turn()
        (call,) = (each for each in waiting() if each.sender == arena.address("solver"))
        stolen = thief.send_ahead(call)
    assert not arena.succeeded(stolen)
    arena.play_task(task)
    assert arena.state(task) is TaskState.SETTLED
    arena.conclude(
        "thief",
        honest=0,
        promised={
            "solver": arena.price_of(task), "verifier": arena.fee_of(task), "submitter": -arena.cost_of(task),
        },
    )  # fmt: skip
