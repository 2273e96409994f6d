"""A group of three on the market of `tiny_market`: its files, its account, its members."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from eth_account import Account
from planned_group import planned
from tiny_market import TASK, VERIFIER, WITNESS, World, make_task

from assay.accounts import import_keystore
from assay.cli.group import group as group_command
from assay.market.deployment import write_deployment
from assay.market.group_agreement import AgreementFile, write_agreement
from assay.market.groups import GroupContract, GroupView, groups_of
from assay.roles.absence import AbsenceParty
from assay.roles.context import Player
from assay.roles.group_bench import GroupBench, group_bench
from assay.roles.group_file import GroupFile, read_group_file
from assay.roles.group_member import GroupMember
from assay.roles.group_work import Duty
from assay.roles.node import Node
from assay.roles.solver import SolverOptions
from assay.roles.stage_cases import StageParty
from assay.roles.verifier import Verifier, VerifierOptions
from assay.roles.whistleblower import Whistleblower, WhistleblowerOptions
from assay.tasks.build import build_bundle
from assay.tasks.bundle import Bundle
from assay.tasks.task_file import TaskFile, read_task_file

NAMES = ("ann", "ben", "cat")
PLACES = (6, 7, 8)
"""The members' places among the chain's accounts."""
SHARES = ("0.500001", "0.333333", "0.166666")
CONTRIBUTIONS = ("3", "2", "1")
PASSWORD = "of the tests"
COIN = 10**18
MILLION = 10**6
PAID = [round(float(share) * MILLION) for share in SHARES]
PUT_IN = [int(contribution) * COIN for contribution in CONTRIBUTIONS]
QUICK = {"grace_seconds": 4.0, "timeout_seconds": 30.0}
"""A seat's patience with members that are lost."""
STEPS, INTERVAL = 60, 12
LOCAL_STEPS = 6 * INTERVAL
"""Three rounds of two members."""

MODEL = """import torch


def make_model():
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.Linear(8, 3))
"""
OPTIONS = SolverOptions(stake_limit=100 * COIN)


def make_group_task(folder: Path, compression: str = "", local_members: int = 0) -> tuple[TaskFile, Bundle]:
    """The tiny task with a model of three layers, and steps enough to kill somebody between two of them. With a
    compression of the boundary behind its second module it is a tolerant one; with `local_members` so many train side
    by side, in rounds."""
    make_task(folder)
    (folder / "model.py").write_text(MODEL)
    text = TASK.replace("steps = 8", f"steps = {STEPS}").replace("interval = 2", f"interval = {INTERVAL}")
    if compression:
        text = text.replace("seed = 3", 'seed = 3\nmode = "tolerant"')
        text += f'[group]\nboundaries = ["1"]\ncompression = "{compression}"\n'
    if local_members:
        text = text.replace(f"steps = {STEPS}", f"steps = {LOCAL_STEPS}")
        text += f"[local_steps]\nmembers = {local_members}\n"
    (folder / "task.toml").write_text(text)
    file = read_task_file(folder / "task.toml")
    return file, build_bundle(file, folder / "group-bundle")


def group_toml(
    world: World, port: int, working: int = 2, paid_for_presence: float = 0.0, owners: Sequence[str] | None = NAMES,
    replicas: int = 1,
) -> Path:  # fmt: skip
    """Writes group.toml, cluster.toml and plan.toml; the members' keystores; the deployment. `owners` None: whoever
    works."""
    folder = world.folder / "group"
    folder.mkdir()
    plan = planned(folder, NAMES, working // replicas, replicas)
    owners = plan.members if owners is None else owners
    text = [f'meet = "127.0.0.1:{port}"', f"segments = {list(owners)!r}".replace("'", '"')]
    text += ["[limits]", 'most_stake = "6"', "evidence_hours = 0.02", "patience_minutes = 60"]
    text += [f"paid_for_presence = {paid_for_presence}"]
    for name, place, share, contribution in zip(NAMES, PLACES, SHARES, CONTRIBUTIONS, strict=True):
        text += ["[[member]]", f'name = "{name}"', f'account = "{world.address(place)}"']
        text += [f'contribution = "{contribution}"', f"share = {share}"]
        key = world.local.chain.private_keys[place]
        import_keystore(folder / f"{name}.json", key, PASSWORD, iterations=1024)
    (folder / "group.toml").write_text("\n".join(text))
    write_deployment(world.local.deployment, folder / "deployment.json")
    return folder / "group.toml"


def flags(world: World, name: str) -> list[str]:
    """The settings of one member, as flags of a command."""
    folder = world.folder / "group"
    values: dict[str, Any] = {
        "chain.url": world.local.chain.url,
        "chain.deployment": folder / "deployment.json",
        "chain.poll_seconds": 0.1,
        "account.keystore": folder / f"{name}.json",
        "state.folder": folder / f"state-{name}",
        "storage.kind": "directory",
        "storage.folder": world.folder / "store",
    }
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


@dataclass
class FormedGroup:
    """A group whose members have signed; those of this process as nodes."""

    world: World
    terms: GroupFile
    file: AgreementFile

    @property
    def contract(self) -> GroupContract:
        return GroupContract(self.world.market, groups_of(self.world.market).group_of(self.file.agreement))

    def member(self, place: int, **seat: Any) -> Node:
        """A member as a node of this process, with other settings of its seat."""
        account = Account.from_key(self.world.local.chain.private_keys[PLACES[place]])
        plan, own = self.terms.training(self.file, account.address, f"0x{bytes(account.key).hex()}")
        players: Sequence[Player] = [GroupMember(self.contract, OPTIONS), StageParty(), AbsenceParty()]
        maker: Any = group_bench(plan, replace(own, **seat))
        node = self.world.node(PLACES[place], players, make_bench=maker)
        assert isinstance(node.bench, GroupBench)
        agreement = self.file.agreement
        accounts = tuple(member.account for member in agreement.members)
        node.bench.duty = Duty(self.file.chain_id, self.contract.address, accounts, agreement.owners)
        node.bench.clock = lambda: float(node.reader.view.time)
        node.group = self.contract
        return node


def signed_group(world: World, port: int, **options: Any) -> FormedGroup:
    """The group's agreement, signed by all, in its file; `options` of `group_toml`."""
    terms = read_group_file(group_toml(world, port, **options))
    now = int(world.market.chain.web3.eth.get_block("latest")["timestamp"])
    file = terms.draft(now, world.local.deployment.chain_id, groups_of(world.market).address, 1)
    for place in PLACES:
        file = file.signed_by(Account.from_key(world.local.chain.private_keys[place]))
    write_agreement(file, terms.agreement)
    return FormedGroup(world, terms, file)


def invoke(world: World, name: str, *arguments: str) -> dict[str, object]:
    """`assay group ...` as one member; what it prints as JSON."""
    result = CliRunner().invoke(
        group_command, [*arguments, "--json", *flags(world, name)], env={"ASSAY_PASSWORD": PASSWORD}
    )
    assert result.exit_code == 0, f"{arguments}: {result.output} {result.exception!r}"
    return dict(json.loads(result.output.splitlines()[-1]))


def view_of(world: World, address: str) -> GroupView:
    found = GroupContract(world.market, address).view()
    assert found is not None
    return found


def received(group: FormedGroup) -> dict[str, int]:
    """What the group has paid out, by member, from its events."""
    web3, contract = group.world.market.chain.web3, group.contract
    paid: dict[str, int] = {}
    for log in web3.eth.get_logs({"address": contract.address, "fromBlock": 0}):
        event = contract.interface.event_of(log)
        if event is not None and event.name == "Withdrawn":
            member = event.arguments["member"]
            paid[member] = paid.get(member, 0) + event.arguments["amount"]
    return paid


def credits(group: FormedGroup) -> list[int]:
    return [member.credit for member in view_of(group.world, group.contract.address).members]


def quick_market(group: FormedGroup, seats: int = 1) -> list[Node]:
    """A verifier and a whistleblower beside a group."""
    world = group.world
    return [
        world.node(VERIFIER, [Verifier(VerifierOptions(seats=seats))]),
        world.node(WITNESS, [Whistleblower(WhistleblowerOptions(audits=0))]),
    ]


def run_member() -> None:
    """A member as a process that stalls at a step, as `assay solver run --group` starts it: FILE NAME STEP FLAGS."""
    from assay.cli.options import settings_from
    from assay.roles.group_start import open_member

    path, name, step = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    assignments = tuple(part for part in sys.argv[4:] if part != "--set")
    with open_member(settings_from(None, assignments, {}), path, OPTIONS, None, False) as node:
        assert isinstance(node.bench, GroupBench)
        fault = {"member": name, "generation": 0, "step": step, "kind": "stall"}
        node.bench.seat = replace(node.bench.seat, fault=fault)
        node.run()


if __name__ == "__main__":
    run_member()
