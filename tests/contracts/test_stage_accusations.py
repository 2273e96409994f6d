"""What members of a tolerant task accuse each other of: how it stands or falls, and what it costs whom.

Here the court says on command who has won; tests/client/dispute/test_stage_cases.py plays whole cases before the real
one.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from assay.market.stage_claims import stage_accusation_id
from assay.market.types import StageWork
from group_world import CONTRIBUTIONS, DAY, HOUR, PEOPLE, SHARES, GroupActor, GroupsWorld, groups_world
from market_chain import Chain, RevertedError
from market_world import ETHER, Tree, named, sha
from stage_world import (
    ACCUSED,
    FAULT,
    FINDER,
    LEADER,
    OUTSIDER,
    SEGMENT,
    Stages,
    bits,
    ended,
    expected_parts,
    paid_out,
    scalar_leaf,
    settled_stages,
    stages_of,
)

STAGE = 3  # ClaimKind
NAN = 0x7FC00000


@pytest.fixture
def world(chain: Chain) -> GroupsWorld:
    return groups_world(chain)


@pytest.fixture
def stages(world: GroupsWorld) -> Stages:
    """A group at work on a tolerant task."""
    return stages_of(world, exact=False)


@pytest.fixture
def settled(world: GroupsWorld) -> Stages:
    """The same, whose task is done and paid for, and whose group is closed."""
    return settled_stages(world, exact=False)


# ---- Accusing -------------------------------------------------------------------------------------------------------


def test_an_accusation_is_a_claim_of_its_accuser_about_where_the_members_program_ends(stages: Stages) -> None:
    work, end = stages.work(run=2), ended()
    outcome = stages.accused(work=work, end=end)
    claim, until = outcome.value, stages.group.now + stages.see("WINDOW")
    event = outcome.event("StageAccused")
    assert (event["claimId"], event["endRoot"], event["until"]) == (claim, end.root, until)
    assert event["work"][1:] == work[1:]
    members = [event["group"], event["member"], event["accuser"], event["work"][0]]
    expected = [stages.group.address, ACCUSED.address, FINDER.address, stages.group.address]
    assert [each.lower() for each in members] == [each.lower() for each in expected]
    _, _, _, _, program, data, start, _ = work
    found = stages.see("claim", claim)
    posting = stages.world.postings[stages.group.see("task")]
    assert found[0] == STAGE
    assert found[1].lower() == FINDER.address.lower()
    assert found[2:] == (
        end.root, 1, program, data, start, bytes(32), bytes(32),
        8, posting["interval"], posting["steps"], posting["taskSeed"], 0, True,
    )  # fmt: skip
    assert stages.see("segmentOf", claim, 0) == SEGMENT
    assert stages.see("workOf", claim)[1:] == work[1:]
    assert stages.see("memberOf", claim).lower() == ACCUSED.address.lower()
    assert stages.see("accusationOf", claim)[1:] == (until, 0, False, end.root)
    assert stages.convicted == [False] * 3


def test_the_window_and_the_bonds_are_the_deployments(stages: Stages) -> None:
    parameters = stages.world.parameters
    assert stages.see("WINDOW") == parameters["disputeSeconds"]
    assert stages.see("ACCUSATION_BOND") == parameters["accusationBond"]
    assert stages.see("CASE_BOND") == parameters["caseBond"]


def test_the_client_numbers_accusations_as_the_contract_does(stages: Stages) -> None:
    work = StageWork(*stages.work())
    address = stages.world.chain.addresses["StageClaims"]  # type: ignore[attr-defined]
    claim = stages.accuse(work=work.as_tuple())
    assert claim == stage_accusation_id(1, address, work, ACCUSED.address, FINDER.address)


def test_a_member_accuses_another_once_of_one_work(stages: Stages) -> None:
    work = stages.work()
    stages.accuse(work=work)
    for end in (ended(), ended(name="other")):
        with pytest.raises(RevertedError, match="AlreadyAccused"):
            stages.accuse(work=work, end=end)
    # Others speak for themselves, another statement is another work, and another member another signer.
    stages.accuse(LEADER, work=work)
    stages.accuse(work=stages.work(run=1))
    stages.accuse(member=LEADER, work=work)
    assert stages.see("pendingOf", stages.group.address) == 4


def test_an_accusation_that_fell_or_stood_is_not_made_again(stages: Stages) -> None:
    work, other = stages.work(), stages.work(run=1)
    fallen, standing = stages.accuse(work=work), stages.accuse(work=other)
    stages.close(stages.open(ACCUSED, fallen), won=True)
    stages.after_window(standing)
    stages.conclude(standing)
    for each in (work, other):
        with pytest.raises(RevertedError, match="AlreadyAccused"):
            stages.accuse(work=each)


def test_only_a_members_signed_word_about_its_groups_tolerant_task_is_accused(
    world: GroupsWorld, stages: Stages
) -> None:
    with pytest.raises(RevertedError, match="NotAMember"):
        stages.accuse(member=OUTSIDER)
    with pytest.raises(RevertedError, match="NotAGroup"):
        stages.accuse(work=stages.work(group=OUTSIDER.address))
    with pytest.raises(RevertedError, match=r"NoSuchSegment\(8, 8\)"):
        stages.accuse(work=stages.work(segment=8))
    work = stages.work()
    signature = stages.group.signed_stage(ACCUSED, work)
    for place in range(1, len(work)):
        other = [*work]
        other[place] = work[place] - 1 if isinstance(work[place], int) and work[place] else named("other")
        if place == 1:
            other[place] = 1
        with pytest.raises(RevertedError, match="NotAMember"):
            stages.accuse(work=tuple(other), signature=signature)
    with pytest.raises(RevertedError, match="ECDSA"):
        stages.accuse(work=work, signature=signature[:64])
    exact = stages_of(world, nonce=1)
    with pytest.raises(RevertedError, match=r"WrongMode\(\d+, True\)"):
        exact.accuse()


def test_a_group_without_a_task_accuses_nobody(world: GroupsWorld) -> None:
    with pytest.raises(RevertedError, match="NoTask"):
        Stages(GroupActor(world, PEOPLE, CONTRIBUTIONS, SHARES).ready()).accuse()


def test_a_statement_that_names_its_end_is_not_accused(stages: Stages) -> None:
    with pytest.raises(RevertedError, match="EndStated"):
        stages.accuse(work=stages.work(endRoot=named("stage", SEGMENT + 1)))


def test_members_accuse_others_and_outsiders_nobody(stages: Stages) -> None:
    with pytest.raises(RevertedError, match="OwnStatement"):
        stages.accuse(ACCUSED)
    with pytest.raises(RevertedError, match="NotAMember"):
        stages.accuse(OUTSIDER)


def test_an_accusation_costs_exactly_its_bond(stages: Stages) -> None:
    for value in (0, stages.bond, stages.accusation_bond - 1, stages.accusation_bond + 1):
        with pytest.raises(RevertedError, match=rf"WrongValue\({value}, {stages.accusation_bond}\)"):
            stages.accuse(value=value)


HONEST = [0, bits(1.0), bits(0.5), 1, bits(-0.0), bits(-1.0), bits(-2.0), bits(float("-inf"))]
GARBAGE = [bits(1.0) + 1, bits(2.0), bits(float("inf")), NAN, 0x7F800001, 0x7FFFFFFF, 0xFF800001, 0xFFFFFFFF]


@pytest.mark.parametrize("fault", HONEST, ids=hex)
def test_a_fault_of_at_most_one_is_none(stages: Stages, fault: int) -> None:
    with pytest.raises(RevertedError, match=rf"NoFault\({fault},\)"):
        stages.accuse(fault=fault)


@pytest.mark.parametrize("fault", GARBAGE, ids=hex)
def test_a_fault_above_one_and_what_is_no_number_are_faults(stages: Stages, fault: int) -> None:
    stages.accuse(fault=fault)


def test_the_fault_is_the_first_tensor_of_the_end_and_its_only_number(stages: Stages) -> None:
    end = ended()
    for changes in ({"endRoot": named("other")}, {"fault": FAULT + 1}, {"proof": [*end.proof(0)[:-1], named("other")]}):
        with pytest.raises(RevertedError, match="WrongHash"):
            stages.accuse(end=end, **changes)
    # In another place.
    second = Tree([scalar_leaf(0), scalar_leaf(FAULT)])
    with pytest.raises(RevertedError, match="WrongHash"):
        stages.accuse(end=second, proof=second.proof(1))
    # One of several numbers.
    chunk = sha(b"\x00", FAULT.to_bytes(4, "little"), FAULT.to_bytes(4, "little"), bytes(1016))
    with pytest.raises(RevertedError, match="WrongHash"):
        stages.accuse(end=Tree([chunk, named("held")]))
    # In the other order of bytes.
    with pytest.raises(RevertedError, match="WrongHash"):
        stages.accuse(end=Tree([sha(b"\x00", FAULT.to_bytes(4, "big"), bytes(1020)), named("held")]))


def test_a_proof_has_at_most_as_many_levels_as_a_state_can_have(stages: Stages) -> None:
    def deep(levels: int) -> Tree:
        """The leftmost path of a tree, which is all that is needed of it."""
        tree, siblings = Tree([scalar_leaf(FAULT)]), [named(level) for level in range(levels)]
        for sibling in siblings:
            tree.levels.append([sha(b"\x01", tree.root, sibling)])
        tree.proof = lambda index: siblings  # type: ignore[method-assign]
        return tree

    stages.accuse(end=deep(0))
    stages.accuse(end=deep(32), work=stages.work(run=1))
    with pytest.raises(RevertedError, match=r"ProofTooLong\(33, 32\)"):
        stages.accuse(end=deep(33), work=stages.work(run=2))


def test_an_accusation_is_made_until_the_time_the_member_signed(stages: Stages) -> None:
    work = stages.work(until=stages.group.now + HOUR)
    stages.at(work[3])
    stages.accuse(work=work)
    assert stages.group.now == work[3]
    with pytest.raises(RevertedError, match="TooLate"):
        stages.accuse(LEADER, work=work)


def test_an_accusation_is_made_while_the_group_takes_evidence(settled: Stages) -> None:
    until = settled.group.see("evidenceUntil")
    settled.at(until)
    claim = settled.accuse()
    assert settled.group.now == until
    with pytest.raises(RevertedError, match="TooLate"):
        settled.accuse(LEADER)
    settled.close(settled.open(ACCUSED, claim), won=True)
    settled.group.anyone("share")
    with pytest.raises(RevertedError, match="WrongState"):
        settled.accuse(LEADER)


# ---- Cases ----------------------------------------------------------------------------------------------------------


def test_every_member_but_the_accuser_takes_it_to_court(stages: Stages) -> None:
    claim = stages.accuse()
    with pytest.raises(RevertedError, match="OwnClaim"):
        stages.open(FINDER, claim)
    with pytest.raises(RevertedError, match="NotAMember"):
        stages.open(OUTSIDER, claim)
    stages.open(ACCUSED, claim)
    stages.open(LEADER, claim)
    assert stages.see("accusationOf", claim)[2] == 2


def test_a_case_needs_its_bond_and_no_answer(stages: Stages) -> None:
    claim = stages.accuse()
    with pytest.raises(RevertedError, match="NoSuchClaim"):
        stages.open(ACCUSED, claim + 1)
    for value in (stages.bond - 1, stages.accusation_bond):
        with pytest.raises(RevertedError, match="WrongValue"):
            stages.open(ACCUSED, claim, value=value)
    with pytest.raises(RevertedError, match="NothingToDecide"):
        stages.open(ACCUSED, claim, answer=named("answer"))


def test_a_refuted_accusation_costs_its_bond_and_convicts_nobody(settled: Stages) -> None:
    claim = settled.accuse()
    events = settled.close(settled.open(ACCUSED, claim), won=True)
    assert not [event for event in events if event.contract == "Group"]
    assert settled.see("hasFallen", claim)
    assert settled.convicted == [False] * 3
    assert settled.credits == [0, settled.bond + settled.accusation_bond, 0]
    assert settled.withdraw(ACCUSED) == settled.bond + settled.accusation_bond
    with pytest.raises(RevertedError, match="AlreadyFallen"):
        settled.open(LEADER, claim)
    settled.after_window(claim)
    with pytest.raises(RevertedError, match="AlreadyFallen"):
        settled.conclude(claim)
    assert paid_out(settled) == expected_parts(settled, [False] * 3)


def test_the_bond_of_a_refuted_accusation_is_the_accuseds_whoever_refutes_it(stages: Stages) -> None:
    """An accuser has nothing back from an accomplice that refutes it first."""
    claim = stages.accuse()
    cases = [stages.open(person, claim) for person in (ACCUSED, LEADER, ACCUSED)]
    stages.close(cases[1], won=True)
    assert stages.credits == [stages.bond, stages.accusation_bond, 0]
    # Later winners have their own bond back, later losers lose it to the accuser.
    stages.close(cases[0], won=True)
    stages.close(cases[2], won=False)
    assert stages.credits == [stages.bond, stages.bond + stages.accusation_bond, stages.bond]
    assert stages.see("pendingOf", stages.group.address) == 0


def test_a_case_that_is_lost_leaves_the_accusation_and_its_bond_to_the_accuser(stages: Stages) -> None:
    claim = stages.accuse()
    stages.close(stages.open(ACCUSED, claim), won=False)
    assert not stages.see("hasFallen", claim)
    assert stages.credits == [0, 0, stages.bond]
    assert stages.see("pendingOf", stages.group.address) == 1
    stages.open(LEADER, claim)


def test_a_challengers_clock_extensions_are_the_accusers_and_never_of_the_accusations_bond(stages: Stages) -> None:
    claims = [stages.accuse(work=stages.work(run=run)) for run in range(3)]
    stages.close(stages.open(ACCUSED, claims[0]), won=True, overshoot=ETHER // 10)
    assert stages.credits == [0, stages.bond + stages.accusation_bond - ETHER // 10, ETHER // 10]
    stages.close(stages.open(ACCUSED, claims[1]), won=True, overshoot=100 * ETHER)
    assert stages.credits[1] == stages.bond + 2 * stages.accusation_bond - ETHER // 10
    assert stages.credits[2] == stages.bond + ETHER // 10
    # The accuser's own are not charged, whoever wins.
    stages.close(stages.open(ACCUSED, claims[2]), won=False, overshoot=-ETHER)
    assert stages.credits[2] == 2 * stages.bond + ETHER // 10


def test_a_case_is_opened_in_the_accusations_window_whatever_else_is_over(settled: Stages) -> None:
    """Neither the time that the member signed nor that for evidence is a reason not to hear it."""
    evidence = settled.group.see("evidenceUntil")
    settled.at(evidence)
    claim = settled.accuse(work=settled.work(until=evidence))
    until = settled.window_of(claim)
    assert until == evidence + settled.see("WINDOW")
    settled.at(until)
    case = settled.open(ACCUSED, claim)
    assert settled.group.now == until
    with pytest.raises(RevertedError, match=rf"TooLate\({until}, \d+\)"):
        settled.open(LEADER, claim)
    settled.close(case, won=True)


# ---- Concluding -----------------------------------------------------------------------------------------------------


def test_an_accusation_that_nobody_refutes_costs_the_member_contribution_and_share(settled: Stages) -> None:
    claim = settled.accuse()
    settled.after_window(claim)
    outcome = settled.conclude(claim)
    event = outcome.event("AccusationConcluded")
    members = [event["group"], event["member"], event["accuser"]]
    expected = [settled.group.address, ACCUSED.address, FINDER.address]
    assert [each.lower() for each in members] == [each.lower() for each in expected]
    assert [event.name for event in outcome.events if event.contract == "Group"] == ["StageConvicted"]
    assert settled.see("accusationOf", claim)[3]
    assert settled.convicted == [False, True, False]
    assert settled.credits == [0, 0, settled.accusation_bond]
    assert settled.withdraw(FINDER) == settled.accusation_bond
    got = paid_out(settled)
    assert got[1] == 0
    assert got == expected_parts(settled, [False, True, False])


def test_an_accusation_is_concluded_once_and_after_its_window(stages: Stages) -> None:
    claim = stages.accuse()
    until = stages.window_of(claim)
    stages.at(until)
    with pytest.raises(RevertedError, match=rf"TooEarly\({until}, {until}\)"):
        stages.conclude(claim)
    stages.conclude(claim)
    assert stages.group.now == until + 12
    assert stages.group.state == "Working"
    assert stages.convicted == [False, True, False]
    with pytest.raises(RevertedError, match="AlreadyConcluded"):
        stages.conclude(claim)
    with pytest.raises(RevertedError, match="TooLate"):
        stages.open(ACCUSED, claim)
    assert stages.credits == [0, 0, stages.accusation_bond]


def test_an_accusation_waits_for_its_cases(stages: Stages) -> None:
    claim = stages.accuse()
    cases = [stages.open(person, claim) for person in (ACCUSED, LEADER)]
    stages.after_window(claim)
    for left in (2, 1):
        with pytest.raises(RevertedError, match=rf"CasesOpen\({claim}, {left}\)"):
            stages.conclude(claim)
        stages.close(cases[2 - left], won=False)
    stages.conclude(claim)
    assert stages.convicted == [False, True, False]
    assert stages.credits == [0, 0, 2 * stages.bond + stages.accusation_bond]


def test_only_accusations_are_concluded(world: GroupsWorld) -> None:
    stages = stages_of(world)
    claim = stages.publish()
    for number in (claim, claim + 1):
        with pytest.raises(RevertedError, match="NoSuchClaim"):
            stages.conclude(number)


def test_two_accusations_of_one_work_stand_and_fall_apart(stages: Stages) -> None:
    work = stages.work()
    false, true = stages.accuse(LEADER, work=work, fault=NAN), stages.accuse(FINDER, work=work)
    stages.close(stages.open(FINDER, false), won=True)
    stages.close(stages.open(ACCUSED, true), won=False)
    assert [stages.see("hasFallen", each) for each in (false, true)] == [True, False]
    stages.after_window(true)
    stages.conclude(true)
    assert stages.convicted == [False, True, False]
    assert stages.credits == [0, stages.accusation_bond, 2 * stages.bond + stages.accusation_bond]


def test_a_member_convicted_twice_loses_no_more(settled: Stages) -> None:
    claims = [settled.accuse(person, work=settled.work(run=run)) for person in (LEADER, FINDER) for run in range(2)]
    settled.after_window(claims[-1])
    for claim in claims:
        settled.conclude(claim)
    assert settled.credits == [2 * settled.accusation_bond, 0, 2 * settled.accusation_bond]
    assert paid_out(settled) == expected_parts(settled, [False, True, False])


def test_sharing_out_waits_for_accusations_and_their_cases(settled: Stages) -> None:
    settled.at(settled.group.see("evidenceUntil") - 12)
    claim, other = settled.accuse(), settled.accuse(LEADER)
    case = settled.open(ACCUSED, claim)
    settled.world.chain.move(seconds=DAY + HOUR)

    def waits_for(count: int) -> None:
        with pytest.raises(RevertedError, match=rf"CasesOpen\({count},\)"):
            settled.group.anyone("share")

    waits_for(3)
    settled.close(case, won=False)
    waits_for(2)
    settled.conclude(claim)
    waits_for(1)
    settled.conclude(other)
    assert paid_out(settled) == expected_parts(settled, [False, True, False])


def test_a_refuted_accusation_keeps_the_group_no_longer_than_its_cases(settled: Stages) -> None:
    settled.at(settled.group.see("evidenceUntil"))
    claim = settled.accuse()
    first, second = settled.open(ACCUSED, claim), settled.open(LEADER, claim)
    settled.close(first, won=True)
    with pytest.raises(RevertedError, match=r"CasesOpen\(1,\)"):
        settled.group.anyone("share")
    settled.close(second, won=False)
    settled.group.anyone("share")
    assert settled.group.state == "Shared"


def test_accusations_in_one_group_do_not_keep_another(world: GroupsWorld) -> None:
    stages = stages_of(world, exact=False)
    other = settled_stages(world, exact=False, nonce=1)
    world.chain.addresses["Group"] = stages.group.address  # type: ignore[attr-defined]
    stages.accuse()
    world.chain.addresses["Group"] = other.group.address  # type: ignore[attr-defined]
    world.chain.move(seconds=DAY + HOUR)
    other.group.anyone("share")
    assert other.group.state == "Shared"


def test_the_market_has_no_coin_of_accusations(stages: Stages) -> None:
    before = stages.world.total()
    claim = stages.accuse()
    stages.open(ACCUSED, claim)
    assert stages.world.total() == before


# ---- The ledger -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_every_accusation_ends_and_every_coin_is_somebodys_whatever_happens(world: GroupsWorld, seed: int) -> None:
    """Random accusations, cases, ends and withdrawals, against books of the test's own: to the wei."""
    rng = random.Random(seed)
    stages = settled_stages(world, exact=False) if seed % 2 else stages_of(world, exact=False)
    works = [stages.work(run=run) for run in range(3)]
    accuser_of: dict[int, int] = {}
    fallen: set[int] = set()
    convicted: set[int] = set()
    member_of: dict[int, int] = {}
    challenger_of: dict[int, int] = {}
    owed: Counter[int] = Counter()

    def accuse() -> None:
        accuser, member = rng.sample(range(3), 2)
        claim = stages.accuse(PEOPLE[accuser], PEOPLE[member], work=rng.choice(works), fault=rng.choice(GARBAGE))
        accuser_of[claim], member_of[claim] = accuser, member

    def open_case() -> None:
        if accuser_of:
            challenger = rng.randrange(3)
            case = stages.open(PEOPLE[challenger], rng.choice([*accuser_of]))
            challenger_of[case] = challenger

    def close_case() -> None:
        if not stages.open_cases:
            return
        case = rng.choice([*stages.open_cases])
        claim, won = stages.open_cases[case], rng.random() < 0.4
        overshoot = rng.choice([0, rng.randint(-ETHER, ETHER), 10 * ETHER])
        stages.close(case, won, overshoot)
        lost = min(max(overshoot, 0), stages.bond) if won else stages.bond
        owed[accuser_of[claim]] += lost
        owed[challenger_of[case]] += stages.bond - lost
        if won and claim not in fallen:
            fallen.add(claim)
            owed[member_of[claim]] += stages.accusation_bond

    def conclude(claims: list[int] | None = None) -> None:
        for claim in claims or ([rng.choice([*accuser_of])] if accuser_of else []):
            stages.conclude(claim)
            owed[accuser_of[claim]] += stages.accusation_bond
            convicted.add(member_of[claim])

    def withdraw() -> None:
        place = rng.randrange(3)
        assert stages.withdraw(PEOPLE[place]) == owed[place]
        owed[place] = 0

    def wait() -> None:
        world.chain.move(seconds=rng.randint(1, 4000))

    def share() -> None:
        stages.group.anyone("share")

    moves = [accuse] * 4 + [open_case] * 4 + [close_case] * 3 + [conclude] * 3 + [withdraw, wait, share]
    refusals: Counter[str] = Counter()
    for _ in range(120):
        try:
            rng.choice(moves)()
        except RevertedError as error:
            refusals[error.name] += 1
        assert stages.credits == [owed[place] for place in range(3)]
        assert stages.convicted == [place in convicted for place in range(3)]
    assert set(refusals) <= {
        "AlreadyAccused", "OwnClaim", "AlreadyFallen", "AlreadyConcluded", "TooEarly", "TooLate", "CasesOpen",
        "NothingToWithdraw", "WrongState",
    }  # fmt: skip
    # What is left is ended by anyone, the group shares out, and everybody takes its own.
    while stages.open_cases:
        close_case()
    world.chain.move(seconds=stages.see("WINDOW") + 1)
    if stages.pending:
        conclude(sorted(stages.pending))
    if stages.group.state == "Working":
        world.chain.move(seconds=world.posting()["trainSeconds"])
        world.do(OUTSIDER.address, "Market", "late", stages.group.see("task"))
        stages.group.anyone("close")
    if stages.group.state == "Closed":
        world.chain.move(seconds=DAY + HOUR)
        stages.group.anyone("share")
    for place in range(3):
        if owed[place]:
            assert stages.withdraw(PEOPLE[place]) == owed[place]
    assert world.chain.balance(world.chain.addresses["StageClaims"]) == 0  # type: ignore[attr-defined]
