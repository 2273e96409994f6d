"""When whistleblowers join, leave or change role, and when verifiers volunteer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from role_world import (
    RICH,
    ROUND,
    SOLVER,
    SUBMITTER,
    TASK,
    VERIFIER,
    WITNESS,
    Known,
    context,
    deposited,
    drawn,
    keys,
    opened,
    view_of,
)  # fmt: skip

from assay.market import events as e
from assay.market.types import Class, Fault, Hidden, Shown
from assay.roles.audits import auditable, random_segments
from assay.roles.context import Context
from assay.roles.joining import joins
from assay.roles.verifier import Verifier, VerifierOptions
from assay.roles.whistleblower import WhenIdle, Whistleblower, WhistleblowerOptions

COMMITTED = e.RoundCommitted(ROUND, VERIFIER, Hidden(b"", b"", b""), 20, 200)
ENOUGH = replace(RICH, active=1000, pool=10**20)


def seen(**changes: Any) -> Context:
    """A round that can be joined, by a whistleblower that has brought its stake."""
    return context(WITNESS, [*opened(), *drawn(), COMMITTED, deposited(WITNESS)], **changes)


def chosen(here: Context, chance: int, cost: int) -> bool:
    return joins(here, here.view.rounds[ROUND], here.view.task(TASK), cost, chance)


def test_below_the_threshold_everybody_joins_and_beyond_it_a_fixed_part() -> None:
    assert chosen(seen(purse=replace(ENOUGH, active=0)), chance=0, cost=1)
    assert not chosen(seen(purse=ENOUGH), chance=0, cost=1)
    assert chosen(seen(purse=ENOUGH), chance=1_000_000, cost=1)
    by_secret = [
        chosen(seen(purse=ENOUGH, secret=lambda name, n=n: bytes([n]) + name.encode()[:31].ljust(31)), 250_000, 1)
        for n in range(64)
    ]
    assert 0 < sum(by_secret) < 64


def test_the_chance_is_decided_once_for_a_round() -> None:
    assert {chosen(seen(purse=ENOUGH), 500_000, 1) for _ in range(5)} in ({True}, {False})


def test_nobody_joins_where_not_even_one_would_earn_its_cost() -> None:
    assert not chosen(seen(purse=replace(ENOUGH, active=0)), chance=1_000_000, cost=10**18)


def test_a_claim_that_was_not_joined_is_checked_only_where_checking_costs_nothing() -> None:
    shown = Shown(Hidden(b"", b"", b""), b"", 0, b"r" * 32, bytes(32), True)
    events = [
        *opened(), *drawn(), COMMITTED, deposited(WITNESS),
        e.ReplayShown(ROUND, VERIFIER, shown, (), 1, 2, 3),
        e.ClaimEntered(ROUND, VERIFIER, b"r" * 32, True, 5000),
        e.RoundDisclosed(ROUND, VERIFIER, False, b"r" * 32, True, b"", b"", 5000),
    ]  # fmt: skip
    for cost, joined, checks in ((0, False, True), (1, False, False), (1, True, True)):
        more = [e.Joined(ROUND, WITNESS, 1, 1)] if joined else []
        player = Whistleblower(WhistleblowerOptions(cost=cost, audits=0))
        assert ("replay" in keys(player.plan(context(WITNESS, [*events, *more])))) == checks


def idle(when: WhenIdle, block: int, *more: e.MarketEvent, **changes: Any) -> list[str]:
    player = Whistleblower(WhistleblowerOptions(when_idle=when, idle_blocks=100, audits=0))
    return keys(player.plan(context(WITNESS, [deposited(WITNESS), *more], block=block, **changes)))


def test_an_idle_whistleblower_stays_leaves_or_takes_a_seat() -> None:
    assert idle(WhenIdle.LEAVE, 100) == []
    assert idle(WhenIdle.STAY, 102) == []
    assert idle(WhenIdle.LEAVE, 102) == ["leave"]
    assert idle(WhenIdle.VERIFY, 102, purse=replace(RICH, seats=0)) == ["enlist"]


def test_stake_that_has_left_is_released_when_its_wait_is_over() -> None:
    left = e.StakeLeaving(WITNESS, 1, 1500)
    nothing = replace(RICH, free=0)
    assert idle(WhenIdle.LEAVE, 102, left, purse=nothing, time=1500) == []
    assert idle(WhenIdle.LEAVE, 102, left, purse=nothing, time=1501) == ["release-stake"]
    out = e.CoinMoved(Class.LEAVING, int(WITNESS, 16), Class.CREDIT, int(WITNESS, 16), 1)
    assert idle(WhenIdle.LEAVE, 102, left, out, purse=nothing, time=1501) == []


def test_nobody_leaves_while_an_answer_is_at_stake() -> None:
    joined = [*opened(), *drawn(), COMMITTED, deposited(WITNESS), e.Joined(ROUND, WITNESS, 1, 1)]
    player = Whistleblower(WhistleblowerOptions(when_idle=WhenIdle.LEAVE, idle_blocks=10, audits=0))
    assert "leave" not in keys(player.plan(context(WITNESS, joined, block=50)))


def wanting(account: str, **options: Any) -> list[str]:
    """What a verifier does about a share that waits for volunteers."""
    events = [*opened(), *drawn(), e.RoundVoided(ROUND, VERIFIER, Fault.SILENT, 1), e.VolunteersWanted(TASK, 0, 9000)]
    return keys(Verifier(VerifierOptions(**options)).plan(context(account, [*events, deposited(account)])))


def test_a_verifier_volunteers_unless_told_not_to_or_too_large() -> None:
    assert "volunteer" in wanting(WITNESS)
    assert "volunteer" not in wanting(WITNESS, volunteer=False)
    assert "volunteer" in wanting(WITNESS, limit=0)
    for barred in (SOLVER, SUBMITTER, VERIFIER):
        assert "volunteer" not in wanting(barred), barred


def test_a_share_nobody_volunteered_for_is_given_up() -> None:
    events = [*opened(), *drawn(), e.RoundVoided(ROUND, VERIFIER, Fault.SILENT, 1), e.VolunteersWanted(TASK, 0, 9000)]
    here = context(WITNESS, [*events, deposited(WITNESS)], time=9007)
    assert "give-up" in keys(Verifier().plan(here))
    assert "volunteer" not in keys(Verifier().plan(here))


@pytest.mark.parametrize("exact", [True, False])
def test_audits_keep_to_segments_that_can_be_accused(exact: bool) -> None:
    here = seen()
    task = replace(here.view.task(TASK), posting=replace(here.view.task(TASK).posting, exact=exact))
    assert auditable(here, task) == ([0, 1, 2, 3] if exact else [1, 3])
    chosen_segments = random_segments(here, task, auditable(here, task), 8)
    assert sorted(chosen_segments) == auditable(here, task)
    assert random_segments(here, task, auditable(here, task), 1) == chosen_segments[:1]


def test_no_segment_of_a_tolerant_task_is_audited_before_all_are_drawn() -> None:
    view = view_of(opened())
    here = context(WITNESS, opened(), known=Known())
    task = replace(view.task(TASK), posting=replace(view.task(TASK).posting, exact=False))
    assert auditable(here, task) == []
