"""`assay whistleblower leak`: a verifier's secret, brought to the chain in two steps for a part of its seat."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from assay.cli.options import json_option, note, settings_options
from assay.errors import UsageError
from assay.roles.session import open_market, open_reader, open_sender
from assay.settings import Settings

if TYPE_CHECKING:
    from assay.chain.sender import Call, Sender, Sent
    from assay.market.connection import Market
    from assay.market.reader import MarketReader
    from assay.market.records import RoundRecord


@click.command()
@click.argument("number", metavar="ROUND")
@click.option(
    "--secret-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the secret, 64 hexadecimal digits; asked for without it.",
)  # fmt: skip
@settings_options
@json_option
def leak(number: str, secret_file: Path | None, settings: Settings, as_json: bool) -> None:
    """Bring the secret that the verifier of ROUND has committed to, before it discloses it itself.

    The round is voided; the bringer earns a part of the verifier's seat. Two transactions: a commitment that nobody can
    copy, then the secret. Killed in between, the same command goes on where it was.
    """
    market = open_market(settings)
    reader = open_reader(settings, market)
    reader.poll()
    found = find_round(reader, number)
    with open_sender(settings, market) as sender:
        kept = f"leak:{found.id:x}"
        known = sender.state.get(kept)
        secret = bytes.fromhex(known) if known is not None else read_secret(secret_file)
        order = order_of(found, secret)
        # On disk before the first transaction: nobody else may learn it from us, and we must not lose it.
        sender.state.put_once(kept, secret.hex())
        sent = bring(sender, market, reader, found, secret, order, settings.number("chain.poll_seconds"), as_json)
        credit = market.stakes.credit(sender.address)
    reader.poll()
    state = reader.view.rounds[found.id].state.name.lower()
    if as_json:
        row = {"round": f"{found.id:#066x}", "state": state, "transaction": sent.hash, "credit": str(credit)}
        click.echo(json.dumps(row))
    else:
        from assay.market.explain import coins

        click.echo(f"round {found.id:#066x} is {state}; the account's credit is {coins(credit)}")


def find_round(reader: MarketReader, prefix: str) -> RoundRecord:
    """The round whose number begins with these digits."""
    digits = prefix.lower().removeprefix("0x")
    found = [each for number, each in reader.view.rounds.items() if f"{number:064x}".startswith(digits)]
    if len(found) != 1:
        raise UsageError(f"{len(found)} rounds begin with {prefix}: `assay task show TASK` lists those of a task")
    return found[0]


def read_secret(file: Path | None) -> bytes:
    """32 bytes from a file or a prompt; never from the command line, which others can read."""
    text = click.prompt("secret (64 hexadecimal digits)", hide_input=True) if file is None else file.read_text()
    digits = text.strip().removeprefix("0x")
    try:
        secret = bytes.fromhex(digits)
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise UsageError(f"a secret has 64 hexadecimal digits, not {len(digits)} characters")
    return secret


def order_of(found: RoundRecord, secret: bytes) -> int:
    """The place of the true claim, which the verifier's commitment tells whoever has the secret."""
    from assay.market.types import RoundState
    from assay.market.verification import secret_hash

    if found.hidden is None or found.state not in (RoundState.COMMITTED, RoundState.SHOWN, RoundState.VOID):
        raise UsageError(
            f"round {found.id:#x} is {found.state.name.lower()}: a secret counts from commitment until answers close"
        )
    for order in (0, 1):
        if secret_hash(secret, order, found.verifier, found.id) == found.hidden.secret:
            return order
    raise UsageError(f"this is not the secret that {found.verifier} has committed to in round {found.id:#x}")


def bring(
    sender: Sender,
    market: Market,
    reader: MarketReader,
    found: RoundRecord,
    secret: bytes,
    order: int,
    pause: float,
    as_json: bool,
) -> Sent:
    """Both steps; the second in a later block than the first."""
    from assay.chain.errors import RevertedError
    from assay.chain.sender import Outcome
    from assay.market.errors import UnknownTaskError
    from assay.market.verification import leak_commitment

    for key in (f"leak-committed:{found.id:x}", f"leak-shown:{found.id:x}"):
        done = sender.find(key)
        if done is not None and sender.wait(key).outcome is Outcome.SUCCEEDED:
            return done
    note("committing to the secret", as_json)
    commitment = leak_commitment(secret, sender.address, found.id)
    sender.send(f"leak-commit:{found.id:x}", market.verification.commit_leak(commitment))
    note("bringing it, in a later block", as_json)
    while True:
        reader.poll()
        key, call = second_step(market, reader.view.rounds[found.id], secret, order)
        if call is None:
            state = reader.view.rounds[found.id].state.name.lower()
            raise UnknownTaskError(f"round {found.id:#x} is {state} by now: the secret came too late")
        try:
            sent = sender.send(key, call)
        except RevertedError as error:
            if "LeakNotCommitted" not in error.reason:
                raise
        else:
            if sent.outcome is Outcome.SUCCEEDED:
                return sent
            reader.poll()
            if second_step(market, reader.view.rounds[found.id], secret, order)[0] == key:
                raise UnknownTaskError(f"the chain refused the secret in {sent.hash}: see `assay task show`")
        time.sleep(pause)


def second_step(market: Market, found: RoundRecord, secret: bytes, order: int) -> tuple[str, Call | None]:
    """The transaction that voids the round, by what the verifier has shown so far."""
    from assay.market.types import RoundState

    if found.state is RoundState.COMMITTED and found.hidden is not None:
        return f"leak-committed:{found.id:x}", market.verification.leak(found.id, secret, order, found.hidden)
    if found.state is RoundState.SHOWN and found.shown is not None:
        return f"leak-shown:{found.id:x}", market.verification.leak_shown(found.id, secret, order, found.shown)
    return "", None
