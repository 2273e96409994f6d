"""What the picture of the market says of rounds and answers."""

from __future__ import annotations

from dataclasses import replace

from role_world import ROUND, SOLVER, SUBMITTER, TASK, VERIFIER, WITNESS, deposited, drawn, opened, view_of

from assay.commitments.execution import ReplayLeaf as CommittedLeaf
from assay.commitments.execution import claim_root, derived_false_claim
from assay.market import events as e
from assay.market.records import true_leaves
from assay.market.types import Fault, Hidden, ReplayLeaf, RoundState, ShareState, Shown, TaskState
from assay.roles.subjects import hashed


def test_the_price_rises_from_the_lowest_to_the_highest() -> None:
    task = view_of(opened()).task(TASK)
    assert [task.price_at(time) for time in (1000, 1050, 1100, 9999)] == [100, 200, 300, 300]


def test_a_task_goes_from_open_to_verifying_with_one_round() -> None:
    view = view_of(opened() + drawn())
    task = view.task(TASK)
    assert (task.state, task.solver, task.price) == (TaskState.VERIFYING, SOLVER, 150)
    assert task.shares[0].state is ShareState.WORKING
    found = view.current_round(TASK, 0)
    assert found is not None
    assert (found.verifier, found.segments, found.state) == (VERIFIER, (2, 0), RoundState.DRAWN)
    assert view.rounds_of(TASK) == [found]


def shown() -> tuple[list[CommittedLeaf], list[e.MarketEvent]]:
    """A forced round up to its disclosure, and the true leaves."""
    true = [CommittedLeaf(2, b"a" * 32, 0, b"t" * 32), CommittedLeaf(0, b"b" * 32, 0, b"u" * 32)]
    secret = b"s" * 32
    false = derived_false_claim(true, secret, TASK, ROUND)
    (changed,) = (n for n in range(2) if true[n] != false[n])
    what = Shown(Hidden(b"", b"", b""), b"", 0, claim_root(false), bytes(32), True)
    leaves = tuple(ReplayLeaf(leaf.end_root, leaf.distance_bits, leaf.trace_root) for leaf in false)
    trace = true[changed].trace_root
    return true, [
        e.ReplayShown(ROUND, VERIFIER, what, leaves, 100, 200, 300),
        e.ClaimEntered(ROUND, VERIFIER, claim_root(true), True, 900),
        e.RoundDisclosed(ROUND, VERIFIER, True, claim_root(true), True, secret, trace, 900),
    ]


def test_a_disclosed_forced_round_has_the_true_leaves() -> None:
    true, events = shown()
    view = view_of(opened() + drawn() + events)
    leaves = true_leaves(view.rounds[ROUND])
    assert [leaf.trace for leaf in leaves] == [leaf.trace_root for leaf in true]
    assert [leaf.trace for leaf in view.rounds[ROUND].leaves] != [leaf.trace_root for leaf in true]
    assert view.claims.lines[ROUND].leaves == {claim_root(true): leaves}
    assert view.claims.lines[ROUND].published == frozenset()


def test_a_verifier_cannot_keep_its_claim_from_being_opened_by_writing_the_forced_word_into_another_leaf() -> None:
    secret = b"s" * 32
    true = [CommittedLeaf(2, b"a" * 32, 0, b"t" * 32), CommittedLeaf(0, b"b" * 32, 0, b"u" * 32)]
    false = derived_false_claim(true, secret, TASK, ROUND)
    (changed,) = (n for n in range(2) if true[n] != false[n])
    true[1 - changed] = replace(true[1 - changed], trace_root=false[changed].trace_root)
    false = derived_false_claim(true, secret, TASK, ROUND)
    what = Shown(Hidden(b"", b"", b""), b"", 0, claim_root(false), bytes(32), True)
    leaves = tuple(ReplayLeaf(leaf.end_root, leaf.distance_bits, leaf.trace_root) for leaf in false)
    disclosed = [
        e.ReplayShown(ROUND, VERIFIER, what, leaves, 100, 200, 300),
        e.ClaimEntered(ROUND, VERIFIER, claim_root(true), True, 900),
        e.RoundDisclosed(ROUND, VERIFIER, True, claim_root(true), True, secret, true[changed].trace_root, 900),
    ]
    found = view_of(opened() + drawn() + disclosed).claims.lines[ROUND].leaves[claim_root(true)]
    assert claim_root(hashed(found, (2, 0))) == claim_root(true)


def test_answers_can_be_revealed_once_nobody_can_commit() -> None:
    events = opened() + drawn() + [e.Joined(ROUND, WITNESS, 1, 1), shown()[1][0]]
    found = view_of(events).rounds[ROUND]
    assert not found.may_reveal(50)
    assert found.may_reveal(101)
    assert not found.answers_closed(50)
    events.append(e.AnswerCommitted(ROUND, WITNESS, b"c"))
    found = view_of(events).rounds[ROUND]
    assert found.may_reveal(50)
    assert not found.answers_closed(150)
    assert found.answers_closed(201)
    events.append(e.AnswerRevealed(ROUND, WITNESS, b"r"))
    assert view_of(events).rounds[ROUND].answers_closed(50)


def test_without_a_witness_answers_are_closed_at_once() -> None:
    assert view_of(opened() + drawn()).rounds[ROUND].answers_closed(0)


def test_a_round_is_held_until_it_is_paid_out() -> None:
    joined = opened() + drawn() + [e.Joined(ROUND, WITNESS, 1, 1)]
    view = view_of(joined)
    assert [each.id for each in view.rounds_holding(VERIFIER)] == [ROUND] == [
        each.id for each in view.rounds_holding(WITNESS)
    ]  # fmt: skip
    assert view.rounds_holding(SOLVER) == []
    released = e.ShareReleased(TASK, 0, ROUND, VERIFIER, True, False, b"", True)
    assert view_of([*joined, released]).rounds_holding(VERIFIER) == []
    assert view_of([*joined, e.RoundVoided(ROUND, VERIFIER, Fault.SILENT, 1)]).rounds_holding(VERIFIER) == []
    collected = e.AnswerCollected(ROUND, WITNESS, 1, 0, True)
    assert view_of([*joined, released, collected]).rounds_holding(WITNESS) == []


def test_deposits_and_withdrawals_are_counted_by_account() -> None:
    view = view_of([deposited(SOLVER), deposited(SOLVER), deposited(WITNESS), e.CoinLeft(SUBMITTER, 5)])
    accounts = view.accounts
    assert (accounts.deposits[SOLVER], accounts.deposits[WITNESS], accounts.deposits[SUBMITTER]) == (2, 1, 0)
    assert accounts.withdrawals[SUBMITTER] == 1
