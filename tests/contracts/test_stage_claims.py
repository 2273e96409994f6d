"""What members of a group say about their stages: how it gets to court, and what it costs whom.

Here the court says on command who has won; tests/client/dispute/test_stage_cases.py plays whole cases before the real
one. What members of tolerant tasks accuse each other of is in test_stage_accusations.py.
"""

from __future__ import annotations

import pytest

from assay.market.group_agreement import sign_statement, stage_subject
from assay.market.stage_claims import stage_claim_id
from assay.market.types import StageWork
from group_world import CONTRIBUTIONS, DAY, HOUR, PEOPLE, SHARES, GroupActor, GroupsWorld, groups_world
from market_chain import Chain, RevertedError
from market_world import ETHER, MODULES, named
from stage_world import (
    ACCUSED,
    FINDER,
    LEADER,
    OUTSIDER,
    SEGMENT,
    expected_parts,
    paid_out,
    settled_stages,
    stages_of,
)

KINDS = ("Replay", "Profile", "Training", "Stage")


@pytest.fixture
def world(chain: Chain) -> GroupsWorld:
    return groups_world(chain)


# ---- Publishing -----------------------------------------------------------------------------------------------------


def test_a_published_statement_is_a_claim_of_its_member_about_its_own_program_and_data(world: GroupsWorld) -> None:
    stages = stages_of(world)
    work = stages.group.stage_work(SEGMENT, run=2)
    signature = stages.group.signed_stage(ACCUSED, work)
    outcome = world.do(OUTSIDER.address, "StageClaims", "publish", work, signature)
    event = outcome.event("StagePublished")
    assert event["claimId"] == outcome.value
    assert event["member"].lower() == ACCUSED.address.lower()
    _, _, _, _, program, data, start, end = work
    claim = stages.see("claim", outcome.value)
    posting = world.postings[stages.group.see("task")]
    assert KINDS[claim[0]] == "Stage"
    assert claim[1].lower() == ACCUSED.address.lower()
    assert claim[2:] == (
        end, 1, program, data, start, bytes(32), bytes(32),
        8, posting["interval"], posting["steps"], posting["taskSeed"], 0, True,
    )  # fmt: skip
    assert stages.see("segmentOf", outcome.value, 0) == SEGMENT
    assert stages.see("workOf", outcome.value)[1:] == work[1:]
    assert stages.see("memberOf", outcome.value).lower() == ACCUSED.address.lower()


def test_a_statement_is_published_once(world: GroupsWorld) -> None:
    stages = stages_of(world)
    work = stages.group.stage_work(SEGMENT)
    claim = stages.group.publish_stage(ACCUSED, work)
    again = world.do(OUTSIDER.address, "StageClaims", "publish", work, stages.group.signed_stage(ACCUSED, work))
    assert (again.value, again.events) == (claim, [])
    # Another member that says the same says it for itself.
    assert stages.group.publish_stage(FINDER, work) != claim


def test_the_client_signs_and_numbers_statements_as_the_contracts_do(world: GroupsWorld) -> None:
    from eth_account import Account

    stages = stages_of(world)
    group, task = stages.group, stages.group.see("task")
    work = StageWork(*group.stage_work(SEGMENT))
    assert work.statement(task).subject == stage_subject(*work.as_tuple()[2:-1])
    chain_id = 1  # of the chain in this process
    signature = sign_statement(work.statement(task), chain_id, group.address, Account.from_key(ACCUSED.key))
    claim = world.do(OUTSIDER.address, "StageClaims", "publish", work.as_tuple(), signature).value
    address = world.chain.addresses["StageClaims"]  # type: ignore[attr-defined]
    assert claim == stage_claim_id(chain_id, address, work, ACCUSED.address)


def test_only_a_members_signed_word_about_its_groups_exact_task_is_published(world: GroupsWorld) -> None:
    stages = stages_of(world)
    group = stages.group
    with pytest.raises(RevertedError, match="NotAMember"):
        stages.publish(OUTSIDER)
    with pytest.raises(RevertedError, match="NotAGroup"):
        stages.publish(group=OUTSIDER.address)
    with pytest.raises(RevertedError, match=r"NoSuchSegment\(8, 8\)"):
        stages.publish(segment=8)
    # Signed for something else in any of its fields: the signer found is nobody.
    work = group.stage_work(SEGMENT)
    signature = group.signed_stage(ACCUSED, work)
    for place in range(1, len(work)):
        other = [*work]
        other[place] = work[place] - 1 if isinstance(work[place], int) and work[place] else named("other")
        if place == 1:
            other[place] = 1
        with pytest.raises(RevertedError, match="NotAMember"):
            world.do(OUTSIDER.address, "StageClaims", "publish", tuple(other), signature)
    with pytest.raises(RevertedError, match="ECDSA"):
        world.do(OUTSIDER.address, "StageClaims", "publish", work, signature[:64])


def test_a_group_without_a_task_has_no_stages(world: GroupsWorld) -> None:
    group = GroupActor(world, PEOPLE, CONTRIBUTIONS, SHARES).ready()
    with pytest.raises(RevertedError, match="NoTask"):
        group.publish_stage(ACCUSED, group.stage_work(SEGMENT))


def test_a_statement_about_a_tolerant_task_is_refused(world: GroupsWorld) -> None:
    stages = stages_of(world, exact=False)
    with pytest.raises(RevertedError, match="WrongMode"):
        stages.publish()


# ---- Cases ----------------------------------------------------------------------------------------------------------


def test_a_false_statement_costs_its_member_contribution_and_share(world: GroupsWorld) -> None:
    stages = settled_stages(world)
    claim = stages.publish()
    case = stages.open(FINDER, claim)
    events = stages.close(case, won=True)
    assert [event.name for event in events if event.contract == "Group"] == ["StageConvicted"]
    assert stages.see("hasFallen", claim)
    assert stages.convicted == [False, True, False]
    assert stages.withdraw(FINDER) == stages.bond
    got = paid_out(stages)
    assert got[1] == 0
    assert got == expected_parts(stages, [False, True, False])


def test_a_true_statement_stands_and_its_member_has_the_bond(world: GroupsWorld) -> None:
    stages = settled_stages(world)
    claim = stages.publish()
    stages.close(stages.open(FINDER, claim), won=False)
    assert not stages.see("hasFallen", claim)
    assert stages.convicted == [False] * 3
    assert stages.credits == [0, stages.bond, 0]
    assert stages.withdraw(ACCUSED) == stages.bond
    with pytest.raises(RevertedError, match="NothingToWithdraw"):
        stages.withdraw(ACCUSED)
    assert paid_out(stages) == expected_parts(stages, [False] * 3)


def test_a_group_at_work_hears_of_a_fallen_statement_too(world: GroupsWorld) -> None:
    stages = stages_of(world)
    stages.close(stages.open(LEADER, stages.publish()), won=True)
    assert stages.group.state == "Working"
    assert stages.convicted == [False, True, False]


def test_a_challengers_clock_extensions_are_the_members(world: GroupsWorld) -> None:
    stages = stages_of(world)
    claim = stages.publish()
    cases = [stages.open(FINDER, claim) for _ in range(3)]
    stages.close(cases[0], won=False, overshoot=ETHER // 10)
    assert stages.credits == [0, stages.bond, 0]
    stages.close(cases[1], won=True, overshoot=ETHER // 10)
    assert stages.credits == [0, stages.bond + ETHER // 10, stages.bond - ETHER // 10]
    # No more than the bond.
    stages.close(cases[2], won=True, overshoot=100 * ETHER)
    assert stages.credits == [0, 2 * stages.bond + ETHER // 10, stages.bond - ETHER // 10]


def test_a_members_clock_extensions_are_not_charged(world: GroupsWorld) -> None:
    stages = stages_of(world)
    claim = stages.publish()
    cases = [stages.open(FINDER, claim) for _ in range(2)]
    stages.close(cases[0], won=False, overshoot=-ETHER)
    stages.close(cases[1], won=True, overshoot=-ETHER)
    assert stages.credits == [0, stages.bond, stages.bond]


def test_a_case_that_wins_after_the_statement_fell_gives_its_bond_back(world: GroupsWorld) -> None:
    stages = stages_of(world)
    claim = stages.publish()
    first, second, third = stages.open(FINDER, claim), stages.open(LEADER, claim), stages.open(FINDER, claim)
    stages.close(first, won=True)
    with pytest.raises(RevertedError, match="AlreadyFallen"):
        stages.open(LEADER, claim)
    events = stages.close(second, won=True)
    assert not [event for event in events if event.contract == "Group"]
    assert stages.credits == [stages.bond, 0, stages.bond]
    stages.close(third, won=False)
    assert stages.credits == [stages.bond, stages.bond, stages.bond]
    assert stages.see("pendingOf", stages.group.address) == 0
    assert stages.convicted == [False, True, False]


def test_outsiders_and_the_member_itself_open_no_case(world: GroupsWorld) -> None:
    stages = stages_of(world)
    claim = stages.publish()
    with pytest.raises(RevertedError, match="NotAMember"):
        stages.open(OUTSIDER, claim)
    with pytest.raises(RevertedError, match="OwnClaim"):
        stages.open(ACCUSED, claim)
    assert stages.see("pendingOf", stages.group.address) == 0


def test_a_case_needs_a_statement_its_bond_and_no_answer(world: GroupsWorld) -> None:
    stages = stages_of(world)
    claim = stages.publish()
    with pytest.raises(RevertedError, match="NoSuchClaim"):
        stages.open(FINDER, claim + 1)
    for value in (stages.bond - 1, stages.bond + 1):
        with pytest.raises(RevertedError, match="WrongValue"):
            stages.open(FINDER, claim, value=value)
    with pytest.raises(RevertedError, match="NothingToDecide"):
        stages.open(FINDER, claim, answer=named("answer"))


def test_a_case_is_opened_until_the_time_the_member_signed(world: GroupsWorld) -> None:
    stages = stages_of(world)
    claim = stages.publish(until=stages.group.now + HOUR)
    until = stages.see("workOf", claim)[3]
    # The call itself is in the next block.
    world.chain.move(seconds=until - stages.group.now - 12)
    stages.open(FINDER, claim)
    assert stages.group.now == until
    with pytest.raises(RevertedError, match="TooLate"):
        stages.open(FINDER, claim)


def test_a_case_is_opened_while_the_group_takes_evidence(world: GroupsWorld) -> None:
    stages = settled_stages(world)
    claim, other = stages.publish(), stages.publish(LEADER)
    until = stages.group.see("evidenceUntil")
    world.chain.move(seconds=until - stages.group.now - 12)
    case = stages.open(FINDER, claim)
    assert stages.group.now == until
    with pytest.raises(RevertedError, match="TooLate"):
        stages.open(FINDER, other)
    stages.close(case, won=False)
    stages.group.anyone("share")
    with pytest.raises(RevertedError, match="WrongState"):
        stages.open(FINDER, other)


def test_sharing_out_waits_for_an_open_case(world: GroupsWorld) -> None:
    stages = settled_stages(world)
    cases = [stages.open(FINDER, stages.publish()), stages.open(FINDER, stages.publish(LEADER))]
    world.chain.move(seconds=DAY + HOUR)
    for left in (2, 1):
        assert stages.see("pendingOf", stages.group.address) == left
        with pytest.raises(RevertedError, match=rf"CasesOpen\({left},\)"):
            stages.group.anyone("share")
        # The time to open cases is over; how one ends still counts.
        stages.close(cases[2 - left], won=left == 2)
    assert stages.convicted == [False, True, False]
    assert paid_out(stages) == expected_parts(stages, [False, True, False])


def test_cases_of_one_group_do_not_keep_another(world: GroupsWorld) -> None:
    stages = stages_of(world)
    other = settled_stages(world, nonce=1)
    world.chain.addresses["Group"] = stages.group.address  # type: ignore[attr-defined]
    stages.open(FINDER, stages.publish())
    world.chain.addresses["Group"] = other.group.address  # type: ignore[attr-defined]
    world.chain.move(seconds=DAY + HOUR)
    other.group.anyone("share")
    assert other.group.state == "Shared"


def test_a_statement_of_one_group_is_not_another_groups(world: GroupsWorld) -> None:
    stages = stages_of(world)
    work = stages.group.stage_work(SEGMENT)
    signature = stages.group.signed_stage(ACCUSED, work)
    other = stages_of(world, nonce=1)
    with pytest.raises(RevertedError, match="NotAMember"):
        world.do(OUTSIDER.address, "StageClaims", "publish", (other.group.address, *work[1:]), signature)


# ---- Who may call what ----------------------------------------------------------------------------------------------


def test_only_the_stages_court_opens_and_closes_cases(world: GroupsWorld) -> None:
    stages = stages_of(world)
    claim = stages.publish()
    with pytest.raises(RevertedError, match="NotTheCourt"):
        world.do(FINDER.address, "StageClaims", "caseOpened", 1, claim, FINDER.address, bytes(32), value=stages.bond)
    case = stages.open(FINDER, claim)
    with pytest.raises(RevertedError, match="NotTheCourt"):
        world.do(FINDER.address, "StageClaims", "caseClosed", case, claim, True, 0)
    other = stages.publish(LEADER)
    with pytest.raises(RevertedError, match="NoOpenCase"):
        world.do(FINDER.address, "StageCourt", "close", case, other, True, 0)
    stages.close(case, won=False)
    with pytest.raises(RevertedError, match="NoOpenCase"):
        world.do(FINDER.address, "StageCourt", "close", case, claim, True, 0)
    # The market's own court has nothing to say here, nor this one there.
    with pytest.raises(RevertedError, match="NoSuchClaim"):
        world.do(FINDER.address, "HarnessCourt", "open", claim, bytes(32), value=stages.bond)


def test_only_stage_claims_tell_a_group_that_a_statement_fell(world: GroupsWorld) -> None:
    stages = stages_of(world)
    for caller in (LEADER, OUTSIDER):
        with pytest.raises(RevertedError, match="NotStageClaims"):
            world.do(caller.address, "Group", "convictStage", ACCUSED.address, 1)
    assert stages.convicted == [False] * 3


def test_programs_are_not_judged_here(world: GroupsWorld) -> None:
    stages = stages_of(world)
    for name, arguments in (("programRefuted", (1, FINDER.address)), ("programRootOf", (1,))):
        with pytest.raises(RevertedError, match="NotJudgedHere"):
            stages.see(name, *arguments)


def test_the_market_has_no_coin_of_the_stages(world: GroupsWorld) -> None:
    stages = stages_of(world)
    before = world.total()
    stages.open(FINDER, stages.publish())
    assert world.total() == before
    balances = {name: world.chain.balance(world.chain.addresses[name]) for name in (*MODULES, "Groups", "StageCourt")}  # type: ignore[attr-defined]
    assert balances.pop("Stakes") == before
    assert not any(balances.values())


def test_a_member_that_cannot_be_paid_harms_only_itself(world: GroupsWorld) -> None:
    stages = stages_of(world)
    claim = stages.publish()
    for won in (False, True):
        stages.close(stages.open(FINDER, claim), won=won)
    evm, pyrevm = world.chain.evm, world.chain._pyrevm  # type: ignore[attr-defined]
    account = pyrevm.AccountInfo(balance=evm.get_balance(ACCUSED.address), code=bytes.fromhex("60006000fd"))
    evm.insert_account_info(ACCUSED.address, account)
    with pytest.raises(RevertedError):
        world.do(ACCUSED.address, "StageClaims", "withdraw")
    assert stages.credits == [0, stages.bond, stages.bond]
    assert stages.withdraw(FINDER) == stages.bond
