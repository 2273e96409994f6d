"""Roles killed (SIGKILL) after every single thing they write down, and started again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_market import LIAR, SOLVER, VERIFIER, WITNESS, World, run_and_die

from assay.demo.dishonest import FalseAccuser, LazyBench, LyingBench
from assay.market.types import Class, TaskState
from assay.roles.context import Player
from assay.roles.solver import Solver
from assay.roles.verifier import Verifier
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions

pytestmark = pytest.mark.slow

MAKERS: dict[int, Callable[[], Player]] = {
    SOLVER: Solver,
    VERIFIER: Verifier,
    WITNESS: lambda: Whistleblower(WhistleblowerOptions(audits=0)),
}
ONCE = {
    SOLVER: {"deposit": 1, "take": 1, "register": 1},
    VERIFIER: {"deposit": 1, "enlist": 1, "commit": 1, "showReplay": 1, "disclose": 1},
    WITNESS: {"deposit": 1, "join": 1, "commitAnswer": 1, "revealAnswer": 1, "collect": 1},
}


class Mortal:
    """A role in a child process that dies at every write and is born again."""

    def __init__(self, world: World, place: int, status: Path, make: Callable[[], Player] | None = None) -> None:
        self.world, self.place, self.status, self.make = world, place, status, make or MAKERS[place]
        self.deaths, self.child = 0, 0
        self.bear()

    def bear(self) -> None:
        self.status.unlink(missing_ok=True)
        self.child = os.fork()
        if self.child == 0:
            try:
                run_and_die(self.world, self.place, self.make, self.status)
            finally:
                os._exit(1)

    def is_idle(self) -> bool:
        """Whether the role waits at the newest block; a dead one is born again."""
        ended, status = os.waitpid(self.child, os.WNOHANG)
        if ended:
            assert os.WIFSIGNALED(status), f"the role ended by itself with status {status}"
            assert os.WTERMSIG(status) == signal.SIGKILL
            self.deaths += 1
            self.bear()
            return False
        if not self.status.exists():
            return False
        head = self.world.reader.view.block
        return bool(json.loads(self.status.read_text())["waiting"] == head)

    def end(self) -> None:
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)


@pytest.mark.parametrize("place", [VERIFIER, SOLVER, WITNESS], ids=["verifier", "solver", "whistleblower"])
def test_a_role_killed_at_every_write_acts_once_and_keeps_its_deposit(world: World, place: int, tmp_path: Path) -> None:
    mortal = Mortal(world, place, tmp_path / "status")
    try:
        world.nodes = [world.node(each, [MAKERS[each]()]) for each in MAKERS if each != place]
        stakes = world.market.stakes
        everyone = [world.address(each) for each in MAKERS]
        world.play(lambda: stakes.seats(everyone[1]) == 1 and stakes.free(everyone[2]) > 0, mortal.is_idle, limit=150)
        task = world.submit()

        def is_over() -> bool:
            return world.reader.view.tasks[task].state.is_over

        world.play(is_over, mortal.is_idle, limit=300)
        # Until the last bond is collected.
        last = time.monotonic() + 60
        while not (mortal.is_idle() and stakes.balance(Class.ROUND, _round(world, task)) == 0):
            assert time.monotonic() < last
            for node in world.nodes:
                node.turn()
            world.reader.poll()
            time.sleep(0.02)
    finally:
        mortal.end()
    assert world.market.tasks.state(task) is TaskState.SETTLED
    assert mortal.deaths >= 2 * len(ONCE[place])
    calls = Counter(world.calls(place))
    assert {name: calls[name] for name in ONCE[place]} == ONCE[place]
    assert stakes.locked(world.address(place)) == 0
    if place == VERIFIER:
        assert stakes.free(world.address(place)) == world.market.parameters.seat


@pytest.mark.parametrize(
    ("place", "opponent", "has_won"),
    [(WITNESS, Verifier, True), (SOLVER, FalseAccuser, False)],
    ids=["whistleblower against a lying verifier", "solver against a false accuser"],
)
def test_a_party_killed_at_every_write_of_a_case_makes_each_move_once_and_wins(
    world: World, place: int, opponent: Callable[[], Player], has_won: bool, tmp_path: Path
) -> None:
    liar_verifies = opponent is Verifier
    world.nodes = [world.node(each, [MAKERS[each]()]) for each in MAKERS if each != place]
    world.nodes.append(world.node(LIAR, [opponent()], make_bench=LyingBench))
    mortal = Mortal(world, place, tmp_path / "status")
    try:
        seats = [VERIFIER, LIAR] if liar_verifies else [VERIFIER]
        stakes = world.market.stakes
        world.play(lambda: all(stakes.seats(world.address(each)) for each in seats), mortal.is_idle, limit=150)
        task = world.submit(len(seats))

        def is_over() -> bool:
            view = world.reader.view
            return view.tasks[task].state.is_over and bool(view.claims.cases) and not view.claims.open_cases()

        world.play(is_over, mortal.is_idle, limit=400)
    finally:
        mortal.end()
    assert world.market.tasks.state(task) is TaskState.SETTLED
    (case,) = world.reader.view.claims.cases.values()
    parties = (world.address(place), world.address(LIAR)) if has_won else (world.address(LIAR), world.address(place))
    assert (case.challenger, case.claimant, case.challenger_won) == (*parties, has_won)
    # The court refuses a move that was made before: what was sent twice would have failed.
    moves = world.calls(place, contracts=("court",))
    assert moves == world.calls(place, only_succeeded=True, contracts=("court",))
    assert mortal.deaths >= len(moves) >= 5
    assert stakes.balance(Class.CASE, case.id) == 0
    assert stakes.total() == world.market.chain.web3.eth.get_balance(stakes.address)


def test_an_auditor_killed_at_every_write_brings_a_cheating_solver_to_court_once(world: World, tmp_path: Path) -> None:
    world.nodes = [world.node(SOLVER, [Solver()], make_bench=LazyBench), world.node(VERIFIER, [Verifier()])]
    mortal = Mortal(world, WITNESS, tmp_path / "status", lambda: Whistleblower(WhistleblowerOptions(audits=2)))
    try:
        stakes = world.market.stakes
        everyone = [world.address(each) for each in (VERIFIER, WITNESS)]
        world.play(lambda: stakes.seats(everyone[0]) == 1 and stakes.free(everyone[1]) > 0, mortal.is_idle, limit=150)
        task = world.submit()
        world.play(lambda: world.reader.view.tasks[task].state.is_over, mortal.is_idle, limit=400)
    finally:
        mortal.end()
    assert world.market.tasks.state(task) is TaskState.FAILED
    assert any(case.challenger_won for case in world.reader.view.claims.cases.values())
    # One transaction for every case it opened and every accusation it made.
    view, calls = world.reader.view, Counter(world.calls(WITNESS))
    assert calls["deposit"] == 1
    assert calls["open"] == sum(case.challenger == everyone[1] for case in view.claims.cases.values())
    accusations = [view.claims.lines[number] for number in view.tasks[task].accusations]
    assert calls["accuse"] == sum(line.claimant == everyone[1] for line in accusations)
    assert calls["accuse"] + calls["open"] > 0
    assert stakes.total() == world.market.chain.web3.eth.get_balance(stakes.address)


def _round(world: World, task: int) -> int:
    return world.reader.view.tasks[task].rounds[-1]
