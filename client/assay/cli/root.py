"""The top of the command line: loads subcommands on demand and prints errors a user can act on."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import click

from assay import __version__
from assay.cli.registry import COMMANDS
from assay.errors import AssayError, printable


class LazyGroup(click.Group):
    """A click group whose subcommands are imported when they are first used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands that are installed, in the order of the registry."""
        return [name for name, entry in COMMANDS.items() if importlib.util.find_spec(entry.module) is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command; None where there is no such command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None or importlib.util.find_spec(entry.module) is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.module}:{entry.attribute} is a {type(command).__name__}, not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the registry's summaries, importing none of them."""
        rows = [(name, COMMANDS[name].summary) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="assay")
def cli() -> None:
    """Assay: a market for machine-learning training in which the work is proven."""


def _raise_exit(number: int, _frame: FrameType | None) -> None:
    """A signal handler: leave through every `finally`, so that chains and node processes are stopped."""
    sys.exit(128 + number)


def _tell(message: str, code: str, as_json: bool) -> None:
    shown = "error: " + printable(message, "\n\t")
    click.echo(json.dumps({"error": message, "code": code}) if as_json else shown, err=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Exit codes: 0 done, 1 an error a user can act on (its message on standard error; under `--json` as
    `{"error": ..., "code": ...}`), 2 wrong usage, 130 interrupted, 143 terminated.
    """
    signal.signal(signal.SIGTERM, _raise_exit)
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    try:
        result = cli.main(args=words, prog_name="assay", standalone_mode=False)
    except AssayError as error:
        _tell(str(error), error.code, as_json)
        sys.exit(1)
    except click.ClickException as error:
        if as_json:
            _tell(error.format_message(), "usage", as_json)
        else:
            error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # Whoever read the output has left; Python must not try to flush it at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        _tell(f"{error.filename}: {error.strerror}; check the path, its rights and the disk", "file", as_json)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    sys.exit(result if isinstance(result, int) else 0)
