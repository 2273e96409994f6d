"""The stores that the settings name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from assay.settings import Settings
from assay.storage.directory import DirectoryStore
from assay.storage.open import open_store
from assay.storage.store import Store


def open_stores(settings: Settings) -> Sequence[Store]:
    """The stores files are fetched from; the first is the one files are put into. The directory is always looked at."""
    chosen = open_store(settings)
    if isinstance(chosen, DirectoryStore):
        return (chosen,)
    return (chosen, DirectoryStore(Path(settings.text("storage.folder"))))
