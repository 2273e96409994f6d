"""A task that fails by a segment which no member audited: whoever sent garbage there is found afterwards, and bears the
loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from group_market import (
    INTERVAL,
    LOCAL_STEPS,
    NAMES,
    PLACES,
    PUT_IN,
    QUICK,
    STEPS,
    credits,
    invoke,
    quick_market,
    received,
    signed_group,
    view_of,
)
from tiny_market import VERIFIER, World
from torch._C._distributed_c10d import TCPStore

from assay.group.plan import read_plan
from assay.market.groups import GroupState
from assay.market.types import TaskState
from assay.roles.group_bench import GroupBench

SIGNS = 0x80808080
"""The first bits of the bytes of a message. Less, from one in four values of a tiny model's compressed boundary, stays
within its wide thresholds."""
HARDLY_EVER = 1e-12
"""Members sign for their stages, and audit none."""


def play_to_a_failed_task(world: World, store: TCPStore, seats: int, segments: int, **options: Any) -> None:
    """A group of which one member sends garbage that nobody audits, and says nothing afterwards, from its forming to
    the end. The verifiers replay all `segments`; `options` of `signed_group`."""
    world.file = replace(world.file, market=replace(world.file.market, segments_per_verifier=segments))
    group = signed_group(world, store.port, **options)
    invoke(world, "ann", "form", str(group.terms.agreement))
    working = read_plan(group.terms.plan).members
    cheat = next(name for name in working if name != NAMES[0])
    fault = {
        "member": cheat, "generation": 0, "step": INTERVAL, "steps": INTERVAL, "kind": "garbage", "bits": SIGNS,
    }  # fmt: skip
    members = [group.member(place, fault=fault, audit_rate=HARDLY_EVER, **QUICK) for place in range(3)]
    guilty = NAMES.index(cheat)
    silent = members[guilty].bench
    assert isinstance(silent, GroupBench)
    silent.inquire = lambda _task, _segment: True  # type: ignore[method-assign]
    silent._check_segment = lambda *_: None  # type: ignore[method-assign]  # it signs for anything
    world.nodes = [*quick_market(group, seats), *members]
    address = group.contract.address
    world.play(lambda: world.market.stakes.seats(world.address(VERIFIER)) == seats)
    world.play(lambda: view_of(world, address).state is GroupState.READY, limit=120)
    task = world.submit()
    world.play(lambda: world.market.tasks.state(task) is TaskState.TAKEN, limit=200)
    world.play(lambda: world.market.tasks.state(task) is TaskState.VERIFYING, idle=lambda: False, limit=400)
    world.play(lambda: view_of(world, address).state is GroupState.CLOSED, limit=200)
    assert world.market.tasks.state(task) is TaskState.FAILED
    assert not any(member.is_convicted for member in view_of(world, address).members)
    world.play(lambda: view_of(world, address).state is GroupState.SHARED, limit=300)
    world.play(lambda: all(member.due == 0 for member in view_of(world, address).members), limit=100)
    world.play(lambda: not any(credits(group)), limit=100)
    found = view_of(world, address)
    assert [member.is_convicted for member in found.members] == [place == guilty for place in range(3)]
    paid = received(group)
    lost = sum(PUT_IN) - sum(paid.values())
    # The whole loss is its own, and what is left of its contribution is the others'.
    assert 0 < lost <= PUT_IN[guilty]
    assert world.address(PLACES[guilty]) not in paid
    assert all(paid[world.address(PLACES[place])] >= PUT_IN[place] for place in range(3) if place != guilty)
    assert found.balance == 0
    stages = world.market.stage_claims
    world.play(lambda: world.market.chain.web3.eth.get_balance(stages.address) == 0, limit=100)


@pytest.mark.slow
def test_whoever_sent_garbage_that_only_the_market_found_bears_the_loss(group_world: World, store: TCPStore) -> None:
    play_to_a_failed_task(group_world, store, 1, STEPS // INTERVAL, owners=())


@pytest.mark.slow
def test_so_does_it_in_a_tolerant_task(compressed_world: World, store: TCPStore) -> None:
    play_to_a_failed_task(compressed_world, store, 2, STEPS // INTERVAL, owners=())


@pytest.mark.slow
def test_so_does_a_member_that_trains_alone_and_tells_what_it_did_not_train(
    local_world: World, store: TCPStore
) -> None:
    play_to_a_failed_task(local_world, store, 1, LOCAL_STEPS // INTERVAL, owners=None, replicas=2)
