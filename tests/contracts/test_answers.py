"""Whistleblowers: joining, answering, revealing, and jackpots."""

from __future__ import annotations

import pytest

from market_chain import Chain, RevertedError, address_of
from market_world import ETHER, MILLION, POOL, RESERVE, ROUND, Round, World, named, populated

BLOWERS = [address_of(f"whistleblower {number}") for number in range(3)]


def filled(world: World, amount: int = 30 * ETHER) -> None:
    """Fills the pool by a solver who steps down."""
    generous = world.staked("generous solver", 2000 * ETHER)
    while world.pool < amount:
        task = world.submit(
            address_of("other submitter"), world.posting(highestReward=1000 * ETHER, lowestReward=1000 * ETHER)
        )
        world.take(generous, task)
        world.do(generous, "Market", "stepDown", task)


def shown(world: World, forced: bool, joiners: int, exact: bool = True) -> Round:
    round_ = world.draw(world.registered(exact))
    world.commit_for(round_, forced)
    for whistleblower in BLOWERS[:joiners]:
        world.join(whistleblower, round_)
    world.show(round_)
    return round_


def answered(world: World, round_: Round, roots: list[bytes]) -> None:
    """The first whistleblowers commit to these roots, the time for commitments passes, and they reveal."""
    for whistleblower, root in zip(BLOWERS, roots, strict=False):
        world.answer(whistleblower, round_, root)
    world.chain.move(seconds=world.parameters["answerSeconds"] + 60)
    for whistleblower, root in zip(BLOWERS, roots, strict=False):
        world.reveal(whistleblower, round_, root)


def settled(world: World, round_: Round) -> None:
    world.after_window()
    world.do(world.deployer, "Settlement", "settle", round_.task)


def test_joining_takes_the_bond_from_free_stake(world: World) -> None:
    round_ = world.draw(world.registered())
    world.commit(round_)
    before = world.stake_of(BLOWERS[0])
    world.join(BLOWERS[0], round_)
    assert world.stake_of(BLOWERS[0]) == before - world.parameters["answerBond"]
    with pytest.raises(RevertedError, match="WrongAnswerState"):
        world.join(BLOWERS[0], round_)
    with pytest.raises(RevertedError, match="Insufficient"):
        world.join(address_of("unstaked"), round_)
    with pytest.raises(RevertedError, match="VerifierMayNotJoin"):
        world.join(round_.verifier, round_)


def test_nobody_joins_from_the_lotterys_block_on(world: World) -> None:
    round_ = world.draw(world.registered())
    with pytest.raises(RevertedError, match="WrongRoundState"):
        world.join(BLOWERS[0], round_)
    world.commit(round_)
    lottery_block = world.see("Verification", "roundOf", round_.id)[7]
    world.chain.move(blocks=lottery_block - world.next_block() - 1)
    world.join(BLOWERS[0], round_)  # in the block before
    with pytest.raises(RevertedError, match="TooLate"):
        world.join(BLOWERS[1], round_)  # in the lottery's block


def test_answers_are_hidden_until_nobody_can_commit(world: World) -> None:
    round_ = shown(world, False, 2)
    root = world.true_root(round_)
    world.answer(BLOWERS[0], round_, root)
    with pytest.raises(RevertedError, match="TooEarly"):
        world.reveal(BLOWERS[0], round_, root)
    with pytest.raises(RevertedError, match="AnswersOpen"):
        world.disclose(round_)
    world.chain.move(seconds=world.parameters["answerSeconds"] + 60)
    with pytest.raises(RevertedError, match="TooLate"):
        world.answer(BLOWERS[1], round_, root)
    world.reveal(BLOWERS[0], round_, root)
    world.disclose(round_)


def test_a_copied_commitment_cannot_be_revealed(world: World) -> None:
    round_ = shown(world, False, 2)
    root = world.true_root(round_)
    world.answer(BLOWERS[0], round_, root)
    copied = world.see("Answers", "answerOf", round_.id, BLOWERS[0])[0]
    state = world.see("Verification", "roundOf", round_.id)[6]
    world.do(BLOWERS[1], "Answers", "commitAnswer", round_.id, state, copied)
    world.reveal(BLOWERS[0], round_, root)
    with pytest.raises(RevertedError, match="NotTheCommitment"):
        world.do(BLOWERS[1], "Answers", "revealAnswer", round_.id, root, named(BLOWERS[0]))


def test_an_answer_names_the_claim_it_answers(world: World) -> None:
    round_ = shown(world, False, 1)
    with pytest.raises(RevertedError, match="AnotherRoundShown"):
        world.do(BLOWERS[0], "Answers", "commitAnswer", round_.id, named("another fork"), named("answer"))


def test_only_who_joined_answers(world: World) -> None:
    round_ = shown(world, False, 1)
    with pytest.raises(RevertedError, match="WrongAnswerState"):
        world.answer(BLOWERS[1], round_, world.true_root(round_))


def test_right_answers_have_their_bonds_back_and_wrong_or_silent_ones_lose_them(world: World) -> None:
    round_ = shown(world, False, 3)
    before = [world.stake_of(whistleblower) for whistleblower in BLOWERS]
    answered(world, round_, [world.true_root(round_), named("guess")])
    world.disclose(round_)
    with pytest.raises(RevertedError, match="NotResolved"):
        world.collect(BLOWERS[0], round_)
    settled(world, round_)
    pool = world.pool
    for whistleblower in BLOWERS:
        world.collect(whistleblower, round_)
    bond = world.parameters["answerBond"]
    assert [world.stake_of(w) - b for w, b in zip(BLOWERS, before, strict=True)] == [bond, 0, 0]
    assert world.pool == pool + 2 * bond
    assert world.bucket(ROUND, round_.id) == 0
    with pytest.raises(RevertedError, match="WrongAnswerState"):
        world.collect(BLOWERS[0], round_)


@pytest.mark.parametrize("right", [0, 1, 2, 3])
def test_the_jackpot_halves_with_every_further_winner(world: World, right: int) -> None:
    filled(world)
    round_ = shown(world, True, 3)
    pool = world.bucket(POOL, 0)
    answered(world, round_, [world.true_root(round_)] * right + [named("guess")] * (3 - right))
    world.disclose(round_)
    tax = world.see("Market", "taxOf", round_.task)
    prize = min(
        tax * MILLION // world.parameters["forcedRate"],
        pool // 3,
        world.parameters["seat"] * world.parameters["jackpotRate"] // MILLION,
    )
    assert prize > 0
    assert (world.bucket(RESERVE, round_.id), world.pool) == (prize, pool - prize)
    settled(world, round_)
    for whistleblower in BLOWERS:
        world.collect(whistleblower, round_)
    won = prize >> (right - 1) if right else 0
    assert [world.credit(whistleblower) for whistleblower in BLOWERS] == [won] * right + [0] * (3 - right)
    assert (world.bucket(RESERVE, round_.id), world.bucket(ROUND, round_.id)) == (0, 0)
    bonds = (3 - right) * world.parameters["answerBond"]
    assert world.pool == pool - right * won + tax + bonds


def test_the_jackpot_is_at_most_a_third_of_the_pool(world: World) -> None:
    filled(world, ETHER // 10)
    round_ = shown(world, True, 1)
    answered(world, round_, [world.true_root(round_)])
    # Steps back to a pool of known size: whatever is in it, a third is the most.
    pool = world.pool
    world.disclose(round_)
    cap = world.parameters["seat"] * world.parameters["jackpotRate"] // MILLION
    assert world.bucket(RESERVE, round_.id) == min(pool // 3, cap)


def test_an_empty_pool_reserves_nothing(world: World) -> None:
    round_ = shown(world, True, 1)
    answered(world, round_, [world.true_root(round_)])
    world.disclose(round_)
    settled(world, round_)
    world.collect(BLOWERS[0], round_)
    assert world.credit(BLOWERS[0]) == 0


def test_no_jackpot_in_a_round_that_was_not_forced(world: World) -> None:
    filled(world)
    round_ = shown(world, False, 1)
    answered(world, round_, [world.true_root(round_)])
    world.disclose(round_)
    assert world.bucket(RESERVE, round_.id) == 0


def test_two_forced_rounds_never_reserve_the_same_coin(chain: Chain) -> None:
    world = populated(chain, verifiers=4)
    filled(world, ETHER // 10)
    rounds = [world.draw(world.registered()) for _ in range(2)]
    for round_ in rounds:
        world.commit_for(round_, forced=True)
        world.join(BLOWERS[0], round_)
    for round_ in rounds:
        world.show(round_)
        world.answer(BLOWERS[0], round_, world.true_root(round_))
        world.reveal(BLOWERS[0], round_, world.true_root(round_))
    pool = world.pool
    for round_ in rounds:
        world.disclose(round_)
    reserved = [world.bucket(RESERVE, round_.id) for round_ in rounds]
    assert sum(reserved) + world.pool == pool
    assert reserved[1] <= (pool - reserved[0]) // 3


@pytest.mark.parametrize("function", ["voidRound", "resolve"])
def test_only_modules_resolve_rounds(world: World, function: str) -> None:
    round_ = shown(world, False, 1)
    arguments = (round_.id,) if function == "voidRound" else (round_.id, named("root"), 5)
    with pytest.raises(RevertedError, match="NotAModule"):
        world.do(BLOWERS[0], "Answers", function, *arguments)
