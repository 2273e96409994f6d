"""The rules of single moves: whose turn, which position, which clock, and what never decides a case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import world
from world import Lies, OutputLie, StateLie

from assay.bench.arena import ALLOWANCE, EXTENSION, OVERSHOOT_PRICE, Arena, Player, RevertedError, silent
from assay.dispute import moves
from assay.dispute.case import CaseView, Part, Phase, Tree
from assay.dispute.moves import Move
from assay.program.operator import Role

LIE = Lies(output=OutputLie(Role.STEP, 2, 19, 500))  # the new first weights
TIMEOUT = moves.TIMEOUT


@dataclass(frozen=True)
class Dispute:
    """A case in play about a lie of the claimant's, unless the claim is honest and the challenger deluded."""

    arena: Arena
    case_id: int
    claimant: str
    challenger: str
    claims: Player
    denies: Player

    @property
    def view(self) -> CaseView:
        return self.arena.view(self.case_id)

    def next(self) -> tuple[str, CaseView, Move]:
        """Whose move it is, and which it would be."""
        view = self.view
        challengers = view.cursor.phase == Phase.CHOOSE
        move = (self.denies if challengers else self.claims)(view)
        assert move is not None
        return (self.challenger if challengers else self.claimant), view, move

    def advance(self, until: Callable[[CaseView], bool]) -> CaseView:
        """Play until the view is as wanted."""
        while not until(self.view):
            self.arena.play(*self.next())
        return self.view

    @property
    def winner(self) -> bool | None:
        """Whether the challenger won; None while the case is open."""
        report = self.arena.report(self.case_id)
        return bool(report["challengerWon"]) if report["closed"] else None


@pytest.fixture
def dispute(arena: Arena, claimant: str, challenger: str) -> Dispute:
    return open_dispute(arena, claimant, challenger)


def open_dispute(
    arena: Arena, claimant: str, challenger: str, lies: Lies | None = LIE, deluded: Lies | None = None
) -> Dispute:
    setup = world.post_replay(arena, claimant, 1, lies)
    case_id = arena.open(challenger, setup.claim_id, 1, Part.END, setup.evidence(Part.END))
    denies = world.challenger_of(world.execution(1, deluded))
    return Dispute(arena, case_id, claimant, challenger, world.claimant_of(setup.execution), denies)


def refuses(name: str, action: Callable[[], object]) -> RevertedError:
    with pytest.raises(RevertedError) as caught:
        action()
    assert caught.value.name == name, caught.value
    return caught.value


TURNS: dict[str, Callable[[CaseView], bool]] = {
    "expand the segment": lambda v: v.cursor.phase == Phase.EXPAND and v.cursor.tree == Tree.SEGMENT,
    "choose in the segment": lambda v: v.cursor.phase == Phase.CHOOSE and v.cursor.tree == Tree.SEGMENT,
    "expand the step": lambda v: v.cursor.phase == Phase.EXPAND and v.cursor.tree == Tree.OPERATORS,
    "choose among operators": lambda v: v.cursor.phase == Phase.CHOOSE and v.cursor.tree == Tree.OPERATORS,
    "reveal operators": lambda v: v.cursor.phase == Phase.REVEAL and v.cursor.tree == Tree.OPERATORS,
    "reveal chunks": lambda v: v.cursor.phase == Phase.REVEAL and v.cursor.tree == Tree.TENSOR and v.cursor.levels > 0,
    "choose a chunk": lambda v: v.cursor.phase == Phase.CHOOSE and v.cursor.tree == Tree.TENSOR and v.cursor.levels > 0,
    "reveal a chunk": lambda v: (
        v.cursor.phase == Phase.REVEAL and v.cursor.tree == Tree.TENSOR and v.cursor.levels == 0
    ),
    "choose an element": lambda v: (
        v.cursor.phase == Phase.CHOOSE and v.cursor.tree == Tree.TENSOR and not v.cursor.levels
    ),
    "prove": lambda v: v.cursor.phase == Phase.PROVE,
}


# ---- Silence and clocks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", TURNS)
def test_silence_loses_at_every_turn(dispute: Dispute, stranger: str, turn: str) -> None:
    view = dispute.advance(TURNS[turn])
    refuses("ClockRunning", lambda: dispute.arena.play(stranger, view, TIMEOUT))
    dispute.arena.wait(ALLOWANCE + 1)
    # Anyone may end it: the side in turn has lost.
    dispute.arena.play(stranger, view, TIMEOUT)
    assert dispute.winner == (view.cursor.phase != Phase.CHOOSE)


@pytest.mark.parametrize("turn", ["expand the step", "choose a chunk"])
def test_move_in_the_last_second_counts_and_one_second_later_only_a_timeout_does(dispute: Dispute, turn: str) -> None:
    arena = dispute.arena
    dispute.advance(TURNS[turn])
    sender, view, move = dispute.next()
    deadline = int(arena.court.functions.deadlineOf(view.case_id).call())
    snapshot = arena.rpc("evm_snapshot")
    arena.rpc("evm_setNextBlockTimestamp", deadline)
    arena.web3.eth.wait_for_transaction_receipt(
        arena.call_of(view, move).transact({"from": sender, "gas": 16_000_000, "gasPrice": 0})
    )
    assert dispute.view.position != view.position
    arena.rpc("evm_revert", snapshot)
    arena.rpc("evm_setNextBlockTimestamp", deadline + 1)
    arena.rpc("evm_mine")
    refuses("ClockExpired", lambda: arena.play(sender, view, move))
    arena.play(sender, view, TIMEOUT)
    assert dispute.winner == (view.cursor.phase != Phase.CHOOSE)


def test_a_side_with_its_clock_spent_has_the_extension_and_pays_for_it(dispute: Dispute) -> None:
    arena = dispute.arena
    dispute.advance(TURNS["choose in the segment"])
    # The challenger uses nearly all of its clock, then more than what is left in the next turn.
    arena.wait(ALLOWANCE - 100)
    arena.play(*dispute.next())
    dispute.advance(TURNS["choose among operators"])
    arena.wait(EXTENSION - 100)
    arena.play(*dispute.next())
    outcome = arena.play_out(dispute.case_id, dispute.claims, dispute.denies)
    assert outcome.challenger_won
    charge = arena.report(dispute.case_id)["overshoot"]
    assert EXTENSION - 300 <= charge / OVERSHOOT_PRICE <= EXTENSION


def test_the_claimants_overshoot_is_charged_with_the_other_sign(dispute: Dispute) -> None:
    arena = dispute.arena
    arena.wait(ALLOWANCE - 100)
    arena.play(*dispute.next())
    dispute.advance(TURNS["expand the step"])
    arena.wait(EXTENSION - 100)
    arena.play(*dispute.next())
    arena.play_out(dispute.case_id, dispute.claims, dispute.denies)
    assert -EXTENSION <= arena.report(dispute.case_id)["overshoot"] / OVERSHOOT_PRICE <= 300 - EXTENSION


def test_the_clock_of_the_other_side_stands_still(dispute: Dispute) -> None:
    arena = dispute.arena
    dispute.advance(TURNS["choose in the segment"])
    arena.wait(ALLOWANCE - 100)
    arena.play(*dispute.next())
    arena.wait(ALLOWANCE - 100)  # the claimant still has nearly all of its own
    arena.play(*dispute.next())
    assert dispute.winner is None


# ---- Whose move, and which ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", TURNS)
def test_only_its_party_expands_and_chooses_but_anyone_reveals_and_proves(
    dispute: Dispute, stranger: str, turn: str
) -> None:
    dispute.advance(TURNS[turn])
    _, view, move = dispute.next()
    if view.cursor.phase in (Phase.REVEAL, Phase.PROVE):
        dispute.arena.play(stranger, view, move)
        assert dispute.view.position != view.position
        return
    wrong = [stranger, dispute.claimant if view.cursor.phase == Phase.CHOOSE else dispute.challenger]
    for sender in wrong:
        refuses("NotTheParty", lambda sender=sender: dispute.arena.play(sender, view, move))


def test_delegate_moves_for_its_party_until_dismissed(dispute: Dispute, stranger: str) -> None:
    arena, court = dispute.arena, dispute.arena.court.functions
    arena.transact(dispute.claimant, court.setDelegate(stranger, True))
    _, view, move = dispute.next()
    arena.play(stranger, view, move)
    # Not for the other side.
    _, view, move = dispute.next()
    refuses("NotTheParty", lambda: arena.play(stranger, view, move))
    arena.transact(dispute.claimant, court.setDelegate(stranger, False))
    dispute.advance(TURNS["expand the step"])
    _, view, move = dispute.next()
    refuses("NotTheParty", lambda: arena.play(stranger, view, move))


@pytest.mark.parametrize("turn", TURNS)
def test_a_move_played_twice_does_nothing_the_second_time(dispute: Dispute, turn: str) -> None:
    dispute.advance(TURNS[turn])
    sender, view, move = dispute.next()
    dispute.arena.play(sender, view, move)
    name = "CaseNotOpen" if turn == "prove" else "PositionMoved"
    refuses(name, lambda: dispute.arena.play(sender, view, move))


def test_a_move_does_not_land_in_another_case_on_the_same_claim(arena: Arena, claimant: str, challenger: str) -> None:
    setup = world.post_replay(arena, claimant, 1, LIE)
    ids = [arena.open(challenger, setup.claim_id, 1, Part.END, setup.evidence(Part.END)) for _ in range(2)]
    first, second = (arena.view(case_id) for case_id in ids)
    assert first.position != second.position
    move = world.claimant_of(setup.execution)(first)
    assert move is not None
    function = arena.court.functions[move.function]
    refuses("PositionMoved", lambda: arena.transact(claimant, function(ids[1], first.position, *move.arguments)))


def test_a_copied_reveal_helps_its_victim(dispute: Dispute, stranger: str) -> None:
    dispute.advance(TURNS["reveal a chunk"])
    _, view, move = dispute.next()
    dispute.arena.play(stranger, view, move)
    outcome = dispute.arena.play_out(dispute.case_id, dispute.claims, dispute.denies)
    assert outcome.challenger_won


def test_a_copied_choice_is_refused_and_the_original_still_counts(dispute: Dispute, stranger: str) -> None:
    dispute.advance(TURNS["choose an element"])
    sender, view, move = dispute.next()
    refuses("NotTheParty", lambda: dispute.arena.play(stranger, view, move))
    dispute.arena.play(sender, view, move)
    assert dispute.view.cursor.phase == Phase.PROVE


def test_moves_out_of_turn_are_refused(dispute: Dispute) -> None:
    arena = dispute.arena
    view = dispute.view
    refuses("NotTheTurn", lambda: arena.play(dispute.challenger, view, moves.choose(0, bytes(32), [])))
    refuses("NotTheTurn", lambda: arena.play(dispute.claimant, view, moves.reveal(bytes(32))))
    dispute.advance(TURNS["choose among operators"])
    view = dispute.view
    refuses("NotTheTurn", lambda: arena.play(dispute.claimant, view, moves.expand(bytes(32), b"")))
    refuses("NotAChunk", lambda: arena.play(dispute.challenger, view, moves.choose_element(0, bytes(1024))))


def test_no_move_after_the_case_is_decided(dispute: Dispute, stranger: str) -> None:
    arena = dispute.arena
    dispute.advance(TURNS["prove"])
    sender, view, move = dispute.next()
    arena.play(sender, view, move)
    assert dispute.winner is True
    closed = arena.view(dispute.case_id)
    for late in (move, moves.reveal(bytes(32)), moves.expand(bytes(32), b""), moves.choose(0, bytes(32), [])):
        refuses("CaseNotOpen", lambda late=late: arena.play(sender, closed, late))
    arena.wait(10 * ALLOWANCE)
    refuses("CaseNotOpen", lambda: arena.play(stranger, closed, TIMEOUT))
    assert arena.report(dispute.case_id)["closed"] == 1


# ---- What never decides ---------------------------------------------------------------------------------------------


def flipped(text: bytes, at: int = 0) -> bytes:
    """The text with one bit turned."""
    return text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]


@pytest.mark.parametrize("turn", [turn for turn in TURNS if turn.startswith("reveal")])
def test_wrong_reveals_revert(dispute: Dispute, turn: str) -> None:
    arena = dispute.arena
    dispute.advance(TURNS[turn])
    sender, view, move = dispute.next()
    (shown,) = move.arguments
    refuses("WrongHash", lambda: arena.play(sender, view, moves.reveal(flipped(shown, len(shown) - 1))))
    refuses("WrongLength", lambda: arena.play(sender, view, moves.reveal(shown[:-32])))
    refuses("WrongLength", lambda: arena.play(sender, view, moves.reveal(shown + bytes(32))))
    arena.play(sender, view, move)


def test_wrong_choices_revert(dispute: Dispute) -> None:
    arena = dispute.arena
    dispute.advance(TURNS["choose in the segment"])
    sender, view, move = dispute.next()
    place, child, proof = move.arguments
    refuses("WrongHash", lambda: arena.play(sender, view, moves.choose(place ^ 1, child, proof)))
    refuses("WrongHash", lambda: arena.play(sender, view, moves.choose(place, flipped(child), proof)))
    refuses("WrongLength", lambda: arena.play(sender, view, moves.choose(place, child, proof[:-1])))
    refuses("OutsideNode", lambda: arena.play(sender, view, moves.choose(1 << view.cursor.shown, child, proof)))
    # Eight leaves for five steps: the last three are padding, which there is nothing to say against.
    known = view.known[view.place]
    padded = [known[(0, 6)], known[(1, 2)], known[(2, 0)]]
    refuses("PaddingGranted", lambda: arena.play(sender, view, moves.choose(7, known[(0, 7)], padded)))


def test_wrong_evidence_reverts_and_decides_nothing(dispute: Dispute) -> None:
    arena = dispute.arena
    dispute.advance(TURNS["prove"])
    sender, view, move = dispute.next()
    facts, header, (operator, operands, previous) = move.arguments
    record, work, siblings = operator
    wrong = {
        "facts": ((flipped(facts[0]), *facts[1:]), header, (operator, operands, previous)),
        "header": (facts, flipped(header, 100), (operator, operands, previous)),
        "record": (facts, header, ((flipped(record, 20), work, siblings), operands, previous)),
        "work": (facts, header, ((record, work + 1, siblings), operands, previous)),
        "fewer operands": (facts, header, (operator, operands[:-1], previous)),
    }
    names = {"facts": "WrongFacts", "header": "WrongHeader", "fewer operands": "WrongOperands"}
    for what, arguments in wrong.items():
        refuses(names.get(what, "WrongHash"), lambda a=arguments: arena.play(sender, view, Move("prove", a)))
    for number, (chunk, proof) in enumerate(operands):
        if not chunk:
            continue
        for fake in ((flipped(chunk, 1023), proof), (chunk, [flipped(proof[0]), *proof[1:]])):
            changed = [*operands[:number], fake, *operands[number + 1 :]]
            arguments = (facts, header, (operator, changed, previous))
            refuses("WrongHash", lambda a=arguments: arena.play(sender, view, Move("prove", a)))
        shorter = [*operands[:number], (chunk, proof[:-1]), *operands[number + 1 :]]
        arguments = (facts, header, (operator, shorter, previous))
        refuses("WrongLength", lambda a=arguments: arena.play(sender, view, Move("prove", a)))
    assert dispute.winner is None
    arena.play(sender, view, move)
    assert dispute.winner is True


@pytest.mark.parametrize("share", [0.7, 0.8, 0.9, 0.95])
def test_starved_gas_reverts_and_decides_nothing(arena: Arena, claimant: str, challenger: str, share: float) -> None:
    # The claim is honest: a result that came of starved hashing or arithmetic would wrongly fell it.
    dispute = open_dispute(arena, claimant, challenger, lies=None, deluded=LIE)
    view = dispute.advance(TURNS["prove"])
    _, _, move = dispute.next()
    call = arena.call_of(view, move)
    needed = int(call.estimate_gas({"from": challenger}))
    starved = {"from": challenger, "gas": int(needed * share), "gasPrice": 0}
    receipt = arena.web3.eth.wait_for_transaction_receipt(call.transact(starved), timeout=20)
    assert receipt["status"] == 0
    assert dispute.view == view
    arena.play(challenger, view, move)
    assert dispute.winner is False


# ---- Expansions -----------------------------------------------------------------------------------------------------


def test_an_expansion_binds_all_cases_on_its_claim(arena: Arena, claimant: str, challenger: str, stranger: str) -> None:
    setup = world.post_replay(arena, claimant, 1, LIE)
    first, second = (
        arena.open(account, setup.claim_id, 1, Part.END, setup.evidence(Part.END)) for account in (challenger, stranger)
    )
    told = world.claimant_of(setup.execution)
    view = arena.view(first)
    arena.play(claimant, view, told(view))  # type: ignore[arg-type]
    # Before the second challenger the claimant would like to have told another story.
    other = world.claimant_of(world.execution(1, Lies(state=StateLie(Role.STEP, 1, 5, 0))))
    view = arena.view(second)
    refuses("ExpansionBound", lambda: arena.play(claimant, view, other(view)))  # type: ignore[arg-type]
    honest = world.challenger_of(world.execution(1))
    assert arena.play_out(first, told, honest).challenger_won
    assert arena.play_out(second, told, honest).challenger_won


def test_a_lost_case_shields_the_claim_from_nobody(arena: Arena, claimant: str, challenger: str, stranger: str) -> None:
    setup = world.post_replay(arena, claimant, 1, LIE)
    told = world.claimant_of(setup.execution)
    accomplice = arena.open(stranger, setup.claim_id, 1, Part.END, setup.evidence(Part.END))
    assert not arena.play_out(accomplice, told, silent).challenger_won
    honest = arena.open(challenger, setup.claim_id, 1, Part.END, setup.evidence(Part.END))
    assert arena.play_out(honest, told, world.challenger_of(world.execution(1))).challenger_won


# ---- Opening --------------------------------------------------------------------------------------------------------


def test_opening_needs_the_bond_and_the_true_leaf(arena: Arena, claimant: str, challenger: str) -> None:
    setup = world.post_replay(arena, claimant, 1, LIE)
    evidence = setup.evidence(Part.END)
    least = int(arena.court.functions.MINIMUM_BOND().call())
    refuses("BondTooSmall", lambda: arena.open(challenger, setup.claim_id, 1, Part.END, evidence, bond=least - 1))
    refuses("WrongHash", lambda: arena.open(challenger, setup.claim_id, 0, Part.END, evidence))
    refuses("NoSuchPart", lambda: arena.open(challenger, setup.claim_id, 1, Part.THRESHOLD, evidence))
    refuses("NoClaim", lambda: arena.open(challenger, 10**12, 1, Part.END, evidence))
    case_id = arena.open(challenger, setup.claim_id, 1, Part.END, evidence)
    assert arena.report(case_id)["bond"] == least


def test_distance_is_no_part_of_an_exact_claim(arena: Arena, claimant: str, challenger: str) -> None:
    setup = world.post_replay(arena, claimant, 1, exact=True)
    evidence = setup.evidence(Part.DISTANCE)
    refuses("NoSuchPart", lambda: arena.open(challenger, setup.claim_id, 1, Part.DISTANCE, evidence))


def test_the_initial_state_of_a_training_claim_cannot_be_denied(arena: Arena, claimant: str, challenger: str) -> None:
    tree = world.checkpoint_tree()
    claim_id = world.post_training(arena, claimant, tree)
    evidence = world.training_evidence(tree, 1)
    refuses("InitialState", lambda: arena.open(challenger, claim_id, 0, Part.END, evidence))
    refuses("NoSuchLeaf", lambda: arena.open(challenger, claim_id, 5, Part.END, evidence))


def test_case_ids_differ_by_who_what_and_how_often(arena: Arena, claimant: str, challenger: str, stranger: str) -> None:
    setup = world.post_replay(arena, claimant, 1, LIE)
    ids = [
        arena.open(account, setup.claim_id, 1, part, setup.evidence(part))
        for account in (challenger, challenger, stranger)
        for part in (Part.END, Part.TRACE)
    ]
    assert len(set(ids)) == len(ids)
