"""A group that solves one task of the market: from forming to the last wei, with a member killed in the middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from group_market import (
    COIN,
    INTERVAL,
    LOCAL_STEPS,
    MILLION,
    NAMES,
    PAID,
    PASSWORD,
    PLACES,
    PUT_IN,
    QUICK,
    STEPS,
    credits,
    flags,
    group_toml,
    invoke,
    quick_market,
    received,
    signed_group,
    view_of,
)
from tiny_market import VERIFIER, World
from torch._C._distributed_c10d import TCPStore

from assay.commitments import tree
from assay.group.plan import read_plan
from assay.market.group_agreement import statement_signer
from assay.market.groups import GroupContract, GroupState, groups_of
from assay.market.records import TaskRecord
from assay.market.types import TaskState
from assay.roles.group_bench import GroupBench
from assay.roles.group_work import statement_of
from assay.roles.node import Node
from assay.tasks.bundle import Bundle
from assay.tasks.task_file import TaskFile
from assay.training.train import train


def balance(world: World, place: int) -> int:
    return int(world.market.chain.web3.eth.get_balance(world.address(PLACES[place])))


def test_a_group_is_drafted_signed_formed_joined_and_dissolved_from_the_command_line(group_world: World) -> None:
    world = group_world
    path = group_toml(world, 1)
    drafted = invoke(world, "ann", "draft", str(path), "--nonce", "7")
    agreement = str(drafted["agreement"])
    assert invoke(world, "ann", "sign", agreement)["missing"] == ["ben", "cat"]
    # The others sign copies, which come back to whoever forms the group.
    copies = []
    for name in ("ben", "cat"):
        copies.append(f"{agreement}.{name}")
        invoke(world, name, "sign", agreement, "--output", copies[-1])
    assert invoke(world, "ben", "form", agreement, *copies)["group"] == drafted["group"]
    assert groups_of(world.market).is_group(str(drafted["group"]))
    assert invoke(world, "ann", "join", agreement)["state"] == "forming"
    assert invoke(world, "ben", "join", agreement)["state"] == "forming"
    assert invoke(world, "cat", "join", agreement)["state"] == "ready"
    assert invoke(world, "cat", "show", agreement)["balance"] == sum(PUT_IN)
    assert invoke(world, "ann", "dissolve", agreement)["state"] == "shared"
    for place, name in enumerate(("ann", "ben", "cat")):
        before = balance(world, place)
        invoke(world, name, "collect", agreement)
        assert balance(world, place) > before + PUT_IN[place] - COIN // 100  # less gas
    assert view_of(world, str(drafted["group"])).balance == 0


@pytest.mark.slow
def test_a_group_that_loses_a_member_in_the_middle_settles_its_task_and_pays_each_for_its_segments(
    group_world: World, store: TCPStore, group_task: tuple[TaskFile, Bundle], tmp_path: Path
) -> None:
    world = group_world
    group = signed_group(world, store.port, paid_for_presence=0.8)
    invoke(world, "ann", "form", str(group.terms.agreement))
    (spare,) = read_plan(group.terms.plan).spares
    victim = next(name for name in read_plan(group.terms.plan).members if name != NAMES[0])
    survivors = [place for place, name in enumerate(NAMES) if name != victim]
    step = 2 * INTERVAL + 3
    script = str(Path(__file__).with_name("group_market.py"))
    environment = {**os.environ, "ASSAY_PASSWORD": PASSWORD, "PYTHONPATH": os.pathsep.join(sys.path)}
    log = (tmp_path / "victim.log").open("w")
    doomed = subprocess.Popen(
        [sys.executable, script, str(group.terms.path), victim, str(step), *flags(world, victim)],
        env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        world.nodes = [
            *quick_market(group),
            *(group.member(place, **QUICK) for place in survivors),
        ]
        contract, chain = group.contract, world.market.chain.web3.eth

        def account_of(name: str) -> str:
            return world.address(PLACES[NAMES.index(name)])

        def state() -> GroupState:
            found = contract.view()
            assert found is not None
            return found.state

        def others_work() -> bool:
            assert doomed.poll() is None, (tmp_path / "victim.log").read_text()
            return False

        world.play(lambda: world.market.stakes.seats(world.address(VERIFIER)) == 1)
        # Time stands still until the one with a process of its own has contributed.
        world.play(lambda: state() is GroupState.READY, idle=others_work, limit=120)
        task = world.submit()
        world.play(lambda: reached(store, victim, step), idle=others_work, limit=200)
        os.killpg(doomed.pid, signal.SIGKILL)
        doomed.wait()
        world.play(lambda: world.market.tasks.state(task) is TaskState.VERIFYING, idle=lambda: False, limit=300)
        world.play(lambda: state() is GroupState.SHARED, limit=200)
        world.play(lambda: all(member.due == 0 for member in view_of(world, contract.address).members), limit=100)
        world.play(lambda: not any(credits(group)[place] for place in survivors), limit=100)
        # The reporters have their bonds back.
        world.play(lambda: chain.get_balance(world.market.presence.address) == 0, limit=100)
    finally:
        if doomed.poll() is None:
            os.killpg(doomed.pid, signal.SIGKILL)
            doomed.wait()
        log.close()
    record = world.reader.view.task(task)
    assert record.state is TaskState.SETTLED
    assert record.solver == contract.address
    # What was registered is what one machine would have trained.
    assert record.checkpoint_root == train(group_task[1].task, tmp_path / "alone").root
    # Whoever was there at the end has signed for its segments, and each of the two has what both have signed.
    for node in world.nodes[2:]:
        assert signers_of(node, record, contract) == {
            segment: world.address(PLACES[place])
            for segment in range(STEPS // INTERVAL)
            for place in survivors
            if segment % 3 == place
        }
    # Who was there for which segments is known of all: the dead of the first two, its replacement of the rest.
    segments = STEPS // INTERVAL
    absent = [{victim: segments - 2, spare: 2}.get(name, 0) for name in NAMES]
    assert [member.absent for member in view_of(world, contract.address).members] == absent
    for name, first, last in ((victim, 2, segments - 1), (spare, 0, 1)):
        (report,) = (each for each in world.reader.view.presence.reports.values() if each.member == account_of(name))
        assert (report.first, report.last, report.is_concluded) == (first, last, True)
    # A fifth of each share whatever happened, the rest for the segments the member was in; to the wei, the remainder
    # to the first; contributions whole.
    weights = [share * (segments * MILLION - 800_000 * away) for share, away in zip(PAID, absent, strict=True)]
    rewards = [record.price * weight // sum(weights) for weight in weights]
    rewards[0] += record.price - sum(rewards)
    owed = [reward + contribution for reward, contribution in zip(rewards, PUT_IN, strict=True)]
    paid = received(group)
    assert {place: paid[world.address(PLACES[place])] for place in survivors} == {p: owed[p] for p in survivors}
    # The dead member's part waits for it, and nobody else can take it.
    (lost,) = set(range(3)) - set(survivors)
    assert credits(group) == [owed[place] if place == lost else 0 for place in range(3)]
    invoke(world, victim, "collect", str(group.terms.agreement))
    assert received(group)[world.address(PLACES[lost])] == owed[lost]
    assert view_of(world, contract.address).balance == 0


@pytest.mark.slow
def test_a_group_trains_a_compressed_tolerant_task_with_pytorch_s_kernels_and_is_paid(
    compressed_world: World, store: TCPStore, compressed_task: tuple[TaskFile, Bundle], tmp_path: Path
) -> None:
    world = compressed_world
    group = signed_group(world, store.port)
    invoke(world, "ann", "form", str(group.terms.agreement))
    world.nodes = [
        *quick_market(group, seats=2),
        *(group.member(place, **QUICK) for place in range(3)),
    ]
    contract = group.contract
    world.play(lambda: world.market.stakes.seats(world.address(VERIFIER)) == 2)
    world.play(lambda: view_of(world, contract.address).state is GroupState.READY, limit=120)
    task = world.submit()
    world.play(lambda: world.market.tasks.state(task) is TaskState.TAKEN, limit=200)
    # Time stands still while the members, processes of their own, train.
    world.play(lambda: world.market.tasks.state(task) is TaskState.VERIFYING, idle=lambda: False, limit=300)
    world.play(lambda: view_of(world, contract.address).state is GroupState.SHARED, limit=300)
    world.play(lambda: all(member.due == 0 for member in view_of(world, contract.address).members), limit=100)
    world.play(lambda: not any(credits(group)), limit=100)
    record = world.reader.view.task(task)
    assert record.state is TaskState.SETTLED
    assert record.solver == contract.address
    # Not the exact arithmetic's checkpoints, and within the thresholds.
    assert record.checkpoint_root != train(compressed_task[1].task, tmp_path / "alone").root
    (replayed,) = (each for each in world.reader.view.rounds_of(task) if not each.is_profile)
    distances = np.array([leaf.distance for leaf in replayed.leaves], np.uint32).view(np.float32)  # type: ignore[union-attr]
    assert ((distances > 0) & (distances <= 1)).all()
    rewards = [record.price * share // MILLION for share in PAID]
    rewards[0] += record.price - sum(rewards)
    owed = {world.address(PLACES[p]): rewards[p] + PUT_IN[p] for p in range(3)}
    assert received(group) == owed
    assert view_of(world, contract.address).balance == 0
    stakes = world.market.stakes
    assert stakes.total() == world.market.chain.web3.eth.get_balance(stakes.address)


def signers_of(node: Node, task: TaskRecord, contract: GroupContract) -> dict[int, str]:
    """Who signed for each segment, as a member holds it."""
    assert isinstance(node.bench, GroupBench)
    work, duty = node.bench.signed_work(task), node.bench.duty
    assert work is not None
    assert duty is not None
    assert tree.root(work.roots) == task.checkpoint_root
    return {
        segment: statement_signer(
            statement_of(task.id, segment, work.roots), duty.chain_id, contract.address, signature
        )
        for segment, signature in work.signatures.items()
    }


def reached(store: TCPStore, name: str, step: int) -> bool:
    """Whether a member has executed that many steps."""
    time.sleep(0.02)
    return bool(store.check([f"progress/{name}"])) and int(store.get(f"progress/{name}")) >= step


@pytest.mark.slow
def test_a_group_trains_local_steps_side_by_side_and_each_signs_for_what_it_trained(
    local_world: World, store: TCPStore, local_task: tuple[TaskFile, Bundle], tmp_path: Path
) -> None:
    world = local_world
    group = signed_group(world, store.port, owners=None, replicas=2)
    invoke(world, "ann", "form", str(group.terms.agreement))
    world.nodes = [*quick_market(group), *(group.member(place, **QUICK) for place in range(3))]
    world.play(lambda: world.market.stakes.seats(world.address(VERIFIER)) == 1)
    address = group.contract.address
    world.play(lambda: view_of(world, address).state is GroupState.READY, limit=120)
    task = world.submit()
    world.play(lambda: world.market.tasks.state(task) is TaskState.TAKEN, limit=200)
    world.play(lambda: world.market.tasks.state(task) is TaskState.VERIFYING, idle=lambda: False, limit=300)
    record = world.reader.view.task(task)
    assert record.checkpoint_root == train(local_task[1].task, tmp_path / "alone").root
    working = read_plan(group.terms.plan).members
    signed = {
        segment: world.address(PLACES[NAMES.index(working[segment % 2])]) for segment in range(LOCAL_STEPS // INTERVAL)
    }
    for name in working:
        assert signers_of(world.nodes[2 + NAMES.index(name)], record, group.contract) == signed
    world.play(lambda: view_of(world, address).state is GroupState.SHARED, limit=200)
    world.play(lambda: all(member.due == 0 for member in view_of(world, address).members), limit=100)
    world.play(lambda: not any(credits(group)), limit=100)
    assert world.reader.view.task(task).state is TaskState.SETTLED
    assert sum(received(group).values()) == record.price + sum(PUT_IN)
