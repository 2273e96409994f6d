"""`assay task profile`: whether tolerant mode can tell honest from dishonest training, before a task is posted."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from assay.cli.options import json_option, note, settings_options
from assay.settings import Settings


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--segments", type=click.IntRange(1), help="Segments to profile instead of the task file's.")
@settings_options
@json_option
def profile(file: Path, segments: int | None, settings: Settings, as_json: bool) -> None:
    """Profile FILE (task.toml) as a profiler would: thresholds, and whether they separate.

    Ends with status 1 where they do not: the market would refuse the task, and keep the fees of profiling.
    """
    from assay.tasks.build import build_bundle
    from assay.tasks.errors import TaskFileError
    from assay.tasks.task_file import read_task_file
    from assay.training.profile import profile as run_profile
    from assay.training.task import Mode

    described = read_task_file(file)
    if described.mode is Mode.EXACT:
        raise TaskFileError("the task is in exact mode, which has no thresholds to profile")
    limit = settings.whole("storage.limit_mib") << 20
    with tempfile.TemporaryDirectory(prefix="assay-profile-") as folder:
        bundle = build_bundle(described, Path(folder), limit, lambda sentence: note(sentence, as_json))
        found = run_profile(bundle.task, 0, segments or described.market.profile_segments)
    names = [descriptor.name for descriptor in bundle.task.program.state]
    if as_json:
        record = {
            "separates": found.separates,
            "separations": [float(f"{value:.6g}") if value == value else None for value in found.separations],
            "verdict": found.verdict,
            "thresholds": {
                name: float(f"{value:.6g}") if value < float("inf") else None
                for name, value in zip(names, found.thresholds, strict=True)
            },
        }
        click.echo(json.dumps(record))
    else:
        for name, value in zip(names, found.thresholds, strict=True):
            click.echo(f"{name:40s} {value:.3g}")
        click.echo(found.verdict)
    if not found.separates:
        click.get_current_context().exit(1)
