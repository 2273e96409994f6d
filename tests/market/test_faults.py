"""Roles whose endpoint, store or disk fails: their task is completed, nothing is done twice, nothing is lost."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faulty_ipfs import Daemon
from faulty_rpc import Proxy
from full_disk import no_room
from tiny_market import SOLVER, VERIFIER, WITNESS, World

from assay.market.types import Fault, RoundState, TaskState
from assay.roles.context import Player
from assay.roles.jobs import Jobs
from assay.roles.solver import Solver
from assay.roles.verifier import Verifier, VerifierOptions
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions
from assay.storage.ipfs import IpfsStore

pytestmark = pytest.mark.slow

MAKERS: dict[int, Callable[[], Player]] = {
    SOLVER: Solver,
    VERIFIER: Verifier,
    WITNESS: lambda: Whistleblower(WhistleblowerOptions(audits=0)),
}
ONCE = {
    SOLVER: ("deposit", "take", "register"),
    VERIFIER: ("deposit", "enlist", "commit", "showReplay", "disclose"),
    WITNESS: ("deposit", "join", "commitAnswer", "revealAnswer", "collect"),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions are asked again at once."""
    monkeypatch.setattr("assay.chain.rpc.time.sleep", lambda seconds: None)
    logging.getLogger("assay").setLevel(logging.CRITICAL)


def gather(world: World, **changes: Any) -> None:
    world.nodes = [world.node(place, [make()], **changes) for place, make in MAKERS.items()]
    for node in world.nodes:
        node.jobs = Jobs(first_pause=0.02, longest_pause=0.1)


def ready(world: World) -> bool:
    stakes = world.market.stakes
    return stakes.seats(world.address(VERIFIER)) == 1 and stakes.free(world.address(WITNESS)) > 0


def play_task(world: World, during: Callable[[], None] = lambda: None) -> None:
    """A task from its submission until the last bond is collected."""
    world.play(lambda: ready(world), outlast=True, limit=200)
    task = world.submit()

    def is_over() -> bool:
        during()
        view = world.reader.view
        return view.tasks[task].state.is_over and not any(
            view.rounds_holding(world.address(place)) for place in (VERIFIER, WITNESS)
        )

    world.play(is_over, outlast=True, limit=300)
    assert world.market.tasks.state(task) is TaskState.SETTLED
    for place, functions in ONCE.items():
        calls = Counter(world.calls(place, only_succeeded=True))
        assert {name: calls[name] for name in functions} == dict.fromkeys(functions, 1)
        assert world.market.stakes.locked(world.address(place)) == 0
    stakes = world.market.stakes
    assert stakes.total() == world.market.chain.web3.eth.get_balance(stakes.address)


@pytest.mark.parametrize(
    "fault",
    [
        {"chance": 0.1, "faults": ("drop", "lost", "429", "503", "rate", "cut", "page", "list", "reorder")},
        {"lag": 2},
    ],
    ids=["drops, errs, reorders", "lags"],
)
def test_roles_behind_a_faulty_endpoint_complete_their_task(world: World, fault: dict[str, Any]) -> None:
    proxy = Proxy(world.local.chain.url, **fault)
    try:
        gather(world, url=proxy.url)
        play_task(world)
        assert proxy.happened or proxy.lag
    finally:
        proxy.close()


def test_roles_on_a_chain_that_rolls_blocks_back_complete_their_task(world: World) -> None:
    gather(world)
    heads: list[int] = []
    rolled: list[int] = []
    depth = 2

    def roll_back() -> None:
        head = world.market.chain.web3.eth.block_number
        if not heads:  # the task's own block stays: its submitter is no role here
            heads.append(head)
        if head - heads[-1] >= 5 and len(rolled) < 8:
            answer = world.market.chain.web3.provider.make_request("anvil_reorg", [depth, []])  # type: ignore[arg-type,list-item]
            assert "error" not in answer, answer
            rolled.append(head)
        if head - heads[-1] >= 5:
            heads.append(head)

    play_task(world, roll_back)
    assert len(rolled) >= 4


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    daemon = Daemon(pause=1.0)
    yield daemon
    daemon.close()


def test_roles_with_a_store_that_stalls_truncates_and_serves_other_bytes_complete_their_task(
    world: World, daemon: Daemon
) -> None:
    store = IpfsStore(daemon.address, timeout=0.3)
    world.store = store
    gather(world, stores=(store,))
    daemon.modes[:] = ["honest", "stall", "cut", "honest", "other"] * 3
    play_task(world)
    assert not daemon.modes


def test_roles_take_the_file_from_a_second_place_where_the_first_serves_other_bytes(
    world: World, daemon: Daemon
) -> None:
    lying = Daemon(always="other")
    lying.contents = daemon.contents
    try:
        good, bad = IpfsStore(daemon.address), IpfsStore(lying.address)
        world.store = good
        gather(world, stores=(bad, good))
        play_task(world)
        assert lying.offsets
    finally:
        lying.close()


def test_a_verifier_whose_store_fails_for_good_steps_back_for_a_small_charge(world: World, daemon: Daemon) -> None:
    dead = Daemon(always="error")
    dead.contents = daemon.contents
    try:
        world.store = IpfsStore(daemon.address)
        gather(world, stores=(world.store,))
        patient = VerifierOptions(fetch_attempts=2)
        world.nodes[1].state.close()
        world.nodes[1] = world.node(VERIFIER, [Verifier(patient)], stores=(IpfsStore(dead.address),))
        world.nodes[1].jobs = Jobs(first_pause=0.02)
        world.play(lambda: ready(world), outlast=True)
        task = world.submit()

        def is_void() -> bool:
            return any(found.state is RoundState.VOID for found in world.reader.view.rounds_of(task))

        world.play(is_void, outlast=True, limit=200)
        (found,) = world.reader.view.rounds_of(task)
        assert (found.verifier, found.fault) == (world.address(VERIFIER), Fault.STEPPED_BACK)
        parameters, stakes = world.market.parameters, world.market.stakes
        charge = parameters.seat * parameters.step_back_rate // 10**6
        assert stakes.free(found.verifier) + stakes.locked(found.verifier) >= parameters.seat - charge
        assert stakes.locked(world.address(SOLVER)) > 0  # it still answers for its proof
        assert world.market.tasks.state(task) is TaskState.VERIFYING
    finally:
        dead.close()


def test_roles_on_a_full_disk_wait_and_complete_their_task(world: World) -> None:
    gather(world)
    seen: set[TaskState | RoundState] = set()
    refused = []

    def fill() -> None:
        """The disk is full for a while whenever the task has come further."""
        view = world.reader.view
        states = {task.state for task in view.tasks.values()} | {found.state for found in view.rounds.values()}
        if states <= seen:
            return
        seen.update(states)
        with no_room():
            for _ in range(4):
                refused.extend(node for node in world.nodes if node.step() is None)

    play_task(world, fill)
    assert refused
