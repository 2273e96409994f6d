"""From settings and a group's file to a running member."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from assay.group.execution.run import Seat
from assay.group.plan import read_plan
from assay.market.errors import GroupAgreementError
from assay.market.group_agreement import read_agreement
from assay.market.groups import GroupContract, groups_of
from assay.roles.absence import AbsenceParty
from assay.roles.context import Player
from assay.roles.group_bench import GroupBench, group_bench
from assay.roles.group_file import read_group_file
from assay.roles.group_member import GroupMember
from assay.roles.group_work import Duty
from assay.roles.node import Node
from assay.roles.session import open_market
from assay.roles.solver import SolverOptions
from assay.roles.stage_cases import StageParty
from assay.roles.start import open_node
from assay.settings import Settings


@contextlib.contextmanager
def open_member(
    settings: Settings, group_file: Path, options: SolverOptions, metrics_port: int | None, as_json: bool
) -> Iterator[Node]:
    """A node of one member of the group that a group.toml describes."""
    terms = read_group_file(group_file)
    agreement = read_agreement(terms.agreement)
    if not terms.plan.exists() or not terms.cluster.exists():
        raise GroupAgreementError(f"{terms.plan} or {terms.cluster} is missing: make the plan with `assay group plan`")
    market = open_market(settings)
    if (agreement.chain_id, agreement.factory) != (market.deployment.chain_id, market.address("Groups")):
        raise GroupAgreementError(f"{terms.agreement} is for another deployment than chain.deployment")
    group = GroupContract(market, groups_of(market).group_of(agreement.agreement))
    # The seat is completed below: only an opened node has the account's key.
    empty = Seat("", terms.cluster, *terms.meet)
    make_bench = group_bench(read_plan(terms.plan), empty)
    least = options.least_withdrawal
    players: list[Player] = [GroupMember(group, options), StageParty(least), AbsenceParty(least)]
    with open_node(settings, players, metrics_port, make_bench, as_json) as node:
        node.group = group
        assert isinstance(node.bench, GroupBench)
        account = node.sender.account
        node.bench.plan, node.bench.seat = terms.training(agreement, account.address, f"0x{bytes(account.key).hex()}")
        node.bench.clock = lambda: float(node.reader.view.time or time.time())
        terms_of = agreement.agreement
        accounts = tuple(member.account for member in terms_of.members)
        node.bench.duty = Duty(agreement.chain_id, group.address, accounts, terms_of.owners)
        yield node
