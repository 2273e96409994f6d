"""Members of a group in court with each other: whoever sends garbage loses all, and nobody else loses anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from group_market import (
    INTERVAL,
    NAMES,
    PLACES,
    PUT_IN,
    QUICK,
    FormedGroup,
    credits,
    flags,
    invoke,
    quick_market,
    received,
    signed_group,
    view_of,
)
from tiny_market import VERIFIER, World
from torch._C._distributed_c10d import TCPStore

from assay.cli.court import court as court_command
from assay.dispute.execution import LocalExecution, interpret
from assay.group.execution.stage_records import RECORDS, StageDossier, StageEnd, dossiers_in
from assay.group.plan import read_plan
from assay.market.events import CourtEvent
from assay.market.groups import GroupState
from assay.market.records import TaskRecord
from assay.market.stage_view import StageView
from assay.market.types import TaskState
from assay.program.interpreter import Inputs
from assay.program.operator import Array, Program, Role
from assay.roles.group_bench import GroupBench
from assay.roles.node import Node
from assay.tasks.bundle import Bundle
from assay.tasks.task_file import TaskFile
from assay.training.train import train


def formed(world: World, store: TCPStore) -> FormedGroup:
    group = signed_group(world, store.port)
    invoke(world, "ann", "form", str(group.terms.agreement))
    return group


def court(world: World, *arguments: str) -> Any:
    """`assay court ...`; what it prints as JSON."""
    result = CliRunner().invoke(court_command, [*arguments, *flags(world, "ann")])
    assert result.exit_code == 0, f"{arguments}: {result.output} {result.exception!r}"
    return json.loads(result.output.splitlines()[-1])


def cheated(world: World, group: FormedGroup, seats: int) -> tuple[int, int]:
    """Play a task of a group whose second working member sends garbage in segment 1, until it is in court; returns the
    task and the member's place."""
    cheat = read_plan(group.terms.plan).members[1]
    fault = {"member": cheat, "generation": 0, "step": INTERVAL + 3, "kind": "garbage"}
    world.nodes = [
        *quick_market(group, seats),
        *(group.member(place, fault=fault, audit_rate=1.0, **QUICK) for place in range(3)),
    ]
    task = until_verified(world, group, seats)
    world.play(lambda: is_in_court(world.reader.view.stages), limit=200)
    return task, NAMES.index(cheat)


def is_in_court(stages: StageView) -> bool:
    return bool(stages.cases or stages.accusations)


def until_verified(world: World, group: FormedGroup, seats: int) -> int:
    """Submit the task, and play until the group has registered a proof."""
    world.play(lambda: world.market.stakes.seats(world.address(VERIFIER)) == seats)
    world.play(lambda: view_of(world, group.contract.address).state is GroupState.READY, limit=120)
    task = world.submit()
    world.play(lambda: world.market.tasks.state(task) is TaskState.TAKEN, limit=200)
    # Time stands still while the members, processes of their own, train.
    world.play(lambda: world.market.tasks.state(task) is TaskState.VERIFYING, idle=lambda: False, limit=400)
    return task


def until_shared(world: World, group: FormedGroup) -> None:
    """Play until the group has paid everything out."""
    address = group.contract.address
    world.play(lambda: view_of(world, address).state is GroupState.SHARED, limit=300)
    world.play(lambda: all(member.due == 0 for member in view_of(world, address).members), limit=100)
    world.play(lambda: not any(credits(group)), limit=100)


def check_cheat_has_nothing(world: World, group: FormedGroup, task: int, place: int) -> None:
    """All that the group had, and earned, went to the two others, and nothing is left anywhere."""
    record = world.reader.view.task(task)
    assert record.state is TaskState.SETTLED
    members = view_of(world, group.contract.address).members
    assert [member.is_convicted for member in members] == [number == place for number in range(3)]
    paid = received(group)
    assert world.address(PLACES[place]) not in paid
    assert sum(paid.values()) == record.price + sum(PUT_IN)
    assert view_of(world, group.contract.address).balance == 0
    stages = world.market.stage_claims
    world.play(lambda: world.market.chain.web3.eth.get_balance(stages.address) == 0, limit=100)


@pytest.mark.slow
def test_a_member_that_sends_garbage_loses_its_contribution_and_its_share_in_court(
    group_world: World, store: TCPStore, group_task: tuple[TaskFile, Bundle], tmp_path: Path
) -> None:
    world, group = group_world, formed(group_world, store)
    task, place = cheated(world, group, 1)
    stages = world.reader.view.stages
    world.play(lambda: all(case.challenger_won is not None for case in stages.cases.values()), limit=200)
    until_shared(world, group)
    # The others trained the segment again, and registered what one machine would have.
    assert world.reader.view.task(task).checkpoint_root == train(group_task[1].task, tmp_path / "alone").root
    (case,) = stages.cases.values()
    claim = stages.claims[case.claim_id]
    assert (claim.member, claim.has_fallen, claim.work.segment) == (world.address(PLACES[place]), True, 1)
    assert case.challenger != claim.member
    (listed,) = court(world, "list", "--all", "--json")
    assert (int(listed["case"], 16), listed["group"]) == (case.id, group.contract.address)
    assert listed["challenger_won"] is True
    shown = court(world, "show", f"{case.id:#066x}"[:20], "--json")
    assert shown["challenger_won"] is True
    assert shown["moves"][0]["function"] == "open"
    check_cheat_has_nothing(world, group, task, place)


@pytest.mark.slow
def test_in_a_tolerant_task_whoever_sends_garbage_is_accused_and_loses_as_much(
    compressed_world: World, store: TCPStore
) -> None:
    world, group = compressed_world, formed(compressed_world, store)
    task, place = cheated(world, group, 2)
    until_shared(world, group)
    stages = world.reader.view.stages
    (accusation,) = stages.accusations.values()
    assert (accusation.member, accusation.work.segment) == (world.address(PLACES[place]), 1)
    assert accusation.is_concluded
    # The accused computed the same, so that it had nothing to say against it.
    assert not stages.cases
    check_cheat_has_nothing(world, group, task, place)


def mistaken(program: Program, role: Role, inputs: Inputs) -> Sequence[Array]:
    """The outputs of a section, but for a wrong first element in what becomes the next state's first tensor."""
    outputs = list(interpret(program, role, inputs))
    (number, *_) = [entry.operator for entry in program.section(role).next_state if entry.operator is not None]
    outputs[number] = outputs[number].copy()
    outputs[number].reshape(-1)[0] += 1
    return outputs


def slandering(group: FormedGroup, seats: int) -> tuple[Node, Node]:
    """Members of whom one takes the other's second segment to court, for what it computes wrong itself: (the accuser,
    the accused)."""
    accuser, accused = (NAMES.index(name) for name in read_plan(group.terms.plan).members)
    members = [group.member(place, audit_rate=1.0, **QUICK) for place in range(3)]
    group.world.nodes = [*quick_market(group, seats), *members]
    theirs, bench = members[accused].bench, members[accuser].bench
    assert isinstance(theirs, GroupBench)
    honest = bench.stage_execution

    def slander(task: TaskRecord) -> list[StageDossier]:
        return list(dossiers_in(theirs.audit_folder(task) / RECORDS, lambda _error: None))[1:2]

    def wrong(task: TaskRecord, dossier: StageDossier) -> LocalExecution:
        return replace(honest(task, dossier), runner=mistaken)

    def wrong_end(task: TaskRecord, dossier: StageDossier) -> StageEnd:
        execution = wrong(task, dossier)
        return StageEnd.of(execution.arrays(Role.STEP, execution.steps - 1))

    bench.stage_findings, bench.stage_execution = slander, wrong  # type: ignore[method-assign]
    bench.stage_dossier, bench.stage_end = theirs.stage_dossier, wrong_end  # type: ignore[method-assign]
    return members[accuser], members[accused]


def check_it_came_to_an_operation(world: World, won: bool) -> None:
    """The only case came down to an operation that the chain executed."""
    (case,) = world.reader.view.stages.cases.values()
    assert case.challenger_won is won
    moves = [log.event.name for log in world.reader.case_events(case.id) if isinstance(log.event, CourtEvent)]
    assert "Proven" in moves or "NextStateProven" in moves


def credited(world: World) -> list[tuple[str, int]]:
    """What cases among members have brought to whom."""
    stages = world.market.stage_claims
    logs = world.market.chain.web3.eth.get_logs({"address": stages.address, "fromBlock": 0})
    events = [stages.interface.event_of(log) for log in logs]
    found = [event.arguments for event in events if event is not None and event.name == "CoinCredited"]
    return [(each["account"], each["amount"]) for each in found]


def until_nobody_is_convicted(world: World, group: FormedGroup) -> None:
    """Play to the end of a group in which all were honest, and what cases brought is withdrawn."""
    until_shared(world, group)
    assert not any(member.is_convicted for member in view_of(world, group.contract.address).members)
    address = world.market.stage_claims.address
    world.play(lambda: world.market.chain.web3.eth.get_balance(address) == 0, limit=100)


@pytest.mark.slow
def test_a_member_accused_of_garbage_that_it_did_not_send_defends_itself_and_has_the_bond(
    group_world: World, store: TCPStore
) -> None:
    world, group = group_world, formed(group_world, store)
    accuser, accused = slandering(group, 1)
    until_verified(world, group, 1)
    world.play(lambda: is_in_court(world.reader.view.stages), limit=100)
    world.play(lambda: not world.reader.view.stages.is_disputed(group.contract.address), limit=200)
    (case,) = world.reader.view.stages.cases.values()
    assert case.challenger == accuser.sender.account.address
    check_it_came_to_an_operation(world, won=False)
    assert credited(world) == [(accused.sender.account.address, world.market.stage_claims.case_bond())]
    until_nobody_is_convicted(world, group)


@pytest.mark.slow
def test_in_a_tolerant_task_a_false_accusation_falls_and_costs_the_accuser_its_bond(
    compressed_world: World, store: TCPStore
) -> None:
    world, group = compressed_world, formed(compressed_world, store)
    accuser, accused = slandering(group, 2)
    until_verified(world, group, 2)
    world.play(lambda: is_in_court(world.reader.view.stages), limit=100)
    world.play(lambda: not world.reader.view.stages.is_disputed(group.contract.address), limit=200)
    (accusation,) = world.reader.view.stages.accusations.values()
    assert (accusation.accuser, accusation.has_fallen) == (accuser.sender.account.address, True)
    (case,) = world.reader.view.stages.cases.values()
    assert case.challenger == accused.sender.account.address
    check_it_came_to_an_operation(world, won=True)
    contract = world.market.stage_claims
    # Its own bond back, and the accuser's.
    brought = credited(world)
    assert {account for account, _ in brought} == {accused.sender.account.address}
    assert sum(amount for _, amount in brought) == contract.case_bond() + contract.accusation_bond()
    until_nobody_is_convicted(world, group)
