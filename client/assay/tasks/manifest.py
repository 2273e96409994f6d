"""The manifest of a task's bundle: what its files must be. Their names are fixed here, never taken from a manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from assay.program.errors import UnsupportedError
from assay.program.local_schedule import LocalSteps
from assay.program.lowering import LOWERING_VERSION
from assay.program.sections import Precision
from assay.tasks.errors import BundleError
from assay.tasks.fields import Fields
from assay.tasks.references import FileReference, parse_json, reference_of
from assay.training.task import MAX_STEPS, Mode

FORMAT = 1
ARITHMETIC = "binary32-1"
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST = 64 * 1024
PRECISIONS = {each.name.lower(): each for each in Precision}
FILE_NAMES = {
    "program": "program.assayprogram",
    "graph": "graph.json",
    "initial": "initial.safetensors",
    "data": "data.safetensors",
}


@dataclass(frozen=True)
class FileEntry:
    """One file of the bundle. `at` is empty until the bundle is published."""

    size: int
    digest: bytes
    at: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What a bundle says about itself. The chain holds the roots, the seed and the schedule as well, and counts."""

    title: str
    program_root: bytes
    graph_hash: bytes
    data_root: bytes
    initial_root: bytes
    lowering: int
    seed: int
    steps: int
    interval: int
    batch: int
    samples: int
    mode: Mode
    precision: Precision
    files: Mapping[str, FileEntry]
    local_steps: LocalSteps | None = None

    def with_places(self, places: Mapping[str, tuple[str, ...]]) -> Manifest:
        """The same with locators of the files."""
        return replace(self, files={name: replace(entry, at=places[name]) for name, entry in self.files.items()})

    def reference(self, name: str) -> FileReference:
        """Where a file of the bundle lies. Raises `BundleError` if the bundle was never published."""
        entry = self.files[name]
        if not entry.at:
            raise BundleError(f"the manifest does not say where {FILE_NAMES[name]} lies: publish the bundle first")
        return FileReference(entry.at, entry.size, entry.digest)


def dump_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON; the same bytes for the same manifest."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "arithmetic": ARITHMETIC,
        "lowering": manifest.lowering,
        "title": manifest.title,
        "roots": {
            "program": manifest.program_root.hex(),
            "graph": manifest.graph_hash.hex(),
            "data": manifest.data_root.hex(),
            "initial": manifest.initial_root.hex(),
        },
        "schedule": {
            "seed": manifest.seed,
            "steps": manifest.steps,
            "interval": manifest.interval,
            "batch": manifest.batch,
            "samples": manifest.samples,
            "mode": manifest.mode.value,
            "precision": manifest.precision.name.lower(),
        },
        "files": {
            name: {"bytes": entry.size, "sha256": entry.digest.hex(), "at": list(entry.at)}
            for name, entry in manifest.files.items()
        },
    }
    if manifest.local_steps is not None:
        # As hexadecimal, floats keep every bit.
        document["local_steps"] = {
            name: value.hex() if isinstance(value, float) else value
            for name, value in asdict(manifest.local_steps).items()
        }
    return json.dumps(document, sort_keys=True, indent=1).encode() + b"\n"


def load_manifest(content: bytes) -> Manifest:
    """Read a manifest strictly. Raises `BundleError` naming the first field that does not fit."""
    if len(content) > MAX_MANIFEST:
        raise BundleError(f"the manifest has {len(content)} bytes, {MAX_MANIFEST} are accepted")
    fields = Fields(parse_json(content, "the manifest", BundleError), "manifest", BundleError)
    if fields.whole("format", 0, 2**31) != FORMAT:
        raise BundleError(f"the manifest is not of format {FORMAT}, which this client reads: use a newer client")
    if fields.text("arithmetic") != ARITHMETIC:
        raise BundleError(f"the manifest asks for another arithmetic than {ARITHMETIC}: use a newer client")
    lowering = fields.whole("lowering", 1, 2**16 - 1)
    if lowering != LOWERING_VERSION:
        raise BundleError(
            f"the manifest asks for lowering {lowering}, this client has {LOWERING_VERSION}: use another client version"
        )
    title = fields.text("title", most=200)
    roots, schedule, files = fields.table("roots"), fields.table("schedule"), fields.table("files")
    steps = schedule.whole("steps", 1, MAX_STEPS)
    manifest = Manifest(
        title,
        roots.digest("program"),
        roots.digest("graph"),
        roots.digest("data"),
        roots.digest("initial"),
        lowering,
        schedule.whole("seed", 0, 2**64 - 1),
        steps,
        schedule.whole("interval", 1, steps),
        schedule.whole("batch", 1, 2**31 - 1),
        schedule.whole("samples", 1, 2**31 - 1),
        Mode(schedule.choice("mode", [each.value for each in Mode])),
        PRECISIONS[schedule.choice("precision", list(PRECISIONS))],
        {name: _entry(files.table(name).rest(), name) for name in FILE_NAMES},
        _local_steps(fields.table("local_steps", required=False)),
    )
    for table in (roots, schedule, files, fields):
        table.finish()
    return manifest


def _local_steps(fields: Fields) -> LocalSteps | None:
    if fields.empty:
        return None
    try:
        settings = LocalSteps(
            fields.whole("members", 2, 64),
            fields.whole("inner_steps", 1, MAX_STEPS),
            fields.whole("bits", 2, 8),
            float.fromhex(fields.text("outer_learning_rate", most=64)),
            float.fromhex(fields.text("outer_momentum", most=64)),
        )
    except (UnsupportedError, ValueError, OverflowError) as error:
        raise BundleError(f"manifest.local_steps: {error}") from error
    fields.finish()
    return settings


def _entry(value: Any, name: str) -> FileEntry:
    if isinstance(value, dict) and value.get("at") == []:
        fields = Fields(
            {key: each for key, each in value.items() if key != "at"}, f"manifest.files.{name}", BundleError
        )
        entry = FileEntry(fields.whole("bytes", 1, 2**63 - 1), fields.digest("sha256"))
        fields.finish()
        return entry
    reference = reference_of(value, f"manifest.files.{name}")
    return FileEntry(reference.size, reference.digest, reference.at)
