"""References to files in stores: where a file may lie, how large it is, and its SHA-256.

A task's `locations` on chain is one reference, to the bundle's or proof's manifest, as compact JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import AssayError
from assay.storage.directory import file_digest
from assay.storage.errors import NotFoundError, StorageError, TooLargeError
from assay.storage.store import MAX_LOCATOR, Progress, Store, fetch, name_of, partial_of
from assay.tasks.errors import BundleError
from assay.tasks.fields import Fields

MAX_LOCATIONS = 4096
"""Bytes of a `locations` text that are looked at."""
MAX_PLACES = 8


@dataclass(frozen=True)
class FileReference:
    """A file of `size` bytes with SHA-256 `digest`, said to lie at each of the locators `at`."""

    at: tuple[str, ...]
    size: int
    digest: bytes

    def as_json(self) -> dict[str, Any]:
        return {"at": list(self.at), "bytes": self.size, "sha256": self.digest.hex()}

    def encode(self) -> str:
        """Compact JSON, for `locations` on chain."""
        return json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"))


def reference_of(value: Any, name: str, error: type[AssayError] = BundleError) -> FileReference:
    """The reference in a JSON value. Raises `error` naming what does not fit."""
    fields = Fields(value, name, error)
    reference = FileReference(
        fields.texts("at", MAX_PLACES), fields.whole("bytes", 1, 2**63 - 1), fields.digest("sha256")
    )
    fields.finish()
    for locator in reference.at:
        if len(locator) > MAX_LOCATOR:
            raise error(f"{name}.at has a locator of {len(locator)} characters: at most {MAX_LOCATOR} are accepted")
    return reference


def parse_json(content: bytes | str, name: str, error: type[AssayError]) -> Any:
    """A JSON document without duplicate keys, NaN, or lone surrogates. Raises `error`."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(items)
        if len(table) != len(items):
            raise ValueError("a key stands twice")
        return table

    def refuse(text: str) -> Any:
        raise ValueError(f"{text} is no JSON number")

    try:
        return json.loads(content, object_pairs_hook=pairs, parse_constant=refuse)
    except (ValueError, RecursionError) as problem:
        raise error(f"{name} is not JSON: {problem}") from None


def decode_locations(text: str, error: type[AssayError] = BundleError) -> FileReference:
    """The reference in an on-chain `locations` text."""
    if len(text) > MAX_LOCATIONS:
        raise error(f"the locations on chain have {len(text)} characters: at most {MAX_LOCATIONS} are accepted")
    return reference_of(parse_json(text, "the locations on chain", error), "locations", error)


def put_file(store: Store, path: Path, progress: Progress | None = None) -> FileReference:
    """Store a file; returns a reference to it."""
    digest = bytes.fromhex(file_digest(path))
    return FileReference((store.put(path, progress),), path.stat().st_size, digest)


def fetch_file(
    stores: Sequence[Store], reference: FileReference, target: Path, limit: int, progress: Progress | None = None
) -> Path:
    """Fetch a file to `target` from the first place that serves exactly it.

    A file already at `target` with the right content is taken as it is. Raises `TooLargeError` where the reference says
    more than `limit` bytes, else the last `StorageError`.
    """
    if reference.size > limit:
        raise TooLargeError(
            f"{target.name} has {reference.size} bytes, {limit} are accepted: raise storage.limit_mib to take it"
        )
    if target.exists() and target.stat().st_size == reference.size and _is(target, reference):
        return target
    last: StorageError | None = None
    known = {store.scheme for store in stores}
    for locator in reference.at:
        for store in stores:
            if locator.partition(":")[0] != store.scheme:
                continue
            try:
                name_of(locator, store.scheme)  # what is no locator at all is not worth asking for again and again
                continued = partial_of(target).exists()
                fetch(store, locator, target, limit, reference.size, progress=progress)
                if continued and not _is(target, reference):
                    # What was continued came from a place that serves other bytes, or a crash has damaged it.
                    target.unlink()
                    fetch(store, locator, target, limit, reference.size, progress=progress)
            except StorageError as error:
                last = error
                continue
            if _is(target, reference):
                return target
            target.unlink()
            last = StorageError(
                f"{locator} holds other bytes than its reference says: fetch it from another place, or tell its owner"
            )
    if last is None:
        schemes = sorted({locator.partition(":")[0] for locator in reference.at})
        raise NotFoundError(
            f"{target.name} lies in a store of kind {', '.join(schemes)}, this client uses {', '.join(sorted(known))}: "
            "set storage.kind"
        )
    raise last


def _is(path: Path, reference: FileReference) -> bool:
    return file_digest(path) == reference.digest.hex()
