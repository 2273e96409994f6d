"""The store that the settings name."""

from __future__ import annotations

from pathlib import Path

from assay.settings import Settings
from assay.storage.directory import DirectoryStore
from assay.storage.errors import StorageError
from assay.storage.ipfs import IpfsStore
from assay.storage.store import Store


def open_store(settings: Settings) -> Store:
    """The store of `storage.kind`. Raises `StorageError` where a setting is missing."""
    kind = settings.text("storage.kind")
    if kind == "ipfs":
        return IpfsStore(settings.text("storage.ipfs_address"))
    if kind == "s3":
        # boto3 is an extra.
        from assay.storage.s3 import S3Store

        bucket = settings.text("storage.s3_bucket")
        if not bucket:
            raise StorageError("storage.kind is s3 and storage.s3_bucket is empty: name the bucket")
        return S3Store(bucket, endpoint=settings.text("storage.s3_endpoint") or None)
    return DirectoryStore(Path(settings.text("storage.folder")))
