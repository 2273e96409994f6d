"""Members of a group that were absent while it trained: how it is found out, and what it costs them."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from assay.market.group_agreement import presence_subject
from assay.market.presence import MOST_SEGMENTS, absence_report_id
from group_world import (
    CONTRIBUTIONS,
    DAY,
    HOUR,
    PEOPLE,
    SHARES,
    GroupActor,
    GroupsWorld,
    after_loss,
    divided,
    groups_world,
)
from market_chain import Chain, RevertedError, address_of
from market_world import ETHER, LEAVING, MILLION, named
from presence_world import ABSENT, LEADER, OUTSIDER, RATE, SEGMENTS, WITNESS, Roll, roll_of, subject_of, weights_of


@pytest.fixture
def world(chain: Chain) -> GroupsWorld:
    return groups_world(chain)


@pytest.fixture
def roll(world: GroupsWorld) -> Roll:
    """A group whose task is done and paid for, and which is closed."""
    return roll_of(world)


# ---- Reporting ------------------------------------------------------------------------------------------------------


def test_a_report_names_a_member_a_range_and_the_time_to_answer(roll: Roll) -> None:
    outcome = roll.reported(2, 5)
    number, until = outcome.value, roll.group.now + roll.see("WINDOW")  # type: ignore[operator]
    event = outcome.event("AbsenceReported")
    assert (event["reportId"], event["first"], event["last"], event["until"]) == (number, 2, 5, until)
    parties = [roll.group.address, ABSENT.address, LEADER.address]
    assert [event[name].lower() for name in ("group", "member", "reporter")] == [each.lower() for each in parties]
    found = roll.see("reportOf", number)
    assert found[1:3] == (2, 5)  # type: ignore[index]
    assert found[4:7] == (until, False, False)  # type: ignore[index]
    assert roll.absent == [0, 0, 0]


def test_window_and_bond_are_the_deployments_and_the_client_knows_the_longest_range(roll: Roll) -> None:
    parameters = roll.world.parameters
    assert roll.see("WINDOW") == parameters["disputeSeconds"]
    assert roll.see("BOND") == parameters["accusationBond"]
    assert roll.see("MOST_SEGMENTS") == MOST_SEGMENTS


def test_the_client_numbers_reports_and_makes_receipts_as_the_contract_does(roll: Roll) -> None:
    address = roll.world.chain.addresses["Presence"]  # type: ignore[attr-defined]
    expected = absence_report_id(1, address, roll.group.address, ABSENT.address, 1, 4, WITNESS.address)
    assert roll.report(1, 4, reporter=WITNESS) == expected
    accounts = [person.address for person in PEOPLE]
    assert presence_subject(4, accounts) == subject_of(4, accounts)


def test_only_a_member_reports_only_another_member(world: GroupsWorld, roll: Roll) -> None:
    with pytest.raises(RevertedError, match="NotAMember"):
        roll.report(0, 7, reporter=OUTSIDER)
    with pytest.raises(RevertedError, match="OwnAbsence"):
        roll.report(0, 7, reporter=ABSENT)
    for group, place, error in ((OUTSIDER.address, 1, "NotAGroup"), (roll.group.address, 3, r"NoSuchPlace\(3")):
        with pytest.raises(RevertedError, match=error):
            world.do(LEADER.address, "Presence", "report", group, place, 0, 7, value=roll.bond)


def test_a_report_costs_its_bond_exactly(roll: Roll) -> None:
    for value in (0, roll.bond - 1, roll.bond + 1):
        with pytest.raises(RevertedError, match="WrongValue"):
            roll.reported(0, 7, value=value)


@pytest.mark.parametrize(("first", "last"), [(0, SEGMENTS), (5, 4), (SEGMENTS, SEGMENTS), (2**32 - 1, 2**32 - 1)])
def test_a_range_is_of_the_tasks_segments_and_not_empty(roll: Roll, first: int, last: int) -> None:
    with pytest.raises(RevertedError, match=rf"WrongRange\({first}, {last}, {SEGMENTS}\)"):
        roll.report(first, last)


def test_the_whole_task_and_one_segment_are_ranges(roll: Roll) -> None:
    for first, last in ((0, 7), (0, 0), (7, 7)):
        roll.report(first, last)


def test_nobody_is_reported_where_shares_do_not_depend_on_it(world: GroupsWorld) -> None:
    roll = roll_of(world, rate=0)
    with pytest.raises(RevertedError, match="NothingForPresence"):
        roll.report(0, 7)


def test_nobody_is_reported_before_training_is_over(world: GroupsWorld) -> None:
    group = GroupActor(world, PEOPLE, CONTRIBUTIONS, SHARES, (), {"presenceRate": RATE})
    group.form()
    roll = Roll(group)
    with pytest.raises(RevertedError, match="WrongState"):
        roll.report(0, 7)
    for place in range(3):
        group.contribute(place)
    with pytest.raises(RevertedError, match="WrongState"):
        roll.report(0, 7)
    task = group.working()
    with pytest.raises(RevertedError, match=rf"TrainingNotOver\({task}"):
        roll.report(0, 7)
    group.register(task)
    roll.report(0, 7)
    assert group.state == "Working"


def test_training_is_over_too_where_the_group_gave_the_task_up(world: GroupsWorld) -> None:
    group = GroupActor(world, PEOPLE, CONTRIBUTIONS, SHARES, (), {"presenceRate": RATE}).ready()
    task = group.working()
    group.lead("stepDown")
    roll = Roll(group)
    roll.report(0, 3)
    # Another trains it now; that is not the group's training.
    world.staked("solver", 20 * ETHER)
    world.take(address_of("solver"), task)
    roll.report(4, 7)


def test_a_report_is_made_until_the_last_second_of_the_time_for_evidence(roll: Roll) -> None:
    until = roll.group.see("evidenceUntil")
    roll.at(until)
    roll.report(0, 3)
    with pytest.raises(RevertedError, match=rf"TooLate\({until}, {until + 12}\)"):
        roll.report(4, 7)


def test_a_report_is_made_once_by_each_of_a_range(roll: Roll) -> None:
    number = roll.report(0, 3)
    with pytest.raises(RevertedError, match="AlreadyReported"):
        roll.report(0, 3)
    roll.answer(number, 3)
    with pytest.raises(RevertedError, match="AlreadyReported"):
        roll.report(0, 3)
    # Another range, another reporter, another member.
    for other in ((0, 4, ABSENT, LEADER), (0, 3, ABSENT, WITNESS), (0, 3, WITNESS, LEADER)):
        roll.report(*other)


# ---- Answering ------------------------------------------------------------------------------------------------------


def test_a_receipt_of_any_other_member_for_any_segment_of_the_range_answers_and_brings_the_bond(roll: Roll) -> None:
    cases = [(0, 2, WITNESS, PEOPLE, 0), (1, 2, LEADER, (ABSENT, LEADER), 7), (2, 3, WITNESS, (ABSENT,), 0)]
    for first, segment, signer, there, run in cases:
        number = roll.report(first, 3)
        outcome = roll.answer(number, segment, signer, there, run)
        event = outcome.event("ReportAnswered")
        assert (event["signer"].lower(), event["segment"]) == (signer.address.lower(), segment)
    assert roll.credits == [0, 3 * roll.bond, 0]
    assert roll.withdraw(ABSENT) == 3 * roll.bond
    assert roll.absent == [0, 0, 0]
    assert roll.paid_out() == roll.expected([0, 0, 0])


def test_what_does_not_show_that_the_member_was_there_does_not_answer(roll: Roll) -> None:
    number = roll.report(2, 3)
    for segment in (1, 4):
        with pytest.raises(RevertedError, match=rf"OutsideReport\({segment}, 2, 3\)"):
            roll.answer(number, segment)
    with pytest.raises(RevertedError, match="OwnReceipt"):
        roll.answer(number, 2, ABSENT)
    with pytest.raises(RevertedError, match="NotNamed"):
        roll.answer(number, 2, there=(LEADER, WITNESS))
    with pytest.raises(RevertedError, match="NotNamed"):
        roll.answer(number, 2, there=())
    with pytest.raises(RevertedError, match="NotAMember"):
        roll.answer(number, 2, OUTSIDER)
    run, segment, accounts, signature = roll.receipt(WITNESS, 2)
    altered = [
        (run + 1, segment, accounts, signature),
        (run, segment + 1, accounts, signature),
        (run, segment, accounts[::-1], signature),
        (run, segment, accounts[1:], signature),
    ]
    for each in altered:
        with pytest.raises(RevertedError, match="NotAMember"):
            roll.world.do(ABSENT.address, "Presence", "answer", number, *each)
    with pytest.raises(RevertedError, match="ECDSA"):
        roll.world.do(ABSENT.address, "Presence", "answer", number, run, segment, accounts, bytes(65))
    # What a member signs about something else is no receipt.
    about = roll.group.statement(roll.group.see("task"), subject_of(2, accounts), named("a value"))
    with pytest.raises(RevertedError, match="NotAMember"):
        roll.world.do(ABSENT.address, "Presence", "answer", number, 0, 2, accounts, roll.group.signed(WITNESS, about))
    assert roll.see("pendingOf", roll.group.address) == 1


def test_a_receipt_of_another_group_does_not_answer(world: GroupsWorld) -> None:
    other = roll_of(world, nonce=1)
    receipt = other.receipt(WITNESS, 2)
    roll = roll_of(world)
    number = roll.report(2, 3)
    with pytest.raises(RevertedError, match="NotAMember"):
        world.do(ABSENT.address, "Presence", "answer", number, *receipt)


def test_a_report_is_answered_until_the_last_second_of_its_window(roll: Roll) -> None:
    first, second = roll.report(0, 3), roll.report(4, 7)
    roll.at(roll.until(first))
    roll.answer(first, 0)
    until = roll.until(second)
    roll.at(until + 1)
    with pytest.raises(RevertedError, match=rf"TooLate\({until}, {until + 1}\)"):
        roll.answer(second, 4)


# ---- Concluding -----------------------------------------------------------------------------------------------------


def test_who_shows_nothing_is_absent_and_the_reporter_has_its_bond_back(roll: Roll) -> None:
    number = roll.report(2, 5)
    until = roll.until(number)
    roll.at(until)
    with pytest.raises(RevertedError, match=rf"TooEarly\({until}, {until}\)"):
        roll.conclude(number)
    outcome = roll.conclude(number)
    assert outcome.event("AbsenceConcluded")["segments"] == 4
    assert outcome.event("MarkedAbsent")["segments"] == 4
    assert roll.absent == [0, 4, 0]
    marks = [roll.see("wasAbsent", roll.group.address, ABSENT.address, segment) for segment in range(SEGMENTS)]
    assert marks == [2 <= segment <= 5 for segment in range(SEGMENTS)]
    assert roll.credits == [roll.bond, 0, 0]
    assert roll.withdraw(LEADER) == roll.bond
    with pytest.raises(RevertedError, match="NothingToWithdraw"):
        roll.withdraw(LEADER)


def test_a_report_is_decided_once(roll: Roll) -> None:
    answered, concluded = roll.report(0, 1), roll.report(2, 3)
    roll.answer(answered, 0)
    roll.at(roll.until(concluded) + 1)
    roll.conclude(concluded)
    for number, error in ((answered, "AlreadyFallen"), (concluded, "AlreadyConcluded"), (1, "NoSuchReport")):
        with pytest.raises(RevertedError, match=error):
            roll.conclude(number)
        with pytest.raises(RevertedError, match=error):
            roll.answer(number, 2)


def test_a_segment_counts_once_however_many_report_it(roll: Roll) -> None:
    numbers = [roll.report(2, 5), roll.report(0, 3, reporter=WITNESS), roll.report(2, 4), roll.report(5, 7)]
    roll.at(roll.until(numbers[-1]) + 1)
    found = [roll.conclude(number).event("AbsenceConcluded")["segments"] for number in numbers]
    assert found == [4, 2, 0, 2]
    assert roll.absent == [0, 8, 0]
    assert roll.credits == [3 * roll.bond, 0, roll.bond]


def test_nobody_keeps_another_from_reporting(roll: Roll) -> None:
    """An accomplice's reports, true or false, early or late, change nothing about those of others."""
    false, true = roll.report(0, 7, reporter=WITNESS), roll.report(7, 7, reporter=WITNESS)
    honest = roll.report(4, 7)
    roll.answer(false, 0, LEADER)
    roll.at(roll.until(honest) + 1)
    roll.conclude(true)
    roll.conclude(honest)
    assert roll.absent == [0, 4, 0]


@pytest.mark.parametrize(
    ("first", "last"), [(0, 255), (255, 256), (0, 599), (256, 511), (1, 510), (511, 512), (300, 300), (599, 599)]
)
def test_ranges_across_words_are_counted_to_the_segment(world: GroupsWorld, first: int, last: int) -> None:
    roll = roll_of(world, segments=600)
    roll.found_absent(first, last)
    assert roll.absent == [0, last - first + 1, 0]
    for segment in {0, first - 1, first, last, last + 1, 599} - {-1, 600}:
        assert roll.see("wasAbsent", roll.group.address, ABSENT.address, segment) is (first <= segment <= last)
    roll.found_absent(0, 599, reporter=WITNESS)
    assert roll.absent == [0, 600, 0]


def test_a_range_has_a_longest_length_and_the_longest_fits_a_block(world: GroupsWorld) -> None:
    roll = roll_of(world, segments=MOST_SEGMENTS + 1)
    with pytest.raises(RevertedError, match=rf"RangeTooLong\({MOST_SEGMENTS + 1}, {MOST_SEGMENTS}\)"):
        roll.report(0, MOST_SEGMENTS)
    number = roll.report(1, MOST_SEGMENTS)
    roll.at(roll.until(number) + 1)
    assert roll.conclude(number).gas < 3_000_000
    assert roll.absent == [0, MOST_SEGMENTS, 0]


def test_only_presence_tells_a_group_of_absence(roll: Roll) -> None:
    for person in (LEADER, OUTSIDER):
        with pytest.raises(RevertedError, match="NotPresence"):
            roll.world.do(person.address, "Group", "markAbsent", ABSENT.address, 1)


# ---- Sharing out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1, RATE, MILLION])
@pytest.mark.parametrize("away", [1, 4, SEGMENTS])
def test_a_member_is_paid_for_the_segments_it_was_in_and_keeps_its_contribution(
    world: GroupsWorld, rate: int, away: int
) -> None:
    roll = roll_of(world, rate)
    roll.found_absent(SEGMENTS - away, SEGMENTS - 1)
    got = roll.paid_out()
    assert got == roll.expected([0, away, 0])
    assert sum(got) == sum(CONTRIBUTIONS) + roll.price
    assert got[1] >= CONTRIBUTIONS[1]
    if rate == MILLION and away == SEGMENTS:
        assert got[1] == CONTRIBUTIONS[1]


def test_where_all_were_absent_throughout_none_is_worse_than_the_others(world: GroupsWorld) -> None:
    roll = roll_of(world, MILLION)
    numbers = [roll.report(0, 7, person, PEOPLE[place - 1]) for place, person in enumerate(PEOPLE)]
    roll.at(roll.until(numbers[-1]) + 1)
    for number in numbers:
        roll.conclude(number)
    assert roll.absent == [SEGMENTS] * 3
    assert roll.paid_out() == roll.expected([0, 0, 0])


def test_sharing_out_waits_for_reports(roll: Roll) -> None:
    roll.at(roll.group.see("evidenceUntil") - 12)
    first, second = roll.report(0, 3), roll.report(4, 7)
    roll.world.chain.move(seconds=100)

    def waits_for(count: int) -> None:
        with pytest.raises(RevertedError, match=rf"ReportsPending\({count},\)"):
            roll.group.anyone("share")

    waits_for(2)
    roll.answer(first, 2)
    waits_for(1)
    roll.at(roll.until(second) + 1)
    waits_for(1)
    roll.conclude(second)
    assert roll.paid_out() == roll.expected([0, 4, 0])


def test_reports_in_one_group_do_not_keep_another(world: GroupsWorld) -> None:
    roll = roll_of(world)
    roll.report(0, 7)
    other = roll_of(world, nonce=1)
    world.chain.move(seconds=DAY + HOUR)
    other.group.anyone("share")
    assert other.group.state == "Shared"


def test_a_convicted_member_has_nothing_however_long_it_was_there_and_absence_moves_no_contribution(
    world: GroupsWorld,
) -> None:
    roll = roll_of(world)
    task, subject = roll.group.see("task"), named("what was sent")
    evidence = [part for value in ("one", "other") for part in _signed(roll, task, subject, named(value))]
    roll.group.anyone("convict", 2, *evidence)
    roll.found_absent(2, 7)
    shares = [SHARES[0], SHARES[1], 0]
    kept = after_loss(CONTRIBUTIONS, [False, False, True], shares, sum(CONTRIBUTIONS))
    income = divided(roll.price, weights_of(shares, [0, 6, 0], RATE))
    assert roll.paid_out() == [a + b for a, b in zip(kept, income, strict=True)]


def _signed(roll: Roll, task: int, subject: bytes, value: bytes) -> list[object]:
    statement = roll.group.statement(task, subject, value)
    return [statement, roll.group.signed(WITNESS, statement)]


def test_where_only_convicted_members_were_there_the_others_have_the_income_by_shares(world: GroupsWorld) -> None:
    roll = roll_of(world, MILLION)
    task, subject = roll.group.see("task"), named("what was sent")
    evidence = [part for value in ("one", "other") for part in _signed(roll, task, subject, named(value))]
    roll.group.anyone("convict", 2, *evidence)
    numbers = [roll.report(0, 7, LEADER, ABSENT), roll.report(0, 7, ABSENT, LEADER)]
    roll.at(roll.until(numbers[-1]) + 1)
    for number in numbers:
        roll.conclude(number)
    shares = [SHARES[0], SHARES[1], 0]
    kept = after_loss(CONTRIBUTIONS, [False, False, True], shares, sum(CONTRIBUTIONS))
    expected = [a + b for a, b in zip(kept, divided(roll.price, shares), strict=True)]
    assert roll.paid_out() == expected


def test_what_a_lost_stake_costs_does_not_depend_on_absence(world: GroupsWorld) -> None:
    group = GroupActor(world, PEOPLE, CONTRIBUTIONS, SHARES, (), {"presenceRate": MILLION}).ready()
    task = group.working()
    group.lead("stepDown")
    group.anyone("close")
    roll = Roll(group)
    roll.found_absent(0, 7)
    left = sum(CONTRIBUTIONS) - world.see("Market", "stakeOf", task)
    left += world.bucket(LEAVING, group.address)
    assert roll.paid_out() == after_loss(CONTRIBUTIONS, [False] * 3, SHARES, left)


def test_the_market_has_no_coin_of_reports(roll: Roll) -> None:
    before = roll.world.total()
    roll.answer(roll.report(0, 3), 1)
    roll.report(4, 7)
    assert roll.world.total() == before


# ---- The ledger -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_every_report_ends_and_every_coin_is_somebodys_whatever_happens(world: GroupsWorld, seed: int) -> None:
    """Random reports, answers, conclusions and withdrawals, against books of the test's own: to the wei."""
    rng = random.Random(seed)
    rate = rng.choice([1, RATE, MILLION, rng.randint(1, MILLION)])
    roll = roll_of(world, rate, closed=bool(seed % 2))
    reports: dict[int, tuple[int, int, int, int]] = {}  # number -> reporter, member, first, last
    absent: list[set[int]] = [set(), set(), set()]
    owed: Counter[int] = Counter()

    def report() -> None:
        reporter, member = rng.sample(range(3), 2)
        first = rng.randrange(SEGMENTS)
        last = max(0, min(SEGMENTS, first + rng.randint(-1, 4)))
        number = roll.report(first, last, PEOPLE[member], PEOPLE[reporter])
        reports[number] = reporter, member, first, last

    def answer() -> None:
        if reports:
            number = rng.choice([*reports])
            _, member, first, last = reports[number]
            there = rng.sample(PEOPLE, rng.randint(1, 3))
            roll.answer(number, rng.randint(first, last + 1), rng.choice([*PEOPLE, OUTSIDER]), there, rng.randint(0, 2))
            owed[member] += roll.bond

    def conclude(numbers: list[int] | None = None) -> None:
        for number in numbers or ([rng.choice([*reports])] if reports else []):
            roll.conclude(number)
            reporter, member, first, last = reports[number]
            owed[reporter] += roll.bond
            absent[member] |= set(range(first, last + 1))

    def withdraw() -> None:
        place = rng.randrange(3)
        assert roll.withdraw(PEOPLE[place]) == owed[place]
        owed[place] = 0

    def wait() -> None:
        world.chain.move(seconds=rng.randint(1, 4000))

    def share() -> None:
        roll.group.anyone("share")

    moves = [report] * 4 + [answer] * 4 + [conclude] * 3 + [withdraw, wait, share]
    refusals: Counter[str] = Counter()
    for _ in range(120):
        try:
            rng.choice(moves)()
        except RevertedError as error:
            refusals[error.name] += 1
        assert roll.credits == [owed[place] for place in range(3)]
        assert roll.absent == [len(each) for each in absent]
    assert set(refusals) <= {
        "WrongRange", "AlreadyReported", "OutsideReport", "NotNamed", "OwnReceipt", "NotAMember", "AlreadyFallen",
        "AlreadyConcluded", "TooEarly", "TooLate", "ReportsPending", "NothingToWithdraw", "WrongState",
    }  # fmt: skip
    # What is left is ended by anyone, the group shares out, and everybody takes its own.
    world.chain.move(seconds=roll.see("WINDOW") + 1)  # type: ignore[operator]
    if roll.pending:
        conclude(sorted(roll.pending))
    if roll.group.state == "Working":
        roll.group.anyone("close")
    expected = roll.expected([len(each) for each in absent])
    if roll.group.state == "Closed":
        assert roll.paid_out() == expected
    else:
        roll.group.unbonded()
        assert roll.group.withdraw_all() == expected
    for place in range(3):
        if owed[place]:
            assert roll.withdraw(PEOPLE[place]) == owed[place]
    assert world.chain.balance(world.chain.addresses["Presence"]) == 0  # type: ignore[attr-defined]
