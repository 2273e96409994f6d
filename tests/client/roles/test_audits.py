"""Which segments a whistleblower looks at though nobody was drawn for them."""

from __future__ import annotations

from typing import Any

import pytest
from role_world import SUBMITTER, TASK, VERIFIER, WITNESS, OpenedBench, drawn, opened, posting
from test_players import Known, context, keys

from assay.commitments.execution import ReplayLeaf as Replayed
from assay.commitments.execution import claim_root
from assay.market import events as e
from assay.market.claims import accusation_of
from assay.market.types import Checkpoint, ReplayLeaf
from assay.roles.audits import AuditOptions, Finding, audits, random_segments
from assay.roles.context import Action, Work
from assay.roles.jobs import FETCH_ATTEMPTS
from assay.roles.subjects import Subject
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions

ROOT = (b"c" * 32).hex()
RANKING = f"suspicion:{TASK:x}:{ROOT}"


def planned(known: Known, options: AuditOptions) -> list[Action]:
    here = context(WITNESS, opened() + drawn(), known)
    return list(audits(here, here.view.task(TASK), options))


def audited(actions: list[Action]) -> set[int]:
    return {int(a.key.split(":")[2]) for a in actions if isinstance(a, Work) and a.key.startswith("audit:")}


@pytest.fixture
def chosen() -> set[int]:
    """The segments that the account's secret chooses."""
    here = context(WITNESS, opened() + drawn())
    return set(random_segments(here, here.view.task(TASK), range(4), 2))


def test_random_segments_do_not_wait_for_the_ranking(chosen: set[int]) -> None:
    actions = planned(Known(), AuditOptions(2, suspicious=True))
    assert keys(actions) == ["suspicion", "audit", "audit"]
    assert audited(actions) == chosen


def test_the_most_suspicious_segment_is_audited_beside_the_random_ones_never_in_their_place(chosen: set[int]) -> None:
    for first in range(4):
        ranking = [first, *(segment for segment in range(4) if segment != first)]
        found = audited(planned(Known({RANKING: ranking}), AuditOptions(2, suspicious=True)))
        assert found == chosen | {first}


def test_checkpoints_that_cannot_be_fetched_leave_the_random_segments(chosen: set[int]) -> None:
    actions = planned(Known(failed={RANKING: FETCH_ATTEMPTS}), AuditOptions(2, suspicious=True))
    assert keys(actions) == ["audit", "audit"]
    assert audited(actions) == chosen


@pytest.mark.parametrize(("options", "ranks"), [({}, True), ({"audits": 0}, False), ({"suspicion": False}, False)])
def test_a_whistleblower_ranks_segments_unless_told_otherwise(options: dict[str, Any], ranks: bool) -> None:
    actions = Whistleblower(WhistleblowerOptions(**options)).plan(context(WITNESS, opened() + drawn()))
    assert ("suspicion" in keys(actions)) is ranks


def accused(root: bytes, accuser: str, is_closed: bool = False) -> list[e.Event]:
    """An accusation of segment 1."""
    number = accusation_of(TASK, 1, accuser)
    made: list[e.Event] = [
        e.ClaimEntered(number, accuser, root, False, 5000),
        e.Accused(TASK, number, accuser, 1, ReplayLeaf(b"", 0, b""), 9),
    ]
    return [*made, e.AccusationClosed(TASK, number, accuser, False)] if is_closed else made


MINE = Replayed(1, b"a" * 32, 0x40000000, b"t" * 32)
TRUE = claim_root([MINE])


@pytest.mark.parametrize(
    ("said", "accuses"),
    [
        ([], True),
        (accused(TRUE, SUBMITTER), False),
        (accused(b"r" * 32, SUBMITTER), True),
        (accused(TRUE, SUBMITTER, is_closed=True), True),
        ([*accused(b"r" * 32, SUBMITTER), *accused(TRUE, VERIFIER)], False),
        (accused(TRUE, WITNESS), False),
        (accused(TRUE, WITNESS, is_closed=True), False),
    ],
    ids=["nothing", "the same", "another", "the same, and fell", "another and the same", "own", "own, and fell"],
)
def test_an_accusation_that_is_made_to_be_lost_shields_no_segment(said: list[e.Event], accuses: bool) -> None:
    logs = [*opened(posting(exact=False)), *drawn(), *said]
    task = context(WITNESS, logs).view.task(TASK)
    finding = Finding(Subject(task, (1,), 9), (MINE,), is_right=False)
    bench = OpenedBench()
    bench.checkpoint_openings = lambda *_: (Checkpoint(bytes(32), ()),)  # type: ignore[method-assign]
    here = context(WITNESS, logs, Known({f"audit:{TASK:x}:1:{ROOT}": finding}), bench=bench)
    assert ("accuse" in keys(audits(here, task, AuditOptions(2)))) is accuses
