"""Whole cases with the real court against the market's own contracts: what a case decides is settled and paid."""

from __future__ import annotations

import pytest
import world
from test_refutations import FORWARD_READER, about, with_operator
from whole_market import EXACT_PROGRAM, EXTENSION, NO_THRESHOLD, OVERSHOOT_PRICE, CourtChain, WholeMarket, execution
from world import Lies, OutputLie, StateLie

from assay.bench.arena import silent
from assay.commitments.execution import ReplayLeaf
from assay.dispute.case import CaseView, Part
from assay.dispute.evidence import open_replay
from assay.dispute.hash_tree import TensorTree, root
from assay.dispute.moves import Move
from assay.program.encoding import encode_header
from assay.program.operator import Role
from market_chain import RevertedError, address_of
from market_world import ETHER, MILLION, PROFILE, Round, claim_tree

SUBMITTER, SOLVER, CALLER = (address_of(role) for role in ("submitter", "solver", "deployer"))
CHALLENGER, SYBIL, ACCOMPLICE = (address_of(role) for role in ("challenger", "sybil", "accomplice"))
VERIFIERS = [address_of(f"verifier {number}") for number in range(3)]
ACTORS = [SUBMITTER, SOLVER, CALLER, CHALLENGER, SYBIL, ACCOMPLICE, *VERIFIERS]

EXPONENTIAL = Lies(OutputLie(Role.STEP, 0, 9, 3))
"""One exponential is wrong at the first step of a segment, and with it the chances, the gradients and the end state."""


@pytest.fixture
def market() -> WholeMarket:
    market = WholeMarket(CourtChain())
    market.staked("solver")
    for number in range(3):
        market.verifier(f"verifier {number}")
    return market


def part(amount: int, rate: int) -> int:
    return amount * rate // MILLION


def disclosed(market: WholeMarket, exact: bool, lies: Lies | None = None) -> tuple[Round, list[object]]:
    """A round whose verifier disclosed a claim with these lies in its last leaf; the round, and the truth."""
    round_ = market.draw(market.registered(exact))
    truth = round_.truth
    if lies is not None:
        round_.truth = market.with_lie(round_, len(truth) - 1, lies)
    market.finish(round_)
    return round_, truth


def against(
    market: WholeMarket, challenger: str, round_: Round, answer: list[object], deny: Part = Part.END
) -> tuple[int, int]:
    """A case on the last leaf of the present claim, whose leaves are `round_.truth`: its id, and the claim's."""
    claim = market.publish(challenger, round_, answer)
    place = len(answer) - 1
    evidence = market.evidence(round_, round_.truth, place, deny)
    return market.take_to_court(challenger, claim, place, deny, evidence, root_of(round_, answer)), claim


def root_of(round_: Round, leaves: list[object]) -> bytes:
    return claim_tree(round_.segments, leaves).root


def holder(market: WholeMarket, round_: Round) -> tuple[bytes, str]:
    """Root and claimant of the round's present claim."""
    line = market.see("Claims", "lineOf", round_.id)
    return line[0], line[1]


def settle(market: WholeMarket, round_: Round) -> None:
    market.after_window()
    market.do(CALLER, "Settlement", "settle", round_.task)


# ---- Replay claims --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "tolerant"])
def test_a_false_replay_falls_and_the_answer_takes_its_place_and_is_paid(market: WholeMarket, exact: bool) -> None:
    round_, truth = disclosed(market, exact, EXPONENTIAL)
    case, claim = against(market, CHALLENGER, round_, truth)
    place = len(truth) - 1
    liar, honest = market.run(round_, place, EXPONENTIAL), market.run(round_, place)
    seat, before = market.parameters["seat"], market.stake_of(round_.verifier)
    assert market.play_out(case, world.claimant_of(liar), world.challenger_of(honest))
    assert market.events[case][-2].name == "Proven"
    assert holder(market, round_) == (root_of(round_, truth), CHALLENGER.lower())
    with pytest.raises(RevertedError, match="NotStanding"):
        market.do(CALLER, "Settlement", "settle", round_.task)
    pool = market.pool
    settle(market, round_)
    found = part(seat, market.parameters["finderRate"])
    assert market.state(round_.task) == "Settled"
    assert market.credit(CHALLENGER) == market.parameters["caseBond"] + found
    assert market.stake_of(round_.verifier) == before - seat
    assert market.pool == pool + seat - found + market.see("Market", "taxOf", round_.task)
    market.assert_balanced(ACTORS)
    with pytest.raises(RevertedError, match="CaseNotOpen"):
        market.do(CALLER, "Court", "timeout", case)
    assert claim == market.see("Claims", "claimIdOf", round_.id, root_of(round_, round_.truth), round_.verifier)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "tolerant"])
def test_an_honest_replay_survives_a_false_case(market: WholeMarket, exact: bool) -> None:
    round_, truth = disclosed(market, exact)
    place = len(truth) - 1
    false = market.with_lie(round_, place, EXPONENTIAL)
    case, _ = against(market, CHALLENGER, round_, false)
    deluded = world.challenger_of(market.run(round_, place, EXPONENTIAL))
    credit, bond = market.credit(round_.verifier), market.parameters["caseBond"]
    assert not market.play_out(case, world.claimant_of(market.run(round_, place)), deluded)
    assert holder(market, round_) == (root_of(round_, truth), round_.verifier)
    assert market.credit(round_.verifier) == credit + bond // 2
    settle(market, round_)
    assert market.state(round_.task) == "Settled"
    assert market.credit(round_.verifier) == credit + bond // 2 + market.posting()["verifierFee"]
    assert market.worth(CHALLENGER) == 0
    market.assert_balanced(ACTORS)


def test_a_claimant_that_needs_more_than_its_clock_pays_from_its_seat(market: WholeMarket) -> None:
    round_, truth = disclosed(market, True)
    place = len(truth) - 1
    case, _ = against(market, CHALLENGER, round_, market.with_lie(round_, place, EXPONENTIAL))
    honest = world.claimant_of(market.run(round_, place))

    def slow(view: CaseView) -> Move | None:
        # Each move in the last second there is: first of its own clock, then of every extension.
        deadline = market.see("Court", "deadlineOf", case)
        market.chain.move(seconds=deadline - market.chain.time - 12)  # type: ignore[attr-defined]
        return honest(view)

    before = market.stake_of(round_.verifier)
    assert not market.play_out(case, slow, world.challenger_of(market.run(round_, place, EXPONENTIAL)))
    overshoot = market.see("Court", "caseOf", case)[0][-2]
    assert overshoot > 0
    assert overshoot % EXTENSION == 0
    settle(market, round_)
    assert market.stake_of(round_.verifier) == before - overshoot * OVERSHOOT_PRICE
    market.assert_balanced(ACTORS)


def test_a_false_accusation_falls_to_the_solver(market: WholeMarket) -> None:
    round_, _ = disclosed(market, False)
    segment = next(number for number in range(world.SEGMENTS - 1) if number not in round_.segments)
    seed = market.see("Verification", "shareOf", round_.task, 0)[-1]
    threshold = market.run(round_, 0).threshold
    lying, honest = (execution(segment, seed, lies, threshold) for lies in (EXPONENTIAL, None))
    end = root(lying.state(Role.STEP, lying.steps - 1))
    accused = [(end, 0x40000000, root(lying.trace(Role.STEP)))]
    truth = [(root(honest.state(Role.STEP, honest.steps - 1)), 0, root(honest.trace(Role.STEP)))]
    openings = market.openings(round_.task, [segment])
    bond, stake = market.parameters["accusationBond"], market.parameters["caseBond"]
    line = market.do(CHALLENGER, "Claims", "accuse", round_.task, segment, accused, openings, value=bond).value
    claim = market.do(SOLVER, "Claims", "publishReplay", line, truth, openings).value
    leaves = [ReplayLeaf(segment, *accused[0])]
    evidence = open_replay(leaves, 0, segment, Part.END, world.checkpoint_tree(), world.HEADER)
    case = market.take_to_court(SOLVER, claim, 0, Part.END, evidence, claim_tree([segment], truth).root)
    assert market.play_out(case, world.claimant_of(lying), world.challenger_of(honest))
    market.after_window()
    credit = market.credit(SOLVER)
    market.do(CALLER, "Claims", "closeAccusation", line)
    assert market.credit(SOLVER) == credit + stake
    market.do(CALLER, "Settlement", "settle", round_.task)
    assert market.state(round_.task) == "Settled"
    assert market.worth(CHALLENGER) == 0
    market.assert_balanced(ACTORS)


# ---- Training claims ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_false", [True, False], ids=["false", "honest"])
def test_a_training_claim_stands_or_falls_with_its_segment(market: WholeMarket, is_false: bool) -> None:
    task = market.registered(True, 1 if is_false else None)
    claim = market.do(CHALLENGER, "Claims", "publishTraining", task).value
    honest, cheating = execution(1, 0, program=EXACT_PROGRAM), market.cheating(1)
    case = market.take_to_court(CHALLENGER, claim, 2, Part.END, market.training_evidence(task, 2))
    stake, bond = market.see("Market", "stakeOf", task), market.parameters["caseBond"]
    solver, challenger = (cheating, honest) if is_false else (honest, cheating)
    won = market.play_out(case, world.claimant_of(solver), world.challenger_of(challenger))
    assert won == is_false
    if is_false:
        found = part(stake - market.posting()["verifierFee"], market.parameters["finderRate"])
        assert market.state(task) == "Failed"
        assert market.credit(CHALLENGER) == bond + found
        assert market.stake_of(SOLVER) == 20 * ETHER - stake
        market.do(CALLER, "Settlement", "release", task, 0)
    else:
        assert market.credit(SOLVER) == bond // 2
        round_ = market.draw(task)
        market.finish(round_)
        settle(market, round_)
        assert market.state(task) == "Settled"
        assert market.worth(CHALLENGER) == 0
    market.assert_balanced(ACTORS)


# ---- Profiles -------------------------------------------------------------------------------------------------------

NOISE = Lies(OutputLie(Role.DEVIATION, 0, 11, 2))
"""One threshold is not what the deviation gives."""


@pytest.mark.parametrize("is_false", [True, False], ids=["false", "honest"])
def test_a_profile_stands_or_falls_with_its_thresholds(market: WholeMarket, is_false: bool) -> None:
    task = market.submit(SUBMITTER, market.posting(exact=False))
    round_ = market.draw(task, PROFILE)
    truth, lie = round_.truth, market.with_lie(round_, 0, NOISE)
    round_.truth, answer = (lie, truth) if is_false else (truth, lie)
    market.finish(round_)
    case, _ = against(market, CHALLENGER, round_, answer, Part.THRESHOLD)
    runs = [market.run(round_, 0, NOISE), market.run(round_, 0)]
    claimant, challenger = runs if is_false else runs[::-1]
    before = market.stake_of(round_.verifier)
    assert market.play_out(case, world.claimant_of(claimant), world.challenger_of(challenger)) == is_false
    market.after_window()
    market.do(CALLER, "Settlement", "settleProfile", task)
    outputs = execution(0, 0, threshold=NO_THRESHOLD).run_outputs(Role.DEVIATION, 0)
    assert market.state(task) == "Open"
    assert market.see("Market", "taskOf", task)[-1] == root(TensorTree(outputs[-2]))
    seat, bond = market.parameters["seat"], market.parameters["caseBond"]
    if is_false:
        assert market.credit(CHALLENGER) == bond + part(seat, market.parameters["finderRate"])
        assert market.stake_of(round_.verifier) == before - seat
    else:
        assert market.credit(round_.verifier) == bond // 2 + market.posting(False)["profilerFee"]
    market.do(SUBMITTER, "Market", "cancel", task)
    market.assert_balanced(ACTORS)


# ---- Programs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("registered", [False, True], ids=["while the solver trains", "under an open case"])
def test_a_refuted_program_voids_the_task_and_money_goes_back(market: WholeMarket, registered: bool) -> None:
    program = with_operator(EXACT_PROGRAM, Role.STEP, 3, FORWARD_READER)
    posting = market.posting(True, header=encode_header(program))
    task = market.submit(SUBMITTER, posting)
    escrow = market.see("Market", "escrowOf", tuple(posting.values()))
    market.take(SOLVER, task)
    price, case = market.see("Market", "taskOf", task)[14], 0
    if registered:
        market.register(SOLVER, task)
        claim = market.do(CHALLENGER, "Claims", "publishTraining", task).value
        case = market.take_to_court(CHALLENGER, claim, 1, Part.END, market.training_evidence(task, 1))
    refute = ("Court", "refuteProgram", task, posting["header"])
    with pytest.raises(RevertedError, match="WellFormed"):
        market.do(SYBIL, *refute, about(program, Role.STEP, 4).as_tuple())
    market.do(SYBIL, *refute, about(program, Role.STEP, 3).as_tuple())
    assert market.state(task) == "Void"
    compensation = part(price, market.parameters["compensationRate"])
    bounty = part(posting["highestReward"], market.parameters["refuterRate"])
    assert market.worth(SOLVER) == 20 * ETHER + compensation
    assert market.credit(SYBIL) == bounty
    if registered:
        # The challenger falls silent, and would lose its bond under a program that decides anything.
        assert not market.play_out(case, world.claimant_of(execution(0, 0)), silent)
        assert market.credit(CHALLENGER) == market.parameters["caseBond"]
        market.do(CALLER, "Settlement", "release", task, 0)
    assert market.credit(SUBMITTER) == escrow - compensation - bounty
    market.assert_balanced(ACTORS)


# ---- Claimants that lose on purpose ---------------------------------------------------------------------------------


def test_what_a_sybil_showed_for_the_true_root_does_not_bind_the_next_claimant(market: WholeMarket) -> None:
    """A sybil fells a lie with the true root, shows trees that are not those of it, and lets an accomplice put the lie
    back. Whoever claims the true root next shows its own trees, and keeps the claim against the same attack."""
    round_, truth = disclosed(market, True, EXPONENTIAL)
    lie, place = round_.truth, len(truth) - 1
    true_root, false_root = root_of(round_, truth), root_of(round_, lie)
    liar, honest = market.run(round_, place, EXPONENTIAL), market.run(round_, place)
    claims = {}

    def attack(challenger: str, claimed: list[object], answer: list[object]) -> int:
        round_.truth = claimed
        case, claims[challenger] = against(market, challenger, round_, answer)
        return case

    # The lie falls to the sybil, which does nothing but wait.
    assert market.play_out(attack(SYBIL, lie, truth), silent, silent)
    assert holder(market, round_) == (true_root, SYBIL.lower())

    # For its true root the sybil shows the tree of another execution, and then nothing more.
    other = world.claimant_of(market.run(round_, place, Lies(state=StateLie(Role.STEP, 0, 5, 1))))
    shown: list[Move] = []

    def once(view: CaseView) -> Move | None:
        if shown:
            return None
        move = other(view)
        assert move is not None
        assert move.function == "expand"
        shown.append(move)
        return move

    denies = world.challenger_of(honest)
    assert market.play_out(attack(ACCOMPLICE, truth, lie), once, denies)
    assert holder(market, round_) == (false_root, ACCOMPLICE.lower())
    false_tree = shown[0].arguments[0]
    true_tree = root(honest.segment(Role.STEP)) if honest.steps > 1 else root(honest.outputs(Role.STEP, 0))
    assert false_tree != true_tree

    # An honest challenger fells the lie again, so that the same root is claimed by another.
    case = attack(CHALLENGER, lie, truth)
    assert market.play_out(case, world.claimant_of(liar), world.challenger_of(honest))
    assert holder(market, round_) == (true_root, CHALLENGER.lower())

    # The accomplice attacks the true root once more: the honest claimant shows its own tree, and wins.
    case = attack(SYBIL, truth, lie)
    ids = [market.see("Claims", "claimIdOf", round_.id, true_root, actor) for actor in (SYBIL, CHALLENGER)]
    assert ids == [claims[ACCOMPLICE], claims[SYBIL]]
    assert len(set(ids)) == 2
    assert not market.play_out(case, world.claimant_of(honest), world.challenger_of(liar))
    expanded = next(event for event in market.events[case] if event.name == "Expanded")
    assert expanded.arguments["root"] == true_tree
    assert holder(market, round_) == (true_root, CHALLENGER.lower())

    settle(market, round_)
    assert market.state(round_.task) == "Settled"
    found = part(market.parameters["seat"], market.parameters["finderRate"])
    bond = market.parameters["caseBond"]
    # Its own bond, half of each of the two that were lost to it, and the finders' part.
    assert market.credit(CHALLENGER) == bond + 2 * (bond // 2) + found
    market.assert_balanced(ACTORS)
