"""A group that solves one task of the market: from forming to the last wei, with a member killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from group_market import (
    CONTRIBUTIONS,
    INTERVAL,
    NAMES,
    PASSWORD,
    PLACES,
    SHARES,
    STEPS,
    FormedGroup,
    flags,
    group_toml,
    make_group_task,
    signed_group,
)
from tiny_market import VERIFIER, WITNESS, World, tiny_world
from torch._C._distributed_c10d import TCPStore

from assay.cli.court import court as court_command
from assay.cli.group import group as group_command
from assay.commitments import tree
from assay.dispute.execution import LocalExecution, interpret
from assay.group.execution.stage_records import RECORDS, StageDossier, dossiers_in
from assay.group.plan import read_plan
from assay.market.events import CourtEvent
from assay.market.group_agreement import statement_signer
from assay.market.groups import GroupContract, GroupState, GroupView, groups_of
from assay.market.records import TaskRecord
from assay.market.types import TaskState
from assay.program.interpreter import Inputs
from assay.program.operator import Array, Program, Role
from assay.roles.group_bench import GroupBench
from assay.roles.group_work import statement_of
from assay.roles.node import Node
from assay.roles.verifier import Verifier, VerifierOptions
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions
from assay.tasks.bundle import Bundle
from assay.tasks.task_file import TaskFile
from assay.training.train import train

COIN = 10**18
MILLION = 10**6
PAID = [round(float(share) * MILLION) for share in SHARES]
PUT_IN = [int(contribution) * COIN for contribution in CONTRIBUTIONS]
QUICK = {"grace_seconds": 4.0, "timeout_seconds": 30.0}


@pytest.fixture(scope="module")
def group_task(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskFile, Bundle]:
    return make_group_task(tmp_path_factory.mktemp("task") / "task")


@pytest.fixture
def world(tmp_path: Path, group_task: tuple[TaskFile, Bundle]) -> Iterator[World]:
    with tiny_world(tmp_path, *group_task) as found:
        yield found


@pytest.fixture
def store() -> TCPStore:
    """Where the group meets."""
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def invoke(world: World, name: str, *arguments: str) -> dict[str, object]:
    """`assay group ...` as one member; what it prints as JSON."""
    result = CliRunner().invoke(
        group_command, [*arguments, "--json", *flags(world, name)], env={"ASSAY_PASSWORD": PASSWORD}
    )
    assert result.exit_code == 0, f"{arguments}: {result.output} {result.exception!r}"
    return dict(json.loads(result.output.splitlines()[-1]))


def test_a_group_is_drafted_signed_formed_joined_and_dissolved_from_the_command_line(world: World) -> None:
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


def balance(world: World, place: int) -> int:
    return int(world.market.chain.web3.eth.get_balance(world.address(PLACES[place])))


def view_of(world: World, address: str) -> GroupView:
    found = GroupContract(world.market, address).view()
    assert found is not None
    return found


def received(group: FormedGroup) -> dict[str, int]:
    """What the group has paid out, by member, from its events."""
    web3, contract = group.world.market.chain.web3, group.contract
    paid: dict[str, int] = {}
    for log in web3.eth.get_logs({"address": contract.address, "fromBlock": 0}):
        event = contract.interface.event([bytes(topic) for topic in log["topics"]], bytes(log["data"]))
        if event is not None and event.name == "Withdrawn":
            member = event.arguments["member"]
            paid[member] = paid.get(member, 0) + event.arguments["amount"]
    return paid


@pytest.mark.slow
def test_a_group_that_loses_a_member_in_the_middle_settles_its_task_and_splits_the_reward(
    world: World, store: TCPStore, group_task: tuple[TaskFile, Bundle], tmp_path: Path
) -> None:
    group = signed_group(world, store.port)
    invoke(world, "ann", "form", str(group.terms.agreement))
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
            world.node(VERIFIER, [Verifier()]),
            world.node(WITNESS, [Whistleblower(WhistleblowerOptions(audits=0))]),
            *(group.member(place, **QUICK) for place in survivors),
        ]
        contract = group.contract

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
    # Shares of the price to the wei, the remainder to the first; contributions whole.
    rewards = [record.price * share // MILLION for share in PAID]
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


def court(world: World, *arguments: str) -> Any:
    """`assay court ...`; what it prints as JSON."""
    result = CliRunner().invoke(court_command, [*arguments, *flags(world, "ann")])
    assert result.exit_code == 0, f"{arguments}: {result.output} {result.exception!r}"
    return json.loads(result.output.splitlines()[-1])


@pytest.mark.slow
def test_a_member_that_sends_garbage_loses_its_contribution_and_its_share_in_court(
    world: World, store: TCPStore, group_task: tuple[TaskFile, Bundle], tmp_path: Path
) -> None:
    group = signed_group(world, store.port)
    invoke(world, "ann", "form", str(group.terms.agreement))
    cheat = read_plan(group.terms.plan).members[1]
    fault = {"member": cheat, "generation": 0, "step": INTERVAL + 3, "kind": "garbage"}
    world.nodes = [
        world.node(VERIFIER, [Verifier()]),
        world.node(WITNESS, [Whistleblower(WhistleblowerOptions(audits=0))]),
        *(group.member(place, fault=fault, audit_rate=1.0, **QUICK) for place in range(3)),
    ]
    contract, stages = group.contract, world.market.stage_claims

    def is_tried() -> bool:
        cases = world.reader.view.stages.cases.values()
        return bool(cases) and all(case.challenger_won is not None for case in cases)

    world.play(lambda: world.market.stakes.seats(world.address(VERIFIER)) == 1)
    world.play(lambda: view_of(world, contract.address).state is GroupState.READY, limit=120)
    task = world.submit()
    world.play(lambda: world.market.tasks.state(task) is TaskState.VERIFYING, idle=lambda: False, limit=400)
    world.play(is_tried, limit=200)
    world.play(lambda: view_of(world, contract.address).state is GroupState.SHARED, limit=200)
    world.play(lambda: all(member.due == 0 for member in view_of(world, contract.address).members), limit=100)
    world.play(lambda: not any(credits(group)), limit=100)
    record = world.reader.view.task(task)
    assert record.state is TaskState.SETTLED
    # The others trained the segment again, and registered what one machine would have.
    assert record.checkpoint_root == train(group_task[1].task, tmp_path / "alone").root
    place = NAMES.index(cheat)
    (case,) = world.reader.view.stages.cases.values()
    claim = world.reader.view.stages.claims[case.claim_id]
    assert (claim.member, claim.has_fallen, claim.work.segment) == (world.address(PLACES[place]), True, 1)
    assert case.challenger != claim.member
    (listed,) = court(world, "list", "--all", "--json")
    assert (int(listed["case"], 16), listed["group"], listed["challenger_won"]) == (case.id, contract.address, True)
    shown = court(world, "show", f"{case.id:#066x}"[:20], "--json")
    assert shown["challenger_won"] is True
    assert shown["moves"][0]["function"] == "open"
    members = view_of(world, contract.address).members
    assert [member.is_convicted for member in members] == [number == place for number in range(3)]
    # All that the group had, and earned, went to the two others.
    paid = received(group)
    assert claim.member not in paid
    assert sum(paid.values()) == record.price + sum(PUT_IN)
    assert view_of(world, contract.address).balance == 0
    world.play(lambda: world.market.chain.web3.eth.get_balance(stages.address) == 0, limit=100)


def mistaken(program: Program, role: Role, inputs: Inputs) -> Sequence[Array]:
    """The outputs of a section, but for a wrong first element in what becomes the next state's first tensor."""
    outputs = list(interpret(program, role, inputs))
    (number, *_) = [entry.operator for entry in program.section(role).next_state if entry.operator is not None]
    outputs[number] = outputs[number].copy()
    outputs[number].reshape(-1)[0] += 1
    return outputs


@pytest.mark.slow
def test_a_member_accused_of_garbage_that_it_did_not_send_defends_itself_and_has_the_bond(
    world: World, store: TCPStore
) -> None:
    group = signed_group(world, store.port)
    invoke(world, "ann", "form", str(group.terms.agreement))
    accuser, accused = (NAMES.index(name) for name in read_plan(group.terms.plan).members)
    members = [group.member(place, audit_rate=1.0, **QUICK) for place in range(3)]
    world.nodes = [
        world.node(VERIFIER, [Verifier()]),
        world.node(WITNESS, [Whistleblower(WhistleblowerOptions(audits=0))]),
        *members,
    ]
    theirs, bench = members[accused].bench, members[accuser].bench
    assert isinstance(theirs, GroupBench)
    honest = bench.stage_execution

    def slander(task: TaskRecord) -> list[StageDossier]:
        return list(dossiers_in(theirs.audit_folder(task) / RECORDS))[1:2]

    def wrong(task: TaskRecord, dossier: StageDossier) -> LocalExecution:
        return replace(honest(task, dossier), runner=mistaken)

    bench.stage_findings, bench.stage_execution = slander, wrong  # type: ignore[method-assign]
    bench.stage_dossier = theirs.stage_dossier  # type: ignore[method-assign]
    contract, stages = group.contract, world.market.stage_claims
    world.play(lambda: world.market.stakes.seats(world.address(VERIFIER)) == 1)
    world.play(lambda: view_of(world, contract.address).state is GroupState.READY, limit=120)
    task = world.submit()
    world.play(lambda: world.market.tasks.state(task) is TaskState.VERIFYING, idle=lambda: False, limit=400)
    world.play(lambda: bool(world.reader.view.stages.cases), limit=100)
    world.play(lambda: not world.reader.view.stages.is_disputed(contract.address), limit=200)
    (case,) = world.reader.view.stages.cases.values()
    assert (case.challenger, case.challenger_won) == (world.address(PLACES[accuser]), False)
    # It came down to an operation that the chain executed, and found as the accused had computed it.
    moves = [log.event.name for log in world.reader.case_events(case.id) if isinstance(log.event, CourtEvent)]
    assert "Proven" in moves or "NextStateProven" in moves
    logs = world.market.chain.web3.eth.get_logs({"address": stages.address, "fromBlock": 0})
    events = [stages.interface.event([bytes(t) for t in log["topics"]], bytes(log["data"])) for log in logs]
    credited = [each.arguments for each in events if each is not None and each.name == "CoinCredited"]
    assert [(each["account"], each["amount"]) for each in credited] == [
        (world.address(PLACES[accused]), stages.case_bond())
    ]
    world.play(lambda: view_of(world, contract.address).state is GroupState.SHARED, limit=200)
    assert not any(member.is_convicted for member in view_of(world, contract.address).members)
    world.play(lambda: world.market.chain.web3.eth.get_balance(stages.address) == 0, limit=100)


@pytest.fixture(scope="module")
def compressed_task(tmp_path_factory: pytest.TempPathFactory) -> tuple[TaskFile, Bundle]:
    return make_group_task(tmp_path_factory.mktemp("compressed") / "task", "tile-8-8")


@pytest.fixture
def compressed_world(tmp_path: Path, compressed_task: tuple[TaskFile, Bundle]) -> Iterator[World]:
    with tiny_world(tmp_path, *compressed_task) as found:
        yield found


@pytest.mark.slow
def test_a_group_trains_a_compressed_tolerant_task_with_pytorch_s_kernels_and_is_paid(
    compressed_world: World, store: TCPStore, compressed_task: tuple[TaskFile, Bundle], tmp_path: Path
) -> None:
    world = compressed_world
    group = signed_group(world, store.port)
    invoke(world, "ann", "form", str(group.terms.agreement))
    world.nodes = [
        world.node(VERIFIER, [Verifier(VerifierOptions(seats=2))]),
        world.node(WITNESS, [Whistleblower(WhistleblowerOptions(audits=0))]),
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


def credits(group: FormedGroup) -> list[int]:
    return [member.credit for member in view_of(group.world, group.contract.address).members]


def reached(store: TCPStore, name: str, step: int) -> bool:
    """Whether a member has executed that many steps."""
    time.sleep(0.02)
    return bool(store.check([f"progress/{name}"])) and int(store.get(f"progress/{name}")) >= step
