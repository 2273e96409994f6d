"""What honest participants get: the yardstick that every attack is held against."""

from __future__ import annotations

from arena import Arena

from assay.market.types import TaskState
from assay.roles.solver import Solver
from assay.roles.verifier import Verifier
from assay.roles.whistleblower import Whistleblower


def test_honest_play_pays_everybody_what_was_promised(arena: Arena) -> None:
    arena.enter("verifier", Verifier())
    arena.settle_down()
    arena.enter("solver", Solver())
    arena.enter("whistleblower", Whistleblower())
    task = arena.play_task()
    assert task.state is TaskState.SETTLED
    gains = arena.conclude(
        promised={
            "solver": arena.price_of(task.id), "verifier": arena.fee_of(task.id), "whistleblower": 0,
            "submitter": -arena.cost_of(task.id),
        },
        honest=1,
    )  # fmt: skip
    assert gains["pool"] == arena.market.tasks.tax(task.id)
