"""Claims before the court: cases side by side, answers that take a claim's place, accusations, training claims."""

from __future__ import annotations

import pytest

from market_chain import RevertedError, address_of
from market_world import CASE, ETHER, LOCKED, MILLION, PROFILE, ZERO, Round, Tree, World, claim_tree, named

SUBMITTER = address_of("submitter")
SOLVER = address_of("solver")
CHALLENGER = address_of("challenger")
SECOND = address_of("second challenger")


def disclosed(world: World, exact: bool = False, cheat: int | None = None, failing: bool = False) -> Round:
    round_ = world.draw(world.registered(exact, cheat), failing=failing)
    world.finish(round_)
    return round_


def lying(world: World, exact: bool = False, failing: bool = False) -> tuple[Round, list[object]]:
    """A round whose verifier claims something wrong; returns it and the truth."""
    round_ = world.draw(world.registered(exact))
    truth = round_.truth
    round_.truth = world.wrong(round_, "lie", failing)
    world.finish(round_)
    return round_, truth


# ---- Cases ----------------------------------------------------------------------------------------------------------


def test_a_case_needs_the_court_the_bond_and_a_published_answer(world: World) -> None:
    round_ = disclosed(world)
    claim = world.publish(CHALLENGER, round_, world.wrong(round_))
    root = claim_tree(round_.segments, world.wrong(round_)).root
    with pytest.raises(RevertedError, match="NotAModule"):
        world.do(CHALLENGER, "Claims", "caseOpened", 1, claim, CHALLENGER, root, value=world.parameters["caseBond"])
    with pytest.raises(RevertedError, match="WrongValue"):
        world.do(CHALLENGER, "HarnessCourt", "open", claim, root, value=1)
    with pytest.raises(RevertedError, match="NotPublished"):
        world.open_case(CHALLENGER, claim, named("not published"))
    with pytest.raises(RevertedError, match="NothingToDecide"):
        world.open_case(CHALLENGER, claim, world.true_root(round_))
    with pytest.raises(RevertedError, match="NoSuchClaim"):
        world.open_case(CHALLENGER, claim + 1, root)
    world.open_case(CHALLENGER, claim, root)


def test_the_court_sees_the_claim_as_the_format_says(world: World) -> None:
    round_ = disclosed(world)
    claim_id = world.publish(CHALLENGER, round_, world.wrong(round_))
    claim = world.see("Claims", "claim", claim_id)
    task = world.see("Market", "taskOf", round_.task)
    on_chain = world.see("Verification", "roundOf", round_.id)
    assert claim == (
        0,
        round_.verifier,
        world.true_root(round_),
        2,
        task[22],
        task[23],
        task[24],
        task[25],
        named("thresholds", 1),
        8,
        10,
        80,
        7,
        on_chain[2],
        False,
    )
    assert [world.see("Claims", "segmentOf", claim_id, leaf) for leaf in range(2)] == round_.segments


def test_a_lost_case_costs_the_bond_and_the_claim_stands(world: World) -> None:
    round_ = disclosed(world)
    case, claim = world.challenge(CHALLENGER, round_, world.wrong(round_))
    world.after_window()
    with pytest.raises(RevertedError, match="NotStanding"):
        world.do(world.deployer, "Settlement", "settle", round_.task)
    pool, bond = world.pool, world.parameters["caseBond"]
    world.close(case, claim, won=False)
    assert world.credit(round_.verifier) == bond // 2
    assert world.pool == pool + bond - bond // 2
    assert world.credit(CHALLENGER) == 0
    world.do(world.deployer, "Settlement", "settle", round_.task)
    assert world.state(round_.task) == "Settled"


def test_a_case_is_closed_once(world: World) -> None:
    round_ = disclosed(world)
    case, claim = world.challenge(CHALLENGER, round_, world.wrong(round_))
    world.close(case, claim, won=False)
    for won in (False, True):
        with pytest.raises(RevertedError, match="NoOpenCase"):
            world.close(case, claim, won)


def test_no_case_after_the_window(world: World) -> None:
    round_ = disclosed(world)
    claim = world.publish(CHALLENGER, round_, world.wrong(round_))
    world.after_window()
    with pytest.raises(RevertedError, match="WindowOver"):
        world.open_case(CHALLENGER, claim, claim_tree(round_.segments, world.wrong(round_)).root)


def test_the_answer_that_felled_a_claim_takes_its_place_with_a_window_of_its_own(world: World) -> None:
    round_, truth = lying(world)
    case, claim = world.challenge(CHALLENGER, round_, truth)
    world.after_window()
    world.close(case, claim, won=True)
    line = world.see("Claims", "lineOf", round_.id)
    assert line[0] == claim_tree(round_.segments, truth).root
    assert line[1] == CHALLENGER.lower()
    with pytest.raises(RevertedError, match="NotStanding"):
        world.do(world.deployer, "Settlement", "settle", round_.task)
    world.publish(SECOND, round_, truth)
    with pytest.raises(RevertedError, match="NotTheCurrentClaim"):
        world.open_case(SECOND, claim, claim_tree(round_.segments, truth).root)
    world.after_window()
    pool, seat = world.pool, world.parameters["seat"]
    world.do(world.deployer, "Settlement", "settle", round_.task)
    found = seat * world.parameters["finderRate"] // MILLION
    assert world.state(round_.task) == "Settled"
    # Its bond back and the finders' part of the fallen verifier's stake.
    assert world.credit(CHALLENGER) == world.parameters["caseBond"] + found
    assert world.bucket(LOCKED, round_.verifier) == 0
    assert world.pool == pool + seat - found + world.see("Market", "taxOf", round_.task)


def test_a_wrong_answer_that_felled_a_wrong_claim_falls_in_turn(world: World) -> None:
    round_, truth = lying(world)
    case, claim = world.challenge(CHALLENGER, round_, world.wrong(round_, "another lie"))
    world.close(case, claim, won=True)
    round_.truth = truth
    pool = world.pool
    case, claim = world.challenge(SECOND, round_, truth)
    world.close(case, claim, won=True)
    bond = world.parameters["caseBond"]
    assert world.credit(SECOND) == bond // 2
    assert world.pool == pool + bond - bond // 2
    world.after_window()
    world.do(world.deployer, "Settlement", "settle", round_.task)
    assert world.credit(CHALLENGER) == 0
    found = world.parameters["seat"] * world.parameters["finderRate"] // MILLION
    assert world.credit(SECOND) == bond // 2 + bond + found


def test_a_case_it_won_protects_a_claim_from_nobody(world: World) -> None:
    """A sybil loses a case on purpose; the honest case beside it goes on and fells the claim."""
    round_, truth = lying(world)
    sybil, claim = world.challenge(SECOND, round_, world.wrong(round_, "sybil"))
    honest, _ = world.challenge(CHALLENGER, round_, truth)
    world.close(sybil, claim, won=False)
    assert world.see("Claims", "lineOf", round_.id)[1] == round_.verifier
    world.close(honest, claim, won=True)
    assert world.see("Claims", "lineOf", round_.id)[1] == CHALLENGER.lower()


def test_a_case_on_a_claim_that_fell_meanwhile_ends_with_the_bond_back(world: World) -> None:
    round_, truth = lying(world)
    first, claim = world.challenge(CHALLENGER, round_, truth)
    second, _ = world.challenge(SECOND, round_, world.wrong(round_, "also different"))
    world.close(first, claim, won=True)
    root = world.see("Claims", "lineOf", round_.id)[0]
    world.close(second, claim, won=True)
    assert world.credit(SECOND) == world.parameters["caseBond"]
    assert world.see("Claims", "lineOf", round_.id)[0] == root


@pytest.mark.parametrize("overshoot", [ETHER // 50, -ETHER // 50, 10 * ETHER, -10 * ETHER])
def test_clock_extensions_are_charged_to_whoever_used_them(world: World, overshoot: int) -> None:
    round_ = disclosed(world)
    case, claim = world.challenge(CHALLENGER, round_, world.wrong(round_))
    pool, stake = world.pool, world.stake_of(round_.verifier)
    world.close(case, claim, won=False, overshoot=overshoot)
    bond, seat = world.parameters["caseBond"], world.parameters["seat"]
    if overshoot > 0:
        rest = bond - min(overshoot, bond)
        assert world.credit(round_.verifier) == rest // 2
        assert world.pool == pool + bond - rest // 2
    else:
        charge = min(-overshoot, seat)
        assert world.stake_of(round_.verifier) == stake - charge
        assert world.pool == pool + charge + bond - bond // 2
    world.after_window()
    world.do(world.deployer, "Settlement", "settle", round_.task)
    assert world.bucket(LOCKED, round_.verifier) == 0


def test_a_fallen_profile_is_replaced_by_the_answer_and_its_thresholds(world: World) -> None:
    task = world.submit(SUBMITTER, world.posting(exact=False))
    round_ = world.draw(task, PROFILE)
    truth = round_.truth
    round_.truth = [(*leaf[:2], named("loose"), *leaf[3:]) for leaf in truth]
    world.finish(round_)
    case, claim = world.challenge(CHALLENGER, round_, truth)
    assert world.see("Claims", "claim", claim)[0] == 1
    world.close(case, claim, won=True)
    world.after_window()
    world.do(world.deployer, "Settlement", "settleProfile", task)
    assert world.see("Market", "taskOf", task)[-1] == named("thresholds", 1)
    assert world.bucket(LOCKED, round_.verifier) == 0


# ---- Training claims ------------------------------------------------------------------------------------------------


def test_in_exact_mode_anyone_disputes_the_registered_root(world: World) -> None:
    task = world.registered(exact=True)
    claim = world.do(CHALLENGER, "Claims", "publishTraining", task).value
    seen = world.see("Claims", "claim", claim)
    assert (seen[0], seen[1], seen[2], seen[3]) == (2, SOLVER.lower(), world.checkpoints[task].root, 9)
    with pytest.raises(RevertedError, match="NothingToDecide"):
        world.open_case(CHALLENGER, claim, named("root"))
    case = world.open_case(CHALLENGER, claim, ZERO)
    stake = world.see("Market", "stakeOf", task)
    world.close(case, claim, won=True)
    assert world.state(task) == "Failed"
    fee = world.posting()["verifierFee"]
    share = (stake - fee) * world.parameters["finderRate"] // MILLION
    assert world.credit(CHALLENGER) == world.parameters["caseBond"] + share
    world.do(world.deployer, "Settlement", "release", task, 0)
    assert world.pool == stake - share


def test_a_lost_case_on_a_training_claim_pays_the_solver_and_delays_settlement_only(world: World) -> None:
    task = world.registered(exact=True)
    claim = world.do(CHALLENGER, "Claims", "publishTraining", task).value
    case = world.open_case(CHALLENGER, claim, ZERO)
    world.finish(world.draw(task))
    world.after_window()
    with pytest.raises(RevertedError, match="StillPending"):
        world.do(world.deployer, "Settlement", "settle", task)
    with pytest.raises(RevertedError, match="NotChallengeable"):
        world.open_case(SECOND, claim, ZERO)
    world.close(case, claim, won=False, overshoot=-10 * ETHER)
    assert world.credit(SOLVER) == world.parameters["caseBond"] // 2
    assert world.see("Market", "chargeOf", task) == world.parameters["solverStakeFloor"]
    world.do(world.deployer, "Settlement", "settle", task)
    assert world.state(task) == "Settled"
    assert world.bucket(LOCKED, SOLVER) == 0


def test_charges_of_several_cases_take_no_more_than_the_floor_of_the_solvers_stake(world: World) -> None:
    task = world.registered(exact=True)
    claim = world.do(CHALLENGER, "Claims", "publishTraining", task).value
    floor, stake = world.parameters["solverStakeFloor"], world.see("Market", "stakeOf", task)
    charges = [floor // 2, 1, floor, 5]
    charged = 0
    for charge in charges:
        case = world.open_case(CHALLENGER, claim, ZERO)
        pool, locked = world.pool, world.bucket(LOCKED, SOLVER)
        world.close(case, claim, won=False, overshoot=-charge)
        taken = min(charge, floor - charged)
        charged += taken
        bond = world.parameters["caseBond"]
        assert world.see("Market", "chargeOf", task) == charged
        assert world.bucket(LOCKED, SOLVER) == locked - taken
        assert world.pool == pool + taken + bond - bond // 2
    assert charged == floor
    # What is left pays every fee due, and whoever finds the fault.
    case = world.open_case(CHALLENGER, claim, ZERO)
    before = world.credit(CHALLENGER)
    world.close(case, claim, won=True)
    fee = world.posting()["verifierFee"]
    found = (stake - floor - fee) * world.parameters["finderRate"] // MILLION
    assert world.credit(CHALLENGER) - before == world.parameters["caseBond"] + found
    assert world.bucket(LOCKED, SOLVER) == 0


def test_training_claims_exist_in_exact_mode_only(world: World) -> None:
    with pytest.raises(RevertedError, match="WrongMode"):
        world.do(CHALLENGER, "Claims", "publishTraining", world.registered(exact=False))


# ---- Accusations ----------------------------------------------------------------------------------------------------


def undrawn(round_: Round) -> int:
    return next(segment for segment in range(8) if segment not in round_.segments)


def accuse(world: World, round_: Round, accuser: str = CHALLENGER, distance: int = 0x40000000) -> int:
    leaf = (named("accused end"), distance, named("accused trace", accuser))
    bond = world.parameters["accusationBond"]
    segment = undrawn(round_)
    openings = world.openings(round_.task, [segment])
    return int(world.do(accuser, "Claims", "accuse", round_.task, segment, [leaf], openings, value=bond).value)


def test_a_copied_accusation_that_is_closed_first_takes_the_finders_part_and_no_bond(world: World) -> None:
    """A bound: nothing ties what an accusation says to who says it."""
    round_ = disclosed(world)
    segment = undrawn(round_)
    leaf = (named("end"), 0x40000000, named("trace"))
    arguments = (round_.task, segment, [leaf], world.openings(round_.task, [segment]))
    bond, before = world.parameters["accusationBond"], world.credit(SECOND)
    copy, original = (
        world.do(accuser, "Claims", "accuse", *arguments, value=bond).value for accuser in (SECOND, CHALLENGER)
    )
    stake = world.see("Market", "stakeOf", round_.task)
    world.after_window()
    world.do(SECOND, "Claims", "closeAccusation", copy)
    world.do(CHALLENGER, "Claims", "closeAccusation", original)
    found = (stake - world.posting()["verifierFee"]) * world.parameters["finderRate"] // MILLION
    assert world.state(round_.task) == "Failed"
    assert (world.credit(SECOND) - before, world.credit(CHALLENGER)) == (bond + found, bond)


def test_an_accusation_that_stands_fails_the_task(world: World) -> None:
    round_ = disclosed(world)
    line = accuse(world, round_)
    stake = world.see("Market", "stakeOf", round_.task)
    with pytest.raises(RevertedError, match="WindowOpen"):
        world.do(world.deployer, "Claims", "closeAccusation", line)
    world.after_window()
    with pytest.raises(RevertedError, match="StillPending"):
        world.do(world.deployer, "Settlement", "settle", round_.task)
    world.do(world.deployer, "Claims", "closeAccusation", line)
    assert world.state(round_.task) == "Failed"
    fee = world.posting()["verifierFee"]
    share = (stake - fee) * world.parameters["finderRate"] // MILLION
    assert world.credit(CHALLENGER) == world.parameters["accusationBond"] + share
    world.do(world.deployer, "Settlement", "release", round_.task, 0)
    assert world.credit(round_.verifier) == fee
    with pytest.raises(RevertedError, match="NoSuchLine"):
        world.do(world.deployer, "Claims", "closeAccusation", line)


def test_a_false_accusation_falls_to_the_solver(world: World) -> None:
    round_ = disclosed(world)
    line = accuse(world, round_)
    truth = [(named("state", undrawn(round_) + 1), 0x3F000000, named("trace"))]
    claim = world.do(
        SOLVER, "Claims", "publishReplay", line, truth, world.openings(round_.task, [undrawn(round_)])
    ).value
    assert world.see("Claims", "claim", claim)[3] == 1
    assert world.see("Claims", "segmentOf", claim, 0) == undrawn(round_)
    case = world.open_case(SOLVER, claim, claim_tree([undrawn(round_)], truth).root)
    credit = world.credit(SOLVER)
    world.close(case, claim, won=True)
    bond = world.parameters["accusationBond"]
    assert world.credit(SOLVER) == credit + bond // 2
    world.after_window()
    world.do(world.deployer, "Claims", "closeAccusation", line)
    assert world.credit(SOLVER) == credit + bond // 2 + world.parameters["caseBond"]
    world.do(world.deployer, "Settlement", "settle", round_.task)
    assert world.state(round_.task) == "Settled"
    assert world.bucket(CASE, line) == 0


def test_accusations_are_refused_where_there_is_nothing_to_accuse(world: World) -> None:
    bond = world.parameters["accusationBond"]
    bad = [(named("end"), 0x40000000, named("trace"))]
    task = world.registered(exact=False)
    with pytest.raises(RevertedError, match="NotChallengeable"):
        world.do(CHALLENGER, "Claims", "accuse", task, 0, bad, world.openings(task, [0]), value=bond)
    round_ = world.draw(task)
    for changes, error in [
        ((task, round_.segments[0], bad, bond), "SegmentDrawn"),
        ((task, 8, bad, bond), "NoSuchSegment"),
        ((task, undrawn(round_), [(named("end"), 0x3F800000, named("trace"))], bond), "NothingWrong"),
        ((task, undrawn(round_), bad, bond - 1), "WrongValue"),
        ((task, undrawn(round_), bad * 2, bond), "WrongCount"),
    ]:
        openings = world.openings(task, [min(changes[1], 7)])
        with pytest.raises(RevertedError, match=error):
            world.do(CHALLENGER, "Claims", "accuse", *changes[:-1], openings, value=changes[-1])
    accuse(world, round_)
    with pytest.raises(RevertedError, match="AlreadyAccused"):
        accuse(world, round_)
    # One accuser does not keep another from accusing.
    accuse(world, round_, SECOND)
    world.finish(round_)
    world.after_window()
    with pytest.raises(RevertedError, match="NotChallengeable"):
        accuse(world, round_, address_of("late accuser"))
    exact = world.registered(exact=True)
    world.draw(exact)
    with pytest.raises(RevertedError, match="WrongMode"):
        world.do(CHALLENGER, "Claims", "accuse", exact, 0, bad, world.openings(exact, [0]), value=bond)


@pytest.mark.parametrize("bits", [0x3F800001, 0x7F800000, 0x7FC00000, 0xFFC00001])
def test_distances_above_one_and_nan_fail(world: World, bits: int) -> None:
    round_ = world.draw(world.registered(exact=False))
    accuse(world, round_, distance=bits)


@pytest.mark.parametrize("bits", [0, 0x3F800000, 0x80000000, 0xFF800000])
def test_distances_up_to_one_pass(world: World, bits: int) -> None:
    round_ = world.draw(world.registered(exact=False))
    with pytest.raises(RevertedError, match="NothingWrong"):
        accuse(world, round_, distance=bits)


def test_a_bit_equal_checkpoint_passes_whatever_the_distance(world: World) -> None:
    round_ = world.draw(world.registered(exact=False))
    segment = undrawn(round_)
    openings = world.openings(round_.task, [segment])
    bond = world.parameters["accusationBond"]
    leaf = (openings[0][0], 0x7FC00000, named("trace"))
    with pytest.raises(RevertedError, match="NothingWrong"):
        world.do(CHALLENGER, "Claims", "accuse", round_.task, segment, [leaf], openings, value=bond)
    round_.truth = [
        (end, 0x7F800000, leaf[2])
        for (end, _), leaf in zip(world.openings(round_.task, round_.segments), round_.truth, strict=True)
    ]
    world.finish(round_)
    world.after_window()
    world.do(world.deployer, "Settlement", "settle", round_.task)
    assert world.state(round_.task) == "Settled"


def test_an_accusation_of_a_task_that_ended_otherwise_returns_the_bond(world: World) -> None:
    round_ = disclosed(world)
    line = accuse(world, round_)
    other = accuse(world, round_, SECOND)
    world.after_window()
    world.do(world.deployer, "Claims", "closeAccusation", line)
    world.do(world.deployer, "Claims", "closeAccusation", other)
    assert world.credit(SECOND) == world.parameters["accusationBond"]


# ---- Refuted programs -----------------------------------------------------------------------------------------------


def test_only_the_court_refutes(world: World) -> None:
    task = world.registered()
    with pytest.raises(RevertedError, match="NotAModule"):
        world.do(CHALLENGER, "Claims", "programRefuted", task, CHALLENGER)


def test_cases_end_with_the_bond_back_when_the_program_is_refuted(world: World) -> None:
    round_ = disclosed(world)
    first, claim = world.challenge(CHALLENGER, round_, world.wrong(round_))
    world.do(world.deployer, "HarnessCourt", "refute", round_.task, SECOND)
    assert world.state(round_.task) == "Void"
    root = claim_tree(round_.segments, world.wrong(round_)).root
    with pytest.raises(RevertedError, match="WrongState"):
        world.open_case(SECOND, claim, root)
    world.close(first, claim, won=False)
    assert world.credit(CHALLENGER) == world.parameters["caseBond"]


def test_wrong_openings_of_checkpoints_are_refused(world: World) -> None:
    round_ = world.draw(world.registered(exact=True))
    world.commit_for(round_, forced=False)
    world.lottery(round_)
    tree = Tree([named("other", n) for n in range(9)])
    world.checkpoints[round_.task] = tree
    with pytest.raises(RevertedError, match="WrongHash"):
        world.show_as(round_, round_.truth, round_.order)
