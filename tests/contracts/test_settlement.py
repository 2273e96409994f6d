"""Who is paid, and by whom: every row of the settlement table, as an equation of sources and sinks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from market_chain import Chain, RevertedError, address_of
from market_world import (
    CASE,
    CLASSES,
    DEMAND,
    ESCROW,
    ETHER,
    FREE,
    MILLION,
    PROFILE,
    RESERVE,
    ROUND,
    ZERO,
    Round,
    World,
    populated,
)

SUBMITTER = address_of("submitter")
SOLVER = address_of("solver")
BLOWERS = [address_of(f"whistleblower {number}") for number in range(3)]
CHALLENGER = address_of("challenger")


@dataclass
class Accounts:
    """What everybody has in the ledger, before and after."""

    world: World
    actors: Sequence[str]

    def __post_init__(self) -> None:
        self.before = self.read()
        self.pool = self.world.pool

    def read(self) -> list[int]:
        return [self.world.worth(actor) for actor in self.actors]

    def gains(self) -> list[int]:
        return [after - before for after, before in zip(self.read(), self.before, strict=True)]

    def pool_gain(self) -> int:
        return self.world.pool - self.pool


def part(amount: int, rate: int) -> int:
    return amount * rate // MILLION


def assert_nothing_is_left(world: World, task: int) -> None:
    """No bucket but accounts and the pool holds anything."""
    assert world.bucket(ESCROW, task) == 0
    for kind in (ESCROW, ROUND, CASE, DEMAND, RESERVE):
        assert world.see("Stakes", "totalOf", kind) == 0, CLASSES[kind]


def answered(world: World, round_: Round, roots: Sequence[bytes]) -> None:
    """A round shown, answered by the first whistleblowers with these roots, and disclosed."""
    for whistleblower, _ in zip(BLOWERS, roots, strict=False):
        world.join(whistleblower, round_)
    world.show(round_)
    for whistleblower, root in zip(BLOWERS, roots, strict=False):
        world.answer(whistleblower, round_, root)
    for whistleblower, root in zip(BLOWERS, roots, strict=False):
        world.reveal(whistleblower, round_, root)
    world.disclose(round_)


def started(world: World, exact: bool = True, cheat: int | None = None, failing: bool = False, **changes: int) -> Round:
    round_ = world.draw(world.registered(exact, cheat, **changes), failing=failing)
    world.commit_for(round_, forced=False)
    return round_


def settle(world: World, round_: Round) -> None:
    world.after_window()
    world.do(world.deployer, "Settlement", "settle", round_.task)


@pytest.mark.parametrize("exact", [True, False])
def test_all_checks_pass(world: World, exact: bool) -> None:
    accounts = Accounts(world, [SUBMITTER, SOLVER, *BLOWERS, world.deployer])
    round_ = started(world, exact)
    price = world.see("Market", "taskOf", round_.task)[14]
    answered(world, round_, [world.true_root(round_)] * 2)
    settle(world, round_)
    for whistleblower in BLOWERS[:2]:
        world.collect(whistleblower, round_)
    posting, rounds = world.posting(exact), 1 if exact else 2
    escrow = world.see("Market", "escrowOf", tuple(posting.values()))
    tax = part(posting["highestReward"], world.parameters["taxRate"]) // rounds * rounds
    bounty = world.parameters["drawBounty"] * rounds
    fees = posting["verifierFee"] + posting["profilerFee"]
    assert world.state(round_.task) == "Settled"
    assert accounts.gains() == [escrow - price - fees - tax - bounty, price, 0, 0, 0, bounty]
    assert accounts.pool_gain() == tax
    assert_nothing_is_left(world, round_.task)


@pytest.mark.parametrize("exact", [True, False])
def test_a_proof_that_fails(world: World, exact: bool) -> None:
    """Distance above the threshold, or in exact mode another end state than the solver's."""
    task = world.registered(exact, cheat=0)
    verifiers = [address_of(f"verifier {number}") for number in range(3)]
    accounts = Accounts(world, [SUBMITTER, SOLVER, *BLOWERS, *verifiers])
    escrow, stake = world.bucket(ESCROW, task), world.see("Market", "stakeOf", task)
    round_ = world.draw(task, failing=True)
    world.commit_for(round_, forced=False)
    answered(world, round_, [world.true_root(round_), world.true_root(round_)])
    settle(world, round_)
    for whistleblower in BLOWERS[:2]:
        world.collect(whistleblower, round_)
    fee = world.posting()["verifierFee"]
    share = part(stake - fee, world.parameters["finderRate"])
    assert world.state(task) == "Failed"
    gains = dict(zip(accounts.actors, accounts.gains(), strict=True))
    assert gains[SUBMITTER] == escrow - world.parameters["drawBounty"]
    assert gains[SOLVER] == -stake
    assert [gains[whistleblower] for whistleblower in BLOWERS] == [0, 0, 0]
    assert sum(gains[verifier] for verifier in verifiers) == fee + share
    assert accounts.pool_gain() == stake - fee - share
    assert_nothing_is_left(world, task)


def fallen(world: World, cheat: int | None, finders: int) -> tuple[Round, Accounts, int]:
    """A verifier lies in exact mode, `finders` whistleblowers answer truly, the first of them fells the claim."""
    task = world.registered(True, cheat)
    verifiers = [address_of(f"verifier {number}") for number in range(3)]
    accounts = Accounts(world, [SUBMITTER, SOLVER, *BLOWERS, *verifiers, CHALLENGER])
    escrow = world.bucket(ESCROW, task)
    round_ = world.draw(task)
    truth = round_.truth
    # With an honest solver the verifier lies about the trace, with a cheat it covers up.
    lie = world.wrong(round_, "lie")
    if cheat is not None:
        tree = world.checkpoints[task].levels[0]
        lie = [(tree[s + 1], leaf[1], leaf[2]) for s, leaf in zip(round_.segments, lie, strict=True)]
    round_.truth = lie
    world.commit_for(round_, forced=False)
    for whistleblower in BLOWERS[:finders]:
        world.join(whistleblower, round_)
    world.show(round_)
    round_.truth, hidden = truth, round_.truth
    root = world.true_root(round_)
    for whistleblower in BLOWERS[:finders]:
        world.answer(whistleblower, round_, root)
    for whistleblower in BLOWERS[:finders]:
        world.reveal(whistleblower, round_, root)
    round_.truth = hidden
    world.disclose(round_)
    challenger = BLOWERS[0] if finders else CHALLENGER
    bond = world.parameters["caseBond"]
    case, claim = world.challenge(challenger, round_, truth)
    world.close(case, claim, won=True)
    settle(world, round_)
    for whistleblower in BLOWERS[:finders]:
        world.collect(whistleblower, round_)
    # The bond came from outside the ledger.
    accounts.before[list(accounts.actors).index(challenger)] += bond
    return round_, accounts, escrow


@pytest.mark.parametrize("finders", [0, 1, 3])
def test_a_verifiers_claim_falls_and_the_proof_is_good(world: World, finders: int) -> None:
    round_, accounts, escrow = fallen(world, None, finders)
    price = world.see("Market", "taskOf", round_.task)[14]
    seat = world.parameters["seat"]
    found = part(seat, world.parameters["finderRate"])
    each = found // max(finders, 1)
    tax = world.see("Market", "taxOf", round_.task)
    gains = dict(zip(accounts.actors, accounts.gains(), strict=True))
    assert world.state(round_.task) == "Settled"
    assert gains[SOLVER] == price
    assert [gains[whistleblower] for whistleblower in BLOWERS] == [each] * finders + [0] * (3 - finders)
    assert gains[CHALLENGER] == (0 if finders else each)
    # Nobody earned the fee.
    assert gains[SUBMITTER] == escrow - price - tax - world.parameters["drawBounty"]
    assert sum(gains[address_of(f"verifier {number}")] for number in range(3)) == -seat
    assert accounts.pool_gain() == seat - each * max(finders, 1) + tax
    assert_nothing_is_left(world, round_.task)


@pytest.mark.parametrize("finders", [0, 1, 3])
def test_a_verifiers_claim_falls_and_the_proof_is_bad(world: World, finders: int) -> None:
    round_, accounts, escrow = fallen(world, 0, finders)
    stake = world.see("Market", "stakeOf", round_.task)
    seat, fee = world.parameters["seat"], world.posting()["verifierFee"]
    found = part(seat, world.parameters["finderRate"]) + part(stake - fee, world.parameters["finderRate"])
    each = found // max(finders, 1)
    gains = dict(zip(accounts.actors, accounts.gains(), strict=True))
    assert world.state(round_.task) == "Failed"
    assert gains[SOLVER] == -stake
    assert gains[SUBMITTER] == escrow - world.parameters["drawBounty"]
    assert [gains[whistleblower] for whistleblower in BLOWERS] == [each] * finders + [0] * (3 - finders)
    assert gains[CHALLENGER] == (0 if finders else each)
    assert accounts.pool_gain() == seat + stake - each * max(finders, 1)
    assert_nothing_is_left(world, round_.task)


def test_shares_of_a_failed_stake_go_to_the_rounds_that_found_the_failure(chain: Chain) -> None:
    world = populated(chain, verifiers=5)
    # Only the later segments are wrong: some shares fail, others pass.
    task = world.registered(True, 4, verifiers=3, perVerifier=2)
    stake, fee = world.see("Market", "stakeOf", task), world.posting()["verifierFee"]
    rounds = [world.draw(task, share) for share in range(3)]
    failing = [any(segment >= 4 for segment in round_.segments) for round_ in rounds]
    for round_ in rounds:
        world.commit_for(round_, forced=False)
    for round_ in rounds:
        world.show(round_)
        world.disclose(round_)
    before = [world.credit(round_.verifier) for round_ in rounds]
    settle(world, rounds[0])
    assert sum(failing) > 0
    share = part(stake - 3 * fee, world.parameters["finderRate"]) // sum(failing)
    gains = [world.credit(round_.verifier) - b for round_, b in zip(rounds, before, strict=True)]
    assert gains == [fee + (share if bad else 0) for bad in failing]
    assert_nothing_is_left(world, task)


@pytest.mark.parametrize("verifiers", [2, 3])
def test_what_does_not_divide_among_failing_rounds_goes_to_the_pool(chain: Chain, verifiers: int) -> None:
    world = populated(chain, verifiers=5, solverStakeFloor=2 * ETHER + 5)
    task = world.registered(True, 0, verifiers=verifiers, perVerifier=2)
    stake, fee = world.see("Market", "stakeOf", task), world.posting()["verifierFee"]
    rounds = [world.draw(task, share) for share in range(verifiers)]
    for round_ in rounds:
        world.commit_for(round_, forced=False)
    for round_ in rounds:
        world.show(round_)
        world.disclose(round_)
    accounts = Accounts(world, [round_.verifier for round_ in rounds])
    finders = part(stake - verifiers * fee, world.parameters["finderRate"])
    settle(world, rounds[0])
    share, rest = divmod(finders, verifiers)
    assert rest == (2 if verifiers == 3 else 0)
    assert accounts.gains() == [fee + share] * verifiers
    assert accounts.pool_gain() == stake - verifiers * (fee + share)
    assert_nothing_is_left(world, task)


def test_program_refuted_while_the_solver_trains(world: World) -> None:
    accounts = Accounts(world, [SUBMITTER, SOLVER, CHALLENGER])
    task = world.submit(SUBMITTER)
    world.take(SOLVER, task)
    price, escrow = world.see("Market", "taskOf", task)[14], world.bucket(ESCROW, task)
    world.do(world.deployer, "HarnessCourt", "refute", task, CHALLENGER)
    compensation = part(price, world.parameters["compensationRate"])
    bounty = part(world.posting()["highestReward"], world.parameters["refuterRate"])
    assert world.state(task) == "Void"
    assert accounts.gains() == [escrow - compensation - bounty, compensation, bounty]
    assert_nothing_is_left(world, task)


@pytest.mark.parametrize("progress", ["due", "drawn", "shown", "disclosed"])
def test_program_refuted_under_a_round(world: World, progress: str) -> None:
    task = world.registered(False)
    accounts = Accounts(world, [SOLVER, *BLOWERS])
    fee, paid = world.posting()["verifierFee"], 0
    verifier = None
    if progress != "due":
        round_ = world.draw(task)
        verifier = round_.verifier
        if progress != "drawn":
            world.commit_for(round_, forced=True)
            world.join(BLOWERS[0], round_)
            world.show(round_)
        if progress == "disclosed":
            world.answer(BLOWERS[0], round_, ZERO)
            world.reveal(BLOWERS[0], round_, ZERO)
            world.disclose(round_)
            paid = fee
    price = world.see("Market", "taskOf", task)[14]
    credit = world.credit(verifier) if verifier else 0
    world.do(world.deployer, "HarnessCourt", "refute", task, CHALLENGER)
    world.do(world.deployer, "Settlement", "release", task, 0)
    if progress in ("shown", "disclosed"):
        world.collect(BLOWERS[0], round_)
    assert accounts.gains() == [part(price, world.parameters["compensationRate"]), 0, 0, 0]
    if verifier:
        assert world.credit(verifier) == credit + paid
        assert world.stake_of(verifier) == 5 * ETHER
    assert_nothing_is_left(world, task)


@pytest.mark.parametrize("progress", ["drawn", "committed", "shown"])
def test_who_refutes_its_own_program_when_its_round_is_not_forced_has_paid_for_the_lottery(
    world: World, progress: str
) -> None:
    """Else a program with a fault that only its submitter knows would make every jackpot a free try."""
    round_ = world.draw(world.registered())
    if progress != "drawn":
        world.commit_for(round_, forced=False)
    escrow, gained, pool = world.bucket(ESCROW, round_.task), world.credit(SUBMITTER), world.pool
    price = world.see("Market", "taskOf", round_.task)[14]
    if progress == "shown":
        world.join(BLOWERS[0], round_)
        world.show(round_)
    world.do(world.deployer, "HarnessCourt", "refute", round_.task, CHALLENGER)
    world.do(world.deployer, "Settlement", "release", round_.task, 0)
    reward, parameters = world.posting()["highestReward"], world.parameters
    tax = 0 if progress == "drawn" else part(reward, parameters["taxRate"])
    earned = part(price, parameters["compensationRate"]) + part(reward, parameters["refuterRate"])
    assert world.pool == pool + tax
    assert world.credit(SUBMITTER) == gained + escrow - earned - tax


def test_who_keeps_its_files_back_when_a_round_is_not_forced_has_paid_for_the_lottery(chain: Chain) -> None:
    world = populated(chain, verifiers=6, maximalReplacements=4, maximalStepBacks=4)
    task = world.registered(verifiers=2)
    served = world.draw(task, 0)
    world.commit_for(served, forced=False)
    tax = part(world.posting()["highestReward"], world.parameters["taxRate"]) // 2
    for _ in range(4):
        kept_out = world.draw(task, 1)
        world.do(kept_out.verifier, "Verification", "stepBack", kept_out.id)
    assert world.state(task) == "Unavailable"
    world.do(world.deployer, "Settlement", "release", task, 1)
    pool = world.pool
    world.do(world.deployer, "Settlement", "release", task, 0)
    assert world.pool == pool + tax
    assert world.bucket(ESCROW, task) == 0
    assert world.bucket(FREE, served.verifier) == 5 * ETHER


def test_refuting_the_program_of_a_task_that_has_ended_changes_nothing(world: World) -> None:
    round_ = started(world)
    world.show(round_)
    world.disclose(round_)
    settle(world, round_)
    before = world.total(), world.pool
    world.do(world.deployer, "HarnessCourt", "refute", round_.task, CHALLENGER)
    assert (world.total(), world.pool, world.state(round_.task)) == (*before, "Settled")


def test_a_profile_that_does_not_separate_refuses_the_task(world: World) -> None:
    accounts = Accounts(world, [SUBMITTER])
    posting = world.posting(exact=False)
    task = world.submit(SUBMITTER, posting)
    round_ = world.draw(task, PROFILE, failing=True)
    world.finish(round_)
    world.after_window()
    escrow = world.see("Market", "escrowOf", tuple(posting.values()))
    world.do(world.deployer, "Settlement", "settleProfile", task)
    tax = world.see("Market", "taxOf", task)
    assert world.state(task) == "Refused"
    assert world.credit(round_.verifier) == posting["profilerFee"]
    assert accounts.gains() == [escrow - posting["profilerFee"] - tax - world.parameters["drawBounty"]]
    assert accounts.pool_gain() == tax
    assert_nothing_is_left(world, task)


def test_cancelling_after_a_profile_refunds_less_the_fees_earned(world: World) -> None:
    posting = world.posting(exact=False)
    task = world.submit(SUBMITTER, posting)
    escrow = world.bucket(ESCROW, task)
    world.profiled(task)
    world.do(SUBMITTER, "Market", "cancel", task)
    tax = world.see("Market", "taxOf", task)
    assert world.credit(SUBMITTER) == escrow - posting["profilerFee"] - tax - world.parameters["drawBounty"]
    assert_nothing_is_left(world, task)


@pytest.mark.parametrize("when", ["open", "drawn", "window"])
def test_nothing_settles_early(world: World, when: str) -> None:
    if when == "open":
        task = world.submit(SUBMITTER)
    else:
        round_ = world.draw(world.registered())
        task = round_.task
        if when == "window":
            world.finish(round_)
    with pytest.raises(RevertedError, match=r"WrongState|NotStanding"):
        world.do(world.deployer, "Settlement", "settle", task)
    with pytest.raises(RevertedError, match="WrongState"):
        world.do(world.deployer, "Settlement", "release", task, 0)
    with pytest.raises(RevertedError, match="WrongState"):
        world.do(world.deployer, "Settlement", "settleProfile", task)


def test_a_task_is_settled_and_released_once(world: World) -> None:
    round_ = started(world)
    world.show(round_)
    world.disclose(round_)
    settle(world, round_)
    repeats: list[Callable[[], object]] = [
        lambda: world.do(world.deployer, "Settlement", "settle", round_.task),
        lambda: world.do(world.deployer, "Settlement", "release", round_.task, 0),
        lambda: world.do(world.deployer, "Settlement", "release", round_.task, PROFILE),
        lambda: world.do(world.deployer, "Settlement", "release", round_.task, 1),
    ]
    before = world.total(), world.pool
    for repeat in repeats:
        with pytest.raises(RevertedError, match=r"WrongState|WrongShareState"):
            repeat()
    assert (world.total(), world.pool) == before


def test_a_claim_disclosed_before_its_task_failed_keeps_its_window(world: World) -> None:
    """An early end by another way does not make a wrong claim right."""
    round_ = world.draw(world.registered(True))
    truth = round_.truth
    round_.truth = world.wrong(round_, "lie")
    world.finish(round_)
    claim = world.do(CHALLENGER, "Claims", "publishTraining", round_.task).value
    case = world.open_case(CHALLENGER, claim, ZERO)
    world.close(case, claim, won=True)
    assert world.state(round_.task) == "Failed"
    with pytest.raises(RevertedError, match="NotStanding"):
        world.do(world.deployer, "Settlement", "release", round_.task, 0)
    case, claim = world.challenge(BLOWERS[0], round_, truth)
    world.close(case, claim, won=True)
    world.after_window()
    world.do(world.deployer, "Settlement", "release", round_.task, 0)
    assert world.credit(round_.verifier) == 0
    assert_nothing_is_left(world, round_.task)


@pytest.mark.smoke
def test_an_undisputed_task_with_one_verifier_costs_at_most_1_5_million_gas(world: World) -> None:
    world.gas.clear()
    round_ = started(world)
    world.show(round_)
    world.disclose(round_)
    settle(world, round_)
    functions = ("submit", "take", "register", "draw", "commit", "showReplay", "disclose", "settle")
    assert sum(world.gas[function] for function in functions) <= 1_500_000
