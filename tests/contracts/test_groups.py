"""Groups: several accounts as one solver."""

from __future__ import annotations

import random
from typing import Any

import pytest
from eth_abi import encode
from eth_utils import keccak

from group_world import (
    CONTRIBUTIONS,
    DAY,
    HOUR,
    PEOPLE,
    SHARES,
    GroupActor,
    GroupsWorld,
    Person,
    after_loss,
    divided,
)
from market_chain import Chain, RevertedError, address_of
from market_world import CREDIT, ETHER, FREE, LEAVING, LOCKED, MILLION, Round, World, claim_tree, named

LEADER, SECOND, THIRD = PEOPLE
OUTSIDER = address_of("outsider")
ACCUSER = address_of("whistleblower 0")


@pytest.fixture
def world(chain: Chain) -> GroupsWorld:
    world = GroupsWorld(chain)
    for number in range(3):
        world.verifier(f"verifier {number}")
        world.staked(f"whistleblower {number}", 2 * ETHER)
    world.staked("solver")
    return world


def group_of(world: World, owners: tuple[int, ...] = (), **changes: Any) -> GroupActor:
    """Three members, unequal in everything; segments are dealt to `owners` in turn."""
    return GroupActor(world, PEOPLE, CONTRIBUTIONS, SHARES, owners, changes)


# ---- Forming --------------------------------------------------------------------------------------------------------


def test_a_group_lies_where_its_agreement_says_and_its_leader_is_the_first_member(world: World) -> None:
    group = group_of(world)
    foreseen = world.see("Groups", "groupOf", group.agreement())
    assert group.form() == foreseen
    assert world.see("Groups", "isGroup", foreseen)
    assert not world.see("Groups", "isGroup", OUTSIDER)
    assert group.see("leader").lower() == LEADER.address.lower()
    assert group.state == "Forming"


def test_nobody_is_in_a_group_that_it_has_not_signed_for(world: World) -> None:
    group = group_of(world)
    signatures = group.signatures()
    forged = [signatures[0], signatures[0], signatures[2]]
    with pytest.raises(RevertedError, match="NotSigned"):
        world.do(OUTSIDER, "Groups", "form", group.agreement(), forged)
    with pytest.raises(RevertedError, match="WrongCount"):
        world.do(OUTSIDER, "Groups", "form", group.agreement(), signatures[:2])
    # Another share than the one signed for.
    other = group_of(world, nonce=1)
    with pytest.raises(RevertedError, match="NotSigned"):
        world.do(OUTSIDER, "Groups", "form", other.agreement(), signatures)


def test_an_agreement_forms_one_group(world: World) -> None:
    group = group_of(world)
    group.form()
    with pytest.raises(RevertedError):
        group.form()
    group_of(world, nonce=1).form()


def test_a_group_is_initialised_by_its_factory_and_once(world: World) -> None:
    group = group_of(world)
    group.form()
    with pytest.raises(RevertedError, match="NotTheFactory"):
        world.do(LEADER.address, "Group", "initialize", group.agreement())
    world.chain.addresses["Group"] = world.see("Groups", "TEMPLATE")  # type: ignore[attr-defined]
    with pytest.raises(RevertedError, match="NotTheFactory"):
        world.do(LEADER.address, "Group", "initialize", group.agreement())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"members": []}, "OutOfRange"),
        ({"members": [(LEADER.address, ETHER, MILLION)] * 33}, "OutOfRange"),
        ({"members": [(LEADER.address, ETHER, MILLION - 1)]}, "NotOneMillion"),
        ({"members": [(LEADER.address, ETHER, MILLION), (SECOND.address, ETHER, 0)]}, "OutOfRange"),
        ({"members": [(LEADER.address, ETHER, 500_000), (LEADER.address, ETHER, 500_000)]}, "MemberTwice"),
        ({"mostStake": sum(CONTRIBUTIONS) + 1}, "OutOfRange"),
        ({"owners": [0, 3]}, "OutOfRange"),
        ({"owners": [0] * 257}, "OutOfRange"),
        ({"formBy": 1}, "OutOfRange"),
        ({"takeBy": 2}, "OutOfRange"),
        ({"patience": 0}, "OutOfRange"),
        ({"patience": 31 * DAY}, "OutOfRange"),
        ({"evidenceSeconds": 31 * DAY}, "OutOfRange"),
        ({"presenceRate": MILLION + 1}, "OutOfRange"),
    ],
)
def test_an_agreement_that_cannot_be_kept_is_refused(world: World, changes: dict[str, Any], error: str) -> None:
    group = group_of(world, **changes)
    with pytest.raises(RevertedError, match=error):
        world.do(OUTSIDER, "Groups", "form", group.agreement(), [bytes(65)] * len(group.agreement()[0]))


def test_contributions_are_exact_made_once_and_in_time(world: World) -> None:
    group = group_of(world)
    group.form()
    with pytest.raises(RevertedError, match="WrongValue"):
        world.do(SECOND.address, "Group", "contribute", 1, value=CONTRIBUTIONS[1] - 1)
    # Whoever pays, it is the member's.
    group.contribute(1, payer=OUTSIDER)
    with pytest.raises(RevertedError, match="NothingOwed"):
        group.contribute(1)
    group.contribute(0)
    assert group.state == "Forming"
    group.contribute(2)
    assert group.state == "Ready"
    late = group_of(world, nonce=2)
    late.form()
    world.chain.move(seconds=DAY + HOUR)
    with pytest.raises(RevertedError, match="TooLate"):
        late.contribute(0)


def test_members_without_a_contribution_need_not_pay(world: World) -> None:
    group = GroupActor(world, PEOPLE, [2 * ETHER, 0, 0], SHARES).ready()
    assert group.state == "Ready"
    group.lead("dissolve")
    assert group.withdraw_all() == [2 * ETHER, 0, 0]


def test_coin_that_nobody_owes_is_not_taken(world: World) -> None:
    group = group_of(world)
    group.form()
    with pytest.raises(RuntimeError):
        world.chain.evm.message_call(OUTSIDER, group.address, b"", value=1)  # type: ignore[attr-defined]


def test_a_member_that_never_contributes_keeps_nobody_elses_coin(world: World) -> None:
    group = group_of(world)
    group.form()
    group.contribute(0)
    group.contribute(2)
    with pytest.raises(RevertedError, match="TooEarly"):
        group.anyone("dissolve")
    world.chain.move(seconds=DAY + HOUR)
    group.anyone("dissolve")
    assert group.credits == [CONTRIBUTIONS[0], 0, CONTRIBUTIONS[2]]
    assert group.withdraw_all() == [CONTRIBUTIONS[0], 0, CONTRIBUTIONS[2]]
    assert world.chain.balance(group.address) == 0
    with pytest.raises(RevertedError, match="NothingToWithdraw"):
        world.do(SECOND.address, "Group", "withdraw")


def test_a_leader_dissolves_a_group_without_a_task_at_once_others_after_the_time_to_take_one(world: World) -> None:
    group = group_of(world).ready()
    with pytest.raises(RevertedError, match="TooEarly"):
        world.do(SECOND.address, "Group", "dissolve")
    group.lead("dissolve")
    assert group.credits == CONTRIBUTIONS
    with pytest.raises(RevertedError, match="WrongState"):
        group.lead("dissolve")
    other = group_of(world, nonce=1).ready()
    world.chain.move(seconds=8 * DAY)
    other.anyone("dissolve")
    assert other.withdraw_all() == CONTRIBUTIONS


# ---- Taking a task --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"task": 1}, "OutsideLimits"),
        ({"mostStake": 3 * ETHER}, "OutsideLimits"),
        ({"leastPrice": 11 * ETHER}, "PriceTooLow"),
    ],
)
def test_a_leader_takes_nothing_outside_the_limits(world: World, changes: dict[str, Any], error: str) -> None:
    group = group_of(world, **changes).ready()
    task = world.submit(address_of("submitter"))
    with pytest.raises(RevertedError, match=error):
        group.lead("take", task, 0)
    assert group.state == "Ready"
    assert world.chain.balance(group.address) == sum(CONTRIBUTIONS)


def test_only_the_leader_leads_and_only_in_time(world: World) -> None:
    group = group_of(world).ready()
    task = world.submit(address_of("submitter"))
    for call in (("take", task, 0), ("stepDown",), ("stay",), ("register", bytes(32), bytes(32), [], [], "")):
        with pytest.raises(RevertedError, match="NotTheLeader"):
            world.do(SECOND.address, "Group", *call)
    world.chain.move(seconds=7 * DAY + HOUR)
    with pytest.raises(RevertedError, match="TooLate"):
        group.lead("take", task, 0)


def test_a_group_takes_one_task(world: World) -> None:
    group = group_of(world).ready()
    task = group.working()
    assert world.see("Market", "termsOf", task)[1].lower() == group.address.lower()
    assert world.bucket(LOCKED, group.address) == world.see("Market", "stakeOf", task)
    with pytest.raises(RevertedError, match="WrongState"):
        group.working()
    with pytest.raises(RevertedError, match="WrongState"):
        group.lead("dissolve")
    with pytest.raises(RevertedError, match="TaskRunning"):
        group.anyone("close")


# ---- A leader that disappears ---------------------------------------------------------------------------------------


def test_any_member_takes_a_silent_leaders_place_and_nobody_elses(world: World) -> None:
    group = group_of(world).ready()
    task = group.working()
    world.chain.move(seconds=HOUR // 2)
    group.lead("stay")
    world.chain.move(seconds=HOUR * 3 // 4)
    with pytest.raises(RevertedError, match="TooEarly"):
        world.do(SECOND.address, "Group", "takeOver")
    world.chain.move(seconds=HOUR // 2)
    with pytest.raises(RevertedError, match="NotAMember"):
        world.do(OUTSIDER, "Group", "takeOver")
    world.do(SECOND.address, "Group", "takeOver")
    with pytest.raises(RevertedError, match="NotTheLeader"):
        group.lead("stepDown")
    # The new leader is as safe as the old one was.
    with pytest.raises(RevertedError, match="TooEarly"):
        world.do(THIRD.address, "Group", "takeOver")
    tree = world.states_of(task)
    assert len(tree) == 9
    world.do(SECOND.address, "Group", "stepDown")
    assert world.state(task) == "Open"


def test_what_stepping_down_costs_is_borne_in_proportion(world: World) -> None:
    group = group_of(world).ready()
    task = group.working()
    stake = world.see("Market", "stakeOf", task)
    group.lead("stepDown")
    group.shared()
    forfeit = stake * world.parameters["stepDownRate"] // MILLION
    left = sum(CONTRIBUTIONS) - forfeit
    assert world.pool == forfeit
    group.assert_balanced()
    group.unbonded()
    assert group.credits == after_loss(CONTRIBUTIONS, [False] * 3, SHARES, left)
    assert sum(group.withdraw_all()) == left


def test_a_late_group_is_closed_by_anyone(world: World) -> None:
    group = group_of(world).ready()
    task = group.working()
    world.chain.move(seconds=world.posting()["trainSeconds"] + HOUR)
    world.do(OUTSIDER, "Market", "late", task)
    group.shared()
    group.unbonded()
    lost = world.pool
    assert lost > 0
    assert sum(group.withdraw_all()) == sum(CONTRIBUTIONS) - lost
    assert world.chain.balance(group.address) == 0


def test_a_task_taken_by_another_after_the_group_stepped_down_does_not_keep_it(world: World) -> None:
    group = group_of(world).ready()
    task = group.working()
    group.lead("stepDown")
    world.take(address_of("solver"), task)
    group.shared()
    group.unbonded()
    group.assert_balanced()


# ---- Sharing out ----------------------------------------------------------------------------------------------------


def test_a_reward_is_split_by_shares_to_the_wei_and_the_stake_comes_back_whole(world: World) -> None:
    group = group_of(world).ready()
    task = group.settled(lowestReward=4 * ETHER + 7, highestReward=4 * ETHER + 7)
    price = world.see("Market", "termsOf", task)[10]
    stake = world.see("Market", "stakeOf", task)
    assert price == 4 * ETHER + 7
    group.anyone("close")
    with pytest.raises(RevertedError, match="TooEarly"):
        group.anyone("share")
    world.chain.move(seconds=DAY + HOUR)
    group.anyone("share")
    rewards = divided(price, SHARES)
    here = sum(CONTRIBUTIONS) - stake
    now = [contribution * here // sum(CONTRIBUTIONS) for contribution in CONTRIBUTIONS]
    assert group.credits == [a + b for a, b in zip(rewards, now, strict=True)]
    group.assert_balanced()
    assert group.withdraw_all() == [a + b for a, b in zip(rewards, now, strict=True)]
    group.anyone("collect")  # too early for the stake: nothing happens
    assert group.credits == [0, 0, 0]
    group.unbonded()
    assert group.withdraw_all() == [a - b for a, b in zip(CONTRIBUTIONS, now, strict=True)]
    assert world.chain.balance(group.address) == 0
    assert [world.bucket(kind, group.address) for kind in (FREE, LOCKED, CREDIT)] == [0, 0, 0]


def test_stake_that_an_outsider_released_is_still_told_from_income(world: World) -> None:
    group = group_of(world).ready()
    group.settled()
    group.shared()
    group.withdraw_all()
    world.chain.move(seconds=world.parameters["unbondingSeconds"] + HOUR)
    due = [each.due for each in group.positions]
    world.do(OUTSIDER, "Stakes", "release", group.address)
    group.assert_balanced()
    group.anyone("collect")
    assert group.credits == due


def test_income_that_comes_after_sharing_is_split_like_the_reward(world: World) -> None:
    """A case against the training claim that outlives its task is lost, and half its bond is the group's."""
    group = group_of(world).ready()
    task = group.working()
    group.register(task)
    claim = world.do(ACCUSER, "Claims", "publishTraining", task).value
    first, second = (world.open_case(ACCUSER, claim, bytes(32)) for _ in range(2))
    world.close(first, claim, won=True)
    assert world.state(task) == "Failed"
    group.shared()
    before = group.credits
    world.close(second, claim, won=False)
    group.anyone("collect")
    income = divided(world.parameters["caseBond"] // 2, SHARES)
    assert group.credits == [a + b for a, b in zip(before, income, strict=True)]
    group.assert_balanced()


def test_a_member_that_cannot_be_paid_harms_only_itself(world: World) -> None:
    group = group_of(world).ready()
    group.lead("dissolve")
    with pytest.raises(RuntimeError, match=error_in_hex("TransferFailed(address,uint256)")):
        withdraw_as_a_contract(group, SECOND, "60006000fd")  # reverts when it is paid
    assert group.credits == CONTRIBUTIONS
    world.do(LEADER.address, "Group", "withdraw")
    world.do(THIRD.address, "Group", "withdraw")
    assert world.chain.balance(group.address) == CONTRIBUTIONS[1]


def test_a_member_that_calls_back_while_it_is_paid_gets_nothing_more(world: World) -> None:
    group = group_of(world).ready()
    group.lead("dissolve")
    before = world.chain.balance(SECOND.address)
    withdraw_as_a_contract(group, SECOND, call_withdraw(group) + "5000")  # once more, whatever comes of it
    assert world.chain.balance(SECOND.address) == before + CONTRIBUTIONS[1]
    assert world.chain.balance(group.address) == CONTRIBUTIONS[0] + CONTRIBUTIONS[2]
    assert group.credits[1] == 0


def error_in_hex(signature: str) -> str:
    return bytes(keccak(text=signature)[:4]).hex()


def call_withdraw(group: GroupActor) -> str:
    """Code: call the group's `withdraw`; its success is left on the stack."""
    selector = bytes(keccak(text="withdraw()")[:4]).hex()
    return f"63{selector}600052" + "600060006004601c6000" + f"73{group.address[2:]}5af1"


def withdraw_as_a_contract(group: GroupActor, member: Person, when_paid: str) -> None:
    """A member whose account has code, as EIP-7702 allows: it withdraws, and runs `when_paid` when coin arrives."""
    ask = call_withdraw(group)
    good = 4 + len(ask) // 2 + 3 + 10  # behind the jump on callvalue, the call, the jump on success, and the revert
    paid = good + 2
    code = f"3460{paid:02x}57{ask}60{good:02x}57" + "3d600060003e3d6000fd" + "5b00" + "5b" + when_paid
    evm, pyrevm = group.world.chain.evm, group.world.chain._pyrevm  # type: ignore[attr-defined]
    balance = evm.get_balance(member.address)
    evm.insert_account_info(member.address, pyrevm.AccountInfo(balance=balance, code=bytes.fromhex(code)))
    evm.message_call(OUTSIDER, member.address, b"")


# ---- Fault ----------------------------------------------------------------------------------------------------------


def failed_round(group: GroupActor, **changes: Any) -> tuple[int, Round]:
    """A tolerant task whose drawn segments both fail the proof; the group is closed."""
    world = group.world
    task = world.submit(address_of("submitter"), world.posting(False, **changes))
    world.profiled(task)
    group.lead("take", task, 0)
    group.register(task)
    round_ = world.draw(task, failing=True)
    world.finish(round_)
    world.after_window()
    world.do(world.deployer, "Settlement", "settle", task)
    assert world.state(task) == "Failed"
    group.anyone("close")
    return task, round_


def blame_round(group: GroupActor, round_: Round, place: int, signer: Person) -> None:
    work, signature = group.work(signer, round_.task, round_.segments[place])
    proof = claim_tree(round_.segments, round_.truth).proof(place)
    group.anyone("blameRound", 0, place, round_.truth[place], proof, work, signature)


def shared_after(group: GroupActor) -> list[int]:
    """What everybody has in the end."""
    group.world.chain.move(seconds=DAY + HOUR)
    group.anyone("share")
    group.assert_balanced()
    if any(each.due for each in group.positions):
        group.unbonded()
        group.assert_balanced()
    return group.withdraw_all()


def test_a_failed_task_is_charged_to_all_where_nobody_is_shown_to_be_at_fault(world: World) -> None:
    group = group_of(world, owners=(0, 1, 2)).ready()
    task, _ = failed_round(group)
    left = sum(CONTRIBUTIONS) - world.see("Market", "stakeOf", task)
    assert shared_after(group) == after_loss(CONTRIBUTIONS, [False] * 3, SHARES, left)


def test_who_signed_for_the_failing_segment_is_charged_first(world: World) -> None:
    group = group_of(world, owners=(1,)).ready()
    task, round_ = failed_round(group)
    blame_round(group, round_, 0, SECOND)
    stake = world.see("Market", "stakeOf", task)
    assert stake > CONTRIBUTIONS[1]
    got = shared_after(group)
    assert got[1] == 0
    assert got == after_loss(CONTRIBUTIONS, [False, True, False], SHARES, sum(CONTRIBUTIONS) - stake)
    assert sum(got) == sum(CONTRIBUTIONS) - stake


def test_a_member_at_fault_keeps_what_exceeds_the_loss(world: World) -> None:
    group = GroupActor(world, PEOPLE, [ETHER, 20 * ETHER, ETHER], SHARES, (1,)).ready()
    task, round_ = failed_round(group)
    blame_round(group, round_, 1, SECOND)
    stake = world.see("Market", "stakeOf", task)
    assert shared_after(group) == [ETHER, 20 * ETHER - stake, ETHER]


def test_nobody_is_charged_for_a_segment_it_did_not_sign_for(world: World) -> None:
    group = group_of(world, owners=(1,)).ready()
    task, round_ = failed_round(group)
    place, leaf = 0, round_.truth[0]
    proof = claim_tree(round_.segments, round_.truth).proof(place)
    # The leader signs in the owner's place.
    work, signature = group.work(LEADER, task, round_.segments[place])
    with pytest.raises(RevertedError, match="NotTheSigner"):
        group.anyone("blameRound", 0, place, leaf, proof, work, signature)
    # The owner had trained something else than what the leader registered.
    segment = round_.segments[place]
    subject = keccak(encode(["string", "uint32", "bytes32"], ["work", segment, work[1]]))
    other = group.signed(SECOND, (task, 0, subject, named("what was trained")))
    with pytest.raises(RevertedError, match="WrongHash"):
        group.anyone("blameRound", 0, place, leaf, proof, (*work[:3], named("what was trained"), work[4]), other)
    assert not any(each.is_liable for each in group.positions)


def test_only_a_segment_that_fails_in_a_claim_that_stands_is_blamed(world: World) -> None:
    group = group_of(world, owners=(1,)).ready()
    task, round_ = failed_round(group)
    segment = round_.segments[0]
    work, signature = group.work(SECOND, task, segment)
    proof = claim_tree(round_.segments, round_.truth).proof(0)
    good = (round_.truth[0][0], 0x3F000000, round_.truth[0][2])
    with pytest.raises(RevertedError, match="NotProven"):
        group.anyone("blameRound", 0, 0, good, proof, work, signature)
    with pytest.raises(RevertedError, match="WrongHash"):
        group.anyone("blameRound", 0, 0, (good[0], 0x40000001, good[2]), proof, work, signature)
    for share, place in ((1, 0), (0, 2), (255, 0)):
        with pytest.raises(RevertedError, match="NotProven"):
            group.anyone("blameRound", share, place, round_.truth[0], proof, work, signature)
    with pytest.raises(RevertedError, match="NotProven"):
        group.anyone("blameAccusation", segment, ACCUSER, work, signature)


def test_nobody_is_charged_for_the_proof_of_whoever_took_the_task_after_the_group(world: World) -> None:
    group = group_of(world, owners=(1,), evidenceSeconds=30 * DAY).ready()
    task = world.submit(address_of("submitter"), world.posting(False))
    world.profiled(task)
    group.lead("take", task, 0)
    group.lead("stepDown")
    group.anyone("close")
    # Who takes it then registers what the members had trained, and lets an untrue claim fail it.
    solver = world.staked("another solver")
    world.take(solver, task)
    world.register(solver, task)
    round_ = world.draw(task, failing=True)
    world.finish(round_)
    world.after_window()
    world.do(world.deployer, "Settlement", "settle", task)
    assert world.state(task) == "Failed"
    with pytest.raises(RevertedError, match="NotProven"):
        blame_round(group, round_, 0, SECOND)
    assert not any(each.is_liable for each in group.positions)


def test_a_segment_that_is_nobodys_is_nobodys_fault(world: World) -> None:
    group = group_of(world).ready()
    _, round_ = failed_round(group)
    with pytest.raises(RevertedError, match="NobodysSegment"):
        blame_round(group, round_, 0, SECOND)


def accused(group: GroupActor) -> tuple[int, int]:
    """A tolerant task that an accusation of a segment not drawn has failed: the task, and the segment."""
    world = group.world
    task = world.submit(address_of("submitter"), world.posting(False))
    world.profiled(task)
    group.lead("take", task, 0)
    group.register(task)
    round_ = world.draw(task)
    segment = next(s for s in range(8) if s not in round_.segments)
    leaf = [(named("state", segment + 1), 0x40000000, named("trace"))]
    openings = world.openings(task, [segment])
    bond = world.parameters["accusationBond"]
    line = world.do(ACCUSER, "Claims", "accuse", task, segment, leaf, openings, value=bond).value
    world.after_window()
    world.do(ACCUSER, "Claims", "closeAccusation", line)
    assert world.state(task) == "Failed"
    assert world.see("Claims", "causeOf", task) == line
    group.anyone("close")
    return task, segment


def test_an_accusation_that_failed_the_task_is_charged_to_the_segments_owner(world: World) -> None:
    group = group_of(world, owners=(0, 1, 2)).ready()
    task, segment = accused(group)
    owner = PEOPLE[segment % 3]
    work, signature = group.work(owner, task, segment)
    with pytest.raises(RevertedError, match="NotProven"):
        group.anyone("blameAccusation", segment, OUTSIDER, work, signature)
    with pytest.raises(RevertedError, match="NotProven"):
        group.anyone("blameAccusation", (segment + 3) % 8, ACCUSER, work, signature)
    group.anyone("blameAccusation", segment, ACCUSER, work, signature)
    stake = world.see("Market", "stakeOf", task)
    fault = [place == segment % 3 for place in range(3)]
    assert shared_after(group) == after_loss(CONTRIBUTIONS, fault, SHARES, sum(CONTRIBUTIONS) - stake)


def test_nobody_is_blamed_for_a_task_that_did_not_fail(world: World) -> None:
    group = group_of(world, owners=(1,)).ready()
    task = group.settled()
    group.anyone("close")
    work, signature = group.work(SECOND, task, 3)
    with pytest.raises(RevertedError, match="NotProven"):
        group.anyone("blameAccusation", 3, ACCUSER, work, signature)


def conflict(group: GroupActor, person: Person, task: int, changes: dict[str, Any] | None = None) -> list[Any]:
    """Two signed statements about one subject."""
    subject = named("messages of steps 0 to 10")
    first = (task, 0, subject, named("sent"))
    other = {"task": task, "run": 0, "subject": subject} | (changes or {})
    second = (other["task"], other["run"], other["subject"], named("also sent"))
    return [first, group.signed(person, first), second, group.signed(person, second)]


def test_a_member_that_signed_two_things_about_one_loses_contribution_and_share(world: World) -> None:
    group = group_of(world).ready()
    task = group.settled()
    group.anyone("convict", 1, *conflict(group, SECOND, task))
    group.anyone("close")
    price = world.see("Market", "termsOf", task)[10]
    weights = [SHARES[0], 0, SHARES[2]]
    got = shared_after(group)
    assert got[1] == 0
    expected = after_loss(CONTRIBUTIONS, [False, True, False], weights, sum(CONTRIBUTIONS))
    assert got == [a + b for a, b in zip(expected, divided(price, weights), strict=True)]
    assert world.chain.balance(group.address) == 0


@pytest.mark.parametrize("changes", [{"task": 1}, {"run": 1}, {"subject": bytes(32)}])
def test_statements_about_different_things_convict_nobody(world: World, changes: dict[str, Any]) -> None:
    group = group_of(world).ready()
    task = group.working()
    with pytest.raises(RevertedError, match="NoConflict"):
        group.anyone("convict", 1, *conflict(group, SECOND, task, changes))
    same = conflict(group, SECOND, task)
    with pytest.raises(RevertedError, match="NoConflict"):
        group.anyone("convict", 1, *same[:2], *same[:2])
    group.anyone("convict", 1, *same)


def test_nobody_is_convicted_by_another_members_signature_or_in_another_group(world: World) -> None:
    group = group_of(world).ready()
    task = group.working()
    with pytest.raises(RevertedError, match="NotTheSigner"):
        group.anyone("convict", 0, *conflict(group, SECOND, task))
    signed = conflict(group, SECOND, task)
    group.lead("stepDown")
    other = group_of(world, nonce=1).ready()
    other.lead("take", task, 0)
    with pytest.raises(RevertedError, match="NotTheSigner"):
        other.anyone("convict", 1, *signed)


def test_where_all_are_convicted_nobody_is(world: World) -> None:
    group = group_of(world).ready()
    task = group.settled()
    for place, person in enumerate(PEOPLE):
        group.anyone("convict", place, *conflict(group, person, task))
    group.anyone("close")
    price = world.see("Market", "termsOf", task)[10]
    expected = [a + b for a, b in zip(CONTRIBUTIONS, divided(price, SHARES), strict=True)]
    assert shared_after(group) == expected


def test_evidence_comes_too_late_once_the_coin_is_shared_out(world: World) -> None:
    group = group_of(world, owners=(1,)).ready()
    task, round_ = failed_round(group)
    evidence = conflict(group, SECOND, task)
    world.chain.move(seconds=DAY + HOUR)
    group.anyone("share")
    with pytest.raises(RevertedError, match="WrongState"):
        group.anyone("convict", 1, *evidence)
    with pytest.raises(RevertedError, match="WrongState"):
        blame_round(group, round_, 0, SECOND)


# ---- The ledger -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_credits_are_what_came_in_whatever_happens(world: World, seed: int) -> None:
    """Random groups, random ends, random faults: to the wei."""
    rng = random.Random(seed)
    count = rng.randint(1, 5)
    people = [Person(f"random {seed} {number}") for number in range(count)]
    contributions = [rng.choice([0, rng.randint(1, 10**20), 3 * ETHER]) for _ in people]
    contributions[rng.randrange(count)] += 5 * ETHER
    cuts = sorted(rng.sample(range(1, MILLION), count - 1))
    shares = [b - a for a, b in zip([0, *cuts], [*cuts, MILLION], strict=True)]
    owners = [rng.randrange(count) for _ in range(rng.randint(1, 4))]
    group = GroupActor(world, people, contributions, shares, owners).ready()
    end = rng.choice(["settled", "failed", "steps down", "late"])
    income, at_fault, weights = 0, [False] * count, list(shares)
    convicted = [place for place in range(count) if rng.random() < 0.3]
    if end == "settled":
        task = group.settled(lowestReward=rng.randint(1, 5 * ETHER))
        income = world.see("Market", "termsOf", task)[10]
        group.anyone("close")
    elif end == "failed":
        task, round_ = failed_round(group)
        for place, segment in enumerate(round_.segments):
            if rng.random() < 0.7:
                owner = owners[segment % len(owners)]
                blame_round(group, round_, place, people[owner])
                at_fault[owner] = True
    else:
        task = group.working()
        if end == "late":
            world.chain.move(seconds=world.posting()["trainSeconds"] + rng.randint(1, DAY))
            world.do(OUTSIDER, "Market", "late", task)
        else:
            group.lead("stepDown")
        group.anyone("close")
    for place in convicted:
        group.anyone("convict", place, *conflict(group, people[place], task))
        at_fault[place] = True
    if len(convicted) < count:
        weights = [0 if place in convicted else share for place, share in enumerate(shares)]
    stake = world.see("Market", "stakeOf", task)
    left = sum(contributions) - stake + world.bucket(LEAVING, group.address)
    expected = after_loss(contributions, at_fault, weights, left)
    if income:
        expected = [a + b for a, b in zip(expected, divided(income, weights), strict=True)]
    got = shared_after(group)
    assert got == expected
    assert sum(got) == left + income
    assert world.chain.balance(group.address) == 0
