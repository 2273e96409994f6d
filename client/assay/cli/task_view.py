"""`assay task list|show|watch|explain`: what the chain says of tasks."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import ADDRESS, json_option, settings_options
from assay.errors import printable
from assay.roles.session import open_market, open_reader
from assay.settings import Settings

if TYPE_CHECKING:
    from assay.market.logs import Logged
    from assay.market.reader import MarketReader
    from assay.market.records import RoundRecord, TaskRecord

STATES = (
    "profiling", "open", "taken", "verifying", "settled", "failed", "unavailable", "unverified", "void", "refused",
    "cancelled",
)  # fmt: skip
AMOUNTS = ("price", "lowest_reward", "highest_reward", "verifier_fee", "profiler_fee")
"""Fields of a task that are wei as text."""
SHORT = 14  # characters of a task's number that lists show; `find_task` takes them


@click.command("list")
@click.option("--state", type=click.Choice(STATES), multiple=True, help="Only tasks in this state; may be repeated.")
@click.option("--submitter", type=ADDRESS, help="Only tasks of this account.")
@settings_options
@json_option
def list_tasks(state: tuple[str, ...], submitter: str | None, settings: Settings, as_json: bool) -> None:
    """List the deployment's tasks, newest first."""
    from assay.market.explain import coins

    reader = open_reader(settings, open_market(settings))
    reader.poll()
    view = reader.view
    chosen = [
        record
        for record in sorted(view.tasks.values(), key=lambda each: each.block, reverse=True)
        if (not state or record.state.name.lower() in state)
        and (submitter is None or record.submitter.lower() == submitter.lower())
    ]
    if as_json:
        click.echo(json.dumps([summary(record, view.time) for record in chosen]))
        return
    if not chosen:
        click.echo("no tasks")
    for record in chosen:
        mode = "exact" if record.posting.exact else "tolerant"
        number, price = f"{record.id:#066x}"[:SHORT], coins(price_of(record, view.time))
        click.echo(
            f"{number}  {record.state.name.lower():11}  {mode:8}  {record.segments:5} segments  {price:>14}  "
            f"by {record.submitter}"
        )


def price_of(record: TaskRecord, now: int) -> int:
    """The price now, or the price at which the task was taken."""
    from assay.market.types import TaskState

    if record.state is TaskState.OPEN:
        return record.price_at(now)
    return record.price or record.lowest_reward


def summary(record: TaskRecord, now: int) -> dict[str, Any]:
    """A task in a few fields; amounts in wei as text."""
    return {
        "task": f"{record.id:#066x}",
        "state": record.state.name.lower(),
        "mode": "exact" if record.posting.exact else "tolerant",
        "submitter": record.submitter,
        "solver": record.solver or None,
        "price": str(price_of(record, now)),
        "lowest_reward": str(record.lowest_reward),
        "highest_reward": str(record.highest_reward),
        "steps": record.posting.steps,
        "segments": record.segments,
        "replay_work": record.replay_work,
        "block": record.block,
    }


def details(reader: MarketReader, record: TaskRecord) -> dict[str, Any]:
    """Everything known of a task."""
    view, posting = reader.view, record.posting
    return summary(record, view.time) | {
        "interval": posting.interval,
        "seed": posting.task_seed,
        "verifiers": posting.verifiers,
        "segments_per_verifier": posting.per_verifier,
        "profile_segments": posting.profile_segments,
        "verifier_fee": str(posting.verifier_fee),
        "profiler_fee": str(posting.profiler_fee),
        "auction_seconds": posting.auction_seconds,
        "training_seconds": posting.train_seconds,
        "base_task": f"{posting.base_task:#066x}" if posting.base_task else None,
        "locations": posting.locations,
        "proof_locations": record.proof_locations or None,
        "deadline": record.deadline or None,
        "roots": {
            "program": record.program_root.hex(),
            "graph": posting.graph_hash.hex(),
            "data": posting.data_root.hex(),
            "initial": posting.initial_root.hex(),
            "thresholds": record.threshold_root.hex(),
            "checkpoints": record.checkpoint_root.hex(),
            "final": record.final_root.hex(),
        },
        "rounds": [_round(reader, each) for each in view.rounds_of(record.id)],
        "cases": [
            {
                "case": f"{case.id:#066x}",
                "challenger": case.challenger,
                "claimant": case.claimant,
                "moves": case.moves,
                "challenger_won": case.challenger_won,
            }
            for case in view.claims.cases_of(record.id)
        ],
    }


def _round(reader: MarketReader, record: RoundRecord) -> dict[str, Any]:
    from assay.market.types import PROFILE

    line = reader.view.claims.lines.get(record.id)
    return {
        "round": f"{record.id:#066x}",
        "share": "profile" if record.share == PROFILE else record.share,
        "attempt": record.attempt,
        "verifier": record.verifier,
        "segments": list(record.segments),
        "state": record.state.name.lower(),
        "forced": record.forced,
        "passes": None if line is None else line.passes,
        "has_fallen": None if line is None else line.has_fallen,
        "whistleblowers": {account: state.name.lower() for account, state in record.answers.items()},
    }


@click.command()
@click.argument("number", metavar="TASK")
@settings_options
@json_option
def show(number: str, settings: Settings, as_json: bool) -> None:
    """Show everything the chain holds of TASK (its number, or the beginning of it)."""
    from assay.market.explain import coins

    reader = open_reader(settings, open_market(settings))
    reader.poll()
    found = details(reader, reader.view.find_task(number))
    if as_json:
        click.echo(json.dumps(found))
        return
    for name, value in found.items():
        if name in AMOUNTS:
            click.echo(f"{name:24} {coins(int(value))}")
        elif isinstance(value, dict):
            for inner, each in value.items():
                click.echo(f"{name + '.' + inner:24} {each}")
        elif isinstance(value, list):
            for each in value:
                text = ", ".join(f"{key.replace('_', ' ')} {_words(item)}" for key, item in each.items())
                click.echo(f"{name.removesuffix('s'):24} {text}")
        elif value is not None:
            click.echo(f"{name:24} {printable(str(value))}")


def _words(value: object) -> str:
    """A value of a round as people write it."""
    if isinstance(value, dict):
        return " and ".join(f"{key} ({item})" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(map(str, value))
    names = {None: "open", True: "yes", False: "no"}
    return names[value] if value is None or isinstance(value, bool) else str(value)


@click.command()
@click.argument("number", metavar="TASK")
@click.option("--timeout", type=click.FloatRange(min=0), help="Stop after so many seconds, with exit code 1.")
@settings_options
@json_option
def watch(number: str, timeout: float | None, settings: Settings, as_json: bool) -> int:
    """Print what happens to TASK until it is over. Under --json a line for each event."""
    reader = open_reader(settings, open_market(settings))
    reader.poll()
    record = reader.view.find_task(number)
    end = None if timeout is None else time.monotonic() + timeout
    told: set[tuple[int, int]] = set()
    while True:
        record = reader.view.task(record.id)
        for logged in reader.history(record.id):
            if (logged.block, logged.index) not in told and is_telling(logged):
                told.add((logged.block, logged.index))
                click.echo(json.dumps(event_json(logged)) if as_json else event_line(logged))
        if record.state.is_over:
            return 0
        if end is not None and time.monotonic() > end:
            return 1
        time.sleep(settings.number("chain.poll_seconds"))
        reader.poll()


def is_telling(logged: Logged) -> bool:
    """Whether an event says something about the task itself, rather than about coin or court moves."""
    from assay.market import events as e

    quiet = (e.CoinEntered, e.CoinMoved, e.CoinLeft, e.StakeLeaving, e.Enlisted, e.Delisted, e.WhistleblowerActive)
    return not isinstance(logged.event, (*quiet, e.ClaimEntered, e.AnswerPublished))


def event_json(logged: Logged) -> dict[str, Any]:
    """An event as JSON: hashes in hexadecimal, numbers beyond 53 bits as hexadecimal text."""
    from assay.market.events import CourtEvent

    event = logged.event
    name = event.name if isinstance(event, CourtEvent) else type(event).__name__
    arguments = _plain(dict(event.arguments) if isinstance(event, CourtEvent) else vars(event))
    return {"block": logged.block, "transaction": logged.transaction, "event": name, **arguments}


def _plain(value: Any) -> Any:
    from dataclasses import fields, is_dataclass
    from enum import IntEnum

    if isinstance(value, IntEnum):
        return value.name.lower()
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 53 else (f"{value:#066x}" if value >= 1 << 128 else str(value))
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return [_plain(each) for each in value]


def event_line(logged: Logged) -> str:
    """An event in one line."""
    record = event_json(logged)
    skip = {"block", "transaction", "event", "task_id", "posting", "leaves", "hidden", "shown", "facts", "locations"}
    words = " ".join(f"{name}={_short(value)}" for name, value in record.items() if name not in skip)
    return f"block {logged.block:7}  {record['event']:18} {words}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 44 else text[:14] + ".."


@click.command()
@click.argument("number", metavar="TASK")
@settings_options
@json_option
def explain(number: str, settings: Settings, as_json: bool) -> None:
    """Say why TASK stands where it stands, what it waits for, and who was paid what by which rule."""
    from assay.market.explain import coins
    from assay.market.explain import explain as sentences
    from assay.market.payments import payments

    market = open_market(settings)
    reader = open_reader(settings, market)
    reader.poll()
    record = reader.view.find_task(number)
    told = sentences(reader.view, record, market.parameters)
    moves = payments(record, reader.history(record.id))
    if as_json:
        rows = [{**vars(move), "amount": str(move.amount)} for move in moves]
        state = record.state.name.lower()
        click.echo(json.dumps({"task": f"{record.id:#066x}", "state": state, "reasons": told, "payments": rows}))
        return
    for sentence in told:
        click.echo(sentence)
    click.echo("\ncoin moved so far:")
    for move in moves:
        target = move.account or ("jackpot pool" if move.target == "pool" else f"({move.target})")
        click.echo(f"  block {move.block:7}  {coins(move.amount):>26}  {target:42}  {move.rule}")
