"""`assay task`: trace and post training tasks, follow them, fetch and audit what was proven."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import json_option, note, print_written, printing_aside, settings_options
from assay.cli.task_demand import demand
from assay.cli.task_files import audit, fetch
from assay.cli.task_profile import (
    print_profile,
    profile,
    profile_for_estimate,
    profile_record,
    require_separation,
)
from assay.cli.task_view import explain, list_tasks, show, watch
from assay.roles.session import deployment_of, keystore_path, open_market, open_reader, open_sender, use_threads
from assay.settings import Settings

if TYPE_CHECKING:
    from assay.chain.sender import Call, Sender, Sent
    from assay.market.parameters import Parameters
    from assay.market.types import TaskState
    from assay.tasks.bundle import Bundle
    from assay.tasks.posting import Estimate
    from assay.tasks.task_file import TaskFile
    from assay.training.profile import Profile


@click.group()
def task() -> None:
    """Trace, submit, inspect and cancel training tasks."""


for command in (list_tasks, show, watch, explain, fetch, audit, demand, profile):
    task.add_command(command)


@task.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@json_option
def new(folder: Path, as_json: bool) -> None:
    """Write a task to start from into FOLDER: a task.toml with every key explained, its model and its samples."""
    from assay.templates import write_task

    print_written(write_task(folder), as_json)


TASK_FILE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=Path("task.toml"))


@task.command()
@TASK_FILE
@click.option("--profile", "profiled", is_flag=True, help="Say too what tolerant mode would let pass.")
@settings_options
@json_option
def estimate(file: Path, profiled: bool, settings: Settings, as_json: bool) -> None:
    """Trace FILE (task.toml) and say what the task would cost. Nothing is stored, signed or sent.

    With --profile, ends with status 1 where `assay task submit` would refuse the task.
    """
    with tempfile.TemporaryDirectory(prefix="assay-estimate-") as folder:
        described, bundle = _build(file, Path(folder), settings, as_json)
        expected = _estimate(described, bundle, settings, as_json)
        found = profile_for_estimate(described, bundle, as_json) if profiled else None
        _print_expected(expected, found, described, bundle, as_json)


@task.command()
@TASK_FILE
@click.option("--dry-run", is_flag=True, help="Stop after estimate and profile: nothing is stored, signed or sent.")
@click.option("--another", is_flag=True, help="Post the same task once more.")
@click.option(
    "--unprofiled", is_flag=True, help="Post a tolerant task without profiling it here first (`assay task profile`)."
)
@click.option("--yes", is_flag=True, help="Do not ask before paying.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Keep the task's files here.")
@settings_options
@json_option
def submit(
    file: Path,
    dry_run: bool,
    another: bool,
    unprofiled: bool,
    yes: bool,
    folder: Path | None,
    settings: Settings,
    as_json: bool,
) -> None:
    """Trace FILE (task.toml), store its files, post it, and pay its escrow.

    A tolerant task is profiled here first, and refused where training could be left out unseen.
    The model's code runs on this machine only: everybody else gets the traced graph, which is data.
    """
    from assay.market.explain import coins
    from assay.storage.open import open_store
    from assay.tasks.posting import make_posting
    from assay.tasks.publish import publish_bundle
    from assay.tasks.submit import submit_posting

    if not dry_run:  # what is not set up is told before the work of tracing
        market = open_market(settings)
        keystore_path(settings)
    with tempfile.TemporaryDirectory(prefix="assay-submit-") as temporary:
        described, bundle = _build(file, folder or Path(temporary), settings, as_json)
        expected = _estimate(described, bundle, settings, as_json)
        found = None if unprofiled else profile_for_estimate(described, bundle, as_json)
        if dry_run:
            _print_expected(expected, found, described, bundle, as_json)
            return
        if not as_json:
            _print_estimate(expected, described, bundle)
        require_separation(found, as_json)
        if not as_json and not yes and sys.stdin.isatty() and sys.stdout.isatty():
            click.confirm(f"Pay {coins(expected.escrow)} into escrow and post the task?", abort=True)
        with open_sender(settings, market) as sender:
            note("storing the files", as_json)
            locations = publish_bundle(open_store(settings), bundle)
            posting = make_posting(bundle, described.market, locations, market.parameters)
            note("posting the task", as_json)
            made = submit_posting(sender, market, posting, another)
    record: dict[str, Any] = {
        "task": f"{made.task_id:#066x}",
        "transaction": made.sent.hash,
        "block": made.sent.block,
        "gas_used": made.sent.gas_used,
        "escrow": str(expected.escrow),
        "repeated": made.repeated,
        "locations": locations,
    }
    if found is not None:
        record["would_pass"] = [forgery.kind.name.lower() for forgery in found.unseen]
    if as_json:
        click.echo(json.dumps(record))
        return
    if made.repeated:
        click.echo("This task had been submitted before; --another posts it once more.")
    click.echo(f"task {record['task']}")
    click.echo(f"in transaction {made.sent.hash}, block {made.sent.block}, {made.sent.gas_used} gas")
    click.echo(f"follow it with: assay task watch {record['task'][:14]}")


@task.command()
@click.argument("number", metavar="TASK")
@settings_options
@json_option
def cancel(number: str, settings: Settings, as_json: bool) -> None:
    """Withdraw an open task of the own account; its escrow becomes credit, which `assay task withdraw` pays out."""
    from assay.market.errors import TaskStateError
    from assay.market.explain import coins
    from assay.market.types import TaskState

    market = open_market(settings)
    reader = open_reader(settings, market)
    reader.poll()
    record = reader.view.find_task(number)
    with open_sender(settings, market) as sender:
        if record.state not in (TaskState.OPEN, TaskState.CANCELLED):
            raise TaskStateError(
                f"task {record.id:#x} is {record.state.name.lower()}: only open tasks can be cancelled; see "
                "`assay task explain`"
            )
        sent = _cancelled(sender, f"cancel:{record.id:x}", market.tasks.cancel(record.id), record.state)
        credit = market.stakes.credit(sender.address)
    if as_json:
        transaction = None if sent is None else sent.hash
        click.echo(json.dumps({"task": f"{record.id:#066x}", "transaction": transaction, "credit": str(credit)}))
    else:
        click.echo(f"cancelled; the account's credit is {coins(credit)}")


def _cancelled(sender: Sender, key: str, call: Call, state: TaskState) -> Sent | None:
    """Cancel an open task, and wait; what cancelled one that is not open any more, None if that was not sent here."""
    from assay.chain.sender import Outcome
    from assay.market.errors import TaskStateError
    from assay.market.types import TaskState

    if state is not TaskState.OPEN:
        return sender.find(sender.attempt(key)[0])
    sent = sender.send(key, call)
    if sent.outcome is not Outcome.SUCCEEDED:
        raise TaskStateError(
            f"the chain refused {sent.hash}, probably because the task was taken first; see `assay task show`"
        )
    return sent


@task.command()
@settings_options
@json_option
def withdraw(settings: Settings, as_json: bool) -> None:
    """Pay the account's credit (refunds, earnings) out to it."""
    from assay.chain.errors import ChainError
    from assay.chain.sender import Outcome
    from assay.market.errors import TaskStateError
    from assay.market.explain import coins

    market = open_market(settings)
    with open_sender(settings, market) as sender:
        credit = market.stakes.credit(sender.address)
        if credit == 0:
            raise TaskStateError(f"{sender.address} has no credit to withdraw")
        nonce = market.chain.web3.eth.get_transaction_count(market.chain.web3.to_checksum_address(sender.address))
        # No key of this account's roles, which number their withdrawals and take what stands under one for done.
        sent = sender.send(f"withdraw-by-hand:{nonce}", market.stakes.withdraw())
        if sent.outcome is not Outcome.SUCCEEDED:
            raise ChainError(f"the chain refused the withdrawal {sent.hash}: try again")
    if as_json:
        click.echo(json.dumps({"amount": str(credit), "transaction": sent.hash}))
    else:
        click.echo(f"{coins(credit)} paid out in {sent.hash}")


# --- building and estimating -----------------------------------------------------------------------------------------


def _build(file: Path, folder: Path, settings: Settings, as_json: bool) -> tuple[TaskFile, Bundle]:
    """Read the task file, and trace and lower the model."""
    from assay.tasks.build import build_bundle
    from assay.tasks.task_file import read_task_file

    use_threads(settings)
    described = read_task_file(file)
    limit = settings.whole("storage.limit_mib") << 20
    with printing_aside():
        return described, build_bundle(described, folder, limit, lambda sentence: note(sentence, as_json))


def _parameters(settings: Settings, as_json: bool) -> Parameters:
    """The deployment's parameters; the usual ones where no deployment is named."""
    from assay.market.parameters import PUBLIC

    if settings.text("chain.deployment"):
        return deployment_of(settings).parameters
    note("chain.deployment is not set: estimating with the usual parameters of public chains", as_json)
    return PUBLIC


def _estimate(described: TaskFile, bundle: Bundle, settings: Settings, as_json: bool) -> Estimate:
    """What the task costs, with gas at the chain's present price where a chain can be asked.

    Raises `TaskFileError` where the deployment would refuse the task: before it is profiled, stored and sent.
    """
    from dataclasses import replace

    from assay.chain.errors import ChainError
    from assay.market.connection import open_chain
    from assay.tasks.posting import check_terms, make_posting
    from assay.tasks.posting import estimate as estimate_posting
    from assay.tasks.references import FileReference
    from assay.tasks.submit import FALLBACK_SUBMIT_GAS

    parameters = _parameters(settings, as_json)
    place = FileReference(("dir:" + "0" * 64,), 1, bytes(32)).encode()
    posting = make_posting(bundle, described.market, place, parameters)
    if settings.text("chain.deployment"):
        check_terms(posting, bundle.task.program, parameters)
    found = estimate_posting(posting, bundle.task.program, parameters)
    try:
        chain = open_chain(settings.text("chain.url"))
        price = int(chain.ask("asking for the gas price", lambda: chain.web3.eth.gas_price, attempts=1))
    except ChainError:
        price = 0
    return replace(found, transaction_gas=FALLBACK_SUBMIT_GAS, gas_cost=FALLBACK_SUBMIT_GAS * price)


def _print_expected(
    expected: Estimate, found: Profile | None, described: TaskFile, bundle: Bundle, as_json: bool
) -> None:
    """Print an estimate with the task's profile, if it has one; end with status 1 where that refuses the task."""
    if as_json:
        record = _estimate_json(expected, bundle)
        click.echo(json.dumps(record if found is None else record | {"profile": profile_record(found)}))
    else:
        _print_estimate(expected, described, bundle)
        if found is not None:
            print_profile(found)
    if found is not None and not found.acceptable:
        click.get_current_context().exit(1)


def _print_estimate(found: Estimate, described: TaskFile, bundle: Bundle) -> None:
    from assay.market.explain import coins, duration

    task_ = bundle.task
    parameters = sum(entry.count for entry in task_.program.state)
    rows = [
        ("task", f"{described.title}: {task_.steps} steps of {described.batch_size} samples, {task_.mode.value}"),
        ("state", f"{len(task_.program.state)} tensors, {parameters} elements, {task_.state_bytes} bytes"),
        ("segments", f"{task_.segments} of {task_.interval} steps"),
        ("work", f"{found.work.training} units ({found.work.step} a step)"),
        ("checked", f"{found.verifiers} x {found.work.replay} units, {_part(found)} of the training"),
        ("reward", f"{coins(found.lowest_reward)} rising to {coins(found.highest_reward)}"),
        ("verifier fees", f"{found.verifiers} x {coins(found.verifier_fee)}"),
        ("profiler fee", coins(found.profiler_fee)),
        ("draw bounties", coins(found.draw_bounties)),
        ("jackpot tax", coins(found.tax)),
        ("escrow", f"{coins(found.escrow)}  (what is not spent comes back)"),
        ("gas", f"about {found.transaction_gas} for {coins(found.gas_cost) if found.gas_cost else 'an unknown price'}"),
        ("solver's stake", coins(found.solver_stake)),
        ("solver's time", duration(found.training_seconds)),
    ]
    for name, value in rows:
        click.echo(f"{name:15} {value}")


def _part(found: Estimate) -> str:
    return f"{100 * found.verifiers * found.work.replay / found.work.training:.3g} %"


def _estimate_json(found: Estimate, bundle: Bundle) -> dict[str, Any]:
    """Amounts in wei as text; work units as numbers."""
    values = asdict(found)
    work = values.pop("work")
    amounts = ("reward", "fee", "bounties", "tax", "escrow", "stake", "cost")
    record: dict[str, Any] = {"work": work}
    record |= {name: str(value) if name.endswith(amounts) else value for name, value in values.items()}
    record["segments"] = bundle.task.segments
    record["roots"] = {
        "program": bundle.manifest.program_root.hex(),
        "data": bundle.manifest.data_root.hex(),
        "initial": bundle.manifest.initial_root.hex(),
        "graph": bundle.manifest.graph_hash.hex(),
    }
    return record
