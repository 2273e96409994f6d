"""What many commands share: flags, spelled once, and how they talk."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from assay.settings import Settings, SettingsError, load_settings

Command = Callable[..., Any]


def json_option(command: Command) -> Command:
    """--json: one JSON document on standard output and nothing else there."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON on standard output.")(command)


def settings_options(command: Command) -> Command:
    """--config, --set and --rpc; the command gets `settings`."""

    @click.option("--config", "config_file", type=click.Path(dir_okay=False, path_type=Path), help="Settings file.")
    @click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="Override a setting.")
    @click.option("--rpc", help="RPC endpoint of the chain (chain.url).")
    @functools.wraps(command)
    def wrapped(
        *arguments: Any, config_file: Path | None, assignments: tuple[str, ...], rpc: str | None, **options: Any
    ) -> Any:
        settings = settings_from(config_file, assignments, {"chain.url": rpc})
        return command(*arguments, settings=settings, **options)

    return wrapped


def settings_from(config_file: Path | None, assignments: tuple[str, ...], named: dict[str, Any]) -> Settings:
    """Settings from the flags of a command."""
    flags: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise SettingsError(
                f"--set {assignment}: write it as NAME=VALUE, for instance chain.url=http://127.0.0.1:8545"
            )
        flags[name] = value
    flags.update({name: value for name, value in named.items() if value is not None})
    return load_settings(flags, config_file)


def note(sentence: str, as_json: bool) -> None:
    """Tell a person what is going on, on standard error; silent under --json."""
    if not as_json:
        click.echo(sentence, err=True)


def printing_aside() -> contextlib.AbstractContextManager[object]:
    """While the submitter's own code runs: what it prints goes to standard error, where it is no part of the answer."""
    return contextlib.redirect_stdout(sys.stderr)


def step_counter(what: str, as_json: bool) -> Callable[[int, int], None] | None:
    """A line on standard error that counts steps, on terminals only."""
    if as_json or not sys.stderr.isatty():
        return None

    def tell(done: int, steps: int) -> None:
        click.echo(f"\r{what}: {done} of {steps} steps", nl=done == steps, err=True)

    return tell


def print_written(paths: list[Path], as_json: bool) -> None:
    """Name the files that a command wrote."""
    if as_json:
        click.echo(json.dumps({"written": [str(path) for path in paths]}))
    else:
        click.echo("\n".join(f"wrote {path}" for path in paths))


class AddressType(click.ParamType[str]):
    """An account's address; its value has the checksum's capitals."""

    name = "address"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from eth_utils.address import is_address, to_checksum_address

        if not is_address(value):
            self.fail(f"{value!r} is no address: it has 0x and 40 hexadecimal digits", param, ctx)
        return str(to_checksum_address(value))


ADDRESS = AddressType()
