"""What the settings name, opened: the market, the account's journal and sender, and the logs read so far."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from assay.accounts import AccountLock, open_keystore, read_password
from assay.chain.identity import ChainIdentity, block_hash, identify
from assay.chain.rpc import Chain
from assay.chain.sender import FeePolicy, Sender
from assay.market.connection import Market, connect, open_chain
from assay.market.deployment import Deployment, read_deployment
from assay.market.reader import MarketReader
from assay.settings import Settings, SettingsError
from assay.state import StateError, StateFolder

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


def use_threads(settings: Settings) -> None:
    """Run what is canonical on as many threads as `compute.threads` says, from now on in this process."""
    if settings.whole("compute.threads"):
        from assay.engine.cpu import isa  # only who computes waits for the kernels' compiler

        isa.set_threads(settings.whole("compute.threads"))


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
    if not Path(name).is_file():
        raise SettingsError(
            f"there is no key file {name}: correct account.keystore, or make it with `assay account new`"
        )
    return Path(name)


def fee_policy(settings: Settings) -> FeePolicy:
    """What the account pays for gas."""
    return FeePolicy(
        int(settings.number("chain.fee_cap") * GWEI),
        int(settings.number("chain.tip") * GWEI),
        settings.number("chain.stuck_seconds"),
    )


def open_sender(settings: Settings, market: Market) -> contextlib.AbstractContextManager[Sender]:
    """The account's sender on a market's chain; its journal and secrets are `Sender.state`."""
    return _account(settings, market.chain, market.deployment)


def open_chain_sender(settings: Settings) -> contextlib.AbstractContextManager[Sender]:
    """The account's sender on the settings' chain, before there is any deployment."""
    return _account(settings, open_chain(settings.text("chain.url")), None)


@contextlib.contextmanager
def _account(settings: Settings, chain: Chain, deployment: Deployment | None) -> Iterator[Sender]:
    path = keystore_path(settings)
    account = open_keystore(path, read_password(f"password of {path}: ", settings.text("account.password_file")))
    identity = identify(chain)
    place = state_path(Path(settings.text("state.folder")), identity, deployment, str(account.address))
    with AccountLock(str(account.address), f"{identity.name}-{identity.first[2:10]}"), StateFolder(place) as state:
        if deployment is not None:
            bind(state, chain, identity, deployment)
        yield Sender(chain, account, state, fee_policy(settings), settings.whole("chain.confirmations"))


def state_path(base: Path, identity: ChainIdentity, deployment: Deployment | None, address: str) -> Path:
    """Where an account's journal and secrets for one deployment on one chain lie: another chain has others."""
    market = "" if deployment is None else f"-{deployment.addresses['Market'][2:10].lower()}"
    return base / f"{identity.name}{market}" / address.lower()


def bind(state: StateFolder, chain: Chain, identity: ChainIdentity, deployment: Deployment) -> None:
    """Tie a state folder to the market it is used with. Raises `StateError` where it belongs to another one.

    A private chain that was made anew from the same genesis block has everything in common with the old one but its
    later blocks: the deployment's tells.
    """
    digest = block_hash(chain, deployment.block)
    here = f"{identity}, market {deployment.addresses['Market']} deployed in block {deployment.block} ({digest[:18]}..)"
    known = state.put_once("market", here)
    if known != here:
        raise StateError(
            f"{state.folder} belongs to {known}; {chain.url} serves {here}. Correct chain.url and chain.deployment, or "
            "give another folder with --set state.folder=PATH"
        )
