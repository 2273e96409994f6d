"""Parties of cases that stall, lose on purpose, copy, or move for others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from arena import BOUNTY, Arena
from cheating_verifiers import Staller
from cheating_whistleblowers import LosingChallenger
from parties import Pending, RefusedError

from assay.chain.sender import Call
from assay.demo.dishonest import LyingBench
from assay.dispute.case import Phase
from assay.dispute.moves import reveal
from assay.market.types import MILLION, TaskState
from assay.roles.cases import case_view
from assay.roles.context import Action, Context, Player
from assay.roles.solver import Solver
from assay.roles.verifier import Verifier
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions

MOST_MOVES = 60


def disputed(arena: Arena, liar: Player, *others: tuple[str, Player]) -> tuple[int, int]:
    """A task whose verifier claims falsely, until an honest whistleblower has opened a case; task and case."""
    arena.enter("liar", liar, bench=LyingBench)
    arena.settle_down()
    arena.enter("solver", Solver())
    for name, player in others:
        arena.enter(name, player)
    arena.enter("whistleblower", Whistleblower(WhistleblowerOptions(audits=0)))
    task = arena.submit()
    honest = arena.address("whistleblower")

    def opened() -> list[int]:
        return [case.id for case in arena.view.claims.cases.values() if case.challenger == honest]

    arena.play(lambda: bool(opened()))
    return task, opened()[0]


def conclude(arena: Arena, task: int, *attackers: str, most: int) -> None:
    """The false claim has fallen, and the whistleblower has the finder's part."""
    assert arena.state(task) is TaskState.SETTLED
    charge = arena.market.claims.ask("chargeOf", arena.task(task).rounds[0])
    found = (arena.parameters.seat - charge) * arena.parameters.finder_rate // MILLION
    arena.conclude(
        *attackers,
        honest=arena.fee_of(task),
        promised={
            "solver": arena.price_of(task), "submitter": -arena.cost_of(task), "whistleblower": found,
        },
        most=most,
    )  # fmt: skip


def test_a_case_lost_on_purpose_does_not_shield_a_false_claim(arena: Arena) -> None:
    """A sybil disputes the lie first and falls silent; the honest case beside it goes on and wins."""
    task, case = disputed(arena, Verifier(), ("sybil", LosingChallenger()))
    arena.play_task(task)
    won = {record.challenger: record.challenger_won for record in arena.view.claims.cases.values()}
    assert won == {arena.address("sybil"): False, arena.address("whistleblower"): True}
    assert arena.view.claims.cases[case].challenger_won
    bond = arena.parameters.case_bond
    conclude(arena, task, "liar", "sybil", most=BOUNTY - arena.parameters.seat - bond + bond // 2)


def test_stalling_every_move_ends_within_the_clocks_and_is_charged(arena: Arena) -> None:
    task, case = disputed(arena, Staller())
    begun = arena.now
    arena.play(lambda: arena.view.claims.cases[case].challenger_won is not None)
    assert arena.view.claims.cases[case].challenger_won
    moves = arena.view.claims.cases[case].moves
    assert moves > 4
    clocks = arena.local.deployment.court
    assert arena.now - begun <= clocks.allowance + moves * clocks.extension
    arena.play_task(task)
    conclude(arena, task, "liar", most=BOUNTY - arena.parameters.seat)


def test_nobody_expands_or_chooses_in_anothers_place_and_a_copied_move_helps_its_author(arena: Arena) -> None:
    """A meddler copies every move of a case while it waits to be mined, at a higher price. What only a party may do it
    is refused; what it may do is bound to the case by hashes, and is the very move its victim wanted."""
    task, case = disputed(arena, Verifier())
    meddler = arena.account("meddler")
    parties = {arena.address("liar"), arena.address("whistleblower")}
    court = arena.market.court.address
    outcomes: dict[Phase, set[bool]] = {}
    for _ in range(MOST_MOVES):
        if arena.view.claims.cases[case].challenger_won is not None:
            break
        view = case_view(arena.reader, case)
        assert view is not None
        with arena.waiting() as waiting:
            for _ in range(2):
                arena.turn()
            moves = [each for each in waiting() if each.sender in parties and each.call.to == court]
            copies = [meddler.send_ahead(move) for move in moves[:1]]
        for copy in copies:
            outcomes.setdefault(view.cursor.phase, set()).add(arena.succeeded(copy))
    assert outcomes[Phase.EXPAND] == {False}
    assert outcomes[Phase.CHOOSE] == {False}
    assert outcomes[Phase.REVEAL] == {True}
    assert outcomes[Phase.PROVE] == {True}
    assert arena.view.claims.cases[case].challenger_won
    arena.play_task(task)
    arena.conclude("meddler", honest=0)
    conclude(arena, task, "liar", most=BOUNTY - arena.parameters.seat)


def test_wrong_openings_and_starved_moves_decide_nothing(arena: Arena) -> None:
    """Bad bytes and too little gas revert, by whoever sends them; the case goes on from where it was."""
    task, case = disputed(arena, Verifier())
    meddler = arena.account("meddler")
    nodes = {name: arena.nodes[name] for name in ("liar", "whistleblower")}
    tried: set[Phase] = set()
    for _ in range(MOST_MOVES):
        if arena.view.claims.cases[case].challenger_won is not None:
            break
        view = case_view(arena.reader, case)
        assert view is not None
        phase, position = view.cursor.phase, arena.market.court.position(case)
        wrong = arena.market.court.move(case, position, reveal(bytes(32 * 2)))
        with pytest.raises(RefusedError):
            meddler.send(wrong)
        with arena.waiting() as waiting:
            for node in nodes.values():
                node.turn()
                node.turn()
            moves = [each for each in waiting() if each.call.to == arena.market.court.address]
            starved = [meddler.send_ahead(starve(move)) for move in moves[:1]]
            assert arena.market.court.position(case) == position
        assert not any(arena.succeeded(each) for each in starved)
        tried.add(phase)
    assert tried >= {Phase.EXPAND, Phase.REVEAL, Phase.CHOOSE, Phase.PROVE}
    assert arena.view.claims.cases[case].challenger_won
    arena.play_task(task)
    arena.conclude("meddler", honest=0)
    conclude(arena, task, "liar", most=BOUNTY - arena.parameters.seat)


def starve(seen: Pending) -> Pending:
    """The same with hardly any gas beyond what its bytes cost."""
    nonzero = sum(byte != 0 for byte in seen.call.data)
    zero = len(seen.call.data) - nonzero
    floor = 21_000 + 40 * nonzero + 10 * zero
    return Pending(seen.sender, Call(seen.call.to, seen.call.data, seen.call.value, floor + 9_000))


def test_a_challenger_that_falls_silent_loses_its_bond_by_anybodys_call(arena: Arena) -> None:
    arena.enter("verifier", Verifier())
    arena.settle_down()
    arena.enter("solver", Solver())
    arena.enter("silent", LosingChallenger(), bench=LyingBench)
    task = arena.play_task().id
    assert arena.state(task) is TaskState.SETTLED
    (case,) = arena.view.claims.cases.values()
    assert case.challenger_won is False
    bond = arena.parameters.case_bond
    arena.conclude(
        "silent",
        honest=0,
        promised={
            "verifier": arena.fee_of(task) + bond // 2, "solver": arena.price_of(task),
            "submitter": -arena.cost_of(task),
        },
        most=-bond,
    )  # fmt: skip


class Absent(Verifier):
    """Claims what is right, and makes no move in any case about it."""

    def _plan(self, context: Context) -> Iterator[Action]:
        return (each for each in super()._plan(context) if not each.key.startswith(("move:", "case-timeout:")))


def test_a_case_among_accomplices_in_which_nobody_moves_holds_a_task_up_for_its_clocks_only(arena: Arena) -> None:
    """A claim on which a case is open does not stand, so that its task does not settle. Whoever waits for the task
    calls the time-out of a party that is silent."""
    arena.enter("verifier", Absent())
    arena.settle_down()
    arena.enter("solver", Solver())
    arena.enter("accomplice", LosingChallenger(), bench=LyingBench)
    task = arena.play_task().id
    assert arena.state(task) is TaskState.SETTLED
    arena.conclude(
        "verifier",
        "accomplice",
        honest=0,
        promised={"solver": arena.price_of(task), "submitter": -arena.cost_of(task)},
        most=-1,
    )
