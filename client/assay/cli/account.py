"""`assay account`: make, import and inspect key files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from assay.accounts import AccountError, create_keystore, import_keystore, keystore_address, read_password
from assay.chain.rpc import Chain
from assay.cli.options import ADDRESS, json_option, settings_options
from assay.settings import Settings, SettingsError


@click.group()
def account() -> None:
    """Make and inspect keystores."""


def _path(settings: Settings, file: Path | None) -> Path:
    chosen = file or (Path(settings.text("account.keystore")) if settings.text("account.keystore") else None)
    if chosen is None:
        raise SettingsError("no key file named: give one as FILE or set account.keystore")
    return chosen


@account.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@settings_options
@json_option
def new(file: Path | None, settings: Settings, as_json: bool) -> None:
    """Make a new key and write it encrypted to FILE."""
    path = _path(settings, file)
    password = read_password("password of the new key: ", settings.text("account.password_file"), confirm=True)
    _print(create_keystore(path, password), path, as_json)


@account.command("import")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True,
    help="File with the private key in hexadecimal.",
)  # fmt: skip
@settings_options
@json_option
def import_key(file: Path | None, key_file: Path, settings: Settings, as_json: bool) -> None:
    """Encrypt an existing private key into FILE."""
    path = _path(settings, file)
    try:
        key = key_file.read_text()
    except UnicodeDecodeError as error:
        raise AccountError(f"{key_file} holds no text: a private key has 64 hexadecimal digits") from error
    password = read_password("password of the key file: ", settings.text("account.password_file"), confirm=True)
    _print(import_keystore(path, key, password), path, as_json)


@account.command()
@click.argument("address", required=False, type=ADDRESS)
@settings_options
@json_option
def show(address: str | None, settings: Settings, as_json: bool) -> None:
    """Print the balance of ADDRESS, or of the key file's account."""
    if address is None:
        address = keystore_address(_path(settings, None))
    chain = Chain(settings.text("chain.url"))
    checksum = chain.web3.to_checksum_address(address)
    balance = chain.ask("asking for the balance", lambda: chain.web3.eth.get_balance(checksum))
    if as_json:
        click.echo(json.dumps({"address": checksum, "balance": str(balance)}))
    else:
        click.echo(f"{checksum}  {chain.web3.from_wei(balance, 'ether')} coins")


def _print(address: str, path: Path, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"address": address, "keystore": str(path)}))
    else:
        click.echo(f"{address}  in {path}")
