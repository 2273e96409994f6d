"""Submitters whose tasks are false, impossible, dangerous or refutable, and those who pay themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from arena import COIN, Arena, arena_on
from parties import Pending, RefusedError

from assay.chain.sender import Call
from assay.demo.dishonest import FalseAccuser, LyingBench
from assay.dispute.evidence import record_opening
from assay.market.explain import solver_stake
from assay.market.local import LocalMarket
from assay.market.types import MILLION, Posting, TaskState
from assay.program.encoding import encode_header, program_root
from assay.program.operator import Operator, Program, Role, Source
from assay.roles.solver import Solver
from assay.roles.verifier import Verifier
from assay.roles.whistleblower import Whistleblower

OPERATOR_FAULT = 1
"""The second kind of fault in contracts/interfaces/IRefuter.sol."""


def reading_forward(program: Program) -> tuple[Program, int]:
    """The program with an operator that reads its own output, and that operator's number."""
    (section,) = program.sections
    number, operator = next(
        (n, each) for n, each in enumerate(section.operators) if any(o.source == Source.OPERATOR for o in each.operands)
    )
    operands = tuple(
        replace(each, index=number) if each.source == Source.OPERATOR else each for each in operator.operands
    )
    changed: Operator = replace(operator, operands=operands)
    operators = (*section.operators[:number], changed, *section.operators[number + 1 :])
    return replace(program, sections=(replace(section, operators=operators),)), number


def evidence_of(program: Program, number: int) -> tuple[object, ...]:
    """Evidence that opens one operator of the training step (contracts/interfaces/IRefuter.sol)."""
    nothing: tuple[bytes, int, list[object]] = (b"", 0, [])
    return (OPERATOR_FAULT, 0, number, record_opening(program, Role.STEP, number), [], 0, nothing, b"", [], b"", [])


# ---- Files that are not what the chain says, or that would harm ------------------------------------------------------


def elsewhere(_arena: Arena, posting: Posting) -> Posting:
    place = json.loads(posting.locations)
    return replace(posting, locations=json.dumps(place | {"at": ["dir:" + "ab" * 32]}))


def outside(_arena: Arena, posting: Posting) -> Posting:
    place = json.loads(posting.locations)
    return replace(posting, locations=json.dumps(place | {"at": ["dir:../../../etc/passwd"]}))


def bomb(arena: Arena, posting: Posting) -> Posting:
    """A manifest that is said to have 2^60 bytes."""
    place = json.loads(posting.locations)
    return replace(posting, locations=json.dumps(place | {"bytes": 1 << 60}))


def trickle(arena: Arena, posting: Posting) -> Posting:
    """A manifest that is larger than it is said to be."""
    place = json.loads(posting.locations)
    return replace(posting, locations=json.dumps(place | {"bytes": place["bytes"] - 1}))


def no_json(_arena: Arena, posting: Posting) -> Posting:
    return replace(posting, locations="[" * 4000)


def other_data(_arena: Arena, posting: Posting) -> Posting:
    return replace(posting, data_root=b"\x01" * 32)


def other_state(_arena: Arena, posting: Posting) -> Posting:
    return replace(posting, initial_root=b"\x02" * 32)


def other_graph(_arena: Arena, posting: Posting) -> Posting:
    return replace(posting, graph_hash=b"\x03" * 32)


def other_seed(_arena: Arena, posting: Posting) -> Posting:
    return replace(posting, task_seed=posting.task_seed + 1)


def refutable(arena: Arena, posting: Posting) -> Posting:
    return replace(posting, header=encode_header(reading_forward(arena.bundle.task.program)[0]))


FALSE_FILES = [elsewhere, outside, bomb, trickle, no_json, other_data, other_state, other_graph, other_seed, refutable]


@pytest.mark.parametrize("spoil", FALSE_FILES, ids=lambda spoil: spoil.__name__)
def test_a_task_whose_files_are_not_what_the_chain_says_is_taken_by_nobody(
    spoil: Callable[[Arena, Posting], Posting], arena: Arena
) -> None:
    """The solver looks before it takes; the submitter has its escrow back, less nothing, and nobody else lost a wei."""
    arena.enter("verifier", Verifier())
    arena.settle_down()
    arena.enter("solver", Solver())
    task = arena.submit(spoil(arena, arena.posting()))
    for _ in range(6):
        arena.settle_down()
        arena.tick()
    assert arena.state(task) is TaskState.OPEN
    work = arena.nodes["solver"].bench.place(task)
    assert sum(path.stat().st_size for path in work.rglob("*") if path.is_file()) < 1 << 20
    arena.tick(arena.parameters.hold_seconds + arena.task(task).posting.auction_seconds)
    arena.leave("solver")
    arena.leave("verifier")
    arena.anyone(arena.market.tasks.expire(task))
    assert arena.state(task) is TaskState.CANCELLED
    arena.conclude("submitter", honest=0, promised={"solver": 0, "verifier": 0})


def test_a_task_whose_stake_an_account_cannot_pay_keeps_it_from_nothing_else(arena: Arena) -> None:
    """An account's balance is public: a task can be posted whose stake is all that its solver has, or more than that.
    It goes on with other tasks, and with what its other roles have to do."""
    arena.enter("verifier", Verifier())
    arena.settle_down()
    arena.enter("solver", Solver())
    cheap = arena.posting()
    tasks = []
    for _ in range(2):
        tasks.append(arena.submit(replace(cheap, highest_reward=3 * COIN, lowest_reward=3 * COIN)))
    stakes = [solver_stake(arena.task(task), arena.parameters) for task in tasks]
    assert stakes[0] > COIN
    provider = arena.market.chain.web3.provider
    provider.make_request("anvil_setBalance", [arena.address("solver"), hex(stakes[0])])  # type: ignore[arg-type]
    other = arena.submit(cheap)
    arena.play(lambda: arena.state(other) is not TaskState.OPEN)
    assert [arena.state(task) for task in tasks] == [TaskState.OPEN, TaskState.OPEN]
    arena.play_task(other)
    assert arena.state(other) is TaskState.SETTLED


MALFORMED = {
    "steps that overflow": {"steps": 2**32 - 1, "interval": 1},
    "no steps": {"steps": 0},
    "an interval beyond the steps": {"interval": 9},
    "more drawn than there is": {"per_verifier": 16},
    "no verifiers": {"verifiers": 0},
    "fees too low to verify": {"verifier_fee": 0},
    "training faster than it can be": {"train_seconds": 1},
    "a price that falls": {"lowest_reward": 2 * COIN},
    "a base that is not proven": {"base_task": 7},
    "a header of rubbish": {"header": bytes(40)},
    "no header": {"header": b""},
}


@pytest.mark.parametrize("changes", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_posting_is_refused_before_anything_is_paid(changes: dict[str, object], arena: Arena) -> None:
    posting = arena.posting(**changes)
    with pytest.raises(RefusedError, match="OutOfRange|WrongHeader|WrongVersion|NotAProvenBase|Panic|reverted"):
        arena.submitter.send(arena.market.tasks.submit(posting, 2 * COIN))
    arena.conclude("submitter", honest=0)


# ---- Programs that can be refuted ------------------------------------------------------------------------------------


def taken_by_a_careless_solver(arena: Arena) -> tuple[int, Call]:
    """A task whose program reads forward, taken without a look at it; and the call that refutes it."""
    program, number = reading_forward(arena.bundle.task.program)
    arena.enter("verifier", Verifier())
    arena.settle_down()
    task = arena.submit(arena.posting(header=encode_header(program)))
    careless = arena.account("careless")
    careless.send(arena.market.stakes.deposit(2 * COIN))
    arena.tick(61)
    careless.send(arena.market.tasks.take(task))
    assert program_root(program) == arena.task(task).program_root
    return task, arena.market.court.refute_program(task, encode_header(program), evidence_of(program, number))


def refuted(arena: Arena, task: int) -> tuple[int, int]:
    """The task is void: what its solver is compensated with, and the bounty of whoever refuted it."""
    arena.reader.poll()
    assert arena.state(task) is TaskState.VOID
    compensation = arena.price_of(task) * arena.parameters.compensation_rate // MILLION
    return compensation, arena.task(task).posting.highest_reward * arena.parameters.refuter_rate // MILLION


@pytest.mark.parametrize("by", ["stranger", "submitter"])
def test_a_program_that_can_be_refuted_costs_its_submitter_and_not_the_solver_that_took_it(
    by: str, arena: Arena
) -> None:
    """Whoever refutes it has a bounty, the submitter itself too: the solver's compensation makes that a loss all the
    same."""
    task, refute = taken_by_a_careless_solver(arena)
    arena.account(by).send(refute)
    arena.account("late").send(refute)  # changes nothing any more
    compensation, bounty = refuted(arena, task)
    promised = {"careless": compensation, "verifier": 0, "late": 0} | ({by: bounty} if by != "submitter" else {})
    most = -compensation - (bounty if by != "submitter" else 0)
    gains = arena.conclude("submitter", honest=0, promised=promised, most=most)
    assert gains["late"] == 0


def test_a_copied_refutation_takes_the_bounty_and_the_task_is_void_all_the_same(arena: Arena) -> None:
    """A documented limit: a refutation has no commitment before it, so a thief who sees it waiting comes first."""
    task, refute = taken_by_a_careless_solver(arena)
    stranger, thief = arena.account("stranger"), arena.account("thief")
    with arena.waiting():
        seen = Pending(stranger.address, refute)
        stranger.send_ahead(seen, tip=1)
        copy = thief.send_ahead(seen)
    assert arena.succeeded(copy)
    compensation, bounty = refuted(arena, task)
    arena.conclude(
        "thief",
        honest=bounty,
        promised={"careless": compensation, "verifier": 0, "stranger": 0, "submitter": -compensation - bounty},
        most=bounty,
    )


# ---- Paying oneself --------------------------------------------------------------------------------------------------


def test_a_submitter_that_is_solver_verifier_and_whistleblower_at_once_pays_the_tax(arena: Arena) -> None:
    """All parts are played by one person: what it moves from pocket to pocket shrinks by the tax, which is out of its
    reach, so nothing (no pool, no reputation) is to be had for nothing."""
    arena.enter("own verifier", Verifier())
    arena.settle_down()
    arena.enter("own solver", Solver())
    arena.enter("own whistleblower", Whistleblower())
    task = arena.play_task().id
    assert arena.state(task) is TaskState.SETTLED
    tax = arena.market.tasks.tax(task)
    gains = arena.conclude("submitter", "own verifier", "own solver", "own whistleblower", honest=0, most=-tax)
    assert gains["pool"] == tax


def test_a_forced_round_among_accomplices_costs_more_than_it_pays(
    forced_arena: Arena,
) -> None:
    """One person plays all parts and every round is forced. The jackpot comes from what the task paid in itself."""
    arena = forced_arena
    arena.enter("own verifier", Verifier())
    arena.settle_down()
    arena.enter("own solver", Solver())
    arena.enter("own whistleblower", Whistleblower())
    gains = {}
    for _ in range(2):
        task = arena.play_task().id
        assert arena.state(task) is TaskState.SETTLED
        gains = arena.conclude("submitter", "own verifier", "own solver", "own whistleblower", honest=0, most=-1)
    assert gains["pool"] > 0


def test_nobody_takes_its_own_task_and_a_taken_one_is_not_cancelled(arena: Arena) -> None:
    arena.enter("verifier", Verifier())
    arena.settle_down()
    arena.submitter.send(arena.market.stakes.deposit(2 * COIN))
    task = arena.submit()
    with pytest.raises(RefusedError, match="OwnTask"):
        arena.submitter.send(arena.market.tasks.take(task))
    arena.enter("solver", Solver())
    arena.play(lambda: arena.state(task) is TaskState.TAKEN)
    with pytest.raises(RefusedError, match="WrongState"):
        arena.submitter.send(arena.market.tasks.cancel(task))
    arena.play_task(task)
    arena.conclude(
        "submitter",
        honest=0,
        promised={"solver": arena.price_of(task), "verifier": arena.fee_of(task)},
        most=-arena.price_of(task) - arena.fee_of(task),
    )


def test_a_submitter_that_accuses_its_solver_to_be_refunded_loses_a_bond_and_pays(arena: Arena) -> None:
    arena.enter("verifier", Verifier())
    arena.settle_down()
    arena.enter("solver", Solver())
    arena.enter("submitter", FalseAccuser(), bench=LyingBench)
    task = arena.play_task().id
    assert arena.state(task) is TaskState.SETTLED
    assert [case.challenger_won for case in arena.view.claims.cases.values()] == [False]
    price, fee, bond = arena.price_of(task), arena.fee_of(task), arena.parameters.case_bond
    arena.conclude(
        "submitter",
        honest=-price - fee,
        promised={"solver": price + bond // 2, "verifier": fee},
        most=-price - fee - bond,
    )


def test_demands_that_only_annoy_pay_the_solver(arena: Arena) -> None:
    """A submitter demands chunks it could fetch: each costs its price, two at a time, and the solver serves them."""
    arena.enter("verifier", Verifier())
    arena.settle_down()
    arena.enter("solver", Solver())
    task = arena.submit()
    arena.play(lambda: arena.state(task) is TaskState.VERIFYING)
    asked = 0
    for _ in range(4):
        arena.submitter.send(arena.demand(task, 0))
        asked += 1
        with pytest.raises(RefusedError, match="NotEntitled"):
            arena.account("outsider").send(arena.demand(task, 0))
        arena.settle_down()
    for _ in range(2):
        arena.submitter.send(arena.demand(task, 0))
    with pytest.raises(RefusedError, match="TooMany"):
        arena.submitter.send(arena.demand(task, 0))
    arena.play_task(task)
    assert arena.state(task) is TaskState.SETTLED
    price = (asked + 2) * arena.parameters.demand_price
    arena.conclude(
        "submitter",
        honest=0,
        promised={"solver": arena.price_of(task) + price, "verifier": arena.fee_of(task), "outsider": 0},
        most=-price - arena.price_of(task),
    )


def test_training_that_explodes_is_paid_when_it_was_done_as_asked(
    quiet_market: LocalMarket, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A chaotic task: its learning rate makes every weight infinite or NaN. The canonical bits are the proof all the
    same, so the honest solver is paid and the submitter has what it asked for."""
    from tiny_market import make_task

    changes = {"learning_rate = 0.1": "learning_rate = 1e20"}
    chaos = make_task(tmp_path_factory.mktemp("task") / "chaos", changes=changes)
    with arena_on(quiet_market, tmp_path, chaos) as arena:
        arena.enter("verifier", Verifier())
        arena.settle_down()
        arena.enter("solver", Solver())
        task = arena.play_task()
        assert task.state is TaskState.SETTLED
        bench = arena.nodes["solver"].bench
        assert not all(np.isfinite(part).all() for part in bench.checkpoint(task, task.segments))
        arena.conclude(
            "submitter",
            honest=0,
            promised={"solver": arena.price_of(task.id), "verifier": arena.fee_of(task.id)},
            most=-arena.price_of(task.id) - arena.fee_of(task.id),
        )
