"""`assay demo`: five acts of the market, played by separate processes on a local chain with an embedded store."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from assay.cli.options import json_option
from assay.errors import AssayError


class DemonstrationFailedError(AssayError):
    """An act did not end as it must."""

    code = "demo"


@click.command()
@click.option("--acts", default="acdeb", show_default=True, help="Which acts to play, by their letters.")
@click.option(
    "--folder", type=click.Path(file_okay=False, path_type=Path), help="Where chain data, files and logs are kept."
)
@json_option
def demo(acts: str, folder: Path | None, as_json: bool) -> None:
    """Play the market on this machine: an honest task, a lying verifier in court, a jackpot, a false accusation and a
    cheating solver. Exits with 1 unless every act ends as it must.
    """
    from assay.demo.acts import ACTS, Play
    from assay.demo.stage import Stage

    known = "".join(name for name, _, _ in ACTS)
    unknown = sorted(set(acts) - set(known))
    if unknown or not acts:
        raise click.BadParameter(f"there is no act {unknown or acts!r}: choose among the letters {known}")
    begin = time.monotonic()

    def say(line: str) -> None:
        click.echo(f"{time.monotonic() - begin:6.1f} s  {line}", err=as_json)

    place = folder or Path(tempfile.mkdtemp(prefix="assay-demo-"))
    place.mkdir(parents=True, exist_ok=True)
    played: list[Any] = []
    with contextlib.ExitStack() as stack:
        stage = Stage(place, say)
        stack.callback(stage.close)
        play = Play(stage)
        stack.callback(play.close)
        for name, title, story in ACTS:
            if name in acts:
                played.append(play.perform(name, title, functools.partial(story, play)))
        held, balance = play.ledger()
        sums = play.payments()
    balanced = balance >= held
    ok = balanced and all(act.ok for act in played)
    if as_json:
        document = {
            "ok": ok,
            "acts": [act.as_json() for act in played],
            "model": None if play.model is None else play.model.as_json(),
            "case": None if play.case is None else play.case.as_json(),
            "ledger": {"held": str(held), "balance": str(balance)},
            "seconds": round(time.monotonic() - begin, 1),
        }
        click.echo(json.dumps(document))
    else:
        _print_end(played, play, sums, held, balance)
    if not ok:
        wrong = [f"act ({act.name}): {sentence}" for act in played for sentence, true in act.checks if not true]
        raise DemonstrationFailedError(
            f"{'; '.join(wrong) or 'the ledger does not add up'}: the roles' logs are in {place}"
        )
    sys.stdout.flush()


def _print_end(played: list[Any], play: Any, sums: list[tuple[str, str, int]], held: int, balance: int) -> None:
    click.echo("\nWho paid whom (from the ledger's events, in coins):")
    for source, target, amount in sums:
        click.echo(f"  {source:34} -> {target:34} {amount / 1e18:10.4f}")
    click.echo(f"The ledger holds {held / 1e18:.4f} coins, its contract {balance / 1e18:.4f}.")
    if play.case is not None:
        click.echo(play.case.describe())
    if play.model is not None:
        click.echo(f"The proven model: {play.model.path} (test accuracy {play.model.test_accuracy:.1%})")
    for act in played:
        click.echo(
            f"act ({act.name}) {'as it must be' if act.ok else 'WRONG':14} {act.seconds:6.1f} s "
            f"{act.transactions:4} transactions  {act.title}"
        )
