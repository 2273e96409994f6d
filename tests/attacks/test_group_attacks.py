"""Members of a group that cheat the others, or all together the market: beside honest members, verifiers and
whistleblowers, to the last wei of what everybody has."""

from __future__ import annotations

import pytest
from arena import BOUNTY, COIN, Arena
from cheating_members import Gone, HidingBench, Idle, NeverContributes, SilentInCourt, spoiling
from cheating_solvers import forging, random_states
from cheating_verifiers import UnreplayedBench
from group_play import CONTRIBUTION, NAMES, SHARES, ArenaGroup
from parties import RefusedError

from assay.demo.dishonest import FalseAccuser, LyingBench
from assay.dispute.moves import Move
from assay.dispute.player import claimant_move
from assay.market.groups import GroupState
from assay.market.types import MILLION, TaskState
from assay.roles.absence import AbsenceParty
from assay.roles.cases import case_view
from assay.roles.subjects import subject_of_case
from assay.roles.verifier import Verifier, VerifierOptions
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions

SEGMENTS = 4
SPOILT = 1
"""The segment that is trained falsely; with these owners the second member answers for it."""
OWNERS = (0, 1, 2)
OF_THE_SECOND = (1,)
"""The second member answers for every segment."""


def working(arena: Arena, group: ArenaGroup, drawn: int = 2) -> int:
    """A task that the group has taken; its number."""
    arena.play(lambda: group.is_ready)
    task = arena.submit(arena.posting(drawn=drawn))
    arena.play(lambda: group.state is GroupState.WORKING)
    assert arena.task(task).solver == group.contract.address
    return task


def verifying(arena: Arena) -> None:
    arena.enter("verifier", Verifier())
    arena.settle_down()


def over(arena: Arena, task: int) -> TaskState:
    """Play until the task is over, and nobody has anything to do at once."""
    arena.play(lambda: arena.task(task).state.is_over)
    arena.settle_down()
    return arena.state(task)


def stake_of(arena: Arena, task: int) -> int:
    return arena.market.tasks.stake(task)


def earned(arena: Arena, group: ArenaGroup, task: int, *names: str) -> dict[str, int]:
    """What the members of a group whose task is settled have at least."""
    return {name: group.share(name, arena.price_of(task)) for name in names}


# ---- False segments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drawn", [SEGMENTS, 1], ids=["drawn", "audited"])
def test_a_member_that_signed_for_a_false_segment_pays_for_it_alone(drawn: int, arena: Arena) -> None:
    """The others have trained on from what it gave them, and lose their reward, but none of their contributions."""
    verifying(arena)
    group = ArenaGroup(arena, OWNERS)
    group.enter_all(spoiling(SPOILT))
    finder = "verifier"
    if drawn < SEGMENTS:
        finder = "auditor"
        arena.enter(finder, Whistleblower(WhistleblowerOptions(audits=SEGMENTS)))
    task = working(arena, group, drawn)
    assert over(arena, task) is TaskState.FAILED
    arena.play(lambda: group.state is GroupState.CLOSED)
    if drawn < SEGMENTS:
        assert arena.task(task).finder == arena.address(finder)
        blame = group.call("blameCase", *group.work("second", task, SPOILT))
    else:
        blame = group.blame_round("second", task, SPOILT)
    arena.account("third").send(blame)
    group.play_until_paid_out()
    gains = arena.conclude(
        "second",
        honest=group.share("second", arena.price_of(task)),
        promised={"leader": 0, "third": 0, "submitter": -BOUNTY, finder: arena.found_share(task)},
        most=BOUNTY - stake_of(arena, task),
    )
    assert gains["group"] == 0


@pytest.mark.parametrize("drawn", [SEGMENTS, 1], ids=["drawn", "audited"])
def test_the_other_members_have_the_owner_of_a_false_segment_charged_by_themselves(drawn: int, arena: Arena) -> None:
    """Nobody calls the contract by hand: the roles keep what was signed, and use it."""
    verifying(arena)
    group = ArenaGroup(arena, OWNERS)
    group.enter_all(group.signing(spoiling(SPOILT)))
    finder = "verifier"
    if drawn < SEGMENTS:
        finder = "auditor"
        arena.enter(finder, Whistleblower(WhistleblowerOptions(audits=SEGMENTS)))
    task = working(arena, group, drawn)
    for _ in range(2):  # the second time, everybody's signatures are there
        for name in NAMES:
            arena.nodes[name].bench.sign(arena.task(task), name)
    assert over(arena, task) is TaskState.FAILED
    group.play_until_paid_out()
    (liable,) = (member.account for member in group.view.members if member.is_liable)
    assert liable == arena.address("second")
    gains = arena.conclude(
        "second",
        honest=group.share("second", arena.price_of(task)),
        promised={"leader": 0, "third": 0, "submitter": -BOUNTY, finder: arena.found_share(task)},
        most=BOUNTY - stake_of(arena, task),
    )
    assert gains["group"] == 0


def test_a_member_drawn_to_verify_its_groups_false_proof_loses_its_seat_and_its_contribution(arena: Arena) -> None:
    """It spoils its segment, has a seat on the roll, is drawn, and says that the segment is right."""

    class Bench(UnreplayedBench, spoiling(SPOILT)):  # type: ignore[misc]
        pass

    group = ArenaGroup(arena, OWNERS)
    for name in ("leader", "third"):
        group.enter(name, bench=spoiling(SPOILT))
    group.enter("second", bench=Bench, also=[Verifier()])
    arena.settle_down()
    arena.enter("whistleblower", Whistleblower(WhistleblowerOptions(audits=0)))
    task = working(arena, group, SEGMENTS)
    assert over(arena, task) is TaskState.FAILED
    (number,) = arena.task(task).rounds
    assert arena.view.rounds[number].verifier == arena.address("second")
    arena.play(lambda: group.state is GroupState.CLOSED)
    arena.account("leader").send(group.blame_round("second", task, SPOILT))
    group.play_until_paid_out()
    seat = arena.parameters.seat
    found = seat * arena.parameters.finder_rate // MILLION + arena.found_share(task)
    arena.conclude(
        "second",
        honest=group.share("second", arena.price_of(task)) + arena.fee_of(task),
        promised={"leader": 0, "third": 0, "submitter": -BOUNTY, "whistleblower": found},
        most=BOUNTY - seat - stake_of(arena, task),
    )


def test_a_member_that_signed_two_things_about_a_segment_loses_contribution_and_share(arena: Arena) -> None:
    verifying(arena)
    group = ArenaGroup(arena, OWNERS)
    group.enter_all()
    task = working(arena, group)
    subject = b"what was sent in step 3".ljust(32, b"\0")
    statements = [group.signed("second", task, subject, bytes([value]) * 32) for value in (1, 2)]
    place = NAMES.index("second")
    arena.account("third").send(group.contract.convict(place, *statements[0], *statements[1]))
    assert over(arena, task) is TaskState.SETTLED
    group.play_until_paid_out()
    price, left = arena.price_of(task), MILLION - SHARES["second"]
    others = {
        name: sum(amount * SHARES[name] // left for amount in (price, CONTRIBUTION)) for name in ("leader", "third")
    }
    arena.conclude(
        "second",
        honest=group.share("second", price),
        promised={**others, "verifier": arena.fee_of(task), "submitter": -arena.cost_of(task)},
        most=BOUNTY - CONTRIBUTION,
    )


# ---- In court -------------------------------------------------------------------------------------------------------


def test_nobody_speaks_in_court_for_the_owner_of_a_segment(arena: Arena) -> None:
    """The leader has an accomplice dispute a true segment, and tries to defend it with a lie before its owner does."""
    verifying(arena)
    group = ArenaGroup(arena, OF_THE_SECOND)
    group.enter_all()
    arena.enter("accomplice", FalseAccuser(), bench=LyingBench)
    task = working(arena, group)
    arena.play(lambda: bool(arena.view.claims.cases))
    (case,) = arena.view.claims.cases.values()
    view, about = case_view(arena.reader, case.id), subject_of_case(arena.view, case)
    assert view is not None
    assert about is not None
    liar = arena.nodes["accomplice"].bench
    lie = claimant_move(view, liar.execution(*about))
    assert isinstance(lie, Move)
    assert lie.function == "expand"
    for name in ("leader", "third", "accomplice"):
        with pytest.raises(RefusedError):
            group.send(name, "expand", case.id, view.position, *lie.arguments)
    assert over(arena, task) is TaskState.SETTLED
    assert arena.view.claims.cases[case.id].challenger_won is False
    group.play_until_paid_out()
    bond, price = arena.parameters.case_bond, arena.price_of(task)
    gained = {name: group.share(name, price + bond // 2) for name in NAMES}
    arena.conclude(
        "leader",
        "accomplice",
        honest=group.share("leader", price),
        promised={name: gained[name] for name in ("second", "third")}
        | {"verifier": arena.fee_of(task), "submitter": -arena.cost_of(task)},
        most=gained["leader"] + 2 + BOUNTY - bond,
    )


def test_an_owner_that_is_silent_in_court_is_relieved_by_its_leader_and_its_accomplice_pays(arena: Arena) -> None:
    """Others wait for its clock, which is charged to the stake that all have put in."""
    verifying(arena)
    group = ArenaGroup(arena, OF_THE_SECOND)
    group.enter_all(second=SilentInCourt)
    arena.enter("accomplice", FalseAccuser(), bench=LyingBench)
    task = working(arena, group)
    assert over(arena, task) is TaskState.SETTLED
    (case,) = arena.view.claims.cases.values()
    assert case.challenger_won is False
    assert group.contract.ask("isRelieved", case.leaf - 1)
    group.play_until_paid_out()
    bond, price = arena.parameters.case_bond, arena.price_of(task)
    charge = arena.market.tasks.ask("chargeOf", task)
    assert 0 < charge < bond // 100
    gained = {name: group.share(name, price + bond // 2) - group.loss(name, charge) for name in NAMES}
    arena.conclude(
        "second",
        "accomplice",
        honest=group.share("second", price),
        promised={name: gained[name] for name in ("leader", "third")} | {"submitter": -arena.cost_of(task)},
        most=gained["second"] + 2 + BOUNTY - bond,
    )


def test_an_owner_that_is_silent_about_its_false_segment_is_not_relieved_and_pays_for_it_alone(arena: Arena) -> None:
    """Nobody is charged for a case in which its leader spoke: an honest leader does not speak for a false segment."""
    verifying(arena)
    group = ArenaGroup(arena, OWNERS)
    group.enter_all(spoiling(SPOILT), second=SilentInCourt)
    arena.enter("auditor", Whistleblower(WhistleblowerOptions(audits=SEGMENTS)))
    task = working(arena, group, 1)
    assert over(arena, task) is TaskState.FAILED
    arena.play(lambda: group.state is GroupState.CLOSED)
    arena.account("third").send(group.call("blameCase", *group.work("second", task, SPOILT)))
    group.play_until_paid_out()
    arena.conclude(
        "second",
        honest=group.share("second", arena.price_of(task)),
        promised={"leader": 0, "third": 0, "submitter": -BOUNTY, "auditor": arena.found_share(task)},
        most=BOUNTY - stake_of(arena, task),
    )


def lose_on_purpose(arena: Arena, group: ArenaGroup) -> int:
    """The owner of all segments lies in court about a true one, to an accomplice that tells the truth; the others show
    what it had signed."""
    verifying(arena)
    group.enter_all(second=LyingBench)
    arena.enter("accomplice", FalseAccuser())
    task = working(arena, group)
    assert over(arena, task) is TaskState.FAILED
    assert arena.task(task).finder == arena.address("accomplice")
    arena.play(lambda: group.state is GroupState.CLOSED)
    arena.account("third").send(group.call("blameCase", *group.work("second", task, 0)))
    group.play_until_paid_out()
    return task


def test_an_owner_that_loses_its_case_to_an_accomplice_pays_for_it_alone(arena: Arena) -> None:
    group = ArenaGroup(arena, OF_THE_SECOND)
    task = lose_on_purpose(arena, group)
    arena.conclude(
        "second",
        "accomplice",
        honest=group.share("second", arena.price_of(task)),
        promised={"leader": 0, "third": 0, "submitter": -BOUNTY},
        most=arena.found_share(task) + BOUNTY - stake_of(arena, task),
    )


def test_an_owner_with_little_in_the_group_gains_the_finders_part_less_its_contribution_at_most(arena: Arena) -> None:
    """A documented limit: what it loses is no more than it has put in, and the finder's part comes out of what all
    have. Where each owner contributes at least the finder's part, as above, nobody gains by this."""
    contributions = (COIN, COIN // 10, COIN)
    group = ArenaGroup(arena, OF_THE_SECOND, contributions)
    task = lose_on_purpose(arena, group)
    found, own = arena.found_share(task), group.contributions["second"]
    assert found > own
    beyond, others = stake_of(arena, task) - own, 2 * COIN
    arena.conclude(
        "second",
        "accomplice",
        honest=group.share("second", arena.price_of(task)),
        promised=dict.fromkeys(("leader", "third"), -(beyond * COIN // others) - 1) | {"submitter": -BOUNTY},
        most=found - own + BOUNTY,
    )


# ---- Leaders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["task", "least_price", "most_stake"])
def test_a_leader_that_wants_more_than_was_signed_gets_nothing(limit: str, arena: Arena) -> None:
    """It has nothing else to do than to let the group be dissolved."""
    verifying(arena)
    task = arena.submit()
    arena.tick()
    wrong = {"task": task + 1, "least_price": COIN + 1, "most_stake": stake_of(arena, task) - 1}
    group = ArenaGroup(arena, **{limit: wrong[limit]})
    for name in ("second", "third"):
        group.enter(name)
    arena.account("leader").send(group.contract.contribute(0, CONTRIBUTION))
    arena.play(lambda: group.is_ready)
    for lowest in (0, COIN):
        with pytest.raises(RefusedError):
            group.send("leader", "take", task, lowest)
    assert arena.state(task) is TaskState.OPEN
    arena.submitter.send(arena.market.tasks.cancel(task))
    arena.tick(group.view.take_by - arena.now)
    arena.play(lambda: group.state is GroupState.SHARED)
    group.send("leader", "withdraw")
    arena.play(lambda: group.is_paid_out)
    arena.conclude("leader", honest=0, promised={"second": 0, "third": 0, "submitter": 0, "verifier": 0})


def test_a_leader_that_disappears_with_a_task_is_replaced_and_has_its_share_at_most(arena: Arena) -> None:
    """A documented limit: whoever does nothing is paid all the same, where the others do it all without it."""
    verifying(arena)
    group = ArenaGroup(arena, OWNERS)
    group.enter_all(leader=Gone)
    task = working(arena, group)
    assert over(arena, task) is TaskState.SETTLED
    assert group.view.leader == arena.address("second")
    group.play_until_paid_out()
    share = group.share("leader", arena.price_of(task)) + 2
    arena.conclude(
        "leader",
        honest=share,
        promised=earned(arena, group, task, "second", "third")
        | {"verifier": arena.fee_of(task), "submitter": -arena.cost_of(task)},
        most=share,
    )


def present(arena: Arena, group: ArenaGroup, task: int, *absent: str) -> dict[str, int]:
    """What members have at least of the income of a group that pays four fifths of it for presence, of which some were
    absent throughout."""
    weights = {name: SHARES[name] * (1 if name in absent else 5) for name in NAMES}
    return {name: arena.price_of(task) * weights[name] // sum(weights.values()) for name in NAMES}


def test_a_member_that_does_nothing_has_the_part_of_its_share_that_is_not_for_presence(arena: Arena) -> None:
    verifying(arena)
    group = ArenaGroup(arena, presence_rate=800_000)
    for name in ("leader", "second"):
        group.enter(name, bench=group.witnessing("leader", "second"), also=(AbsenceParty(),))
    group.enter("third", Gone, also=(AbsenceParty(),))
    task = working(arena, group)
    assert over(arena, task) is TaskState.SETTLED
    group.play_until_paid_out()
    assert [member.absent for member in group.view.members] == [0, 0, SEGMENTS]
    parts = present(arena, group, task, "third")
    arena.conclude(
        "third",
        honest=group.share("third", arena.price_of(task)),
        promised={name: parts[name] for name in ("leader", "second")}
        | {"verifier": arena.fee_of(task), "submitter": -arena.cost_of(task)},
        most=parts["third"] + 2,
    )


def test_a_false_report_of_absence_costs_its_bond_and_changes_nothing(arena: Arena) -> None:
    verifying(arena)
    group = ArenaGroup(arena, presence_rate=800_000)
    for name in ("leader", "second"):
        group.enter(name, bench=group.witnessing(*NAMES), also=(AbsenceParty(),))
    group.enter("third")
    task = working(arena, group)
    arena.play(lambda: arena.task(task).state is TaskState.VERIFYING)
    presence = arena.market.presence
    bond = presence.bond()
    arena.account("third").send(presence.report(group.contract.address, 1, 0, SEGMENTS - 1, bond))
    assert over(arena, task) is TaskState.SETTLED
    group.play_until_paid_out()
    assert [member.absent for member in group.view.members] == [0, 0, 0]
    parts = present(arena, group, task)
    arena.conclude(
        "third",
        honest=parts["third"],
        promised={"leader": parts["leader"], "second": parts["second"] + bond},
        most=parts["third"] + 2 - bond,
    )


def test_a_friends_receipt_brings_an_absent_member_its_share_and_one_bond_at_most(arena: Arena) -> None:
    """A documented limit: a receipt is one member's word."""
    verifying(arena)
    group = ArenaGroup(arena, presence_rate=800_000)
    group.enter("leader", bench=group.witnessing("leader", "second"), also=(AbsenceParty(),))
    group.enter("second")
    group.enter("third", Gone, bench=group.witnessing("second", "third"), also=(AbsenceParty(),))
    task = working(arena, group)
    assert over(arena, task) is TaskState.SETTLED
    group.play_until_paid_out()
    bond = arena.market.presence.bond()
    parts = present(arena, group, task)
    most = parts["second"] + parts["third"] + 2 + bond
    arena.conclude(
        "second",
        "third",
        honest=most,
        promised={"leader": parts["leader"] - bond, "submitter": -arena.cost_of(task)},
        most=most,
    )


@pytest.mark.parametrize("is_late", [False, True], ids=["gives it up", "lets it be late"])
def test_a_leader_that_has_a_task_and_wastes_it_bears_its_part_of_the_forfeit(is_late: bool, arena: Arena) -> None:
    """The others have trained, and cannot register in its place while it says that it is there."""
    verifying(arena)
    group = ArenaGroup(arena, OWNERS)
    group.enter_all(leader=Idle)
    task = working(arena, group)
    price, stake = arena.price_of(task), stake_of(arena, task)
    for call in (("stepDown",), ("takeOver",), ("take", task, 0), ("register", bytes(32), bytes(32), [], [], "")):
        with pytest.raises(RefusedError):
            group.send("second", *call)
    if not is_late:
        group.send("leader", "stepDown")
    arena.play(lambda: arena.state(task) is TaskState.OPEN)
    forfeit = arena.market.stakes.pool() - arena.books.pool_before
    assert forfeit >= stake * arena.parameters.step_down_rate // MILLION
    arena.submitter.send(arena.market.tasks.cancel(task))
    group.play_until_paid_out()
    arena.conclude(
        "leader",
        honest=group.share("leader", price),
        promised={name: -group.loss(name, forfeit) for name in ("second", "third")} | {"submitter": 0, "verifier": 0},
        most=-group.loss("leader", forfeit) + 2,
    )


def test_a_leader_that_registers_files_that_lie_nowhere_bears_its_part_of_the_forfeit(arena: Arena) -> None:
    """What was trained is right, and nobody can fetch it: the others hold it, but only the leader says where."""
    names = [f"verifier {number}" for number in range(arena.parameters.maximal_step_backs)]
    for name in names:
        arena.enter(name, Verifier(VerifierOptions(fetch_attempts=1)))
    arena.settle_down()
    group = ArenaGroup(arena, OWNERS)
    group.enter_all(leader=HidingBench)
    task = working(arena, group)
    assert over(arena, task) is TaskState.UNAVAILABLE
    group.play_until_paid_out()
    forfeit = arena.price_of(task) * arena.parameters.unavailable_rate // MILLION
    arena.conclude(
        "leader",
        honest=group.share("leader", arena.price_of(task)),
        promised={name: -group.loss(name, forfeit) for name in ("second", "third")}
        | {"submitter": -BOUNTY}
        | dict.fromkeys(names, -arena.step_back_charge(task)),
        most=len(names) * BOUNTY - group.loss("leader", forfeit) + 2,
    )


def test_a_leader_that_registers_rubbish_for_an_accomplice_takes_no_more_than_was_signed(arena: Arena) -> None:
    """A documented limit: members trust their leader within the limits they signed. All lose in proportion to what
    they put in, and the accomplice has the finder's part, as anybody would who looked first."""
    verifying(arena)
    group = ArenaGroup(arena, OWNERS)
    group.enter_all(leader=forging(random_states))
    arena.enter("accomplice", FalseAccuser())
    task = working(arena, group, 1)
    assert over(arena, task) is TaskState.FAILED
    assert arena.task(task).finder == arena.address("accomplice")
    group.play_until_paid_out()
    stake = stake_of(arena, task)
    arena.conclude(
        "leader",
        "accomplice",
        honest=group.share("leader", arena.price_of(task)),
        promised={name: -group.loss(name, stake) for name in ("second", "third")} | {"submitter": -BOUNTY},
        most=arena.found_share(task) - group.loss("leader", stake) + 2 + BOUNTY,
    )


def test_a_member_cannot_take_the_place_of_a_leader_that_waits(arena: Arena) -> None:
    """Whoever leads could lose the group's stake to an accomplice: the leader says that it is there before its place
    can be taken, while it waits for a task and while its proof is verified."""
    verifying(arena)
    group = ArenaGroup(arena, OWNERS)
    group.enter_all()
    arena.play(lambda: group.is_ready)
    tries = 0

    def try_to_lead() -> bool:
        nonlocal tries
        tries += 1
        with pytest.raises(RefusedError):
            group.send("second", "takeOver")
        return False

    end = arena.now + 2 * group.view.patience
    arena.play(lambda: try_to_lead() or arena.now > end)
    task = arena.submit()
    arena.play(lambda: try_to_lead() or arena.task(task).state.is_over)
    arena.settle_down()
    assert arena.state(task) is TaskState.SETTLED
    assert tries > 10
    group.play_until_paid_out()
    share = group.share("second", arena.price_of(task)) + 2
    arena.conclude(
        "second",
        honest=share,
        promised=earned(arena, group, task, "leader", "third")
        | {"verifier": arena.fee_of(task), "submitter": -arena.cost_of(task)},
        most=share,
    )


# ---- Contributions and payments -------------------------------------------------------------------------------------


def test_a_group_whose_member_never_contributes_gives_everything_back(arena: Arena) -> None:
    group = ArenaGroup(arena, OWNERS)
    group.enter_all(second=NeverContributes)
    arena.play(lambda: group.is_paid_out)
    assert group.view.balance == 0
    arena.conclude("second", honest=group.share("second", COIN), promised={"leader": 0, "third": 0})


def test_a_member_is_paid_once_and_nobody_elses_part(arena: Arena) -> None:
    """After the end everything that a member can call is refused, or moves nothing."""
    verifying(arena)
    group = ArenaGroup(arena, OWNERS)
    group.enter_all()
    task = working(arena, group)
    arena.leave("second")
    assert over(arena, task) is TaskState.SETTLED
    arena.sweep()
    arena.play(lambda: group.state is GroupState.SHARED and not group.view.leaving)
    arena.settle_down()
    others = earned(arena, group, task, "leader", "third")
    gained = arena.books.gains()
    assert all(gained[name] >= least for name, least in others.items())
    group.send("second", "withdraw")
    arena.settle_down()
    arena.books.begin()
    again = [("withdraw",), ("share",), ("close",), ("dissolve",), ("take", task, 0), ("stepDown",)]
    for call in again:
        with pytest.raises(RefusedError):
            group.send("second", *call)
    with pytest.raises(RefusedError):
        arena.account("second").send(group.contract.contribute(1, CONTRIBUTION))
    group.send("second", "collect")
    with pytest.raises(RefusedError):
        group.send("second", "withdraw")
    arena.anyone(arena.market.stakes.release(group.contract.address))
    arena.conclude("second", honest=0, promised={"leader": 0, "third": 0, "verifier": 0, "submitter": 0})
