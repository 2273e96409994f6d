"""Stake in and out, the ledger, the verifiers' roll, and the count of active whistleblowers."""

from __future__ import annotations

import pytest

from market_chain import RevertedError, address_of
from market_world import CLASSES, CREDIT, ETHER, FREE, LEAVING, World


def test_deposit_adds_to_free_stake_and_to_the_total(world: World) -> None:
    before = world.total()
    actor = world.staked("newcomer", 3 * ETHER)
    assert world.bucket(FREE, actor) == 3 * ETHER
    assert world.total() == before + 3 * ETHER


def test_deposit_of_nothing_is_refused(world: World) -> None:
    with pytest.raises(RevertedError, match="NothingDeposited"):
        world.do(address_of("newcomer"), "Stakes", "deposit")


@pytest.mark.parametrize("function", ["move", "lock", "noteJoin", "enter"])
def test_only_modules_move_what_is_not_theirs(world: World, function: str) -> None:
    outsider = address_of("outsider")
    arguments = {
        "move": (FREE, int(address_of("solver"), 16), CREDIT, int(outsider, 16), 1),
        "lock": (address_of("solver"), 1),
        "noteJoin": (outsider,),
        "enter": (CREDIT, int(outsider, 16)),
    }[function]
    with pytest.raises(RevertedError, match="NotAModule"):
        world.do(outsider, "Stakes", function, *arguments)


def test_stake_leaves_only_after_the_unbonding_period(world: World) -> None:
    actor = world.staked("newcomer", 3 * ETHER)
    world.do(actor, "Stakes", "leave", 2 * ETHER)
    assert world.bucket(LEAVING, actor) == 2 * ETHER
    world.chain.move(seconds=world.parameters["unbondingSeconds"] - 60)
    with pytest.raises(RevertedError, match="StillLeaving"):
        world.do(world.deployer, "Stakes", "release", actor)
    world.chain.move(seconds=60)
    world.do(world.deployer, "Stakes", "release", actor)
    before = world.chain.balance(actor)
    assert world.do(actor, "Stakes", "withdraw").value == 2 * ETHER
    assert world.chain.balance(actor) == before + 2 * ETHER
    assert world.credit(actor) == 0


def test_withdraw_pays_once(world: World) -> None:
    actor = world.staked("newcomer", ETHER)
    world.do(actor, "Stakes", "leave", ETHER)
    world.chain.move(seconds=world.parameters["unbondingSeconds"] + 60)
    world.do(actor, "Stakes", "release", actor)
    assert world.do(actor, "Stakes", "withdraw").value == ETHER
    assert world.do(actor, "Stakes", "withdraw").value == 0


def test_restake_needs_credit(world: World) -> None:
    with pytest.raises(RevertedError, match="Insufficient"):
        world.do(address_of("solver"), "Stakes", "restake", 1)


def test_stake_behind_a_seat_does_not_leave(world: World) -> None:
    actor = world.verifier("newcomer", seats=3, amount=3 * ETHER)
    with pytest.raises(RevertedError, match="NotBacked"):
        world.do(actor, "Stakes", "leave", 1)
    world.do(actor, "Stakes", "delist", 1)
    world.do(actor, "Stakes", "leave", ETHER)


def test_every_seat_is_backed_when_it_is_taken(world: World) -> None:
    with pytest.raises(RevertedError, match="NotBacked"):
        world.verifier("newcomer", seats=4, amount=3 * ETHER)


def seats(world: World, block: int) -> list[str]:
    count = world.see("Stakes", "seatCountAt", block)
    return [world.see("Stakes", "seatOwnerAt", seat, block) for seat in range(count)]


def test_the_roll_of_a_past_block_does_not_change(world: World) -> None:
    first = world.verifier("newcomer", seats=3, amount=3 * ETHER)
    world.chain.move(blocks=1)
    block = world.next_block() - 2
    before = seats(world, block)
    assert before.count(first.lower()) == 3
    world.do(address_of("verifier 0"), "Stakes", "delist", 1)
    world.do(first, "Stakes", "delist", 2)
    world.verifier("another", seats=2)
    world.chain.move(blocks=1)
    assert seats(world, block) == before
    now = seats(world, world.next_block() - 2)
    assert now.count(first.lower()) == 1
    assert now.count(address_of("another").lower()) == 2
    assert address_of("verifier 0").lower() not in now
    assert len(now) == len(before) - 1


def test_seats_without_stake_are_pruned_by_anyone(world: World) -> None:
    actor = world.verifier("newcomer", seats=2, amount=2 * ETHER)
    with pytest.raises(RevertedError, match="StillBacked"):
        world.do(world.deployer, "Stakes", "prune", actor)
    for name in ("verifier 0", "verifier 1", "verifier 2"):
        world.do(address_of(name), "Stakes", "delist", 1)
    task = world.registered_with(actor)
    round_ = world.draw(task)
    assert round_.verifier == actor.lower()
    world.chain.move(seconds=world.parameters["commitSeconds"] + 60)
    world.do(world.deployer, "Verification", "timeout", round_.id)
    assert world.see("Stakes", "seatsOf", actor) == 2
    world.do(world.deployer, "Stakes", "prune", actor)
    assert world.see("Stakes", "seatsOf", actor) == 1


def test_limits_are_counted_by_exponent(world: World) -> None:
    world.verifier("small", limit=20)
    world.verifier("middle", limit=47)
    world.verifier("large", limit=127)
    counts = {exponent: world.see("Stakes", "eligible", exponent) for exponent in (0, 20, 21, 47, 48, 100, 101, 127)}
    assert counts == {0: 6, 20: 6, 21: 5, 47: 5, 48: 4, 100: 4, 101: 1, 127: 1}
    with pytest.raises(RevertedError, match="LimitOutOfRange"):
        world.do(address_of("small"), "Stakes", "enlist", 0, 128)
    world.do(address_of("small"), "Stakes", "delist", 1)
    assert world.see("Stakes", "eligible", 0) == 5


def test_active_whistleblowers_are_those_who_joined_lately(world: World) -> None:
    task = world.registered()
    round_ = world.draw(task)
    world.commit(round_)
    assert world.see("Stakes", "active") == 0
    world.join(address_of("whistleblower 0"), round_)
    world.join(address_of("whistleblower 1"), round_)
    assert world.see("Stakes", "active") == 2
    world.chain.move(blocks=world.parameters["activeBlocks"] // 2)
    assert world.see("Stakes", "active") == 2
    world.chain.move(blocks=world.parameters["activeBlocks"])
    assert world.see("Stakes", "active") == 0


def test_the_total_is_the_sum_of_the_classes_and_covered_by_the_balance(world: World) -> None:
    task = world.registered()
    world.draw(task)
    assert world.total() == sum(world.see("Stakes", "totalOf", kind) for kind in range(len(CLASSES)))
    assert world.chain.balance(world.chain.addresses["Stakes"]) == world.total()  # type: ignore[attr-defined]
