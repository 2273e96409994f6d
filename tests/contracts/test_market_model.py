"""The stateful model: at least 10 000 random calls. ASSAY_MODEL_CALLS=200000 makes the runs longer."""

from __future__ import annotations

import os

import pytest

from market_chain import RevmChain, artifacts
from market_model import BLOWERS, HONEST, HONEST_PEOPLE, HONEST_SOLVER, Model

CALLS = int(os.environ.get("ASSAY_MODEL_CALLS", "4000"))
SEEDS = [int(word) for word in os.environ.get("ASSAY_MODEL_SEEDS", "1 2").split()]

# Every function a stranger may call succeeds somewhere in the runs, so that the model is about something.
FUNCTIONS = {
    *("deposit", "withdraw", "restake", "leave", "enlist", "delist"),
    *("submit", "take", "register", "stepDown", "late", "cancel", "expire"),
    *("draw", "commit", "showReplay", "showProfile", "disclose", "timeout", "stepBack", "commitLeak"),
    *("join", "commitAnswer", "revealAnswer", "collect"),
    *("publishReplay", "publishProfile", "publishTraining", "accuse", "closeAccusation", "open", "close"),
    *("settle", "settleProfile", "release", "demand", "serve", "notServed"),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_chaos_keeps_the_books_and_can_always_be_ended(seed: int) -> None:
    """Any order of calls, jumps in time past any deadline, and a court that is sometimes wrong."""
    model = Model(RevmChain(artifacts()), seed, gentle=False)
    model.run(CALLS)
    model.drain()
    assert sum(model.done.values()) > CALLS // 10


@pytest.mark.parametrize("seed", SEEDS)
def test_honest_people_never_lose(seed: int) -> None:
    """While honest people act in time and the court decides truly, none of them ends with less than it put in."""
    model = Model(RevmChain(artifacts()), seed, gentle=True)
    model.run(CALLS)
    model.drain()
    losses = {actor: model.worth(actor) for actor in HONEST_PEOPLE if model.worth(actor) < 0}
    assert not losses
    assert model.worth(HONEST_SOLVER) > 0
    assert sum(model.worth(actor) for actor in HONEST) > 0
    assert sum(model.worth(actor) for actor in BLOWERS) > 0


def test_the_model_reaches_every_function() -> None:
    done: set[str] = set()
    for seed in range(3, 13):
        model = Model(RevmChain(artifacts()), seed, gentle=seed % 2 == 0)
        model.run(1500)
        done |= {function for function, count in model.done.items() if count}
        if done >= FUNCTIONS:
            break
    assert done >= FUNCTIONS
