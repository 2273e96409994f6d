"""Members of a group that report each other absent, as their roles decide, send, follow and show it on a chain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from eth_account import Account

from assay.accounts import import_keystore
from assay.cli.group_market import collect, show
from assay.market.deployment import write_deployment
from assay.market.group_agreement import (
    AgreedMember,
    Agreement,
    AgreementFile,
    sign_agreement,
    sign_statement,
    write_agreement,
)
from assay.market.groups import GroupContract, groups_of
from assay.market.presence import MOST_SEGMENTS, Receipt, receipt_statement
from assay.market.presence_view import AbsenceReport
from assay.market.reader import MarketReader
from assay.market.types import MILLION
from assay.roles.absence import AbsenceParty, ranges
from assay.roles.among_members import TURN_SECONDS
from assay.roles.bench import Workbench
from assay.roles.context import Context, Purse, Send

from .conftest import COIN, PostingMaker, World

SUBMITTER, LEADER, SECOND, THIRD, VERIFIER = 1, 2, 3, 4, 5
MEMBERS = (LEADER, SECOND, THIRD)
SEGMENTS, RATE = 8, 800_000
PASSWORD = "only for tests"
EVIDENCE = 10_000


class Shelf(Workbench):
    """A workbench that holds receipts and nothing else."""

    def __init__(self) -> None:
        self.held: list[Receipt] = []

    def receipts(self, task: Any) -> Sequence[Receipt]:
        return self.held


class Nothing:
    """No work is done here."""

    def result(self, key: str) -> Any | None:
        return None

    def failures(self, key: str) -> int:
        return 0


@dataclass
class Members:
    """A group whose training is over, and its members' roles."""

    world: World
    reader: MarketReader
    group: GroupContract
    task: int
    agreement: Agreement
    parties: dict[int, AbsenceParty] = field(default_factory=dict)
    benches: dict[int, Shelf] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number in MEMBERS:
            self.parties[number], self.benches[number] = AbsenceParty(), Shelf()

    def receipt(self, segment: int, there: Sequence[int], run: int = 0) -> Receipt:
        """What all of some members signed after a segment."""
        accounts = tuple(self.world.address(number) for number in there)
        statement = receipt_statement(self.task, run, segment, accounts)
        chain_id = self.world.market.deployment.chain_id
        keys = self.world.running.chain.private_keys
        signed = {
            self.world.address(number): sign_statement(
                statement, chain_id, self.group.address, Account.from_key(keys[number])
            )
            for number in there
        }
        return Receipt(run, segment, accounts, signed)

    def trained(self, segments: Sequence[int], there: Sequence[int], run: int = 0) -> None:
        """Some members trained segments together, and hold the receipts."""
        for segment in segments:
            made = self.receipt(segment, there, run)
            for number in there:
                self.benches[number].held.append(made)

    def actions(self, number: int) -> list[Send]:
        """What a member's role decides now."""
        self.reader.poll()
        context = Context(
            self.world.market, self.world.address(number), self.reader.view, Purse(), Nothing(), self.benches[number],
            lambda _name: bytes(32), group=self.group.view(),
        )  # fmt: skip
        found = self.parties[number].plan(context)
        assert all(isinstance(each, Send) for each in found)
        return [each for each in found if isinstance(each, Send)]

    def turn(self, number: int) -> list[str]:
        """A member does what its role decides; the actions' names."""
        actions = self.actions(number)
        for action in actions:
            self.world.do(number, action.call)
        self.reader.poll()
        return [action.name for action in actions]

    def wait(self, seconds: int) -> None:
        self.world.pass_time(seconds)
        self.reader.poll()

    @property
    def reports(self) -> list[AbsenceReport]:
        self.reader.poll()
        return self.reader.view.presence.reports_in(self.group.address)

    @property
    def absent(self) -> list[int]:
        view = self.group.view()
        assert view is not None
        return [member.absent for member in view.members]

    def credit(self, number: int) -> int:
        return self.world.market.presence.credit_of(self.world.address(number))


def members_of(world: World, posting: PostingMaker, rate: int = RATE, is_over: bool = True) -> Members:
    market = world.market
    world.do(VERIFIER, market.stakes.deposit(9 * COIN))
    world.do(VERIFIER, market.stakes.enlist(2, 80))
    posted = posting(train_seconds=20_000)
    world.do(SUBMITTER, market.tasks.submit(posted, market.tasks.escrow_of(posted)))
    reader = MarketReader(market)
    reader.poll()
    (task,) = reader.view.tasks
    shares = [MILLION // 3 + (place == 0) for place in range(3)]
    agreed = [AgreedMember(world.address(n), 3 * COIN, share) for n, share in zip(MEMBERS, shares, strict=True)]
    time = reader.view.time
    agreement = Agreement(
        tuple(agreed), (), task, 0, 9 * COIN, time + 10_000, time + 20_000, 3600, EVIDENCE, rate, bytes(32), 0
    )
    factory, chain_id = groups_of(market), market.deployment.chain_id
    accounts = [Account.from_key(world.running.chain.private_keys[number]) for number in MEMBERS]
    world.do(
        SUBMITTER,
        factory.form(agreement, [sign_agreement(agreement, chain_id, factory.address, each) for each in accounts]),
    )
    group = GroupContract(market, factory.group_of(agreement))
    for place, number in enumerate(MEMBERS):
        world.do(number, group.contribute(place, 3 * COIN))
    world.do(LEADER, group.call("take", task, 0))
    if is_over:
        world.do(LEADER, group.call("stepDown"))
    reader.poll()
    return Members(world, reader, group, task, agreement)


@pytest.fixture
def members(world: World, make_posting: PostingMaker) -> Members:
    """The second member left after three segments, the third came then."""
    made = members_of(world, make_posting)
    made.trained(range(3), (LEADER, SECOND))
    made.trained(range(3, SEGMENTS), (LEADER, THIRD), run=1)
    # Whoever comes takes the others' receipts.
    made.benches[THIRD].held = list(made.benches[LEADER].held)
    return made


def told(reports: Sequence[AbsenceReport]) -> set[tuple[str, str, int, int]]:
    return {(each.reporter, each.member, each.first, each.last) for each in reports}


def test_who_was_absent_is_reported_by_the_first_member_alone_and_paid_for_less(members: Members) -> None:
    leader, second, third = (members.world.address(number) for number in MEMBERS)
    assert members.turn(THIRD) == members.turn(SECOND) == []
    assert members.turn(LEADER) == ["absence-report"] * 2
    assert told(members.reports) == {(leader, second, 3, 7), (leader, third, 0, 2)}
    for number in MEMBERS:
        members.wait(TURN_SECONDS * 3 if number == SECOND else 0)
        assert "absence-report" not in members.turn(number)
    assert members.absent == [0, 5, 3]
    assert members.turn(LEADER) == ["absence-withdraw"]
    assert members.turn(LEADER) == []
    assert members.world.market.presence.pending_of(members.group.address) == 0
    assert members.world.market.presence.was_absent(members.group.address, second, 3)


def test_others_report_where_the_first_does_not(members: Members) -> None:
    second, third = members.world.address(SECOND), members.world.address(THIRD)
    assert members.actions(THIRD) == []
    members.wait(2 * TURN_SECONDS)
    assert members.turn(THIRD) == ["absence-report"]
    # It knows that the leader was there throughout, and says nothing of itself.
    assert told(members.reports) == {(third, second, 3, 7)}


def test_a_falsely_reported_member_answers_and_keeps_its_share(members: Members) -> None:
    presence = members.world.market.presence
    call = presence.report(members.group.address, 1, 0, 7, presence.bond())
    members.world.do(THIRD, call)
    assert members.turn(SECOND) == ["absence-answer"]
    (report,) = members.reports
    assert report.answered in range(3)
    assert not report.is_pending
    assert members.turn(SECOND) == ["absence-withdraw"]
    assert (members.credit(SECOND), members.credit(THIRD)) == (0, 0)
    assert members.absent == [0, 0, 0]


def test_others_answer_for_a_member_that_cannot_in_the_second_half_of_the_time(members: Members) -> None:
    presence = members.world.market.presence
    members.world.do(THIRD, presence.report(members.group.address, 1, 0, 2, presence.bond()))
    assert "absence-answer" not in [each.name for each in members.actions(LEADER)]
    (report,) = members.reports
    members.wait(presence.window() // 2 + 3)
    assert "absence-answer" in members.turn(LEADER)
    assert not members.reports[0].is_pending
    assert members.credit(SECOND) == presence.bond()
    assert report.member == members.world.address(SECOND)


def test_who_holds_no_receipt_of_a_segment_says_nothing_of_it_and_has_no_answer(members: Members) -> None:
    members.benches[LEADER].held = [each for each in members.benches[LEADER].held if each.segment in (4, 6, 7)]
    assert members.turn(LEADER) == ["absence-report"] * 2
    assert {(each.first, each.last) for each in members.reports} == {(4, 4), (6, 7)}
    assert members.turn(SECOND) == []


def test_what_a_member_was_only_told_accuses_nobody_and_defends_everybody(members: Members) -> None:
    """The third was not there in the beginning: a made-up receipt would have it lose a bond."""
    members.benches[THIRD].held.append(members.receipt(1, (LEADER,), run=9))
    assert members.actions(THIRD) == []
    members.wait(2 * TURN_SECONDS)
    members.benches[THIRD].held.append(members.receipt(5, (LEADER, SECOND), run=9))
    assert members.turn(THIRD) == ["absence-report"] * 2
    assert {(each.first, each.last) for each in members.reports} == {(3, 4), (6, 7)}


def test_a_segment_that_was_trained_twice_is_paid_to_both(members: Members) -> None:
    members.trained([3], (LEADER, SECOND))
    assert members.turn(LEADER) == ["absence-report"] * 2
    assert {(each.first, each.last) for each in members.reports} == {(4, 7), (0, 2)}


def test_who_lost_a_bond_to_a_friends_receipt_reports_no_more_and_others_still_do(members: Members) -> None:
    assert members.actions(THIRD) == []
    members.turn(LEADER)
    friends = members.receipt(4, (SECOND, THIRD))
    members.benches[SECOND].held = [friends]
    assert members.turn(SECOND) == ["absence-answer"]
    members.wait(2 * TURN_SECONDS)
    assert "absence-report" not in members.turn(LEADER)
    # Another still says it of the segments that nobody signed for.
    members.turn(THIRD)
    second, third = members.world.address(SECOND), members.world.address(THIRD)
    assert {(third, second, 3, 3), (third, second, 5, 7)} <= told(members.reports)


def test_another_members_pending_report_is_waited_for_but_not_to_the_end(members: Members) -> None:
    presence, second = members.world.market.presence, members.world.address(SECOND)
    members.world.do(SUBMITTER, members.group.close())
    view = members.group.view()
    assert view is not None
    members.reader.poll()
    half = view.evidence_until - EVIDENCE // 2
    members.wait(half - 6 - members.reader.view.time)
    members.world.do(THIRD, presence.report(members.group.address, 1, 0, 7, presence.bond()))
    members.turn(LEADER)
    assert second not in {each.member for each in members.reports if each.reporter == members.world.address(LEADER)}
    members.wait(half + 1 - members.reader.view.time)
    assert [each.is_pending for each in members.reports if each.member == second] == [True]
    assert members.turn(LEADER) == ["absence-report"]
    assert (members.world.address(LEADER), second, 3, 7) in told(members.reports)


@pytest.mark.parametrize(("rate", "is_over"), [(0, True), (RATE, False)])
def test_nobody_is_reported_where_it_does_not_count_or_while_the_group_trains(
    world: World, make_posting: PostingMaker, rate: int, is_over: bool
) -> None:
    members = members_of(world, make_posting, rate, is_over)
    members.trained(range(SEGMENTS), (LEADER, SECOND))
    members.wait(TURN_SECONDS * 3)
    assert [members.actions(number) for number in MEMBERS] == [[], [], []]


def test_nothing_is_reported_after_the_time_for_evidence(members: Members) -> None:
    members.world.do(SUBMITTER, members.group.close())
    members.wait(EVIDENCE + 1)
    assert [members.actions(number) for number in MEMBERS] == [[], [], []]


def test_ranges_are_as_long_as_a_report_can_be() -> None:
    assert ranges(set()) == []
    assert ranges({5, 1, 2, 0, 7}) == [(0, 2), (5, 5), (7, 7)]
    assert ranges(set(range(MOST_SEGMENTS + 2))) == [(0, MOST_SEGMENTS - 1), (MOST_SEGMENTS, MOST_SEGMENTS + 1)]


def test_the_command_line_shows_and_concludes_absences(members: Members, tmp_path: Path) -> None:
    members.turn(LEADER)
    members.world.do(SUBMITTER, members.group.close())
    members.wait(EVIDENCE + 1)
    market = members.world.market
    write_deployment(market.deployment, tmp_path / "deployment.json")
    names = ("leader", "second", "third")
    file = AgreementFile(market.deployment.chain_id, groups_of(market).address, names, members.agreement, {})
    write_agreement(file, tmp_path / "agreement.json")
    import_keystore(tmp_path / "leader.key", members.world.running.chain.private_keys[LEADER], PASSWORD, iterations=2)
    environment = {
        "ASSAY_CHAIN_URL": members.world.running.chain.url,
        "ASSAY_CHAIN_DEPLOYMENT": str(tmp_path / "deployment.json"),
        "ASSAY_CHAIN_POLL_SECONDS": "0.1",
        "ASSAY_STATE_FOLDER": str(tmp_path / "state"),
        "ASSAY_ACCOUNT_KEYSTORE": str(tmp_path / "leader.key"),
        "ASSAY_PASSWORD": PASSWORD,
        "XDG_CONFIG_HOME": str(tmp_path / "none"),
    }

    def run(command: Any, *words: str) -> str:
        arguments = [str(tmp_path / "agreement.json"), *words]
        return CliRunner().invoke(command, arguments, env=environment, catch_exceptions=False).output

    assert "2 report(s) of absence pending" in run(show)
    found = json.loads(run(collect, "--json").splitlines()[-1])
    assert found["state"] == "shared"
    assert [member["absent"] for member in found["members"]] == [0, 5, 3]
    assert members.credit(LEADER) == 0  # the bonds are withdrawn
    text = run(show)
    assert "absent in 5 segment(s)" in text
    assert "pending" not in text
    assert "80 % of each share is earned by taking part" in text
