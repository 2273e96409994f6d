"""What a member says about its stage before the real court: whole cases among a group's members.

The stage program is the small one, in a segment that is not the task's first: what it computes depends on the numbers
of the task's steps. In a tolerant task it is a small checking program, over what an honest member states or garbage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import small_checking_program as checking
import world
from eth_utils.address import to_checksum_address
from test_refutations import about
from whole_market import ALLOWANCE, EXACT_PROGRAM, EXTENSION, OVERSHOOT_PRICE, CourtChain, WholeMarket, execution
from world import Lies, LyingExecution, OutputLie, StateLie

from assay.bench.arena import Player, silent
from assay.dispute.case import CaseView, Part, Phase
from assay.dispute.evidence import OpenEvidence
from assay.dispute.execution import word_of
from assay.dispute.hash_tree import LeafTree, TensorTree, root, siblings
from assay.dispute.moves import Move
from assay.program.encoding import encode_header, program_root
from assay.program.operator import Array, Role
from assay.program.reference import StepContext
from group_world import (
    COMPANIONS,
    CONTRIBUTIONS,
    DAY,
    HOUR,
    PEOPLE,
    SHARES,
    SUBMITTER,
    GroupActor,
    GroupsWorld,
    Person,
    after_loss,
)
from market_chain import RevertedError, address_of

LEADER, ACCUSED, FINDER = PEOPLE
SEGMENT, LAST = 1, world.SEGMENTS - 1  # the last segment has a single step
ROWS, COUNTED, WEIGHTS = 0, 26, 27  # operators: the permutation, an addition of the step's number, a sum of 800 terms
HEADER = encode_header(EXACT_PROGRAM)


class StagesMarket(GroupsWorld, WholeMarket):
    """The real court, twice: over the market's claims and over those among a group's members."""

    contracts = (*WholeMarket.contracts, *COMPANIONS)
    court_code = "Court"
    played_court = "StageCourt"


@pytest.fixture
def market() -> StagesMarket:
    market = StagesMarket(CourtChain())
    for number in range(3):
        market.verifier(f"verifier {number}")
    return market


@pytest.fixture
def group(market: StagesMarket) -> GroupActor:
    """A group at work on the small task."""
    group = GroupActor(market, PEOPLE, CONTRIBUTIONS, SHARES).ready()
    group.working(market.posting())
    return group


def stage(segment: int, lies: Lies | None = None) -> LyingExecution:
    return execution(segment, 0, lies, program=EXACT_PROGRAM)


def stated(group: GroupActor, run: LyingExecution, segment: int, **changes: Any) -> int:
    """The member's signed statement of what it ran, published."""
    roots = {
        "programRoot": program_root(EXACT_PROGRAM),
        "dataRoot": root(LeafTree([root(TensorTree(array)) for array in world.DATA])),
        "startRoot": world.state_root(segment),
        "endRoot": root(run.state(Role.STEP, run.steps - 1)),
    }
    return group.publish_stage(ACCUSED, group.stage_work(segment, **(roots | changes)))


def opened(
    market: StagesMarket,
    claim: int,
    leaf: int = 0,
    part: Part = Part.END,
    header: bytes = HEADER,
    challenger: Person = FINDER,
) -> int:
    """A case: nothing has to be opened for it but the program's header."""
    evidence = OpenEvidence(b"", [], b"", [], bytes(32), [], header)
    return market.take_to_court(challenger.address, claim, leaf, part, evidence)


def assert_balanced(market: StagesMarket, cases: int, accusations: int = 0) -> None:
    here = market.chain.balance(market.chain.addresses["StageClaims"])  # type: ignore[attr-defined]
    bonds = cases * market.parameters["caseBond"] + accusations * market.parameters["accusationBond"]
    assert here == bonds + sum(credits_of(market))


def credits_of(market: StagesMarket) -> list[int]:
    return [market.see("StageClaims", "creditOf", person.address) for person in PEOPLE]


def convicted(group: GroupActor) -> list[bool]:
    return [each.is_convicted for each in group.positions]


LIES = [
    Lies(OutputLie(Role.STEP, 2, ROWS, 1)),
    Lies(OutputLie(Role.STEP, 4, COUNTED, 0)),
    Lies(OutputLie(Role.STEP, 0, WEIGHTS, 0), sums=(WEIGHTS, 300)),
    Lies(state=StateLie(Role.STEP, 3, 1, 7)),
]


@pytest.mark.parametrize("lies", LIES, ids=["permutation", "step number", "sum", "state"])
def test_a_false_statement_falls_by_an_executed_operation(market: StagesMarket, group: GroupActor, lies: Lies) -> None:
    lying = stage(SEGMENT, lies)
    claim = stated(group, lying, SEGMENT)
    case = opened(market, claim)
    assert_balanced(market, 1)
    assert market.play_out(case, world.claimant_of(lying), world.challenger_of(stage(SEGMENT)))
    assert_balanced(market, 0)
    assert market.see("StageClaims", "hasFallen", claim)
    assert convicted(group) == [False, True, False]
    assert credits_of(market) == [0, 0, market.parameters["caseBond"]]
    # The clock did not decide it.
    assert any(event.name in ("Proven", "NextStateProven") for event in market.events[case])


def test_a_statement_about_a_segment_of_one_step_is_judged_by_its_operators(
    market: StagesMarket, group: GroupActor
) -> None:
    lying = stage(LAST, Lies(OutputLie(Role.STEP, 0, COUNTED, 0)))
    case = opened(market, stated(group, lying, LAST))
    assert market.play_out(case, world.claimant_of(lying), world.challenger_of(stage(LAST)))
    assert convicted(group) == [False, True, False]


def test_a_true_statement_about_another_segments_steps_is_false_of_its_own(
    market: StagesMarket, group: GroupActor
) -> None:
    """What the program computes at steps 5 to 9 is not what it computes at 0 to 4."""
    shifted = execution(0, 0, program=EXACT_PROGRAM)
    claim = stated(group, shifted, SEGMENT, startRoot=world.state_root(0))
    case = opened(market, claim)
    honest = LyingExecution(
        EXACT_PROGRAM, stage(SEGMENT).context, world.INTERVAL, world.checkpoints()[0], world.DATA, 0,
        world.compared(0), None,
    )  # fmt: skip
    assert market.play_out(case, world.claimant_of(shifted), world.challenger_of(honest))
    assert convicted(group) == [False, True, False]


@pytest.mark.parametrize("lies", LIES[:2], ids=["permutation", "step number"])
def test_a_true_statement_stands_and_its_member_has_the_bond(
    market: StagesMarket, group: GroupActor, lies: Lies
) -> None:
    honest = stage(SEGMENT)
    claim = stated(group, honest, SEGMENT)
    case = opened(market, claim)
    assert not market.play_out(case, world.claimant_of(honest), world.challenger_of(stage(SEGMENT, lies)))
    assert convicted(group) == [False] * 3
    assert credits_of(market) == [0, market.parameters["caseBond"], 0]
    assert_balanced(market, 0)


def test_a_silent_member_loses_and_a_silent_challenger_too(market: StagesMarket, group: GroupActor) -> None:
    honest = stage(SEGMENT)
    claim = stated(group, honest, SEGMENT)
    assert not market.play_out(opened(market, claim), world.claimant_of(honest), silent)
    assert convicted(group) == [False] * 3
    case = opened(market, claim)
    with pytest.raises(RevertedError, match="ClockRunning"):
        market.do(FINDER.address, "StageCourt", "timeout", case)
    assert market.play_out(case, silent, silent)
    assert convicted(group) == [False, True, False]
    bond = market.parameters["caseBond"]
    assert credits_of(market) == [0, bond, bond]


def test_a_slow_challengers_extension_is_the_members(market: StagesMarket, group: GroupActor) -> None:
    lying = stage(SEGMENT, LIES[0])
    case = opened(market, stated(group, lying, SEGMENT))
    claimant, challenger = world.claimant_of(lying), world.challenger_of(stage(SEGMENT))

    def late(view: CaseView) -> Move | None:
        # Each move in the last second there is: first of its own clock, then of every extension.
        deadline = market.see("StageCourt", "deadlineOf", case)
        market.chain.move(seconds=deadline - market.chain.time - 12)  # type: ignore[attr-defined]
        return challenger(view)

    assert market.play_out(case, claimant, late)
    overshoot = market.see("StageCourt", "caseOf", case)[0][-1]
    assert overshoot % EXTENSION == 0 < overshoot
    charge = overshoot * OVERSHOOT_PRICE
    assert credits_of(market) == [0, charge, market.parameters["caseBond"] - charge]


def test_a_case_denies_the_end_of_the_only_leaf(market: StagesMarket, group: GroupActor) -> None:
    claim = stated(group, stage(SEGMENT), SEGMENT)
    with pytest.raises(RevertedError, match="NoSuchLeaf"):
        opened(market, claim, leaf=1)
    for part in Part:
        if part != Part.END:
            with pytest.raises(RevertedError, match="NoSuchPart"):
                opened(market, claim, part=part)
    with pytest.raises(RevertedError, match="WrongHeader"):
        opened(market, claim, header=encode_header(world.PROGRAM))
    evidence = about(EXACT_PROGRAM, Role.STEP, ROWS).as_tuple()
    with pytest.raises(RevertedError, match="NotJudgedHere"):
        market.do(FINDER.address, "StageCourt", "refuteProgram", claim, HEADER, evidence)


def test_only_the_member_answers_for_its_stage(market: StagesMarket, group: GroupActor) -> None:
    honest = stage(SEGMENT)
    case = opened(market, stated(group, honest, SEGMENT))
    view = market.view(case)
    assert view.cursor.phase == Phase.EXPAND
    move = world.claimant_of(honest)(view)
    assert move is not None
    for other in (LEADER.address, FINDER.address, group.address, address_of("outsider")):
        with pytest.raises(RevertedError):
            market.play(other, view, move)
    market.play(to_checksum_address(ACCUSED.address), view, move)


def test_a_groups_task_ends_as_ever_and_a_convicted_member_has_nothing_of_it(market: StagesMarket) -> None:
    """The market pays for the proof, whatever the members find among each other."""
    group = GroupActor(market, PEOPLE, CONTRIBUTIONS, SHARES).ready()
    task = group.settled(**market.posting())
    group.anyone("close")
    lying = stage(SEGMENT, LIES[1])
    case = opened(market, stated(group, lying, SEGMENT))
    market.chain.move(seconds=DAY + HOUR - ALLOWANCE)
    with pytest.raises(RevertedError, match="CasesOpen"):
        group.anyone("share")
    assert market.play_out(case, silent, silent)
    group.anyone("share")
    group.assert_balanced()
    group.unbonded()
    group.assert_balanced()
    weights = [SHARES[0], 0, SHARES[2]]
    price = market.see("Market", "termsOf", task)[10]
    left = after_loss(CONTRIBUTIONS, [False, True, False], weights, sum(CONTRIBUTIONS))
    got = group.withdraw_all()
    assert got[1] == 0
    assert sum(got) == sum(left) + price
    assert_balanced(market, 0)


# ---- Accusations in a tolerant task ---------------------------------------------------------------------------------

CHECKING = checking.program()
HONEST_FAULT = checking.TOLERANCE  # added to the last number, which is zero: a fault of exactly one


@pytest.fixture
def tolerant(market: StagesMarket) -> GroupActor:
    """A group at work on the small task in tolerant mode."""
    group = GroupActor(market, PEOPLE, CONTRIBUTIONS, SHARES).ready()
    task = market.submit(SUBMITTER, market.posting(False))
    market.profiled(task)
    group.lead("take", task, 0)
    return group


def checked(data: Sequence[Array], lies: Lies | None = None) -> LyingExecution:
    """A run of the checking program over what a member stated."""
    context = StepContext(world.TASK_SEED, SEGMENT * world.INTERVAL)
    steps = world.segment_steps(SEGMENT)
    return LyingExecution(CHECKING, context, steps, checking.start(), data, lies=lies or Lies())


def fault_of(run: LyingExecution) -> int:
    """The bits of the fault it ends with."""
    return word_of(run.arrays(Role.STEP, run.steps - 1)[0], 0)


@dataclass
class Accused:
    """An accusation of the accused member by the finder, by what a run of the finder's ended with."""

    market: StagesMarket
    group: GroupActor
    run: LyingExecution

    def __post_init__(self) -> None:
        work = self.group.stage_work(
            SEGMENT,
            programRoot=program_root(CHECKING),
            dataRoot=root(LeafTree([root(TensorTree(array)) for array in self.run.data])),
            startRoot=root(LeafTree([root(TensorTree(array)) for array in checking.start()])),
            endRoot=bytes(32),
        )
        end = self.run.state(Role.STEP, self.run.steps - 1)
        arguments = (work, self.group.signed_stage(ACCUSED, work), root(end), fault_of(self.run), siblings(end, 0))
        bond = self.market.parameters["accusationBond"]
        self.claim = self.market.do(FINDER.address, "StageClaims", "accuse", *arguments, value=bond).value
        assert_balanced(self.market, 0, 1)

    def case(self, challenger: Person = ACCUSED) -> int:
        return opened(self.market, self.claim, header=encode_header(CHECKING), challenger=challenger)

    def tried(self, case: int, challenger: Player, claimant: Player | None = None) -> bool:
        """Plays the case. Whether the accusation was refuted."""
        won = self.market.play_out(case, claimant or world.claimant_of(self.run), challenger)
        assert self.market.see("StageClaims", "hasFallen", self.claim) == won
        assert_balanced(self.market, 0, not won)
        return won

    def conclude(self) -> None:
        self.market.chain.move(seconds=self.market.parameters["disputeSeconds"] + 1)
        self.market.do(address_of("outsider"), "StageClaims", "conclude", self.claim)
        assert_balanced(self.market, 0)


def executed(market: StagesMarket, case: int) -> bool:
    """Whether it came down to an operation that the chain executed: no clock decided it."""
    return any(event.name in ("Proven", "NextStateProven") for event in market.events[case])


GARBAGE = [(0, 7, 1.0), (3, 270, -0.01), (4, 0, float("nan")), (2, 299, float("inf"))]


@pytest.mark.parametrize("garbage", GARBAGE, ids=["first step", "a little", "no number", "infinite"])
def test_a_member_accused_of_garbage_it_stated_disputes_that_in_vain(
    market: StagesMarket, tolerant: GroupActor, garbage: tuple[int, int, float]
) -> None:
    data = checking.data(garbage)
    accusation = Accused(market, tolerant, checked(data))
    denial = checked(data, Lies(OutputLie(Role.STEP, garbage[0], checking.FAULT, 0)))
    case = accusation.case()
    assert not accusation.tried(case, world.challenger_of(denial))
    assert executed(market, case)
    assert convicted(tolerant) == [False] * 3
    accusation.conclude()
    assert convicted(tolerant) == [False, True, False]
    bonds = market.parameters["caseBond"] + market.parameters["accusationBond"]
    assert credits_of(market) == [0, 0, bonds]


FALSE = [
    Lies(OutputLie(Role.STEP, 2, checking.HELD, 271)),
    Lies(OutputLie(Role.STEP, 0, checking.RECEIVED, 12)),
    Lies(OutputLie(Role.STEP, 4, checking.RECEIVED + 1, 3)),
]


@pytest.mark.parametrize("lies", FALSE, ids=["held", "received", "added"])
def test_a_false_accusation_falls_by_an_executed_operation(
    market: StagesMarket, tolerant: GroupActor, lies: Lies
) -> None:
    data = checking.data()
    accusation = Accused(market, tolerant, checked(data, lies))
    case = accusation.case()
    assert_balanced(market, 1, 1)
    assert accusation.tried(case, world.challenger_of(checked(data)))
    assert executed(market, case)
    assert convicted(tolerant) == [False] * 3
    assert credits_of(market) == [0, market.parameters["caseBond"] + market.parameters["accusationBond"], 0]
    with pytest.raises(RevertedError, match="AlreadyFallen"):
        accusation.conclude()


def test_a_fault_of_exactly_one_is_honest_and_one_place_more_is_refuted(
    market: StagesMarket, tolerant: GroupActor
) -> None:
    data = checking.data((1, checking.SIZE - 1, HONEST_FAULT))
    with pytest.raises(RevertedError, match="NoFault"):
        Accused(market, tolerant, checked(data))
    accusation = Accused(market, tolerant, checked(data, Lies(state=StateLie(Role.STEP, 4, 0, 0))))
    assert fault_of(accusation.run) == fault_of(checked(data)) + 1
    case = accusation.case()
    assert accusation.tried(case, world.challenger_of(checked(data)))
    assert executed(market, case)


def test_any_member_refutes_a_false_accusation(market: StagesMarket, tolerant: GroupActor) -> None:
    data = checking.data()
    accusation = Accused(market, tolerant, checked(data, FALSE[0]))
    assert accusation.tried(accusation.case(LEADER), world.challenger_of(checked(data)))
    assert credits_of(market) == [market.parameters["caseBond"], market.parameters["accusationBond"], 0]


def test_who_is_silent_in_the_case_of_an_accusation_loses_it(market: StagesMarket, tolerant: GroupActor) -> None:
    accusation = Accused(market, tolerant, checked(checking.data(GARBAGE[0])))
    first, second = accusation.case(), accusation.case(LEADER)
    assert not market.play_out(first, world.claimant_of(accusation.run), silent)
    with pytest.raises(RevertedError, match="CasesOpen"):
        accusation.conclude()
    # An accuser that does not answer loses what it was right about.
    assert accusation.tried(second, silent, silent)
    assert convicted(tolerant) == [False] * 3


def test_only_the_accuser_answers_for_an_accusation(market: StagesMarket, tolerant: GroupActor) -> None:
    accusation = Accused(market, tolerant, checked(checking.data(GARBAGE[0])))
    view = market.view(accusation.case())
    move = world.claimant_of(accusation.run)(view)
    assert move is not None
    for other in (LEADER.address, ACCUSED.address, tolerant.address, address_of("outsider")):
        with pytest.raises(RevertedError):
            market.play(other, view, move)
    market.play(to_checksum_address(FINDER.address), view, move)


def test_a_group_ends_after_its_accusations_and_a_convicted_member_has_nothing_of_it(
    market: StagesMarket, tolerant: GroupActor
) -> None:
    data = checking.data(GARBAGE[1])
    accusation = Accused(market, tolerant, checked(data))
    tolerant.lead("stepDown")
    tolerant.anyone("close")
    case = accusation.case()
    assert not accusation.tried(case, silent)
    market.chain.move(seconds=DAY + HOUR)
    with pytest.raises(RevertedError, match="CasesOpen"):
        tolerant.anyone("share")
    accusation.conclude()
    tolerant.anyone("share")
    tolerant.assert_balanced()
    tolerant.unbonded()
    got = tolerant.withdraw_all()
    assert got[1] == 0
    assert got[0] > CONTRIBUTIONS[0]
    assert got[2] > CONTRIBUTIONS[2]
