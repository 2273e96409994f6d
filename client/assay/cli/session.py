"""What commands open from the settings: the market, the account's sender, stores, and the logs read so far."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from assay.accounts import open_keystore, read_password
from assay.chain.rpc import Chain
from assay.chain.sender import FeePolicy, Sender
from assay.market.connection import Market, connect, open_chain
from assay.market.deployment import Deployment, read_deployment
from assay.market.reader import MarketReader
from assay.settings import Settings, SettingsError
from assay.state import StateFolder

GWEI = 10**9


def deployment_of(settings: Settings) -> Deployment:
    """The deployment that `chain.deployment` names. Raises `SettingsError` where it names none."""
    return read_deployment(deployment_path(settings))


def deployment_path(settings: Settings) -> Path:
    """Path of the deployment file."""
    name = settings.text("chain.deployment")
    if not name:
        raise SettingsError("chain.deployment is not set: name the file that `assay deploy` or `assay chain up` wrote")
    return Path(name)


def open_market(settings: Settings) -> Market:
    """The market of the settings' deployment file on the settings' chain."""
    return connect(settings.text("chain.url"), deployment_path(settings))


def open_reader(settings: Settings, market: Market) -> MarketReader:
    """A reader that keeps its logs beside the state, so that the next command does not read them again."""
    deployment = market.deployment
    name = f"{deployment.chain_id}-{deployment.addresses['Market'].lower()[:12]}.sqlite"
    return MarketReader(
        market, Path(settings.text("state.folder")) / "logs" / name, settings.whole("chain.confirmations")
    )


def keystore_path(settings: Settings) -> Path:
    """Path of the account's key file."""
    name = settings.text("account.keystore")
    if not name:
        raise SettingsError("account.keystore is not set: make a key file with `assay account new`")
    return Path(name)


def fee_policy(settings: Settings) -> FeePolicy:
    """What the account pays for gas."""
    return FeePolicy(
        int(settings.number("chain.fee_cap") * GWEI),
        int(settings.number("chain.tip") * GWEI),
        settings.number("chain.stuck_seconds"),
    )


@contextlib.contextmanager
def open_sender(settings: Settings, market: Market) -> Iterator[Sender]:
    """The account's sender on a market's chain.

    Its journal lies in `state.folder`, which one process at a time owns: a role that runs for the same account would
    use the same nonces.
    """
    with _sender(settings, market.chain) as sender:
        yield sender


@contextlib.contextmanager
def open_chain_sender(settings: Settings) -> Iterator[Sender]:
    """The account's sender on the settings' chain, before there is any deployment."""
    with _sender(settings, open_chain(settings.text("chain.url"))) as sender:
        yield sender


@contextlib.contextmanager
def _sender(settings: Settings, chain: Chain) -> Iterator[Sender]:
    path = keystore_path(settings)
    account = open_keystore(path, read_password(f"password of {path}: ", settings.text("account.password_file")))
    with StateFolder(Path(settings.text("state.folder"))) as state:
        yield Sender(chain, account, state, fee_policy(settings), settings.whole("chain.confirmations"))


def note(sentence: str, as_json: bool) -> None:
    """Tell a person what is going on, on standard error; silent under --json."""
    if not as_json:
        click.echo(sentence, err=True)
