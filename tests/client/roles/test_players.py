"""What the players decide, from records made by hand."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from role_world import (
    LEAVES,
    MARKET,
    ROUND,
    SOLVER,
    SUBMITTER,
    TASK,
    VERIFIER,
    WITNESS,
    Known,
    OpenedBench,
    context,
    deposited,
    drawn,
    keys,
    opened,
    posting,
    replay_key,
    secret,
    view_of,
)

from assay.commitments.execution import claim_root
from assay.dispute.case import CaseView, Cursor, Facts, Part, Phase, Tree
from assay.dispute.execution import LocalExecution
from assay.market import events as e
from assay.market import groups as group_market
from assay.market.groups import GroupContract
from assay.market.types import Hidden, Shown, TaskState
from assay.market.types import ReplayLeaf as ShownLeaf
from assay.market.verification import hidden_of, is_forced
from assay.roles.context import Purse, Send, Work
from assay.roles.disputes import moves_in
from assay.roles.group_member import GroupMember
from assay.roles.jobs import FETCH_ATTEMPTS
from assay.roles.joining import payout_threshold
from assay.roles.solver import Solver, SolverOptions
from assay.roles.subjects import subject_of_round
from assay.roles.verifier import Verifier, derivation, hidden_claims
from assay.roles.whistleblower import Whistleblower


def with_work(work: int) -> list[e.MarketEvent]:
    """The task opened, with a program of so much work a step."""
    header = bytes([0, 1, 0, 1]) + (1).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes(32) + bytes(4)
    header += bytes(32) + b"\x01" + b"\x00" + (1).to_bytes(4, "big") + bytes(32) + work.to_bytes(16, "big") + bytes(32)
    return opened(replace(posting(), header=header))


def test_a_solver_inspects_before_it_takes_and_takes_once_the_stake_is_there() -> None:
    logs = with_work(1000)
    assert keys(Solver().plan(context(SOLVER, logs))) == ["inspect"]
    known = Known({f"inspect:{TASK:x}": "fits"})
    assert keys(Solver().plan(context(SOLVER, logs, known))) == ["take"]
    assert keys(Solver().plan(context(SOLVER, logs, known, purse=Purse()))) == ["deposit"]


def test_a_solver_refuses_by_price_work_time_and_owner() -> None:
    logs = with_work(10**9)
    here = context(SOLVER, logs)
    task = here.view.task(TASK)
    assert Solver().refusal(here, task) is None
    assert "price" in (Solver(SolverOptions(price_per_terawork=10**18)).refusal(here, task) or "")
    assert "limit" in (Solver(SolverOptions(work_limit=10)).refusal(here, task) or "")
    assert "takes" in (Solver(SolverOptions(speed=1.0)).refusal(here, task) or "")
    assert "own" in (Solver().refusal(context(SUBMITTER, logs), task) or "")


def test_a_solver_that_is_late_says_so_itself_before_its_forfeit_grows() -> None:
    logs = [*with_work(1000), e.TaskTaken(TASK, SOLVER, 150, 9, 5000)]
    assert keys(Solver().plan(context(SOLVER, logs, time=5000))) == ["train"]
    assert keys(Solver().plan(context(SOLVER, logs, time=5001))) == ["late"]


def test_a_solver_leaves_a_task_whose_files_it_cannot_fetch() -> None:
    key = f"inspect:{TASK:x}"
    last_attempt = Known(failed={key: FETCH_ATTEMPTS - 1})
    assert keys(Solver().plan(context(SOLVER, with_work(1000), last_attempt))) == ["inspect"]
    assert Solver().plan(context(SOLVER, with_work(1000), Known(failed={key: FETCH_ATTEMPTS}))) == []


def another(logs: list[e.MarketEvent], number: int) -> list[e.MarketEvent]:
    """The same task under another number."""
    return [replace(event, task_id=number) for event in logs]


def test_files_that_cannot_be_had_keep_a_solver_from_no_other_task() -> None:
    logs = [*with_work(1000), *another(with_work(1000), 8), *another(with_work(1000), 9), *another(with_work(1000), 10)]
    failing = Known(failed={f"inspect:{TASK:x}": 3})
    assert [each.key for each in Solver().plan(context(SOLVER, logs, failing))] == [
        "inspect:7",
        "inspect:8",
        "inspect:9",
    ]
    found = Known(results={"inspect:a": "fits"}, failed={f"inspect:{TASK:x}": 3})
    assert keys(Solver().plan(context(SOLVER, logs, found)))[-1] == "take"


def test_a_task_that_the_contracts_refuse_keeps_a_solver_from_no_other() -> None:
    logs = [*with_work(1000), *another(with_work(1000), 8)]
    known = Known({f"inspect:{number}": "fits" for number in (TASK, 8)})
    for refusals, taken in (
        ({}, "take:7:0"),
        ({"take:7:0": 1}, "take:8:0"),
        ({"take:7:0": 1, "take:8:0": 2}, "take:7:0"),
    ):
        (action,) = Solver().plan(context(SOLVER, logs, known, refusals=refusals))
        assert action.key == taken


def test_a_stake_that_cannot_be_paid_keeps_a_solver_from_no_other_task() -> None:
    logs = [*with_work(1000), *another(with_work(1000), 8)]
    known = Known({f"inspect:{number}": "fits" for number in (TASK, 8)})
    for refusals, task in (({}, 7), ({"take:7:0": 1}, 8)):
        (action,) = Solver().plan(context(SOLVER, logs, known, refusals=refusals, purse=Purse()))
        assert isinstance(action, Send)
        assert (action.key, action.serves) == ("deposit:0", f"take:{task}:0")


def test_a_solver_replays_what_fails_its_proof_at_once_and_disputes_it_when_nobody_else_has() -> None:
    root, until = claim_root(LEAVES), 10**6
    shown = Shown(Hidden(b"", b"", b""), b"", 0, root, bytes(32), False)
    leaves = tuple(ShownLeaf(leaf.end_root, leaf.distance_bits, leaf.trace_root) for leaf in LEAVES)
    logs = [
        *opened(),
        *drawn(),
        e.ReplayShown(ROUND, VERIFIER, shown, leaves, 100, 200, 300),
        e.ClaimEntered(ROUND, VERIFIER, root, False, until),
        e.RoundDisclosed(ROUND, VERIFIER, False, root, False, bytes(32), bytes(32), until),
    ]
    key = replay_key(logs)
    (work,) = Solver().plan(context(SOLVER, logs))
    assert work.key == key
    mine = (replace(LEAVES[0], end_root=b"e" * 32), LEAVES[1])
    known = Known({key: mine})
    bench = OpenedBench()
    bench.passes = lambda *_: True  # type: ignore[method-assign]
    assert Solver().plan(context(SOLVER, logs, known, bench=bench)) == []
    late = context(SOLVER, logs, known, time=until - 1, bench=bench)
    assert keys(Solver().plan(late)) == ["publish"]


def test_deposits_are_named_by_their_number_on_chain() -> None:
    known = Known({f"inspect:{TASK:x}": "fits"})
    logs = with_work(1000)
    (first,) = Solver().plan(context(SOLVER, logs, known, purse=Purse()))
    (second,) = Solver().plan(context(SOLVER, [*logs, deposited(SOLVER)], known, purse=Purse()))
    assert (first.key, second.key) == ("deposit:0", "deposit:1")


def test_a_drawn_verifier_replays_then_commits_to_a_secret_that_stays_the_same() -> None:
    logs = opened() + drawn()
    assert keys(Verifier().plan(context(VERIFIER, logs))) == ["replay"]
    known = Known({replay_key(logs): LEAVES})
    (first,) = Verifier().plan(context(VERIFIER, logs, known))
    (again,) = Verifier().plan(context(VERIFIER, logs, known))
    assert isinstance(first, Send)
    assert first == again
    assert first.key.startswith("commit:")


def test_a_verifier_that_cannot_fetch_steps_back() -> None:
    logs = opened() + drawn()
    known = Known(failed={replay_key(logs): 8})
    assert keys(Verifier().plan(context(VERIFIER, logs, known))) == ["step-back"]


def committed_round() -> tuple[list[e.MarketEvent], Known]:
    logs = opened() + drawn()
    found = view_of(logs).rounds[ROUND]
    claims = hidden_claims(secret(f"round:{ROUND:x}:{found.draw_seed:x}"), LEAVES, found)
    hidden = hidden_of(claims.secret, claims.order, VERIFIER, ROUND, claim_root(claims.true), claim_root(claims.false))
    event = e.RoundCommitted(ROUND, VERIFIER, hidden, 20, 200)
    return [*logs, event], Known({replay_key(logs): LEAVES})


def test_a_verifier_shows_only_once_the_lottery_is_known() -> None:
    logs, known = committed_round()
    assert Verifier().plan(context(VERIFIER, logs, known)) == []
    seen = context(VERIFIER, logs, known, block=21, time=1200, seeds={ROUND: b"x" * 32})
    assert keys(Verifier().plan(seen)) == ["show"]
    late = context(VERIFIER, logs, known, block=201, time=1200, seeds={ROUND: b"x" * 32})
    assert keys(Verifier().plan(late)) == []


@pytest.mark.parametrize("forced", [False, True])
def test_what_is_shown_is_what_the_lottery_demands(forced: bool) -> None:
    logs, _ = committed_round()
    found = view_of(logs).rounds[ROUND]
    claims = hidden_claims(secret("any"), LEAVES, found)
    seed = next(bytes([n]) * 32 for n in range(256) if is_forced(claims.secret, bytes([n]) * 32, 100_000) == forced)
    assert is_forced(claims.secret, seed, 100_000) == forced
    index, leaves = claims.shown(forced)
    assert (index == claims.order) != forced
    assert (leaves == LEAVES) != forced


def test_the_derivation_leads_from_the_false_claim_to_the_true_one() -> None:
    found = view_of(committed_round()[0]).rounds[ROUND]
    claims = hidden_claims(secret("derive"), LEAVES, found)
    given = derivation(claims, found)
    from assay.commitments.tree import root_from

    word = sha256(claims.secret + TASK.to_bytes(32, "big") + ROUND.to_bytes(32, "big")).digest()
    place = int.from_bytes(word, "big") % 2
    assert root_from(sha256(given.prefix + word).digest(), place, given.proof) == claim_root(claims.false)
    assert root_from(sha256(given.prefix + given.trace).digest(), place, given.proof) == claim_root(claims.true)


def test_a_whistleblower_joins_before_the_lottery_only() -> None:
    logs, _ = committed_round()
    player = Whistleblower()
    paid = deposited(WITNESS)
    early = player.plan(context(WITNESS, [*logs, paid]))
    assert "join" in keys(early)
    late = player.plan(context(WITNESS, [*logs, paid], block=19))
    assert "join" not in keys(late)
    poor = player.plan(context(WITNESS, [*logs, paid], purse=Purse()))
    assert "join" not in keys(poor)
    assert "join" not in keys(player.plan(context(VERIFIER, [*logs, paid])))


@pytest.mark.parametrize("ended", [None, TaskState.FAILED, TaskState.UNAVAILABLE, TaskState.VOID])
def test_a_whistleblower_disputes_a_disclosed_claim_that_is_not_its_own(ended: TaskState | None) -> None:
    logs, known = committed_round()
    for agrees in (True, False):
        theirs = LEAVES if agrees else (LEAVES[0], replace(LEAVES[1], end_root=b"z" * 32))
        root = claim_root(theirs)
        leaves = tuple(ShownLeaf(leaf.end_root, leaf.distance_bits, leaf.trace_root) for leaf in theirs)
        shown = Shown(Hidden(b"", b"", b""), b"", 0, root, bytes(32), agrees)
        disclosed = [
            e.ReplayShown(ROUND, VERIFIER, shown, leaves, 1, 2, 3),
            e.ClaimEntered(ROUND, VERIFIER, root, agrees, 5000),
            e.RoundDisclosed(ROUND, VERIFIER, False, root, agrees, b"", b"", 5000),
        ]
        over = [] if ended is None else [e.TaskFinished(TASK, ended, "", 0)]
        actions = Whistleblower().plan(context(WITNESS, [*logs, *disclosed, *over], known))
        # A claim whose program was refuted is paid as it is.
        assert ("publish" in keys(actions)) == (not agrees and ended is not TaskState.VOID)


def test_the_payout_threshold_falls_with_the_cost() -> None:
    assert payout_threshold(1000, 100_000, 0) > 1000
    assert payout_threshold(1000, 100_000, 100) == 1
    assert payout_threshold(1000, 100_000, 25) == 3
    assert payout_threshold(1000, 100_000, 101) == 0


def test_work_is_named_by_what_it_depends_on() -> None:
    view = view_of(opened() + drawn())
    subject = subject_of_round(view, view.rounds[ROUND])
    changes: list[dict[str, Any]] = [{"draw_seed": 10}, {"segments": (0, 2)}, {"is_profile": True}]
    assert len({subject.key, *(replace(subject, **change).key for change in changes)}) == 4
    assert isinstance(Verifier().plan(context(VERIFIER, opened() + drawn()))[0], Work)


@pytest.mark.parametrize("phase", [Phase.EXPAND, Phase.PROVE])
def test_a_challenger_ends_a_case_in_which_the_claimants_clock_has_run_out(phase: Phase) -> None:
    cursor = Cursor(phase, Tree.SUMS, 0, 0, 0, 0, 0, 0, 1, 1, 0)
    facts = Facts(b"", b"", b"", b"", b"", b"", b"", 0)
    case = CaseView(5, b"p", SOLVER, WITNESS, 0, Part.END, False, 1, 0, 1, 1, 0, 0, 0, cursor, b"", b"", facts)
    for me, time, wanted in (
        (WITNESS, 1100, ["move"] if phase is Phase.PROVE else []),
        (WITNESS, 1101, ["case-timeout"]),  # the last move would come too late as well
        (SOLVER, 1101, ["move"]),
    ):
        here = context(me, opened(), time=time, cases={5: case}, deadlines={5: 1100})
        assert keys(moves_in(here, 5, here.market.court, LocalExecution, TASK, 0)) == wanted


def test_a_member_takes_its_part_again_when_the_same_amounts_come_again() -> None:
    group = GroupContract(MARKET, "0x" + "99" * 20)
    me = group_market.GroupMember(WITNESS, 500_000, True, False, False, 0, 10**18, 10**17, 0)
    view = group_market.GroupView(
        group.address, group_market.GroupState.SHARED, SUBMITTER, TASK, (me, replace(me, account=SUBMITTER)),
        60, 60, 0, 0, 0, 0, 0, 2 * 10**17, 0, 0, 10**16,
    )  # fmt: skip
    logs: list[e.Event] = [e.CoinLeft(group.address, 10**17)]
    first = [each.key for each in GroupMember(group).plan(context(WITNESS, logs, group=view))]
    again = [each.key for each in GroupMember(group).plan(context(WITNESS, [*logs, *logs], group=view))]
    assert [key.partition(":")[0] for key in first] == ["group-collect", "group-withdraw"]
    assert not set(first) & set(again)
