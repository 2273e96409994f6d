"""Whether tolerant mode can tell honest from dishonest training, before a task is posted: `assay task profile`, and the
same in `assay task submit` and `assay task estimate --profile`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from assay.cli.options import json_option, note, printing_aside, settings_options, step_counter
from assay.roles.session import use_threads
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
    """Profile FILE (task.toml) as a profiler would: thresholds, which forgeries they show, and which would pass.

    Ends with status 1 where training could be left out unseen: `assay task submit` would refuse the task.
    """
    from assay.tasks.build import build_bundle
    from assay.tasks.errors import TaskFileError
    from assay.tasks.task_file import read_task_file
    from assay.training.task import Mode

    use_threads(settings)
    described = read_task_file(file)
    if described.mode is Mode.EXACT:
        raise TaskFileError("the task is in exact mode, which has no thresholds to profile")
    limit = settings.whole("storage.limit_mib") << 20
    with tempfile.TemporaryDirectory(prefix="assay-profile-") as folder:
        with printing_aside():
            bundle = build_bundle(described, Path(folder), limit, lambda sentence: note(sentence, as_json))
        found = _profile(bundle, segments or described.market.profile_segments, as_json)
    names = [descriptor.name for descriptor in bundle.task.program.state]
    if as_json:
        thresholds = {name: _plain(float(value)) for name, value in zip(names, found.thresholds, strict=True)}
        click.echo(json.dumps(profile_record(found) | {"thresholds": thresholds}))
    else:
        click.echo(f"{'tensor':40s} threshold")
        for name, value in zip(names, found.thresholds, strict=True):
            click.echo(f"{name:40s} {value:.3g}")
        print_profile(found)
    if not found.acceptable:
        click.get_current_context().exit(1)


def profile_for_estimate(described: TaskFile, bundle: Bundle, as_json: bool) -> Profile | None:
    """The task's profile; None for an exact task, which has none."""
    from assay.training.task import Mode

    if described.mode is Mode.EXACT:
        return None
    note("profiling it as the market will, to see what tolerant mode would let pass", as_json)
    return _profile(bundle, described.market.profile_segments, as_json)


def require_separation(found: Profile | None, as_json: bool) -> None:
    """Print what a profile says; refuse a task in tolerant mode in which training could be left out unseen."""
    from assay.tasks.errors import TaskFileError

    if found is None:
        return
    if not found.separates:
        raise TaskFileError(
            f"{found.verdict}. The market would refuse the task and keep the fees of profiling; --unprofiled posts it "
            "all the same"
        )
    if not found.acceptable:
        raise TaskFileError(
            f"{found.verdict}. The market asks less and would take the task; --unprofiled posts it all the same"
        )
    if not as_json:
        print_profile(found)


def profile_record(found: Profile) -> dict[str, Any]:
    """A profile as JSON; what is infinite or no number is null."""
    return {
        "acceptable": found.acceptable,
        "separates": found.separates,
        "separations": [_plain(value) for value in found.separations],
        "forgeries": [
            {
                "kind": forgery.kind.name.lower(),
                "seen": forgery.seen,
                "grave": forgery.kind.grave,
                "distance": _plain(forgery.distance),
                "tensor": forgery.tensor,
                "segment": forgery.segment,
            }
            for forgery in found.forgeries
        ],
        "verdict": found.verdict,
    }


def print_profile(found: Profile) -> None:
    """Each kind of forgery with its distance where it shows least, and the verdict."""
    click.echo(f"{'what a forger may do':40s} thresholds away (at most 1 passes)")
    for forgery in found.forgeries:
        mark = "" if forgery.seen else "  WOULD PASS" if forgery.kind.grave else "  would pass"
        click.echo(f"{forgery.kind.value:40s} {forgery.distance:<9.3g} {forgery.tensor}{mark}")
    click.echo(found.verdict)


def _profile(bundle: Bundle, segments: int, as_json: bool) -> Profile:
    from assay.training.profile import profile as run_profile

    return run_profile(bundle.task, 0, segments, progress=step_counter("profiling", as_json))


def _plain(value: float) -> float | None:
    return float(f"{value:.6g}") if abs(value) < float("inf") else None
