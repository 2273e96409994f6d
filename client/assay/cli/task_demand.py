"""`assay task demand`: one chunk of a task's files, asked for on chain and checked when it is answered."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import json_option, note, settings_options
from assay.errors import UsageError
from assay.roles.session import open_market, open_reader, open_sender
from assay.settings import Settings

if TYPE_CHECKING:
    from assay.chain.sender import Sender
    from assay.market.connection import Market
    from assay.market.events import ChunkServed
    from assay.market.reader import MarketReader
    from assay.market.records import DemandRecord, TaskRecord
    from assay.market.types import Place
    from assay.program.operator import Program


@click.command()
@click.argument("number", metavar="TASK")
@click.option("--data", "of_data", is_flag=True, help="A chunk of the training data.")
@click.option("--checkpoint", type=click.IntRange(0), help="A chunk of this checkpoint; 0 is the initial state.")
@click.option("--tensor", default="0", show_default=True, help="The tensor, by name or number.")
@click.option("--chunk", type=click.IntRange(0), default=0, show_default=True, help="The chunk in it, 1024 bytes each.")
@click.option("--round", "round_", help="The round you were drawn for or joined; needed unless you are the submitter.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the chunk's bytes to this file.")
@click.option("--no-wait", is_flag=True, help="Do not wait for the answer; the same command later looks for it.")
@settings_options
@json_option
def demand(
    number: str,
    of_data: bool,
    checkpoint: int | None,
    tensor: str,
    chunk: int,
    round_: str | None,
    output: Path | None,
    no_wait: bool,
    settings: Settings,
    as_json: bool,
) -> int:
    """Demand one chunk of TASK's files on chain, wait for the answer, and check it against the root on chain.

    The solver answers with the chunk and its proof, for the price of the demand, or loses as if it had cheated. Exits
    with 1 if nothing was answered in time: then the demand is called unserved, and the task has failed.
    """
    from assay.market.types import Place
    from assay.storage.open import open_store
    from assay.tasks.chunks import fetch_program

    if of_data == (checkpoint is not None):
        raise UsageError("say which file is demanded: --data, or --checkpoint NUMBER")
    market = open_market(settings)
    reader = open_reader(settings, market)
    reader.poll()
    record = reader.view.find_task(number)
    folder = Path(settings.text("state.folder")) / "tasks" / f"{record.id:064x}" / "bundle"
    note("fetching the program", as_json)
    program = fetch_program([open_store(settings)], record.posting.locations, folder, record.program_root)
    place = Place(of_data, checkpoint or 0, find_tensor(program, of_data, tensor), chunk)
    check_place(program, record, place)
    with open_sender(settings, market) as sender:
        found = made_before(reader, record, place, sender.address)
        if found is None:
            found = send(sender, market, reader, record, place, program, round_, as_json)
        if no_wait and found.is_open:
            tell(found, None, reader, as_json)
            return 0
        note(f"waiting for the answer, for {max(0, found.deadline - reader.view.time)} s at most", as_json)
        answer = wait(sender, market, reader, found, settings.number("chain.poll_seconds"))
    details = None if answer is None else checked(market, record, found, answer, program, output)
    tell(found, details, reader, as_json)
    return 0 if details is not None else 1


def find_tensor(program: Program, of_data: bool, name: str) -> int:
    """A tensor's number, from its name or number."""
    from assay.tasks.chunks import descriptors

    tensors = descriptors(program, of_data)
    names = [each.name for each in tensors]
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < len(tensors):
        return int(name)
    raise UsageError(f"there is no tensor {name!r}: the file has 0 to {len(tensors) - 1} ({', '.join(names)})")


def check_place(program: Program, record: TaskRecord, place: Place) -> None:
    """Say what is wrong with a place before the chain refuses it."""
    from assay.commitments.tensor import chunks_of
    from assay.tasks.chunks import descriptors

    chunks = chunks_of(descriptors(program, place.of_data)[place.tensor].count)
    if place.chunk >= chunks:
        raise UsageError(f"tensor {place.tensor} has {chunks} chunks, numbered from 0: there is no chunk {place.chunk}")
    if place.checkpoint > record.segments:
        raise UsageError(f"the task has checkpoints 0 to {record.segments}: there is no checkpoint {place.checkpoint}")


def made_before(reader: MarketReader, record: TaskRecord, place: Place, me: str) -> DemandRecord | None:
    """The newest demand of this account for the same chunk: it is not paid for twice."""
    found = [reader.view.demands[each] for each in reader.view.task(record.id).demands]
    mine = [each for each in found if each.asker == me and each.place == place]
    return mine[-1] if mine else None


def send(
    sender: Sender,
    market: Market,
    reader: MarketReader,
    record: TaskRecord,
    place: Place,
    program: Program,
    round_: str | None,
    as_json: bool,
) -> DemandRecord:
    """Make the demand."""
    from assay.chain.sender import Outcome
    from assay.market.types import TaskState
    from assay.tasks.chunks import entry_of
    from assay.tasks.errors import ProofFilesError

    if record.state is not TaskState.VERIFYING:
        raise UsageError(
            f"task {record.id:#x} is {record.state.name.lower()}: chunks can be demanded from the registration of the "
            "proof to its settlement; see `assay task explain`"
        )
    round_id = find_round(reader, record, round_) if round_ is not None else 0
    price = market.demands.price()
    made = int(market.demands.ask("demanded", sender.address))
    call = market.demands.demand(record.id, round_id, place, record.posting.header, entry_of(program, place), price)
    note("demanding the chunk", as_json)
    sent = sender.send(f"demand:{record.id:x}:{made}", call)
    reader.poll()
    found = made_before(reader, record, place, sender.address)
    if sent.outcome is not Outcome.SUCCEEDED or found is None:
        raise ProofFilesError(f"the demand {sent.hash} failed: see `assay task show`, and try again")
    return found


def find_round(reader: MarketReader, record: TaskRecord, prefix: str) -> int:
    """A round of a task, by the beginning of its number."""
    digits = prefix.lower().removeprefix("0x")
    rounds = [each.id for each in reader.view.rounds_of(record.id) if f"{each.id:064x}".startswith(digits)]
    if len(rounds) != 1:
        raise UsageError(f"{len(rounds)} rounds of the task begin with {prefix}: `assay task show` lists them")
    return rounds[0]


def served(reader: MarketReader, found: DemandRecord) -> tuple[str, ChunkServed] | None:
    """The transaction that answered a demand, and what it said."""
    from assay.market.events import ChunkServed

    for logged in reader.history(found.task_id):
        if isinstance(logged.event, ChunkServed) and logged.event.demand_id == found.id:
            return logged.transaction, logged.event
    return None


def wait(
    sender: Sender, market: Market, reader: MarketReader, found: DemandRecord, pause: float
) -> tuple[str, ChunkServed] | None:
    """The answer; None if there was none in time, which is then called."""
    while reader.view.demands[found.id].is_open:
        if reader.view.time > found.deadline:
            sender.send(f"not-served:{found.id:x}", market.demands.not_served(found.id))
        time.sleep(pause)
        reader.poll()
    return served(reader, found)


def checked(
    market: Market,
    record: TaskRecord,
    found: DemandRecord,
    answer: tuple[str, ChunkServed],
    program: Program,
    output: Path | None,
) -> dict[str, Any]:
    """An answer in a few fields, once its chunk was found to lead to the root on chain."""
    from hexbytes import HexBytes

    from assay.tasks.chunks import check_chunk
    from assay.tasks.errors import ProofFilesError

    digest, event = answer
    eth = market.chain.web3.eth
    transaction = market.chain.ask("reading the answer", lambda: eth.get_transaction(HexBytes(digest)))
    called = market.demands.interface.decode_call(bytes(HexBytes(transaction["input"])))
    if called is None or called[0] != "serve":
        raise ProofFilesError(f"the chunk was answered through another contract in {digest}: its proof is not there")
    root = record.posting.data_root if found.place.of_data else record.checkpoint_root
    chunk = check_chunk(program, found.place, event.chunk, called[1]["proof"], root, record.segments)
    if output is not None:
        output.write_bytes(chunk.content)
    return {
        "transaction": digest,
        "server": event.server,
        "root": root.hex(),
        "verified": True,
        "first_element": chunk.first,
        "elements": chunk.count,
        "chunk": chunk.content.hex(),
        "output": None if output is None else str(output),
    }


def tell(found: DemandRecord, answer: dict[str, Any] | None, reader: MarketReader, as_json: bool) -> None:
    """Print a demand and its answer."""
    is_open = reader.view.demands[found.id].is_open
    state = "open" if is_open else "unserved" if answer is None else "served"
    if as_json:
        place = found.place
        row = {
            "demand": f"{found.id:#066x}",
            "task": f"{found.task_id:#066x}",
            "state": state,
            "file": "data" if place.of_data else f"checkpoint {place.checkpoint}",
            "tensor": place.tensor,
            "chunk_number": place.chunk,
            "deadline": found.deadline,
        }
        click.echo(json.dumps(row | (answer or {})))
    elif answer is not None:
        last = answer["first_element"] + answer["elements"] - 1
        click.echo(f"answered by {answer['server']} in {answer['transaction']}")
        click.echo(f"elements {answer['first_element']} to {last}, as the root {answer['root']} on chain says")
        if answer["output"] is not None:
            click.echo(f"written to {answer['output']}")
    elif is_open:
        click.echo(f"demand {found.id:#x} is open for another {found.deadline - reader.view.time} s")
    else:
        click.echo("not answered in time: the demand was called unserved, the task has failed")
