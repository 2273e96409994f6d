"""Verifiers that cheat, against honest solvers and whistleblowers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from arena import BOUNTY, COIN, Arena
from cheating_verifiers import (
    AbsentDefender,
    CopyingBench,
    CopyingVerifier,
    LeavingVerifier,
    ShowsTheTrueClaim,
    SilentVerifier,
    UnderivedVerifier,
    UnreplayedBench,
)
from cheating_whistleblowers import Joiner

from assay.demo.dishonest import LyingBench
from assay.market.types import MILLION, Fault, RoundState, TaskState
from assay.market.verification import leak_commitment
from assay.roles.bench import Workbench
from assay.roles.joining import payout_threshold
from assay.roles.solver import Solver
from assay.roles.subjects import subject_of_round
from assay.roles.verifier import Verifier, VerifierOptions, hidden_claims
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions


def whistleblower() -> Whistleblower:
    return Whistleblower(WhistleblowerOptions(audits=0))


def drawn(arena: Arena, liar: Verifier, bench: type[Workbench] = Workbench, whistleblowers: int = 1) -> int:
    """A task whose only verifier is a liar, until it is drawn; everybody else is honest."""
    arena.enter("liar", liar, bench=bench)
    arena.settle_down()
    arena.enter("solver", Solver())
    for number in range(whistleblowers):
        arena.enter(f"whistleblower {number}", whistleblower())
    task = arena.submit()
    arena.play(lambda: bool(arena.task(task).rounds))
    return task


def promises(arena: Arena, task: int, **more: int) -> dict[str, int]:
    """What honest participants of a settled task have at least."""
    return {"solver": arena.price_of(task), "submitter": -arena.cost_of(task)} | more


def found_in_a_seat(arena: Arena) -> int:
    return arena.parameters.seat * arena.parameters.finder_rate // MILLION


def silence_of(arena: Arena) -> int:
    """What silence costs of a seat."""
    return arena.parameters.seat * arena.parameters.silence_rate // MILLION


def conclude(arena: Arena, task: int, *accomplices: str, most: int, **promised: int) -> Mapping[str, int]:
    """The task is played to its end and settled, and the liar has less than its fee and `most` at most; `promised` adds
    to what solver and submitter have at least. Names have _ for spaces."""
    arena.play_task(task)
    assert arena.state(task) is TaskState.SETTLED
    more = {name.replace("_", " "): least for name, least in promised.items()}
    return arena.conclude(
        "liar", *accomplices, honest=arena.fee_of(task), promised=promises(arena, task, **more), most=most
    )


@pytest.mark.parametrize("bench", [UnreplayedBench, LyingBench], ids=["reads the roots", "fails an honest solver"])
def test_a_verifier_with_a_false_claim_loses_its_seat_to_whoever_answers_rightly(
    bench: type[Workbench], arena: Arena
) -> None:
    task = drawn(arena, Verifier(), bench)
    conclude(arena, task, most=BOUNTY - arena.parameters.seat, whistleblower_0=found_in_a_seat(arena))


@pytest.mark.slow
def test_a_solver_that_was_failed_wrongly_defends_itself(arena: Arena) -> None:
    """Nobody else looks: the solver disputes the verdict on its own proof, wins, and has the finder's part."""
    task = drawn(arena, Verifier(), LyingBench, whistleblowers=0)
    conclude(arena, task, most=-arena.parameters.seat, solver=arena.price_of(task) + found_in_a_seat(arena))


def test_a_verifier_that_does_not_defend_a_false_claim_loses_by_its_clock(arena: Arena) -> None:
    task = drawn(arena, AbsentDefender(), UnreplayedBench)
    conclude(arena, task, most=BOUNTY - arena.parameters.seat, whistleblower_0=found_in_a_seat(arena))


@pytest.mark.slow
def test_a_verifier_that_copies_a_colleague_has_another_share_and_loses_its_seat(arena: Arena) -> None:
    arena.enter("liar", CopyingVerifier(), bench=CopyingBench)
    arena.enter("colleague", Verifier())
    arena.settle_down()
    arena.enter("solver", Solver())
    arena.enter("whistleblower", whistleblower())
    task = arena.submit(arena.posting(verifiers=2))
    conclude(
        arena,
        task,
        most=2 * BOUNTY - arena.parameters.seat,
        colleague=arena.fee_of(task),
        whistleblower=found_in_a_seat(arena),
    )


@pytest.mark.parametrize("stage", ["commit", "show", "disclose"])
def test_a_verifier_that_falls_silent_pays_for_it_and_is_replaced(stage: str, arena: Arena) -> None:
    task = drawn(arena, SilentVerifier(stage))
    arena.enter("verifier", Verifier())
    if stage == "show":
        # The block after which its silence counts is far away: those blocks are mined at once.
        arena.play(lambda: arena.view.rounds[arena.task(task).rounds[0]].state is RoundState.COMMITTED)
        arena.tick(blocks=arena.parameters.join_blocks + arena.parameters.show_blocks + 16)
    silence = silence_of(arena)
    gains = conclude(arena, task, most=3 * BOUNTY - silence, verifier=arena.fee_of(task), whistleblower_0=0)
    assert arena.view.rounds[arena.task(task).rounds[0]].fault is Fault.SILENT
    assert silence > arena.parameters.seat * arena.parameters.jackpot_rate // MILLION
    assert gains["pool"] >= silence - BOUNTY


def test_stepping_back_without_reason_is_charged_and_pays_the_next(arena: Arena) -> None:
    task = drawn(arena, SilentVerifier("commit"))
    (found,) = arena.task(task).rounds
    arena.account("liar").send(arena.market.verification.step_back(found))
    arena.leave("liar")
    arena.enter("verifier", Verifier())
    charge = arena.step_back_charge(task)
    conclude(arena, task, most=-charge, verifier=arena.fee_of(task) + charge - BOUNTY)


def test_verifiers_that_starve_a_task_together_pay_every_time_and_the_solver_loses_its_forfeit_at_most(
    arena: Arena,
) -> None:
    """A documented limit: who holds all seats can end a task, and pays a charge for every step back. What the solver
    forfeits goes to the pool, not to them; with a part of the seats it costs them more than it destroys."""
    names = [f"leaver {number}" for number in range(arena.parameters.maximal_step_backs)]
    for name in names:
        arena.enter(name, LeavingVerifier())
    arena.settle_down()
    arena.enter("solver", Solver())
    task = arena.play_task().id
    assert arena.state(task) is TaskState.UNAVAILABLE
    forfeit = arena.price_of(task) * arena.parameters.unavailable_rate // MILLION
    charges = len(names) * arena.step_back_charge(task)
    gains = arena.conclude(
        *names,
        "submitter",
        honest=0,
        promised={"solver": -forfeit},
        most=BOUNTY * len(names) - charges,
    )
    assert gains["pool"] >= forfeit


# ---- Forced rounds --------------------------------------------------------------------------------------------------


def filled(arena: Arena) -> None:
    """Something in the pool, or there is nothing to steal: a rich task whose solver steps down again and again."""
    rich, eligible, stakes = arena.account("rich solver"), arena.account("eligible verifier"), arena.market.stakes
    eligible.send(stakes.deposit(arena.parameters.seat))
    eligible.send(stakes.enlist(1, 50))
    rich.send(stakes.deposit(1000 * COIN))
    task = arena.submit(arena.posting(lowest_reward=1000 * COIN, highest_reward=1000 * COIN))
    for _ in range(arena.parameters.maximal_relists + 1):
        rich.send(arena.market.tasks.take(task))
        rich.send(arena.market.tasks.step_down(task))
    eligible.send(stakes.delist(1))
    arena.reader.poll()
    arena.books.begin()


def jackpot_of(arena: Arena, task: int) -> int:
    """What a forced round of the task reserves, with a full pool."""
    most = arena.parameters.seat * arena.parameters.jackpot_rate // MILLION
    return min(arena.market.tasks.tax(task) * MILLION // arena.parameters.forced_rate, most)


def test_a_verifier_that_shows_its_true_claim_when_forced_loses_its_seat(forced_arena: Arena) -> None:
    arena = forced_arena
    task = drawn(arena, ShowsTheTrueClaim())
    arena.enter("verifier", Verifier())
    conclude(arena, task, most=2 * BOUNTY - arena.parameters.seat, verifier=arena.fee_of(task), whistleblower_0=0)
    assert arena.view.rounds[arena.task(task).rounds[0]].fault is Fault.SHOWN_THE_WRONG_ONE


def test_a_verifier_whose_false_claim_is_not_the_derived_one_cannot_disclose_it(forced_arena: Arena) -> None:
    arena = forced_arena
    task = drawn(arena, UnderivedVerifier())
    arena.enter("verifier", Verifier())
    conclude(arena, task, most=2 * BOUNTY - silence_of(arena), verifier=arena.fee_of(task), whistleblower_0=0)


@pytest.mark.parametrize("is_shown", [False, True], ids=["before it shows", "after it has shown"])
def test_a_verifier_that_tells_its_secret_loses_its_seat_even_if_it_tells_itself(
    is_shown: bool, forced_arena: Arena
) -> None:
    """The bringer of the secret may be the verifier's own second identity: most of the seat is out of its reach."""
    arena = forced_arena
    task = drawn(arena, SilentVerifier("disclose" if is_shown else "show"))
    (number,) = arena.task(task).rounds
    state = RoundState.SHOWN if is_shown else RoundState.COMMITTED
    arena.play(lambda: arena.view.rounds[number].state is state)
    found, node = arena.view.rounds[number], arena.nodes["liar"]
    bringer = arena.account("bringer")
    claims = hidden_claims(
        node.secret(f"round:{found.id:x}:{found.draw_seed:x}"),
        node.jobs.result(subject_of_round(arena.view, found).key),
        found,
    )
    verification = arena.market.verification
    bringer.send(verification.commit_leak(leak_commitment(claims.secret, bringer.address, number)))
    if is_shown:
        assert found.shown is not None
        bringer.send(verification.leak_shown(number, claims.secret, claims.order, found.shown))
    else:
        assert found.hidden is not None
        bringer.send(verification.leak(number, claims.secret, claims.order, found.hidden))
    arena.enter("verifier", Verifier())
    seat = arena.parameters.seat
    bounty = seat * arena.parameters.leak_rate // MILLION
    most = 2 * BOUNTY - seat + bounty
    gains = conclude(arena, task, "bringer", most=most, verifier=arena.fee_of(task), whistleblower_0=0)
    assert gains["bringer"] == bounty >= seat * arena.parameters.jackpot_rate // MILLION


@pytest.mark.parametrize("honest", [0, 1, 2])
def test_what_a_verifier_gains_by_answering_itself_is_the_tax_at_most_and_halved_by_every_honest_answer(
    honest: int, forced_arena: Arena
) -> None:
    """A documented limit: the accomplice takes its part of the jackpot of a forced round, and no more than that part.
    Only a share of all rounds is forced, so over all rounds it gains the tax at most, which its task has paid in."""
    arena = forced_arena
    filled(arena)
    task = drawn(arena, Verifier(), whistleblowers=honest)
    arena.enter("accomplice", whistleblower())
    arena.play_task(task)
    assert arena.state(task) is TaskState.SETTLED
    jackpot = jackpot_of(arena, task)
    assert jackpot > 0
    assert len(arena.view.rounds[arena.task(task).rounds[0]].answers) == honest + 1
    others = [f"whistleblower {number}" for number in range(honest)]
    arena.conclude(
        "liar",
        "accomplice",
        honest=arena.fee_of(task) + (jackpot >> honest) + 1,
        promised=promises(arena, task) | dict.fromkeys(others, jackpot >> honest),
        most=arena.fee_of(task) + (jackpot >> honest),
    )
    assert jackpot * arena.parameters.forced_rate // MILLION <= arena.market.tasks.tax(task)


def test_three_identities_answering_a_forced_round_gain_less_than_one(forced_arena: Arena) -> None:
    arena = forced_arena
    filled(arena)
    task = drawn(arena, Verifier(), whistleblowers=3)
    arena.play_task(task)
    jackpot = jackpot_of(arena, task)
    assert len(arena.view.rounds[arena.task(task).rounds[0]].answers) == 3
    arena.conclude(
        *[f"whistleblower {number}" for number in range(3)],
        honest=jackpot,
        promised=promises(arena, task) | {"liar": arena.fee_of(task)},
        most=3 * (jackpot >> 2),
    )


@pytest.mark.slow
def test_a_crowd_that_joins_its_own_false_claim_does_not_keep_everybody_away(forced_arena: Arena) -> None:
    """The crowd is larger than the prize pays for, so that nobody should join after it; by chance somebody does."""
    arena = forced_arena
    filled(arena)
    arena.enter("liar", Verifier(), bench=UnreplayedBench)
    arena.settle_down()
    arena.enter("solver", Solver())
    crowd = ["crowd 0", "crowd 1"]
    for name in crowd:
        arena.enter(name, Joiner())
    cost = COIN // 25
    options = WhistleblowerOptions(audits=0, cost=cost, join_chance=MILLION)
    arena.enter("whistleblower", Whistleblower(options))
    task = arena.play_task().id
    assert arena.state(task) is TaskState.SETTLED
    jackpot = jackpot_of(arena, task)
    assert payout_threshold(jackpot, arena.parameters.forced_rate, cost) < len(crowd)
    (found,) = (arena.view.rounds[number] for number in arena.task(task).rounds)
    assert list(found.answers)[-1] == arena.address("whistleblower")
    arena.conclude(
        "liar",
        *crowd,
        honest=arena.fee_of(task),
        promised=promises(arena, task, whistleblower=found_in_a_seat(arena) + jackpot),
        most=2 * BOUNTY - arena.parameters.seat - len(crowd) * arena.parameters.answer_bond,
    )


def test_a_verifier_cannot_answer_its_own_round(forced_arena: Arena) -> None:
    arena = forced_arena
    arena.enter("liar", Verifier(VerifierOptions(stake=2 * COIN)), whistleblower())
    arena.settle_down()
    arena.enter("solver", Solver())
    task = arena.play_task().id
    assert arena.state(task) is TaskState.SETTLED
    (found,) = (arena.view.rounds[number] for number in arena.task(task).rounds)
    assert not found.answers
    arena.conclude("liar", honest=arena.fee_of(task) + 1, promised=promises(arena, task), most=arena.fee_of(task))
