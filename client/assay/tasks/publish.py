"""Bundles in stores: publishing one, and fetching one by what the chain says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from assay.storage.store import Progress, Store
from assay.tasks.bundle import Bundle, BundleLimits, load_bundle, read_manifest
from assay.tasks.manifest import FILE_NAMES, MANIFEST_NAME, MAX_MANIFEST, dump_manifest
from assay.tasks.references import decode_locations, fetch_file, put_file

FileProgress = Callable[[str], Progress | None]
"""Gives a progress callback for a file's name."""


def _silent(_name: str) -> Progress | None:
    return None


def publish_bundle(store: Store, bundle: Bundle, progress: FileProgress = _silent) -> str:
    """Store the files and then the manifest that says where they are; returns the `locations` text for the chain.

    Storing the same bundle again is cheap and gives the same text.
    """
    places = {
        name: put_file(store, bundle.folder / file_name, progress(file_name)).at
        for name, file_name in FILE_NAMES.items()
    }
    path = bundle.folder / MANIFEST_NAME
    path.write_bytes(dump_manifest(bundle.manifest.with_places(places)))
    return put_file(store, path).encode()


def fetch_bundle(
    stores: Sequence[Store],
    locations: str,
    folder: Path,
    limits: BundleLimits | None = None,
    progress: FileProgress = _silent,
    check_lowering: bool = True,
) -> Bundle:
    """Fetch a task's files to `folder` and load them. What is already there is not fetched again.

    The caller compares the result with the chain (`assay.tasks.posting.check_posting`) before using it.
    """
    limits = limits or BundleLimits()
    folder.mkdir(parents=True, exist_ok=True)
    fetch_file(stores, decode_locations(locations), folder / MANIFEST_NAME, MAX_MANIFEST)
    manifest = read_manifest(folder)
    for name, file_name in FILE_NAMES.items():
        fetch_file(stores, manifest.reference(name), folder / file_name, limits.of(name), progress(file_name))
    return load_bundle(folder, limits, check_lowering)
