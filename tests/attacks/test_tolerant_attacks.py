"""Cheats of tolerant tasks, where honest proofs differ from replays by rounding, and thresholds say by how much."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from arena import BOUNTY, Arena, arena_on
from cheating_solvers import carrying_out
from tolerant_market import UnjustBench, WideProfileBench

from assay.attacks.proofs import (
    ATTACKS,
    Attack,
    another_rate,
    forged_momentum,
    lower_precision,
    not_a_number,
    tiny_updates,
)
from assay.market.local import LocalMarket
from assay.market.types import MILLION, TaskState
from assay.program.graph import Graph
from assay.roles.bench import Workbench
from assay.roles.solver import Solver
from assay.roles.verifier import Verifier, VerifierOptions
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions
from assay.tasks.bundle import Bundle
from assay.tasks.task_file import TaskFile

SEGMENTS = 4
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


@pytest.mark.slow
def test_a_profiler_that_widens_the_thresholds_loses_its_seat_to_whoever_profiles_again(tolerant: Arena) -> None:
    """Anything would have passed: the task opens with the thresholds that its whistleblower found instead."""
    arena = tolerant
    verifying(arena, "liar", WideProfileBench)
    arena.enter("solver", Solver())
    arena.enter("whistleblower", Whistleblower(WhistleblowerOptions(audits=0)))
    task = arena.submit()
    arena.play(lambda: arena.state(task) is TaskState.OPEN)
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
