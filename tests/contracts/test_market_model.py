"""The stateful model: at least 10 000 random calls. ASSAY_MODEL_CALLS=200000 makes the runs longer."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from market_chain import RevmChain, artifacts
from members_model import HONEST_MEMBERS, MembersModel
from model_books import BLOWERS, HONEST, HONEST_PEOPLE, HONEST_SOLVER

CALLS = int(os.environ.get("ASSAY_MODEL_CALLS", "4000"))
SEEDS = [int(word) for word in os.environ.get("ASSAY_MODEL_SEEDS", "1 2").split()]

# Every function a stranger may call succeeds somewhere in the runs, so that the model is about something.
FUNCTIONS = {
    "Stakes": ("deposit", "withdraw", "restake", "leave", "release", "enlist", "delist"),
    "Market": ("submit", "take", "register", "stepDown", "late", "cancel", "expire"),
    "Verification": (
        *("draw", "commit", "showReplay", "showProfile", "disclose", "timeout", "stepBack", "commitLeak"),
    ),
    "Answers": ("join", "commitAnswer", "revealAnswer", "collect"),
    "Claims": ("publishReplay", "publishProfile", "publishTraining", "accuse", "closeAccusation"),
    "HarnessCourt": ("open", "close"),
    "Settlement": ("settle", "settleProfile", "release"),
    "Demands": ("demand", "serve", "notServed"),
    "Groups": ("form",),
    "Group": (
        *("contribute", "dissolve", "take", "register", "stepDown", "stay", "takeOver", "convict"),
        *("close", "share", "collect", "withdraw"),
    ),
    "StageClaims": ("publish", "accuse", "conclude", "withdraw"),
    "StageCourt": ("open", "expand", "reveal", "choose", "chooseNextState", "proveNextState", "timeout"),
    "Presence": ("report", "answer", "conclude", "withdraw"),
}

# And these happen, to groups and among their members.
HAPPENINGS = {
    *("accused truly", "accused falsely", "accusation fell", "accusation stood, Working", "accusation stood, Closed"),
    *("statement fell, Working", "statement fell, Closed", "case won", "case lost", "case proven"),
    *("claimant out of time", "challenger out of time", "clock extension paid", "overlapping absence"),
    *("share refused: CasesOpen", "share refused: ReportsPending", "shared out with income", "shared out with a loss"),
    *("shared out without a convicted member", "shared out less for absence"),
}

SEEN: Counter[str] = Counter()
"""How often each of them was in the runs so far."""


def played(seed: int, gentle: bool, calls: int = CALLS) -> MembersModel:
    """A run to its end."""
    model = MembersModel(RevmChain(artifacts()), seed, gentle)
    model.run(calls)
    SEEN.update(model.done + model.reached)
    model.drain()
    return model


@pytest.mark.parametrize("seed", SEEDS)
def test_chaos_keeps_the_books_and_can_always_be_ended(seed: int) -> None:
    """Any order of calls, jumps in time past any deadline, and a court that is sometimes wrong."""
    model = played(seed, gentle=False)
    assert sum(model.done.values()) > CALLS // 10


@pytest.mark.parametrize("seed", SEEDS)
def test_honest_people_never_lose(seed: int) -> None:
    """While honest people act in time and the court decides truly, none of them ends with less than it put in.

    Nor is an honest member of a group convicted, found absent, or the poorer for what is held against it.
    """
    model = played(seed, gentle=True)
    losses = {actor: model.worth(actor) for actor in HONEST_PEOPLE if model.worth(actor) < 0}
    assert not losses
    assert model.worth(HONEST_SOLVER) > 0
    assert sum(model.worth(actor) for actor in HONEST) > 0
    assert sum(model.worth(actor) for actor in BLOWERS) > 0
    assert sum(model.gained[member.name] for member in HONEST_MEMBERS) > 0
    for member in HONEST_MEMBERS:
        assert model.gained[member.name] >= 0
        for group in model.groups.values():
            assert member.name not in group.convicted
            assert not group.absent.get(member.name)


def test_the_model_reaches_every_function() -> None:
    """In the runs above, and in some more of fixed seeds; alone in those."""
    wanted = {f"{name}.{function}" for name, functions in FUNCTIONS.items() for function in functions} | HAPPENINGS
    for seed in range(3, 13):
        if wanted <= SEEN.keys():
            break
        played(seed, gentle=seed % 2 == 0, calls=3000)
    assert not wanted - SEEN.keys()
