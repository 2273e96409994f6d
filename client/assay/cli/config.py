"""`assay config`: what the settings are and where they come from."""

from __future__ import annotations

import json

import click

from assay.cli.options import json_option, settings_options
from assay.settings import SETTINGS, Settings, default_file


@click.group()
def config() -> None:
    """Show settings (flag > environment > file > default)."""


@config.command()
@settings_options
@json_option
def show(settings: Settings, as_json: bool) -> None:
    """Print every setting, its value, where that comes from, and what it means."""
    if as_json:
        rows = {
            name: {"value": settings.values[name], "origin": settings.origins[name], "variable": setting.variable}
            for name, setting in SETTINGS.items()
        }
        click.echo(json.dumps(rows))
        return
    width = max(len(name) for name in SETTINGS)
    for name, setting in SETTINGS.items():
        value = settings.values[name]
        click.echo(f"{name:{width}}  {value!s:36}  {settings.origins[name]:12}  {setting.meaning}")
    click.echo(f"\nsettings file: {default_file()}")
