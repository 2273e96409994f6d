"""The Python settlement rules move exactly what the contracts move, call by call, over sampled histories."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
from mirror import Mirror

from assay.contracts import contract_names, load_contract
from assay.economics.settlement import Bucket
from assay.market.parameters import Parameters
from market_chain import Outcome, RevmChain
from market_model import Model
from market_world import World, populated

CALLS = int(os.environ.get("ASSAY_HISTORY_CALLS", "1000"))
HISTORIES = [(2, False), (3, True), (3, False), (4, True), (5, False)]

pytest.importorskip("pyrevm")
if "HarnessCourt" not in contract_names():
    pytest.skip("the contracts are not compiled: run scripts/compile", allow_module_level=True)


def artifacts() -> dict[str, dict[str, Any]]:
    """What the chain deploys, from the compiled contracts in the package."""
    contracts = [load_contract(name) for name in contract_names()]
    return {c.name: {"abi": c.abi, "bytecode": c.bytecode.removeprefix("0x")} for c in contracts}


class RecordingChain(RevmChain):
    """A chain that keeps every call that succeeded, with its events and its block's time."""

    def __init__(self) -> None:
        super().__init__(artifacts())
        self.history: list[tuple[str, str, str, tuple[Any, ...], Outcome, int]] = []

    def call(self, sender: str, name: str, function: str, *arguments: Any, value: int = 0) -> Outcome:
        outcome = super().call(sender, name, function, *arguments, value=value)
        if self.interface(name).mutable[function]:
            self.history.append((sender, name, function, arguments, outcome, self.time))
        return outcome


def replayed(seed: int, gentle: bool, calls: int) -> tuple[Mirror, int]:
    """Play a random history on the contracts, and predict every call's moves from the rules."""
    chain = RecordingChain()
    model = Model(chain, seed, gentle)
    model.run(calls)
    model.drain()
    return mirrored(chain, model.world), len(chain.history)


def mirrored(chain: RecordingChain, world: World) -> Mirror:
    """Predict every recorded call's moves, and compare them with the contracts' own."""
    mirror = Mirror(Parameters(*world.parameters.values()))
    actual: Counter[tuple[int, int]] = Counter()
    for actor, name, function, arguments, outcome, time in chain.history:
        touched = set()
        mirror.call(actor, name, function, arguments, time)
        for event in outcome.events:
            if event.name == "Moved":
                values = event.values
                source, target = (values["from"], values["fromId"]), (values["to"], values["toId"])
                actual[source] -= values["amount"]
                actual[target] += values["amount"]
                touched |= {source, target}
                continue
            if event.contract == "Stakes" and event.name == "Entered":
                actual[event.values["class"], event.values["id"]] += event.values["amount"]
            elif event.name == "Left":
                actual[Bucket.CREDIT, int(event.values["account"], 16)] -= event.values["amount"]
            mirror.note(actor, function, event.contract, event.name, event.values, time)
        for place in touched:
            expected = mirror.ledger[Bucket(place[0]), place[1]]
            assert actual[place] == expected, (function, Bucket(place[0]).name, actual[place] - expected)
        # The rules move nothing that the contracts leave where it is.
        moved = {(int(bucket), key): amount for (bucket, key), amount in mirror.ledger.held.items() if amount}
        assert sum(moved.values()) == sum(actual.values()), function
    assert moved == {place: amount for place, amount in actual.items() if amount}
    return mirror


def test_a_proof_nobody_could_fetch_ends_as_the_rules_say() -> None:
    chain = RecordingChain()
    world = populated(chain, maximalReplacements=4)
    task = world.registered()
    for _ in range(3):
        round_ = world.draw(task)
        world.do(round_.verifier, "Verification", "stepBack", round_.id)
    assert world.state(task) == "Unavailable"
    world.do(world.deployer, "Settlement", "release", task, 0)
    rows = mirrored(chain, world).rows
    assert (rows["Unavailable by settlement"], rows["fault 3"], rows["share without a round"]) == (1, 3, 1)


SEEN: Counter[str] = Counter()


@pytest.mark.parametrize(("seed", "gentle"), HISTORIES)
def test_every_call_moves_what_the_rules_say(seed: int, gentle: bool) -> None:
    mirror, calls = replayed(seed, gentle, CALLS)
    SEEN.update(mirror.rows)
    assert calls > CALLS // 10
    assert sum(mirror.rows.values()) > calls // 4


def test_the_histories_reach_the_rows_of_the_settlement_table() -> None:
    """Runs after the histories above; alone it plays them first."""
    if not SEEN:
        for seed, gentle in HISTORIES:
            SEEN.update(replayed(seed, gentle, CALLS)[0].rows)
    wanted = {
        *("submitted", "taken", "late", "stepped down", "drawn", "drawn again", "seat locked", "restake", "leaving"),
        *("Settled by settlement", "Failed by settlement", "Failed by a finder", "Cancelled by settlement"),
        *("fault 0", "fault 3", "joined", "collected right", "collected wrong", "collected void", "jackpot reserved"),
        *("case lost", "case won", "accusation closed", "served", "not served"),
        *("bond behind a claim returned", "claimant's clock", "challenger's clock", "share without a round"),
        *("round ended with its task (False)", "round stood (failed False, jackpot True)"),
        *("round stood (failed True, jackpot False)", "round fell (failed False, answered False)"),
    }
    assert not wanted - set(SEEN), sorted(SEEN)
