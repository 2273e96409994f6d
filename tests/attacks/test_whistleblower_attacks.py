"""Whistleblowers that do not look before they speak."""

from __future__ import annotations

import pytest
from arena import BOUNTY, Arena
from cheating_verifiers import UnreplayedBench
from cheating_whistleblowers import Agreeing, Joiner, NeverReveals
from parties import RefusedError

from assay.demo.dishonest import FalseAccuser, LyingBench
from assay.market.answers import answer_commitment
from assay.market.types import RoundState, TaskState
from assay.roles.bench import Workbench
from assay.roles.solver import Solver
from assay.roles.verifier import Verifier
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions, shown_hash


def begin(arena: Arena) -> int:
    """A task of honest people, until its verifier is drawn."""
    arena.enter("verifier", Verifier())
    arena.settle_down()
    arena.enter("solver", Solver())
    task = arena.submit()
    arena.play(lambda: bool(arena.task(task).rounds))
    return task


def promises(arena: Arena, task: int) -> dict[str, int]:
    return {
        "solver": arena.price_of(task),
        "verifier": arena.fee_of(task),
        "submitter": -arena.cost_of(task),
    }


@pytest.mark.parametrize(
    ("player", "bench", "bonds"),
    [
        (Joiner, Workbench, 1),
        (NeverReveals, Workbench, 1),
        (Whistleblower, UnreplayedBench, 2),
        (Whistleblower, LyingBench, 2),
    ],
    ids=["joins only", "does not reveal", "guesses by the solver's roots", "disputes everything"],
)
def test_an_answer_that_is_not_a_replay_costs_its_bonds(
    player: type[Whistleblower], bench: type[Workbench], bonds: int, arena: Arena
) -> None:
    """One bond for the answer, and one for the case of whoever goes on to dispute the truth."""
    task = begin(arena)
    arena.enter("noise", player(WhistleblowerOptions(audits=0)), bench=bench)
    arena.play_task(task)
    assert arena.state(task) is TaskState.SETTLED
    lost = arena.parameters.answer_bond + (arena.parameters.case_bond if bonds == 2 else 0)
    if bonds == 2:
        assert [case.challenger_won for case in arena.view.claims.cases.values()] == [False]
    gains = arena.conclude("noise", honest=0, promised=promises(arena, task), most=BOUNTY - lost)
    if bonds == 2:
        assert gains["verifier"] >= arena.fee_of(task) + arena.parameters.case_bond // 2


def test_agreeing_with_whatever_is_shown_costs_the_bond_of_a_forced_round(forced_arena: Arena) -> None:
    """Without a replay nobody knows whether the claim that is shown is the forced false one."""
    arena = forced_arena
    task = begin(arena)
    arena.enter("noise", Agreeing(WhistleblowerOptions(audits=0)))
    arena.play_task(task)
    assert arena.state(task) is TaskState.SETTLED
    (found,) = (arena.view.rounds[number] for number in arena.task(task).rounds)
    assert len(found.roots) == 1
    arena.conclude("noise", honest=0, promised=promises(arena, task), most=BOUNTY - arena.parameters.answer_bond)


def test_a_false_accusation_of_a_solver_costs_its_bond(arena: Arena) -> None:
    task = begin(arena)
    arena.enter("accuser", FalseAccuser(), bench=LyingBench)
    arena.play_task(task)
    assert arena.state(task) is TaskState.SETTLED
    bond = arena.parameters.case_bond
    gains = arena.conclude("accuser", honest=0, promised=promises(arena, task), most=-bond)
    assert gains["solver"] >= arena.price_of(task) + bond // 2


def test_a_copied_commitment_cannot_be_revealed(arena: Arena) -> None:
    """The copy is under another account, so no root and salt fit it."""
    task = begin(arena)
    (number,) = arena.task(task).rounds
    arena.enter("whistleblower", Whistleblower(WhistleblowerOptions(audits=0)))
    copyist = arena.account("copyist")
    copyist.send(arena.market.stakes.deposit(10**18))
    arena.play(lambda: arena.view.rounds[number].state is RoundState.COMMITTED)
    copyist.send(arena.market.answers.join(number))
    arena.play(lambda: arena.view.rounds[number].state is RoundState.SHOWN)
    with arena.waiting() as waiting:
        arena.turn()
        arena.turn()
        (seen,) = (each for each in waiting() if each.sender == arena.address("whistleblower"))
        copied = copyist.send_ahead(seen)
    assert arena.succeeded(copied)
    honest = arena.address("whistleblower")
    arena.play(lambda: honest in arena.view.rounds[number].roots)
    root = arena.view.rounds[number].roots[honest]
    shown = arena.view.rounds[number].shown
    assert shown is not None
    salt = arena.nodes["whistleblower"].secret(f"answer:{number:x}:{shown_hash(shown).hex()}")
    assert answer_commitment(number, honest, root, salt) in seen.call.data
    with pytest.raises(RefusedError, match="NotTheCommitment"):
        copyist.send(arena.market.answers.reveal_answer(number, root, salt))
    arena.play_task(task)
    arena.conclude(
        "copyist",
        honest=0,
        promised=promises(arena, task) | {"whistleblower": 0},
        most=-arena.parameters.answer_bond,
    )


def test_nobody_joins_once_the_lottery_can_be_known(forced_arena: Arena) -> None:
    arena = forced_arena
    task = begin(arena)
    (number,) = arena.task(task).rounds
    late = arena.account("late")
    late.send(arena.market.stakes.deposit(10**18))
    arena.play(lambda: arena.view.rounds[number].state is RoundState.COMMITTED)
    arena.tick(blocks=arena.parameters.join_blocks)
    with pytest.raises(RefusedError, match="TooLate"):
        late.send(arena.market.answers.join(number))
    arena.play_task(task)
    arena.conclude("late", honest=0, promised=promises(arena, task))
