"""Files to start from: every key of task.toml, cluster.toml and group.toml with what it means.

`assay task new` and `assay group new` write them; the readers of these files are held to them by tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from assay.errors import AssayError

TASK = ("task.toml", "model.py")
GROUP = ("cluster.toml", "group.toml")
SAMPLES = "samples.npz"
ARMS, POINTS = 3, 256
"""Classes of the sample data, and points of each."""


class TemplateError(AssayError):
    """A file to start from cannot be written there."""

    code = "template"


def write_templates(names: Sequence[str], folder: Path) -> list[Path]:
    """Write the named files into `folder`, made if need be. Raises `TemplateError` rather than replace a file."""
    _refuse_to_replace([folder / name for name in names])
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in names:
        written.append(folder / name)
        written[-1].write_text(template(name), encoding="utf-8")
    return written


def write_task(folder: Path) -> list[Path]:
    """A whole task: its file, a model and samples to train it on."""
    samples = folder / SAMPLES
    _refuse_to_replace([samples])
    written = write_templates(TASK, folder)
    points, arms = spirals()
    np.savez(samples, points=points, arms=arms)
    return [*written, samples]


def template(name: str) -> str:
    """The text of one of `TASK` or `GROUP`."""
    return resources.files("assay.templates").joinpath(name).read_text(encoding="utf-8")


def spirals() -> tuple[np.ndarray, np.ndarray]:
    """Points of three spiral arms around the origin, (768, 2) float32, and each one's arm, (768,) int64."""
    generator = np.random.default_rng(0)
    radius = np.tile(np.linspace(0.1, 1.0, POINTS), ARMS)
    arms = np.repeat(np.arange(ARMS), POINTS)
    angle = 4.0 * radius + arms * (2.0 * np.pi / ARMS) + generator.normal(0.0, 0.1, radius.size)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return points.astype(np.float32), arms.astype(np.int64)


def _refuse_to_replace(paths: Sequence[Path]) -> None:
    there = [str(path) for path in paths if path.exists()]
    if there:
        raise TemplateError(f"{', '.join(there)} exists: name another folder, or remove it")
