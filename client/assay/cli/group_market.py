"""`assay group draft`, `sign`, `form`, `join`, `show`, `collect`, `dissolve`: several accounts as one solver."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from assay.cli.options import json_option, settings_options
from assay.settings import Settings

if TYPE_CHECKING:
    from assay.chain.sender import Call, Sender
    from assay.market.connection import Market
    from assay.market.group_agreement import AgreementFile
    from assay.market.groups import GroupContract, GroupView

COIN = 10**18
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("group_file", type=FILE)
@click.option("--nonce", type=int, help="Tells otherwise equal agreements apart [a random number].")
@settings_options
@json_option
def draft(group_file: Path, nonce: int | None, settings: Settings, as_json: bool) -> None:
    """Write the agreement that the terms of GROUP_FILE (group.toml) come to, for every member to sign."""
    from assay.market.group_agreement import write_agreement
    from assay.market.groups import groups_of
    from assay.roles.group_file import read_group_file
    from assay.roles.session import open_market

    terms = read_group_file(group_file)
    market = open_market(settings)
    eth = market.chain.web3.eth
    now = int(market.chain.ask("reading the newest block", lambda: eth.get_block("latest"))["timestamp"])
    chosen = secrets.randbits(64) if nonce is None else nonce
    file = terms.draft(now, market.deployment.chain_id, groups_of(market).address, chosen)
    write_agreement(file, terms.agreement)
    address = groups_of(market).group_of(file.agreement)
    if as_json:
        click.echo(json.dumps({"agreement": str(terms.agreement), "group": address}))
    else:
        click.echo(
            f"{terms.agreement} is to be signed by {', '.join(file.names)}; the group's account will be {address}"
        )


@click.command()
@click.argument("agreement", type=FILE)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Where to [the same file].")
@settings_options
@json_option
def sign(agreement: Path, output: Path | None, settings: Settings, as_json: bool) -> None:
    """Sign AGREEMENT with the settings' account. Read its terms first: `assay group show`."""
    from assay.accounts import open_keystore, read_password
    from assay.market.group_agreement import read_agreement, write_agreement
    from assay.roles.session import keystore_path

    path = keystore_path(settings)
    file = read_agreement(agreement)
    account = open_keystore(path, read_password(f"password of {path}: ", settings.text("account.password_file")))
    signed = file.signed_by(account)
    write_agreement(signed, output or agreement)
    if as_json:
        click.echo(json.dumps({"signed": account.address, "missing": signed.missing}))
    else:
        click.echo(f"signed by {account.address}; missing: {', '.join(signed.missing) or 'nobody'}")


@click.command()
@click.argument("agreements", nargs=-1, required=True, type=FILE)
@settings_options
@json_option
def form(agreements: tuple[Path, ...], settings: Settings, as_json: bool) -> None:
    """Form the group of AGREEMENTS (one agreement, signed in one file or in several) on chain. Any member can."""
    from assay.market.errors import GroupAgreementError
    from assay.market.group_agreement import read_agreement, write_agreement
    from assay.market.groups import groups_of
    from assay.roles.session import open_market, open_sender

    file = read_agreement(agreements[0])
    for path in agreements[1:]:
        file = file.merged(read_agreement(path))
    if file.missing:
        raise GroupAgreementError(f"not signed by {', '.join(file.missing)}: each runs `assay group sign`")
    market = open_market(settings)
    _check_place(file, market)
    factory = groups_of(market)
    address = factory.group_of(file.agreement)
    if not factory.is_group(address):
        signatures = [file.signatures[member.account] for member in file.agreement.members]
        with open_sender(settings, market) as sender:
            _send(sender, f"group-form:{address}", factory.form(file.agreement, signatures))
    write_agreement(file, agreements[0])
    click.echo(
        json.dumps({"group": address}) if as_json else f"formed: {address}. Members contribute with `group join`"
    )


@click.command()
@click.argument("agreement", type=FILE)
@settings_options
@json_option
def join(agreement: Path, settings: Settings, as_json: bool) -> None:
    """Pay the settings' account's contribution into the group of AGREEMENT."""
    from assay.market.errors import GroupAgreementError
    from assay.roles.session import open_sender

    market, file, group, view = _open(agreement, settings)
    with open_sender(settings, market) as sender:
        place = file.agreement.place_of(sender.address)
        if view is None:
            raise GroupAgreementError("the group is not formed yet: `assay group form`")
        if not view.members[place].has_paid:
            amount = view.members[place].contribution
            _send(sender, f"group-contribute:{group.address}:", group.contribute(place, amount))
    _tell(file, group.view(), as_json)


@click.command()
@click.argument("agreement", type=FILE)
@settings_options
@json_option
def show(agreement: Path, settings: Settings, as_json: bool) -> None:
    """Show the terms of AGREEMENT, and where its group stands: what is owed to whom, who was absent for how many
    segments."""
    market, file, group, view = _open(agreement, settings)
    if view is not None:
        _tell(file, view, as_json)
        pending = market.presence.pending_of(group.address)
        if pending and not as_json:
            click.echo(f"  {pending} report(s) of absence pending: nothing is shared out before they are decided")
        return
    if as_json:
        members = [{"name": n, **asdict(m)} for n, m in zip(file.names, file.agreement.members, strict=True)]
        click.echo(json.dumps({"group": group.address, "state": "none", "missing": file.missing, "members": members}))
        return
    terms = file.agreement
    signed = f"not signed by {', '.join(file.missing)}" if file.missing else "signed by all"
    click.echo(f"not formed; its account will be {group.address}; {signed}")
    for name, member in zip(file.names, terms.members, strict=True):
        click.echo(f"  {name:12} {member.account}  {_in_coins(member.contribution):>12} in  {member.share / 1e4:.4f} %")
    click.echo(f"  stakes at most {_in_coins(terms.most_stake)}, works for at least {_in_coins(terms.least_price)}")
    click.echo(f"  a leader silent for {terms.patience} s can be replaced; evidence {terms.evidence_seconds} s")
    click.echo(f"  {_presence(terms.presence_rate)}")
    if terms.owners:
        click.echo(f"  segments are answered for by {', '.join(file.names[owner] for owner in terms.owners)} in turn")


@click.command()
@click.argument("agreement", type=FILE)
@settings_options
@json_option
def collect(agreement: Path, settings: Settings, as_json: bool) -> None:
    """Take the next step that pays the group of AGREEMENT out, and the settings' account's part: close, conclude
    accusations among members and reports of absence, share, collect, withdraw; and bonds of cases, accusations and
    reports. `assay solver run --group` does the same by itself."""
    from assay.market.groups import GroupState
    from assay.roles.session import open_sender

    market, file, group, view = _open(agreement, settings)
    eth = market.chain.web3.eth
    with open_sender(settings, market) as sender:
        now = int(market.chain.ask("reading the newest block", lambda: eth.get_block("latest"))["timestamp"])
        if view is not None and view.state is GroupState.WORKING:
            _send(sender, f"group-close:{group.address}:", group.close())
        elif view is not None and view.state is GroupState.CLOSED:
            _conclude(settings, market, sender, group)
            _send(sender, f"group-share:{group.address}:", group.share())
        elif view is not None and (view.income or (view.leaving and now > view.leaving_until)):
            _send(sender, f"group-collect:{group.address}:{now}", group.collect())
        view = group.view()
        place = None if view is None else view.place_of(sender.address)
        if view is not None and place is not None and view.members[place].credit:
            _send(sender, f"group-withdraw:{group.address}:{now}", group.withdraw())
        bonds = market.stage_claims.credit_of(sender.address)
        if bonds:
            _send(sender, f"stage-withdraw:{now}:{bonds}", market.stage_claims.withdraw())
        bonds = market.presence.credit_of(sender.address)
        if bonds:
            _send(sender, f"absence-withdraw:{now}:{bonds}", market.presence.withdraw())
    _tell(file, group.view(), as_json)


def _conclude(settings: Settings, market: Market, sender: Sender, group: GroupContract) -> None:
    """What members accuse each other of, or report, and nobody refuted or answered in time: the group waits for it."""
    from assay.roles.session import open_reader

    if not (market.stage_claims.pending_of(group.address) or market.presence.pending_of(group.address)):
        return
    reader = open_reader(settings, market)
    reader.poll()
    stages = reader.view.stages
    for accusation in stages.accusations.values():
        if accusation.work.group == group.address and stages.can_be_concluded(accusation.id, reader.view.time):
            _send(sender, f"stage-conclude:{accusation.id:x}", market.stage_claims.conclude(accusation.id))
    for report in reader.view.presence.reports_in(group.address):
        if report.can_be_concluded(reader.view.time):
            _send(sender, f"absence-conclude:{report.id:x}", market.presence.conclude(report.id))


@click.command()
@click.argument("agreement", type=FILE)
@settings_options
@json_option
def dissolve(agreement: Path, settings: Settings, as_json: bool) -> None:
    """End the group of AGREEMENT before it has a task; contributions go back, and are withdrawn with `collect`."""
    from assay.roles.session import open_sender

    market, file, group, _ = _open(agreement, settings)
    with open_sender(settings, market) as sender:
        _send(sender, f"group-dissolve:{group.address}:", group.dissolve())
    _tell(file, group.view(), as_json)


COMMANDS = (draft, sign, form, join, show, collect, dissolve)


def _open(agreement: Path, settings: Settings) -> tuple[Market, AgreementFile, GroupContract, GroupView | None]:
    from assay.market.group_agreement import read_agreement
    from assay.market.groups import GroupContract, groups_of
    from assay.roles.session import open_market

    file, market = read_agreement(agreement), open_market(settings)
    _check_place(file, market)
    group = GroupContract(market, groups_of(market).group_of(file.agreement))
    return market, file, group, group.view()


def _check_place(file: AgreementFile, market: Market) -> None:
    from assay.market.errors import GroupAgreementError

    here = (market.deployment.chain_id, market.address("Groups"))
    if (file.chain_id, file.factory) != here:
        raise GroupAgreementError(
            f"the agreement is for chain {file.chain_id} and {file.factory}, the settings name chain {here[0]} and "
            f"{here[1]}: correct chain.deployment"
        )


def _send(sender: Sender, key: str, call: Call) -> None:
    from assay.chain.errors import ChainError
    from assay.chain.sender import Outcome

    if sender.send(key, call).outcome is not Outcome.SUCCEEDED:
        raise ChainError(f"the chain refused {key.partition(':')[0]}: look at `assay group show` and try again")


def _tell(file: AgreementFile, view: GroupView | None, as_json: bool) -> None:
    if view is None:
        return
    if as_json:
        click.echo(json.dumps({**asdict(view), "state": view.state.name.lower(), "task": hex(view.task)}))
        return
    names = {account: name for name, account in file.addresses.items()}
    task = f", task {view.task:#x}" if view.task else ""
    click.echo(f"{view.address} is {view.state.name.lower()}, led by {names.get(view.leader, view.leader)}{task}")
    click.echo(f"  {_presence(view.presence_rate)}")
    for member in view.members:
        marks = ["" if member.has_paid else "contribution missing", "at fault" if member.is_liable else ""]
        marks.append("convicted" if member.is_convicted else "")
        marks.append(f"absent in {member.absent} segment(s)" if member.absent else "")
        click.echo(
            f"  {names.get(member.account, ''):12} {member.account}  {_in_coins(member.contribution):>12} in  "
            f"{member.share / 1e4:8.4f} %  {_in_coins(member.credit):>12} to withdraw  {_in_coins(member.due):>12} due "
            + ", ".join(mark for mark in marks if mark)
        )


def _presence(rate: int) -> str:
    if rate == 0:
        return "shares are paid whoever takes part"
    return f"{rate / 1e4:.6g} % of each share is earned by taking part, segment by segment"


def _in_coins(wei: int) -> str:
    return f"{wei / COIN:.6f}".rstrip("0").rstrip(".")
