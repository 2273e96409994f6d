"""Whether tolerant mode can tell honest from dishonest training, before a task is posted: `assay task profile`, and the
same in `assay task submit`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from assay.cli.options import json_option, note, settings_options, step_counter
from assay.settings import Settings

if TYPE_CHECKING:
    from assay.tasks.bundle import Bundle
    from assay.tasks.task_file import TaskFile
    from assay.training.profile import Profile


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), default=Path("task.toml"))
@click.option("--segments", type=click.IntRange(1), help="Segments to profile instead of the task file's.")
@settings_options
@json_option
def profile(file: Path, segments: int | None, settings: Settings, as_json: bool) -> None:
    """Profile FILE (task.toml) as a profiler would: thresholds, and whether they separate.

    Ends with status 1 where they do not: the market would refuse the task, and keep the fees of profiling.
    """
    from assay.program.sections import Precision
    from assay.tasks.build import build_bundle
    from assay.tasks.errors import TaskFileError
    from assay.tasks.task_file import read_task_file
    from assay.training.task import Mode

    described = read_task_file(file)
    if described.mode is Mode.EXACT:
        raise TaskFileError("the task is in exact mode, which has no thresholds to profile")
    limit = settings.whole("storage.limit_mib") << 20
    with tempfile.TemporaryDirectory(prefix="assay-profile-") as folder:
        bundle = build_bundle(described, Path(folder), limit, lambda sentence: note(sentence, as_json))
        found = _profile(bundle, segments or described.market.profile_segments, as_json)
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
        click.echo(f"{'tensor':40s} threshold")
        for name, value in zip(names, found.thresholds, strict=True):
            click.echo(f"{name:40s} {value:.3g}")
        click.echo(found.verdict)
        if described.precision is Precision.TF32:
            click.echo("what is trained at bf16 can pass as tf32: where that matters, declare fp32 or use exact mode")
    if not found.separates:
        click.get_current_context().exit(1)


def require_separation(described: TaskFile, bundle: Bundle, as_json: bool) -> None:
    """Refuse a task in tolerant mode that the market's profilers would refuse: they compute the same bits."""
    from assay.tasks.errors import TaskFileError
    from assay.training.task import Mode

    if described.mode is Mode.EXACT:
        return
    note("profiling it as the market will, to see whether tolerant mode separates", as_json)
    found = _profile(bundle, described.market.profile_segments, as_json)
    if not found.separates:
        raise TaskFileError(
            f"{found.verdict}. The market would refuse the task and keep the fees of profiling; --unprofiled posts it "
            "all the same"
        )
    note(found.verdict, as_json)


def _profile(bundle: Bundle, segments: int, as_json: bool) -> Profile:
    from assay.training.profile import profile as run_profile

    return run_profile(bundle.task, 0, segments, progress=step_counter("profiling", as_json))
