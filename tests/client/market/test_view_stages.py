"""What members of a group accuse each other of, as the client sends, follows and shows it. The court of the stages is
the real one; who does not move loses by the clock."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from eth_account import Account

from assay.accounts import import_keystore
from assay.cli.court import court as court_command
from assay.cli.group_market import collect
from assay.commitments import tree
from assay.dispute.case import Part
from assay.dispute.evidence import OpenEvidence
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
from assay.market.reader import MarketReader
from assay.market.stage_claims import stage_accusation_id
from assay.market.stage_view import StageAccusationRecord
from assay.market.types import MILLION, StageWork
from assay.roles.among_members import TURN_SECONDS
from assay.roles.bench import Workbench
from assay.roles.context import Context, Purse, Send
from assay.roles.jobs import Jobs
from assay.roles.stage_cases import StageParty
from assay.state import StateFolder

from .conftest import COIN, PostingMaker, World, disclosed_profile, header

SUBMITTER, LEADER, ACCUSED, FINDER, VERIFIER = 1, 2, 3, 4, 5
MEMBERS = (LEADER, ACCUSED, FINDER)
FAULT = 0x40000000  # of 2.0
END = [sha256(bytes(1) + FAULT.to_bytes(4, "little") + bytes(1020)).digest(), bytes([9]) * 32, bytes([8]) * 32]
HEADER = header(True)
PASSWORD = "only for tests"


@dataclass
class Members:
    """A group at work on a tolerant task, and what its members do."""

    world: World
    reader: MarketReader
    group: GroupContract
    task: int
    agreement: Agreement

    def work(self, run: int = 0) -> StageWork:
        roots = (sha256(b"\x02" + HEADER).digest(), bytes([4]) * 32, bytes([5]) * 32, bytes(32))
        return StageWork(self.group.address, run, 3, self.reader.view.time + 10**6, *roots)

    def accuse(self, work: StageWork, accuser: int = FINDER) -> StageAccusationRecord:
        contract = self.world.market.stage_claims
        chain_id = self.world.market.deployment.chain_id
        account = Account.from_key(self.world.running.chain.private_keys[ACCUSED])
        signature = sign_statement(work.statement(self.task), chain_id, self.group.address, account)
        levels = tree.levels(END)
        proof = tree.proof_of(levels, 0)
        call = contract.accuse(work, signature, levels[-1][0], FAULT, proof, contract.accusation_bond())
        self.world.do(accuser, call)
        self.reader.poll()
        accused, accusing = self.world.address(ACCUSED), self.world.address(accuser)
        return self.accusation(stage_accusation_id(chain_id, contract.address, work, accused, accusing))

    def accusation(self, number: int) -> StageAccusationRecord:
        return self.reader.view.stages.accusations[number]

    def open(self, claim: int, challenger: int = ACCUSED) -> int:
        market = self.world.market
        evidence = OpenEvidence(b"", (), b"", (), bytes(32), (), HEADER).as_tuple()
        bond = market.stage_claims.case_bond()
        self.world.do(challenger, market.stage_court.open(claim, 0, Part.END, bytes(32), evidence, bond))
        self.reader.poll()
        return list(self.reader.view.stages.cases)[-1]

    def time_out(self, case: int) -> None:
        self.pass_until(self.world.market.stage_court.deadline(case))
        self.world.do(SUBMITTER, self.world.market.stage_court.timeout(case))
        self.reader.poll()

    def pass_until(self, time: int) -> None:
        self.reader.poll()
        self.world.pass_time(max(1, time - self.reader.view.time + 1))
        self.reader.poll()

    def address(self, number: int) -> str:
        return self.world.address(number)


@pytest.fixture
def members(judged: World, make_posting: PostingMaker) -> Members:
    world, market = judged, judged.market
    world.do(VERIFIER, market.stakes.deposit(9 * COIN))
    world.do(VERIFIER, market.stakes.enlist(2, 80))
    posted = make_posting(exact=False, train_seconds=20_000)
    world.do(SUBMITTER, market.tasks.submit(posted, market.tasks.escrow_of(posted)))
    reader = MarketReader(market)
    reader.poll()
    (task,) = reader.view.tasks
    profile = disclosed_profile(world, reader, task, VERIFIER)
    world.pass_time(reader.view.claims.lines[profile].until - reader.view.time + 1)
    world.do(SUBMITTER, market.settlement.settle_profile(task))
    reader.poll()
    shares = [MILLION // 3 + (place == 0) for place in range(3)]
    agreed = [AgreedMember(world.address(n), 3 * COIN, share) for n, share in zip(MEMBERS, shares, strict=True)]
    time = reader.view.time
    agreement = Agreement(
        tuple(agreed), (), task, 0, 9 * COIN, time + 10_000, time + 20_000, 3600, 86_400, 0, bytes(32), 0
    )
    factory, chain_id = groups_of(market), market.deployment.chain_id
    accounts = [Account.from_key(world.running.chain.private_keys[number]) for number in MEMBERS]
    signatures = [sign_agreement(agreement, chain_id, factory.address, account) for account in accounts]
    world.do(SUBMITTER, factory.form(agreement, signatures))
    group = GroupContract(market, factory.group_of(agreement))
    for place, number in enumerate(MEMBERS):
        world.do(number, group.contribute(place, 3 * COIN))
    world.do(LEADER, group.call("take", task, 0))
    reader.poll()
    return Members(world, reader, group, task, agreement)


def desk(members: Members, tmp_path: Path) -> dict[str, str]:
    """The settings of whoever reads, in the environment."""
    write_deployment(members.world.market.deployment, tmp_path / "deployment.json")
    return {
        "ASSAY_CHAIN_URL": members.world.running.chain.url,
        "ASSAY_CHAIN_DEPLOYMENT": str(tmp_path / "deployment.json"),
        "ASSAY_CHAIN_POLL_SECONDS": "0.1",
        "ASSAY_STATE_FOLDER": str(tmp_path / "state of the reader"),
        "XDG_CONFIG_HOME": str(tmp_path / "none"),
    }


def shown(members: Members, tmp_path: Path, *words: str) -> Any:
    """`assay court ...`, as JSON and as text."""
    environment = desk(members, tmp_path)
    text = CliRunner().invoke(court_command, list(words), env=environment, catch_exceptions=False).output
    result = CliRunner().invoke(court_command, [*words, "--json"], env=environment, catch_exceptions=False)
    return json.loads(result.output.splitlines()[-1]), text


def test_an_accusation_is_followed_from_its_making_to_the_conviction(members: Members, tmp_path: Path) -> None:
    stages, contract = members.reader.view.stages, members.world.market.stage_claims
    group, work = members.group.address, members.work()
    made = members.accuse(work)
    assert made == StageAccusationRecord(
        made.id, members.address(ACCUSED), members.address(FINDER), work, tree.levels(END)[-1][0],
        members.reader.view.time + contract.window(),
    )  # fmt: skip
    assert made.is_pending
    assert stages.work_of(made.id) == work
    assert stages.claimant_of(made.id) == members.address(FINDER)
    assert [stages.accusations_of(members.address(number)) for number in MEMBERS] == [[], [made], [made]]
    assert contract.pending_of(group) == 1
    assert stages.is_disputed(group)
    (row,), text = shown(members, tmp_path, "list")
    assert (int(row["accusation"], 16), row["group"], row["segment"]) == (made.id, group, 3)
    assert (row["accuser"], row["member"], row["open_cases"]) == (made.accuser, made.member, [])
    assert f"{made.accuser} accuses {made.member}" in text
    assert "s left to take it to court" in text
    assert not stages.can_be_concluded(made.id, made.until)
    members.pass_until(made.until)
    assert stages.can_be_concluded(made.id, members.reader.view.time)
    row, text = shown(members, tmp_path, "show", f"{made.id:#066x}"[:20])
    assert (int(row["accusation"], 16), row["cases"]) == (made.id, [])
    assert "stands: anyone can conclude it" in text
    members.world.do(SUBMITTER, contract.conclude(made.id))
    members.reader.poll()
    assert members.accusation(made.id).is_concluded
    assert not members.accusation(made.id).is_pending
    assert not stages.is_disputed(group)
    assert contract.credit_of(made.accuser) == contract.accusation_bond()
    view = members.group.view()
    assert view is not None
    assert [member.is_convicted for member in view.members] == [False, True, False]
    assert shown(members, tmp_path, "list") == ([], "no open case\n")
    (row,), text = shown(members, tmp_path, "list", "--all")
    assert row["is_concluded"]
    assert "member convicted" in text


def test_a_case_between_others_in_which_nobody_moves_is_ended_by_the_members_that_wait_for_it(
    members: Members, tmp_path: Path
) -> None:
    number = members.open(members.accuse(members.work()).id)
    with StateFolder(tmp_path) as state:
        bench = Workbench(tmp_path / "work", (), state)

        def actions() -> list[Send]:
            context = Context(
                members.world.market, members.address(LEADER), members.reader.view, Purse(), Jobs(), bench,
                lambda _name: bytes(32), group=members.group.view(),
            )  # fmt: skip
            return [each for each in StageParty().plan(context) if isinstance(each, Send)]

        members.pass_until(members.world.market.stage_court.deadline(number))
        assert actions() == []  # whom it concerns comes first
        members.world.pass_time(TURN_SECONDS)
        members.reader.poll()
        (action,) = actions()
        assert action.name == "case-timeout"
        members.world.do(LEADER, action.call)
        members.reader.poll()
        assert members.reader.view.stages.cases[number].challenger_won


def test_a_work_is_accused_as_long_as_the_same_is_said_of_it_or_it_was_right(members: Members) -> None:
    stages, contract = members.reader.view.stages, members.world.market.stage_claims
    work, accused = members.work(), members.address(ACCUSED)
    assert not stages.is_accused(work, accused, tree.levels(END)[-1][0])
    made = members.accuse(work)
    assert stages.is_accused(work, accused, made.end_root)
    # Another end can be true where this one is not.
    assert not stages.is_accused(work, accused, bytes(32))
    assert not stages.is_accused(members.work(1), accused, made.end_root)
    members.pass_until(made.until)
    members.world.do(SUBMITTER, contract.conclude(made.id))
    members.reader.poll()
    assert stages.is_accused(work, accused, bytes(32))


def test_a_case_on_an_accusation_is_its_accusers_to_answer(members: Members, tmp_path: Path) -> None:
    stages, contract = members.reader.view.stages, members.world.market.stage_claims
    group, made = members.group.address, members.accuse(members.work())
    number = members.open(made.id)
    case = stages.cases[number]
    assert (case.claim_id, case.challenger) == (made.id, made.member)
    assert [stages.open_cases_of(members.address(number)) for number in MEMBERS] == [[], [case], [case]]
    assert contract.pending_of(group) == 2
    rows, text = shown(members, tmp_path, "list")
    assert [("case" in row, int(row["accusation"], 16)) for row in rows] == [(True, made.id), (False, made.id)]
    assert (rows[0]["challenger"], rows[0]["claimant"]) == (made.member, made.accuser)
    assert f"accusation {made.id:#066x}"[:29] in text
    assert f"{made.member} against {made.accuser}" in text
    _, text = shown(members, tmp_path, "show", f"{number:#066x}")
    assert f"of group {group}, segment 3" in text
    members.pass_until(made.until)
    assert not stages.can_be_concluded(made.id, members.reader.view.time)
    members.time_out(number)
    assert stages.cases[number].challenger_won
    assert members.accusation(made.id).has_fallen
    assert not contract.has_fallen(made.id + 1)
    assert contract.has_fallen(made.id)
    assert contract.pending_of(group) == 0
    assert not stages.is_disputed(group)
    assert contract.credit_of(made.member) == contract.accusation_bond() + contract.case_bond()
    row, text = shown(members, tmp_path, "show", f"{made.id:#066x}")
    assert row["has_fallen"]
    assert [each["challenger_won"] for each in row["cases"]] == [True]
    assert "refuted" in text


def test_accusations_of_one_work_are_known_apart(members: Members) -> None:
    stages, work = members.reader.view.stages, members.work()
    first, second = members.accuse(work), members.accuse(work, LEADER)
    assert list(stages.accusations) == [first.id, second.id]
    members.time_out(members.open(first.id))
    assert [members.accusation(each.id).is_pending for each in (first, second)] == [False, True]
    assert stages.is_disputed(members.group.address)
    assert stages.accusations_of(members.address(LEADER)) == [second]


def test_anyone_ends_a_group_whose_members_accused_each_other_by_hand(members: Members, tmp_path: Path) -> None:
    """`assay group collect` concludes what the group waits for, and shares out."""
    made = members.accuse(members.work())
    members.world.do(LEADER, members.group.call("stepDown"))
    members.world.do(SUBMITTER, members.group.close())
    view = members.group.view()
    assert view is not None
    members.pass_until(max(view.evidence_until, made.until))
    factory, chain_id = groups_of(members.world.market), members.world.market.deployment.chain_id
    names = ("leader", "accused", "finder")
    write_agreement(AgreementFile(chain_id, factory.address, names, members.agreement, {}), tmp_path / "agreement.json")
    key = members.world.running.chain.private_keys[0]
    import_keystore(tmp_path / "somebody.key", key, PASSWORD, iterations=2)
    environment = desk(members, tmp_path) | {
        "ASSAY_ACCOUNT_KEYSTORE": str(tmp_path / "somebody.key"),
        "ASSAY_PASSWORD": PASSWORD,
    }
    words = [str(tmp_path / "agreement.json"), "--json"]
    result = CliRunner().invoke(collect, words, env=environment, catch_exceptions=False)
    found = json.loads(result.output.splitlines()[-1])
    assert found["state"] == "shared"
    assert [member["is_convicted"] for member in found["members"]] == [False, True, False]
    members.reader.poll()
    assert members.accusation(made.id).is_concluded
