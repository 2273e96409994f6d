"""The stores that the settings name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from assay.settings import Settings
from assay.storage.directory import DirectoryStore
from assay.storage.store import Store


def open_stores(settings: Settings) -> Sequence[Store]:
    """The stores files are fetched from; the first is the one files are put into."""
    kind = settings.text("storage.kind")
    directory = DirectoryStore(Path(settings.text("storage.folder")))
    if kind == "ipfs":
        from assay.storage.ipfs import IpfsStore

        return (IpfsStore(settings.text("storage.ipfs_address")), directory)
    if kind == "s3":
        from assay.storage.s3 import S3Store

        return (
            S3Store(settings.text("storage.s3_bucket"), endpoint=settings.text("storage.s3_endpoint") or None),
            directory,
        )
    return (directory,)
