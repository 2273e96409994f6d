"""Rounds of drawn verifiers: draw, commit, show, disclose, and every way out of them."""

from __future__ import annotations

from collections import Counter

import pytest
from eth_abi import encode
from eth_utils import keccak

from market_chain import Chain, RevertedError, RevmChain, address_of, artifacts
from market_world import (
    ESCROW,
    ETHER,
    FREE,
    LOCKED,
    MILLION,
    PROFILE,
    ZERO,
    Round,
    World,
    claim_tree,
    false_claim,
    named,
    populated,
)

SUBMITTER = address_of("submitter")
SOLVER = address_of("solver")


# ---- Drawing --------------------------------------------------------------------------------------------------------


def test_nothing_is_drawn_before_the_seed_is_known(world: World) -> None:
    task = world.registered()
    with pytest.raises(RevertedError, match="SeedNotKnown"):
        world.do(world.deployer, "Verification", "draw", task, 0)


def test_a_draw_is_made_once_and_pays_its_caller(world: World) -> None:
    task = world.registered()
    caller = address_of("outsider")
    round_ = world.draw(task, caller=caller)
    assert world.credit(caller) == world.parameters["drawBounty"]
    assert world.bucket(LOCKED, round_.verifier) == world.parameters["seat"]
    with pytest.raises(RevertedError, match="WrongShareState"):
        world.do(caller, "Verification", "draw", task, 0)


def test_shares_are_disjoint_and_drawn_for_different_verifiers(chain: Chain) -> None:
    world = populated(chain, verifiers=6)
    task = world.registered(verifiers=4, perVerifier=2)
    rounds = [world.draw(task, share) for share in range(4)]
    assert sorted(s for round_ in rounds for s in round_.segments) == list(range(8))
    assert len({round_.verifier for round_ in rounds}) == 4


def test_whoever_draws_first_does_not_choose_among_the_shares_segments() -> None:
    drawn = []
    for first in range(4):
        world = populated(RevmChain(artifacts()), verifiers=6)
        task = world.registered(steps=1000, verifiers=4, perVerifier=2)
        world.draw(task, first)
        drawn.append([list(world.see("Verification", "segmentsOf", task, share)) for share in range(4)])
    assert drawn[1:] == drawn[:1] * 3


def test_a_replacement_gets_the_same_segments_and_other_trace_positions(world: World) -> None:
    task = world.registered()
    first = world.draw(task)
    world.do(first.verifier, "Verification", "stepBack", first.id)
    world.chain.move(blocks=world.parameters["drawDelay"])
    event = world.do(world.deployer, "Verification", "draw", task, 0).event("Drawn")
    assert list(event["segments"]) == first.segments
    assert event["drawSeed"] != world.see("Verification", "roundOf", first.id)[2]
    assert event["verifier"] != first.verifier


def test_a_missed_seed_is_drawn_again_at_a_block_nobody_knows(world: World) -> None:
    task = world.registered()
    world.chain.move(blocks=300)
    event = world.do(world.deployer, "Verification", "draw", task, 0).event("DrawDue")
    assert event["drawBlock"] == world.next_block() - 1 + world.parameters["drawDelay"]
    assert world.credit(world.deployer) == 0
    with pytest.raises(RevertedError, match="SeedNotKnown"):
        world.do(world.deployer, "Verification", "draw", task, 0)
    world.draw(task)


def test_draws_follow_stake_and_the_snapshot(chain: Chain) -> None:
    world = populated(chain, verifiers=0)
    world.verifier("large", seats=3, amount=50 * ETHER)
    world.verifier("small", seats=1, amount=50 * ETHER)
    drawn: Counter[str] = Counter()
    for _ in range(60):
        task = world.registered()
        # A seat taken after registration is not in the snapshot.
        world.verifier(f"late {_}", seats=1, amount=ETHER)
        round_ = world.draw(task)
        world.do(address_of(f"late {_}"), "Stakes", "delist", 1)
        drawn[round_.verifier] += 1
        world.finish(round_)
        world.after_window()
        world.do(world.deployer, "Settlement", "settle", task)
        world.do(SOLVER, "Stakes", "restake", world.credit(SOLVER))
    assert set(drawn) == {address_of("large").lower(), address_of("small").lower()}
    # 45 expected of 60; six standard deviations are 20.
    assert 30 <= drawn[address_of("large").lower()] < 60


def test_who_leaves_after_registration_is_still_drawn(world: World) -> None:
    only = world.verifier("newcomer", amount=ETHER)
    for name in ("verifier 0", "verifier 1", "verifier 2"):
        world.do(address_of(name), "Stakes", "delist", 1)
    task = world.registered()
    world.do(only, "Stakes", "delist", 1)
    world.do(only, "Stakes", "leave", ETHER)
    assert world.draw(task).verifier == only.lower()
    assert world.bucket(LOCKED, only) == ETHER


def test_stake_on_its_way_out_is_locked_by_a_draw(world: World) -> None:
    only = world.verifier("newcomer", seats=2, amount=2 * ETHER)
    for name in ("verifier 0", "verifier 1", "verifier 2"):
        world.do(address_of(name), "Stakes", "delist", 1)
    first, second = world.registered(), world.registered()
    world.do(only, "Stakes", "delist", 1)
    world.do(only, "Stakes", "leave", ETHER)
    assert world.draw(first).verifier == only.lower()
    assert world.draw(second).verifier == only.lower()
    assert world.bucket(LOCKED, only) == 2 * ETHER


def test_solver_and_submitter_are_never_drawn(world: World) -> None:
    world.do(SOLVER, "Stakes", "enlist", 2, 100)
    world.verifier("submitter", seats=2, amount=20 * ETHER)
    for _ in range(3):
        task = world.registered()
        assert world.draw(task).verifier not in (SOLVER.lower(), SUBMITTER.lower())


def test_verifiers_with_too_low_limits_are_never_drawn(world: World) -> None:
    world.verifier("small", seats=10, limit=20, amount=20 * ETHER)
    task = world.registered()
    assert world.draw(task).verifier != address_of("small").lower()


# ---- Committing, showing, disclosing --------------------------------------------------------------------------------


def test_only_the_drawn_verifier_commits(world: World) -> None:
    round_ = world.draw(world.registered())
    with pytest.raises(RevertedError, match="NotTheVerifier"):
        world.do(SOLVER, "Verification", "commit", round_.id, (ZERO, ZERO, ZERO))


def test_nothing_is_shown_before_the_lottery(world: World) -> None:
    round_ = world.draw(world.registered())
    world.commit(round_)
    with pytest.raises(RevertedError, match="SeedNotKnown"):
        world.show_as(round_, round_.truth, 0)
    world.chain.move(blocks=world.parameters["joinBlocks"] - 3)
    with pytest.raises(RevertedError, match="SeedNotKnown"):
        world.show_as(round_, round_.truth, 0)


def test_not_showing_in_time_is_silence_and_no_new_lottery(world: World) -> None:
    round_ = world.draw(world.registered())
    world.commit(round_)
    world.chain.move(blocks=world.parameters["joinBlocks"] + world.parameters["showBlocks"] + 1)
    with pytest.raises(RevertedError, match="TooLate"):
        world.show_as(round_, round_.truth, 0)
    world.do(world.deployer, "Verification", "timeout", round_.id)


def test_only_committed_claims_can_be_shown(world: World) -> None:
    round_ = world.draw(world.registered())
    world.commit(round_)
    world.lottery(round_)
    with pytest.raises(RevertedError, match="NotTheCommitment"):
        world.show_as(round_, world.wrong(round_), 0)
    with pytest.raises(RevertedError, match="NotTheCommitment"):
        world.show_as(round_, round_.truth, 1)
    with pytest.raises(RevertedError, match="WrongCount"):
        world.show_as(round_, round_.truth[:1], 0)


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("exact", [True, False])
def test_the_true_claim_stands_after_disclosure(world: World, forced: bool, exact: bool) -> None:
    task = world.registered(exact)
    round_ = world.draw(task)
    world.commit_for(round_, forced)
    world.show(round_)
    assert (round_.shown[3] != 0, round_.forced) == (True, forced)
    shown_root = claim_tree(round_.segments, round_.shown_leaves).root
    assert (shown_root == world.true_root(round_)) != forced
    event = world.disclose(round_).event("Disclosed")
    assert (event["forced"], event["root"]) == (forced, world.true_root(round_))
    assert world.see("Claims", "lineOf", round_.id)[0] == world.true_root(round_)


def test_a_forced_profile_is_disclosed_like_a_replay(world: World) -> None:
    task = world.submit(SUBMITTER, world.posting(exact=False))
    round_ = world.draw(task, PROFILE)
    world.finish(round_, forced=True)
    world.after_window()
    world.do(world.deployer, "Settlement", "settleProfile", task)
    assert world.state(task) == "Open"


def test_showing_the_claim_the_lottery_did_not_choose_costs_the_seat(world: World) -> None:
    round_ = world.draw(world.registered())
    world.commit_for(round_, forced=True)
    world.lottery(round_)
    world.show_as(round_, round_.truth, round_.order)
    pool = world.pool
    event = world.disclose(round_).event("Voided")
    assert event["lost"] == world.parameters["seat"]
    assert world.pool == pool + world.parameters["seat"]
    assert world.bucket(LOCKED, round_.verifier) == 0


def test_a_false_claim_that_was_not_derived_cannot_be_disclosed(world: World) -> None:
    round_ = world.draw(world.registered())
    lie = world.wrong(round_)
    # Commit to a chosen false claim instead of the derived one, with a secret that will be forced.
    honest = World.hidden

    def chosen(self: World, subject: Round) -> tuple[bytes, bytes, bytes]:
        secret, *hidden = honest(self, subject)
        place = 1 - subject.order
        hidden[place] = keccak(
            encode(["bytes32", "bytes32"], [claim_tree(subject.segments, lie).root, self.salt(subject, place)])
        )
        return secret, hidden[0], hidden[1]

    world.hidden = chosen.__get__(world)  # type: ignore[method-assign]
    world.commit_for(round_, forced=True)
    assert world.lottery(round_)
    world.show_as(round_, lie, 1 - round_.order)
    with pytest.raises(RevertedError, match=r"WrongHash|NotDerived"):
        world.disclose(round_)
    world.chain.move(seconds=world.parameters["discloseSeconds"] + 60)
    world.do(world.deployer, "Verification", "timeout", round_.id)
    assert world.bucket(LOCKED, round_.verifier) == 0


def test_the_order_of_the_claims_is_bound_by_the_commitment(world: World) -> None:
    round_ = world.draw(world.registered())
    world.commit_for(round_, forced=False)
    world.show(round_)
    with pytest.raises(RevertedError, match="NotTheCommitment"):
        world.do(
            SOLVER,
            "Verification",
            "disclose",
            round_.id,
            round_.secret,
            1 - round_.order,
            round_.shown,
            world.derivation(round_),
        )
    # Whoever knows the secret may disclose.
    world.disclose(round_, caller=SOLVER)


def test_the_derived_false_claim_differs_in_one_trace_only(world: World) -> None:
    round_ = world.draw(world.registered())
    lie, place = false_claim(round_.truth, named("r"), round_.task, round_.id)
    assert [i for i in range(len(lie)) if lie[i] != round_.truth[i]] == [place]
    assert lie[place][:-1] == round_.truth[place][:-1]


# ---- Silence --------------------------------------------------------------------------------------------------------


def to_state(world: World, round_: Round, state: str) -> int:
    """Brings a round to a state and returns the seconds its verifier has."""
    parameters = world.parameters
    if state == "Drawn":
        return parameters["commitSeconds"]
    world.commit_for(round_, forced=False)
    if state == "Committed":
        return parameters["joinBlocks"] * 12 + parameters["showBlocks"] * 12
    world.show(round_)
    return parameters["discloseSeconds"]


@pytest.mark.parametrize("state", ["Drawn", "Committed", "Shown"])
def test_silence_in_every_state_costs_and_draws_a_replacement(world: World, state: str) -> None:
    task = world.registered()
    round_ = world.draw(task)
    seconds = to_state(world, round_, state)
    with pytest.raises(RevertedError, match="TooEarly"):
        world.do(world.deployer, "Verification", "timeout", round_.id)
    world.chain.move(blocks=seconds // 12 + 2)
    pool, free = world.pool, world.bucket(FREE, round_.verifier)
    world.do(address_of("outsider"), "Verification", "timeout", round_.id)
    lost = world.parameters["seat"] * world.parameters["silenceRate"] // MILLION
    assert world.pool == pool + lost
    assert world.bucket(FREE, round_.verifier) == free + world.parameters["seat"] - lost
    with pytest.raises(RevertedError, match="WrongRoundState"):
        world.do(address_of("outsider"), "Verification", "timeout", round_.id)
    replacement = world.draw(task, caller=address_of("outsider"))
    assert replacement.verifier != round_.verifier
    # The silent one has paid for this draw.
    assert world.credit(address_of("outsider")) == world.parameters["drawBounty"]
    world.finish(replacement)
    world.after_window()
    world.do(world.deployer, "Settlement", "settle", task)
    assert world.state(task) == "Settled"


def exhaust(world: World, task: int) -> None:
    """Every drawn verifier stays silent, until volunteers are wanted."""
    for _ in range(world.parameters["maximalReplacements"] + 1):
        round_ = world.draw(task)
        world.chain.move(seconds=world.parameters["commitSeconds"] + 60)
        world.do(world.deployer, "Verification", "timeout", round_.id)


def test_after_the_last_replacement_a_volunteer_serves(chain: Chain) -> None:
    world = populated(chain, verifiers=4)
    task = world.registered()
    exhaust(world, task)
    with pytest.raises(RevertedError, match="WrongShareState"):
        world.do(world.deployer, "Verification", "draw", task, 0)
    for unfit in (SOLVER, SUBMITTER):
        with pytest.raises(RevertedError, match="NotEligible"):
            world.do(unfit, "Verification", "volunteer", task, 0)
    volunteer = world.staked("volunteer", 2 * ETHER)
    round_ = world.round_of(world.do(volunteer, "Verification", "volunteer", task, 0).event("Drawn"))
    world.finish(round_)
    world.after_window()
    world.do(world.deployer, "Settlement", "settle", task)
    assert world.state(task) == "Settled"
    assert world.credit(volunteer) == world.posting()["verifierFee"]


def test_without_volunteers_the_task_ends_unverified_with_refund_and_stake_back(chain: Chain) -> None:
    world = populated(chain, verifiers=4)
    task = world.registered()
    stake = world.stake_of(SOLVER)
    exhaust(world, task)
    with pytest.raises(RevertedError, match="TooEarly"):
        world.do(world.deployer, "Verification", "giveUp", task, 0)
    world.chain.move(seconds=world.parameters["volunteerSeconds"] + 60)
    with pytest.raises(RevertedError, match="TooLate"):
        world.do(world.staked("volunteer"), "Verification", "volunteer", task, 0)
    escrow = world.bucket(ESCROW, task)
    world.do(world.deployer, "Verification", "giveUp", task, 0)
    assert world.state(task) == "Unverified"
    world.do(world.deployer, "Settlement", "release", task, 0)
    assert world.bucket(ESCROW, task) == 0
    assert world.credit(SUBMITTER) == escrow
    assert world.bucket(FREE, SOLVER) == stake
    with pytest.raises(RevertedError, match="WrongShareState"):
        world.do(world.deployer, "Settlement", "release", task, 0)


def test_a_volunteer_who_fails_too_ends_the_task(chain: Chain) -> None:
    world = populated(chain, verifiers=4)
    task = world.registered()
    exhaust(world, task)
    volunteer = world.staked("volunteer", 2 * ETHER)
    round_ = world.round_of(world.do(volunteer, "Verification", "volunteer", task, 0).event("Drawn"))
    world.chain.move(seconds=world.parameters["commitSeconds"] + 60)
    world.do(world.deployer, "Verification", "timeout", round_.id)
    assert world.state(task) == "Unverified"


def test_a_task_nobody_fits_ends_unverified(world: World) -> None:
    task = world.submit(SUBMITTER)
    world.take(SOLVER, task)
    for name in ("verifier 0", "verifier 1", "verifier 2"):
        # Below the limit of the share, before the snapshot; the seats stay.
        world.do(address_of(name), "Stakes", "enlist", 0, 3)
    world.register(SOLVER, task)
    for _ in range(world.parameters["maximalReplacements"] + 1):
        world.chain.move(blocks=world.parameters["drawDelay"])
        outcome = world.do(world.deployer, "Verification", "draw", task, 0)
        assert "NobodyDrawn" in [event.name for event in outcome.events]
    assert world.credit(world.deployer) == 0
    world.chain.move(seconds=world.parameters["volunteerSeconds"] + 60)
    world.do(world.deployer, "Verification", "giveUp", task, 0)
    assert world.state(task) == "Unverified"


def test_a_limit_lowered_after_the_snapshot_does_not_dodge_the_draw(world: World) -> None:
    task = world.registered()
    for name in ("verifier 0", "verifier 1", "verifier 2"):
        world.do(address_of(name), "Stakes", "enlist", 0, 3)
    world.draw(task)


# ---- Stepping back --------------------------------------------------------------------------------------------------


def charge_of(world: World, price: int) -> int:
    """What stepping back costs at a price."""
    most = world.parameters["seat"] * world.parameters["silenceRate"] // MILLION
    return min(max(world.parameters["seat"], price) * world.parameters["stepBackRate"] // MILLION, most)


def most_of(world: World, verifiers: int) -> int:
    """How many step backs end a task."""
    return max(world.parameters["maximalStepBacks"], verifiers + 2)


def price_of(world: World, task: int) -> int:
    return int(world.see("Market", "termsOf", task)[10])


def test_several_who_cannot_fetch_end_the_task_unavailable_and_the_solver_forfeits(world: World) -> None:
    task = world.registered()
    stake, escrow, price = world.stake_of(SOLVER), world.bucket(ESCROW, task), price_of(world, task)
    charge = charge_of(world, price)
    assert price > world.parameters["seat"]
    most = most_of(world, 1)
    for _ in range(most):
        round_ = world.draw(task)
        before = world.stake_of(round_.verifier)
        world.do(round_.verifier, "Verification", "stepBack", round_.id)
        assert world.stake_of(round_.verifier) == before - charge
    assert world.state(task) == "Unavailable"
    world.do(world.deployer, "Settlement", "release", task, 0)
    assert world.credit(SUBMITTER) == escrow - world.parameters["drawBounty"]
    forfeit = price * world.parameters["unavailableRate"] // MILLION
    assert forfeit > 0
    assert (world.bucket(FREE, SOLVER), world.credit(SOLVER)) == (stake - forfeit, 0)
    # The charges paid the later draws, and are otherwise the pool's, like the forfeit.
    assert world.pool == forfeit + most * charge - (most - 1) * world.parameters["drawBounty"]


def test_stepping_back_costs_a_part_of_the_price_but_never_more_than_silence(world: World) -> None:
    for price in (0, 1, ETHER, 3 * ETHER, 10 * ETHER, 1000 * ETHER):
        assert world.see("Verification", "stepBackCharge", price) == charge_of(world, price)
    silence = world.parameters["seat"] * world.parameters["silenceRate"] // MILLION
    assert world.see("Verification", "stepBackCharge", 1000 * ETHER) == silence


def test_a_forfeit_that_the_stake_does_not_cover_is_no_parameter(chain: Chain) -> None:
    with pytest.raises(RevertedError, match="OutOfRange"):
        populated(chain, unavailableRate=100_001, solverStakeRate=100_000)


def test_step_backs_count_over_all_shares_of_a_proof_and_one_hour_of_all_verifiers_ends_nothing(chain: Chain) -> None:
    world = populated(chain, verifiers=6, maximalReplacements=4)
    task = world.registered(verifiers=2)
    assert most_of(world, 2) == 4
    for share, state in ((0, "Verifying"), (1, "Verifying"), (0, "Verifying"), (1, "Unavailable")):
        round_ = world.draw(task, share)
        world.do(round_.verifier, "Verification", "stepBack", round_.id)
        assert world.state(task) == state


def test_volunteers_are_not_wanted_where_somebody_could_not_fetch(chain: Chain) -> None:
    world = populated(chain, verifiers=3, maximalReplacements=1)
    task = world.registered()
    first = world.draw(task)
    world.do(first.verifier, "Verification", "stepBack", first.id)
    second = world.draw(task)
    world.chain.move(blocks=1, seconds=world.parameters["commitSeconds"] + 3600)
    world.do(world.deployer, "Verification", "timeout", second.id)
    # A volunteer may be the one who is served.
    assert world.state(task) == "Unavailable"


def test_who_volunteers_only_to_step_back_ends_no_task_for_it(chain: Chain) -> None:
    """It would cost a part of the price, and the solver all of it and the forfeit."""
    world = populated(chain, verifiers=4, maximalVolunteers=2)
    task = world.registered()
    stake = world.stake_of(SOLVER)
    exhaust(world, task)
    spoiler, volunteer = world.staked("spoiler", 2 * ETHER), world.staked("volunteer", 2 * ETHER)
    round_ = world.round_of(world.do(spoiler, "Verification", "volunteer", task, 0).event("Drawn"))
    world.do(spoiler, "Verification", "stepBack", round_.id)
    assert world.worth(spoiler) == 2 * ETHER - charge_of(world, price_of(world, task))
    assert world.state(task) == "Verifying"
    round_ = world.round_of(world.do(volunteer, "Verification", "volunteer", task, 0).event("Drawn"))
    world.finish(round_)
    world.after_window()
    world.do(world.deployer, "Settlement", "settle", task)
    assert world.state(task) == "Settled"
    assert world.stake_of(SOLVER) == stake


def test_step_backs_count_whatever_came_in_between(chain: Chain) -> None:
    world = populated(chain, verifiers=5, maximalReplacements=4)
    task = world.registered()
    first = world.draw(task)
    world.do(first.verifier, "Verification", "stepBack", first.id)
    second = world.draw(task)
    # It could fetch, and fell silent later.
    world.commit(second)
    world.chain.move(blocks=world.parameters["joinBlocks"] + world.parameters["showBlocks"] + 2)
    world.do(world.deployer, "Verification", "timeout", second.id)
    third = world.draw(task)
    world.do(third.verifier, "Verification", "stepBack", third.id)
    assert world.state(task) == "Verifying"
    fourth = world.draw(task)
    world.do(fourth.verifier, "Verification", "stepBack", fourth.id)
    assert world.state(task) == "Unavailable"


def test_the_pool_pays_only_draws_that_somebody_was_charged_for(world: World) -> None:
    other = world.submit(SUBMITTER)
    world.take(SOLVER, other)
    world.do(SOLVER, "Market", "stepDown", other)
    assert world.pool > world.parameters["drawBounty"]
    task = world.submit(SUBMITTER)
    world.take(SOLVER, task)
    for limit in (3, 100):
        for name in ("verifier 0", "verifier 1", "verifier 2"):
            world.do(address_of(name), "Stakes", "enlist", 0, limit)
        if limit == 3:
            world.register(SOLVER, task)
            world.chain.move(blocks=world.parameters["drawDelay"] + 1)
            world.do(world.deployer, "Verification", "draw", task, 0)
    # The next attempt's snapshot is from before the limits rose again.
    world.chain.move(blocks=world.parameters["drawDelay"] + 1)
    world.do(world.deployer, "Verification", "draw", task, 0)
    pool = world.pool
    world.draw(task)
    assert (world.pool, world.credit(world.deployer)) == (pool, 0)


def test_a_jackpot_that_took_from_the_pool_what_a_step_back_paid_keeps_no_draw_back(chain: Chain) -> None:
    world = populated(chain, verifiers=4)
    task = world.registered(verifiers=2)
    working, gone = world.draw(task, 0), world.draw(task, 1)
    assert world.pool == 0
    world.do(gone.verifier, "Verification", "stepBack", gone.id)
    assert world.pool == world.parameters["drawBounty"]
    world.commit_for(working, forced=True)
    whistleblower = address_of("whistleblower 0")
    world.join(whistleblower, working)
    world.show(working)
    world.answer(whistleblower, working, world.true_root(working))
    world.reveal(whistleblower, working, world.true_root(working))
    world.disclose(working)
    pool = world.pool
    assert pool < world.parameters["drawBounty"]
    outsider = address_of("outsider")
    world.draw(task, 1, caller=outsider)
    assert (world.pool, world.credit(outsider)) == (pool, 0)


def test_the_one_who_can_work_gets_the_charges_of_those_who_could_not(world: World) -> None:
    task = world.registered()
    first = world.draw(task)
    world.do(first.verifier, "Verification", "stepBack", first.id)
    second = world.draw(task)
    world.finish(second)
    world.after_window()
    world.do(world.deployer, "Settlement", "settle", task)
    charge = charge_of(world, price_of(world, task))
    assert world.credit(second.verifier) == world.posting()["verifierFee"] + charge - world.parameters["drawBounty"]


def test_stepping_back_is_over_with_the_commitment(world: World) -> None:
    round_ = world.draw(world.registered())
    world.commit(round_)
    with pytest.raises(RevertedError, match="WrongRoundState"):
        world.do(round_.verifier, "Verification", "stepBack", round_.id)


# ---- Leaks ----------------------------------------------------------------------------------------------------------


def leak_commitment(round_: Round, bringer: str) -> bytes:
    return keccak(encode(["bytes32", "address", "uint256"], [round_.secret, bringer, round_.id]))


def test_a_leaked_secret_voids_the_round_and_pays_the_bringer(world: World) -> None:
    task = world.registered()
    round_ = world.draw(task)
    world.commit_for(round_, forced=False)
    bringer, copier = address_of("bringer"), address_of("copier")
    joined = address_of("whistleblower 0")
    before = world.stake_of(joined)
    world.join(joined, round_)
    arguments = (round_.id, round_.secret, round_.order, world.hidden(round_))
    with pytest.raises(RevertedError, match="LeakNotCommitted"):
        world.do(bringer, "Verification", "leak", *arguments)
    world.do(bringer, "Verification", "commitLeak", leak_commitment(round_, bringer))
    # Whoever copies the second step has not made the first.
    with pytest.raises(RevertedError, match="LeakNotCommitted"):
        world.do(copier, "Verification", "leak", *arguments)
    pool = world.pool
    world.do(bringer, "Verification", "leak", *arguments)
    seat = world.parameters["seat"]
    bounty = seat * world.parameters["leakRate"] // MILLION
    assert (world.credit(bringer), world.pool) == (bounty, pool + seat - bounty)
    world.collect(joined, round_)
    assert world.stake_of(joined) == before
    world.draw(task)


def test_a_secret_leaked_after_showing_counts_until_answers_close(world: World) -> None:
    round_ = world.draw(world.registered())
    world.commit_for(round_, forced=False)
    world.join(address_of("whistleblower 0"), round_)
    world.show(round_)
    bringer = address_of("bringer")
    world.do(bringer, "Verification", "commitLeak", leak_commitment(round_, bringer))
    arguments = (round_.id, round_.secret, round_.order, round_.shown)
    world.chain.move(seconds=world.parameters["answerSeconds"] + world.parameters["revealSeconds"] + 60)
    with pytest.raises(RevertedError, match="AnswersClosed"):
        world.do(bringer, "Verification", "leakShown", *arguments)
    other = world.draw(world.registered())
    world.commit_for(other, forced=False)
    world.join(address_of("whistleblower 0"), other)
    world.show(other)
    world.do(bringer, "Verification", "commitLeak", leak_commitment(other, bringer))
    world.do(bringer, "Verification", "leakShown", other.id, other.secret, other.order, other.shown)
    assert world.credit(bringer) > 0


def test_a_wrong_secret_is_no_leak(world: World) -> None:
    round_ = world.draw(world.registered())
    world.commit_for(round_, forced=False)
    hidden = world.hidden(round_)
    bringer = address_of("bringer")
    wrong = Round(**{**vars(round_), "secret": named("guess")})
    world.do(bringer, "Verification", "commitLeak", leak_commitment(wrong, bringer))
    with pytest.raises(RevertedError, match="NotTheCommitment"):
        world.do(bringer, "Verification", "leak", round_.id, wrong.secret, round_.order, hidden)


# ---- The lottery ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0, 100_000, 500_000, MILLION])
def test_the_lottery_forces_at_its_rate_over_many_seeds(chain: Chain, rate: int) -> None:
    world = World(chain, forcedRate=rate)
    tries = 2_000
    forced = sum(
        world.see("Verification", "isForced", named("secret", n % 40), named("seed", n // 40)) for n in range(tries)
    )
    deviation = (tries * rate / MILLION * (1 - rate / MILLION)) ** 0.5
    assert abs(forced - tries * rate / MILLION) <= 4 * deviation


def test_the_lottery_of_whole_rounds_follows_the_seed_of_its_block(chain: Chain) -> None:
    world = populated(chain, verifiers=3, forcedRate=500_000)
    world.staked("solver", 400 * ETHER)
    for name in ("verifier 0", "verifier 1", "verifier 2"):
        world.staked(name, 60 * ETHER)
    forced = 0
    for number in range(40):
        round_ = world.draw(world.registered())
        world.commit(round_, named("r", number))
        forced += world.lottery(round_)
        world.show_as(round_, *world.claims_of(round_))
        assert world.disclose(round_).event("Disclosed")["forced"] == round_.forced
    assert 8 <= forced <= 32  # four standard deviations around 20
