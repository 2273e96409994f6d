"""Which segments a whistleblower looks at though nobody was drawn for them."""

from __future__ import annotations

from typing import Any

import pytest
from role_world import TASK, WITNESS, drawn, opened
from test_players import Known, context, keys

from assay.roles.audits import AuditOptions, audits, random_segments
from assay.roles.context import Action, Work
from assay.roles.jobs import FETCH_ATTEMPTS
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
