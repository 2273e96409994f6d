"""Roles on machines whose clocks are wrong: what counts is the time of the blocks."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from tiny_market import SOLVER, VERIFIER, WITNESS, World

from assay.market.types import TaskState
from assay.roles.solver import Solver
from assay.roles.verifier import Verifier
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions


@pytest.mark.parametrize("skew", [-30 * 86_400, 30 * 86_400], ids=["a month behind", "a month ahead"])
def test_a_task_is_settled_by_roles_whose_clocks_are_wrong(
    world: World, skew: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = time.time
    monkeypatch.setattr(time, "time", lambda: honest() + skew)
    world.nodes = [
        world.node(SOLVER, [Solver()]),
        world.node(VERIFIER, [Verifier()]),
        world.node(WITNESS, [Whistleblower(WhistleblowerOptions(audits=0))]),
    ]
    for node in world.nodes:
        node.sender.clock = time.time
    world.play(lambda: world.market.stakes.seats(world.address(VERIFIER)) == 1)
    task = world.submit()
    world.play(lambda: world.reader.view.tasks[task].state.is_over, limit=120)
    assert world.market.tasks.state(task) is TaskState.SETTLED
    calls = Counter(world.calls(SOLVER)) + Counter(world.calls(VERIFIER))
    assert {name: calls[name] for name in ("take", "register", "commit", "disclose")} == {
        "take": 1, "register": 1, "commit": 1, "disclose": 1,
    }  # fmt: skip
