"""What earlier systems of this kind got wrong, held against this one."""

from __future__ import annotations

import pytest

from market_chain import Chain, NetworkChain, RevertedError, RevmChain, address_of, artifacts
from market_world import ETHER, ZERO, Round, World, named, populated

SUBMITTER = address_of("submitter")
SOLVER = address_of("solver")
BLOWER = address_of("whistleblower 0")


@pytest.mark.smoke
def test_seeds_never_come_from_the_present_block(chain: Chain) -> None:
    """A lottery on blockhash(block.number) is a lottery on zero, known to everyone beforehand."""
    assert isinstance(chain, NetworkChain)
    deployer = address_of("deployer")
    chain.deploy("Seeds", deployer)
    number = int(chain._request("eth_blockNumber"), 16)

    def seed(block: int, salt: bytes = ZERO) -> bytes:
        return bytes(chain.call(deployer, "Seeds", "seedAt", block, salt).value)

    def missed(block: int) -> bool:
        return bool(chain.call(deployer, "Seeds", "missed", block).value)

    # A view runs in the block after the last on some nodes, in the last on others: both see the one before.
    chain.move(blocks=3)
    assert seed(number) != ZERO
    assert seed(number) != seed(number, named("salt"))
    assert seed(number) != seed(number - 1)
    assert seed(number + 50) == ZERO
    assert not missed(number + 50)
    assert not missed(number)
    chain.move(blocks=300)
    has_history = len(chain._request("eth_getCode", "0x0000F90827F1C53a10cb7A02335B175320002935", "latest")) > 2
    if not has_history:
        assert seed(number) == ZERO
        assert missed(number)
    assert artifacts()["Seeds"]["bytecode"]


def test_no_phase_is_skipped(world: World) -> None:
    """Every step of a round is refused in every state but its own."""
    round_ = world.draw(world.registered())
    round_.secret, round_.order = named("r"), 0
    hidden = world.hidden(round_)
    empty = (hidden, ZERO, 0, ZERO, ZERO, False)
    bad_order = [
        ("Verification", "showReplay", (round_.id, hidden, 0, ZERO, [], [])),
        ("Verification", "disclose", (round_.id, round_.secret, 0, empty, (b"", ZERO, []))),
        ("Verification", "leak", (round_.id, round_.secret, 0, hidden)),
        ("Verification", "leakShown", (round_.id, round_.secret, 0, empty)),
        ("Answers", "commitAnswer", (round_.id, ZERO, ZERO)),
        ("Answers", "revealAnswer", (round_.id, ZERO, ZERO)),
        ("Answers", "join", (round_.id,)),
    ]
    for name, function, arguments in bad_order:
        with pytest.raises(RevertedError, match="WrongRoundState"):
            world.do(round_.verifier, name, function, *arguments)
    world.finish(round_)
    bad_order.append(("Verification", "commit", (round_.id, hidden)))
    bad_order.append(("Verification", "stepBack", (round_.id,)))
    bad_order.append(("Verification", "timeout", (round_.id,)))
    for name, function, arguments in bad_order:
        with pytest.raises(RevertedError, match="WrongRoundState"):
            world.do(round_.verifier, name, function, *arguments)


def test_waiting_whistleblowers_cannot_be_skipped_by_disclosing_early(world: World) -> None:
    round_ = world.draw(world.registered())
    world.commit_for(round_, forced=True)
    world.join(BLOWER, round_)
    world.show(round_)
    with pytest.raises(RevertedError, match="AnswersOpen"):
        world.disclose(round_)
    world.answer(BLOWER, round_, world.true_root(round_))
    with pytest.raises(RevertedError, match="AnswersOpen"):
        world.disclose(round_)
    world.reveal(BLOWER, round_, world.true_root(round_))
    world.disclose(round_)


def test_a_jackpot_is_claimed_once(world: World) -> None:
    generous = world.staked("generous solver", 200 * ETHER)
    task = world.submit(
        address_of("other submitter"), world.posting(highestReward=1000 * ETHER, lowestReward=1000 * ETHER)
    )
    world.take(generous, task)
    world.do(generous, "Market", "stepDown", task)
    round_ = world.draw(world.registered())
    world.commit_for(round_, forced=True)
    world.join(BLOWER, round_)
    world.show(round_)
    world.answer(BLOWER, round_, world.true_root(round_))
    world.reveal(BLOWER, round_, world.true_root(round_))
    world.disclose(round_)
    with pytest.raises(RevertedError, match="WrongRoundState"):
        world.disclose(round_)
    world.after_window()
    world.do(world.deployer, "Settlement", "settle", round_.task)
    world.collect(BLOWER, round_)
    won = world.credit(BLOWER)
    assert won > 0
    with pytest.raises(RevertedError, match="WrongAnswerState"):
        world.collect(BLOWER, round_)
    for function, arguments in (("reserve", (round_.id, 10**18)), ("fixWinners", (round_.id, 1))):
        with pytest.raises(RevertedError, match="Only"):
            world.do(BLOWER, "Jackpot", function, *arguments)
    assert world.credit(BLOWER) == won


def test_ids_do_not_collide(world: World) -> None:
    """Numbers of tasks, rounds, claims and accusations are hashes of what they are about, each with its own word."""
    tasks = [world.submit(SUBMITTER), world.submit(SUBMITTER)]
    ids = set(tasks)
    for task in tasks:
        ids |= {
            world.see("Verification", "roundIdOf", task, share, attempt) for share in (0, 1, 255) for attempt in (0, 1)
        }
        ids |= {world.see("Verification", "chargesOf", task, share) for share in (0, 1, 255)}
        ids |= {world.see("Claims", "accusationOf", task, segment, SOLVER) for segment in (0, 1)}
        ids |= {world.see("Claims", "trainingLineOf", task), world.see("Claims", "claimIdOf", task, ZERO, SOLVER)}
    assert len(ids) == 2 * (1 + 6 + 3 + 2 + 2)


def test_an_id_names_another_task_in_another_fork(chain: Chain) -> None:
    """A reorganisation that swaps two submissions cannot swap what a solver takes: its call fails instead."""
    world = populated(chain)
    first = world.posting()
    second = world.posting(taskSeed=8, highestReward=11 * ETHER)
    in_this_fork = world.submit(SUBMITTER, first)
    other = populated(RevmChain(artifacts()))
    in_that_fork = other.submit(SUBMITTER, second)
    assert in_this_fork != in_that_fork
    with pytest.raises(RevertedError, match="WrongState"):
        other.take(SOLVER, in_this_fork)


def test_a_claim_is_named_by_its_root_and_its_claimant(world: World) -> None:
    """A case prepared against one root does not open on another claim of the same round."""
    round_ = world.draw(world.registered())
    ids = {
        world.see("Claims", "claimIdOf", round_.id, root, claimant)
        for root in (world.true_root(round_), named("other"))
        for claimant in (SOLVER, SUBMITTER)
    }
    assert len(ids) == 4
    with pytest.raises(RevertedError, match="NoSuchClaim"):
        world.open_case(SUBMITTER, world.see("Claims", "claimIdOf", round_.id, named("other"), SOLVER), ZERO)


@pytest.mark.parametrize("late", [0, 1])
def test_the_last_second_belongs_to_exactly_one_side(chain: Chain, late: int) -> None:
    """At the deadline the verifier can commit and cannot be timed out; one second later it is the other way round."""
    world = populated(chain)
    round_ = world.draw(world.registered())
    if not hasattr(chain, "time"):
        pytest.skip("needs time to the second")
    deadline = world.see("Verification", "roundOf", round_.id)[8]
    # The next call is in a block twelve seconds on.
    chain.move(seconds=deadline - chain.time - 12 + late)
    round_.secret = named("r")
    calls = {
        "commit": (round_.verifier, "Verification", "commit", round_.id, world.hidden(round_)),
        "timeout": (world.deployer, "Verification", "timeout", round_.id),
    }
    allowed, refused = ("timeout", "commit") if late else ("commit", "timeout")
    with pytest.raises(RevertedError, match="TooLate" if late else "TooEarly"):
        world.do(*calls[refused])  # type: ignore[arg-type]
    chain.time -= 12
    chain.number -= 1
    world.do(*calls[allowed])  # type: ignore[arg-type]


def test_nothing_moves_after_resolution(world: World) -> None:
    task = world.registered()
    round_ = world.draw(task)
    world.finish(round_)
    world.after_window()
    claim = world.publish(SUBMITTER, round_, world.wrong(round_))
    world.do(world.deployer, "Settlement", "settle", task)
    root = bytes(world.see("Claims", "lineOf", round_.id)[0])
    for call in (
        lambda: world.open_case(SUBMITTER, claim, named("x")),
        lambda: world.do(SOLVER, "Market", "register", task, ZERO, ZERO, [], [], ""),
        lambda: world.do(SOLVER, "Market", "stepDown", task),
        lambda: world.do(world.deployer, "Market", "late", task),
        lambda: world.do(world.deployer, "Market", "expire", task),
        lambda: world.do(world.deployer, "Verification", "draw", task, 0),
        lambda: world.do(world.deployer, "Verification", "volunteer", task, 0),
        lambda: world.do(world.deployer, "Verification", "giveUp", task, 0),
        lambda: world.do(SUBMITTER, "Claims", "publishTraining", task),
    ):
        with pytest.raises(RevertedError):
            call()
    assert bytes(world.see("Claims", "lineOf", round_.id)[0]) == root


def test_out_of_gas_is_not_a_result(chain: Chain) -> None:
    """Whatever gas a call is given, it either does all it says or nothing."""
    if not hasattr(chain, "evm"):
        pytest.skip("needs gas to the unit")
    world = populated(chain)
    round_: Round = world.draw(world.registered())
    world.commit_for(round_, forced=False)
    world.lottery(round_)
    leaves, index = world.claims_of(round_)
    data = chain.encode(  # type: ignore[attr-defined]
        "Verification",
        "showReplay",
        (
            round_.id,
            world.hidden(round_),
            index,
            world.salt(round_, index),
            leaves,
            world.openings(round_.task, round_.segments),
        ),
    )
    address = chain.addresses["Verification"]  # type: ignore[attr-defined]
    outcomes = []
    for gas in range(30_000, 110_000, 1_000):
        saved = chain.evm.snapshot()
        try:
            chain.evm.message_call(round_.verifier, address, data, gas=gas)
            done = True
        except RuntimeError:
            done = False
        state = world.see("Verification", "roundOf", round_.id)[5]
        assert state == (3 if done else 2), gas
        outcomes.append(done)
        chain.evm.revert(saved)
    assert outcomes == sorted(outcomes)
    assert any(outcomes)
    assert not all(outcomes)
