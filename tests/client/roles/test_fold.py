"""Folding events into what a role knows."""

from __future__ import annotations

from role_world import ROUND, SOLVER, TASK, VERIFIER, WITNESS, drawn, log, opened

from assay.commitments.execution import ReplayLeaf as CommittedLeaf
from assay.commitments.execution import claim_root, derived_false_claim
from assay.market.types import Hidden, ReplayLeaf, RoundState, Shown, TaskState
from assay.roles.fold import fold
from assay.roles.records import MarketRecord


def test_the_price_rises_from_the_lowest_to_the_highest() -> None:
    task = fold(opened()).tasks[TASK]
    assert [task.price_at(time) for time in (1000, 1050, 1100, 9999)] == [100, 200, 300, 300]


def test_a_task_goes_from_open_to_verifying_with_one_round() -> None:
    market = fold(opened() + drawn())
    task = market.tasks[TASK]
    assert (task.state, task.solver, task.price) == (TaskState.VERIFYING, SOLVER, 150)
    assert task.draws == {}
    found = market.current_round(task, 0)
    assert found is not None
    assert (found.verifier, found.segments, found.state) == (VERIFIER, (2, 0), RoundState.DRAWN)


def test_folding_in_parts_gives_what_folding_at_once_gives() -> None:
    logs = opened() + drawn()
    parts = MarketRecord()
    for each in logs:
        fold([each], parts)
    assert parts == fold(logs)


def test_a_disclosed_forced_round_has_the_true_leaves() -> None:
    true = [CommittedLeaf(2, b"a" * 32, 0, b"t" * 32), CommittedLeaf(0, b"b" * 32, 0, b"u" * 32)]
    secret = b"s" * 32
    false = derived_false_claim(true, secret, TASK, ROUND)
    assert claim_root(false) != claim_root(true)
    (changed,) = (n for n in range(2) if true[n] != false[n])
    shown = Shown(Hidden(b"", b"", b""), b"", 0, claim_root(false), bytes(32), True)
    leaves = tuple(ReplayLeaf(leaf.end_root, leaf.distance_bits, leaf.trace_root) for leaf in false)
    market = fold(
        opened() + drawn()
        + [
            log("Verification", "ReplayShown", roundId=ROUND, verifier=VERIFIER, shown=shown, leaves=leaves,
                answersUntil=1, revealsUntil=2, discloseUntil=3),
            log("Claims", "Entered", line=ROUND, claimant=VERIFIER, root=claim_root(true), passes=True, until=9),
            log("Verification", "Disclosed", roundId=ROUND, verifier=VERIFIER, forced=True, root=claim_root(true),
                passes=True, secret=secret, trueTrace=true[changed].trace_root, disputeUntil=9),
        ]
    )  # fmt: skip
    assert [leaf.trace for leaf in market.rounds[ROUND].leaves] == [leaf.trace_root for leaf in true]
    assert market.lines[ROUND].leaves[claim_root(true)] == market.rounds[ROUND].leaves


def test_answers_can_be_revealed_once_nobody_can_commit() -> None:
    market = fold(opened() + drawn() + [log("Answers", "Joined", roundId=ROUND, whistleblower=WITNESS)])
    found = market.rounds[ROUND]
    found.answers_until, found.reveals_until = 100, 200
    assert not found.may_reveal(50)
    assert not found.answers_closed(50)
    fold([log("Answers", "AnswerCommitted", roundId=ROUND, whistleblower=WITNESS)], market)
    assert found.may_reveal(50)
    assert not found.answers_closed(150)
    fold([log("Answers", "AnswerRevealed", roundId=ROUND, whistleblower=WITNESS, root=b"r")], market)
    assert found.answers_closed(50)


def test_without_a_witness_answers_are_closed_at_once() -> None:
    assert fold(opened() + drawn()).rounds[ROUND].answers_closed(0)
