"""The life of a task up to its proof: posting, auction, stepping down, lateness, registration, base tasks."""

from __future__ import annotations

from typing import Any

import pytest

from market_chain import RevertedError, address_of
from market_world import ESCROW, ETHER, FREE, LOCKED, MILLION, ONE_BITS, Tree, World, header, named

SUBMITTER = address_of("submitter")
SOLVER = address_of("solver")


# ---- Submitting -----------------------------------------------------------------------------------------------------


def test_submit_escrows_everything_the_task_may_cost(world: World) -> None:
    posting = world.posting(exact=False, verifiers=2)
    task = world.submit(SUBMITTER, posting)
    parameters = world.parameters
    fees = 2 * posting["verifierFee"] + posting["profilerFee"]
    tax = posting["highestReward"] * parameters["taxRate"] // MILLION // 3 * 3
    assert world.bucket(ESCROW, task) == posting["highestReward"] + fees + tax + 3 * parameters["drawBounty"]
    assert world.state(task) == "Profiling"


@pytest.mark.parametrize("difference", [-1, 1])
def test_submit_takes_exactly_the_escrow(world: World, difference: int) -> None:
    values = tuple(world.posting().values())
    escrow = world.see("Market", "escrowOf", values)
    with pytest.raises(RevertedError, match="WrongValue"):
        world.submit(SUBMITTER, world.posting(), escrow + difference)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"steps": 0}, "OutOfRange"),
        ({"interval": 0}, "OutOfRange"),
        ({"interval": 81}, "OutOfRange"),
        ({"verifiers": 0}, "OutOfRange"),
        ({"verifiers": 9}, "OutOfRange"),
        ({"perVerifier": 0}, "OutOfRange"),
        ({"verifiers": 5}, "OutOfRange"),  # five shares of two are more than eight segments
        ({"verifierFee": 1}, "OutOfRange"),
        ({"lowestReward": 11 * ETHER}, "OutOfRange"),
        ({"trainSeconds": 3600}, "OutOfRange"),
        ({"profileSegments": 1}, "OutOfRange"),
        ({"header": header(True)[:-1]}, "WrongHeader"),
        ({"header": header(True) + b"\0"}, "WrongHeader"),
        ({"header": header(False)}, "WrongHeader"),
        ({"header": header(True, states=0)}, "OutOfRange"),
        ({"header": b"\0\2" + header(True)[2:]}, "WrongVersion"),
        ({"header": header(True, work=2**100)}, "OutOfRange"),
        ({"baseTask": 1}, "NotAProvenBase"),
    ],
)
def test_malformed_tasks_are_refused(world: World, changes: dict[str, Any], error: str) -> None:
    posting = world.posting(**changes)
    with pytest.raises(RevertedError) as failure:
        world.submit(SUBMITTER, posting, 20 * ETHER)
    # Arithmetic of the escrow is not reached.
    assert failure.value.name in (error, "Panic") if changes.get("interval") == 0 else failure.value.name == error


def test_ids_of_equal_postings_differ(world: World) -> None:
    first, second = world.submit(SUBMITTER), world.submit(SUBMITTER)
    third = world.submit(address_of("another submitter"))
    assert len({first, second, third}) == 3


# ---- The auction ----------------------------------------------------------------------------------------------------


def test_the_price_rises_from_lowest_to_highest_and_stays(world: World) -> None:
    posting = world.posting()
    task = world.submit(SUBMITTER, posting)
    prices = []
    for _ in range(4):
        prices.append(world.see("Market", "priceOf", task))
        world.chain.move(seconds=posting["auctionSeconds"] // 2)
    assert posting["lowestReward"] == prices[0] < prices[1] < prices[2] == prices[3] == posting["highestReward"]
    middle = (posting["lowestReward"] + posting["highestReward"]) // 2
    assert prices[1] == middle


def test_take_fixes_the_price_and_locks_the_stake(world: World) -> None:
    task = world.submit(SUBMITTER)
    world.chain.move(seconds=1800)
    stake = world.see("Market", "stakeOf", task)
    event = world.do(SOLVER, "Market", "take", task, 7 * ETHER).event("Taken")
    assert event["price"] >= 7 * ETHER
    assert world.bucket(LOCKED, SOLVER) == stake == event["stake"]
    assert stake == 2 * ETHER + ETHER + ETHER // 5


def test_take_needs_the_price_the_solver_asks_for(world: World) -> None:
    task = world.submit(SUBMITTER)
    with pytest.raises(RevertedError, match="PriceTooLow"):
        world.do(SOLVER, "Market", "take", task, 9 * ETHER)


def test_take_needs_stake(world: World) -> None:
    task = world.submit(SUBMITTER)
    poor = world.staked("poor solver", ETHER)
    with pytest.raises(RevertedError, match="StakeTooLow"):
        world.take(poor, task)


def test_a_task_is_taken_once(world: World) -> None:
    task = world.submit(SUBMITTER)
    world.take(SOLVER, task)
    with pytest.raises(RevertedError, match="WrongState"):
        world.take(world.staked("second solver"), task)


def test_a_submitter_cannot_take_its_own_task(world: World) -> None:
    task = world.submit(SUBMITTER)
    world.staked("submitter")
    with pytest.raises(RevertedError, match="OwnTask"):
        world.take(SUBMITTER, task)


def test_take_needs_eligible_verifiers_beside_solver_and_submitter(world: World) -> None:
    task = world.submit(SUBMITTER, world.posting(verifiers=3))
    for verifier in ("verifier 0", "verifier 1"):
        world.do(address_of(verifier), "Stakes", "delist", 1)
    with pytest.raises(RevertedError, match="TooFewVerifiers"):
        world.take(SOLVER, task)
    # Seats of solver and submitter, and of verifiers too small for the share, do not count.
    world.do(SOLVER, "Stakes", "enlist", 2, 100)
    world.verifier("submitter")
    world.verifier("small verifier", limit=5)
    world.do(address_of("verifier 0"), "Stakes", "enlist", 1, 100)
    with pytest.raises(RevertedError) as failure:
        world.take(SOLVER, task)
    # Verifiers 0 and 2 are eligible.
    assert (failure.value.name, failure.value.values) == ("TooFewVerifiers", (2, 3))
    world.do(address_of("verifier 0"), "Stakes", "delist", 1)
    for verifier in ("verifier 0", "verifier 1"):
        world.do(address_of(verifier), "Stakes", "enlist", 1, 100)
    world.take(SOLVER, task)


def test_a_tolerant_task_is_open_only_after_its_profile(world: World) -> None:
    task = world.submit(SUBMITTER, world.posting(exact=False))
    with pytest.raises(RevertedError, match="WrongState"):
        world.take(SOLVER, task)
    world.profiled(task)
    assert world.state(task) == "Open"
    assert world.see("Market", "taskOf", task)[-1] == named("thresholds", 1)
    world.take(SOLVER, task)


def test_nobody_takes_the_task_and_anyone_ends_it(world: World) -> None:
    posting = world.posting()
    task = world.submit(SUBMITTER, posting)
    world.chain.move(seconds=posting["auctionSeconds"] + world.parameters["holdSeconds"] - 600)
    with pytest.raises(RevertedError, match="NotLate"):
        world.do(world.deployer, "Market", "expire", task)
    world.chain.move(seconds=1200)
    with pytest.raises(RevertedError, match="AuctionOver"):
        world.take(SOLVER, task)
    escrow = world.bucket(ESCROW, task)
    world.do(world.deployer, "Market", "expire", task)
    assert (world.state(task), world.credit(SUBMITTER), world.bucket(ESCROW, task)) == ("Cancelled", escrow, 0)


def test_the_submitter_cancels_only_an_open_task(world: World) -> None:
    task = world.submit(SUBMITTER)
    with pytest.raises(RevertedError, match="NotTheSubmitter"):
        world.do(SOLVER, "Market", "cancel", task)
    escrow = world.bucket(ESCROW, task)
    world.do(SUBMITTER, "Market", "cancel", task)
    assert (world.state(task), world.credit(SUBMITTER)) == ("Cancelled", escrow)
    other = world.submit(SUBMITTER)
    world.take(SOLVER, other)
    with pytest.raises(RevertedError, match="WrongState"):
        world.do(SUBMITTER, "Market", "cancel", other)


# ---- Stepping down and lateness -------------------------------------------------------------------------------------


def test_stepping_down_costs_the_fixed_forfeit_and_opens_the_task_at_the_taken_price(world: World) -> None:
    task = world.submit(SUBMITTER)
    world.take(SOLVER, task)
    price, stake = world.see("Market", "taskOf", task)[14], world.see("Market", "stakeOf", task)
    pool, free = world.pool, world.bucket(FREE, SOLVER)
    world.do(SOLVER, "Market", "stepDown", task)
    forfeit = stake * world.parameters["stepDownRate"] // MILLION
    assert world.pool == pool + forfeit
    assert world.bucket(FREE, SOLVER) == free + stake - forfeit
    assert world.bucket(LOCKED, SOLVER) == 0
    assert world.state(task) == "Open"
    world.chain.move(seconds=1800)
    assert world.see("Market", "priceOf", task) == price


def test_late_solvers_forfeit_by_the_time_they_held_the_task(world: World) -> None:
    posting = world.posting()
    forfeits = []
    for extra in (60, posting["trainSeconds"]):
        task = world.submit(SUBMITTER, posting)
        world.take(SOLVER, task)
        stake, pool = world.see("Market", "stakeOf", task), world.pool
        world.chain.move(seconds=posting["trainSeconds"] - 60)
        with pytest.raises(RevertedError, match="NotLate"):
            world.do(world.deployer, "Market", "late", task)
        world.chain.move(seconds=60 + extra)
        with pytest.raises(RevertedError, match="TooLate"):
            world.do(SOLVER, "Market", "stepDown", task)
        world.do(world.deployer, "Market", "late", task)
        forfeits.append((world.pool - pool) / stake)
    assert 0.30 < forfeits[0] < 0.31
    assert 0.50 < forfeits[1] < 0.52


def test_a_task_opens_again_only_so_often(world: World) -> None:
    task = world.submit(SUBMITTER)
    for _ in range(world.parameters["maximalRelists"]):
        world.take(SOLVER, task)
        world.do(SOLVER, "Market", "stepDown", task)
        assert world.state(task) == "Open"
    world.take(SOLVER, task)
    escrow = world.bucket(ESCROW, task)
    world.do(SOLVER, "Market", "stepDown", task)
    assert (world.state(task), world.credit(SUBMITTER)) == ("Cancelled", escrow)


# ---- Registering ----------------------------------------------------------------------------------------------------


def test_register_binds_the_first_checkpoint_to_the_initial_state(world: World) -> None:
    task = world.submit(SUBMITTER)
    world.take(SOLVER, task)
    states = world.states_of(task)
    tree = Tree([named("a trained model"), *states[1:]])
    with pytest.raises(RevertedError, match="WrongHash"):
        world.do(SOLVER, "Market", "register", task, tree.root, states[-1], tree.proof(0), tree.proof(8), "")
    tree = Tree(states)
    with pytest.raises(RevertedError, match="WrongHash"):
        world.do(SOLVER, "Market", "register", task, tree.root, states[3], tree.proof(0), tree.proof(3), "")
    with pytest.raises(RevertedError, match="WrongLength"):
        world.do(SOLVER, "Market", "register", task, tree.root, states[-1], tree.proof(0)[:-1], tree.proof(8), "")
    world.register(SOLVER, task)
    assert world.state(task) == "Verifying"


def test_only_the_solver_registers_once_and_in_time(world: World) -> None:
    task = world.submit(SUBMITTER)
    world.take(SOLVER, task)
    with pytest.raises(RevertedError, match="NotTheSolver"):
        world.register(address_of("outsider"), task)
    world.register(SOLVER, task)
    with pytest.raises(RevertedError, match="WrongState"):
        world.register(SOLVER, task)
    late = world.submit(SUBMITTER)
    world.take(SOLVER, late)
    world.chain.move(seconds=world.posting()["trainSeconds"] + 60)
    with pytest.raises(RevertedError, match="TooLate"):
        world.register(SOLVER, late)


# ---- Stacking -------------------------------------------------------------------------------------------------------


def test_a_task_starts_from_the_final_state_of_a_settled_one_only(world: World) -> None:
    base = world.registered()
    final = world.states_of(base)[-1]
    with pytest.raises(RevertedError, match="NotAProvenBase"):
        world.submit(SUBMITTER, world.posting(baseTask=base, initialRoot=final), 20 * ETHER)
    round_ = world.draw(base)
    world.finish(round_)
    world.after_window()
    world.do(world.deployer, "Settlement", "settle", base)
    assert world.state(base) == "Settled"
    with pytest.raises(RevertedError, match="NotAProvenBase"):
        world.submit(SUBMITTER, world.posting(baseTask=base, initialRoot=named("another")), 20 * ETHER)
    world.submit(SUBMITTER, world.posting(baseTask=base, initialRoot=final))


@pytest.mark.parametrize("function", ["open", "settled", "failed", "abandoned", "refused", "refuted", "chargeSolver"])
def test_only_modules_end_a_task(world: World, function: str) -> None:
    task = world.registered()
    arguments: tuple[Any, ...] = {
        "open": (task, named("x")),
        "settled": (task,),
        "failed": (task, SUBMITTER),
        "abandoned": (task, True),
        "refused": (task,),
        "refuted": (task, SUBMITTER),
        "chargeSolver": (task, ONE_BITS),
    }[function]
    with pytest.raises(RevertedError, match="NotAModule"):
        world.do(SUBMITTER, "Market", function, *arguments)
