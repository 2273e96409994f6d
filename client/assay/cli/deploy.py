"""`assay deploy`: the market's contracts onto any chain."""

from __future__ import annotations

import json
from pathlib import Path

import click

from assay.cli.options import json_option, note, settings_options
from assay.errors import UsageError
from assay.roles.session import open_chain_sender
from assay.settings import Settings


@click.command()
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("deployment.json"), show_default=True,
    help="File to write the addresses and parameters to (for chain.deployment).",
)  # fmt: skip
@click.option(
    "--windows", type=click.Choice(["public", "local"]), default="public", show_default=True,
    help="Which set of parameters: hours for people, or seconds for a chain on one machine.",
)  # fmt: skip
@click.option(
    "--parameter", "changes", multiple=True, metavar="NAME=NUMBER", help="Change one parameter; may be repeated."
)
@click.option("--show-parameters", is_flag=True, help="Print the parameters and deploy nothing.")
@settings_options
@json_option
def deploy(
    output: Path, windows: str, changes: tuple[str, ...], show_parameters: bool, settings: Settings, as_json: bool
) -> None:
    """Deploy the market with the account of the settings, and write its deployment file.

    Parameters can never be changed afterwards, and nobody owns the contracts. A deployment that was interrupted is
    finished by the same command.
    """
    from assay.market.deploy import deploy_market
    from assay.market.deployment import write_deployment
    from assay.market.parameters import LOCAL, LOCAL_COURT, PUBLIC, PUBLIC_COURT

    base, court = (LOCAL, LOCAL_COURT) if windows == "local" else (PUBLIC, PUBLIC_COURT)
    parameters = base.with_changes(changes_of(changes))
    if show_parameters:
        values = parameters.as_json()
        if as_json:
            click.echo(json.dumps(values))
            return
        for name, value in values.items():
            click.echo(f"{name:22} {value}")
        return
    with open_chain_sender(settings) as sender:
        deployment = deploy_market(
            sender, parameters, court, lambda name, address: note(f"{name:13} {address}", as_json)
        )
    write_deployment(deployment, output)
    if as_json:
        click.echo(json.dumps({**deployment.as_json(), "file": str(output)}))
    else:
        click.echo(f"deployed on chain {deployment.chain_id}; set chain.deployment to {output.resolve()}")


def changes_of(assignments: tuple[str, ...]) -> dict[str, int]:
    """NAME=NUMBER flags as a mapping. Raises `UsageError`."""
    changes = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not value.replace("_", "").isdigit():
            raise UsageError(f"--parameter {assignment}: write it as NAME=NUMBER, for instance commit_seconds=600")
        changes[name.replace("-", "_")] = int(value)
    return changes
