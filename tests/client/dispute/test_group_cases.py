"""Groups before the real court: who may speak for a segment, and who is charged for how its case ends."""

from __future__ import annotations

import pytest
import world
from test_court_and_market import CHALLENGER
from whole_market import EXACT_PROGRAM, EXTENSION, CourtChain, WholeMarket, execution

from assay.bench.arena import silent
from assay.dispute.case import CaseView, Part
from assay.dispute.moves import Move
from group_world import (
    COMPANIONS,
    CONTRIBUTIONS,
    DAY,
    HOUR,
    PEOPLE,
    SHARES,
    GroupActor,
    GroupsWorld,
    after_loss,
)
from market_chain import RevertedError

LEADER, OWNER, THIRD = PEOPLE
SEGMENT = 1


class GroupsMarket(GroupsWorld, WholeMarket):
    """The real court and the factory of groups."""

    contracts = (*WholeMarket.contracts, *COMPANIONS)
    court_code = "Court"
    speaker = ""
    """The member that moves in the group's name."""

    def play(self, sender: str, view: CaseView, move: Move) -> None:
        if sender.lower() != view.claimant.lower():
            super().play(sender, view, move)
        elif move.function == "expand":
            self.do(self.speaker, "Group", "expand", view.case_id, view.position, *move.arguments)
        else:
            super().play(self.speaker, view, move)


@pytest.fixture
def market() -> GroupsMarket:
    market = GroupsMarket(CourtChain())
    for number in range(3):
        market.verifier(f"verifier {number}")
    return market


def group_with(market: GroupsMarket, cheat: int | None) -> tuple[GroupActor, int, int]:
    """A group whose second member answers for every segment, its task with a proof, and a case on a segment."""
    group = GroupActor(market, PEOPLE, CONTRIBUTIONS, SHARES, (1,)).ready()
    task = group.working(market.posting())
    group.register(task, cheat)
    claim = market.do(CHALLENGER, "Claims", "publishTraining", task).value
    case = market.take_to_court(CHALLENGER, claim, SEGMENT + 1, Part.END, market.training_evidence(task, SEGMENT + 1))
    return group, task, case


def play_out(market: GroupsMarket, case: int, defended: bool, cheat: bool) -> bool:
    """The case to its end: the claimant's side honest or silent, the challenger with the truth or a lie."""
    honest, cheating = execution(SEGMENT, 0, program=EXACT_PROGRAM), market.cheating(SEGMENT)
    solver, challenger = (cheating, honest) if cheat else (honest, cheating)
    return market.play_out(case, world.claimant_of(solver) if defended else silent, world.challenger_of(challenger))


def closed(group: GroupActor, task: int) -> None:
    assert group.world.state(task) == "Failed"
    group.anyone("close")


def test_the_owner_of_a_segment_defends_it_and_nobody_else(market: GroupsMarket) -> None:
    group, task, case = group_with(market, None)
    view = market.view(case)
    honest = world.claimant_of(execution(SEGMENT, 0, program=EXACT_PROGRAM))
    expansion = honest(view)
    assert expansion is not None
    assert expansion.function == "expand"
    for other in (LEADER, THIRD):
        with pytest.raises(RevertedError, match="NotTheOwner"):
            market.do(other.address, "Group", "expand", case, view.position, *expansion.arguments)
    market.speaker = OWNER.address
    assert not play_out(market, case, defended=True, cheat=False)
    assert market.state(task) == "Verifying"
    assert market.credit(group.address) == market.parameters["caseBond"] // 2


def test_an_owner_that_signed_for_a_false_segment_is_charged_first(market: GroupsMarket) -> None:
    group, task, case = group_with(market, SEGMENT)
    market.speaker = OWNER.address
    assert play_out(market, case, defended=True, cheat=True)
    closed(group, task)
    with pytest.raises(RevertedError, match="NotTheSigner"):
        group.anyone("blameCase", *group.work(LEADER, task, SEGMENT))
    with pytest.raises(RevertedError, match="WrongHash"):
        group.anyone("blameCase", *group.work(OWNER, task, SEGMENT - 1))
    group.anyone("blameCase", *group.work(OWNER, task, SEGMENT))
    group.world.chain.move(seconds=DAY + HOUR)
    group.anyone("share")
    left = sum(CONTRIBUTIONS) - market.see("Market", "stakeOf", task)
    assert group.withdraw_all() == after_loss(CONTRIBUTIONS, [False, True, False], SHARES, left)
    assert market.chain.balance(group.address) == 0


def test_an_owner_that_lets_its_segment_be_lost_is_charged_first(market: GroupsMarket) -> None:
    group, task, case = group_with(market, None)
    assert play_out(market, case, defended=False, cheat=False)
    closed(group, task)
    group.anyone("blameCase", *group.work(OWNER, task, SEGMENT))
    assert [each.is_liable for each in group.positions] == [False, True, False]


def test_a_leader_stands_in_for_a_silent_owner_who_is_then_not_charged(market: GroupsMarket) -> None:
    group, task, case = group_with(market, None)
    wait = market.see("Court", "deadlineOf", case) - group.now - EXTENSION // 2
    market.chain.move(seconds=wait)
    market.speaker = LEADER.address
    # It defends an honest segment with a lie: only it could gain by that.
    liar = market.cheating(SEGMENT)
    truth = world.challenger_of(execution(SEGMENT, 0, program=EXACT_PROGRAM))
    view = market.view(case)
    move = world.claimant_of(liar)(view)
    assert move is not None
    with pytest.raises(RevertedError, match="NotTheOwner"):
        market.do(THIRD.address, "Group", "expand", case, view.position, *move.arguments)
    assert market.play_out(case, world.claimant_of(liar), truth)
    assert group.see("isRelieved", SEGMENT)
    closed(group, task)
    with pytest.raises(RevertedError, match="NotProven"):
        group.anyone("blameCase", *group.work(OWNER, task, SEGMENT))


def test_an_owner_is_not_charged_for_what_its_leader_showed_in_a_case_before(market: GroupsMarket) -> None:
    """What a claimant shows binds all cases on its claim: the owner has no truth left to tell in the next one."""
    group, task, case = group_with(market, None)
    market.chain.move(seconds=market.see("Court", "deadlineOf", case) - group.now - EXTENSION // 2)
    view = market.view(case)
    lie = world.claimant_of(market.cheating(SEGMENT))(view)
    assert lie is not None
    market.do(LEADER.address, "Group", "expand", case, view.position, *lie.arguments)
    # The challenger, its accomplice, lets this case be lost, and opens another.
    assert not market.play_out(case, silent, silent)
    claim = market.do(CHALLENGER, "Claims", "publishTraining", task).value
    evidence = market.training_evidence(task, SEGMENT + 1)
    another = market.take_to_court(CHALLENGER, claim, SEGMENT + 1, Part.END, evidence)
    view = market.view(another)
    truth = world.claimant_of(execution(SEGMENT, 0, program=EXACT_PROGRAM))(view)
    assert truth is not None
    with pytest.raises(RevertedError, match="ExpansionBound"):
        market.do(OWNER.address, "Group", "expand", another, view.position, *truth.arguments)
    assert market.play_out(another, silent, silent)
    closed(group, task)
    with pytest.raises(RevertedError, match="NotProven"):
        group.anyone("blameCase", *group.work(OWNER, task, SEGMENT))
